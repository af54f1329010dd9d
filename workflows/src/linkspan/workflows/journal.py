"""What a run has done and is about to do: one line a record, on disk before the world changes.

A line is a JSON object with ``n`` (from 1), ``t`` (RFC 3339, UTC), ``kind``, the record's own fields
and, last, ``crc``: CRC-32 of the line without it, seeded with the previous line's. A torn last line
(the machine died while it was written) is dropped; any other damage is an error.
"""

import functools
import json
import os
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeAlias

import attrs
import orjson
import trio

from linkspan.sdk.errors import DataLoss, LinkspanError
from linkspan.sdk.files import is_full, sync
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.garbage import no_collection

VERSION: Final = 1
"""Of the records' shape; written in the first one."""

_AT_ONCE: Final = 16 * 1024
"""Bytes that are written without a thread: they go to the page cache in microseconds, a thread costs ten
times as much."""

_ENCODE: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
"""For what orjson does not take: numbers of more than 64 bits, and values in more than 250 others."""

_CRC: Final = b',"crc":"'
_TAIL: Final = len(_CRC) + 10
"""Bytes of a line after the record's own fields: the checksum."""


Record: TypeAlias = Mapping[str, Json]
"""One record as it stands in its line: ``n``, ``t``, ``kind`` and its own fields."""


@functools.lru_cache(maxsize=8)
def _up_to_the_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:-6]


def now() -> str:
    """The time, RFC 3339 with milliseconds, UTC."""
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    return f"{_up_to_the_second(seconds)}.{rest // 1_000_000:03d}Z"


def encode(record: Record, seed: int) -> tuple[bytes, int]:
    """A record's line with its newline, and its checksum, which seeds the next one's."""
    try:
        body = orjson.dumps(record)
    except orjson.JSONEncodeError:
        body = _ENCODE(record).encode()
    crc = zlib.crc32(body, seed)
    return body[:-1] + b',"crc":"%08x"}\n' % crc, crc


def decode(data: bytes, path: str) -> tuple[list[Record], int, int]:
    """All records of a journal.

    Returns:
        The records, the last one's checksum, and how many bytes of ``data`` they take; what follows
        is a torn line.

    Raises:
        DataLoss: A line that is not the last one is damaged.
    """
    bodies, seed, size = _verified(data, path)
    return _parsed(bodies), seed, size


def _parsed(bodies: Sequence[bytes]) -> list[Record]:
    # All at once: the parser's start costs as much as a short record.
    with no_collection():
        records: list[Record] = json.loads(b"[%b]" % b",".join(bodies))
    return records


def _verified(data: bytes, path: str) -> tuple[list[bytes], int, int]:
    """The lines without their checksums, the last checksum, and how many bytes they take."""
    bodies: list[bytes] = []
    seed, size = 0, 0
    # Behind the last newline is nothing, or a torn line.
    lines = data.split(b"\n")
    last = len(lines) - 1
    for index, line in enumerate(lines):
        body = line[:-_TAIL] + b"}"
        crc = zlib.crc32(body, seed)
        whole = line.endswith(b'%b%08x"}' % (_CRC, crc))
        if index == last or not whole or not body.startswith(b'{"n":%d,' % (index + 1)):
            # NULs are what some file systems leave after a power cut; no record has one.
            if index < last - 1 and b"\0" not in line:
                raise DataLoss(
                    f"journal '{path}': line {index + 1} is damaged",
                    help="the run cannot be resumed; start it again",
                    details={"line": index + 1},
                )
            break
        bodies.append(body)
        seed, size = crc, size + len(line) + 1
    return bodies, seed, size


@attrs.define
class _Pending:
    lines: list[bytes] = attrs.field(factory=list)
    records: list[Record] = attrs.field(factory=list)
    synced: bool = False
    written: trio.Event = attrs.field(factory=trio.Event)
    fault: OSError | None = None


class JournalFailed(LinkspanError):
    """A record could not be written: nothing may be done that it should have announced: 507."""

    http_status = 507
    default_code = "journal_failed"


def _nobody(record: Record) -> None:
    """Nobody is told."""


