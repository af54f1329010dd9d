"""Copies an image's content into a new volume, never leaving the container's root.

Paths are walked one component at a time without following links: a link is resolved by hand, against
the root, so that ``/data -> /etc`` of an image means the image's ``/etc``.
"""

import os
import shutil
import stat
from pathlib import Path

MOST_LINKS = 40


def resolve(root: Path, path: str) -> Path | None:
    """A path inside a root, links followed inside it; None if it does not exist.

    Raises:
        OSError: ELOOP for a circle of links.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    at: list[str] = []
    links = 0
    while parts:
        part = parts.pop(0)
        if part == "..":
            if at:
                at.pop()
            continue
        here = root.joinpath(*at, part)
        try:
            mode = here.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISLNK(mode):
            at.append(part)
            continue
        links += 1
        if links > MOST_LINKS:
            raise OSError(40, os.strerror(40), str(here))
        target = str(here.readlink())
        if target.startswith("/"):
            at = []
        parts = [p for p in target.split("/") if p not in ("", ".")] + parts
    return root.joinpath(*at)


def is_empty(folder: Path) -> bool:
    """Whether nothing is in it (``lost+found`` of a fresh file system does not count)."""
    with os.scandir(folder) as entries:
        return all(entry.name == "lost+found" for entry in entries)


def copy_up(source: Path, target: Path) -> bool:
    """Copy the content of a folder into an empty one, with owners, modes, times and attributes.

    Hard links inside the tree stay links. Returns whether there was a folder to copy.
    """
    if not source.is_dir():
        return False
    seen: dict[tuple[int, int], str] = {}
    # A list instead of recursion: images may nest deeper than Python does.
    folders: list[tuple[str, str]] = [(str(source), str(target))]
    done: list[tuple[str, str]] = []
    while folders:
        origin, copy = folders.pop()
        done.append((origin, copy))
        with os.scandir(origin) as entries:
            for entry in entries:
                into = f"{copy}/{entry.name}"
                info = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(info.st_mode):
                    Path(into).mkdir(mode=0o700)
                    folders.append((entry.path, into))
                else:
                    _copy_entry(entry.path, into, info, seen)
    # Children first, so that a folder's times are not touched again.
    for origin, copy in reversed(done):
        _copy_meta(origin, copy, os.lstat(origin))
    return True


def _copy_entry(
    origin: str, copy: str, info: os.stat_result, seen: dict[tuple[int, int], str]
) -> None:
    if info.st_nlink > 1:
        known = seen.setdefault((info.st_dev, info.st_ino), copy)
        if known != copy:
            os.link(known, copy, follow_symlinks=False)
            return
    if stat.S_ISLNK(info.st_mode):
        Path(copy).symlink_to(Path(origin).readlink())
    elif stat.S_ISREG(info.st_mode):
        shutil.copyfile(origin, copy, follow_symlinks=False)
    elif stat.S_ISSOCK(info.st_mode):
        return
    else:
        os.mknod(copy, info.st_mode, info.st_rdev)
    _copy_meta(origin, copy, info)


def _copy_meta(origin: str, copy: str, info: os.stat_result) -> None:
    os.chown(copy, info.st_uid, info.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(info.st_mode):
        Path(copy).chmod(stat.S_IMODE(info.st_mode))
    for name in os.listxattr(origin, follow_symlinks=False):
        # The overlay's own marks mean nothing in a volume.
        if not name.startswith("trusted.overlay."):
            os.setxattr(
                copy, name, os.getxattr(origin, name, follow_symlinks=False), follow_symlinks=False
            )
    os.utime(copy, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)
