"""A streaming tar reader that makes the folder of an overlay layer.

It runs in a child that is chrooted into that folder: whatever symlinks a layer plants, the kernel
resolves them inside (``layer_folder``).

Whiteouts become what overlayfs reads (0:0 devices, ``trusted.overlay.opaque``). Two things cannot be
finished without the layers below and are noted for ``settle``: folders that the tar did not list, and
hard links to files of lower layers, for which an empty file stands in.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from typing import Final, NamedTuple

from linkspan.plugins.overlay_snapshots.attributes import (
    set_attributes,
)
from linkspan.plugins.overlay_snapshots.faults import (
    corrupt,
    from_os_error,
    hostile,
    truncated,
)
from linkspan.plugins.overlay_snapshots.headers import (
    BLOCK,
    Entry,
    apply_pax,
    check_sum,
    inside,
    pax_int,
    pax_records,
    short_name,
    text_of,
)
from linkspan.plugins.overlay_snapshots.layer_folder import NEW_FILE, LayerFolder
from linkspan.plugins.overlay_snapshots.sparse import (
    Segment,
    SparseFile,
    number,
    old_gnu_segments,
    pax_sparse,
)
from linkspan.sdk.errors import TooLarge

_ZERO: Final = bytes(BLOCK)
_EXTENDED_LIMIT_BYTES: Final = 1 << 20
_MAX_ID: Final = 0xFFFFFFFE
_MAX_TIME_NS: Final = (1 << 63) - 1
# From which size on a file's data is spliced, and how much at once.
_SPLICED_BYTES: Final = 64 << 10
_MAX_SPLICE_BYTES: Final = 1 << 24
# writev takes at most IOV_MAX buffers (1024 on Linux).
_MAX_PIECES: Final = 1024

_FILE, _FILE_OLD, _CONTIGUOUS, _GNU_SPARSE = b"0"[0], 0, b"7"[0], b"S"[0]
_LINK, _SYMLINK, _DIRECTORY = b"1"[0], b"2"[0], b"5"[0]
_SPECIAL: Final = {b"3"[0]: stat.S_IFCHR, b"4"[0]: stat.S_IFBLK, b"6"[0]: stat.S_IFIFO}
_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL = b"L"[0], b"K"[0], b"x"[0], b"g"[0]
_EXTENDED: Final = frozenset((_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL))


class LayerLimits(NamedTuple):
    """What one layer may have at most; ``ratio`` is plain bytes for each compressed one."""

    unpacked_bytes: int
    entries: int
    ratio: int


class Untar:
    """Takes a tar in pieces of any size; makes what it describes in the current folder.

    Attributes:
        entries: Entries so far.
        unpacked_bytes: Sizes of the files so far, holes included.
        folder: The current folder.
    """

    def __init__(self, limits: LayerLimits, folder: LayerFolder) -> None:
        self.folder = folder
        self.entries = 0
        self.unpacked_bytes = 0
        self._limits = limits
        self._rest = b""
        self._left = 0
        self._padding = 0
        self._zero_blocks = 0
        self._fd = -1
        self._entry: Entry | None = None
        self._sparse: SparseFile | None = None
        self._extended: bytearray | None = None
        self._extended_kind = 0
        self._long_name: bytes | None = None
        self._long_link: bytes | None = None
        self._pax: dict[bytes, bytes] | None = None
        self._pax_pairs: list[Segment] = []
        self._pax_attributes = False
        self._pax_sparse = False
        self._gnu_sparse: tuple[bytes, list[Segment]] | None = None
        self._directories: list[tuple[bytes, int]] = []

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next piece.

        Raises:
            InvalidArgument: code ``hostile_layer``.
            DataLoss: It is no tar.
            TooLarge: More than the limits.
            OutOfSpace: The disk is full.
        """
        view, at, end = memoryview(data), 0, len(data)
        while True:
            if self._left:
                taken = end - at
                if taken > self._left:
                    taken = self._left
                if not taken:
                    return
                self._take(view[at : at + taken])
                at += taken
                self._left -= taken
                if self._left:
                    return
                self._data_ended()
            if self._padding:
                taken = end - at
                if taken > self._padding:
                    taken = self._padding
                at += taken
                self._padding -= taken
                if self._padding:
                    return
            missing = BLOCK - len(self._rest)
            if end - at < missing:
                self._rest += view[at:]
                return
            block = bytes(view[at : at + missing])
            at += missing
            if self._rest:
                block, self._rest = self._rest + block, b""
            if self._zero_blocks == 2:
                # Behind the trailer: garbage or padding; only its hash counts.
                return
            if block == _ZERO:
                self._zero_blocks += 1
                continue
            self._zero_blocks = 0
            self._header(block)

    def feed_all(self, pieces: Sequence[memoryview]) -> None:
        """As ``feed``, several pieces; those that are inside a large file are written in one go."""
        size = sum(map(len, pieces))
        if (
            self._fd < 0
            or self._sparse is not None
            or size >= self._left
            or len(pieces) > _MAX_PIECES
        ):
            for piece in pieces:
                self.feed(piece)
            return
        try:
            written = os.writev(self._fd, pieces)
        except OSError as error:
            raise from_os_error(error, self._path()) from error
        self._left -= written
        for piece in pieces if written < size else ():
            # The kernel has stopped in the middle; what is left says why.
            if written < len(piece):
                self.feed(piece[written:])
            written = max(written - len(piece), 0)

    def finish(self) -> None:
        """The stream has ended: set the times of folders.

        Raises:
            DataLoss: It ended inside an entry.
        """
        if self._left or self._entry is not None:
            name = self._entry.path if self._entry is not None else b"an extended header"
            raise truncated(f"it ends inside '{os.fsdecode(name)}'")
        if self._gnu_sparse is not None or (self._zero_blocks < 2 and self._rest.strip(b"\0")):
            raise truncated("it ends inside a header")
        if self._pax is not None or self._long_name is not None or self._long_link is not None:
            raise truncated("it ends behind an extended header")
        for path, mtime_ns in reversed(self._directories):
            # What was a folder may have been replaced by a later entry.
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                if stat.S_ISDIR(os.lstat(path).st_mode):
                    os.utime(path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)

    # Data

    def take_from(self, pipe: int) -> None:
        """Move what a large file still lacks out of a pipe, inside the kernel; the rest is for ``feed``.

        Raises as ``feed`` does. Blocking.
        """
        if self._fd < 0 or self._sparse is not None or self._left < _SPLICED_BYTES:
            return
        try:
            while self._left:
                count = os.splice(pipe, self._fd, min(self._left, _MAX_SPLICE_BYTES))
                if not count:
                    return
                self._left -= count
        except OSError as error:
            if error.errno == errno.EINVAL:
                # A file system that cannot do that.
                return
            raise from_os_error(error, self._path()) from error
        if not self._left:
            self._data_ended()

    def _take(self, data: memoryview) -> None:
        if self._fd >= 0:
            try:
                if self._sparse is not None:
                    self._sparse.write(self._fd, data)
                    return
                written = os.write(self._fd, data)
                while written < len(data):
                    written += os.write(self._fd, data[written:])
            except OSError as error:
                raise from_os_error(error, self._path()) from error
        elif self._extended is not None:
            self._extended += data

    def _path(self) -> bytes:
        return self._entry.path if self._entry is not None else b""

    def _data_ended(self) -> None:
        if self._fd >= 0:
            self._close_file()
        elif self._extended is not None:
            data, self._extended = bytes(self._extended), None
            self._read_extended(self._extended_kind, data)

    def _close_file(self) -> None:
        fd, entry = self._fd, self._entry
        assert entry is not None
        try:
            if self._sparse is not None:
                self._sparse.finish(fd)
                self._sparse = None
            if entry.attributes:
                # Writing drops security.capability, so attributes come behind the data.
                set_attributes(fd, entry, regular_or_directory=True)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        except OSError as error:
            raise from_os_error(error, entry.path) from error
        os.close(fd)
        self._fd = -1
        self._entry = None

    # Headers

    def _header(self, block: bytes) -> None:
        if self._gnu_sparse is not None:
            self._continue_gnu_sparse(block)
            return
        check_sum(block)
        size = number(block[124:136])
        kind = block[156]
        if size < 0:
            raise corrupt("an entry has a negative size")
        if kind in _EXTENDED:
            if size > _EXTENDED_LIMIT_BYTES:
                raise hostile(short_name(block), f"an extended header of {size} bytes")
            self._extended, self._extended_kind = bytearray(), kind
            self._left, self._padding = size, -size % BLOCK
            if not size:
                self._data_ended()
            return
        if kind == _GNU_SPARSE and block[482]:
            self._gnu_sparse = (block, old_gnu_segments(block, 386, 4))
            return
        segments = old_gnu_segments(block, 386, 4) if kind == _GNU_SPARSE else None
        self._begin(block, kind, size, segments)

    def _continue_gnu_sparse(self, block: bytes) -> None:
        assert self._gnu_sparse is not None
        header, segments = self._gnu_sparse
        segments += old_gnu_segments(block, 0, 21)
        if len(segments) > 1 << 20:
            raise hostile(short_name(header), "its sparse map is too long")
        if not block[504]:
            self._gnu_sparse = None
            self._begin(header, _GNU_SPARSE, number(header[124:136]), segments)

    def _begin(self, block: bytes, kind: int, size: int, segments: list[Segment] | None) -> None:
        pax, self._pax = self._pax, None
        pairs, self._pax_pairs = self._pax_pairs, []
        name = short_name(block)
        if self._long_name is not None:
            name, self._long_name = self._long_name, None
        if pax:
            name = pax.get(b"GNU.sparse.name") or pax.get(b"path") or name
            if b"size" in pax:
                size = pax_int(pax, b"size", size)
        path = inside(name)
        if (kind in (_FILE, _FILE_OLD)) and name.endswith(b"/"):
            kind = _DIRECTORY
        self.entries += 1
        if self.entries > self._limits.entries:
            raise TooLarge(f"the layer has more than {self._limits.entries} entries")
        entry = Entry(block, path, pax)
        if pax:
            apply_pax(entry, pax)
            entry.attributes = self._pax_attributes
        if self._long_link is not None or kind in (_LINK, _SYMLINK):
            entry.link = self._link_of(block, pax)
        if not 0 <= entry.uid <= _MAX_ID or not 0 <= entry.gid <= _MAX_ID:
            raise hostile(path, f"owner {entry.uid}:{entry.gid}")
        entry.mtime_ns = min(max(entry.mtime_ns, 0), _MAX_TIME_NS)
        try:
            self._make(entry, kind, size, segments, pairs)
        except OSError as error:
            raise from_os_error(error, path) from error

    def _link_of(self, block: bytes, pax: dict[bytes, bytes] | None) -> bytes:
        link = text_of(block, 157, 257)
        if self._long_link is not None:
            link, self._long_link = self._long_link, None
        return pax.get(b"linkpath", link) if pax else link

    def _make(
        self,
        entry: Entry,
        kind: int,
        size: int,
        segments: list[Segment] | None,
        pairs: list[Segment],
    ) -> None:
        if not entry.path:
            # The root itself: only folders may name it, and its attributes are not the layer's.
            if kind != _DIRECTORY:
                raise hostile(entry.path, "it has no name")
            return
        regular = kind in (_FILE, _FILE_OLD, _CONTIGUOUS, _GNU_SPARSE)
        if b".wh." in entry.path and self.folder.marker(entry.path):
            if regular:
                self._left, self._padding = size, -size % BLOCK
        elif regular:
            self._file(entry, size, self._sparse_of(entry, kind, size, segments, pairs))
        elif kind == _DIRECTORY:
            self._directory(entry)
        elif kind == _SYMLINK:
            self.folder.create(entry.path, lambda: os.symlink(entry.link, entry.path))
            self._finish_node(entry, mode=False)
        elif kind == _LINK:
            self.folder.hard_link(entry.path, inside(entry.link))
        elif kind in _SPECIAL:
            self._special(entry, _SPECIAL[kind])
        else:
            raise hostile(entry.path, f"unknown type {chr(kind)!r}")

    # Kinds of entries

    def _sparse_of(
        self,
        entry: Entry,
        kind: int,
        size: int,
        segments: list[Segment] | None,
        pairs: list[Segment],
    ) -> SparseFile | None:
        if kind == _GNU_SPARSE:
            return SparseFile(entry.path, number(entry.header[483:495]), size, segments or [])
        if entry.pax and self._pax_sparse:
            return pax_sparse(entry.path, size, entry.pax, pairs)
        return None

    def _file(self, entry: Entry, size: int, sparse: SparseFile | None) -> None:
        self.unpacked_bytes += sparse.real_size if sparse is not None else size
        if self.unpacked_bytes > self._limits.unpacked_bytes:
            raise TooLarge(
                f"the layer unpacks to more than {self._limits.unpacked_bytes} bytes",
                code="layer_too_large",
            )
        path, mode = entry.path, entry.mode
        try:
            fd = os.open(path, NEW_FILE, mode)
        except (FileExistsError, FileNotFoundError):
            fd = self.folder.create(path, lambda: os.open(path, NEW_FILE, mode))
        if entry.uid or entry.gid or self.folder.setgid_seen:
            os.fchown(fd, entry.uid, entry.gid)
            if mode & 0o6000:
                # chown has cleared them.
                os.fchmod(fd, mode)
        self._fd, self._entry, self._sparse = fd, entry, sparse
        self._left, self._padding = size, -size % BLOCK
        if not size:
            self._close_file()

    def _directory(self, entry: Entry) -> None:
        path, mode = entry.path, entry.mode
        try:
            os.mkdir(path, mode)
        except FileNotFoundError:
            self.folder.make_parents(path)
            if os.path.isdir(path):
                os.chmod(path, mode)
            else:
                os.mkdir(path, mode)
        except FileExistsError:
            if stat.S_ISDIR(os.lstat(path).st_mode):
                self.folder.implicit.discard(path)
                os.chmod(path, mode)
            else:
                self.folder.replace_by_folder(path, mode)
        if entry.uid or entry.gid or self.folder.setgid_seen:
            os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
            os.chmod(path, mode)
        elif mode & 0o6000:
            os.chmod(path, mode)
        if mode & 0o2000:
            self.folder.setgid_seen = True
        if entry.attributes:
            set_attributes(path, entry, regular_or_directory=True)
        self._directories.append((path, entry.mtime_ns))

    def _special(self, entry: Entry, kind: int) -> None:
        device = 0
        if kind != stat.S_IFIFO:
            major, minor = number(entry.header[329:337]), number(entry.header[337:345])
            if not 0 <= major < 1 << 12 or not 0 <= minor < 1 << 20:
                raise hostile(entry.path, f"device number {major}:{minor}")
            device = os.makedev(major, minor)
            if kind == stat.S_IFCHR and device == 0:
                raise hostile(entry.path, "device 0:0 would delete a file of a lower layer")
        self.folder.create(entry.path, lambda: os.mknod(entry.path, kind | entry.mode, device))
        self._finish_node(entry, mode=True)

    def _finish_node(self, entry: Entry, *, mode: bool) -> None:
        path = entry.path
        if entry.uid or entry.gid or self.folder.setgid_seen:
            os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
            if mode and entry.mode & 0o6000:
                os.chmod(path, entry.mode)
        if entry.attributes:
            set_attributes(path, entry, regular_or_directory=False)
        os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)

    # Extended headers

    def _read_extended(self, kind: int, data: bytes) -> None:
        if kind == _PAX_GLOBAL:
            return
        if kind == _PAX:
            self._pax, self._pax_pairs = pax_records(data)
            self._pax_attributes = b".xattr." in data
            self._pax_sparse = b"GNU.sparse." in data
            return
        name = data.split(b"\0")[0]
        if kind == _LONG_NAME:
            self._long_name = name
        else:
            self._long_link = name
