"""mount(2) and umount2(2) by ctypes, and what is mounted."""

import ctypes
import os
from pathlib import Path

from linkspan.plugins.local_volumes.options import MountOrder

_LIBC = ctypes.CDLL(None, use_errno=True)
_DETACH = 2
_REMOUNT = 0x20
_READ_ONLY = 0x1


def mount(order: MountOrder, target: Path) -> None:
    """Mount. Raises OSError."""
    kind = b"" if order.type == "bind" else order.type.encode()
    _call(
        "mount",
        order.device.encode(),
        str(target).encode(),
        kind,
        order.flags,
        order.data.encode(),
        target,
    )
    if order.type == "bind" and order.flags & _READ_ONLY:
        # A bind mount takes its flags only when it is mounted again.
        _call("mount", b"", str(target).encode(), b"", order.flags | _REMOUNT, b"", target)


def _call(
    name: str, source: bytes, target: bytes, kind: bytes, flags: int, data: bytes, path: Path
) -> None:
    if _LIBC.mount(source, target, kind, ctypes.c_ulong(flags), data) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))


def unmount(target: Path) -> None:
    """Unmount, lazily; silent if nothing is mounted there."""
    _LIBC.umount2(str(target).encode(), _DETACH)


def is_mounted(target: Path) -> bool:
    """Whether the folder is a mount point."""
    wanted = os.fsencode(target).decode("unicode_escape", errors="replace")
    with Path("/proc/self/mountinfo").open() as mounts:
        return any(line.split(" ", 5)[4] == wanted for line in mounts)
