"""Finishes an unpacked layer with the help of the layers below it.

Two things in a layer mean something only together with its parents:

- A folder that the tar does not list (``a`` of a lone ``a/b``). Where a parent has a folder, it keeps
  its mode, owner, times and attributes; where a parent has a symlink, the content belongs behind the
  link (``bin/x`` on a root where ``bin`` leads to ``usr/bin``).
- A hard link to a parent's file. As overlayfs does, the file is copied up; both names share the copy.

Runs in a child. Both trees are entered with openat2(RESOLVE_IN_ROOT) only.
"""

import contextlib
import os
import shutil
import stat
from typing import Any

from linkspan.plugins.overlay_snapshots.attributes import is_opaque
from linkspan.plugins.overlay_snapshots.faults import from_os_error, hostile
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.syscalls import open_in_root

_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Settle:
    """One layer.

    Args:
        layer: Descriptor of the unpacked folder.
        lower: Descriptor of the parents, mounted as one read-only tree.
    """

    def __init__(self, layer: int, lower: int) -> None:
        self._layer = layer
        self._lower = lower
        self._lower_root = os.readlink(b"/proc/self/fd/%d" % lower)
        self._moved: dict[bytes, bytes] = {}

    def run(self, notes: dict[str, Any]) -> None:
        """Do what ``unpack`` noted.

        Raises:
            InvalidArgument: code ``hostile_layer``: a parent of an entry is no folder, or a hard link
                leads nowhere.
            OutOfSpace: The disk is full.
        """
        implicit = [os.fsencode(path) for path in notes["implicit"]]
        for path in sorted(implicit, key=lambda path: path.count(b"/")):
            self._guarded(self._folder, path)
        groups: dict[bytes, list[bytes]] = {}
        for path, target in notes["deferred"].items():
            groups.setdefault(os.fsencode(target), []).append(os.fsencode(path))
        for target, paths in groups.items():
            self._guarded(self._link, target, paths)

    def _guarded(self, work: Any, path: bytes, *rest: Any) -> None:
        try:
            work(path, *rest)
        except OSError as error:
            raise from_os_error(error, path) from error

    # Folders that the tar did not list

    def _folder(self, path: bytes) -> None:
        path = self._where(path)
        try:
            ours = open_in_root(self._layer, path, _FOLDER | os.O_NOFOLLOW)
        except OSError:
            # A later entry has put something else here.
            return
        with _closing(ours):
            if is_opaque(ours):
                return
            status = self._lower_status(path)
            if status is None:
                return
            if stat.S_ISDIR(status.st_mode):
                theirs = open_in_root(self._lower, path, _FOLDER)
                with _closing(theirs):
                    _copy_metadata(theirs, ours)
            elif stat.S_ISLNK(status.st_mode):
                self._move_behind_link(path)
            else:
                raise hostile(path, "a lower layer has a file where it needs a folder")

    def _lower_status(self, path: bytes) -> os.stat_result | None:
        parent, _, base = path.rpartition(b"/")
        try:
            fd = open_in_root(self._lower, parent, _FOLDER)
        except (FileNotFoundError, NotADirectoryError):
            return None
        with _closing(fd):
            try:
                return os.stat(base, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                return None

    def _move_behind_link(self, path: bytes) -> None:
        try:
            fd = open_in_root(self._lower, path, _FOLDER)
        except FileNotFoundError:
            raise hostile(path, "a lower layer has a link to nothing here") from None
        with _closing(fd):
            real = os.readlink(b"/proc/self/fd/%d" % fd)[len(self._lower_root) :].strip(b"/")
        self._make_folders(real)
        self._merge(path, real)
        self._moved[path] = real

    def _merge(self, source: bytes, target: bytes) -> None:
        """Move what is in one folder of the layer into another one of it."""
        pending = [(source, target)]
        emptied = []
        while pending:
            source, target = pending.pop()
            emptied.append(source)
            with (
                _closing(open_in_root(self._layer, source, _FOLDER)) as here,
                _closing(open_in_root(self._layer, target, _FOLDER)) as there,
            ):
                for name in sorted(map(os.fsencode, os.listdir(here))):
                    try:
                        status = os.stat(name, dir_fd=there, follow_symlinks=False)
                    except FileNotFoundError:
                        os.rename(name, name, src_dir_fd=here, dst_dir_fd=there)
                        continue
                    ours = os.stat(name, dir_fd=here, follow_symlinks=False)
                    if not (stat.S_ISDIR(status.st_mode) and stat.S_ISDIR(ours.st_mode)):
                        raise hostile(
                            source + b"/" + name,
                            f"the same file as '{os.fsdecode(target + b'/' + name)}'",
                        )
                    pending.append((source + b"/" + name, target + b"/" + name))
        for folder in reversed(emptied):
            parent, _, base = folder.rpartition(b"/")
            with _closing(open_in_root(self._layer, parent, _FOLDER)) as fd:
                os.rmdir(base, dir_fd=fd)

    def _where(self, path: bytes) -> bytes:
        """Where a path of the layer is now."""
        parts = path.split(b"/")
        for count in range(len(parts), 0, -1):
            real = self._moved.get(b"/".join(parts[:count]))
            if real is not None:
                return b"/".join((real, *parts[count:])).strip(b"/")
        return path

    # Hard links to lower layers

    def _link(self, target: bytes, paths: list[bytes]) -> None:
        parent, _, base = target.rpartition(b"/")
        missing = hostile(paths[0], f"its hard link target '{os.fsdecode(target)}' is missing")
        try:
            theirs = open_in_root(self._lower, parent, _FOLDER)
        except OSError as error:
            raise missing from error
        with _closing(theirs):
            try:
                status = os.stat(base, dir_fd=theirs, follow_symlinks=False)
            except OSError as error:
                raise missing from error
            if stat.S_ISDIR(status.st_mode):
                raise hostile(paths[0], "a hard link to a folder")
            real = os.readlink(b"/proc/self/fd/%d" % theirs)[len(self._lower_root) :].strip(b"/")
            self._make_folders(real)
            with _closing(open_in_root(self._layer, real, _FOLDER)) as ours:
                times = os.fstat(ours)
                name = base
                if _exists(base, ours):
                    # A later entry of the layer has replaced the target itself.
                    name = b".linkspan-link-" + os.urandom(8).hex().encode()
                _copy_node(theirs, base, ours, name, status)
                for path in paths:
                    self._put_link(path, ours, name)
                if name != base:
                    os.unlink(name, dir_fd=ours)
                os.utime(ours, ns=(times.st_atime_ns, times.st_mtime_ns))

    def _put_link(self, path: bytes, folder: int, name: bytes) -> None:
        """Put a link in the place of the empty file that stands for it."""
        parent, _, base = self._where(path).rpartition(b"/")
        try:
            fd = open_in_root(self._layer, parent, _FOLDER)
        except OSError:
            # A later entry has removed the folder.
            return
        with _closing(fd):
            times = os.fstat(fd)
            try:
                os.unlink(base, dir_fd=fd)
            except FileNotFoundError:
                return
            os.link(name, base, src_dir_fd=folder, dst_dir_fd=fd, follow_symlinks=False)
            os.utime(fd, ns=(times.st_atime_ns, times.st_mtime_ns))

    def _make_folders(self, path: bytes) -> None:
        """Make a folder that the parents have in the layer, with their metadata."""
        parts = path.split(b"/") if path else []
        for count in range(1, len(parts) + 1):
            current = b"/".join(parts[:count])
            parent, _, base = current.rpartition(b"/")
            with _closing(open_in_root(self._layer, parent, _FOLDER)) as fd:
                times = os.fstat(fd)
                try:
                    os.mkdir(base, 0o755, dir_fd=fd)
                except FileExistsError:
                    status = os.stat(base, dir_fd=fd, follow_symlinks=False)
                    if not stat.S_ISDIR(status.st_mode):
                        raise InvalidArgument(
                            f"the layer replaces the folder '{os.fsdecode(current)}' that it uses",
                            code="hostile_layer",
                        ) from None
                    continue
                os.utime(fd, ns=(times.st_atime_ns, times.st_mtime_ns))
            with (
                _closing(open_in_root(self._lower, current, _FOLDER)) as theirs,
                _closing(open_in_root(self._layer, current, _FOLDER)) as ours,
            ):
                _copy_metadata(theirs, ours)


@contextlib.contextmanager
def _closing(fd: int) -> Any:
    try:
        yield fd
    finally:
        os.close(fd)


def _exists(name: bytes, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _copy_metadata(source: int, target: int) -> None:
    """Owner, mode, attributes and times of one open file for another."""
    status = os.fstat(source)
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source):
        if not name.startswith("trusted.overlay."):
            os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _copy_node(
    source_folder: int, source: bytes, folder: int, name: bytes, status: os.stat_result
) -> None:
    """Copy one thing that is no folder."""
    if stat.S_ISREG(status.st_mode):
        with (
            _closing(os.open(source, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=source_folder)) as theirs,
            _closing(os.open(name, _NEW_FILE, 0o600, dir_fd=folder)) as ours,
        ):
            with (
                os.fdopen(theirs, "rb", closefd=False) as a,
                os.fdopen(ours, "wb", closefd=False) as b,
            ):
                shutil.copyfileobj(a, b, 1 << 20)
            _copy_metadata(theirs, ours)
        return
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source, dir_fd=source_folder), name, dir_fd=folder)
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=folder)
    os.chown(name, status.st_uid, status.st_gid, dir_fd=folder, follow_symlinks=False)
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=folder, follow_symlinks=False)
