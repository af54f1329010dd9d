"""Writes the folder of an overlay layer as an OCI layer tar, always the same bytes for the same folder.

Order: names by their bytes, in each folder the opaque marker, then whiteouts, then the rest
(image-spec layer.md "Whiteouts": explicit whiteouts before their siblings). Format: ustar, with PAX
records only where ustar cannot say it. Times are cut to seconds; owners' names are left out.
"""

import functools
import os
import stat
from collections.abc import Callable, Iterator
from typing import Final

from linkspan.plugins.overlay_snapshots.attributes import OPAQUE, allowed_attribute, is_opaque
from linkspan.plugins.overlay_snapshots.faults import hostile
from linkspan.plugins.overlay_snapshots.headers import BLOCK
from linkspan.plugins.overlay_snapshots.trees import is_stub

_BUFFER_BYTES: Final = 256 << 10
_READ_BYTES: Final = 1 << 20
_TYPES: Final = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}
_PATH_LIMIT: Final = 4000
_MAX_OCTAL_ID: Final = 0o7777777
_MAX_OCTAL_SIZE: Final = 0o77777777777


class TarWriter:
    """Writes the current folder.

    Args:
        put: Takes the bytes of the tar.
        lower_has: Says whether lower layers have a path. If given, folders are made to be opaque only
            where that means something: overlayfs marks every new folder.

    Attributes:
        size_bytes: Sizes of the regular files written.
    """

    def __init__(
        self,
        put: Callable[[bytes], object],
        lower_has: Callable[[bytes], bool] | None = None,
        *,
        clean: bool = True,
        ignore: frozenset[bytes] = frozenset(),
    ) -> None:
        self.size_bytes = 0
        self._put = put
        self._lower_has = lower_has
        self._clean = clean
        self._ignore = ignore
        self._buffer = bytearray()
        self._names: dict[tuple[int, int], bytes] = {}

    def write(self) -> None:
        """Write all of it, with the trailer.

        Raises:
            InvalidArgument: A name begins with ``.wh.``, or is too long for any unpacker.
            OSError: A file cannot be read.
        """
        for path, status in self._walk():
            self._entry(path, status)
            if len(self._buffer) > _BUFFER_BYTES:
                self._flush()
        self._end()

    def _end(self) -> None:
        self._buffer += bytes(2 * BLOCK)
        self._flush()

    def _walk(self) -> Iterator[tuple[bytes, os.stat_result]]:
        """Entries in the order of the tar, without Python's recursion."""
        if is_opaque(b"."):
            self._marker(b".wh..wh..opq")
        pending = self._folder(b"")
        pending.reverse()
        while pending:
            path, status = pending.pop()
            yield path, status
            if stat.S_ISDIR(status.st_mode):
                inside = self._folder(path + b"/")
                inside.reverse()
                pending += inside

    def _folder(self, prefix: bytes) -> list[tuple[bytes, os.stat_result]]:
        """What a folder has, in order; its whiteouts are written at once."""
        found = []
        with os.scandir(prefix or b".") as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            path = prefix + name
            if name.startswith(b".wh."):
                raise hostile(path, "a name in a layer cannot begin with .wh.")
            if len(path) > _PATH_LIMIT:
                raise hostile(path, "its path is too long for a layer")
            status = os.lstat(path)
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                self._marker(prefix + b".wh." + name)
            elif not stat.S_ISSOCK(status.st_mode) and not (
                self._ignore and self._is_ignored(path, status)
            ):
                found.append((path, status))
        return found

    def _is_ignored(self, path: bytes, status: os.stat_result) -> bool:
        return (
            path in self._ignore
            and is_stub(path, status)
            and not (self._lower_has is not None and self._lower_has(path))
        )

    def _marker(self, path: bytes) -> None:
        self._header(path, 0, (0, 0), 0, 0, b"0")

    def _entry(self, path: bytes, status: os.stat_result) -> None:
        kind = stat.S_IFMT(status.st_mode)
        type_flag, link, size, device = _TYPES[kind], b"", 0, (0, 0)
        if status.st_nlink > 1 and kind != stat.S_IFDIR:
            first = self._names.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                type_flag, link = b"1", self._name(first)
        attributes: list[tuple[bytes, bytes]] = []
        if type_flag != b"1":
            attributes = _attributes(path, kind)
            if kind == stat.S_IFREG:
                size = status.st_size
            elif kind == stat.S_IFLNK:
                link = os.readlink(path)
            elif kind in (stat.S_IFCHR, stat.S_IFBLK):
                device = (os.major(status.st_rdev), os.minor(status.st_rdev))
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC) if size else -1
        name = self._name(path)
        self._header(
            name + b"/" if kind == stat.S_IFDIR else name,
            0o777 if kind == stat.S_IFLNK else status.st_mode & 0o7777,
            (status.st_uid, status.st_gid),
            size,
            max(status.st_mtime_ns // 1_000_000_000, 0),
            type_flag,
            link=link,
            device=device,
            attributes=attributes,
        )
        if size:
            try:
                self._data(fd, path, size)
            finally:
                os.close(fd)
            self._buffer += bytes(-size % BLOCK)
        if kind == stat.S_IFDIR and is_opaque(path) and self._opaque_counts(path):
            self._marker(path + b"/.wh..wh..opq")

    def _opaque_counts(self, path: bytes) -> bool:
        if self._lower_has is None or self._lower_has(path):
            return True
        if self._clean:
            os.removexattr(path, OPAQUE)
        return False

    def _name(self, path: bytes) -> bytes:
        """What an entry of the folder is called in the tar."""
        return path

    def _data(self, fd: int, path: bytes, size: int) -> None:
        self.size_bytes += size
        left = size
        while left:
            data = os.read(fd, min(left, _READ_BYTES))
            if not data:
                raise OSError(0, f"'{os.fsdecode(path)}' became shorter while it was read")
            left -= len(data)
            if len(data) < 64 << 10:
                self._buffer += data
            else:
                self._flush()
                self._put(data)

    def _flush(self) -> None:
        if self._buffer:
            self._put(bytes(self._buffer))
            self._buffer.clear()

    def _header(
        self,
        name: bytes,
        mode: int,
        owner: tuple[int, int],
        size: int,
        mtime_s: int,
        type_flag: bytes,
        *,
        link: bytes = b"",
        device: tuple[int, int] = (0, 0),
        attributes: list[tuple[bytes, bytes]] | None = None,
    ) -> None:
        records: list[tuple[bytes, bytes]] = []
        prefix = b""
        if len(name) > 100:
            prefix, short = _split(name)
            if not prefix:
                records.append((b"path", name))
            name = short
        if len(link) > 100:
            records.append((b"linkpath", link))
            link = link[:100]
        uid, gid = owner
        if uid > _MAX_OCTAL_ID:
            records.append((b"uid", b"%d" % uid))
            uid = 0
        if gid > _MAX_OCTAL_ID:
            records.append((b"gid", b"%d" % gid))
            gid = 0
        if mtime_s > _MAX_OCTAL_SIZE:
            records.append((b"mtime", b"%d" % mtime_s))
            mtime_s = 0
        stored = size
        if size > _MAX_OCTAL_SIZE:
            records.append((b"size", b"%d" % size))
            stored = 0
        records += [(b"SCHILY.xattr." + key, value) for key, value in attributes or ()]
        if records:
            data = b"".join(pax_record(key, value) for key, value in sorted(records))
            base = name.rstrip(b"/").rpartition(b"/")[2][:80]
            self._buffer += block(b"PaxHeaders.0/" + base, 0o644, 0, 0, len(data), 0, b"x")
            self._buffer += data
            self._buffer += bytes(-len(data) % BLOCK)
        self._buffer += block(
            name, mode, uid, gid, stored, mtime_s, type_flag, link, device, prefix
        )


def block(
    name: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime_s: int,
    type_flag: bytes,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    prefix: bytes = b"",
) -> bytes:
    """A ustar header (POSIX pax "ustar Interchange Format"); every value fits its field."""
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, uid, gid, size, mtime_s)
    head = name.ljust(100, b"\0") + numbers
    tail, total = _tail(type_flag, link, device, prefix)
    return b"%b%06o\0 %b" % (head, sum(head) + 8 * 32 + total, tail)


