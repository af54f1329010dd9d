"""Purging tracked connections, in one message each (ctnetlink, kernel 5.8 or newer)."""

import errno
import os
import socket
import struct

from linkspan.plugins.bridge_network.ipam import Address
from linkspan.plugins.bridge_network.nfnetlink import NetfilterSocket, attribute

_CT_DELETE = 1 << 8 | 2
_NESTED = 0x8000
_TUPLE_ORIGINAL, _TUPLE_REPLY, _FILTER = 1, 2, 25
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_ADDRESS_SOURCE = {4: 1, 6: 3}
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_PROTO_NUMBER, _PROTO_DESTINATION = 1, 3
_ADDRESS_TARGET = {4: 2, 6: 4}
_NUMBERS = {
    "tcp": socket.IPPROTO_TCP,
    "udp": socket.IPPROTO_UDP,
    "sctp": socket.IPPROTO_SCTP,
}
_MATCH_ADDRESS_SOURCE = 1 << 0
_MATCH_ADDRESS_TARGET = 1 << 1
_MATCH_PROTO = 1 << 3
_MATCH_PORT_DESTINATION = 1 << 5


class Conntrack:
    """Purges through a netfilter socket."""

    def __init__(self, netfilter: NetfilterSocket) -> None:
        self._netfilter = netfilter

    def purge_replies_from(self, address: Address) -> None:
        """Forget all connections that lead to a container.

        Without it a later container with the same address gets packets of its predecessor.
        """
        source = attribute(_ADDRESS_SOURCE[address.version], address.packed)
        reply = _nest(_TUPLE_REPLY, _nest(_TUPLE_IP, source))
        self._delete(
            _FAMILY[address.version], reply + _filter(original=0, reply=_MATCH_ADDRESS_SOURCE)
        )

    def purge_port(self, protocol: str, address: Address, port: int) -> None:
        """Forget all connections to a port at one address of the host.

        Without it a client that came before the port was published stays with the host.
        """
        target = attribute(_ADDRESS_TARGET[address.version], address.packed)
        numbers = attribute(_PROTO_NUMBER, bytes([_NUMBERS[protocol]]))
        numbers += attribute(_PROTO_DESTINATION, struct.pack("!H", port))
        original = _nest(_TUPLE_ORIGINAL, _nest(_TUPLE_IP, target) + _nest(_TUPLE_PROTO, numbers))
        matched = _MATCH_ADDRESS_TARGET | _MATCH_PROTO | _MATCH_PORT_DESTINATION
        self._delete(_FAMILY[address.version], original + _filter(original=matched, reply=0))

    def _delete(self, family: int, attributes: bytes) -> None:
        """Raises OSError: a kernel before 5.8, or without connection tracking by netlink."""
        number = self._netfilter.order(_CT_DELETE, family, attributes)
        if number not in (0, errno.ENOENT):
            raise OSError(number, os.strerror(number))


def _nest(kind: int, data: bytes) -> bytes:
    return attribute(kind | _NESTED, data)


def _filter(*, original: int, reply: int) -> bytes:
    flags = attribute(1, struct.pack("=I", original)) + attribute(2, struct.pack("=I", reply))
    return _nest(_FILTER, flags)
