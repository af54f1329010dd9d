"""Logs of tasks: the records of several containers in one stream."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import trio

from linkspan.plugins.docker_api.logs import LogFormat, read_log_query, record_encoder
from linkspan.plugins.docker_api.streams import copy_in_batches, stream_type
from linkspan.sdk.errors import InvalidArgument, NotFound
from linkspan.sdk.host import Host
from linkspan.sdk.http import Request, Stream, Writer
from linkspan.sdk.model.process import LogRecord
from linkspan.sdk.model.service import Task

_BUFFERED_RECORDS = 256


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
                        tty=tty, timestamps=request.flag("timestamps"), details=details
                    )
                    nursery.start_soon(read_one, container.id, style, send.clone())
            await writer.write(b"")
            await copy_in_batches(writer, receive, lambda parts: parts)

    async def read_one(
        container_id: str, style: LogFormat, send: trio.MemorySendChannel[tuple[bytes, ...]]
    ) -> None:
        encode = record_encoder(style)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(send)
            try:
                records: AsyncIterator[LogRecord] = await stack.enter_async_context(
                    containers.logs(container_id, query)
                )
            except NotFound:
                return
            async for record in records:
                await send.send(encode(record))

    return Stream(
        run=run,
        headers={"Content-Type": stream_type(request, tty=tty)},
        headers_at_once=False,
        at_stop="end" if query.follow else "finish",
    )


def _details(task: Task) -> str:
    return (
        f"com.docker.swarm.node.id={task.node_id},"
        f"com.docker.swarm.service.id={task.service_id},"
        f"com.docker.swarm.task.id={task.id}"
    )
