"""System calls that only this driver makes, by ctypes. All of them block."""

import ctypes
import os
from pathlib import Path
from typing import Final

from linkspan.sdk.syscalls import checked, libc

_SYS_FSOPEN: Final = 430
_SYS_FSCONFIG: Final = 431
_SYS_FSMOUNT: Final = 432
_SYS_MOVE_MOUNT: Final = 429

_FSCONFIG_SET_FLAG: Final = 0
_FSCONFIG_SET_STRING: Final = 1
_FSCONFIG_CMD_CREATE: Final = 6
_MOUNT_ATTR_RDONLY: Final = 1
_MOVE_MOUNT_F_EMPTY_PATH: Final = 4

_PR_SET_PDEATHSIG: Final = 1


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
    return checked(libc.syscall(ctypes.c_long(number), *passed), what)


def sync_file_system(folder: Path) -> None:
    """syncfs(2) of the file system that holds a folder. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        checked(libc.syncfs(fd), str(folder))
    finally:
        os.close(fd)


def die_with_parent(signal_number: int) -> None:
    """Ask for a signal when the thread that made this process ends (prctl PR_SET_PDEATHSIG)."""
    checked(libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal_number), 0, 0, 0), "prctl")
