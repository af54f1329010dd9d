"""What a RUN step's mounts leave in its root: empty mount points, made for the step alone."""

import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

import attrs

from linkspan.plugins.dockerfile_builder.target import Target
from linkspan.plugins.dockerfile_builder.tree import Parts

# The runtime mounts these for every step.
ALWAYS = ("/proc", "/dev", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf")


@attrs.frozen
class _Missing:
    """A mount point that is not there yet: the components, how many of them exist, the folder's times."""

    parts: Parts
    there: int
    mtime_ns: int


def watch_mount_points(root: Path, destinations: Iterable[str]) -> Callable[[], None]:
    """Note which mount points are missing in a mounted root; the answer removes those made since.

    Only what is still empty goes: a file of no bytes, a folder without entries. The folder above gets its
    time back. Both block.
    """
    target = Target(root, _nothing)
    try:
        missing = [
            found
            for path in (*ALWAYS, *destinations)
            if (found := _missing(target, path)) is not None
        ]
    finally:
        target.close()

    def clean() -> None:
        after = Target(root, _nothing)
        try:
            for entry in sorted(missing, key=lambda entry: -len(entry.parts)):
                _remove(after, entry)
        finally:
            after.close()

    return clean


def _nothing() -> None:
    """These walks are short."""


def _missing(target: Target, path: str) -> _Missing | None:
    parts = target.resolve(path)
    there = len(parts)
    while target.lstat(parts[:there]) is None:
        there -= 1
    above = target.lstat(parts[:there])
    if there == len(parts) or above is None or not stat.S_ISDIR(above.st_mode):
        return None
    return _Missing(parts, there, above.st_mtime_ns)


def _remove(target: Target, entry: _Missing) -> None:
    removed = False
    for depth in range(len(entry.parts), entry.there, -1):
        parts = entry.parts[:depth]
        try:
            # A link on the way is refused: the step may have put one there.
            with target.folder(parts[:-1]) as fd:
                info = os.stat(parts[-1], dir_fd=fd, follow_symlinks=False)
                if stat.S_ISDIR(info.st_mode):
                    os.rmdir(parts[-1], dir_fd=fd)
                elif stat.S_ISREG(info.st_mode) and info.st_size == 0:
                    os.unlink(parts[-1], dir_fd=fd)
                else:
                    break
                removed = True
        except FileNotFoundError:
            continue
        except OSError:
            break
    if removed:
        try:
            with target.folder(entry.parts[: entry.there]) as fd:
                os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        except OSError:
            return
