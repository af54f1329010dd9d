"""Tars as streams: the members of one that arrives, and headers for one that is written.

Contents of layers never pass through here but as opaque bytes; drivers read them in chrooted children.
"""

import posixpath
import tarfile
from collections.abc import AsyncIterator
from typing import Final, Self

import trio

from linkspan.sdk.errors import DataLoss, InvalidArgument
from linkspan.sdk.values import frozen

BLOCK: Final = 512
_EXTENDED_LIMIT_BYTES: Final = 1 << 20
_MOST_MEMBERS: Final = 200_000
_EXTENDED: Final = frozenset((tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME))
_LONG_LINK: Final = tarfile.GNUTYPE_LONGLINK


def bad_archive(why: str) -> InvalidArgument:
    """It can be read, but is no image."""
    return InvalidArgument(f"invalid archive: {why}", code="bad_archive")


def inside(name: str) -> str:
    """A name as a path inside the archive. Raises InvalidArgument if it leads out of it."""
    path = posixpath.normpath(name.lstrip("/"))
    if path == ".." or path.startswith("../") or "\0" in path:
        raise bad_archive(f"'{name[:200]}' leads out of it")
    return path


@frozen(kw_only=True)
class Member:
    """An entry of a tar; ``link`` is the path that a link leads to, empty for others."""

    name: str
    size_bytes: int
    is_file: bool
    link: str = ""


class TarStream:
    """Reads a plain tar once, member by member."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source = source
        self._ahead: memoryview = memoryview(b"")
        self._left = 0
        self._padding = 0
        self._members = 0

    async def next(self) -> Member | None:
        """The next member; what was not read of the one before is skipped. None at the end.

        Raises:
            DataLoss: It is truncated or no tar.
            InvalidArgument: A name leads out of the archive, or there are too many members.
        """
        await self._skip(self._left + self._padding)
        self._left = self._padding = 0
        changes: dict[str, str] = {}
        while True:
            block = await self._take(BLOCK, at_end=True)
            if not block or not block.strip(b"\0"):
                await self._drain()
                return None
            info = _header(block)
            if info.type in _EXTENDED or info.type == _LONG_LINK:
                data = await self._extended(info)
                if info.type == tarfile.XHDTYPE:
                    changes |= _pax(data)
                elif info.type == tarfile.GNUTYPE_LONGNAME:
                    changes["path"] = _text(data.split(b"\0")[0])
                elif info.type == _LONG_LINK:
                    changes["linkpath"] = _text(data.split(b"\0")[0])
                continue
            return self._member(info, changes)

    def _member(self, info: tarfile.TarInfo, changes: dict[str, str]) -> Member:
        self._members += 1
        if self._members > _MOST_MEMBERS:
            raise bad_archive(f"it has more than {_MOST_MEMBERS} members")
        name = changes.get("path", info.name)
        link = changes.get("linkpath", info.linkname)
        is_file = info.isreg() and not name.endswith("/")
        size = int(changes.get("size", info.size)) if is_file else 0
        self._left, self._padding = size, -size % BLOCK
        target = ""
        if info.issym():
            target = inside(posixpath.join(posixpath.dirname(inside(name)), link))
        elif info.islnk():
            target = inside(link)
        return Member(name=inside(name), size_bytes=size, is_file=is_file, link=target)

    def data(self) -> AsyncIterator[bytes]:
        """What is left of the member's content, in the pieces that arrive. Raises DataLoss."""
        return _Content(self)

    async def next_part(self) -> bytes:
        """The next piece of the content; empty at its end. Raises DataLoss."""
        if not self._left:
            return b""
        piece = await self._piece()
        part = piece[: self._left]
        self._ahead = piece[len(part) :]
        self._left -= len(part)
        return bytes(part)

    async def peek(self, count: int) -> bytes:
        """The next bytes of the content, without taking them; fewer at its end. Raises DataLoss."""
        wanted = min(count, self._left)
        while len(self._ahead) < wanted:
            following = await self._arrived()
            self._ahead = memoryview(bytes(self._ahead) + following)
        return bytes(self._ahead[:wanted])

    async def read(self, limit_bytes: int) -> bytes:
        """The whole content. Raises InvalidArgument if it is larger."""
        if self._left > limit_bytes:
            raise bad_archive(f"a document has {self._left} bytes")
        return b"".join([piece async for piece in self.data()])

    async def _extended(self, info: tarfile.TarInfo) -> bytes:
        if info.size > _EXTENDED_LIMIT_BYTES:
            raise bad_archive(f"an extended header has {info.size} bytes")
        data = await self._take(info.size)
        await self._skip(-info.size % BLOCK)
        return data

    async def _arrived(self) -> bytes:
        piece = await anext(self._source, b"")
        if not piece:
            raise DataLoss("the archive is truncated", code="truncated_archive")
        return piece

    async def _piece(self) -> memoryview:
        if self._ahead:
            return self._ahead
        return memoryview(await self._arrived())

    async def _take(self, count: int, *, at_end: bool = False) -> bytes:
        """Exactly so many bytes; none if the stream ends here and may."""
        parts = bytearray()
        while len(parts) < count:
            if not self._ahead:
                piece = await anext(self._source, b"")
                if not piece:
                    if at_end and not parts:
                        return b""
                    raise DataLoss("the archive is truncated", code="truncated_archive")
                self._ahead = memoryview(piece)
            part = self._ahead[: count - len(parts)]
            parts += part
            self._ahead = self._ahead[len(part) :]
        return bytes(parts)

    async def _skip(self, count: int) -> None:
        while count:
            piece = await self._piece()
            skipped = min(count, len(piece))
            self._ahead = piece[skipped:]
            count -= skipped

    async def _drain(self) -> None:
        """Read on to the stream's end, so that who sends can finish."""
        self._ahead = memoryview(b"")
        async for _ in self._source:
            await trio.lowlevel.checkpoint()


class _Content:
    """The content of one member."""

    def __init__(self, tar: TarStream) -> None:
        self._tar = tar

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        part = await self._tar.next_part()
        if not part:
            raise StopAsyncIteration
        return part


def _header(block: bytes) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError as error:
        raise DataLoss(f"the archive cannot be read: {error}", code="corrupt_archive") from error


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _pax(data: bytes) -> dict[str, str]:
    """Records of an extended header that matter here (POSIX pax "pax Extended Header")."""
    found = {}
    while data:
        length, blank, _ = data.partition(b" ")
        if not blank or not length.isdigit() or not len(length) < int(length) <= len(data):
            raise DataLoss("an extended header cannot be read", code="corrupt_archive")
        record = data[len(length) + 1 : int(length)].rstrip(b"\n")
        data = data[int(length) :]
        key, _, value = record.partition(b"=")
        if key in (b"path", b"linkpath") or (key == b"size" and value.isdigit()):
            found[_text(key)] = _text(value)
    return found


def file_header(name: str, size_bytes: int) -> bytes:
    """Of a file in an archive of images; always the same bytes."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size_bytes, 0o644
    return info.tobuf(tarfile.PAX_FORMAT)


def folder_header(name: str) -> bytes:
    """Of a folder."""
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    return info.tobuf(tarfile.PAX_FORMAT)


def padding(size_bytes: int) -> bytes:
    """What follows a file's content."""
    return bytes(-size_bytes % BLOCK)


END: Final = bytes(2 * BLOCK)
"""The trailer."""
