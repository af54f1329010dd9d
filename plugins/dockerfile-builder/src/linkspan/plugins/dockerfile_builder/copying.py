"""Writes what COPY and ADD have selected; docs/reference/dockerfile.md ("COPY and ADD") has the rules."""

import os
import stat

import attrs

from linkspan.plugins.dockerfile_builder.ownership import Mode
from linkspan.plugins.dockerfile_builder.selection import Selection, Source, TransferError
from linkspan.plugins.dockerfile_builder.target import Target, set_xattrs
from linkspan.plugins.dockerfile_builder.tree import Node, Parts, Tree
from linkspan.plugins.dockerfile_builder.unpack import Unpacker, is_archive
from linkspan.sdk.errors import DataLoss

_SENDFILE_BYTES = 1 << 24
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


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


class Copier:
    """Copies from one tree to one target. Blocking; raises as :class:`~.target.Target` does."""

    def __init__(self, tree: Tree, target: Target, options: CopyOptions) -> None:
        self._tree = tree
        self._target = target
        self._options = options

    def copy(self, selection: Selection, keyword: str) -> None:
        """Write what was selected, as docs/reference/dockerfile.md ("COPY and ADD") says."""
        if not selection.sources:
            return
        as_directory = self._options.dest.endswith("/") or self._options.dest.endswith("/.")
        dest = self._target.resolve(self._options.dest)
        if selection.many and not as_directory and not self._target.is_directory(dest):
            raise TransferError(
                f"When using {keyword} with more than one source file,"
                " the destination must be a directory and end with a /"
            )
        made = as_directory and self._target.make_directories(dest, self._options.owner)
        for source in selection.sources:
            self._target.check()
            self._copy_source(source, dest, made)

    def _copy_source(self, source: Source, dest: Parts, made: bool) -> None:
        if source.node.kind == "directory":
            self._copy_contents(source.node, dest, made)
            return
        if (
            self._options.unpack
            and source.node.kind == "file"
            and is_archive(self._tree, source.node)
        ):
            self._target.make_directories(dest, self._options.owner)
            Unpacker(self._target, dest, self._options.owner).unpack(
                self._tree, source.node, self._options.unpack_limit_bytes
            )
            return
        if self._target.is_directory(dest):
            dest = (*dest, source.name)
        if not dest:
            raise TransferError("cannot copy a file onto /")
        self._target.make_directories(dest[:-1], self._options.owner)
        with self._target.folder(dest[:-1]) as fd:
            self._write(source.node, fd, dest, {})

    def _copy_contents(self, top: Node, dest: Parts, made: bool) -> None:
        info = self._target.lstat(dest)
        if info is not None and not stat.S_ISDIR(info.st_mode):
            raise TransferError(f"cannot copy to non-directory: /{'/'.join(dest)}")
        made = self._target.make_directories(dest, self._options.owner) or made
        linked: dict[int, Parts] = {}
        finished: list[tuple[Node, Parts]] = []
        pending: list[tuple[Node, Parts]] = [(top, dest)]
        while pending:
            self._target.check()
            node, parts = pending.pop()
            if node is not top:
                finished.append((node, parts))
            with self._target.folder(parts) as fd:
                for name, child in self._tree.children(node).items():
                    if child.kind == "directory":
                        self._enter(fd, (*parts, name))
                        pending.append((child, (*parts, name)))
                    else:
                        self._write(child, fd, (*parts, name), linked)
        # Deepest first: writing below a directory changes its time.
        for node, parts in reversed(finished):
            with self._target.folder(parts) as fd:
                self._finish(node, fd)
        if made and self._options.mode is not None and self._options.mode.octal is not None:
            with self._target.folder(dest) as fd:
                os.fchmod(fd, self._options.mode.octal)

    def _enter(self, fd: int, parts: Parts) -> None:
        try:
            os.mkdir(parts[-1], 0o700, dir_fd=fd)
            self._target.changed = True
        except FileExistsError:
            info = os.stat(parts[-1], dir_fd=fd, follow_symlinks=False)
            if not stat.S_ISDIR(info.st_mode):
                raise TransferError(f"cannot copy to non-directory: /{'/'.join(parts)}") from None

    def _write(self, node: Node, fd: int, parts: Parts, linked: dict[int, Parts]) -> None:
        """One entry that is no directory, into the open directory ``fd``."""
        try:
            self._make(node, fd, parts, linked)
        except FileExistsError:
            self._target.make_way(fd, parts)
            self._make(node, fd, parts, linked)
        self._target.changed = True

    def _make(self, node: Node, fd: int, parts: Parts, linked: dict[int, Parts]) -> None:
        """As :meth:`_write`, where nothing stands. Raises FileExistsError."""
        name = parts[-1]
        if node.kind == "file" and id(node) in linked:
            first = linked[id(node)]
            with self._target.folder(first[:-1]) as other:
                os.link(first[-1], name, src_dir_fd=other, dst_dir_fd=fd, follow_symlinks=False)
            return
        owner = self._owner(node)
        if node.kind == "file":
            out = os.open(name, _NEW_FILE, 0o600, dir_fd=fd)
            linked[id(node)] = parts
            try:
                if node.size:
                    copy_data(self._tree, node, out)
                self._finish(node, out)
            finally:
                os.close(out)
        elif node.kind == "symlink":
            os.symlink(node.target, name, dir_fd=fd)
            if owner != (0, 0):
                os.chown(name, *owner, dir_fd=fd, follow_symlinks=False)
            os.utime(name, ns=(node.mtime_ns,) * 2, dir_fd=fd, follow_symlinks=False)
        else:
            self._make_special(node, fd, parts, owner)

    def _make_special(self, node: Node, fd: int, parts: Parts, owner: tuple[int, int]) -> None:
        name = parts[-1]
        if node.kind == "char" and node.device == 0:
            raise TransferError(f"/{'/'.join(parts)}: a 0:0 device cannot be part of an image")
        kind = {"fifo": stat.S_IFIFO, "char": stat.S_IFCHR, "block": stat.S_IFBLK}[node.kind]
        os.mknod(name, kind | 0o600, node.device, dir_fd=fd)
        if owner != (0, 0):
            os.chown(name, *owner, dir_fd=fd, follow_symlinks=False)
        # Linux cannot change the mode of a name without following links; nobody else writes here.
        os.chmod(name, self._mode(node), dir_fd=fd)
        os.utime(name, ns=(node.mtime_ns,) * 2, dir_fd=fd, follow_symlinks=False)

    def _owner(self, node: Node) -> tuple[int, int]:
        if self._options.owner is not None:
            return self._options.owner
        return (node.uid, node.gid) if self._options.keep_owner else (0, 0)

    def _mode(self, node: Node) -> int:
        if self._options.mode is None:
            return node.mode
        return self._options.mode.apply(node.mode, is_directory=node.kind == "directory")

    def _finish(self, node: Node, fd: int) -> None:
        """Owner, mode, attributes and times, in the order in which they do not undo each other."""
        os.fchown(fd, *self._owner(node))
        os.fchmod(fd, self._mode(node))
        set_xattrs(fd, node.xattrs)
        os.utime(fd, ns=(node.mtime_ns, node.mtime_ns))


def copy_data(tree: Tree, node: Node, out: int) -> None:
    """Copy the data of a file into an open one, inside the kernel."""
    with tree.data_range(node) as (fd, start):
        at, left = start, node.size
        while left:
            sent = os.sendfile(out, fd, at, min(left, _SENDFILE_BYTES))
            if not sent:
                raise DataLoss("a file became shorter while it was copied", code="file_changed")
            at, left = at + sent, left - sent
