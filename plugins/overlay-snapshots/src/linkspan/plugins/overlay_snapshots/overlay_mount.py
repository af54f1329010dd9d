"""Overlay mounts. Everything here blocks and is called in worker threads."""

import contextlib
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from linkspan.plugins.overlay_snapshots import kernel
from linkspan.plugins.overlay_snapshots.trees import remove_tree
from linkspan.sdk import syscalls
from linkspan.sdk.mountinfo import mounts, unescape
from linkspan.sdk.syscalls import MNT_DETACH, MS_NODEV, MS_NOSUID, MS_RDONLY
from linkspan.sdk.values import frozen

_PAGE_BYTES: Final = 4096
_FEATURES: Final = {"index": "off", "redirect_dir": "nofollow", "metacopy": "off"}
"""Off, since upper folders are read directly: a renamed folder would be a reference, a changed mode an
empty file (kernel, Documentation/filesystems/overlayfs.rst)."""


@frozen(kw_only=True)
class MountedOverlay:
    """An overlay of this mount namespace; ``upper`` is empty if it is read-only."""

    target: Path
    upper: str
    lowers: str


def mount_overlay(
    target: Path,
    lowers: Sequence[Path],
    *,
    upper: Path | None = None,
    work: Path | None = None,
    volatile: bool = False,
) -> None:
    """Mount layers, top first, at an existing folder.

    mount(2) takes one page of options. Beyond that fsopen(2) takes each layer by itself (``lowerdir+``,
    Linux 6.8); before that the layers are named shortly through an open descriptor of their folder.

    Args:
        volatile: Never sync: for what is thrown away, or committed and synced then.

    Raises:
        OSError: From the kernel.
    """
    strings = list(_FEATURES.items())
    if upper is not None and work is not None:
        strings += [("upperdir", str(upper)), ("workdir", str(work))]
        # A volatile mount leaves a mark that forbids the next one.
        remove_tree(work / "work" / "incompat")
    flags = ["volatile"] if volatile else []
    tail = [f"{key}={value}" for key, value in strings] + flags
    options = ",".join(["lowerdir=" + ":".join(map(str, lowers)), *tail])
    mount_flags = 0 if upper is not None else MS_RDONLY | MS_NODEV | MS_NOSUID
    if len(os.fsencode(options)) < _PAGE_BYTES:
        syscalls.mount("overlay", target, "overlay", mount_flags, options)
        return
    try:
        kernel.mount_by_steps(
            "overlay",
            target,
            strings=[("lowerdir+", str(path)) for path in lowers] + strings,
            flags=flags,
            read_only=upper is None,
        )
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        _mount_by_descriptor(target, lowers, tail, mount_flags)


def _mount_by_descriptor(
    target: Path, lowers: Sequence[Path], tail: list[str], mount_flags: int
) -> None:
    common = Path(os.path.commonpath(lowers))
    fd = os.open(common, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = [f"/proc/self/fd/{fd}/{path.relative_to(common)}" for path in lowers]
        options = ",".join(["lowerdir=" + ":".join(short), *tail])
        syscalls.mount("overlay", target, "overlay", mount_flags, options)
    finally:
        os.close(fd)


def unmount(target: Path, *, lazily: bool = True) -> bool:
    """Unmount; False if nothing is mounted there.

    Raises:
        OSError: EBUSY, if not ``lazily``.
    """
    try:
        syscalls.unmount(target, MNT_DETACH if lazily else 0)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
        return False
    return True


def is_mount_point(path: Path) -> bool:
    """Whether something is mounted exactly there."""
    try:
        return path.lstat().st_dev != path.parent.stat().st_dev
    except OSError:
        return False


def mounted_overlays() -> list[MountedOverlay]:
    """Overlays of this mount namespace, in the order of mounting (proc(5) mountinfo)."""
    found = []
    for mount in mounts():
        if mount.file_system != "overlay":
            continue
        values = dict(option.partition("=")[::2] for option in mount.options)
        found.append(
            MountedOverlay(
                target=Path(mount.target),
                upper=unescape(values.get("upperdir", "")),
                lowers=unescape(values.get("lowerdir", values.get("lowerdir+", ""))),
            )
        )
    return found


def check_usable(folder: Path) -> str:
    """Try a mount with all parts in a folder; return why it does not work, or ``""``."""
    parts = {name: folder / name for name in ("lower", "upper", "work", "target")}
    for path in parts.values():
        path.mkdir(parents=True, exist_ok=True)
    try:
        mount_overlay(parts["target"], [parts["lower"]], upper=parts["upper"], work=parts["work"])
    except OSError as error:
        return f"an overlay cannot be mounted with its upper folder on {folder.parent}: {error}"
    else:
        unmount(parts["target"])
        return ""
    finally:
        with contextlib.suppress(OSError):
            remove_tree(folder)
