"""A socket to the kernel's netfilter subsystems (nfnetlink), for what libnftables is not asked."""

import errno
import os
import socket
import struct

_NETLINK_NETFILTER = 12
_NLMSG_ERROR = 2
_REQUEST, _ACK = 0x1, 0x4
_NFT_GETTABLE = 10 << 8 | 1
_NFTA_TABLE_NAME = 1
_NFPROTO_INET = 1


class NetfilterSocket:
    """In the network namespace of the thread that makes it.

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

    def order(self, kind: int, family: int, attributes: bytes) -> int:
        """Send one message and wait until it is done; return the errno, 0 if all went well."""
        answer = self._ask(kind, _REQUEST | _ACK, family, attributes)
        return -int(struct.unpack_from("=i", answer, 16)[0])

    def has_table(self, name: str) -> bool:
        """Whether there is a table of family inet with this name.

        libnftables is not asked: to list tables it reads the whole ruleset, and nft 1.0.6 ends the
        process when a newer nft has written any of it.

        Raises:
            OSError: nftables is not there, or may not be asked.
        """
        attributes = attribute(_NFTA_TABLE_NAME, name.encode() + b"\0")
        answer = self._ask(_NFT_GETTABLE, _REQUEST, _NFPROTO_INET, attributes)
        if struct.unpack_from("=H", answer, 4)[0] != _NLMSG_ERROR:
            return True
        number = -struct.unpack_from("=i", answer, 16)[0]
        if number != errno.ENOENT:
            raise OSError(number, os.strerror(number))
        return False

    def _ask(self, kind: int, flags: int, family: int, attributes: bytes) -> bytes:
        body = struct.pack("=BBH", family, 0, 0) + attributes
        head = struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0)
        self._socket.send(head + body)
        return self._socket.recv(8192)


def attribute(kind: int, data: bytes) -> bytes:
    """One netlink attribute, padded."""
    return struct.pack("=HH", len(data) + 4, kind) + data + b"\0" * (-len(data) % 4)
