"""System calls on namespaces and mounts that Python 3.11 does not have (``os.setns`` came with 3.12)."""

import ctypes
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

CLONE_NEWNET = 0x40000000
_MS_BIND = 4096
_MNT_DETACH = 2
_NS_GET_NSTYPE = 0xB703
THREAD_NAMESPACE = "/proc/thread-self/ns/net"
"""``/proc/self/ns/net`` would be the main thread's."""

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def unshare_network() -> None:
    """Put the calling thread into a new network namespace."""
    _check(_libc.unshare(CLONE_NEWNET), "unshare")


def enter_network(descriptor: int) -> None:
    """Put the calling thread into the network namespace of an open file."""
    _check(_libc.setns(descriptor, CLONE_NEWNET), "setns")


def bind_mount(source: str, target: str) -> None:
    """Mount a file onto a file."""
    result = _libc.mount(source.encode(), target.encode(), None, ctypes.c_ulong(_MS_BIND), None)
    _check(result, target)


def unmount(target: str) -> None:
    """Take the topmost mount of ``target`` away, also while it is in use."""
    _check(_libc.umount2(target.encode(), _MNT_DETACH), target)


def open_thread_namespace() -> int:
    """Open the network namespace of the calling thread."""
    return os.open(THREAD_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def opened(path: str) -> Iterator[int]:
    """Open a file for reading, for a while."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def opened_folder(path: os.PathLike[str]) -> Iterator[int]:
    """Open a folder as a mere place, for a while."""
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_network_namespace(path: str) -> bool:
    """Whether the file is a network namespace (ioctl_ns(2))."""
    try:
        with opened(path) as descriptor:
            return fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == CLONE_NEWNET
    except OSError:
        return False
