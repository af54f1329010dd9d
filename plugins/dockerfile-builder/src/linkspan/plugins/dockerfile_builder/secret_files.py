"""Where secrets lie while a RUN step may read them: a tmpfs of the step's own, never the disk."""

import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from linkspan.sdk import syscalls

if TYPE_CHECKING:
    from linkspan.plugins.dockerfile_builder.mount_option import RunMount

_FLAGS: Final = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC


@contextlib.asynccontextmanager
async def secret_files(
    folder: Path, secrets: "Sequence[tuple[RunMount, bytes]]"
) -> AsyncIterator[list[Path]]:
    """One file for each secret, in order; gone afterwards.

    Args:
        folder: Where the tmpfs is mounted; made and removed.
    """
    try:
        paths = await trio.to_thread.run_sync(mount_secrets, folder, secrets)
        yield paths
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(remove_secrets, folder)


def mount_secrets(folder: Path, secrets: "Sequence[tuple[RunMount, bytes]]") -> list[Path]:
    """A tmpfs with one file for each secret. Blocking."""
    folder.mkdir(mode=0o700, parents=True)
    syscalls.mount("tmpfs", folder, "tmpfs", _FLAGS, "mode=0700")
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
    with contextlib.suppress(OSError):
        syscalls.unmount(folder, syscalls.MNT_DETACH)
    with contextlib.suppress(OSError):
        folder.rmdir()
