"""ADD of an archive: its entries, confined to the stage's root like everything else."""

import os
import stat
from collections.abc import Iterable

from linkspan.plugins.dockerfile_builder.archive import (
    Entry,
    compression,
    entries,
    is_tar_header,
    open_stream,
)
from linkspan.plugins.dockerfile_builder.selection import TransferError
from linkspan.plugins.dockerfile_builder.target import Target, set_xattrs
from linkspan.plugins.dockerfile_builder.tree import Node, Parts, Tree, opened, split_path
from linkspan.sdk.errors import DataLoss, InvalidArgument, TooLarge


class Unpacker:
    """Unpacks below one directory of a target.

    Args:
        dest: The directory; it is there.
        owner: Of all entries and of the directories made on the way; None keeps the archive's.
    """

    def __init__(self, target: Target, dest: Parts, owner: tuple[int, int] | None) -> None:
        self._target = target
        self._dest = dest
        self._owner = owner

    def unpack(self, tree: Tree, node: Node, limit_bytes: int) -> None:
        """Unpack an archive.

        Raises:
            TransferError: An entry tries to leave the destination, or the archive is broken.
        """
        directories: list[tuple[Parts, int]] = []
        try:
            with tree.open(node) as file:
                stream = open_stream(lambda: file.read(1 << 18), limit_bytes=limit_bytes)
                for entry, data in entries(stream):
                    self._target.check()
                    self._unpack_entry(entry, data, directories)
        except (InvalidArgument, DataLoss, TooLarge) as error:
            raise TransferError(f"ADD failed: {error.message}") from error
        for parts, mtime_ns in reversed(directories):
            if self._target.is_directory(parts):
                with self._target.folder(parts) as fd:
                    os.utime(fd, ns=(mtime_ns, mtime_ns))

    def _unpack_entry(
        self,
        entry: Entry,
        data: Iterable[memoryview],
        directories: list[tuple[Parts, int]],
    ) -> None:
        names = split_path(entry.name)
        if ".." in names:
            raise TransferError(f"ADD failed: the archive's entry '{entry.name}' leaves its root")
        if not names:
            return
        above = self._target.resolve("/".join((*self._dest, *names[:-1])))
        self._target.make_directories(above, self._owner)
        parts = (*above, names[-1])
        owner = self._owner or (entry.uid, entry.gid)
        with self._target.folder(above) as fd:
            if entry.kind == "directory":
                self._unpack_directory(entry, fd, parts, owner)
                directories.append((parts, entry.mtime_ns))
            elif entry.kind == "hardlink":
                self._unpack_link(entry, fd, parts)
            else:
                self._target.make_way(fd, parts, directories=True)
                self._target.changed = True
                _make_entry(entry, data, fd, names[-1], owner)

    def _unpack_directory(
        self, entry: Entry, fd: int, parts: Parts, owner: tuple[int, int]
    ) -> None:
        name = parts[-1]
        info = self._target.lstat(parts)
        if info is not None and not stat.S_ISDIR(info.st_mode):
            os.unlink(name, dir_fd=fd)
            info = None
        if info is None:
            os.mkdir(name, 0o700, dir_fd=fd)
        self._target.changed = True
        with opened(fd, (name,), os.O_RDONLY | os.O_DIRECTORY) as made:
            os.fchown(made, *owner)
            os.fchmod(made, entry.mode)
            set_xattrs(made, entry.xattrs)

    def _unpack_link(self, entry: Entry, fd: int, parts: Parts) -> None:
        names = split_path(entry.target)
        if ".." in names or not names:
            raise TransferError(f"ADD failed: the archive's link '{entry.name}' leaves its root")
        first = (*self._target.resolve("/".join((*self._dest, *names[:-1]))), names[-1])
        info = self._target.lstat(first)
        if info is None or stat.S_ISDIR(info.st_mode):
            raise TransferError(
                f"ADD failed: the archive's link '{entry.name}' points to '{entry.target}',"
                " which is no file"
            )
        if first == parts:
            return
        self._target.make_way(fd, parts, directories=True)
        self._target.changed = True
        with self._target.folder(first[:-1]) as other:
            os.link(first[-1], parts[-1], src_dir_fd=other, dst_dir_fd=fd, follow_symlinks=False)


def _make_entry(
    entry: Entry, data: Iterable[memoryview], fd: int, name: str, owner: tuple[int, int]
) -> None:
    """A file, link or special file of an archive."""
    times = (entry.mtime_ns, entry.mtime_ns)
    if entry.kind == "file":
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        out = os.open(name, flags, 0o600, dir_fd=fd)
        try:
            for piece in data:
                while piece:
                    piece = piece[os.write(out, piece) :]
            os.fchown(out, *owner)
            os.fchmod(out, entry.mode)
            set_xattrs(out, entry.xattrs)
            os.utime(out, ns=times)
        finally:
            os.close(out)
        return
    if entry.kind == "symlink":
        os.symlink(entry.target, name, dir_fd=fd)
    else:
        if entry.kind == "char" and entry.device == (0, 0):
            raise TransferError(f"ADD failed: '{entry.name}' is a 0:0 device")
        kind = {"fifo": stat.S_IFIFO, "char": stat.S_IFCHR, "block": stat.S_IFBLK}[entry.kind]
        os.mknod(name, kind | 0o600, os.makedev(*entry.device), dir_fd=fd)
    os.chown(name, *owner, dir_fd=fd, follow_symlinks=False)
    if entry.kind != "symlink":
        os.chmod(name, entry.mode, dir_fd=fd)
    os.utime(name, ns=times, dir_fd=fd, follow_symlinks=False)


def is_archive(tree: Tree, node: Node) -> bool:
    """Whether a file is a tar, plain or compressed; its name does not matter."""
    with tree.open(node) as file:
        head = file.read(512)
    if not compression(head):
        return is_tar_header(head)
    try:
        with tree.open(node) as file:
            stream = open_stream(lambda: file.read(1 << 16), limit_bytes=1 << 30)
            return is_tar_header(stream.read(512))
    except DataLoss:
        return False
