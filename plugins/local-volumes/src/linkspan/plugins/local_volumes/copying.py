"""Copies a folder of a container's root into a volume, with all that belongs to its files.

Everything goes through descriptors: the source is opened so that no link leads out of the root, and below
it no link is followed at all. Owners, modes, times, extended attributes, hard links, devices, pipes and
holes are kept; sockets are left out, as nobody listens at a copied one.
"""

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Final

from linkspan.sdk.syscalls import open_beneath, open_in_root

_PLACE: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_folder_in_root(root: Path, path: str) -> int | None:
    """Open a folder of a root as a process in there would (openat2, RESOLVE_IN_ROOT).

    Returns:
        A descriptor; None if there is no such path or it is no folder.
    """
    root_fd = os.open(root, _PLACE)
    try:
        return open_in_root(root_fd, path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as exc:
        if exc.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    finally:
        os.close(root_fd)


def open_within(folder: Path, path: str) -> int:
    """Open what is at a path within a folder, as a place: no link leads out (RESOLVE_BENEATH).

    Raises:
        OSError: ENOENT, or EXDEV if it leads out.
    """
    folder_fd = os.open(folder, _PLACE)
    try:
        return open_beneath(folder_fd, path, os.O_PATH)
    finally:
        os.close(folder_fd)


class FolderCopy:
    """One copy of a folder's content; blocking.

    Attributes:
        copied: How many entries were made.
    """

    def __init__(self) -> None:
        self.copied = 0
        self._links: dict[tuple[int, int], Path] = {}

    def copy(self, source: int, target: Path) -> None:
        """Copy what is in ``source``, and its owner, mode and times, to the folder ``target``.

        Raises:
            OSError: As the calls it makes; ENOSPC when the disk is full.
        """
        with os.scandir(source) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            self._copy_entry(source, name, target / name)
        info = os.fstat(source)
        os.chown(target, info.st_uid, info.st_gid)
        target.chmod(stat.S_IMODE(info.st_mode))
        _copy_attributes(source, target)
        os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))

    def _copy_entry(self, folder: int, name: str, target: Path) -> None:
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        kind = stat.S_IFMT(info.st_mode)
        if kind == stat.S_IFSOCK:
            return
        self.copied += 1
        if kind == stat.S_IFDIR:
            fd = os.open(name, _FOLDER, dir_fd=folder)
            try:
                target.mkdir(mode=0o700)
                self.copy(fd, target)
            finally:
                os.close(fd)
            return
        identity = (info.st_dev, info.st_ino)
        if info.st_nlink > 1:
            if identity in self._links:
                os.link(self._links[identity], target, follow_symlinks=False)
                return
            self._links[identity] = target
        if kind == stat.S_IFREG:
            _copy_file(folder, name, target, info)
        elif kind == stat.S_IFLNK:
            target.symlink_to(os.readlink(name, dir_fd=folder))
            os.chown(target, info.st_uid, info.st_gid, follow_symlinks=False)
        else:
            os.mknod(target, info.st_mode, info.st_rdev)
            os.chown(target, info.st_uid, info.st_gid)
            target.chmod(stat.S_IMODE(info.st_mode))
        os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)


def _copy_file(folder: int, name: str, target: Path, info: os.stat_result) -> None:
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        made = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _copy_data(source, made, os.fstat(source).st_size)
            os.fchown(made, info.st_uid, info.st_gid)
            os.fchmod(made, stat.S_IMODE(info.st_mode))  # after the owner: that clears set-user-id
            _copy_attributes(source, target)
        finally:
            os.close(made)
    finally:
        os.close(source)


def _copy_data(source: int, target: int, size: int) -> None:
    """Copy the parts of a file that are no holes."""
    os.ftruncate(target, size)
    offset = 0
    while offset < size:
        try:
            begin = os.lseek(source, offset, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        offset = min(os.lseek(source, begin, os.SEEK_HOLE), size)
        os.lseek(target, begin, os.SEEK_SET)
        while begin < offset:
            sent = os.sendfile(target, source, begin, min(offset - begin, 1 << 24))
            if sent == 0:  # it became shorter meanwhile
                return
            begin += sent


def _copy_attributes(source: int, target: Path) -> None:
    """Extended attributes, file capabilities and ACLs among them; what the target cannot hold is left."""
    try:
        names = os.listxattr(source)
    except OSError:
        return
    for name in names:
        if name.startswith("trusted.overlay."):
            continue
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError as exc:
            if exc.errno not in (errno.ENOTSUP, errno.EPERM, errno.ENODATA):
                raise


def empty(folder: Path) -> None:
    """Remove all that is in a folder; the folder stays."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            _remove_tree(entry)
        else:
            entry.unlink()


def _remove_tree(folder: Path) -> None:
    empty(folder)
    folder.rmdir()


def content_bytes(folder: Path) -> int:
    """Bytes of the files below, each file once."""
    total = 0
    seen: set[tuple[int, int]] = set()
    for place, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                info = os.lstat(f"{place}/{name}")
                if info.st_nlink > 1:
                    if (info.st_dev, info.st_ino) in seen:
                        continue
                    seen.add((info.st_dev, info.st_ino))
                total += info.st_size
    return total
