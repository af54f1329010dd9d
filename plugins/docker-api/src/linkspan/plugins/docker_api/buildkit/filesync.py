"""A client's folders: fsutil's protocol inside of ``FileSync/DiffCopy``.

The client sends what it has (STAT for each path in order, an empty one at the end); we ask for files by their
place in that order (REQ), and get their bytes (DATA, an empty one at the end of each), side by side. FIN ends it.
"""

import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, cast
from urllib.parse import quote

import trio

from linkspan.plugins.docker_api.buildkit.grpc import Call, GrpcError, calling, one_error
from linkspan.plugins.docker_api.buildkit.http2 import Connection
from linkspan.plugins.docker_api.buildkit.wire import (
    Message,
    WireError,
    fields,
    message,
    signed,
)
from linkspan.sdk.build_client import ContentsSink, FolderEntry, FolderTransfer
from linkspan.sdk.errors import InvalidArgument, TooLarge

METHOD: Final = "/moby.filesync.v1.FileSync/DiffCopy"
STAT: Final = 0
REQUEST: Final = 1
DATA: Final = 2
FIN: Final = 3
ERROR: Final = 4

_MAX_ENTRIES: Final = 1_000_000
_REQUESTS_AT_ONCE: Final = 512
_MAX_KNOWN: Final = 50_000
_KNOWN_BYTES: Final = 512

# Bits of Go's os.FileMode.
_GO_DIRECTORY: Final = 1 << 31
_GO_SYMLINK: Final = 1 << 27
_GO_DEVICE: Final = 1 << 26
_GO_FIFO: Final = 1 << 25
_GO_SOCKET: Final = 1 << 24
_GO_SETUID: Final = 1 << 23
_GO_SETGID: Final = 1 << 22
_GO_CHARACTERS: Final = 1 << 21
_GO_STICKY: Final = 1 << 20
_KINDS: Final = {
    0: "file",
    _GO_DIRECTORY: "directory",
    _GO_SYMLINK: "symlink",
    _GO_FIFO: "fifo",
    _GO_DEVICE: "block",
    _GO_DEVICE | _GO_CHARACTERS: "char",
}
_KIND_BITS: Final = (
    _GO_DIRECTORY | _GO_SYMLINK | _GO_DEVICE | _GO_FIFO | _GO_SOCKET | _GO_CHARACTERS
)


_BIT_OF_FORMAT: Final = {
    stat.S_IFDIR: _GO_DIRECTORY,
    stat.S_IFLNK: _GO_SYMLINK,
    stat.S_IFIFO: _GO_FIFO,
    stat.S_IFBLK: _GO_DEVICE,
    stat.S_IFCHR: _GO_DEVICE | _GO_CHARACTERS,
}


def go_mode(mode: int) -> int:
    """A mode as Go has it."""
    return (
        mode & 0o777
        | _BIT_OF_FORMAT.get(stat.S_IFMT(mode), 0)
        | (_GO_SETUID if mode & stat.S_ISUID else 0)
        | (_GO_SETGID if mode & stat.S_ISGID else 0)
        | (_GO_STICKY if mode & stat.S_ISVTX else 0)
    )


def read_stat(data: bytes) -> FolderEntry:
    """An entry as fsutil writes it (``fsutil.types.Stat``). Raises WireError."""
    text = {1: b"", 7: b""}
    value = dict.fromkeys((2, 3, 4, 5, 6, 8, 9), 0)
    xattrs: dict[str, bytes] = {}
    for number, found in fields(data):
        if number in value and isinstance(found, int):
            value[number] = found
        elif number in text and isinstance(found, bytes):
            text[number] = found
        elif number == 10 and isinstance(found, bytes):
            pair = Message(found)
            xattrs[pair.text(1)] = pair.data(2)
    mode = value[2]
    return FolderEntry(
        path=text[1].decode("utf-8", "surrogateescape"),
        kind=_KINDS.get(mode & _KIND_BITS, ""),
        mode=mode & 0o777
        | (0o4000 if mode & _GO_SETUID else 0)
        | (0o2000 if mode & _GO_SETGID else 0)
        | (0o1000 if mode & _GO_STICKY else 0),
        uid=value[3],
        gid=value[4],
        size=signed(value[5]),
        mtime_ns=signed(value[6]),
        link=text[7].decode("utf-8", "surrogateescape"),
        device=(value[8], value[9]),
        xattrs=xattrs,
    )


_known: dict[bytes, FolderEntry] = {}
"""Entries by the bytes in which they came: in the next build of a folder most files are what they were."""


def _remembered(packet: bytes, entry: FolderEntry) -> FolderEntry:
    if len(packet) < _KNOWN_BYTES:
        if len(_known) >= _MAX_KNOWN:
            _known.clear()
        _known[packet] = entry
    return entry


