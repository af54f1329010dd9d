"""System calls on mounts, namespaces and paths that Python 3.11 lacks, by ctypes. All of them block.

A child process may import it: it brings little of the standard library, and nothing else of ours.
"""

import ctypes
import errno
import os
import struct
from typing import Any, Final

CLONE_NEWNS: Final = 0x20000
CLONE_NEWNET: Final = 0x40000000

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REMOUNT: Final = 32
MS_BIND: Final = 4096
MS_REC: Final = 1 << 14
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19
MNT_DETACH: Final = 2

NSFS_MAGIC: Final = 0x6E736673
TMPFS_MAGIC: Final = 0x01021994
RAMFS_MAGIC: Final = 0x858458F6
CGROUP2_MAGIC: Final = 0x63677270

_UMOUNT_NOFOLLOW: Final = 8
_OPENAT2: Final = 437  # the same number on every architecture
_RESOLVE_NO_MAGICLINKS: Final = 0x02
_RESOLVE_BENEATH: Final = 0x08
_RESOLVE_IN_ROOT: Final = 0x10
_RENAMED_MEANWHILE: Final = 100
"""So often is a path tried again in which something is being renamed."""

libc: Final = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def checked(result: Any, what: str | os.PathLike[str]) -> int:
    """What a call of ``libc`` has returned.

    Args:
        what: The path that the error names, or the call's name.

    Raises:
        OSError: It was below 0; with ``errno``.
    """
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fspath(what))
    return int(result)


def mount(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    file_system: str = "",
    flags: int = 0,
    options: str = "",
) -> None:
    """mount(2).

    Args:
        file_system: Its type; empty for a bind, a remount and a change of propagation.
        flags: Of ``MS_*``.
        options: Those of the file system; they must fit into a page.

    Raises:
        OSError: It names ``target``.
    """
    result = libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        os.fsencode(file_system) or None,
        ctypes.c_ulong(flags),
        os.fsencode(options) or None,
    )
    checked(result, target)


def unmount(target: str | os.PathLike[str], flags: int = 0) -> None:
    """umount2(2) of the topmost mount there; a link is not followed.

    Args:
        flags: ``MNT_DETACH``: also while it is in use.

    Raises:
        OSError: EINVAL if nothing is mounted there; EBUSY if it is in use.
    """
    checked(libc.umount2(os.fsencode(target), flags | _UMOUNT_NOFOLLOW), target)


def setns(descriptor: int, kind: int) -> None:
    """Put the calling thread into the namespace of an open file (setns(2)).

    Args:
        kind: Of ``CLONE_*``.

    Raises:
        OSError: EINVAL if it is of another kind.
    """
    checked(libc.setns(descriptor, kind), "setns")


def unshare(kinds: int) -> None:
    """Put the calling thread into new namespaces (unshare(2)).

    Args:
        kinds: Of ``CLONE_*``.

    Raises:
        OSError: EPERM without the right to.
    """
    checked(libc.unshare(kinds), "unshare")


def open_in_root(root: int, path: str | bytes, flags: int) -> int:
    """Open a path as if ``root``, a folder's descriptor, were the root of the file system.

    Absolute links and ``..`` stay inside (openat2(2), RESOLVE_IN_ROOT).

    Returns:
        A descriptor, closed at exec.

    Raises:
        OSError: As open(2); ENOSYS before Linux 5.6.
    """
    return _open(root, path, flags, _RESOLVE_IN_ROOT)


def open_beneath(folder: int, path: str | bytes, flags: int) -> int:
    """Open a path below ``folder``, a folder's descriptor (openat2(2), RESOLVE_BENEATH).

    Returns:
        A descriptor, closed at exec.

    Raises:
        OSError: As open(2); EXDEV if a link or ``..`` leads out; ENOSYS before Linux 5.6.
    """
    return _open(folder, path, flags, _RESOLVE_BENEATH)


def _open(folder: int, path: str | bytes, flags: int, resolve: int) -> int:
    # struct open_how: flags, mode, resolve
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, resolve | _RESOLVE_NO_MAGICLINKS)
    fd = -1
    for _ in range(_RENAMED_MEANWHILE):
        fd = libc.syscall(
            ctypes.c_long(_OPENAT2),
            ctypes.c_long(folder),
            ctypes.c_char_p(os.fsencode(path) or b"."),
            how,
            ctypes.c_size_t(len(how)),
        )
        # EAGAIN: something was renamed meanwhile and the kernel could not prove that ".." is safe.
        if fd >= 0 or ctypes.get_errno() != errno.EAGAIN:
            break
    return checked(fd, os.fsdecode(path))


def file_system_type(path: str | os.PathLike[str]) -> int:
    """``f_type`` of statfs(2), like ``TMPFS_MAGIC``; 0 if there is no such path."""
    buffer = (ctypes.c_long * 32)()
    if libc.statfs(os.fsencode(path), ctypes.byref(buffer)) < 0:
        return 0
    return buffer[0]
