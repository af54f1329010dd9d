"""What the writable part of a snapshot changes (Docker API ContainerChange). Runs in a child."""

import os
import stat
from typing import Final

from linkspan.plugins.overlay_snapshots.attributes import is_opaque
from linkspan.plugins.overlay_snapshots.trees import is_stub
from linkspan.sdk.syscalls import open_in_root

MODIFIED: Final = 0
ADDED: Final = 1
DELETED: Final = 2

Found = tuple[str, int]


def changes(lower: int, ignore: frozenset[bytes] = frozenset()) -> list[Found]:
    """Compare the current folder, an overlay's upper one, with the tree below it.

    Folders that are there only because something in them changed count as modified, as in Docker;
    those where nothing changed are left out.

    Args:
        lower: Descriptor of the parents as one tree.
        ignore: Paths that count as not there while they are stubs.
    """
    stubs: set[bytes] = set()
    touched: list[bytes] = []
    found: dict[bytes, int] = {}
    pending = [b""]
    while pending:
        prefix = pending.pop()
        for name in _names(prefix or b"."):
            path = prefix + name
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                continue
            below = _status_in(lower, path)
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                if below is not None:
                    found[path] = DELETED
                continue
            if below is None and path in ignore and is_stub(path, status):
                stubs.add(path.rpartition(b"/")[0])
                continue
            if stat.S_ISDIR(status.st_mode):
                pending.append(path + b"/")
                if below is not None and stat.S_ISDIR(below.st_mode):
                    if is_opaque(path):
                        _hidden(lower, path, found)
                    if _same_folder(status, below):
                        continue
                    if _same_owner(status, below):
                        touched.append(path)
            found[path] = ADDED if below is None else MODIFIED
    for path in touched:
        # Only its time differs, and only because of a stub.
        if path in stubs and not any(other.startswith(path + b"/") for other in found):
            del found[path]
    for path in list(found):
        parts = path.split(b"/")
        for count in range(1, len(parts)):
            found.setdefault(b"/".join(parts[:count]), MODIFIED)
    return [
        ("/" + os.fsdecode(path), kind) for path, kind in sorted(found.items(), key=lambda f: f[0])
    ]


def _names(folder: bytes) -> list[bytes]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _status_in(lower: int, path: bytes) -> os.stat_result | None:
    parent, _, base = path.rpartition(b"/")
    try:
        fd = open_in_root(lower, parent, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        return os.stat(base, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return None
    finally:
        os.close(fd)


def _same_owner(ours: os.stat_result, theirs: os.stat_result) -> bool:
    return (ours.st_mode, ours.st_uid, ours.st_gid) == (
        theirs.st_mode,
        theirs.st_uid,
        theirs.st_gid,
    )


def _same_folder(ours: os.stat_result, theirs: os.stat_result) -> bool:
    return _same_owner(ours, theirs) and ours.st_mtime_ns == theirs.st_mtime_ns


def _hidden(lower: int, path: bytes, found: dict[bytes, int]) -> None:
    """What a lower folder has and an opaque one that replaced it has not."""
    fd = open_in_root(lower, path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        names = os.listdir(fd)
    finally:
        os.close(fd)
    ours = set(_names(path))
    for text in names:
        name = os.fsencode(text)
        if name not in ours:
            found[path + b"/" + name] = DELETED
