"""Where secrets lie while a RUN step may read them: a tmpfs of the step's own, never the disk."""

import contextlib
import ctypes
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from linkspan.plugins.dockerfile_builder.mount_option import RunMount

_libc: Final = ctypes.CDLL(None, use_errno=True)
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_MNT_DETACH = 2


@contextlib.asynccontextmanager
async def secret_files(
    folder: Path, secrets: "Sequence[tuple[RunMount, bytes]]"
) -> AsyncIterator[list[Path]]:
    """One file for each secret, in order; gone afterwards.

    Args:
        folder: Where the tmpfs is mounted; made and removed.
    """
    try:
        paths = await trio.to_thread.run_sync(_mount, folder, secrets)
        yield paths
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(remove_secrets, folder)


def _mount(folder: Path, secrets: "Sequence[tuple[RunMount, bytes]]") -> list[Path]:
    folder.mkdir(mode=0o700, parents=True)
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    if _libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, b"mode=0700"):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(folder))
    paths = []
    for number, (mount, data) in enumerate(secrets):
        path = folder / str(number)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            os.fchown(fd, mount.uid, mount.gid)
            os.fchmod(fd, 0o400 if mount.mode is None else mount.mode)
        paths.append(path)
    return paths


def remove_secrets(folder: Path) -> None:
    """Unmount and remove it, also what a crash left; silent if it is not there. Blocking."""
    _libc.umount2(os.fsencode(folder), _MNT_DETACH)
    with contextlib.suppress(FileNotFoundError, OSError):
        folder.rmdir()
