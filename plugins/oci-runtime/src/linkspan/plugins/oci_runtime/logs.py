"""Reads the log that conmon writes (the CRI's format, conmon's ``k8s-file``).

A record is one line: ``2026-11-24T08:00:00.123456789+00:00 stdout F text``. conmon runs with ``TZ=UTC``,
so the part before the text is always 45 bytes wide and times compare as text. Flag ``P`` marks a part of
a line, after which no newline follows. On rotation conmon starts a new file and renames it over the old.
"""

import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final, Self

import attrs
import trio

from linkspan.plugins.oci_runtime.inotify import FolderWatch
from linkspan.sdk.model.process import LogQuery, LogRecord, StreamKind

_TIME: Final = 29  # up to the nanoseconds, without the zone
_STREAM: Final = slice(36, 42)
_FLAG: Final = slice(43, 44)
_TEXT: Final = 45
_CHUNK_BYTES: Final = 1 << 20
_BLOCK_BYTES: Final = 1 << 16
_KINDS: Final = {b"stdout": StreamKind.STDOUT, b"stderr": StreamKind.STDERR}


def time_text(time_ns: int) -> bytes:
    """Nanoseconds since the epoch as the log writes them, without the zone."""
    seconds, nanoseconds = divmod(max(time_ns, 0), 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode() + (
        b".%09d" % nanoseconds
    )


@attrs.define
class Selection:
    """Which lines of the file a query wants."""

    streams: frozenset[bytes]
    since: bytes
    until: bytes

    @classmethod
    def of(cls, query: LogQuery) -> Self:
        """Of a query."""
        wanted = {b"stdout": query.stdout, b"stderr": query.stderr}
        return cls(
            streams=frozenset(name for name, on in wanted.items() if on),
            since=time_text(query.since_ns) if query.since_ns is not None else b"",
            until=time_text(query.until_ns) if query.until_ns is not None else b"\xff",
        )

    @property
    def everything(self) -> bool:
        """Whether no line is left out."""
        return len(self.streams) == 2 and not self.since and self.until == b"\xff"

    def wants(self, line: bytes) -> bool:
        """Whether a line is a record and wanted."""
        return (
            len(line) >= _TEXT
            and line[_STREAM] in self.streams
            and self.since <= line[:_TIME] <= self.until
        )


def records(lines: Iterable[bytes], selection: Selection) -> list[LogRecord]:
    """One record a line (without its newline)."""
    return [
        LogRecord(
            stream=_KINDS[line[_STREAM]],
            time=line[:_TIME].decode() + "Z",
            data=line[_TEXT:] if line[_FLAG] == b"P" else line[_TEXT:] + b"\n",
        )
        for line in lines
        if selection.wants(line)
    ]


def merged_records(lines: list[bytes], selection: Selection) -> list[LogRecord]:
    """Adjacent lines of one stream as one record."""
    if not selection.everything:
        lines = [line for line in lines if selection.wants(line)]
    if not lines:
        return []
    if len({line[35:_TEXT] for line in lines}) == 1 and lines[0][_FLAG] == b"F":
        data = b"\n".join([line[_TEXT:] for line in lines]) + b"\n"
        return [_merged(lines[0], [data])]
    found: list[LogRecord] = []
    first = lines[0]
    parts: list[bytes] = []
    for line in lines:
        if len(line) < _TEXT or line[_STREAM] not in _KINDS:
            continue
        if line[_STREAM] != first[_STREAM]:
            if parts:
                found.append(_merged(first, parts))
            first, parts = line, []
        parts.append(line[_TEXT:] if line[_FLAG] == b"P" else line[_TEXT:] + b"\n")
    if parts:
        found.append(_merged(first, parts))
    return found


def _merged(first: bytes, parts: list[bytes]) -> LogRecord:
    return LogRecord(
        stream=_KINDS[first[_STREAM]], time=first[:_TIME].decode() + "Z", data=b"".join(parts)
    )


class LogFile:
    """An open log; all methods block and belong into a worker thread."""

    def __init__(self, path: Path, query: LogQuery) -> None:
        self._path = path
        self._merge = query.merge
        self._selection = Selection.of(query)
        self._rest = b""
        self._file = path.open("rb", buffering=0)
        if query.tail is not None:
            self._file.seek(self._tail_offset(query.tail))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self) -> list[LogRecord] | None:
        """The next records; ``[]`` if a chunk had none that are wanted; None at the end for now."""
        chunk = self._file.read(_CHUNK_BYTES)
        while not chunk:
            if not self._rotated():
                return None
            chunk = self._file.read(_CHUNK_BYTES)
        text = self._rest + chunk
        end = text.rfind(b"\n") + 1
        self._rest = text[end:]
        lines = text[:end].split(b"\n")
        lines.pop()
        return (merged_records if self._merge else records)(lines, self._selection)

    def _rotated(self) -> bool:
        """Go on with the new file if there is one."""
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        here = os.fstat(self._file.fileno())
        if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
            return False
        self._file.close()
        self._file = self._path.open("rb", buffering=0)
        self._rest = b""
        return True

    def _tail_offset(self, lines_wanted: int) -> int:
        """Where the last N wanted lines begin; read backwards, so that a long log costs nothing."""
        fd = self._file.fileno()
        position = end = os.fstat(fd).st_size
        if lines_wanted <= 0:
            return end
        rest = b""
        found = 0
        last = True
        while position > 0:
            size = min(_BLOCK_BYTES, position)
            position -= size
            text = os.pread(fd, size, position) + rest
            begin = 0 if position == 0 else text.find(b"\n") + 1
            if begin == 0 and position > 0:
                rest = text
                continue
            rest = text[:begin]
            offset = position + len(text)
            for line in reversed(text[begin:].splitlines(keepends=True)):
                whole = line.endswith(b"\n") and self._selection.wants(line[:-1])
                # A line ends with an F record; one that is still unfinished counts, too.
                if whole and (line[_FLAG] == b"F" or last):
                    if found == lines_wanted:
                        return offset
                    found += 1
                if whole:
                    last = False
                offset -= len(line)
        return 0


async def read_log(
    path: Path,
    query: LogQuery,
    *,
    ended: Callable[[], bool],
    wait_end: Callable[[], Awaitable[object]],
) -> AsyncGenerator[LogRecord, None]:
    """Records of a log, oldest first; with ``follow`` until the container ended.

    Raises:
        FileNotFoundError: There is no log.
    """
    watch = FolderWatch(path.parent) if query.follow else None
    file: LogFile | None = None
    try:
        file = await trio.to_thread.run_sync(LogFile, path, query)
        while True:
            over = ended()  # asked before reading: what is written before the end is read after it
            while (batch := await trio.to_thread.run_sync(file.read)) is not None:
                for record in batch:
                    yield record
            if watch is None or over or not await _more_may_come(watch, query, wait_end):
                return
    finally:
        if watch is not None:
            watch.close()
        if file is not None:
            file.close()


async def _more_may_come(
    watch: FolderWatch, query: LogQuery, wait_end: Callable[[], Awaitable[object]]
) -> bool:
    """Wait until something was written or the container ended; False if the query's time is over."""
    left_s = float("inf") if query.until_ns is None else query.until_ns / 1e9 - time.time()
    if left_s <= 0:
        return False
    with trio.move_on_after(left_s) as limit:
        async with trio.open_nursery() as nursery:

            async def first(wait: Callable[[], Awaitable[object]]) -> None:
                await wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(first, wait_end)
            nursery.start_soon(first, watch.changed)
    return not limit.cancelled_caught
