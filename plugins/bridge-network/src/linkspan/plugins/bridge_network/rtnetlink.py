"""Links, addresses and routes over rtnetlink (rtnetlink(7)): the few messages that this driver needs.

A message is built by a function (``veth``, ``address``, …); ``RtNetlink.send`` puts any number of
them into one datagram and waits for all acknowledgements. A socket belongs to the network namespace
of the thread that made it, and stays usable from any other.
"""

import os
import socket
import struct
from collections.abc import Iterator, Mapping
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    ip_interface,
    ip_network,
)
from typing import Self

from linkspan.plugins.bridge_network.ipam import Address, Range
from linkspan.sdk.values import frozen

_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_NEWADDR, _GETADDR = 20, 22
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_REPLACE, _EXCL, _CREATE = 0x100, 0x200, 0x400
_ERROR, _DONE = 2, 3
_ACK_HAS_ATTRIBUTES = 0x200
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 10, 18
_IFLA_IFALIAS, _IFLA_GROUP, _IFLA_NET_NS_FD = 20, 27, 28
_ALIAS_BYTES = 254  # with its final zero no more than the kernel takes (IFALIASZ - 1)
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_BRPORT_HAIRPIN, _BRPORT_ISOLATED = 4, 33
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 1, 4, 5, 15
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_IFA_F_NODAD, _SCOPE_LINK = 0x02, 253
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_IFF_UP = 1
_TABLE_MAIN, _PROTO_STATIC, _TYPE_UNICAST = 254, 4, 1

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBi")
_ROUTE = struct.Struct("=BBBBBBBBI")


class RtNetlinkError(OSError):
    """The kernel refused a message; its own explanation is part of the text."""


@frozen
class Message:
    """A message; ``what`` names it in errors."""

    kind: int
    flags: int
    body: bytes
    what: str


@frozen(kw_only=True)
class Link:
    """A network device. ``kind`` is ``bridge``, ``veth``, …; empty for hardware."""

    index: int
    name: str
    kind: str = ""
    group: int = 0
    master: int = 0
    mtu: int = 0
    up: bool = False


@frozen(kw_only=True)
class Route:
    """A route; ``device`` is the index of its link, 0 if it has none."""

    destination: Range
    device: int
    table: int


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", len(data) + 4, kind) + data + b"\0" * (-len(data) % 4)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _link(name: str = "", *, index: int = 0, up: bool | None = None, rest: bytes = b"") -> bytes:
    change = 0 if up is None else _IFF_UP
    head = _LINK.pack(0, 0, index, _IFF_UP if up else 0, change)
    return head + (_text(_IFLA_IFNAME, name) if name else b"") + rest


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def bridge(name: str, *, group: int, mac: str, mtu: int, alias: str) -> Message:
    """Make a bridge, up. Its MAC is fixed: otherwise it is that of its lowest port, and changes."""
    rest = (
        _number(_IFLA_GROUP, group)
        + _attribute(_IFLA_ADDRESS, _mac(mac))
        + _number(_IFLA_MTU, mtu)
        + _attribute(_IFLA_IFALIAS, alias.encode()[:_ALIAS_BYTES] + b"\0")
        + _attribute(_IFLA_LINKINFO, _text(_INFO_KIND, "bridge"))
    )
    body = _link(name, up=True, rest=rest)
    return Message(_NEWLINK, _CREATE | _EXCL, body, f"make bridge {name}")


def veth(
    name: str, *, master: int, group: int, mtu: int, peer: str, peer_mac: str, namespace: int
) -> Message:
    """Make a pair: ``name`` on the bridge ``master``, and ``peer`` in an open namespace.

    The peer is down: it has no address yet.
    """
    inner = _link(
        peer,
        rest=_number(_IFLA_NET_NS_FD, namespace)
        + _attribute(_IFLA_ADDRESS, _mac(peer_mac))
        + _number(_IFLA_MTU, mtu),
    )
    info = _text(_INFO_KIND, "veth") + _attribute(_INFO_DATA, _attribute(1, inner))
    rest = (
        _number(_IFLA_MASTER, master)
        + _number(_IFLA_GROUP, group)
        + _number(_IFLA_MTU, mtu)
        + _attribute(_IFLA_LINKINFO, info)
    )
    body = _link(name, up=True, rest=rest)
    return Message(_NEWLINK, _CREATE | _EXCL, body, f"make link {name} for {peer}")


