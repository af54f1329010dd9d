"""Logs of tasks: the records of several containers in one stream."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import attrs
import trio

from linkspan.plugins.docker_api.logs import LogFormat, read_log_query, record_encoder
from linkspan.plugins.docker_api.streams import copy_in_batches, stream_type
from linkspan.sdk.errors import InvalidArgument, NotFound
from linkspan.sdk.host import Host
from linkspan.sdk.http import Request, Stream, Writer
from linkspan.sdk.model.container import Container
from linkspan.sdk.model.process import LogRecord, StreamKind
from linkspan.sdk.model.service import Task

_BUFFERED_RECORDS = 256
_LONGEST_LINE_BYTES = 16 << 10


def task_log_stream(host: Host, request: Request, tasks: Sequence[Task]) -> Stream:
    """The answer to a request for logs.

    The CLI names the task of each line by the details in front of it, so it asks for them always.

    Raises:
        InvalidArgument: The parameters are wrong.
    """
    query = read_log_query(request)
    if query.tail is None and request.query.get("tail", "all") not in ("", "all"):
        # Containers' logs take whatever is no number for all.
        raise InvalidArgument('tail value must be a positive integer or "all"', code="bad_tail")
    containers = host.engine.containers
    found = []
    for task in tasks:
        if not task.container_id:
            continue  # It has not begun, or its container was removed.
        try:
            found.append((task, containers.inspect(task.container_id)))
        except NotFound:
            # Its container is gone with its log.
            continue
    # Frames are kept unless every task has a terminal, whose clients expect none.
    tty = bool(found) and all(container.spec.tty for _, container in found)

    async def run(writer: Writer) -> None:
        send, receive = trio.open_memory_channel[tuple[bytes, ...]](_BUFFERED_RECORDS)
        async with trio.open_nursery() as nursery:
            async with send:
                for task, container in found:
                    details = _details(task) if request.flag("details") else None
                    style = LogFormat(
                        tty=tty,
                        timestamps=request.flag("timestamps"),
                        details=details,
                        by_frame=True,
                    )
                    nursery.start_soon(read_one, container, style, send.clone())
            await writer.write(b"")
            await copy_in_batches(writer, receive, lambda parts: parts)

    async def read_one(
        container: Container, style: LogFormat, send: trio.MemorySendChannel[tuple[bytes, ...]]
    ) -> None:
        encode, lines = record_encoder(style), WholeLines()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(send)
            try:
                records: AsyncIterator[LogRecord] = await stack.enter_async_context(
                    containers.logs(container.id, query)
                )
            except NotFound:
                return
            async for record in records:
                line = lines.add(record)
                if line is not None:
                    await send.send(encode(line))
            # What has begun and has no end yet is not told, as in Docker, unless somebody waits for it.
            if query.follow or not container.state.running:
                for line in lines.rest():
                    await send.send(encode(line))

    return Stream(
        run=run,
        headers={"Content-Type": stream_type(request, tty=tty)},
        headers_at_once=False,
        at_stop="end" if query.follow else "finish",
    )


class WholeLines:
    """Puts the parts of lines together: the CLI takes each frame for a line, with details in front."""

    def __init__(self) -> None:
        self._open: dict[StreamKind, LogRecord] = {}

    def add(self, record: LogRecord) -> LogRecord | None:
        """The lines that a record ends, or what there is of one that is very long; None if it goes on."""
        before = self._open.pop(record.stream, None)
        if before is not None:
            record = attrs.evolve(before, data=before.data + record.data)
        # A record may be several lines, and a part of another.
        end = record.data.rfind(b"\n") + 1
        if len(record.data) - end >= _LONGEST_LINE_BYTES:
            end = len(record.data)
        if end < len(record.data):
            self._open[record.stream] = attrs.evolve(record, data=record.data[end:])
        return attrs.evolve(record, data=record.data[:end]) if end else None

    def rest(self) -> Sequence[LogRecord]:
        """What has not ended, in the end."""
        return tuple(self._open.values())


def _details(task: Task) -> str:
    return (
        f"com.docker.swarm.node.id={task.node_id},"
        f"com.docker.swarm.service.id={task.service_id},"
        f"com.docker.swarm.task.id={task.id}"
    )
