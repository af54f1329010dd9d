"""Walking folders of any depth. Everything here blocks."""

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

_LONG_PATH: Final = 2048


def remove_tree(root: bytes | str | Path) -> None:
    """Remove a folder and all in it, never following a link, however deep it is.

    Folders far down are first moved up, so that neither Python's stack nor the length of paths is a
    limit (``shutil.rmtree`` fails at 1500 levels).

    Raises:
        OSError: Except that something is gone already.
    """
    top = os.fsencode(root)
    moved = 0
    pending = [top]
    while pending:
        folder = pending[-1]
        try:
            entries = list(os.scandir(folder))
        except FileNotFoundError:
            pending.pop()
            continue
        folders = []
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry.path)
        if not folders:
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(folder)
            pending.pop()
        elif len(folder) < _LONG_PATH:
            pending.extend(folders)
        else:
            for path in folders:
                moved += 1
                target = top + b"/.linkspan-moved-%d-%s" % (moved, os.urandom(4).hex().encode())
                os.rename(path, target)
                pending.insert(1, target)


def is_stub(path: bytes, status: os.stat_result) -> bool:
    """Whether there is what is made in every root: an empty file or folder to mount on, ``/etc/mtab``."""
    if stat.S_ISDIR(status.st_mode):
        with os.scandir(path) as entries:
            return next(entries, None) is None
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(path) == b"/proc/mounts"
    return stat.S_ISREG(status.st_mode) and not status.st_size


def own_size(folder: bytes) -> int:
    """Bytes of the regular files below a folder; a file with several names counts once."""
    total = 0
    seen: set[int] = set()
    pending = [folder]
    while pending:
        try:
            entries = list(os.scandir(pending.pop()))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISDIR(status.st_mode):
                pending.append(entry.path)
            elif stat.S_ISREG(status.st_mode):
                if status.st_nlink > 1:
                    if status.st_ino in seen:
                        continue
                    seen.add(status.st_ino)
                total += status.st_size
    return total