def bridge_port(name: str, *, isolated: bool) -> Message:
    """Set up a port of a bridge.

    It may send a frame back out of the port it came from: with br_netfilter a container that asks
    its own published port comes back that way. ``isolated`` ports do not see each other.
    """
    data = _attribute(_BRPORT_HAIRPIN, b"\1") + _attribute(
        _BRPORT_ISOLATED, b"\1" if isolated else b"\0"
    )
    info = _text(_INFO_SLAVE_KIND, "bridge") + _attribute(_INFO_SLAVE_DATA, data)
    body = _link(name, rest=_attribute(_IFLA_LINKINFO, info))
    return Message(_NEWLINK, 0, body, f"set up bridge port {name}")


def enslave(name: str, *, master: int) -> Message:
    """Put a link on a bridge, up."""
    body = _link(name, up=True, rest=_number(_IFLA_MASTER, master))
    return Message(_NEWLINK, 0, body, f"put {name} on its bridge")


def link_up(index: int) -> Message:
    """Switch a link on."""
    return Message(_NEWLINK, 0, _link(index=index, up=True), f"switch link {index} on")


def delete_link(name: str) -> Message:
    """Delete a link; a pair goes as one."""
    return Message(_DELLINK, 0, _link(name), f"delete link {name}")


def delete_group(group: int) -> Message:
    """Delete all links of a group."""
    body = _link(rest=_number(_IFLA_GROUP, group))
    return Message(_DELLINK, 0, body, f"delete the links of group {group:#x}")


def address(index: int, interface: IPv4Interface | IPv6Interface) -> Message:
    """Give a link an address; with IPv4 the subnet's broadcast address too, with IPv6 at once.

    An IPv6 address is not looked for among the neighbours first: we give each out once.
    """
    ip, prefix = interface.ip, interface.network.prefixlen
    flags = _IFA_F_NODAD if ip.version == 6 else 0
    scope = _SCOPE_LINK if ip.is_link_local else 0
    body = _ADDRESS.pack(_FAMILY[ip.version], prefix, flags, scope, index)
    body += _attribute(_IFA_LOCAL, ip.packed) + _attribute(_IFA_ADDRESS, ip.packed)
    if ip.version == 4 and prefix < 31:
        body += _attribute(_IFA_BROADCAST, interface.network.broadcast_address.packed)
    return Message(_NEWADDR, _CREATE | _REPLACE, body, f"give link {index} address {interface}")


def default_route(index: int, gateway: IPv4Address | IPv6Address) -> Message:
    """Set the default route of a family."""
    family = _FAMILY[gateway.version]
    body = _ROUTE.pack(family, 0, 0, 0, _TABLE_MAIN, _PROTO_STATIC, 0, _TYPE_UNICAST, 0)
    body += _attribute(_RTA_GATEWAY, gateway.packed) + _number(_RTA_OIF, index)
    return Message(_NEWROUTE, _CREATE | _REPLACE, body, f"route by {gateway}")


def delete_default_route(version: int) -> Message:
    """Take the default route of a family (4, 6) away."""
    body = _ROUTE.pack(_FAMILY[version], 0, 0, 0, _TABLE_MAIN, 0, 255, 0, 0)
    return Message(_DELROUTE, 0, body, "delete the default route")


def _attributes(data: bytes, offset: int) -> Mapping[int, bytes]:
    found: dict[int, bytes] = {}
    while offset + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, offset)
        if size < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + size]
        offset += (size + 3) & ~3
    return found


def _to_int(data: bytes | None) -> int:
    return int.from_bytes(data, "little") if data else 0


def _to_text(data: bytes | None) -> str:
    return data.rstrip(b"\0").decode(errors="replace") if data else ""


