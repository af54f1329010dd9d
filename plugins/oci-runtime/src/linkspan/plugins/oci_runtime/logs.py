"""Reads the log that conmon writes (the CRI's format, conmon's ``k8s-file``).

A record is one line: ``2026-11-24T08:00:00.123456789+00:00 stdout F text``. conmon runs with ``TZ=UTC``,
so the part before the text is always 45 bytes wide and times compare as text. Flag ``P`` marks a part of
a line, after which no newline follows. A log may have several files (``rotation``); they are read as one.
"""

import os
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from itertools import count, groupby
from pathlib import Path
from typing import Final, Self

import trio

from linkspan.plugins.oci_runtime.inotify import FolderWatch
from linkspan.plugins.oci_runtime.rotation import ages, older
from linkspan.sdk.model.process import LogQuery, LogRecord, StreamKind
from linkspan.sdk.values import define

_TIME: Final = 29  # up to the nanoseconds, without the zone
_STREAM: Final = slice(36, 42)
_FLAG: Final = slice(43, 44)
_TEXT: Final = 45
_CHUNK_BYTES: Final = 1 << 20
_BLOCK_BYTES: Final = 1 << 16
# A run of lines, as a program that prints much makes them; below some lines each, runs do not pay.
_USUAL_RUN_BYTES: Final = 1 << 13
_SHORT_RUN_BYTES: Final = 600
_FIRST_RUNS: Final = 20
_KINDS: Final = {b"stdout": StreamKind.STDOUT, b"stderr": StreamKind.STDERR}


