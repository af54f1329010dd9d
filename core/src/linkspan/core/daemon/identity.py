"""Who this daemon is, and that it is alone on its folders."""

import fcntl
import os
import secrets
from importlib import metadata
from pathlib import Path
from typing import Self

from linkspan.sdk.errors import Conflict, OutOfSpace, PermissionDenied
from linkspan.sdk.files import replace_file
from linkspan.sdk.values import frozen


@frozen(kw_only=True)
class Identity:
    """A data root that is ours for as long as this process lives.

    Attributes:
        id: Stable over restarts: made once for a data root.
        lock_fd: Held open; the kernel frees the lock when we die.
    """

    id: str
    version: str
    lock_fd: int

    @classmethod
    def claim(cls, data_root: Path, exec_root: Path) -> Self:
        """Make the folders and lock them.

        Raises:
            Conflict: code ``daemon_running``: another daemon has them.
            PermissionDenied: They may not be written.
            OutOfSpace: The disk is full.
        """
        try:
            for folder in (data_root, exec_root):
                folder.mkdir(mode=0o711, parents=True, exist_ok=True)
            lock_fd = os.open(data_root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except PermissionError as error:
            raise PermissionDenied(
                f"cannot write {error.filename}: permission denied", help="run the daemon as root"
            ) from error
        except OSError as error:
            raise OutOfSpace(f"cannot make {error.filename}: {error.strerror}") from error
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock_fd)
            raise Conflict(
                f"another daemon uses {data_root}",
                code="daemon_running",
                help="linkspan daemon status, or give this one its own --data-root and --exec-root",
            ) from error
        return cls(
            id=_stable_id(data_root / "id"),
            version=metadata.version("linkspan-core"),
            lock_fd=lock_fd,
        )


def _stable_id(path: Path) -> str:
    try:
        return path.read_text().strip() or _make_id(path)
    except FileNotFoundError:
        return _make_id(path)


def _make_id(path: Path) -> str:
    made = secrets.token_hex(16)
    try:
        replace_file(path, f"{made}\n".encode(), 0o644)
    except OSError as error:
        raise OutOfSpace(f"cannot write {path}: {error.strerror}") from error
    return made
