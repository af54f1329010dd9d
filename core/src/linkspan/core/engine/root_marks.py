"""What programs expect in the root of a container, and find in Docker's."""

import os
from contextlib import suppress
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def mark_root(root: Path) -> None:
    """Leave ``/.dockerenv``, by which programs see that they are in a container, and ``/etc/mtab``.

    What the image has there stays, and none of its links is followed. Blocks.
    """
    # A root that takes no more files is told of by whoever needs them.
    with suppress(OSError):
        folder = os.open(root, _FOLDER)
        try:
            _mark(folder)
        finally:
            os.close(folder)


def _mark(root: int) -> None:
    with suppress(FileExistsError):
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        os.close(os.open(".dockerenv", flags, 0o755, dir_fd=root))
    etc = os.open("etc", _FOLDER, dir_fd=root)
    try:
        with suppress(FileExistsError):
            os.symlink("/proc/mounts", "mtab", dir_fd=etc)
    finally:
        os.close(etc)
