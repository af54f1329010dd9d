"""Sparse entries of a tar: GNU's old type S and the PAX formats 0.0, 0.1 and 1.0.

Formats: GNU tar manual, "Storing Sparse Files" (Appendix D.2).
"""

import os
from collections.abc import Mapping
from typing import Final

from linkspan.plugins.overlay_snapshots.faults import corrupt, hostile

Segment = tuple[int, int]
"""Offset and length of data in the file."""

_MAP_LIMIT_BYTES: Final = 16 << 20


class SparseFile:
    """Writes the data of one sparse entry to its places; holes stay holes.

    Attributes:
        real_size: Length of the file with its holes.
        stored_size: Bytes of the entry in the tar.
    """

    def __init__(
        self, name: bytes, real_size: int, stored_size: int, segments: list[Segment] | None
    ) -> None:
        self.name = name
        self.real_size = real_size
        self.stored_size = stored_size
        self._segments: list[Segment] = []
        self._at = 0
        self._used = 0
        # PAX 1.0: the map is at the head of the data.
        self._map: bytearray | None = bytearray() if segments is None else None
        if segments is not None:
            self._set(segments, stored_size)

    def write(self, fd: int, data: memoryview) -> None:
        """Take the next bytes of the entry's data."""
        if self._map is not None:
            self._map += data
            rest = self._parse_map(self._map)
            if rest is None:
                return
            data, self._map = memoryview(rest), None
        while data:
            offset, length = self._segments[self._at]
            piece = data[: length - self._used]
            written = os.pwrite(fd, piece, offset + self._used)
            data = data[written:]
            self._used += written
            if self._used == length:
                self._at, self._used = self._at + 1, 0

    def finish(self, fd: int) -> None:
        """All data is here: give the file its length."""
        if self._map is not None:
            raise corrupt("a sparse entry has no complete map")
        os.ftruncate(fd, self.real_size)

    def _parse_map(self, data: bytearray) -> bytes | None:
        """The data behind a complete map, or None while it is incomplete."""
        numbers: list[int] = []
        at = 0
        while not numbers or len(numbers) < 1 + 2 * numbers[0]:
            end = data.find(b"\n", at)
            if end < 0:
                if len(data) > _MAP_LIMIT_BYTES or len(data) - at > 32:
                    raise hostile(self.name, "its sparse map cannot be read")
                return None
            text = bytes(data[at:end])
            if not text.isdigit():
                raise hostile(self.name, "its sparse map cannot be read")
            numbers.append(int(text))
            at = end + 1
        padded = at + -at % 512
        if len(data) < padded:
            return None
        pairs = zip(numbers[1::2], numbers[2::2], strict=True)
        self._set(list(pairs), self.stored_size - padded)
        return bytes(data[padded:])

    def _set(self, segments: list[Segment], stored: int) -> None:
        end = 0
        for offset, length in segments:
            if offset < end or length < 0 or offset + length > self.real_size:
                raise hostile(self.name, "its sparse map contradicts itself")
            end = offset + length
        if sum(length for _, length in segments) != stored:
            raise hostile(self.name, "its sparse map does not fit its data")
        self._segments = [segment for segment in segments if segment[1]]


def old_gnu_segments(block: bytes, start: int, count: int) -> list[Segment]:
    """Pairs of 12-byte octal fields in a header or an extension block."""
    found = []
    for at in range(start, start + 24 * count, 24):
        if not block[at : at + 24].strip(b"\0 "):
            break
        found.append((number(block[at : at + 12]), number(block[at + 12 : at + 24])))
    return found


def pax_sparse(
    name: bytes, stored_size: int, records: Mapping[bytes, bytes], pairs: list[Segment]
) -> SparseFile | None:
    """The sparse file that PAX records describe, or None if they describe none.

    Args:
        pairs: Of the repeated records of format 0.0.
    """
    try:
        if records.get(b"GNU.sparse.major") == b"1":
            real = int(records[b"GNU.sparse.realsize"])
            return SparseFile(name, real, stored_size, None)
        if b"GNU.sparse.size" not in records:
            return None
        real = int(records[b"GNU.sparse.size"])
        if b"GNU.sparse.map" in records:
            numbers = [int(n) for n in records[b"GNU.sparse.map"].split(b",") if n]
            pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    except (KeyError, ValueError):
        raise hostile(name, "its sparse records cannot be read") from None
    return SparseFile(name, real, stored_size, pairs)


def number(field: bytes) -> int:
    """A numeric field of a header: octal, or base 256 with the high bit set.

    Raises:
        DataLoss: It is neither.
    """
    if not field:
        return 0
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=True)
        # The high bit marks the format: positive numbers have it beside their sign.
        return value if field[0] == 0xFF else value + (1 << (8 * len(field) - 1))
    text = field.strip(b"\0 ")
    try:
        return int(text or b"0", 8)
    except ValueError:
        pass
    try:
        return int(text.split(b"\0")[0] or b"0", 8)
    except ValueError:
        raise corrupt("a number in a tar header cannot be read") from None
