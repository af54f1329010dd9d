"""Where COPY, ADD and WORKDIR write: the mounted root of a stage.

Images are hostile: their links may point anywhere. Every path is resolved here, link by link, as if
the stage's root were ``/``; the kernel only ever gets one component at a time, relative to an open
directory, and never follows a link.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from linkspan.plugins.dockerfile_builder.selection import TransferError
from linkspan.plugins.dockerfile_builder.tree import MAX_LINKS, Check, Parts, opened

_MAX_READ_BYTES = 4 << 20
# What a layer must not carry: it would steer overlayfs itself.
_FORBIDDEN_XATTRS = ("trusted.overlay.", "user.overlay.")


class Target:
    """A writable root folder. All methods block; for a worker thread.

    Methods raise TransferError in Docker's wording, and OSError for what the disk refuses.
    """

    def __init__(self, root: Path, check: Check) -> None:
        self._fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.check = check
        self.changed = False

    def close(self) -> None:
        """Let go of the folder; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # Paths

    def resolve(self, path: str) -> Parts:
        """The components that a path leads to when every link, also the last, is followed inside.

        What does not exist is kept as written; ``..`` stops at the root.
        """
        done: list[str] = []
        pending = list(reversed(path.split("/")))
        links = 0
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                done = done[:-1]
                continue
            target = self._link_target((*done, part))
            if target is None:
                done.append(part)
                continue
            links += 1
            if links > MAX_LINKS:
                raise TransferError(f"{path}: too many levels of symbolic links")
            if target.startswith("/"):
                done = []
            pending.extend(reversed(target.split("/")))
        return tuple(done)

    def _link_target(self, parts: Parts) -> str | None:
        try:
            with opened(self._fd, parts[:-1], os.O_PATH | os.O_DIRECTORY) as fd:
                return os.readlink(parts[-1], dir_fd=fd)
        except OSError as error:
            # EINVAL: it is there and no link.
            if error.errno not in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
                raise
        return None

    def lstat(self, parts: Parts) -> os.stat_result | None:
        """What is at resolved components; None if nothing."""
        if not parts:
            return os.fstat(self._fd)
        try:
            with opened(self._fd, parts[:-1], os.O_PATH | os.O_DIRECTORY) as fd:
                return os.stat(parts[-1], dir_fd=fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def is_directory(self, parts: Parts) -> bool:
        """Whether a directory is there."""
        info = self.lstat(parts)
        return info is not None and stat.S_ISDIR(info.st_mode)

    def read_text(self, path: str) -> str | None:
        """A small text file of the image; None if there is none."""
        parts = self.resolve(path)
        info = self.lstat(parts)
        if info is None or not stat.S_ISREG(info.st_mode):
            return None
        with opened(self._fd, parts, os.O_RDONLY) as fd:
            return os.read(fd, _MAX_READ_BYTES).decode("utf-8", "surrogateescape")

    def make_directories(self, parts: Parts, owner: tuple[int, int] | None = None) -> bool:
        """Make what is missing of a directory, 0755; say whether the last one was made.

        Raises:
            TransferError: Something on the way is no directory.
        """
        made = False
        for depth in range(1, len(parts) + 1):
            with self.folder(parts[: depth - 1]) as fd:
                made = self._make_directory(fd, parts[:depth], owner)
        return made

    def _make_directory(self, fd: int, parts: Parts, owner: tuple[int, int] | None) -> bool:
        name = parts[-1]
        try:
            os.mkdir(name, 0o755, dir_fd=fd)
        except FileExistsError:
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                return False
            raise TransferError(f"mkdir /{'/'.join(parts)}: not a directory") from None
        self.changed = True
        with opened(fd, (name,), os.O_RDONLY | os.O_DIRECTORY) as made:
            if owner is not None and owner != (0, 0):
                os.fchown(made, *owner)
            os.fchmod(made, 0o755)
        return True

    @contextlib.contextmanager
    def folder(self, parts: Parts) -> Iterator[int]:
        """A directory at resolved components, open for reading."""
        with opened(self._fd, parts, os.O_RDONLY | os.O_DIRECTORY) as fd:
            yield fd

    def make_way(self, fd: int, parts: Parts, *, directories: bool = False) -> None:
        """Remove the file or link that stands where an entry is to be written.

        Args:
            fd: The directory above, open.
            parts: Where the entry goes.
            directories: Remove a directory too, with all that is in it.
        """
        try:
            info = os.stat(parts[-1], dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(info.st_mode):
            os.unlink(parts[-1], dir_fd=fd)
        elif directories:
            self._remove_tree(parts)
        else:
            raise TransferError(f"cannot replace to directory /{'/'.join(parts)} with file")

    def _remove_tree(self, parts: Parts) -> None:
        pending, order = [parts], []
        while pending:
            folder = pending.pop()
            order.append(folder)
            with self.folder(folder) as fd:
                for name in os.listdir(fd):  # noqa: PTH208 - relative to an open folder
                    info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    if stat.S_ISDIR(info.st_mode):
                        pending.append((*folder, name))
                    else:
                        os.unlink(name, dir_fd=fd)
        for folder in reversed(order):
            with self.folder(folder[:-1]) as fd:
                os.rmdir(folder[-1], dir_fd=fd)


def set_xattrs(fd: int, attributes: Mapping[str, bytes]) -> None:
    """Set what may be set: nothing that steers overlayfs."""
    for name, value in attributes.items():
        if name.startswith(_FORBIDDEN_XATTRS):
            continue
        try:
            os.setxattr(fd, name, value)
        except OSError as error:
            # Attributes that this file system does not carry are left out, as Docker does.
            if error.errno not in (errno.ENOTSUP, errno.EPERM):
                raise