@functools.lru_cache(64)
def _tail(
    type_flag: bytes, link: bytes, device: tuple[int, int], prefix: bytes
) -> tuple[bytes, int]:
    """What follows the checksum, which most entries of a layer have in common, and the sum of its bytes."""
    tail = b"".join(
        (
            type_flag,
            link.ljust(100, b"\0"),
            b"ustar\x0000",
            bytes(64),
            b"%07o\0%07o\0" % device,
            prefix.ljust(155, b"\0"),
            bytes(12),
        )
    )
    return tail, sum(tail)


def pax_record(key: bytes, value: bytes) -> bytes:
    """``length key=value`` with a newline; the length counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _split(name: bytes) -> tuple[bytes, bytes]:
    """Prefix and name as ustar splits long paths; no prefix and a cut name if it cannot."""
    if len(name) <= 256:
        slash = name.rfind(b"/", 0, min(156, len(name) - 1))
        if slash > 0 and len(name) - slash - 1 <= 100:
            return name[:slash], name[slash + 1 :]
    return b"", name[:100]


def _attributes(path: bytes, kind: int) -> list[tuple[bytes, bytes]]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return []
    plain = kind in (stat.S_IFREG, stat.S_IFDIR)
    found = []
    for text in sorted(names):
        name = os.fsencode(text)
        if allowed_attribute(name, regular_or_directory=plain):
            found.append((name, os.getxattr(path, name, follow_symlinks=False)))
    return found
