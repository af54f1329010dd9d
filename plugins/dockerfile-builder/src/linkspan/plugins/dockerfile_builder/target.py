"""Where COPY, ADD and WORKDIR write: the mounted root of a stage.

Images are hostile: their links may point anywhere. Every path is resolved here, link by link, as if
the stage's root were ``/``; the kernel only ever gets one component at a time, relative to an open
directory, and never follows a link.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import attrs

from linkspan.plugins.dockerfile_builder.archive import (
    Entry,
    compression,
    entries,
    is_tar_header,
    open_stream,
)
from linkspan.plugins.dockerfile_builder.ownership import Mode
from linkspan.plugins.dockerfile_builder.selection import Selection, Source, TransferError
from linkspan.plugins.dockerfile_builder.tree import (
    MAX_LINKS,
    Check,
    Node,
    Parts,
    Tree,
    opened,
    split_path,
)
from linkspan.sdk.errors import DataLoss, InvalidArgument, TooLarge

_MAX_READ_BYTES = 4 << 20
_SENDFILE_BYTES = 1 << 24
# A link target or device that a layer must not carry: it would steer overlayfs itself.
_FORBIDDEN_XATTRS = ("trusted.overlay.", "user.overlay.")


@attrs.frozen(kw_only=True)
class CopyOptions:
    """What an instruction says about the entries it writes.

    Attributes:
        dest: Absolute, with its trailing slash or ``/.`` as written.
        owner: uid and gid for all entries, and for the directories made on the way; None keeps those of
            the source (``keep_owner``) or means root.
        unpack: Local archives are unpacked (ADD).
        unpack_limit_bytes: Of one archive.
    """

    dest: str
    owner: tuple[int, int] | None = None
    keep_owner: bool = False
    mode: Mode | None = None
    unpack: bool = False
    unpack_limit_bytes: int = 1 << 40


class Target:
    """A writable root folder. All methods block; for a worker thread.

    Methods raise TransferError in Docker's wording, and OSError for what the disk refuses.
    """

    def __init__(self, root: Path, check: Check) -> None:
        self._fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._check = check
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
            with self._folder(parts[: depth - 1]) as fd:
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
    def _folder(self, parts: Parts) -> Iterator[int]:
        with opened(self._fd, parts, os.O_RDONLY | os.O_DIRECTORY) as fd:
            yield fd

    # Copying

    def copy(self, tree: Tree, selection: Selection, options: CopyOptions, keyword: str) -> None:
        """Write what was selected, as docs/reference/dockerfile.md ("COPY and ADD") says."""
        if not selection.sources:
            return
        as_directory = options.dest.endswith("/") or options.dest.endswith("/.")
        dest = self.resolve(options.dest)
        if selection.many and not as_directory and not self.is_directory(dest):
            raise TransferError(
                f"When using {keyword} with more than one source file,"
                " the destination must be a directory and end with a /"
            )
        if as_directory:
            self.make_directories(dest, options.owner)
        for source in selection.sources:
            self._check()
            self._copy_source(tree, source, dest, options)

    def _copy_source(self, tree: Tree, source: Source, dest: Parts, options: CopyOptions) -> None:
        if source.node.kind == "directory":
            self._copy_contents(tree, source.node, dest, options)
            return
        if options.unpack and source.node.kind == "file" and _is_archive(tree, source.node):
            self.make_directories(dest, options.owner)
            self.unpack(tree, source.node, dest, options)
            return
        if self.is_directory(dest):
            dest = (*dest, source.name)
        if not dest:
            raise TransferError("cannot copy a file onto /")
        self.make_directories(dest[:-1], options.owner)
        with self._folder(dest[:-1]) as fd:
            self._write(tree, source.node, fd, dest, options, {})

    def _copy_contents(self, tree: Tree, top: Node, dest: Parts, options: CopyOptions) -> None:
        info = self.lstat(dest)
        if info is not None and not stat.S_ISDIR(info.st_mode):
            raise TransferError(f"cannot copy to non-directory: /{'/'.join(dest)}")
        made = self.make_directories(dest, options.owner)
        linked: dict[int, Parts] = {}
        finished: list[tuple[Node, Parts]] = []
        pending: list[tuple[Node, Parts]] = [(top, dest)]
        while pending:
            self._check()
            node, parts = pending.pop()
            if node is not top:
                finished.append((node, parts))
            with self._folder(parts) as fd:
                for name, child in tree.children(node).items():
                    if child.kind == "directory":
                        self._enter(fd, (*parts, name))
                        pending.append((child, (*parts, name)))
                    else:
                        self._write(tree, child, fd, (*parts, name), options, linked)
        # Deepest first: writing below a directory changes its time.
        for node, parts in reversed(finished):
            with self._folder(parts) as fd:
                self._finish(tree, node, fd, options)
        if made and options.mode is not None and options.mode.octal is not None:
            with self._folder(dest) as fd:
                os.fchmod(fd, options.mode.octal)

    def _enter(self, fd: int, parts: Parts) -> None:
        try:
            os.mkdir(parts[-1], 0o700, dir_fd=fd)
            self.changed = True
        except FileExistsError:
            info = os.stat(parts[-1], dir_fd=fd, follow_symlinks=False)
            if not stat.S_ISDIR(info.st_mode):
                raise TransferError(f"cannot copy to non-directory: /{'/'.join(parts)}") from None

    def _write(
        self,
        tree: Tree,
        node: Node,
        fd: int,
        parts: Parts,
        options: CopyOptions,
        linked: dict[int, Parts],
    ) -> None:
        """One entry that is no directory, into the open directory ``fd``."""
        name = parts[-1]
        self._make_way(fd, parts)
        self.changed = True
        if node.kind == "file" and id(node) in linked:
            first = linked[id(node)]
            with self._folder(first[:-1]) as other:
                os.link(first[-1], name, src_dir_fd=other, dst_dir_fd=fd, follow_symlinks=False)
            return
        linked[id(node)] = parts
        owner = self._owner(node, options)
        if node.kind == "file":
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            out = os.open(name, flags, 0o600, dir_fd=fd)
            try:
                if node.size:
                    _copy_data(tree, node, out)
                self._finish(tree, node, out, options)
            finally:
                os.close(out)
        elif node.kind == "symlink":
            os.symlink(node.target, name, dir_fd=fd)
            if owner != (0, 0):
                os.chown(name, *owner, dir_fd=fd, follow_symlinks=False)
            os.utime(name, ns=(node.mtime_ns,) * 2, dir_fd=fd, follow_symlinks=False)
        else:
            self._make_special(node, fd, parts, owner, options)

    def _make_special(
        self, node: Node, fd: int, parts: Parts, owner: tuple[int, int], options: CopyOptions
    ) -> None:
        name = parts[-1]
        if node.kind == "char" and node.device == 0:
            raise TransferError(f"/{'/'.join(parts)}: a 0:0 device cannot be part of an image")
        kind = {"fifo": stat.S_IFIFO, "char": stat.S_IFCHR, "block": stat.S_IFBLK}[node.kind]
        os.mknod(name, kind | 0o600, node.device, dir_fd=fd)
        if owner != (0, 0):
            os.chown(name, *owner, dir_fd=fd, follow_symlinks=False)
        # Linux cannot change the mode of a name without following links; nobody else writes here.
        os.chmod(name, self._mode(node, options), dir_fd=fd)
        os.utime(name, ns=(node.mtime_ns,) * 2, dir_fd=fd, follow_symlinks=False)

    def _make_way(self, fd: int, parts: Parts, *, directories: bool = False) -> None:
        """Remove the file or link that stands where an entry is to be written."""
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
            with self._folder(folder) as fd:
                for name in os.listdir(fd):  # noqa: PTH208 - relative to an open folder
                    info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    if stat.S_ISDIR(info.st_mode):
                        pending.append((*folder, name))
                    else:
                        os.unlink(name, dir_fd=fd)
        for folder in reversed(order):
            with self._folder(folder[:-1]) as fd:
                os.rmdir(folder[-1], dir_fd=fd)

    def _owner(self, node: Node, options: CopyOptions) -> tuple[int, int]:
        if options.owner is not None:
            return options.owner
        return (node.uid, node.gid) if options.keep_owner else (0, 0)

    def _mode(self, node: Node, options: CopyOptions) -> int:
        if options.mode is None:
            return node.mode
        return options.mode.apply(node.mode, is_directory=node.kind == "directory")

    def _finish(self, tree: Tree, node: Node, fd: int, options: CopyOptions) -> None:
        """Owner, mode, attributes and times, in the order in which they do not undo each other."""
        os.fchown(fd, *self._owner(node, options))
        os.fchmod(fd, self._mode(node, options))
        _set_xattrs(fd, tree.xattrs(node))
        os.utime(fd, ns=(node.mtime_ns, node.mtime_ns))

    # Archives

    def unpack(self, tree: Tree, node: Node, dest: Parts, options: CopyOptions) -> None:
        """Unpack an archive below a directory of the target.

        Raises:
            TransferError: An entry tries to leave the destination, or the archive is broken.
        """
        directories: list[tuple[Parts, int]] = []
        try:
            with tree.open(node) as file:
                stream = open_stream(
                    lambda: file.read(1 << 18), limit_bytes=options.unpack_limit_bytes
                )
                for entry, data in entries(stream):
                    self._check()
                    self._unpack_entry(entry, data, dest, options, directories)
        except (InvalidArgument, DataLoss, TooLarge) as error:
            raise TransferError(f"ADD failed: {error.message}") from error
        for parts, mtime_ns in reversed(directories):
            if self.is_directory(parts):
                with self._folder(parts) as fd:
                    os.utime(fd, ns=(mtime_ns, mtime_ns))

    def _unpack_entry(
        self,
        entry: Entry,
        data: Iterator[memoryview],
        dest: Parts,
        options: CopyOptions,
        directories: list[tuple[Parts, int]],
    ) -> None:
        names = split_path(entry.name)
        if ".." in names:
            raise TransferError(f"ADD failed: the archive's entry '{entry.name}' leaves its root")
        if not names:
            return
        above = self.resolve("/".join((*dest, *names[:-1])))
        self.make_directories(above, options.owner)
        parts = (*above, names[-1])
        owner = options.owner or (entry.uid, entry.gid)
        with self._folder(above) as fd:
            if entry.kind == "directory":
                self._unpack_directory(entry, fd, parts, owner)
                directories.append((parts, entry.mtime_ns))
            elif entry.kind == "hardlink":
                self._unpack_link(entry, fd, parts, dest)
            else:
                self._make_way(fd, parts, directories=True)
                self.changed = True
                _make_entry(entry, data, fd, names[-1], owner)

    def _unpack_directory(
        self, entry: Entry, fd: int, parts: Parts, owner: tuple[int, int]
    ) -> None:
        name = parts[-1]
        info = self.lstat(parts)
        if info is not None and not stat.S_ISDIR(info.st_mode):
            os.unlink(name, dir_fd=fd)
            info = None
        if info is None:
            os.mkdir(name, 0o700, dir_fd=fd)
        self.changed = True
        with opened(fd, (name,), os.O_RDONLY | os.O_DIRECTORY) as made:
            os.fchown(made, *owner)
            os.fchmod(made, entry.mode)
            _set_xattrs(made, entry.xattrs)

    def _unpack_link(self, entry: Entry, fd: int, parts: Parts, dest: Parts) -> None:
        names = split_path(entry.target)
        if ".." in names or not names:
            raise TransferError(f"ADD failed: the archive's link '{entry.name}' leaves its root")
        first = (*self.resolve("/".join((*dest, *names[:-1]))), names[-1])
        info = self.lstat(first)
        if info is None or stat.S_ISDIR(info.st_mode):
            raise TransferError(
                f"ADD failed: the archive's link '{entry.name}' points to '{entry.target}',"
                " which is no file"
            )
        if first == parts:
            return
        self._make_way(fd, parts, directories=True)
        self.changed = True
        with self._folder(first[:-1]) as other:
            os.link(first[-1], parts[-1], src_dir_fd=other, dst_dir_fd=fd, follow_symlinks=False)


def _copy_data(tree: Tree, node: Node, out: int) -> None:
    with tree.data_range(node) as (fd, start):
        at, left = start, node.size
        while left:
            sent = os.sendfile(out, fd, at, min(left, _SENDFILE_BYTES))
            if not sent:
                raise DataLoss("a file became shorter while it was copied", code="file_changed")
            at, left = at + sent, left - sent


def _set_xattrs(fd: int, attributes: object) -> None:
    assert hasattr(attributes, "items")
    for name, value in attributes.items():
        if name.startswith(_FORBIDDEN_XATTRS):
            continue
        try:
            os.setxattr(fd, name, value)
        except OSError as error:
            # Attributes that this file system does not carry are left out, as Docker does.
            if error.errno not in (errno.ENOTSUP, errno.EPERM):
                raise


def _make_entry(
    entry: Entry, data: Iterator[memoryview], fd: int, name: str, owner: tuple[int, int]
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
            _set_xattrs(out, entry.xattrs)
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


def _is_archive(tree: Tree, node: Node) -> bool:
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
