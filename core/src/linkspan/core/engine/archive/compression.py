"""Decompression of a stream by its first bytes, in worker threads."""

import bz2
import lzma
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Final, Protocol

import trio

from linkspan.sdk.errors import DataLoss

PEEK_BYTES: Final = 512
_BATCH_BYTES: Final = 256 << 10
_ZSTD_WINDOW_BYTES: Final = 128 << 20
_MEMORY_BYTES: Final = 512 << 20


class _Decompressor(Protocol):
    """What bz2, lzma and zstandard have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes) -> bytes: ...


class _Gzip:
    """zlib in the form of the others."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes) -> bytes:
        return self._inner.decompress(data)


def _zstd() -> _Decompressor:
    import zstandard

    found: _Decompressor = zstandard.ZstdDecompressor(
        max_window_size=_ZSTD_WINDOW_BYTES
    ).decompressobj()
    return found


def _xz() -> _Decompressor:
    return lzma.LZMADecompressor(memlimit=_MEMORY_BYTES)


_KINDS: Final[dict[bytes, tuple[str, Callable[[], _Decompressor]]]] = {
    b"\x1f\x8b": ("gzip", _Gzip),
    b"BZh": ("bzip2", bz2.BZ2Decompressor),
    b"\xfd7zXZ\0": ("xz", _xz),
    b"\x28\xb5\x2f\xfd": ("zstd", _zstd),
}
LAYER_KINDS: Final = frozenset(("gzip", "zstd"))
"""Compressions that layers may have."""


def kind_of(head: bytes) -> str:
    """The compression of a stream that begins so: ``gzip``, ``bzip2``, ``xz``, ``zstd``, or ``""``."""
    for magic, (name, _) in _KINDS.items():
        if head.startswith(magic):
            return name
    return ""


async def plain(
    source: AsyncIterator[bytes], *, keep: frozenset[str] = frozenset()
) -> AsyncGenerator[bytes, None]:
    """The bytes of a stream, decompressed unless its compression is one of ``keep``.

    Raises:
        DataLoss: It is corrupt or truncated.
    """
    head = b""
    async for piece in source:
        head += piece
        if len(head) >= PEEK_BYTES:
            break
    kind = kind_of(head)
    if not kind or kind in keep:
        if head:
            yield head
        async for piece in source:
            yield piece
        return
    make = next(maker for name, maker in _KINDS.values() if name == kind)
    stream = _Members(kind, make)
    async with aclosing(_batches(head, source)) as batches:
        async for batch in batches:
            for out in await trio.to_thread.run_sync(stream.feed, batch):
                yield out
    stream.finish()


async def _batches(head: bytes, source: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Larger pieces, since each costs a change of thread."""
    parts, size = [head], len(head)
    async for piece in source:
        parts.append(piece)
        size += len(piece)
        if size >= _BATCH_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
    yield b"".join(parts)


class _Members:
    """All members of a compressed stream, one after the other."""

    def __init__(self, kind: str, make: Callable[[], _Decompressor]) -> None:
        self._kind = kind
        self._make = make
        self._member = make()
        self._begun = False

    def feed(self, data: bytes) -> list[bytes]:
        """The plain bytes of the next compressed ones. Raises DataLoss."""
        out = []
        while data:
            if not self._begun and not data.strip(b"\0"):
                # Padding behind the last member.
                break
            try:
                out.append(self._member.decompress(data))
            except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
                raise self._corrupt(error) from error
            except Exception as error:
                if type(error).__name__ != "ZstdError":
                    raise
                raise self._corrupt(error) from error
            self._begun = True
            if not self._member.eof:
                break
            data = self._member.unused_data
            self._member, self._begun = self._make(), False
        return [piece for piece in out if piece]

    def finish(self) -> None:
        """The stream has ended. Raises DataLoss if it was cut."""
        if self._begun:
            raise DataLoss(f"the {self._kind} stream is truncated", code="truncated_archive")

    def _corrupt(self, error: Exception) -> DataLoss:
        return DataLoss(f"the {self._kind} stream is corrupt: {error}", code="corrupt_archive")
