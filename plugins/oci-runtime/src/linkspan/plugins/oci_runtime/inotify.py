"""Waits for changes of the files in a folder (inotify(7))."""

import ctypes
import os
from pathlib import Path
from typing import Final

import trio

_IN_MODIFY: Final = 0x2
_IN_MOVED_TO: Final = 0x80
_IN_CREATE: Final = 0x100

_libc: Final = ctypes.CDLL(None, use_errno=True)


class FolderWatch:
    """Tells when a file in a folder was written to, made, or renamed into it."""

    def __init__(self, folder: Path) -> None:
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        mask = _IN_MODIFY | _IN_MOVED_TO | _IN_CREATE
        if _libc.inotify_add_watch(self._fd, os.fsencode(folder), mask) < 0:
            number = ctypes.get_errno()
            os.close(self._fd)
            raise OSError(number, os.strerror(number), str(folder))

    async def changed(self) -> None:
        """Return when something changed since the last call."""
        await trio.lowlevel.wait_readable(self._fd)
        os.read(self._fd, 1 << 16)  # all that waits; names do not matter

    def close(self) -> None:
        """End watching."""
        os.close(self._fd)