class Journal:
    """An open journal. Records of several tasks that come at once share one sync.

    Attributes:
        count: Of its records.
        told: Called with each record once it is written, in their order.
    """

    def __init__(self, path: Path, descriptor: int, count: int, seed: int, size: int) -> None:
        self.path = path
        self.told: Callable[[Record], None] = _nobody
        self._descriptor = descriptor
        self._size = size
        self.count = count
        self._seed = seed
        self._pending = _Pending()
        self._lock = trio.Lock()
        self._broken: OSError | None = None

    @classmethod
    async def open(cls, path: Path) -> "Journal":
        """Open a journal, made if it is not there; what it holds is verified, ``past`` tells it.

        Raises:
            DataLoss: It is damaged in the middle.
            JournalFailed: The disk is full, or it cannot be opened.
        """
        return await trio.to_thread.run_sync(cls._open, path)

    @classmethod
    def _open(cls, path: Path) -> "Journal":
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                data = path.read_bytes()
                bodies, seed, good = _verified(data, str(path))
                if good < len(data):
                    os.ftruncate(descriptor, good)
                os.lseek(descriptor, good, os.SEEK_SET)
                sync(path.parent)
            except BaseException:
                os.close(descriptor)
                raise
        except OSError as fault:
            raise _translated(fault, path) from fault
        return cls(path, descriptor, len(bodies), seed, good)

    async def append(self, kind: str, data: Mapping[str, Json], *, sync: bool = True) -> Record:
        """Write a record; when this returns it is in the file.

        No checkpoint if the record is not synced and nobody else is writing: it is a matter of
        microseconds then.

        Args:
            kind: What it tells.
            data: Its own fields.
            sync: It is also on disk: before the world is changed as it says. A record of what has
                happened need not wait for that: the next synced one takes it along, it survives the
                death of this process, and after a power cut the driver is asked.

        Raises:
            JournalFailed: The disk is full; nothing of the record is visible, and no later one is taken.
        If cancelled: the record is written all the same; the caller is cancelled afterwards.
        """
        if self._broken is not None:
            raise _translated(self._broken, self.path) from self._broken
        record = {"n": self.count + 1, "t": now(), "kind": kind, **data}
        try:
            line, seed = encode(record, self._seed)
        except UnicodeEncodeError:
            record = _encodable(record)
            line, seed = encode(record, self._seed)
        # Only now: a record that cannot be written leaves no gap.
        self.count, self._seed = self.count + 1, seed
        if sync or len(line) > _AT_ONCE or self._lock.locked() or self._pending.lines:
            await self._with_others(line, record, sync=sync)
            return record
        try:
            self._write_now(line, sync=False)
        except OSError as fault:
            self._broken = fault
            raise _translated(fault, self.path) from fault
        self.told(record)
        return record

    async def _with_others(self, line: bytes, record: Record, *, sync: bool) -> None:
        mine = self._pending
        mine.lines.append(line)
        mine.records.append(record)
        mine.synced = mine.synced or sync
        # Nobody may leave between taking a number and the sync: others wait for the same write.
        with trio.CancelScope(shield=True):
            async with self._lock:
                if not mine.written.is_set():
                    self._pending = _Pending()
                    await self._write(mine)
        if mine.fault is not None:
            raise _translated(mine.fault, self.path) from mine.fault
        await trio.lowlevel.checkpoint_if_cancelled()

    async def _write(self, batch: _Pending) -> None:
        data = b"".join(batch.lines)
        try:
            if batch.synced or len(data) > _AT_ONCE:
                await trio.to_thread.run_sync(self._write_now, data, batch.synced)
            else:
                self._write_now(data, sync=False)
        except OSError as fault:
            batch.fault = self._broken = fault
        else:
            for record in batch.records:
                self.told(record)
        finally:
            batch.written.set()

    async def past(self, count: int) -> list[Record]:
        """The first ``count`` records, which are written."""
        # The folder may be renamed, and the journal closed, before the file is read.
        descriptor = os.dup(self._descriptor)
        try:
            return await trio.to_thread.run_sync(self._past, descriptor, count)
        finally:
            os.close(descriptor)

    def _past(self, descriptor: int, count: int) -> list[Record]:
        data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        return _parsed(_verified(data, str(self.path))[0][:count])

    def _write_now(self, data: bytes, sync: bool) -> None:
        try:
            written = os.write(self._descriptor, data)
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
            if sync:
                os.fdatasync(self._descriptor)
        except OSError:
            # Half a batch must not look like records that were acted upon.
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += written

    def close(self) -> None:
        """Close the file; nothing is lost, every record is on disk already."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def read(path: Path) -> list[Record]:
    """All records of a journal that nobody has open. Blocks.

    Raises:
        DataLoss: It is damaged in the middle.
    """
    return decode(path.read_bytes(), str(path))[0]


def _encodable(value: Json) -> Json:
    """The same without halves of surrogate pairs, which stand for bytes that are no UTF-8."""
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case Mapping():
            return {_encodable(key): _encodable(item) for key, item in value.items()}
        case list() | tuple():
            return [_encodable(item) for item in value]
        case _:
            return value


def _translated(fault: OSError, path: Path) -> JournalFailed:

    if is_full(fault):
        return JournalFailed(
            f"no room for the journal '{path}': {fault.strerror}",
            help="free some space, then `linkspan workflow resume` goes on",
        )
    return JournalFailed(f"the journal '{path}' cannot be written: {fault.strerror}")
