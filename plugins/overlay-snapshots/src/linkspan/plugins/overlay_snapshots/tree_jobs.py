"""What children do with the files of containers: look at a path, pack it, unpack into it.

The child first makes the container's files its root: from then on whatever symlinks there are, and
whatever a tar names, the kernel resolves inside. Where a process runs in the root, its mounts are seen;
else the mounts of the task are made, in a mount namespace that ends with the child.
"""

import contextlib
import errno
import os
import posixpath
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final

from linkspan.plugins.overlay_snapshots.compression import (
    MAGIC_BYTES,
    decompressed,
    is_compressed,
)
from linkspan.plugins.overlay_snapshots.faults import dumps, from_os_error, hostile
from linkspan.plugins.overlay_snapshots.layer_folder import LayerFolder
from linkspan.plugins.overlay_snapshots.tar_writer import TarWriter
from linkspan.plugins.overlay_snapshots.untar import LayerLimits, Untar
from linkspan.sdk import syscalls
from linkspan.sdk.errors import InvalidArgument, LinkspanError, NotFound, PermissionDenied
from linkspan.sdk.lending import Borrowed, Interrupted
from linkspan.sdk.mountinfo import Mount, mounts

_BLOCK_BYTES: Final = 1 << 20
_NO_LIMITS: Final = LayerLimits(1 << 62, 1 << 62, 1 << 62)
_NO_PATH: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


# -- the root -----------------------------------------------------------------------------------


def enter(task: Mapping[str, Any]) -> None:
    """Make the container's files the root of this process.

    Task: ``folder``, ``pid``, ``mounts`` (destination, source, read-only).
    """
    if not (task["pid"] and _enter_process(task)):
        _make_view(task)
    os.umask(0)
    os.chdir("/")


