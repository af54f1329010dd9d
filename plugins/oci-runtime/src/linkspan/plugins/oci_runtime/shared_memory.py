"""Lends the ``/dev/shm`` of one container to another that joins its IPC namespace.

A mount cannot be bound out of another mount namespace, but a copy of it can be carried out: open_tree(2) in
there, move_mount(2) here. That takes a process that may enter the namespace, hence one without threads: this
module runs as a program of its own, ``python -I -S shared_memory.py PID TARGET``, with nothing but the
standard library.
"""

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

_OPEN_TREE: Final = 428
_MOVE_MOUNT: Final = 429
_OPEN_TREE_CLONE: Final = 1
_MOVE_MOUNT_F_EMPTY_PATH: Final = 4
_AT_FDCWD: Final = -100
_CLONE_NEWNS: Final = 0x20000
_SHM: Final = b"/dev/shm"


def lend(pid: int, target: Path, prefix: tuple[str, ...] = ()) -> None:
    """Mount the ``/dev/shm`` of the container with this init on a folder; blocking, some 15 ms.

    Raises:
        OSError: It cannot be done; the text is the program's.
    """
    argv = [*prefix, sys.executable, "-I", "-S", __file__, str(pid), str(target)]
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    if result.returncode:
        last = result.stderr.strip().rpartition("\n")[2]
        raise OSError(f"cannot share /dev/shm: {last}")


def _main(pid: int, target: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def check(result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result

    here = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    there = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
    check(libc.setns(there, _CLONE_NEWNS))
    tree = check(libc.syscall(_OPEN_TREE, _AT_FDCWD, _SHM, _OPEN_TREE_CLONE))
    check(libc.setns(here, _CLONE_NEWNS))
    check(
        libc.syscall(
            _MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH
        )
    )


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2])
