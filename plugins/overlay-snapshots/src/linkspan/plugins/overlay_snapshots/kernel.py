"""System calls that Python's standard library lacks, by ctypes. All of them block."""

import ctypes
import errno
import os
from pathlib import Path
from typing import Final

_libc: Final = ctypes.CDLL(None, use_errno=True)

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_REMOUNT: Final = 32
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8

_CLONE_NEWNS: Final = 0x20000

_SYS_OPENAT2: Final = 437
_SYS_FSOPEN: Final = 430
_SYS_FSCONFIG: Final = 431
_SYS_FSMOUNT: Final = 432
_SYS_MOVE_MOUNT: Final = 429

_FSCONFIG_SET_FLAG: Final = 0
_FSCONFIG_SET_STRING: Final = 1
_FSCONFIG_CMD_CREATE: Final = 6
_MOUNT_ATTR_RDONLY: Final = 1
_MOVE_MOUNT_F_EMPTY_PATH: Final = 4

_RESOLVE_NO_MAGICLINKS: Final = 2
_RESOLVE_IN_ROOT: Final = 16

_PR_SET_PDEATHSIG: Final = 1


class _OpenHow(ctypes.Structure):
    _fields_ = [  # type: ignore[mutable-override] # as ctypes declares it
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    ]


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def mount(source: str, target: Path, file_system: str, flags: int, options: str) -> None:
    """mount(2). Raises OSError."""
    _check(
        _libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            os.fsencode(file_system),
            ctypes.c_ulong(flags),
            os.fsencode(options),
        ),
        str(target),
    )


def unmount(target: Path, flags: int = 0) -> None:
    """umount2(2). Raises OSError; EINVAL means that nothing is mounted there."""
    _check(_libc.umount2(os.fsencode(target), flags | UMOUNT_NOFOLLOW), str(target))


def enter_mounts(namespace: int) -> None:
    """See the mounts of another process, and its root (setns(2)). Raises OSError."""
    _check(_libc.setns(namespace, _CLONE_NEWNS), "setns")


def own_mounts() -> None:
    """From now on mounts of this process are seen by nobody else, and it sees no new ones (unshare(2))."""
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    mount("none", Path("/"), "", MS_REC | MS_PRIVATE, "")


def mount_by_steps(
    file_system: str,
    target: Path,
    *,
    strings: list[tuple[str, str]],
    flags: list[str],
    read_only: bool,
) -> None:
    """Mount through fsopen(2), where options have no common limit of a page.

    Raises:
        OSError: ENOSYS before Linux 5.2.
    """
    context = _syscall(_SYS_FSOPEN, file_system, ctypes.c_char_p(file_system.encode()), 1)
    try:
        for key, value in strings:
            _configure(context, _FSCONFIG_SET_STRING, key, value)
        for key in flags:
            _configure(context, _FSCONFIG_SET_FLAG, key, None)
        _configure(context, _FSCONFIG_CMD_CREATE, None, None)
        attributes = _MOUNT_ATTR_RDONLY if read_only else 0
        tree = _syscall(_SYS_FSMOUNT, str(target), context, 1, attributes)
        try:
            _syscall(
                _SYS_MOVE_MOUNT,
                str(target),
                tree,
                ctypes.c_char_p(b""),
                -100,
                ctypes.c_char_p(os.fsencode(target)),
                _MOVE_MOUNT_F_EMPTY_PATH,
            )
        finally:
            os.close(tree)
    finally:
        os.close(context)


def _configure(context: int, command: int, key: str | None, value: str | None) -> None:
    _syscall(
        _SYS_FSCONFIG,
        f"{key}={value}",
        context,
        command,
        ctypes.c_char_p(key.encode() if key is not None else None),
        ctypes.c_char_p(os.fsencode(value) if value is not None else None),
        0,
    )


def _syscall(number: int, what: str, *arguments: "int | ctypes.c_char_p") -> int:
    # Integers go as long: the default of int would leave the upper half of a register undefined.
    passed = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    _libc.syscall.restype = ctypes.c_long
    return _check(int(_libc.syscall(ctypes.c_long(number), *passed)), what)


def open_in_root(root: int, path: bytes, flags: int) -> int:
    """Open a path as if ``root`` (a folder's descriptor) were the root of the file system.

    Absolute symlinks and ``..`` stay inside (openat2(2) RESOLVE_IN_ROOT).

    Raises:
        OSError: What opening raises.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    _libc.syscall.restype = ctypes.c_long
    for _ in range(100):
        fd = _libc.syscall(
            ctypes.c_long(_SYS_OPENAT2),
            ctypes.c_long(root),
            ctypes.c_char_p(path or b"."),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if fd >= 0:
            return int(fd)
        # EAGAIN: something was renamed meanwhile and the kernel could not prove that ".." is safe.
        if ctypes.get_errno() != errno.EAGAIN:
            break
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), os.fsdecode(path))


def sync_file_system(folder: Path) -> None:
    """syncfs(2) of the file system that holds a folder. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _check(_libc.syncfs(fd), str(folder))
    finally:
        os.close(fd)


def die_with_parent(signal_number: int) -> None:
    """Ask for a signal when the thread that made this process ends (prctl PR_SET_PDEATHSIG)."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal_number), 0, 0, 0), "prctl")
