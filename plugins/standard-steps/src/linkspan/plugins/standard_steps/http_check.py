"""``http-check``: ask an address until it answers as expected, or until every replica has answered."""

import importlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import attrs
import trio

from linkspan.plugins.standard_steps.base import StandardStep
from linkspan.plugins.standard_steps.network_names import addresses, split_name
from linkspan.sdk.drivers.step import MISSING, StepContext
from linkspan.sdk.errors import LinkspanError, NotFound
from linkspan.sdk.model.step import StepIntent, StepOutcome, StepPlan
from linkspan.sdk.values import frozen

_MAX_BODY: Final = 64 * 1024
_SHOWN: Final = 200
"""Characters of a body that a message shows."""


class CheckFailed(LinkspanError):
    """The address did not answer as expected in time."""

    default_code = "check_failed"


@frozen(kw_only=True)
class Answer:
    """What came back: a whole answer, or why there was none."""

    status: int = 0
    body: str = ""
    headers: Mapping[str, str] = attrs.field(factory=dict)
    fault: str = ""


class HttpCheckStep(StandardStep):
    """Changes nothing, so there is nothing to undo. It asks from the host's network, which reaches all others."""

    async def plan(self, intent: StepIntent) -> StepPlan:
        """Nothing changes.

        Raises:
            NotFound: It names a network that is not here; code ``network_not_found``.
        """
        network = intent.settings.get("network", "")
        if network:
            try:
                self.host.engine.networks.inspect(network)
            except NotFound as error:
                raise NotFound(
                    f"network {network} not found",
                    code="network_not_found",
                    help=f"linkspan network create {network}",
                    details={MISSING: f"network {network}"},
                ) from error
        return StepPlan()

    async def apply(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Ask until the answer is right, and, with ``replicas``, until that many have answered.

        Each question has a connection of its own: a balanced port chooses a replica by connection.

        Raises:
            CheckFailed: Not within ``within``; the message has the last answer.
        If cancelled: no connection is left.
        """
        settings = intent.settings
        # A fifth of a second to import, most daemons never ask, and it is no part of `within`.
        await trio.to_thread.run_sync(importlib.import_module, "httpx")
        wanted: int = settings.get("replicas", 1)
        seen: dict[str, Answer] = {}
        last = Answer(fault="it was never asked")
        asked = 0
        with trio.move_on_after(settings["within"]):
            while True:
                last = await self._ask(settings, asked)
                asked += 1
                fault = why_not(last, settings.get("expect", {}))
                if not fault:
                    seen.setdefault(identity(last, settings.get("by", "")), last)
                    if len(seen) >= wanted:
                        break
                    continue
                # While all is well the replicas are asked in a row; a fault needs a little time.
                await trio.sleep(settings["interval"])
        if len(seen) < wanted:
            raise self._failed(settings, seen, last, asked)
        context.log(f"{settings['url']} answered as expected, {asked} asked")
        for name in sorted(seen) if wanted > 1 else ():
            context.log(f"answered by {name}")
        return {"status": last.status, "body": last.body[:4096], "answers": sorted(seen)}

    async def _ask(self, settings: Mapping[str, Any], number: int) -> Answer:
        """Ask once; of several that have the name in a network, one after the other."""
        try:
            name = urlsplit(settings["url"]).hostname or ""
        except ValueError as error:
            return Answer(fault=str(error))
        network = settings.get("network", "")
        if not network:
            name, network = split_name(self.host, name)
        if not network:
            return await ask(settings)
        try:
            found = addresses(self.host, network, name.removesuffix(f".{network}"))
        except NotFound as error:
            return Answer(fault=error.message)
        if not found:
            return Answer(fault=f"nothing is called '{name}' in network {network}")
        return await ask(settings, found[number % len(found)])

    def _failed(
        self, settings: Mapping[str, Any], seen: Mapping[str, Answer], last: Answer, asked: int
    ) -> CheckFailed:
        fault = why_not(last, settings.get("expect", {}))
        wanted = settings.get("replicas", 1)
        if seen and wanted > 1:
            reason = f"{len(seen)} of {wanted} replicas answered: {', '.join(sorted(seen))}"
            if fault:
                reason += f"; then {fault}"
        else:
            reason = fault or "no answer"
        return CheckFailed(
            f"{settings['url']}: {reason} (asked {asked} times in {settings['within']:g}s)",
            help=f"curl -i {settings['url']}",
        )

    async def observe(self, intent: StepIntent) -> StepOutcome:
        """A question that was cut off is asked again."""
        return StepOutcome(applied=False, detail="it changes nothing; asked again")


async def ask(settings: Mapping[str, Any], address: str = "") -> Answer:
    """Ask once, over a connection of its own; faults of the network are in the answer.

    Args:
        settings: Of the step.
        address: Where to connect to, whatever the name in the URL means elsewhere.
    """
    import httpx

    try:
        async with httpx.AsyncClient(
            timeout=settings["timeout"], trust_env=False, follow_redirects=False
        ) as client:
            url, headers = httpx.URL(settings["url"]), {"Connection": "close"}
            extensions: dict[str, Any] = {}
            if address:
                headers["Host"] = url.netloc.decode()
                extensions["sni_hostname"] = url.host
                url = url.copy_with(host=address)
            request = client.build_request(
                "GET",
                url,
                headers={**headers, **settings.get("headers", {})},
                extensions=extensions,
            )
            response = await client.send(request, stream=True)
            try:
                body = await _body(response)
            finally:
                await response.aclose()
            return Answer(status=response.status_code, body=body, headers=dict(response.headers))
    except httpx.TimeoutException:
        return Answer(fault=f"no answer for {settings['timeout']:g}s")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Answer(fault=str(error) or type(error).__name__)


class _Streamed(Protocol):
    def aiter_bytes(self) -> AsyncIterator[bytes]: ...


async def _body(response: _Streamed) -> str:
    data = b""
    async for chunk in response.aiter_bytes():
        data += chunk
        if len(data) > _MAX_BODY:
            break
    return data[:_MAX_BODY].decode("utf-8", "replace")


def why_not(answer: Answer, expect: Mapping[str, Any]) -> str:
    """Why an answer is not the expected one; empty if it is."""
    if answer.fault:
        return answer.fault
    status = expect.get("status", 200)
    shown = answer.body.strip()[:_SHOWN]
    if answer.status != status:
        return f"status {answer.status}, expected {status}" + (f": {shown}" if shown else "")
    part = expect.get("body", "")
    if part and part not in answer.body:
        return f"the body does not contain '{part}': {shown}"
    return ""


def identity(answer: Answer, by: str) -> str:
    """What tells one replica's answer from another's: a header, or the whole body."""
    if by:
        return answer.headers.get(by.lower(), "")
    return answer.body.strip()