class RtNetlink:
    """An rtnetlink socket in the namespace of the calling thread. Its calls block for a moment."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        try:
            self._socket.bind((0, 0))
            self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        except OSError:
            self._socket.close()
            raise
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; an open one keeps its namespace alive."""
        self._socket.close()

    def send(self, *messages: Message) -> None:
        """Carry out messages in order, in one datagram.

        Raises:
            RtNetlinkError: The first that failed. Those behind it have been tried all the same.
        """
        first = self._sequence + 1
        datagram = b""
        for message in messages:
            self._sequence += 1
            datagram += _HEADER.pack(
                _HEADER.size + len(message.body),
                message.kind,
                message.flags | _REQUEST | _ACK,
                self._sequence,
                0,
            )
            datagram += message.body
        self._socket.send(datagram)
        error: RtNetlinkError | None = None
        waiting = len(messages)
        while waiting:
            for kind, flags, sequence, body in self._receive():
                if kind != _ERROR or sequence < first:
                    continue
                waiting -= 1
                if error is None:
                    error = _refusal(messages[sequence - first].what, flags, body)
        if error is not None:
            raise error

    def links(self) -> list[Link]:
        """All links of the namespace."""
        return [_parse_link(body) for body in self._dump(_GETLINK, _link())]

    def link(self, name: str = "", *, index: int = 0) -> Link:
        """A link by its name or index.

        The kernel (6.8 or newer) first carries out what it has put off: a carrier that came up.

        Raises:
            RtNetlinkError: There is none (ENODEV), or the kernel refused.
        """
        self._sequence += 1
        body = _link(name, index=index)
        head = _HEADER.pack(_HEADER.size + len(body), _GETLINK, _REQUEST, self._sequence, 0)
        self._socket.send(head + body)
        while True:
            for kind, flags, sequence, part in self._receive():
                if sequence != self._sequence:
                    continue
                if kind == _ERROR:
                    raise _refusal(f"look up link {name or index}", flags, part) or RtNetlinkError(
                        name
                    )
                return _parse_link(part)

    def addresses(self) -> list[tuple[int, IPv4Interface | IPv6Interface]]:
        """All addresses with the index of their link."""
        found = []
        for body in self._dump(_GETADDR, _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
            family, prefix, _, _, index = _ADDRESS.unpack_from(body)
            have = _attributes(body, _ADDRESS.size)
            local = have.get(_IFA_LOCAL) or have.get(_IFA_ADDRESS)
            if family in _FAMILY.values() and local:
                found.append((index, ip_interface((local, prefix))))
        return found

    def routes(self) -> list[Route]:
        """All routes of all tables."""
        found = []
        for body in self._dump(_GETROUTE, _ROUTE.pack(socket.AF_UNSPEC, *([0] * 8))):
            family, prefix, _, _, table, _, _, _, _ = _ROUTE.unpack_from(body)
            if family not in _FAMILY.values():
                continue
            have = _attributes(body, _ROUTE.size)
            nowhere: Address = IPv4Address(0) if family == socket.AF_INET else IPv6Address(0)
            where = have.get(_RTA_DST, nowhere.packed)
            found.append(
                Route(
                    destination=ip_network((where, prefix), strict=False),
                    device=_to_int(have.get(_RTA_OIF)),
                    table=_to_int(have.get(_RTA_TABLE)) or table,
                )
            )
        return found

    def _dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        self._sequence += 1
        sequence = self._sequence
        head = _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _DUMP, sequence, 0)
        self._socket.send(head + body)
        parts: list[bytes] = []
        while True:
            for got, flags, number, part in self._receive():
                if number != sequence:
                    continue
                if got == _DONE:
                    return iter(parts)
                if got == _ERROR:
                    raise _refusal("list", flags, part) or RtNetlinkError("list: no answer")
                parts.append(part)

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        data = self._socket.recv(1 << 17)
        offset = 0
        while offset + _HEADER.size <= len(data):
            size, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
            yield kind, flags, sequence, data[offset + _HEADER.size : offset + size]
            offset += (size + 3) & ~3


def _refusal(what: str, flags: int, body: bytes) -> RtNetlinkError | None:
    number = -struct.unpack_from("=i", body)[0]
    if number == 0:
        return None
    reason = os.strerror(number)
    if flags & _ACK_HAS_ATTRIBUTES:
        said = _to_text(_attributes(body, 4 + _HEADER.size).get(1))
        reason = f"{reason} ({said})" if said else reason
    return RtNetlinkError(number, f"{what}: {reason}")


def _parse_link(body: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    have = _attributes(body, _LINK.size)
    info = _attributes(have.get(_IFLA_LINKINFO, b""), 0)
    return Link(
        index=index,
        name=_to_text(have.get(_IFLA_IFNAME)),
        kind=_to_text(info.get(_INFO_KIND)),
        group=_to_int(have.get(_IFLA_GROUP)),
        master=_to_int(have.get(_IFLA_MASTER)),
        mtu=_to_int(have.get(_IFLA_MTU)),
        up=bool(flags & _IFF_UP),
    )
