"""Docker's streams: multiplexed frames, attached processes, JSON lines of progress.

A frame (API, "Attach to a container") is one byte for the stream (1 stdout, 2 stderr), three zero
bytes, the length as four bytes big-endian, and the data. With a tty there are no frames.
"""

import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

import orjson
import trio

from linkspan.plugins.docker_api.detach_keys import DetachKeys
from linkspan.plugins.docker_api.deviations import in_dockers_way
from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.http import Duplex, Request, Writer
from linkspan.sdk.model.process import Chunk, StreamKind
from linkspan.sdk.progress import Progress, ProgressSink
from linkspan.sdk.units import format_size

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"

_HEADER = struct.Struct(">BxxxI")
_OUTBOX_BYTES = 1 << 20

T = TypeVar("T")


class Process(Protocol):
    """What an attached container and an exec session have in common."""

    async def receive(self) -> Chunk | None:
        """Next output; None at its end."""

    async def send(self, data: bytes) -> None:
        """Write to stdin."""

    async def close_stdin(self) -> None:
        """End of input."""


def frame_header(stream: int, size: int) -> bytes:
    """The eight bytes in front of a frame's data."""
    return _HEADER.pack(stream, size)


def stream_type(request: Request, *, tty: bool) -> str:
    """The content type of a stream: clients before 1.42 know only one."""
    return MULTIPLEXED if not tty and request.api_version >= (1, 42) else RAW


async def exchange(
    duplex: Duplex,
    process: Process,
    *,
    tty: bool,
    stdin: bool,
    streams: frozenset[StreamKind],
    keys: DetachKeys,
    framed: bool | None = None,
    leaves: bool = False,
) -> bool:
    """Carry a process's output to a client, and the client's input to the process.

    Args:
        streams: Which outputs the client wants.
        keys: Typed on a terminal, they detach.
        framed: Whether output comes in frames; None: unless there is a terminal.
        leaves: Whether a client whose input ends has detached: the CLI knows the keys, too, and hangs up.

    Returns:
        True if the output ended; False if the client has detached.
    """
    ended = False
    bare = tty if framed is None else not framed

    async def feed(scope: trio.CancelScope) -> None:
        watch = keys.watch()
        while data := await duplex.receive():
            if not tty:
                await process.send(data)
                continue
            passed, detached = watch.feed(data)
            if passed:
                await process.send(passed)
            if detached:
                scope.cancel()
                return
        if leaves:
            scope.cancel()
        else:
            await process.close_stdin()

    async with trio.open_nursery() as nursery:
        if stdin:
            nursery.start_soon(feed, nursery.cancel_scope)
        while (chunk := await process.receive()) is not None:
            if chunk.stream not in streams:
                continue
            if bare:
                await duplex.send(chunk.data)
            else:
                await duplex.send(frame_header(chunk.stream, len(chunk.data)), chunk.data)
        ended = True
        nursery.cancel_scope.cancel()
    return ended


def json_line(value: object) -> bytes:
    """One object of a stream of JSON; Docker ends them with CRLF."""
    return orjson.dumps(value) + b"\r\n"


async def copy_in_batches(
    writer: Writer, source: AsyncIterator[T], encode: Callable[[T], tuple[bytes, ...] | None]
) -> None:
    """Write each item of a source; items that are there already go out in one chunk.

    A million log lines of a follower cost a few hundred writes, and a single one goes out at once.

    Args:
        encode: The parts of an item; none of them to leave it out, None to end here.
    """
    parts: list[bytes] = []
    size = 0
    more, room = trio.Event(), trio.Event()
    ended = False

    async def pump() -> None:
        nonlocal parts, size, more
        while True:
            await more.wait()
            more = trio.Event()
            taken, parts, size = parts, [], 0
            room.set()
            if taken:
                await writer.write(*taken)
            elif ended:
                return
            if ended:
                more.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump)
        async for item in source:
            encoded = encode(item)
            if encoded is None:
                break
            if not encoded:
                continue
            parts.extend(encoded)
            size += sum(map(len, encoded))
            more.set()
            if size >= _OUTBOX_BYTES:
                room = trio.Event()
                await room.wait()
        ended = True
        more.set()


# Progress


