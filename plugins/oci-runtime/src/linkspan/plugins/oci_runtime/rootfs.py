"""Changes inside a container's root folder that never leave it."""

import contextlib
import errno
import os
from pathlib import Path, PurePosixPath

from linkspan.sdk.syscalls import open_in_root


def make_folder(root: Path, path: str) -> None:
    """Make a folder with its parents inside ``root``, as Docker does for a missing working directory.

    Links are followed as inside the container. What cannot be made is left to the runtime's message.
    """
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            os.close(open_in_root(root_fd, path, os.O_PATH | os.O_DIRECTORY))
            return
        parent = "/"
        for name in PurePosixPath("/", path).parts[1:]:
            if name == "..":
                return
            _make_one(root_fd, parent, name)
            parent = f"{parent.rstrip('/')}/{name}"
    except OSError as exc:
        if exc.errno not in (errno.EROFS, errno.ENOTDIR, errno.ENOENT, errno.EACCES):
            raise
    finally:
        os.close(root_fd)


def _make_one(root_fd: int, parent: str, name: str) -> None:
    folder = open_in_root(root_fd, parent, os.O_PATH | os.O_DIRECTORY)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=folder)
    finally:
        os.close(folder)
