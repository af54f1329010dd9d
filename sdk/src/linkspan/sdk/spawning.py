"""posix_spawn(3), without holding up the daemon's other threads.

``subprocess`` keeps the interpreter's lock until the child has loaded its program. Where the processors are busy
that is a while, and the event loop stands still meanwhile. A foreign call lets go of the lock.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

_libc: Final = ctypes.CDLL(None)
_filling: Final = ctypes.PyDLL(None)
"""The same for calls that only fill in a struct: to let go of the lock costs more than they do."""
_ours: Final = ctypes.c_void_p.in_dll(_libc, "environ")
_SETSIGDEF: Final = 0x04
_SETSID: Final = 0x80
# Larger than any libc's posix_spawn_file_actions_t and posix_spawnattr_t.
_STRUCT_BYTES: Final = 1024
_SIGSET_BYTES: Final = 128
_SIGNALS: Final = frozenset(range(1, 65)) - {signal.SIGKILL, signal.SIGSTOP}


def spawn(
    argv: Sequence[str],
    *,
    descriptors: Sequence[int],
    environment: Mapping[str, str] | None = None,
    cwd: str = "",
    new_session: bool = True,
) -> int:
    """Start a program; return its pid, which the caller has to wait for. Blocks until it is loaded.

    Args:
        argv: The first word is the program, looked for in the environment's PATH.
        descriptors: What are its 0, 1, 2 and so on. It gets no others.
        environment: All of it; None: as ours.
        cwd: Its working directory; empty: as ours.
        new_session: It is the first of a session of its own, without a terminal.

    Raises:
        OSError: It cannot be started.
    """
    program = argv[0] if environment is None else _found(argv[0], environment.get("PATH"))
    pid = ctypes.c_int()
    with _out_of_the_way(descriptors) as sources, _actions(sources, cwd) as actions:
        # It looks for a program in our own PATH, and for one with a slash nowhere.
        code = _libc.posix_spawnp(
            ctypes.byref(pid),
            os.fsencode(program),
            actions,
            _attributes(new_session),
            _words(argv),
            _ours if environment is None else _words([f"{k}={v}" for k, v in environment.items()]),
        )
    _check(code, argv[0])
    return pid.value


def _found(program: str, path: str | None) -> str:
    found = program if "/" in program else shutil.which(program, path=path)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), program)
    return found


def _check(code: int, what: str) -> None:
    if code:
        raise OSError(code, os.strerror(code), what)


def _words(words: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(words) + 1))(*map(os.fsencode, words), None)


@contextlib.contextmanager
def _out_of_the_way(descriptors: Sequence[int]) -> Iterator[list[int]]:
    """The descriptors, each with a number that none of them gets in the child."""
    count = len(descriptors)
    copies = {
        fd: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, count) for fd in set(descriptors) if fd < count
    }
    try:
        yield [copies.get(fd, fd) for fd in descriptors]
    finally:
        for copy in copies.values():
            os.close(copy)


@contextlib.contextmanager
def _actions(sources: Sequence[int], cwd: str) -> Iterator[ctypes.Array[ctypes.c_char]]:
    made = ctypes.create_string_buffer(_STRUCT_BYTES)
    _check(_filling.posix_spawn_file_actions_init(made), "posix_spawn")
    try:
        for number, source in enumerate(sources):
            _check(_filling.posix_spawn_file_actions_adddup2(made, source, number), "posix_spawn")
        _close_others(made, len(sources))
        if cwd:
            code = _filling.posix_spawn_file_actions_addchdir_np(made, os.fsencode(cwd))
            _check(code, "posix_spawn")
        yield made
    finally:
        _filling.posix_spawn_file_actions_destroy(made)


def _close_others(actions: ctypes.Array[ctypes.c_char], first: int) -> None:
    """Python's own close themselves; those of libraries, and of who started the daemon, may not."""
    try:
        close_from = _filling.posix_spawn_file_actions_addclosefrom_np
    except AttributeError:  # not in every libc
        for number in (int(entry.name) for entry in Path("/proc/self/fd").iterdir()):
            if number >= first:
                code = _filling.posix_spawn_file_actions_addclose(actions, number)
                _check(code, "posix_spawn")
    else:
        _check(close_from(actions, first), "posix_spawn")


@cache
def _attributes(new_session: bool) -> ctypes.Array[ctypes.c_char]:
    made = ctypes.create_string_buffer(_STRUCT_BYTES)
    # All: Python ignores some, and glibc would leave two of its own ignored, which sigaddset(3) refuses to name.
    bits = 8 * ctypes.sizeof(ctypes.c_ulong)
    signals = (ctypes.c_ulong * (_SIGSET_BYTES // ctypes.sizeof(ctypes.c_ulong)))()
    for number in _SIGNALS:
        signals[(number - 1) // bits] |= 1 << (number - 1) % bits
    _check(_filling.posix_spawnattr_init(made), "posix_spawn")
    _check(_filling.posix_spawnattr_setsigdefault(made, signals), "posix_spawn")
    flags = _SETSIGDEF | (_SETSID if new_session else 0)
    _check(_filling.posix_spawnattr_setflags(made, ctypes.c_short(flags)), "posix_spawn")
    return made
