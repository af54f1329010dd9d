"""/containers/{id}: attach, logs, stats, resize."""

import re
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from urllib.parse import quote_plus

import orjson
import trio

from linkspan.plugins.docker_api.detach_keys import parse_detach_keys
from linkspan.plugins.docker_api.logs import LogFormat, read_log_query, record_encoder, write_log
from linkspan.plugins.docker_api.stats import Sample, encode_stats, take_sample
from linkspan.plugins.docker_api.streams import exchange, stream_type
from linkspan.plugins.docker_api.websocket import WebSocket, accept
from linkspan.sdk.errors import Conflict, InvalidArgument, LinkspanError, NotFound
from linkspan.sdk.host import Host
from linkspan.sdk.http import Duplex, Hijack, Request, Response, Stream, Writer
from linkspan.sdk.log_tags import log_tag
from linkspan.sdk.model.container import Container, ContainerStatus
from linkspan.sdk.model.process import LogQuery, StreamKind

_STATS_INTERVAL_S = 1.0


class ContainerStreamRoutes:
    """The streams of containers."""

    def __init__(self, host: Host) -> None:
        self._containers = host.engine.containers

    async def attach(self, request: Request) -> Hijack:
        """POST /containers/{id}/attach."""
        container = self._attachable(request)
        run = self._attaching(request, container, framed=not container.spec.tty)
        return Hijack(run=run, content_type=stream_type(request, tty=container.spec.tty))

    async def attach_websocket(self, request: Request) -> Hijack:
        """GET /containers/{id}/attach/ws: both outputs come as they are, in binary frames."""
        container = self._attachable(request)
        attach = self._attaching(request, container, framed=False)

        async def run(duplex: Duplex) -> None:
            socket = WebSocket(duplex)
            await attach(socket)
            await socket.send_eof()

        return Hijack(run=run, content_type="", upgrade="websocket", headers=accept(request))

    def _attachable(self, request: Request) -> Container:
        container = self._containers.inspect(request.params["id"])
        if container.state.status is ContainerStatus.PAUSED:
            raise Conflict(
                f"container {container.id} is paused, unpause the container before attach",
                code="paused",
            )
        return container

    def _attaching(
        self, request: Request, container: Container, *, framed: bool
    ) -> Callable[[Duplex], Awaitable[None]]:
        """What happens on the connection."""
        keys = parse_detach_keys(request.query.get("detachKeys", ""))
        wanted = _streams(request)
        tty = container.spec.tty
        stdin = request.flag("stdin") and container.spec.open_stdin

        async def run(duplex: Duplex) -> None:
            if request.flag("logs"):
                await self._replay(duplex, container, wanted, framed=framed)
            if not request.flag("stream"):
                await duplex.start()
                return
            async with AsyncExitStack() as stack:
                # Known to the container from here on; entered when its process exists. The client
                # starts the container only after it has our head.
                attachment = self._containers.attach(container.id)
                stack.push_async_exit(attachment.__aexit__)
                await duplex.start()
                try:
                    process = await attachment.__aenter__()
                except LinkspanError:
                    # The start failed, or it is gone: who started it has been told why.
                    return
                await exchange(
                    duplex, process, tty=tty, stdin=stdin, streams=wanted, keys=keys, framed=framed
                )

        return run

    async def _replay(
        self,
        duplex: Duplex,
        container: Container,
        wanted: frozenset[StreamKind],
        *,
        framed: bool,
    ) -> None:
        """What was written so far (``logs=1``)."""
        query = LogQuery(
            stdout=StreamKind.STDOUT in wanted, stderr=StreamKind.STDERR in wanted, merge=True
        )
        encode = record_encoder(LogFormat(tty=not framed))
        async with self._containers.logs(container.id, query) as records:
            async for record in records:
                await duplex.send(*encode(record))

    async def resize(self, request: Request) -> Response:
        """POST /containers/{id}/resize."""
        await self._containers.resize(request.params["id"], *read_size(request))
        return Response()

    async def logs(self, request: Request) -> Stream:
        """GET /containers/{id}/logs."""
        query = read_log_query(request)
        container = self._containers.inspect(request.params["id"])
        style = LogFormat(
            tty=container.spec.tty,
            timestamps=request.flag("timestamps"),
            details=_log_details(container) if request.flag("details") else None,
        )

        async def run(writer: Writer) -> None:
            async with self._containers.logs(container.id, query) as records:
                await write_log(writer, records, style)

        return Stream(
            run=run,
            headers={"Content-Type": stream_type(request, tty=container.spec.tty)},
            headers_at_once=False,
            at_stop="end" if query.follow else "finish",
        )

    async def stats(self, request: Request) -> Stream:
        """GET /containers/{id}/stats: one object a second, or one in all."""
        container = self._containers.inspect(request.params["id"])
        stream = request.flag("stream", default=True)
        one_shot = request.flag("one-shot") and request.api_version >= (1, 41)
        if stream and one_shot:
            raise InvalidArgument("cannot have stream=true and one-shot=true")

        async def run(writer: Writer) -> None:
            before: Sample | None = None
            if not stream and not one_shot:
                before = await self._sample(container.id)
                await trio.sleep(_STATS_INTERVAL_S)
            while True:
                try:
                    now = await self._sample(container.id)
                except NotFound:
                    # Removed while we watched: the stream ends.
                    if before is None:
                        raise
                    return
                await writer.write(orjson.dumps(encode_stats(now, before)) + b"\n")
                if not stream:
                    return
                before = now
                await trio.sleep(_STATS_INTERVAL_S)

        return Stream(run=run, headers_at_once=False, at_stop="end")

    async def _sample(self, container_id: str) -> Sample:
        container = self._containers.inspect(container_id)
        counters = await self._containers.stats(container_id) if container.state.running else None
        return await take_sample(container, counters)


def _streams(request: Request) -> frozenset[StreamKind]:
    return frozenset(
        kind
        for kind, name in ((StreamKind.STDOUT, "stdout"), (StreamKind.STDERR, "stderr"))
        if request.flag(name)
    )


def read_size(request: Request) -> tuple[int, int]:
    """``h`` and ``w`` of a terminal. Raises InvalidArgument."""
    for side, name in (("height", "h"), ("width", "w")):
        if not re.fullmatch(r"[+-]?\d+", text := request.query.get(name, "")):
            raise InvalidArgument(f'invalid resize {side} "{text}": invalid syntax')
        if len(text) > 10 or not 0 <= int(text) <= 0xFFFF:
            raise InvalidArgument(f'invalid resize {side} "{text}": value out of range')
    return request.number("h", 0), request.number("w", 0)


def _log_details(container: Container) -> str:
    """The tag, labels and variables that the log options name (``--log-opt labels=…,env=…``), by name."""
    options = container.spec.log_options
    env = dict(entry.split("=", 1) for entry in container.env if "=" in entry)
    found: dict[str, str] = {}
    for values, key in ((container.labels, "labels"), (env, "env")):
        wanted = set(filter(None, options.get(key, "").split(",")))
        pattern = options.get(f"{key}-regex", "")
        for name, value in values.items():
            if name in wanted or (pattern and re.search(pattern, name)):
                found[name] = value
    if tag := log_tag(container):
        found["tag"] = tag
    return ",".join(f"{quote_plus(name)}={quote_plus(found[name])}" for name in sorted(found))
