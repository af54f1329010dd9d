"""Purging tracked connections, in one message each (ctnetlink, kernel 5.8 or newer)."""

import errno
import os
import socket
import struct
from ipaddress import IPv4Address

_NETLINK_NETFILTER = 12
_CT_DELETE = 1 << 8 | 2
_REQUEST_ACK = 0x1 | 0x4
_NESTED = 0x8000
_TUPLE_ORIGINAL, _TUPLE_REPLY, _FILTER = 1, 2, 25
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_IPV4_SOURCE = 1
_PROTO_NUMBER, _PROTO_DESTINATION = 1, 3
_MATCH_ADDRESS_SOURCE = 1 << 0
_MATCH_PROTO = 1 << 3
_MATCH_PORT_DESTINATION = 1 << 5


class Conntrack:
    """A socket for purging, in the network namespace of the calling thread.

    It stays open: closing a netfilter socket waits until nftables has cleaned up after its last
    transaction, some ten milliseconds.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        self._socket.settimeout(2)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def purge_replies_from(self, address: IPv4Address) -> None:
        """Forget all connections that lead to a container.

        Without it a later container with the same address gets packets of its predecessor.
        """
        reply = _nest(_TUPLE_REPLY, _nest(_TUPLE_IP, _attribute(_IPV4_SOURCE, address.packed)))
        self._delete(reply + _filter(original=0, reply=_MATCH_ADDRESS_SOURCE))

    def purge_udp_port(self, port: int) -> None:
        """Forget all udp flows to a port of the host.

        Without it a client that kept sending before the port was published stays with the host.
        """
        original = _nest(
            _TUPLE_ORIGINAL,
            _nest(
                _TUPLE_PROTO,
                _attribute(_PROTO_NUMBER, bytes([socket.IPPROTO_UDP]))
                + _attribute(_PROTO_DESTINATION, struct.pack("!H", port)),
            ),
        )
        self._delete(original + _filter(original=_MATCH_PROTO | _MATCH_PORT_DESTINATION, reply=0))

    def _delete(self, attributes: bytes) -> None:
        """Raises OSError: a kernel before 5.8, or without connection tracking by netlink."""
        body = struct.pack("=BBH", socket.AF_INET, 0, 0) + attributes
        head = struct.pack("=IHHII", 16 + len(body), _CT_DELETE, _REQUEST_ACK, 1, 0)
        self._socket.send(head + body)
        number = -struct.unpack_from("=i", self._socket.recv(4096), 16)[0]
        if number not in (0, errno.ENOENT):
            raise OSError(number, os.strerror(number))


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", len(data) + 4, kind) + data + b"\0" * (-len(data) % 4)


def _nest(kind: int, data: bytes) -> bytes:
    return _attribute(kind | _NESTED, data)


def _filter(*, original: int, reply: int) -> bytes:
    flags = _attribute(1, struct.pack("=I", original)) + _attribute(2, struct.pack("=I", reply))
    return _nest(_FILTER, flags)
