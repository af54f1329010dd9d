"""The folder that a tar is unpacked into: how things are put in their places, and what was there goes.

The process is chrooted into it. Nothing existing is ever written through: files are made with O_EXCL, links and
special files are replaced, never followed in their last component.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from typing import Final

from linkspan.plugins.overlay_snapshots.attributes import OPAQUE, is_opaque, is_whiteout
from linkspan.plugins.overlay_snapshots.faults import hostile
from linkspan.plugins.overlay_snapshots.trees import remove_tree

NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
"""Opens a file that is not there."""

_LINK_HOPS: Final = 40


class LayerFolder:
    """The folder of an overlay layer.

    Attributes:
        implicit: Folders that were made because something in them came first.
        deferred: Path → the path of another layer's file to which it is a hard link.
        setgid_seen: A folder with the setgid bit gives its group to what is made in it, so that the owner has to
            be set even where it is 0:0.
    """

    def __init__(self) -> None:
        self.implicit: set[bytes] = set()
        self.deferred: dict[bytes, bytes] = {}
        self.setgid_seen = False

    def create(self, path: bytes, make: Callable[[], int | None]) -> int:
        """Call ``make``, with the parents made and the way cleared where needed."""
        for _ in range(2):
            try:
                return make() or 0
            except FileExistsError:
                self.remove(path)
            except FileNotFoundError:
                self.make_parents(path)
        return make() or 0

    def remove(self, path: bytes) -> None:
        """Take away what is there, a folder with all in it."""
        if stat.S_ISDIR(os.lstat(path).st_mode):
            remove_tree(path)
        else:
            os.unlink(path)
        self.deferred.pop(path, None)

    def make_parents(self, path: bytes) -> None:
        """Make the folders above a path that are not there."""
        parent = path.rpartition(b"/")[0]
        if parent:
            self._make_folders(parent, path, _LINK_HOPS)

    def _make_folders(self, folder: bytes, entry: bytes, hops: int) -> None:
        parts = folder.split(b"/")
        for count in range(1, len(parts) + 1):
            current = b"/".join(parts[:count])
            try:
                os.mkdir(current, 0o755)
            except FileExistsError:
                self.accept_parent(current, entry, hops)
            else:
                self.implicit.add(current)
                if self.setgid_seen:
                    os.chown(current, 0, 0)
                    os.chmod(current, 0o755)  # noqa: S103 - as a missing parent is made

    def accept_parent(self, current: bytes, entry: bytes, hops: int) -> None:
        """Something is where a folder is needed: make one of it, or refuse."""
        status = os.lstat(current)
        if is_whiteout(status):
            os.unlink(current)
            os.mkdir(current, 0o755)
            os.setxattr(current, OPAQUE, b"y")
            return
        if stat.S_ISLNK(status.st_mode):
            try:
                status = os.stat(current)
            except FileNotFoundError:
                # A link to what is not there (yet): make it, inside the root as the link says.
                if not hops:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
                target = _link_target(current, os.readlink(current))
                if target:
                    self._make_folders(target, entry, hops - 1)
                status = os.stat(current)
        if not stat.S_ISDIR(status.st_mode):
            raise hostile(entry, f"'{os.fsdecode(current)}' is not a folder")

    def replace_by_folder(self, path: bytes, mode: int) -> None:
        """Something of this layer was here, so what lower layers have here is hidden."""
        self.remove(path)
        os.mkdir(path, mode)
        os.setxattr(path, OPAQUE, b"y")

    def hard_link(self, path: bytes, target: bytes) -> None:
        """Link to another file; to one of a lower layer when the layer is settled."""
        if path == target or not target:
            raise hostile(path, "a hard link to itself" if target else "a hard link to the root")
        try:
            status = os.lstat(target)
        except (FileNotFoundError, NotADirectoryError):
            if not self.lower_visible(target):
                raise hostile(
                    path, f"its hard link target '{os.fsdecode(target)}' is missing"
                ) from (None)
            self._defer(path, target)
            return
        if is_whiteout(status):
            raise hostile(path, f"its hard link target '{os.fsdecode(target)}' is missing")
        if stat.S_ISDIR(status.st_mode):
            raise hostile(path, "a hard link to a folder")
        if target in self.deferred:
            self._defer(path, self.deferred[target])
            return
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if os.path.samestat(os.lstat(path), status):
                return
        self.create(path, lambda: os.link(target, path, follow_symlinks=False))

    def _defer(self, path: bytes, target: bytes) -> None:
        self.create(path, lambda: os.close(os.open(path, NEW_FILE, 0o600)))
        self.deferred[path] = target

    def lower_visible(self, path: bytes) -> bool:
        """Whether this layer so far hides what lower layers may have at a path."""
        parts = path.split(b"/")
        for count in range(1, len(parts)):
            parent = b"/".join(parts[:count])
            try:
                status = os.lstat(parent)
            except FileNotFoundError:
                return True
            if stat.S_ISLNK(status.st_mode):
                return True
            if not stat.S_ISDIR(status.st_mode) or is_opaque(parent):
                return False
        return True

    def marker(self, path: bytes) -> bool:
        """Do what a name with the prefix ``.wh.`` stands for; False if no part of it has the prefix."""
        parent, _, base = path.rpartition(b"/")
        if b"/.wh." in b"/" + parent:
            if b"/.wh..wh." in b"/" + parent:
                # Inside a folder of aufs.
                return True
            raise hostile(path, "a folder's name begins with .wh.")
        if not base.startswith(b".wh."):
            return False
        if base == b".wh..wh..opq":
            self.make_parents(path)
            os.setxattr(parent or b".", OPAQUE, b"y")
        elif not base.startswith(b".wh..wh."):
            self._whiteout(path, parent, base[4:])
        return True

    def _whiteout(self, path: bytes, parent: bytes, hidden: bytes) -> None:
        if hidden in (b"", b".", b".."):
            raise hostile(path, "a whiteout of no name")
        target = parent + b"/" + hidden if parent else hidden
        try:
            os.mknod(target, stat.S_IFCHR, 0)
        except FileNotFoundError:
            self.make_parents(target)
            os.mknod(target, stat.S_IFCHR, 0)
        except FileExistsError:
            # What this layer has added survives; a folder hides what lower layers have in it.
            if stat.S_ISDIR(os.lstat(target).st_mode):
                os.setxattr(target, OPAQUE, b"y")


def _link_target(link: bytes, target: bytes) -> bytes:
    """Where a symlink leads, from the root; ``..`` stops at the root, as in a chroot."""
    start = b"" if target.startswith(b"/") else link.rpartition(b"/")[0]
    parts: list[bytes] = []
    for part in (start + b"/" + target).split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)
