"""Descriptors of network namespaces and folders."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from linkspan.sdk.syscalls import CLONE_NEWNET

_NS_GET_NSTYPE = 0xB703
THREAD_NAMESPACE = "/proc/thread-self/ns/net"
"""``/proc/self/ns/net`` would be the main thread's."""


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
