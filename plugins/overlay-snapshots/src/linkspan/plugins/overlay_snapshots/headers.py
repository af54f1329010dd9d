"""Headers of a tar's entries: ustar, GNU and pax; names that cannot leave the root."""

import zlib
from typing import Final

from linkspan.plugins.overlay_snapshots.faults import corrupt, hostile
from linkspan.plugins.overlay_snapshots.sparse import Segment, number

BLOCK: Final = 512
_PATH_LIMIT: Final = 4095


class Entry:
    """The header of one entry, with what extended headers say."""

    __slots__ = (
        "attributes",
        "gid",
        "header",
        "link",
        "mode",
        "mtime_ns",
        "path",
        "pax",
        "uid",
    )

    def __init__(self, header: bytes, path: bytes, pax: dict[bytes, bytes] | None) -> None:
        self.header = header
        self.path = path
        self.pax = pax
        self.attributes = False
        self.link = b""
        try:
            # The common form of the fields, without a call for each.
            self.mode = int(header[100:108].rstrip(b"\0 "), 8) & 0o7777
            self.uid = int(header[108:116].rstrip(b"\0 "), 8)
            self.gid = int(header[116:124].rstrip(b"\0 "), 8)
            self.mtime_ns = int(header[136:148].rstrip(b"\0 "), 8) * 1_000_000_000
        except ValueError:
            self.mode = number(header[100:108]) & 0o7777
            self.uid = number(header[108:116])
            self.gid = number(header[116:124])
            self.mtime_ns = number(header[136:148]) * 1_000_000_000


def text_of(block: bytes, start: int, end: int) -> bytes:
    """A field that ends with its first NUL."""
    zero = block.find(b"\0", start, end)
    return block[start : zero if zero >= 0 else end]


def short_name(block: bytes) -> bytes:
    """The name in a header itself, with its prefix."""
    name = text_of(block, 0, 100)
    # POSIX has a prefix; GNU ("ustar  ") has other fields in its place.
    if block[345] and block[257:263] == b"ustar\0":
        return text_of(block, 345, 500) + b"/" + name
    return name


def inside(name: bytes) -> bytes:
    """A name as a path relative to the root; ``""`` is the root.

    Raises:
        InvalidArgument: It leaves the root, or cannot be a path.
    """
    path = name.strip(b"/")
    if path[:2] == b"./" or path[:2] == b".." or path == b"." or b"/." in path or b"//" in path:
        parts: list[bytes] = []
        for part in path.split(b"/"):
            if part == b"..":
                if not parts:
                    raise hostile(name, "its name leaves the root")
                parts.pop()
            elif part not in (b"", b"."):
                parts.append(part)
        path = b"/".join(parts)
    if b"\0" in path:
        raise hostile(name, "its name has a NUL")
    if len(path) > _PATH_LIMIT:
        raise hostile(name, f"its name has {len(path)} bytes")
    return path


def check_sum(block: bytes) -> None:
    """Header checksum: the sum of all bytes, its own field counted as blanks (POSIX pax).

    adler32 gives the sum modulo 65521 thirty times faster than ``sum``.
    """
    field = block[148:156]
    try:
        expected = int(field.rstrip(b"\0 "), 8)
    except ValueError:
        expected = number(field)
    total = (zlib.adler32(block) & 0xFFFF) - 1 - sum(field) + 8 * 32
    if (total - expected) % 65521 == 0:
        return
    # Some old writers summed signed bytes.
    plain = block[:148] + b" " * 8 + block[156:]
    if expected != sum(b - 256 if b > 127 else b for b in plain):
        raise corrupt("a tar header has a wrong checksum")


def pax_records(data: bytes) -> tuple[dict[bytes, bytes], list[Segment]]:
    """Records of an extended header (POSIX pax "pax Extended Header"), and the pairs of sparse 0.0."""
    records: dict[bytes, bytes] = {}
    offsets: list[int] = []
    lengths: list[int] = []
    at = 0
    while at < len(data):
        blank = data.find(b" ", at, at + 20)
        text = data[at:blank]
        if blank < 0 or not text.isdigit():
            raise corrupt("an extended header cannot be read")
        end = at + int(text)
        if end > len(data) or end <= blank + 1 or data[end - 1] != 0x0A:
            raise corrupt("an extended header cannot be read")
        key, equals, value = data[blank + 1 : end - 1].partition(b"=")
        if not equals:
            raise corrupt("an extended header cannot be read")
        if key == b"GNU.sparse.offset":
            offsets.append(_int(value))
        elif key == b"GNU.sparse.numbytes":
            lengths.append(_int(value))
        else:
            records[key] = value
        at = end
    return records, list(zip(offsets, lengths, strict=False))


def _int(text: bytes) -> int:
    try:
        return int(text)
    except ValueError:
        raise corrupt("a number in an extended header cannot be read") from None


def pax_int(pax: dict[bytes, bytes], key: bytes, default: int) -> int:
    """A number of an extended header that is not negative.

    Raises:
        DataLoss: It is something else.
    """
    value = pax.get(key)
    if value is None or value == b"":
        return default
    result = _int(value)
    if result < 0:
        raise corrupt("a number in an extended header is negative")
    return result


def apply_pax(entry: Entry, pax: dict[bytes, bytes]) -> None:
    """Let owner and time of an extended header prevail."""
    if b"uid" in pax:
        entry.uid = pax_int(pax, b"uid", entry.uid)
    if b"gid" in pax:
        entry.gid = pax_int(pax, b"gid", entry.gid)
    mtime = pax.get(b"mtime")
    if mtime:
        seconds, _, fraction = mtime.partition(b".")
        nanoseconds = _int((fraction + b"0" * 9)[:9])
        entry.mtime_ns = _int(seconds) * 1_000_000_000
        entry.mtime_ns += -nanoseconds if mtime.startswith(b"-") else nanoseconds
