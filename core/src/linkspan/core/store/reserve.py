"""Space set aside, so that a full disk can still be tidied up."""

import os
from pathlib import Path

SIZE_BYTES = 4 << 20


class Reserve:
    """A file that is only there to be removed when nothing else can be written.

    All methods block for a moment: call them from a worker thread.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def fill(self) -> None:
        """Set the space aside unless it is; not if that would take the last of it."""
        if self._path.exists():
            return
        disk = os.statvfs(self._path.parent)
        if disk.f_bavail * disk.f_frsize < 4 * SIZE_BYTES:
            return
        try:
            with self._path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, SIZE_BYTES)
        except OSError:
            self._path.unlink(missing_ok=True)

    def release(self) -> bool:
        """Give the space back; False if there is none."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        return True