def _packets(messages: Sequence[bytes]) -> Iterator[tuple[int, int, bytes | None, bytes]]:
    """Kind, number, entry (None if there is none) and data of each packet. Raises WireError."""
    for packet in messages:
        kind = number = 0
        entry: bytes | None = None
        data = b""
        for field, value in fields(packet):
            if isinstance(value, int):
                if field == 1:
                    kind = value
                elif field == 3:
                    number = value
            elif field == 2:
                entry = value
            elif field == 4:
                data = value
        yield kind, number, entry, data


class ClientFolder(FolderTransfer):
    """One call of DiffCopy."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._waiting: list[bytes] = []  # messages behind the last entry
        self.received_bytes = 0

    async def entries(self) -> list[FolderEntry]:
        """See ``FolderTransfer.entries``."""
        found: list[FolderEntry] = []
        while True:
            messages = await self._receive()
            # A few thousand at most, as much as the windows hold: less work than a change of thread.
            remembered = [*map(_known.get, messages)]
            if None not in remembered:
                found += cast(list[FolderEntry], remembered)
                messages = []
            for count, packet in enumerate(messages, 1):
                known = _known.get(packet)
                if known is not None:
                    found.append(known)
                    continue
                ((kind, _, entry, data),) = _read([packet])
                if kind != STAT:
                    raise _unexpected(kind, data)
                if entry is None:
                    self._waiting = messages[count:]
                    return found
                found.append(_remembered(packet, read_stat(entry)))
            if len(found) > _MAX_ENTRIES:
                raise TooLarge("the client's folder has too many entries", code="context_too_large")
            await trio.lowlevel.checkpoint()

    async def contents(self, numbers: Sequence[int], take: ContentsSink) -> None:
        """See ``FolderTransfer.contents``."""
        left = set(numbers)
        with one_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._ask, numbers)
                while left:
                    batch: list[tuple[int, bytes]] = []
                    for kind, number, _, data in _read(await self._receive()):
                        if kind != DATA or number not in left:
                            raise _unexpected(kind, data)
                        batch.append((number, data))
                        if not data:
                            left.discard(number)
                    await take(batch)

    async def _ask(self, numbers: Sequence[int]) -> None:
        for at in range(0, len(numbers), _REQUESTS_AT_ONCE):
            some = numbers[at : at + _REQUESTS_AT_ONCE]
            await self._call.send(*(message({1: REQUEST, 3: number}) for number in some))

    async def _receive(self) -> list[bytes]:
        if self._waiting:
            messages, self._waiting = self._waiting, []
            return messages
        messages = await self._call.receive()
        if not messages:
            raise InvalidArgument(
                "the client ended before its folder was complete", code="context_cut_off"
            )
        self.received_bytes += sum(map(len, messages))
        return messages

    async def finish(self) -> None:
        """Tell the client that nothing more is asked of it; that it agrees makes no difference."""
        await self._call.send(message({1: FIN}))
        await self._call.leave()


def _read(messages: Sequence[bytes]) -> Iterator[tuple[int, int, bytes | None, bytes]]:
    try:
        yield from _packets(messages)
    except WireError as error:
        raise InvalidArgument(f"the client's files cannot be read: {error}") from error


def _unexpected(kind: int, data: bytes) -> InvalidArgument:
    if kind == ERROR:
        return InvalidArgument(data.decode("utf-8", "replace"), code="context_unreadable")
    return InvalidArgument(f"the client sent a packet of kind {kind} that was not asked for")


@asynccontextmanager
async def open_folder(
    connection: Connection, name: str, *, paths: Sequence[str], exclude: Sequence[str]
) -> AsyncIterator[ClientFolder]:
    """One of the client's folders. Raises GrpcError.

    Args:
        paths: Only these and what links among them lead to; none for all.
        exclude: Patterns.
    """
    metadata = [
        ("dir-name", name),
        *_encoded("followpaths", paths),
        *_encoded("exclude-patterns", exclude),
    ]
    async with calling(connection, METHOD, metadata) as call:
        folder = ClientFolder(call)
        yield folder
        try:
            await folder.finish()
        except GrpcError:
            return  # we have what we need


def _encoded(name: str, values: Sequence[str]) -> list[tuple[str, str]]:
    """Values of a header; where one is no plain text all are written as in a URL, and that is said."""
    if all(value.isascii() and value.isprintable() for value in values):
        return [(name, value) for value in values]
    encoded = [(name, quote(value, safe="", errors="surrogateescape")) for value in values]
    return [*encoded, (f"{name}-encoded", "1")]
