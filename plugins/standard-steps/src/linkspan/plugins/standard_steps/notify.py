"""``notify``: a message to people, by a webhook."""

import importlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Self
from urllib.parse import urlsplit

import attrs
import trio

from linkspan.sdk.drivers.step import Step, StepContext
from linkspan.sdk.errors import InvalidArgument, LinkspanError, NotFound, Unavailable
from linkspan.sdk.host import Host
from linkspan.sdk.model.step import StepChange, StepIntent, StepOutcome, StepPlan
from linkspan.sdk.values import frozen

_SHOWN: Final = 200
"""Characters of an answer that a message shows."""


@frozen(kw_only=True)
class Channel:
    """Where messages go.

    Attributes:
        url: A webhook; often a secret in itself, so it is never shown.
        format: ``json`` (title, text, level, run, job, step), ``slack`` (also Mattermost, Rocket.Chat and
            Discord's ``/slack``), ``teams`` or ``text`` (the bare text).
        headers: Of the request.
    """

    url: str = ""
    format: str = "json"
    headers: dict[str, str] = attrs.field(factory=dict)


@frozen(kw_only=True)
class NotifyConfig:
    """``[step.notify]``.

    Attributes:
        channels: By name: ``[step.notify.channels.releases] url = "https://..."``.
    """

    channels: dict[str, Channel] = attrs.field(factory=dict)


class NotDelivered(LinkspanError):
    """The other side refused the message."""

    default_code = "not_delivered"


class NotifyStep(Step[NotifyConfig]):
    """Sends one request. Its ``Idempotency-Key`` is the step's own, so that a repeat can be told."""

    config_type = NotifyConfig

    def __init__(self, config: NotifyConfig) -> None:
        self._channels = config.channels

    @classmethod
    @asynccontextmanager
    async def open(cls, config: NotifyConfig, host: Host) -> AsyncIterator[Self]:
        """Nothing is acquired."""
        yield cls(config)

    def _channel(self, settings: Mapping[str, Any]) -> tuple[Channel, str]:
        """The channel and how messages name it, without its secrets."""
        name, url = settings.get("channel", ""), settings.get("url", "")
        if bool(name) == bool(url):
            raise InvalidArgument(
                "notify takes either 'channel' or 'url'",
                help="with: {channel: releases, text: ...}",
            )
        if url:
            channel = Channel(
                url=url, format=settings.get("format", "json"), headers=settings.get("headers", {})
            )
            return channel, f"the webhook at {_host(url)}"
        if name not in self._channels:
            known = ", ".join(sorted(self._channels)) or "none"
            raise NotFound(
                f"there is no channel '{name}' in the daemon's config (there is: {known})",
                help=f'[step.notify.channels.{name}] url = "https://..."',
            )
        return self._channels[name], f"channel {name}"

    async def plan(self, intent: StepIntent) -> StepPlan:
        """Who will hear of it."""
        channel, name = self._channel(intent.settings)
        _host(channel.url)
        return StepPlan(changes=(StepChange(action="create", what=f"a message to {name}"),))

    async def apply(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Send.

        Raises:
            NotFound, InvalidArgument: No such channel; the address is none.
            Unavailable: It cannot be reached, or says 429 or 5xx.
            NotDelivered: It said something else than 2xx.
        If cancelled: it was sent or not.
        """
        channel, name = self._channel(intent.settings)
        host = _host(channel.url)
        await trio.to_thread.run_sync(importlib.import_module, "httpx")
        import httpx

        body = _body(channel.format, intent)
        key = f"{intent.run_id}/{intent.job}/{intent.step}"
        headers = {"Idempotency-Key": key, "User-Agent": "linkspan", **channel.headers}
        try:
            async with httpx.AsyncClient(timeout=intent.settings["timeout"]) as client:
                if isinstance(body, str):
                    answer = await client.post(channel.url, content=body, headers=headers)
                else:
                    answer = await client.post(channel.url, json=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # httpx names the host, but never the path with its token.
            reason = str(error) or type(error).__name__
            raise Unavailable(f"{name} ({host}) cannot be reached: {reason}") from None
        if answer.status_code == 429 or answer.status_code >= 500:
            raise Unavailable(f"{name} answered {answer.status_code}")
        if not answer.is_success:
            shown = answer.text.strip()[:_SHOWN]
            raise NotDelivered(
                f"{name} answered {answer.status_code}" + (f": {shown}" if shown else "")
            )
        context.log(f"told {name}")
        return {"status": answer.status_code}

    async def observe(self, intent: StepIntent) -> StepOutcome:
        """Only the other side knows; with the same key it can tell that it is a repeat."""
        return StepOutcome(applied=False, detail="sent again, with the same Idempotency-Key")


def _host(url: str) -> str:
    """The host of a webhook's address. Raises InvalidArgument, without the address itself."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        parts, host = None, None
    if parts is None or parts.scheme not in ("http", "https") or not host:
        raise InvalidArgument("the webhook's address is not http:// or https:// with a host")
    return host


def _body(kind: str, intent: StepIntent) -> dict[str, Any] | str:
    settings = intent.settings
    text: str = settings["text"]
    title: str = settings.get("title", "")
    titled = f"*{title}*\n{text}" if title else text
    match kind:
        case "text":
            return f"{title}\n{text}" if title else text
        case "slack":
            return {"text": titled}
        case "teams":
            card: dict[str, Any] = {
                "@type": "MessageCard",
                "@context": "http://schema.org/extensions",
            }
            return {**card, "title": title, "summary": title or text[:80], "text": text}
        case "json":
            return {
                "title": title,
                "text": text,
                "level": settings.get("level", "info"),
                "run": intent.run_id,
                "job": intent.job,
                "step": intent.step,
            }
        case _:
            raise InvalidArgument(
                f"'{kind}' is no format of messages", help="json, slack, teams or text"
            )