def progress_bar(current: int, total: int) -> str:
    """The bar that Docker's daemon draws for old clients (jsonmessage.JSONProgress.String)."""
    if total <= 0:
        return f"{format_size(current, 4):>8}"
    if current > total:
        return f"{format_size(current, 4):>8}"
    filled = int(current / total * 100) // 2
    box = f"[{'=' * filled}>{' ' * (50 - filled)}]"
    return f"{box} {format_size(current, 4):>8}/{format_size(total, 4)}"


def encode_progress(progress: Progress) -> bytes:
    """A step forward as Docker's JSON line; a status with a fact becomes two lines, since the CLI
    does not show a line that carries ``aux``."""
    lines = []
    if progress.stream:
        lines.append(json_line({"stream": progress.stream}))
    if progress.status:
        line: dict[str, Any] = {"status": progress.status}
        if progress.current is not None:
            total = progress.total or 0
            detail = {"current": progress.current}
            line["progressDetail"] = {**detail, "total": total} if total else detail
            line["progress"] = progress_bar(progress.current, total)
        elif progress.id and not progress.status.startswith("Pulling from"):
            line["progressDetail"] = {}
        if progress.id:
            line["id"] = progress.id
        lines.append(json_line(line))
    if progress.aux is not None:
        fact: dict[str, Any] = {"aux": progress.aux}
        lines.append(json_line({"progressDetail": {}, **fact} if "Tag" in progress.aux else fact))
    return b"".join(lines)


def error_line(error: LinkspanError) -> bytes:
    """The last line of a stream that failed after it began."""
    error = in_dockers_way(error)
    detail: dict[str, Any] = {"message": error.message}
    exit_code = error.details.get("exit_code")
    if isinstance(exit_code, int):
        detail = {"code": exit_code, **detail}
    return json_line({"errorDetail": detail, "error": error.message})


class _ProgressLines:
    """Lines that wait to be written; counts of one part replace each other while they wait."""

    def __init__(self, hold: int) -> None:
        self._waiting: list[Progress] = []
        self._counts: dict[tuple[str, str], int] = {}
        self._hold = hold
        self._more = trio.Event()
        self.ended = False

    def add(self, progress: Progress) -> None:
        if progress.current is not None and progress.aux is None and not progress.stream:
            key = (progress.id, progress.status)
            at = self._counts.get(key)
            if at is not None:
                self._waiting[at] = progress
                return
            self._counts[key] = len(self._waiting)
        self._waiting.append(progress)
        if len(self._waiting) > self._hold:
            self._more.set()

    def end(self) -> None:
        self.ended = True
        self._more.set()

    def take(self) -> list[Progress]:
        taken, self._waiting = self._waiting, []
        self._counts.clear()
        self._hold = 0
        self._more = trio.Event()
        if self.ended:
            self._more.set()
        return taken

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def wait(self) -> None:
        await self._more.wait()


async def run_with_progress(
    writer: Writer,
    work: Callable[[ProgressSink], Awaitable[Mapping[str, Any] | None]],
    *,
    hold: int = 0,
    errors_inside: bool = False,
) -> None:
    """Do something long and write what it says as JSON lines.

    An error before anything was written is raised (and answered with its status); a later one is the
    stream's last line.

    Args:
        work: May return a last line.
        hold: So many lines are kept back until there is one more: a pull that fails at its first request
            has said "Pulling from" already.
        errors_inside: An error is a line in any case: docker-py looks for that of a load there alone.
    """
    lines = _ProgressLines(hold)
    failure: LinkspanError | None = None
    last: Mapping[str, Any] | None = None
    written = False

    async def do() -> None:
        nonlocal failure, last
        try:
            last = await work(lines.add)
        except LinkspanError as error:
            failure = error
        lines.end()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(do)
        while True:
            await lines.wait()
            if lines.ended and failure is not None and not written and lines.waiting <= hold:
                break
            taken = lines.take()
            if taken:
                written = True
                await writer.write(*(encode_progress(p) for p in taken))
            elif lines.ended:
                break
    if failure is not None:
        if not written and not errors_inside:
            raise failure
        await writer.write(error_line(failure))
    elif last is not None:
        await writer.write(json_line(last))
