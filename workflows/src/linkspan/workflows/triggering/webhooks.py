"""Requests from elsewhere that start pipelines: verified, then answered at once.

``POST /hooks/FOLDER/PIPELINE`` on a listener of its own (``[webhooks] listen``), which has no other routes.

========  ==========================================================  =========================
provider  proof                                                       event, id of the delivery
========  ==========================================================  =========================
github    ``X-Hub-Signature-256``: HMAC-SHA256 of the body            ``X-GitHub-Event``,
                                                                      the proof itself
gitlab    ``X-Gitlab-Token``: the secret itself                       ``X-Gitlab-Event``,
                                                                      ``X-Gitlab-Event-UUID``
generic   ``X-Linkspan-Signature-256``: HMAC-SHA256 of                ``X-Linkspan-Event``
          ``TIMESTAMP.BODY``, with ``X-Linkspan-Timestamp`` (seconds
          since the epoch), not older than five minutes
========  ==========================================================  =========================
"""

import errno
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
import trio

from linkspan.core.http.routing import RouteTable
from linkspan.core.http.server import serve_http
from linkspan.sdk.errors import (
    Conflict,
    InvalidArgument,
    LinkspanError,
    NotFound,
    Unauthenticated,
)
from linkspan.sdk.host import Host
from linkspan.sdk.http import Answer, Request, json_response
from linkspan.workflows.manager import RunManager
from linkspan.workflows.secret_values import SecretSource, value_of
from linkspan.workflows.triggering.config import WebhooksConfig, parse_listen
from linkspan.workflows.triggering.deliveries import Deliveries
from linkspan.workflows.triggering.matching import branch_of, webhook_starts
from linkspan.workflows.triggering.served import Served, ServedPipeline
from linkspan.workflows.triggers import Webhook

log = logging.getLogger(__name__)

_BODY_LIMIT_BYTES: Final = 8 << 20
_MAX_AGE_S: Final = 300.0
_DELIVERY_LIMIT: Final = 200


