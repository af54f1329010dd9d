"""A streaming tar reader: headers and data of entries, plain or compressed, from any source of bytes.

Accepts ustar, GNU long names and PAX (POSIX.1-2001) as docker clients and tar programs write them.
Written for speed and for hostile input: no seeking, sizes checked, nothing is created here.
"""

import bz2
import lzma
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal

import attrs

from linkspan.sdk.errors import DataLoss, InvalidArgument, TooLarge

BLOCK = 512
_ZERO = bytes(BLOCK)
# GNU and PAX headers carry names and small attributes; a MiB is far beyond what tar programs write.
_MAX_METADATA_BYTES = 1 << 20
_PIECE_BYTES = 1 << 18
# The highest one means "leave it as it is" to chown(2).
_MAX_ID = (1 << 32) - 2
_MAX_OWNERS = 1000
_NO_XATTRS: Mapping[str, bytes] = MappingProxyType({})

Kind = Literal["file", "directory", "symlink", "hardlink", "fifo", "char", "block"]
_KINDS: dict[bytes, Kind] = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"1": "hardlink",
    b"2": "symlink",
    b"3": "char",
    b"4": "block",
    b"5": "directory",
    b"6": "fifo",
}


# Not frozen: making frozen values would be a tenth of the time that a context of small files takes.
@attrs.define(kw_only=True)
class Entry:
    """One member of an archive. Nobody changes it.

    Attributes:
        name: As written; bytes that are no UTF-8 are kept as surrogates.
        mode: Permission bits, 0 to 0o7777.
        target: Of symbolic and hard links.
        device: Major and minor number of device nodes.
        xattrs: Name → value, from ``SCHILY.xattr.`` records.
    """

    name: str
    kind: Kind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    target: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = _NO_XATTRS


class ByteStream:
    """Exact reads from a source that hands out pieces of any length.

    Args:
        more: Returns the next piece, ``b""`` at the end.
        limit_bytes: TooLarge is raised beyond it.
    """

    def __init__(self, more: Callable[[], bytes], *, limit_bytes: int) -> None:
        self._more = more
        self._data = b""
        self._view = memoryview(b"")
        self._at = 0
        self._left = limit_bytes
        self._limit = limit_bytes

    def _fill(self) -> bool:
        self._data = self._more()
        self._view, self._at = memoryview(self._data), 0
        self._left -= len(self._data)
        if self._left < 0:
            raise TooLarge(f"more than {self._limit} bytes were unpacked", code="archive_too_large")
        return bool(self._data)

    def read(self, count: int) -> bytes:
        """``count`` bytes, or fewer at the end."""
        end = self._at + count
        if end <= len(self._data):
            data, self._at = self._data[self._at : end], end
            return data
        return b"".join(self.pieces(count))

    def take(self, count: int) -> memoryview | None:
        """``count`` bytes without copying, if that many are here; nothing is taken otherwise."""
        end = self._at + count
        if end > len(self._data):
            return None
        view, self._at = self._view[self._at : end], end
        return view

    def pieces(self, count: int) -> Iterator[memoryview]:
        """``count`` bytes as they come, without copying; fewer at the end."""
        while count:
            if self._at == len(self._data) and not self._fill():
                return
            piece = self._view[self._at : self._at + count]
            self._at += len(piece)
            count -= len(piece)
            yield piece

    def skip(self, count: int) -> None:
        """Throw ``count`` bytes away."""
        end = self._at + count
        if end <= len(self._data):
            self._at = end
            return
        for _ in self.pieces(count):
            pass


def open_stream(more: Callable[[], bytes], *, limit_bytes: int) -> ByteStream:
    """A stream of the plain bytes; gzip, bzip2, xz and zstd are told by their first bytes.

    Args:
        more: As for :class:`ByteStream`.
        limit_bytes: Of the plain bytes.

    Raises:
        DataLoss: While reading: the compressed data is broken or cut off.
    """
    head = b""
    while len(head) < 6 and (data := more()):
        head += data
    pending = [head] if head else []

    def source() -> bytes:
        return pending.pop() if pending else more()

    if not compression(head):
        return ByteStream(source, limit_bytes=limit_bytes)
    return ByteStream(_Inflater(compression(head), source).more, limit_bytes=limit_bytes)