def _enter_process(task: Mapping[str, Any]) -> bool:
    """Take over what a process sees; False if it has ended, or is another one by now."""
    expected = os.stat(task["folder"])
    try:
        mounted = mounts(task["pid"])
        namespace = os.open(f"/proc/{task['pid']}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    before = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(namespace, syscalls.CLONE_NEWNS)
        if not os.path.samestat(os.stat("/"), expected):
            syscalls.setns(before, syscalls.CLONE_NEWNS)
            return False
    finally:
        os.close(namespace)
        os.close(before)
    _own_mounts()
    _leave_out(mounted, {os.fsencode(mount[0]) for mount in task["mounts"]})
    return True


def _own_mounts() -> None:
    """From now on mounts of this process are seen by nobody else, and it sees no new ones."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)


def _leave_out(mounted: Sequence[Mount], wanted: set[bytes]) -> None:
    """Unmount what the kernel makes up (``/proc``, ``/sys``, ``/dev``) and all that is not wanted."""
    gone: list[bytes] = []
    for mount in mounted:
        target = os.fsencode(mount.target)
        if target == b"/" or any(_is_below(target, path) for path in (*wanted, *gone)):
            continue
        with contextlib.suppress(OSError):
            syscalls.unmount(mount.target, syscalls.MNT_DETACH)
        gone.append(target)


def _is_below(path: bytes, folder: bytes) -> bool:
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")


def _make_view(task: Mapping[str, Any]) -> None:
    _own_mounts()
    root = os.open(task["folder"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for destination, source, read_only in task["mounts"]:
            if source:
                _bind(root, os.fsencode(destination), source, read_only=read_only)
    finally:
        os.close(root)
    os.chroot(task["folder"])


def _bind(root: int, destination: bytes, source: str, *, read_only: bool) -> None:
    is_folder = stat.S_ISDIR(os.stat(source).st_mode)
    flags = syscalls.MS_BIND | syscalls.MS_REC
    for options in (flags, flags | syscalls.MS_REMOUNT | syscalls.MS_RDONLY if read_only else 0):
        if options:
            fd = _mount_point(root, destination, is_folder=is_folder)
            try:
                syscalls.mount(source, f"/proc/self/fd/{fd}", "", options)
            finally:
                os.close(fd)


def _mount_point(root: int, path: bytes, *, is_folder: bool) -> int:
    """Open a path inside the root, made if it is missing."""
    parts = [part for part in path.split(b"/") if part]
    current = syscalls.open_in_root(root, b".", os.O_PATH)
    for count, part in enumerate(parts, 1):
        place = b"/".join(parts[:count])
        try:
            following = syscalls.open_in_root(root, place, os.O_PATH)
        except FileNotFoundError:
            if count < len(parts) or is_folder:
                os.mkdir(part, 0o755, dir_fd=current)
            else:
                new = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                os.close(os.open(part, new, 0o644, dir_fd=current))
            following = syscalls.open_in_root(root, place, os.O_PATH)
        os.close(current)
        current = following
    return current


# -- paths --------------------------------------------------------------------------------------


def _absolute(path: str) -> bytes:
    """From the root, without ``..``; a last ``/`` or ``/.`` is kept, since it follows a link."""
    raw = os.fsencode(path)
    clean = posixpath.normpath(b"/" + raw.lstrip(b"/"))
    if raw == b"." or raw.endswith(b"/."):
        return clean.rstrip(b"/") + b"/."
    if raw.endswith(b"/") and clean != b"/":
        return clean + b"/"
    return clean


def _base(path: bytes) -> bytes:
    return path.rstrip(b"/").rpartition(b"/")[2] or b"/"


def _stat_of(path: bytes, asked: str) -> dict[str, Any]:
    try:
        status = os.lstat(path)
    except OSError as error:
        raise _path_error(error, asked) from error
    target = b""
    if stat.S_ISLNK(status.st_mode):
        target = os.path.realpath(path)
    return {
        "name": os.fsdecode(_base(path)),
        "size_bytes": status.st_size,
        "mode": status.st_mode,
        "mtime_ns": status.st_mtime_ns,
        "link_target": os.fsdecode(target),
    }


def _path_error(error: OSError, asked: str) -> LinkspanError:
    if error.errno in _NO_PATH:
        return NotFound(
            f"no such file or folder: {asked}", code="path_not_found", details={"path": asked}
        )
    return from_os_error(error)


def stat_path(task: Mapping[str, Any], fds: Sequence[int]) -> Any:
    """What ``path`` is."""
    enter(task)
    return _stat_of(_absolute(task["path"]), task["path"])


# -- reading ------------------------------------------------------------------------------------


class _Packer(TarWriter):
    """Writes files as they are; what vanishes meanwhile is left out."""

    def __init__(self, pipe: int, prefix: bytes) -> None:
        super().__init__(lambda data: _send(pipe, data))
        self._pipe = pipe
        self._prefix = prefix

    def write_path(self, path: bytes, status: os.stat_result) -> None:
        """A folder and all in it, or one file."""
        if stat.S_ISDIR(status.st_mode):
            os.chdir(path)
            self._header(
                self._prefix + b"/",
                stat.S_IMODE(status.st_mode),
                (status.st_uid, status.st_gid),
                0,
                max(status.st_mtime_ns // 1_000_000_000, 0),
                b"5",
            )
            self._prefix += b"/"
            self.write()
            return
        os.chdir(posixpath.dirname(path) or b"/")
        self._prefix = b""
        self._entry(_base(path), status)
        self._end()

    def _name(self, path: bytes) -> bytes:
        return self._prefix + path

    def _folder(self, prefix: bytes) -> list[tuple[bytes, os.stat_result]]:
        found = []
        try:
            names = sorted(os.listdir(prefix or b"."))
        except (FileNotFoundError, NotADirectoryError):
            return []
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(prefix + name)
                if not stat.S_ISSOCK(status.st_mode):
                    found.append((prefix + name, status))
        return found

    def _entry(self, path: bytes, status: os.stat_result) -> None:
        try:
            super()._entry(path, status)
        except FileNotFoundError:
            # It was there a moment ago; nothing of it has been written yet.
            return

    def _data(self, fd: int, path: bytes, size: int) -> None:
        self._flush()
        left = size
        while left:
            try:
                sent = os.sendfile(self._pipe, fd, None, min(left, _BLOCK_BYTES))
            except BrokenPipeError:
                os._exit(1)
            if not sent:
                # It became shorter, but the header is out: zeros, as other programs write then.
                _send(self._pipe, bytes(left))
                return
            left -= sent


def read_path(task: Mapping[str, Any], fds: Sequence[int]) -> Any:
    """Write what ``path`` is as a line of JSON, then its tar, to the pipe."""
    enter(task)
    asked = task["path"]
    path = _absolute(asked)
    found = _stat_of(path, asked)
    _send(fds[0], dumps(found) + b"\n")
    if not asked:
        _Packer(fds[0], b"").write()
        return None
    base = _base(path)
    try:
        _Packer(fds[0], b"" if base == b"/" else base).write_path(path, os.lstat(path))
    except OSError as error:
        raise _path_error(error, asked) from error
    return None


def _send(pipe: int, data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(pipe, view) :]
    except BrokenPipeError:
        # Nobody listens any more: the daemon has cancelled.
        os._exit(1)


# -- writing ------------------------------------------------------------------------------------


class _ContainerFolder(LayerFolder):
    """A folder of a container: no name means anything special, and owners are always set."""

    def __init__(self, *, keep_kind: bool) -> None:
        super().__init__()
        self._keep_kind = keep_kind
        self.setgid_seen = True

    def marker(self, path: bytes) -> bool:
        return False

    def lower_visible(self, path: bytes) -> bool:
        return False

    def accept_parent(self, current: bytes, entry: bytes, hops: int) -> None:
        # Other than in a layer, a link to what is not there is not given what it lacks.
        if not os.path.isdir(current):
            raise hostile(entry, f"'{os.fsdecode(current)}' is not a folder")

    def replace_by_folder(self, path: bytes, mode: int) -> None:
        if self._keep_kind:
            raise _other_kind("cannot overwrite non-directory", path, "with directory")
        os.unlink(path)
        os.mkdir(path, mode)

    def remove(self, path: bytes) -> None:
        if self._keep_kind and stat.S_ISDIR(os.lstat(path).st_mode):
            raise _other_kind("cannot overwrite directory", path, "with non-directory")
        super().remove(path)


class _OwnedUntar(Untar):
    """Gives all to one owner."""

    def __init__(self, limits: LayerLimits, folder: LayerFolder, owner: tuple[int, int]) -> None:
        super().__init__(limits, folder)
        self._owner = owner

    def _make(self, entry: Any, *rest: Any) -> None:
        entry.uid, entry.gid = self._owner
        super()._make(entry, *rest)


def _other_kind(before: str, path: bytes, after: str) -> InvalidArgument:
    name = os.fsdecode(path)
    return InvalidArgument(f'{before} "{name}" {after} "{name}"', code="other_kind")


def write_path(task: Mapping[str, Any], fds: Sequence[int]) -> Any:
    """Unpack a tar into the folder ``path``; it comes from a pipe, and then from what may be lent.

    Task: also ``keep_kind``, ``owner``, ``read_only``, ``lent`` (see ``JobServer.fed``).
    """
    _enter_folder(task)
    folder = _ContainerFolder(keep_kind=task["keep_kind"])
    untar = (
        _OwnedUntar(_NO_LIMITS, folder, _owner(task["owner"]))
        if task["owner"]
        else Untar(_NO_LIMITS, folder)
    )
    if "lent" not in task:
        _unpack(fds[0], (), untar)
        return None
    borrowed = Borrowed(fds[1], task["lent"])
    with contextlib.suppress(Interrupted):
        _unpack(fds[0], borrowed.groups(), untar)
    return borrowed.report()


def _enter_folder(task: Mapping[str, Any]) -> None:
    """Go to the folder ``path``, in which something is to be changed."""
    enter(task)
    asked = task["path"]
    try:
        is_folder = stat.S_ISDIR(os.stat(_absolute(asked)).st_mode)
        if is_folder:
            os.chdir(_absolute(asked))
    except OSError as error:
        raise _path_error(error, asked) from error
    if not is_folder:
        raise InvalidArgument("extraction point is not a directory", code="not_a_folder")
    _refuse_if_read_only(os.fsencode(os.getcwd()), task)


def remove_paths(task: Mapping[str, Any], fds: Sequence[int]) -> Any:
    """Remove the files and empty folders ``names`` of the folder ``path``; those that stay."""
    _enter_folder(task)
    left = []
    for name in task["names"]:
        if name.startswith("/") or ".." in name.split("/"):
            raise InvalidArgument(f"'{name}' leads out of the folder", code="hostile_path")
        path = os.fsencode(name)
        try:
            os.rmdir(path) if stat.S_ISDIR(os.lstat(path).st_mode) else os.unlink(path)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
                left.append(name)
            elif error.errno not in _NO_PATH:
                raise from_os_error(error) from error
    return left


def _refuse_if_read_only(path: bytes, task: Mapping[str, Any]) -> None:
    inside = [m for m in task["mounts"] if _is_below(path, os.fsencode(m[0]))]
    if inside:
        if max(inside, key=lambda mount: len(mount[0]))[2]:
            raise PermissionDenied("mounted volume is marked read-only", code="read_only")
    elif task["read_only"]:
        raise PermissionDenied("container rootfs is marked read-only", code="read_only")


def _unpack(pipe: int, following: Iterable[list[memoryview]], untar: Untar) -> None:
    """Unpack the tar of a pipe, and of what follows it; decompressed if need be."""
    groups = chain(_groups(pipe), following)
    head = b""
    for group in groups:
        head = b"".join((head, *group))
        if len(head) >= MAGIC_BYTES:
            break
    if is_compressed(head):
        for piece in decompressed(head, chain.from_iterable(groups)):
            untar.feed(piece)
    else:
        untar.feed(head)
        untar.take_from(pipe)
        for group in groups:
            untar.feed_all(group)
            untar.take_from(pipe)
    untar.finish()


def _groups(pipe: int) -> Iterator[list[memoryview]]:
    view = memoryview(bytearray(_BLOCK_BYTES))
    while count := os.readv(pipe, [view]):
        yield [view[:count]]


def _owner(user: str) -> tuple[int, int]:
    """``user[:group]`` by the container's own books."""
    name, _, group = user.partition(":")
    uid, gid = _look_up("/etc/passwd", name, lambda fields: (int(fields[2]), int(fields[3])))
    if group:
        gid = _look_up("/etc/group", group, lambda fields: (int(fields[2]), 0))[0]
    return uid, gid


def _look_up(book: str, name: str, read: Callable[[list[str]], tuple[int, int]]) -> tuple[int, int]:
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = Path(book).read_text(errors="replace").splitlines()
    for line in lines:
        fields = line.split(":")
        with contextlib.suppress(ValueError, IndexError):
            if name in (fields[0], fields[2]):
                return read(fields)
    if name.isdigit():
        return int(name), 0
    raise InvalidArgument(f"no entry for '{name}' in {book}", code="user_not_found")


TREE_JOBS: Final[Mapping[str, Callable[[Mapping[str, Any], Sequence[int]], Any]]] = {
    "stat-path": stat_path,
    "read-path": read_path,
    "write-path": write_path,
    "remove-paths": remove_paths,
}