@attrs.define(kw_only=True)
class Webhooks:
    """Answers ``POST /hooks/{folder}/{pipeline}``.

    Attributes:
        now: Seconds since the epoch; tests have their own.
        deliveries: What was taken before.
    """

    host: Host
    served: Callable[[], Served]
    manager: Callable[[], RunManager]
    now: Callable[[], float] = time.time
    deliveries: Deliveries = attrs.field(factory=Deliveries)

    def register(self, routes: RouteTable) -> None:
        """Add the route."""
        routes.add("POST", "/hooks/{folder}/{pipeline}", self.receive)

    async def receive(self, request: Request) -> Answer:
        """Verify, then start a run.

        Unknown pipelines and wrong proofs get the same answer: who cannot prove anything learns nothing.

        Raises:
            Unauthenticated: Nothing served so, no webhook of it fits, or the proof is wrong.
            InvalidArgument: The body is not a JSON object, or its inputs are wrong.
        """
        body = await request.read(limit_bytes=_BODY_LIMIT_BYTES)
        name = f"{request.params['folder']}/{request.params['pipeline']}"
        found = await self._verified(name, request.headers, body)
        if found is None:
            raise Unauthenticated("the signature is not that of a webhook here")
        pipeline, webhook = found
        payload = _payload(body)
        event = _event(webhook, request.headers)
        if not webhook_starts(webhook, event, branch_of(payload)):
            return json_response({"started": False, "reason": "not what the pipeline waits for"})
        delivery = _delivery(name, webhook, request.headers)
        if not self.deliveries.is_new(delivery):
            return json_response({"started": False, "reason": "taken before"})
        try:
            run = await pipeline.start(
                self.manager(),
                "webhook",
                f"webhook {webhook.provider} {event}".rstrip(),
                _inputs(webhook, payload),
            )
        except BaseException:
            self.deliveries.forget(delivery)
            raise
        # Whoever sent it may be gone by now.
        with trio.CancelScope(shield=True):
            await self.deliveries.keep(delivery)
        log.info("started", extra={"pipeline": name, "run": run, "why": "webhook"})
        return json_response({"started": True, "run": run}, 202)

    async def _verified(
        self, name: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[ServedPipeline, Webhook] | None:
        try:
            pipeline = await self.served().find(name)
        except NotFound:
            return None
        if pipeline.workflow is None:
            return None
        for webhook in pipeline.workflow.triggers.webhooks:
            declared = pipeline.workflow.secrets.get(webhook.secret)
            if declared is None:
                continue
            source = SecretSource(
                name=declared.name, driver=declared.provider, key=declared.key or declared.name
            )
            try:
                secret = await value_of(self.host, source)
            except LinkspanError as error:
                log.error(  # noqa: TRY400 - the reason is the whole of it
                    "a webhook's secret is not there",
                    extra={"pipeline": name, "reason": error.message},
                )
                continue
            if proves(webhook, secret, headers, body, self.now()):
                return pipeline, webhook
        return None


def proves(
    webhook: Webhook, secret: str, headers: Mapping[str, str], body: bytes, now_s: float
) -> bool:
    """Whether who sent a request knows the secret; takes as long for a wrong one as for a right one.

    Args:
        webhook: Whose way of signing.
        secret: Not empty.
        headers: With lower-case names.
        body: To the byte.
        now_s: Seconds since the epoch.
    """
    if not secret:
        return False

    def signed(data: bytes) -> str:
        return "sha256=" + hmac.new(secret.encode(), data, hashlib.sha256).hexdigest()

    def same(given: str, wanted: str) -> bool:
        return hmac.compare_digest(given.encode(), wanted.encode())

    match webhook.provider:
        case "github":
            return same(headers.get("x-hub-signature-256", ""), signed(body))
        case "gitlab":
            return same(headers.get("x-gitlab-token", ""), secret)
        case _:
            stamp = headers.get("x-linkspan-timestamp", "")
            if not (stamp.isascii() and stamp.isdecimal() and len(stamp) < 16):
                return False
            fresh = abs(now_s - int(stamp)) <= _MAX_AGE_S
            given = headers.get("x-linkspan-signature-256", "")
            return same(given, signed(stamp.encode() + b"." + body)) and fresh


def _event(webhook: Webhook, headers: Mapping[str, str]) -> str:
    names = {"github": "x-github-event", "gitlab": "x-gitlab-event"}
    event = headers.get(names.get(webhook.provider, "x-linkspan-event"), "")
    # GitLab says "Push Hook"; people write push.
    return event.removesuffix(" Hook").lower().replace(" ", "_")[:_DELIVERY_LIMIT]


def _delivery(name: str, webhook: Webhook, headers: Mapping[str, str]) -> str:
    """What is the same when one delivery is sent again.

    Of GitHub's that is the proof: its id is not signed, and who replays a request could make up another.
    """
    key = {
        "github": "x-hub-signature-256",
        "gitlab": "x-gitlab-event-uuid",
        "generic": "x-linkspan-signature-256",
    }[webhook.provider]
    given = headers.get(key, "")[:_DELIVERY_LIMIT]
    # Without an id nobody can tell.
    return f"{name} {given or time.monotonic_ns()}"


def _payload(body: bytes) -> dict[str, Any]:
    if not body:
        return {}
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidArgument("the body is not JSON") from None
    if not isinstance(found, dict):
        raise InvalidArgument("the body is not a JSON object")
    return found


def _inputs(webhook: Webhook, payload: Mapping[str, Any]) -> dict[str, str]:
    """``inputs`` of a generic request; the others' payloads are theirs to shape."""
    if webhook.provider != "generic":
        return {}
    given = payload.get("inputs", {})
    if not isinstance(given, dict) or not all(isinstance(text, str) for text in given.values()):
        raise InvalidArgument("'inputs' must be an object of texts")
    return given


async def serve_webhooks(
    config: WebhooksConfig,
    webhooks: Webhooks,
    *,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen until cancelled; ``started`` gets ``ADDRESS:PORT``, or an empty text if nothing listens.

    Raises:
        Conflict: The port is taken; code ``port_taken``.
        InvalidArgument: The address is not of this machine.
    """
    if not config.listen:
        task_status.started("")
        await trio.sleep_forever()
    address, port = parse_listen(config.listen)
    try:
        listeners = await trio.open_tcp_listeners(port, host=address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Conflict(
                f"webhooks cannot listen on {config.listen}: port {port} is already in use",
                code="port_taken",
                help="set another `listen` in [webhooks]",
            ) from error
        raise InvalidArgument(
            f"webhooks cannot listen on {config.listen}: {error.strerror}"
        ) from error
    routes = RouteTable()
    webhooks.register(routes)
    name, bound = listeners[0].socket.getsockname()[:2]
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_http, listeners, routes)
        task_status.started(f"[{name}]:{bound}" if ":" in name else f"{name}:{bound}")
