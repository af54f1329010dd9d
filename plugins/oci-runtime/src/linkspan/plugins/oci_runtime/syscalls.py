"""System calls that Python's standard library lacks."""

import ctypes
import os
import struct
from pathlib import Path
from typing import Final

CLONE_NEWNS: Final = 0x20000
MS_RDONLY: Final = 1
MS_REMOUNT: Final = 32
MS_BIND: Final = 4096
MS_REC: Final = 1 << 14
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19
MNT_DETACH: Final = 2

NSFS_MAGIC: Final = 0x6E736673
TMPFS_MAGIC: Final = 0x01021994
CGROUP2_MAGIC: Final = 0x63677270

_OPENAT2: Final = 437  # the same number on every architecture
_RESOLVE_IN_ROOT: Final = 0x10
_RESOLVE_NO_MAGICLINKS: Final = 0x02

_libc: Final = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str, path: object = None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}", None if path is None else str(path))
    return result


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """setns(2)."""
    _check(_libc.setns(fd, kind), "setns")


def mount(source: str, target: str, fstype: str, flags: int, data: str = "") -> None:
    """mount(2)."""
    _check(
        _libc.mount(
            source.encode(),
            target.encode(),
            fstype.encode() or None,
            ctypes.c_ulong(flags),
            data.encode() or None,
        ),
        "mount",
        target,
    )


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc.umount2(target.encode(), flags), "umount", target)


def file_system_type(path: str | Path) -> int:
    """``f_type`` of statfs(2); 0 if there is no such path."""
    buffer = (ctypes.c_long * 32)()
    if _libc.statfs(os.fsencode(path), ctypes.byref(buffer)) < 0:
        return 0
    return buffer[0]


def open_in_root(root: int, path: str, flags: int) -> int:
    """openat2(2) with RESOLVE_IN_ROOT: no link and no ``..`` leads out of ``root``.

    Raises:
        OSError: As open(2); ENOSYS before Linux 5.6.
    """
    # struct open_how: flags, mode, resolve
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    return _check(
        _libc.syscall(
            _OPENAT2,
            root,
            os.fsencode(path),
            how,
            ctypes.c_size_t(len(how)),
        ),
        "open",
        path,
    )
