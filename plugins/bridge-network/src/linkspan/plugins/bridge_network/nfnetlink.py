"""A socket to the kernel's netfilter subsystems (nfnetlink), for what libnftables is not asked."""

import errno
import os
import select
import socket
import struct
from collections.abc import Iterator

_NETLINK_NETFILTER = 12
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_REQUEST, _ACK, _DUMP, _CREATE = 0x1, 0x4, 0x300, 0x400
OWNER, PERSIST = 0x2, 0x4
"""Flags of a table: only its owner's socket changes it; it stays when that is closed (Linux 6.9)."""
_NFT = 10 << 8
_NFT_NEWTABLE, _NFT_GETTABLE, _NFT_GETCHAIN, _NFT_GETSET = _NFT, _NFT | 1, _NFT | 4, _NFT | 10
_RULE_CHANGES = frozenset(_NFT | number for number in (0, 2, 3, 5, 6, 8))
_BATCH_BEGIN, _BATCH_END = 16, 17
_NFTA_TABLE_NAME, _NFTA_TABLE_FLAGS = 1, 2
_NFTA_CHAIN_TABLE, _NFTA_CHAIN_NAME = 1, 3
_NFTA_SET_TABLE, _NFTA_SET_NAME = 1, 2
_NFPROTO_INET = 1


class NetfilterSocket:
    """In the network namespace of the thread that makes it.

    It stays open: closing a netfilter socket waits until nftables has cleaned up after its last
    transaction, some ten milliseconds.

    Args:
        borrowed: A duplicate of somebody's socket to use for a while, as it is.
    """

    def __init__(self, borrowed: socket.socket | None = None) -> None:
        self._socket = borrowed or socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER
        )
        if borrowed is None:
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

    def own_table(self, name: str, flags: int) -> int:
        """Make a table of family inet that this socket owns, or take over one that nobody owns.

        Returns:
            The errno, 0 if all went well.
        """
        attributes = attribute(_NFTA_TABLE_NAME, name.encode() + b"\0")
        attributes += attribute(_NFTA_TABLE_FLAGS, struct.pack("!I", flags))
        body = struct.pack("=BBH", _NFPROTO_INET, 0, 0) + attributes
        batch = struct.pack("=BBH", 0, 0, socket.htons(10))
        self._socket.send(
            _message(_BATCH_BEGIN, _REQUEST, batch, 1)
            + _message(_NFT_NEWTABLE, _REQUEST | _ACK | _CREATE, body, 2)
            + _message(_BATCH_END, _REQUEST, batch, 3)
        )
        ready = select.poll()
        ready.register(self._socket, select.POLLIN)
        ready.poll(2000)
        return -int(struct.unpack_from("=i", self._socket.recv(8192), 16)[0])

    def contents(self, table: str) -> tuple[list[str], list[str]]:
        """Names of a table's chains, and of its maps and sets that have one."""
        chains = self._names(_NFT_GETCHAIN, table, _NFTA_CHAIN_TABLE, _NFTA_CHAIN_NAME)
        containers = self._names(_NFT_GETSET, table, _NFTA_SET_TABLE, _NFTA_SET_NAME)
        return chains, [name for name in containers if not name.startswith("__")]

    def _names(self, kind: int, table: str, in_table: int, named: int) -> list[str]:
        # The kernel lists those of the table, or all: older ones do not look at what was asked.
        body = struct.pack("=BBH", _NFPROTO_INET, 0, 0)
        body += attribute(in_table, table.encode() + b"\0")
        self._socket.send(_message(kind, _REQUEST | _DUMP, body, 1))
        found: list[str] = []
        while True:
            data = self._socket.recv(1 << 17)
            for got, part in _messages(data):
                if got == _NLMSG_DONE:
                    return found
                if got == _NLMSG_ERROR:
                    number = -struct.unpack_from("=i", part)[0]
                    raise OSError(number, os.strerror(number))
                have = _attributes(part[4:])
                if have[in_table] == table:
                    found.append(have[named])

    def _ask(self, kind: int, flags: int, family: int, attributes: bytes) -> bytes:
        body = struct.pack("=BBH", family, 0, 0) + attributes
        self._socket.send(_message(kind, flags, body, 1))
        return self._socket.recv(8192)


def changes_in(data: bytes) -> Iterator[str]:
    """Names of the tables whose tables, chains or rules a notification is about."""
    for kind, body in _messages(data):
        # Elements of sets change all the time, and are no rules.
        if kind in _RULE_CHANGES:
            yield _attributes(body[4:]).get(_NFTA_TABLE_NAME, "")


def _message(kind: int, flags: int, body: bytes, sequence: int) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 16 <= len(data):
        size, kind = struct.unpack_from("=IH", data, offset)
        yield kind, data[offset + 16 : offset + size]
        offset += (size + 3) & ~3


def _attributes(data: bytes) -> dict[int, str]:
    """Attributes as text; those that are none come out as nonsense."""
    found = {}
    offset = 0
    while offset + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, offset)
        found[kind & 0x3FFF] = data[offset + 4 : offset + size].rstrip(b"\0").decode("latin-1")
        offset += max((size + 3) & ~3, 4)
    return found


def attribute(kind: int, data: bytes) -> bytes:
    """One netlink attribute, padded."""
    return struct.pack("=HH", len(data) + 4, kind) + data + b"\0" * (-len(data) % 4)
