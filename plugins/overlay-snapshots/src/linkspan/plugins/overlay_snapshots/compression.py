"""Decompression by magic bytes, with bounded pieces whatever the input is."""

from collections.abc import Iterator
from typing import Final

import zstandard
from isal import isal_zlib

from linkspan.plugins.overlay_snapshots.faults import corrupt, truncated
from linkspan.sdk.errors import InvalidArgument, TooLarge

GZIP: Final = b"\x1f\x8b"
ZSTD: Final = b"\x28\xb5\x2f\xfd"
_REFUSED: Final = {b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}
MAGIC_BYTES: Final = 6

_GzipError: type[Exception] = isal_zlib.error  # type: ignore[assignment] # its stub is wrong

_PIECE_BYTES: Final = 4 << 20
_ZSTD_WINDOW_BYTES: Final = 128 << 20
# One block of zstd (at most 128 KiB of output) can be 4 bytes: this much input yields at most 256 MiB.
_ZSTD_INPUT_BYTES: Final = 8 << 10
_ZSTD_JOIN_BYTES: Final = 256 << 10


def is_compressed(head: bytes) -> bool:
    """Whether a stream that begins so is gzip or zstd.

    Raises:
        InvalidArgument: code ``unsupported_compression``.
    """
    for magic, name in _REFUSED.items():
        if head.startswith(magic):
            raise InvalidArgument(
                f"the layer is compressed with {name}",
                code="unsupported_compression",
                help="layers are plain, gzip or zstd",
            )
    return head.startswith((GZIP, ZSTD))


def decompressed(head: bytes, blocks: Iterator[memoryview]) -> Iterator[bytes]:
    """The plain bytes of ``head`` and what follows it.

    Raises:
        DataLoss: Corrupt or truncated.
        TooLarge: A zstd window above 128 MiB.
    """
    if head.startswith(GZIP):
        return _gunzip(head, blocks)
    return _unzstd(head, blocks)


def _with_head(head: bytes, blocks: Iterator[memoryview]) -> Iterator[memoryview]:
    yield memoryview(head)
    yield from blocks


def _gunzip(head: bytes, blocks: Iterator[memoryview]) -> Iterator[bytes]:
    """All members of a gzip stream (RFC 1952 section 2.2); zero padding behind them is accepted."""
    member = isal_zlib.decompressobj(wbits=31)
    started, ended_once, padding = False, False, False
    for block in _with_head(head, blocks):
        data: bytes | memoryview = block
        more = bool(data)
        while more:
            padding = padding or (ended_once and not started and data[0] == 0)
            if padding:
                if bytes(data).strip(b"\0"):
                    raise corrupt("there is something behind the gzip stream")
                break
            try:
                piece = member.decompress(data, _PIECE_BYTES)
            except _GzipError as error:
                raise corrupt(f"gzip: {error}") from error
            started = True
            yield piece
            if member.eof:
                data = member.unused_data
                member = isal_zlib.decompressobj(wbits=31)
                started, ended_once = False, True
                more = bool(data)
            else:
                data = member.unconsumed_tail
                # A full piece may have left output in the decompressor.
                more = bool(data) or len(piece) == _PIECE_BYTES
    if started:
        raise truncated("the gzip stream has no end")


def _unzstd(head: bytes, blocks: Iterator[memoryview]) -> Iterator[bytes]:
    """All frames of a zstd stream (RFC 8878)."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
    frame = decompressor.decompressobj()
    joined: list[bytes] = []
    joined_bytes = 0
    started = False
    for block in _with_head(head, blocks):
        at = 0
        while at < len(block):
            data = bytes(block[at : at + _ZSTD_INPUT_BYTES])
            at += len(data)
            while data:
                started = True
                try:
                    piece = frame.decompress(data)
                except zstandard.ZstdError as error:
                    if "requires too much memory" in str(error):
                        raise TooLarge(f"the layer's zstd window is too large: {error}") from error
                    raise corrupt(f"zstd: {error}") from error
                data = b""
                if frame.eof:
                    data = frame.unused_data
                    frame = decompressor.decompressobj()
                    started = False
                joined.append(piece)
                joined_bytes += len(piece)
            if joined_bytes >= _ZSTD_JOIN_BYTES:
                yield b"".join(joined)
                joined, joined_bytes = [], 0
    yield b"".join(joined)
    if started:
        raise truncated("the zstd stream has no end")
