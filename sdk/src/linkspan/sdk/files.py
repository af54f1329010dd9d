"""Files written and read whole, with as few system calls as can be. All of it blocks.

Each system call of a worker thread gives Python's lock away, and has to wait for it again: ``open`` and
``Path.write_text`` make seven of them, ``write_file`` makes three.
"""

import contextlib
import errno
import itertools
import os
from pathlib import Path
from typing import Final

DRAFT_SUFFIX: Final = ".tmp"
"""Of hidden files beside those that are being replaced; a crash may leave one. Who lists a folder skips them."""
_numbers: Final = itertools.count()


def read_kernel_file(path: str | Path) -> bytes:
    """All of a file of proc, sysfs or a control group, which tells no size.

    Raises:
        OSError: There is none, or what it tells of has gone.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def write_file(path: str | Path, data: bytes, mode: int = 0o666) -> None:
    """Make a file, or replace what one has.

    Args:
        mode: Of a new file, less the umask.

    Raises:
        OSError: It names the file, also when it comes from the writing and not from the opening.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            _write(fd, data)
        finally:
            os.close(fd)
    except OSError as error:
        error.filename = str(path)
        raise


def replace_file(
    path: str | Path,
    data: bytes,
    mode: int = 0o600,
    *,
    owner: tuple[int, int] | None = None,
    durable: bool = False,
) -> None:
    """Make a file, or put another in its place: whoever reads sees the old one or the new one, whole.

    Several threads and processes may do so at once; the last one stays. A link is replaced, not followed.

    Args:
        mode: Exactly, whatever the umask is.
        owner: uid and gid; by default the process's.
        durable: On return it is on the disk, as the name in the folder is.

    Raises:
        OSError: It names the file; what was there stays.
    """
    draft = None
    try:
        fd, draft = _open_draft(Path(path), mode)
        try:
            _write(fd, data)
            if owner is not None:
                os.fchown(fd, *owner)
            if (
                owner is not None or mode & 0o077
            ):  # what a umask takes away, or a change of the owner
                os.fchmod(fd, mode)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        draft.rename(path)
        if durable:
            sync(Path(path).parent)
    except BaseException as error:
        if draft is not None:
            with contextlib.suppress(OSError):
                draft.unlink()
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None
        raise


def sync(path: str | Path) -> None:
    """Write a file's content, or a folder's names, to the disk (fsync(2)). Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def is_full(error: OSError) -> bool:
    """Whether the disk, or what a user may have of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _open_draft(path: Path, mode: int) -> tuple[int, Path]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        draft = path.with_name(f".{path.name}.{os.getpid()}-{next(_numbers)}{DRAFT_SUFFIX}")
        with contextlib.suppress(FileExistsError):  # left by a process of the same number
            return os.open(draft, flags, mode), draft


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
