"""Ports for the tests, which nobody else takes between their being chosen and being listened on."""

import contextlib
import errno
import random
import socket
from pathlib import Path

from left_behind import kept_descriptors

_FIRST = 15000
"""Above what services of a machine usually have."""

_held: list[socket.socket] = []


def free_port() -> int:
    """A TCP and UDP port of the host for this process alone, for as long as it lives.

    It lies outside the range from which the kernel and our daemons take ports of their own choice: one of
    these could be anybody's a moment later, be it as the source port of a connection. Other processes of
    the tests see by a socket in the abstract namespace that it is taken; it goes with the process.
    """
    outside = _outside()
    while True:
        port = random.choice(outside)
        if _claim(port) and _is_free(port):
            return port


def _outside() -> list[int]:
    """Ports that are nobody's choice."""
    text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    low, high = (int(word) for word in text.split())
    return [port for port in range(_FIRST, 65500) if not low <= port <= high]


def _claim(port: int) -> bool:
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0linkspan-tests-port-{port}")
    except OSError as error:
        claim.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    # Also a port that turns out to be taken is not asked for again.
    _held.append(claim)
    kept_descriptors.add(claim.fileno())
    return True


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                return False
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, kind) as probe:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind(("", port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return False
    return True
