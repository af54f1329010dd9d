"""Noticing that another program has changed rules that matter to us.

The kernel tells of each change to nftables, also those that iptables makes through it. Most are
nobody's business; what matters is our own table, where others can change it, iptables' chain FORWARD,
in which our exceptions stand, and firewalld's table, which it makes anew whenever it forgets our bridges.
"""

import logging
import socket
from collections.abc import Iterator

import trio

from linkspan.plugins.bridge_network import firewalld
from linkspan.plugins.bridge_network.nfnetlink import changes_in

log = logging.getLogger(__name__)

_NETLINK_NETFILTER = 12
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_NFTABLES_GROUP = 7
_SO_RCVBUFFORCE = 33
_BUFFER_BYTES = 4 << 20
_TABLE_OF_IPTABLES = "filter"
_SETTLED_S = 0.02
"""Others change rules in several transactions; between them is not the time to look."""


def open_watch() -> socket.socket:
    """A socket that is told of all changes in the calling thread's network namespace.

    Raises:
        OSError: The kernel has no nftables.
    """
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    try:
        opened.bind((0, 0))
        opened.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _NFTABLES_GROUP)
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        opened.setblocking(False)
    except OSError:
        opened.close()
        raise
    return opened


class RuleWatch:
    """Waits for changes.

    Args:
        opened: By ``open_watch``; ours to close.
        table: Name of our own table.
    """

    def __init__(self, opened: socket.socket, table: str) -> None:
        self._socket = opened
        self._tables = (table, _TABLE_OF_IPTABLES, firewalld.TABLE)

    def close(self) -> None:
        """Stop watching."""
        self._socket.close()

    async def changed(self) -> None:
        """Wait until something that matters has changed."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            if any([*self._news()]):
                await trio.sleep(_SETTLED_S)
                for _ in self._news():
                    pass
                return

    def _news(self) -> Iterator[bool]:
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:  # more than the buffer holds: something may have been missed
                log.debug("changes of rules were missed", extra={"reason": str(error)})
                yield True
                continue
            yield any(name in self._tables for name in changes_in(data))