def compression(head: bytes) -> str:
    """``gzip``, ``bzip2``, ``xz``, ``zstd``, or empty for anything else."""
    for magic, name in (
        (b"\x1f\x8b", "gzip"),
        (b"BZh", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
    ):
        if head.startswith(magic):
            return name
    return ""


class _Inflater:
    """Decompresses piece by piece, so that a bomb is stopped by the limit and not by the memory."""

    def __init__(self, name: str, source: Callable[[], bytes]) -> None:
        self._name = name
        self._source = source
        self._pending = b""
        self._new()

    def _new(self) -> None:
        self._decoder: Any
        match self._name:
            case "gzip":
                self._decoder = zlib.decompressobj(31)
            case "bzip2":
                self._decoder = bz2.BZ2Decompressor()
            case "xz":
                self._decoder = lzma.LZMADecompressor(memlimit=256 << 20)
            case _:
                self._decoder = _zstd_decoder()

    def more(self) -> bytes:
        while True:
            if self._decoder.eof:
                # Archives may be several compressed members behind each other.
                self._pending = self._decoder.unused_data or self._pending or self._source()
                if not self._pending or self._pending.strip(b"\0") == b"":
                    return b""
                self._new()
            data = self._decode()
            if data or self._decoder.eof:
                if data:
                    return data
                continue

    def _decode(self) -> bytes:
        starved = self._name == "gzip" or getattr(self._decoder, "needs_input", True)
        if not self._pending and starved:
            self._pending = self._source()
            if not self._pending:
                raise DataLoss(f"the {self._name} data is cut off", code="archive_truncated")
        try:
            if self._name == "gzip":
                data = self._decoder.decompress(self._pending, _PIECE_BYTES)
                self._pending = self._decoder.unconsumed_tail
            elif self._name == "zstd":
                data, self._pending = self._decoder.decompress(self._pending), b""
            else:
                data, self._pending = self._decoder.decompress(self._pending, _PIECE_BYTES), b""
        except (zlib.error, OSError, lzma.LZMAError, EOFError, ValueError) as error:
            raise DataLoss(
                f"the {self._name} data is broken: {error}", code="archive_broken"
            ) from error
        return bytes(data)


def _zstd_decoder() -> Any:
    import zstandard  # lazily: few archives need it

    class Decoder:
        """zstandard's object, with errors and pieces like those of the standard library."""

        def __init__(self) -> None:
            self._inner = zstandard.ZstdDecompressor(max_window_size=128 << 20).decompressobj()

        @property
        def eof(self) -> bool:
            return bool(self._inner.eof)

        @property
        def unused_data(self) -> bytes:
            return bytes(self._inner.unused_data)

        def decompress(self, data: bytes) -> bytes:
            try:
                return bytes(self._inner.decompress(data))
            except zstandard.ZstdError as error:
                raise ValueError(str(error)) from error

    return Decoder()


def is_tar_header(block: bytes) -> bool:
    """Whether a block is the header of a tar entry: its checksum is right."""
    if len(block) != BLOCK or block == _ZERO:
        return False
    try:
        checksum = block[148:156]
        return _number(checksum) == sum(block) - sum(checksum) + 256
    except ValueError:
        return False


def entries(stream: ByteStream) -> Iterator[tuple[Entry, Iterable[memoryview]]]:
    """The entries of a tar and the pieces of their data, which need not be read.

    Raises:
        InvalidArgument: A header cannot be read, or the type of an entry is unknown.
        DataLoss: The archive ends inside an entry. A missing trailer is accepted.
    """
    reader = _Reader(stream)
    while (found := reader.next()) is not None:
        yield found


def _number(field: bytes) -> int:
    """A numeric header field: octal text, or base 256 (GNU)."""
    if field[-1] in b"\0 ":
        # What nearly every header has: digits and one NUL or blank behind them.
        try:
            return int(field[:-1], 8)
        except ValueError:
            pass
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=False) & ((1 << (8 * len(field) - 1)) - 1)
        return value if not field[0] & 0x40 else value - (1 << (8 * len(field) - 1))
    text = field.partition(b"\0")[0].strip()
    return int(text, 8) if text else 0