def time_text(time_ns: int) -> bytes:
    """Nanoseconds since the epoch as the log writes them, without the zone."""
    seconds, nanoseconds = divmod(max(time_ns, 0), 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode() + (
        b".%09d" % nanoseconds
    )


@define
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
    alike = len({line[_TIME:_TEXT] for line in lines}) == 1
    if alike and lines[0][_FLAG] == b"F" and selection.wants(lines[0]):
        return _joined([(lines[0], b"\n".join([line[_TEXT:] for line in lines]) + b"\n")])
    return _joined(
        (line, line[_TEXT:] if line[_FLAG] == b"P" else line[_TEXT:] + b"\n")
        for line in lines
        if selection.wants(line)
    )


def merged_runs(text: bytes, end: int) -> list[LogRecord] | None:
    """Adjacent lines of one stream as one record, of a text that is mostly runs.

    All that conmon reads at once gets the same time, so a program that writes much makes runs of lines
    with the same 45 bytes in front. Those are cut out of a whole run at once.

    Args:
        text: Lines that all are wanted; what lies behind ``end`` is not looked at.

    Returns:
        None if it is not so; ``merged_records`` is for any lines.
    """
    found: list[tuple[bytes, bytes]] = []
    position = lines = 0
    while position < end:
        if len(found) == _FIRST_RUNS and position < _FIRST_RUNS * _SHORT_RUN_BYTES:
            return None
        head = text[position : position + _TEXT]
        if head[_STREAM] not in _KINDS:
            return None
        behind = text.find(b"\n", _last_of_run(text, position, end, head)) + 1
        # From the right: a newline is rarer than the blank at the other end (a third of the time).
        cut = text[position + _TEXT : behind].rsplit(b"\n" + head)
        partial = head[_FLAG] == b"P"
        if partial and len(cut) > 1:
            return None
        data = b"\n".join(cut)
        found.append((head, data[:-1] if partial else data))
        position, lines = behind, lines + len(cut)
    # Lines with another head in the middle of a run (a clock was set back) would still have it.
    return _joined(found) if lines == text.count(b"\n", 0, end) else None


def _last_of_run(text: bytes, first: int, end: int, head: bytes) -> int:
    """Where the last line begins of those that begin with ``head`` from ``first`` on, by bisection."""
    low, high = first, end
    step = _USUAL_RUN_BYTES
    while high - low > _TEXT:
        probe = low + step if low + step < high else (low + high) // 2
        line = text.find(b"\n", probe, high) + 1
        if 0 < line < high and text.startswith(head, line):
            low = line
        else:
            high, step = probe, step // 2
    return low


def _joined(texts: Iterable[tuple[bytes, bytes]]) -> list[LogRecord]:
    """Texts with the (first) line that each is of: those of one stream that follow each other as one."""
    found: list[LogRecord] = []
    for stream, group in groupby(texts, lambda text: text[0][_STREAM]):
        members = list(group)
        found.append(
            LogRecord(
                stream=_KINDS[stream],
                time=members[0][0][:_TIME].decode() + "Z",
                data=b"".join([data for _, data in members]),
            )
        )
    return found


class Log:
    """An open log, of one file or several; all methods block and belong into a worker thread."""

    def __init__(self, path: Path, query: LogQuery) -> None:
        self._path = path
        self._merge = query.merge
        self._selection = Selection.of(query)
        self._rest = b""
        self._files = _open_all(path)
        if not self._files:
            raise FileNotFoundError(str(path))
        if query.tail is not None:
            self._seek_tail(query.tail)

    def close(self) -> None:
        """Close the files."""
        while self._files:
            os.close(self._files.popleft())

    def read(self) -> list[LogRecord] | None:
        """The next records; ``[]`` if a chunk had none that are wanted; None at the end for now."""
        while not (chunk := os.read(self._files[0], _CHUNK_BYTES)):
            # conmon writes into one file until the next is there: what came before that is read first.
            if len(self._files) > 1:
                os.close(self._files.popleft())
                self._rest = b""
                continue
            newer = self._newer()
            if not newer:
                return None
            self._files.extend(newer)
        text = self._rest + chunk
        end = text.rfind(b"\n") + 1
        self._rest = text[end:]
        if self._merge and self._selection.everything:
            merged = merged_runs(text, end)
            if merged is not None:
                return merged
        lines = text[:end].split(b"\n")
        lines.pop()
        return (merged_records if self._merge else records)(lines, self._selection)

    def _newer(self) -> list[int]:
        """Files that were begun after the one that is read, the oldest first."""
        here = os.fstat(self._files[0])
        try:
            if _same(self._path.stat(), here):
                return []  # the usual case, at each end of what a follower has read
        except FileNotFoundError:
            pass
        found = _open_all(self._path)
        at = next((n for n, fd in enumerate(found) if _same(os.fstat(fd), here)), None)
        # If it is no longer among them, so many came that all of them are newer.
        for _ in range(0 if at is None else at + 1):
            os.close(found.popleft())
        return list(found)

    def _seek_tail(self, lines_wanted: int) -> None:
        """Begin where the last N wanted lines do; read backwards, so that a long log costs nothing."""
        left = lines_wanted
        files = list(self._files)
        first = 0
        for number in range(len(files) - 1, -1, -1):
            offset, found = self._tail_offset(files[number], left, last=number == len(files) - 1)
            os.lseek(files[number], offset, os.SEEK_SET)
            left -= found
            first = number
            if left <= 0:
                break
        for fd in files[:first]:
            os.close(fd)
            self._files.popleft()

    def _tail_offset(self, fd: int, lines_wanted: int, *, last: bool) -> tuple[int, int]:
        """Where the last N wanted lines of a file begin, and how many there are."""
        position = end = os.fstat(fd).st_size
        if lines_wanted <= 0:
            return end, 0
        rest = b""
        found = 0
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
                        return offset, found
                    found += 1
                if whole:
                    last = False
                offset -= len(line)
        return 0, found


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _open_all(path: Path) -> deque[int]:
    """All files of a log, the oldest first, each once although they may be renamed meanwhile."""
    found: deque[int] = deque()
    known: set[tuple[int, int]] = set()
    for number in count():
        try:
            fd = os.open(older(path, number), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            # In the middle of a rotation (or if one was cut off) a file is missing between others.
            if not any(age > number for age in ages(path)):
                return found
            continue
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) in known:
            os.close(fd)
        else:
            known.add((status.st_dev, status.st_ino))
            found.appendleft(fd)
    raise AssertionError("unreachable")


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
    file: Log | None = None
    try:
        file = await trio.to_thread.run_sync(Log, path, query)
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
