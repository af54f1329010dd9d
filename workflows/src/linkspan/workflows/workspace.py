"""The sources of a run: copied once when it is made, and again for each job.

A job works in its own copy, so jobs that run side by side cannot disturb each other, and ``resume``
finds a job's files as they were. All functions block; the runner calls them in a worker thread.
"""

import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from linkspan.sdk.errors import InvalidArgument, LinkspanError, NotFound, OutOfSpace
from linkspan.sdk.files import is_full


def copy_tree(
    source: Path,
    target: Path,
    files: Iterable[str] | None = None,
    *,
    leave_out: Iterable[Path] = (),
) -> None:
    """Copy a folder that appears whole or not at all.

    Regular files, folders and symbolic links are copied (links as links, never followed); sockets,
    devices and pipes are left out.

    Args:
        source: The folder.
        target: Made; must not exist.
        files: Only these, relative to ``source``; those that do not exist are left out. None for all.
        leave_out: Folders not to enter, wherever they are: the daemon's own may be in the sources. The
            target itself is always left out.

    Raises:
        NotFound: There is no such folder.
        InvalidArgument: A path in ``files`` leads out of the folder.
        OutOfSpace: The disk is full.
    """
    if not source.is_dir():
        raise NotFound(f"there is no folder '{source}'", code="workspace_not_found")
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        if files is None:
            _copy_folder(source, partial, {_identity(partial), *map(_identity, leave_out)})
        else:
            for name in files:
                _copy_named(source, partial, name)
        # An image's user need not be root, and the workspace is its working directory.
        partial.chmod(0o777)
        partial.rename(target)
    except OSError as fault:
        shutil.rmtree(partial, ignore_errors=True)
        raise _translated(fault, source) from fault
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _copy_folder(source: Path, target: Path, leave_out: set[tuple[int, int]]) -> None:
    with os.scandir(source) as entries:
        for entry in entries:
            goal = target / entry.name
            if entry.is_dir(follow_symlinks=False):
                if _identity(Path(entry.path)) in leave_out:
                    continue
                goal.mkdir()
                _copy_folder(Path(entry.path), goal, leave_out)
                shutil.copystat(entry.path, goal, follow_symlinks=False)
            else:
                _copy_file(Path(entry.path), goal)


def _copy_named(source: Path, target: Path, name: str) -> None:
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts:
        raise InvalidArgument(f"'{name}' leads out of the workspace", code="workspace_path")
    here, there = source, target
    for part in parts[:-1]:
        here, there = here / part, there / part
        if here.is_symlink():
            # git lists a link itself; a path through one would read outside of the folder.
            raise InvalidArgument(f"'{name}' leads through a link", code="workspace_path")
        if here.is_dir() and not there.exists():
            there.mkdir()
            shutil.copystat(here, there)
    if os.path.lexists(here / parts[-1]):
        _copy_file(here / parts[-1], there / parts[-1])


def _copy_file(source: Path, target: Path) -> None:
    mode = source.lstat().st_mode
    if stat.S_ISLNK(mode) or stat.S_ISREG(mode):
        shutil.copy2(source, target, follow_symlinks=False)


def _translated(fault: OSError, source: Path) -> LinkspanError:

    if is_full(fault):
        return OutOfSpace(
            f"no space left for a copy of '{source}'", help="free some space on the data root"
        )
    return InvalidArgument(f"'{source}' cannot be copied: {fault}", code="workspace_unreadable")


def remove_tree(folder: Path) -> None:
    """Remove a folder and all in it; nothing happens if it is not there."""
    shutil.rmtree(folder, ignore_errors=True)