class _Reader:
    """Reads entry after entry; keeps what long-name and PAX headers say about the next one."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._left = 0
        self._padding = 0
        self._name = ""
        self._owners: dict[bytes, tuple[int, int, int]] = {}

    def next(self) -> tuple[Entry, Iterable[memoryview]] | None:
        if self._left or self._padding:
            self._skip_rest()
        long: dict[bytes, bytes] = {}
        pax: dict[str, bytes] = {}
        while True:
            block = self._stream.read(BLOCK)
            if not block or block == _ZERO:
                return None
            if len(block) < BLOCK:
                raise DataLoss("the archive ends inside a header", code="archive_truncated")
            if not is_tar_header(block):
                raise InvalidArgument("the archive has a broken header", code="archive_broken")
            kind = block[156:157]
            size = _number(block[124:136])
            if kind in (b"L", b"K"):
                long[kind] = self._metadata(size).rstrip(b"\0")
            elif kind == b"x":
                pax = _pax_records(self._metadata(size))
            elif kind == b"g":
                self._metadata(size)
            else:
                return self._entry(block, long, pax)

    def _metadata(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_METADATA_BYTES:
            raise TooLarge(f"an extended tar header has {size} bytes", code="archive_too_large")
        data = self._stream.read(size)
        self._stream.skip(-size % BLOCK)
        if len(data) < size:
            raise DataLoss("the archive ends inside a header", code="archive_truncated")
        return data

    def _entry(
        self, block: bytes, long: dict[bytes, bytes], pax: dict[str, bytes]
    ) -> tuple[Entry, Iterable[memoryview]]:
        name = os.fsdecode(pax.get("path") or long.get(b"L") or _header_name(block))
        kind = _KINDS.get(block[156:157])
        if block[156:157] == b"S" or any(key.startswith("GNU.sparse.") for key in pax):
            raise InvalidArgument(f"'{name}' is a sparse tar entry", code="archive_unsupported")
        if kind is None:
            raise InvalidArgument(
                f"'{name}' has the unknown tar type {block[156:157]!r}", code="archive_unsupported"
            )
        try:
            entry = self._make_entry(name, kind, block, long, pax)
        except ValueError as error:
            raise InvalidArgument(
                f"the tar header of '{name}' is broken", code="archive_broken"
            ) from error
        if entry.size < 0:
            raise InvalidArgument(f"'{name}' has a negative size", code="archive_broken")
        stored = entry.size if kind == "file" else 0
        if not stored:
            return entry, ()
        padding = -stored % BLOCK
        data = self._stream.take(stored + padding)
        if data is not None:
            return entry, (data[:stored],)
        self._left, self._padding, self._name = stored, padding, name
        return entry, self._data()

    def _make_entry(
        self, name: str, kind: Kind, block: bytes, long: dict[bytes, bytes], pax: dict[str, bytes]
    ) -> Entry:
        mode, uid, gid = self._owner(block[100:124])
        xattrs = _NO_XATTRS
        mtime_ns = _number(block[136:148]) * 1_000_000_000
        size = _number(block[124:136])
        if pax:
            mtime_ns = _pax_time_ns(pax["mtime"]) if "mtime" in pax else mtime_ns
            size = int(pax.get("size", size))
            uid, gid = int(pax.get("uid", uid)), int(pax.get("gid", gid))
            xattrs = {
                key.removeprefix("SCHILY.xattr."): value
                for key, value in pax.items()
                if key.startswith("SCHILY.xattr.")
            }
        if not 0 <= uid <= _MAX_ID or not 0 <= gid <= _MAX_ID:
            raise ValueError(name)
        target = pax.get("linkpath") or long.get(b"K") or b""
        device = (0, 0)
        if kind in ("char", "block"):
            device = (_number(block[329:337]), _number(block[337:345]))
            if not 0 <= min(device) <= max(device) < 1 << 20:
                raise ValueError(name)
        elif kind in ("symlink", "hardlink"):
            target = target or block[157:257].partition(b"\0")[0]
        if "\0" in name or b"\0" in target:
            raise ValueError(name)
        return Entry(
            name=name,
            kind=kind,
            mode=mode,
            uid=uid,
            gid=gid,
            size=size,
            mtime_ns=min(max(mtime_ns, 0), (1 << 63) - 1),
            target=os.fsdecode(target) if kind in ("symlink", "hardlink") else "",
            device=device,
            xattrs=xattrs,
        )

    def _owner(self, fields: bytes) -> tuple[int, int, int]:
        """Mode, user and group of a header: most of an archive's have the same."""
        found = self._owners.get(fields)
        if found is None:
            if len(self._owners) >= _MAX_OWNERS:
                self._owners.clear()
            mode, uid, gid = (_number(fields[at : at + 8]) for at in (0, 8, 16))
            found = self._owners[fields] = (mode & 0o7777, uid, gid)
        return found

    def _data(self) -> Iterator[memoryview]:
        for piece in self._stream.pieces(self._left):
            self._left -= len(piece)
            yield piece
        if self._left:
            raise DataLoss(
                f"the archive ends inside '{self._name}'",
                code="archive_truncated",
            )

    def _skip_rest(self) -> None:
        for _ in self._data():
            pass
        self._stream.skip(self._padding)
        self._padding = 0


def _header_name(block: bytes) -> bytes:
    name = block[:100].partition(b"\0")[0]
    # GNU's own magic ("ustar  ") uses the prefix field for times.
    if block[257:263] == b"ustar\0" and block[345]:
        return block[345:500].partition(b"\0")[0] + b"/" + name
    return name


def _pax_time_ns(text: bytes) -> int:
    whole, _, fraction = text.partition(b".")
    return int(whole) * 1_000_000_000 + int((fraction + b"0" * 9)[:9])


def _pax_records(data: bytes) -> dict[str, bytes]:
    """``length key=value\\n`` records (POSIX.1-2001 pax, "pax Extended Header")."""
    records: dict[str, bytes] = {}
    at = 0
    try:
        while at < len(data):
            space = data.index(b" ", at)
            length = int(data[at:space])
            if length <= space - at or at + length > len(data):
                raise ValueError(length)
            key, _, value = data[space + 1 : at + length - 1].partition(b"=")
            records[os.fsdecode(key)] = value
            at += length
    except ValueError as error:
        raise InvalidArgument(
            "the archive has a broken extended header", code="archive_broken"
        ) from error
    return records
