"""Host ports: who has which, held by sockets so that no other process can take them.

A reservation is a socket that is bound and listens but drops every packet: others get EADDRINUSE,
and a client that comes before the firewall rule is there has its SYN dropped (and sends it again a
second later) instead of hanging in a backlog that nobody empties. Before the rule is taken away the
socket stops to listen: a client that was dropped then would be tracked as the host's, and would meet
nobody at its next tries, not even who has the port by then. All methods are called in the firewall's
thread, which is in the daemon's network namespace.
"""

import ctypes
import errno
import socket
import struct
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import attrs

from linkspan.plugins.bridge_network.ipam import Address
from linkspan.sdk.errors import Conflict, InvalidArgument
from linkspan.sdk.model.network import PortBinding, Protocol
from linkspan.sdk.values import define

_SO_ATTACH_FILTER = 26
_SO_MEMINFO = 55
ANY4, ANY6 = IPv4Address(0), IPv6Address(0)
_ANY: tuple[Address, ...] = (ANY4, ANY6)
_EPHEMERAL_TRIES = 10
_PROTOCOLS = ("tcp", "udp", "sctp")


# One instruction of a classic socket filter (linux/filter.h): BPF_RET | BPF_K, 0 bytes.
_DROP_ALL = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))


@define
class Reservation:
    """A host port that is ours.

    Attributes:
        sockets: What holds it, by address; None where the kernel cannot (it may lack sctp).
    """

    owner: str
    binding: PortBinding
    sockets: dict[Address, socket.socket | None]

    def name(self, address: Address) -> str:
        """By which the socket of an address is known to others."""
        return f"{self.binding.protocol}/{address}/{self.binding.host_port}"

    def shown(self) -> PortBinding:
        """As it is told to others: where the host has no IPv6, it is on no IPv6 address."""
        if self.binding.host_ip or ANY6 in self.sockets:
            return self.binding
        return attrs.evolve(self.binding, host_ip=str(ANY4))

    def early_clients(self) -> bool:
        """Whether packets have come while the port led nowhere yet.

        Of udp that is not asked: a client may have come before the socket was there.
        """
        if self.binding.protocol == "udp":
            return True
        return any(_dropped(held) for held in self.sockets.values() if held is not None)

    def refuse(self, relayed: Container[str]) -> None:
        """Have tcp clients refused that no rule leads elsewhere; the port is still held.

        Args:
            relayed: Names of sockets that the keeper accepts on: they drop nobody.
        """
        for name, held in self.named_sockets().items():
            if held.type == socket.SOCK_STREAM and name not in relayed:
                with suppress(OSError):  # it does not listen any more
                    held.shutdown(socket.SHUT_RDWR)

    def named_sockets(self) -> dict[str, socket.socket]:
        """Its sockets by their names."""
        return {self.name(at): held for at, held in self.sockets.items() if held is not None}


def _dropped(held: socket.socket) -> bool:
    counts = struct.unpack("=9I", held.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36))
    return bool(counts[8])  # SK_MEMINFO_DROPS


def _listens(held: socket.socket) -> bool:
    return bool(held.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def host_addresses(binding: PortBinding) -> tuple[Address, ...]:
    """Where a port is published; both wildcards for all addresses.

    Raises:
        InvalidArgument: It is not an address, or one that is not the host's alone.
    """
    if not binding.host_ip:
        return _ANY
    try:
        address = ip_address(binding.host_ip.strip("[]"))
    except ValueError as error:
        raise InvalidArgument(f"invalid host address '{binding.host_ip}' of a port") from error
    if isinstance(address, IPv6Address) and address.is_link_local:
        raise InvalidArgument(
            f"invalid host address '{binding.host_ip}' of a port: it is a link-local one",
            help="publish on all addresses, or on a global one",
        )
    return (address,)


class Ports:
    """All reservations of the daemon."""

    def __init__(self) -> None:
        self._taken: dict[tuple[Protocol, int], dict[Address, Reservation]] = {}
        self._last_ephemeral = 0
        self._kept: dict[str, socket.socket] = {}
        # Asks whoever else has our sockets to close those that were given back.
        self.settle: Callable[[], None] = lambda: None

    def know_kept(self, sockets: Mapping[str, socket.socket]) -> None:
        """Sockets that were held over a restart: reserving their ports takes them."""
        for held in sockets.values():
            if held.type == socket.SOCK_STREAM and not _listens(held):
                with suppress(OSError):  # somebody else has the port
                    held.listen(1)  # its daemon died as it gave the port back
        self._kept.update(sockets)

    def drop_kept(self) -> list[str]:
        """Close those that nobody has taken; return their names."""
        names = list(self._kept)
        for held in self._kept.values():
            held.close()
        self._kept.clear()
        return names

    def reserve(self, owner: str, wanted: Iterable[PortBinding]) -> list[Reservation]:
        """Reserve all ports or none; the result is in the order of ``wanted``.

        Fixed ports are taken first, so that a chosen one never stands in their way.

        Raises:
            Conflict: code ``port_taken`` with details address, port, protocol, holder.
            InvalidArgument: A port or address that cannot be.
        """
        bindings = list(wanted)
        for binding in bindings:
            _check(binding)
        done: dict[int, Reservation] = {}
        order = sorted(range(len(bindings)), key=lambda number: _freedom(bindings[number]))
        try:
            for number in order:
                done[number] = self._reserve(owner, bindings[number])
        except BaseException:
            self.release(done.values())
            raise
        return [done[number] for number in range(len(bindings))]

    def release(self, reservations: Iterable[Reservation]) -> None:
        """Give ports back; silent about those that are free."""
        for reservation in reservations:
            key = (reservation.binding.protocol, reservation.binding.host_port)
            holders = self._taken.get(key, {})
            for address, held in reservation.sockets.items():
                if holders.get(address) is reservation:
                    del holders[address]
                if held is not None:
                    held.close()
            if not holders:
                self._taken.pop(key, None)

    def note(self, owner: str, binding: PortBinding) -> Reservation:
        """Note a port that is published although its socket cannot be had (after a restart)."""
        sockets: dict[Address, socket.socket | None] = dict.fromkeys(host_addresses(binding))
        return self._keep(Reservation(owner=owner, binding=binding, sockets=sockets))

    def _reserve(self, owner: str, binding: PortBinding) -> Reservation:
        addresses = host_addresses(binding)
        if binding.host_port == 0:
            return self._reserve_any(owner, addresses, binding)
        error: Conflict | None = None
        for port in range(binding.host_port, max(binding.host_port, binding.host_port_end) + 1):
            exact = attrs.evolve(binding, host_port=port, host_port_end=0)
            try:
                return self._reserve_exact(owner, addresses, exact)
            except Conflict as taken:
                error = error or taken
        assert error is not None
        raise error

    def _reserve_any(
        self, owner: str, addresses: tuple[Address, ...], binding: PortBinding
    ) -> Reservation:
        low, high, skipped = _ephemeral_range()
        tries = 0
        error: Conflict | None = None
        port = self._last_ephemeral if low <= self._last_ephemeral <= high else low - 1
        for _ in range(high - low + 1):
            port = low if port >= high else port + 1
            if port in skipped or (binding.protocol, port) in self._taken:
                continue
            self._last_ephemeral = port
            exact = attrs.evolve(binding, host_port=port, host_port_end=0)
            try:
                return self._reserve_exact(owner, addresses, exact)
            except Conflict as taken:
                error, tries = taken, tries + 1
                if tries == _EPHEMERAL_TRIES:
                    break
        raise Conflict(
            f"no free {binding.protocol} port between {low} and {high}", code="port_taken"
        ) from error

    def _reserve_exact(
        self, owner: str, addresses: tuple[Address, ...], binding: PortBinding
    ) -> Reservation:
        for address in addresses:
            self._refuse_taken(address, binding)
        reservation = Reservation(owner=owner, binding=binding, sockets={})
        try:
            for address in addresses:
                kept = self._kept.pop(reservation.name(address), None)
                try:
                    reservation.sockets[address] = kept or self._hold(address, binding)
                except _NoSuchFamily:
                    if addresses != _ANY:
                        raise _bind_failure(
                            OSError(errno.EADDRNOTAVAIL, ""), address, binding
                        ) from None
        except BaseException:
            self.release([reservation])
            raise
        return self._keep(reservation)

    def _hold(self, address: Address, binding: PortBinding) -> socket.socket | None:
        try:
            return _hold(address, binding)
        except Conflict:
            self.settle()
            return _hold(address, binding)

    def _refuse_taken(self, address: Address, binding: PortBinding) -> None:
        holders = self._taken.get((binding.protocol, binding.host_port), {})
        for other, reservation in holders.items():
            if other.version != address.version:
                continue
            if other == address or not int(other) or not int(address):
                raise _taken(
                    f"Bind for {_text(address)}:{binding.host_port} failed: port is already"
                    f" allocated (by {reservation.owner})",
                    address,
                    binding,
                    reservation.owner,
                )

    def _keep(self, reservation: Reservation) -> Reservation:
        key = (reservation.binding.protocol, reservation.binding.host_port)
        holders = self._taken.setdefault(key, {})
        holders.update(dict.fromkeys(reservation.sockets, reservation))
        return reservation


class _NoSuchFamily(Exception):
    """The kernel has no IPv6, or it is switched off."""


def _text(address: Address) -> str:
    return f"[{address}]" if address.version == 6 else str(address)


def _freedom(binding: PortBinding) -> int:
    if binding.host_port == 0:
        return 2
    return 1 if binding.host_port_end > binding.host_port else 0


def _check(binding: PortBinding) -> None:
    host_addresses(binding)
    if binding.protocol not in _PROTOCOLS:
        raise InvalidArgument(f"invalid protocol '{binding.protocol}' of a port")
    for port in (binding.container_port, binding.host_port, binding.host_port_end):
        if not 0 <= port <= 65535:
            raise InvalidArgument(f"invalid port number {port}")
    if binding.container_port == 0:
        raise InvalidArgument("the container's port is missing")


def _taken(message: str, address: Address, binding: PortBinding, holder: str) -> Conflict:
    details = {
        "address": str(address),
        "port": binding.host_port,
        "protocol": binding.protocol,
        "holder": holder,
    }
    return Conflict(
        message, code="port_taken", details=details, help="choose another host port, or stop it"
    )


def _hold(address: Address, binding: PortBinding) -> socket.socket | None:
    if binding.protocol == "sctp":
        return None
    stream = binding.protocol == "tcp"
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        held = socket.socket(family, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            raise _NoSuchFamily from None
        raise
    try:
        if stream:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        program = struct.pack("HxxxxxxQ", 1, ctypes.addressof(_DROP_ALL))
        held.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        held.bind((str(address), binding.host_port))
        if stream:
            held.listen(1)  # a socket that is only bound does not keep others with REUSEADDR out
    except OSError as error:
        held.close()
        if address == ANY6 and error.errno == errno.EADDRNOTAVAIL:
            raise _NoSuchFamily from None
        raise _bind_failure(error, address, binding) from error
    except BaseException:
        held.close()
        raise
    return held


def _bind_failure(
    error: OSError, address: Address, binding: PortBinding
) -> Conflict | InvalidArgument:
    where = f"{_text(address)}:{binding.host_port}/{binding.protocol}"
    if error.errno == errno.EADDRINUSE:
        holder = find_holder(binding.protocol, binding.host_port)
        by = f" (by {holder})" if holder else ""
        return _taken(
            f"failed to bind host port {where}: address already in use{by}",
            address,
            binding,
            holder,
        )
    reason = error.strerror or str(error)
    if error.errno == errno.EADDRNOTAVAIL:
        reason = "cannot assign requested address: this host does not have it"
    return InvalidArgument(f"failed to bind host port {where}: {reason}", code="address_not_here")


def find_holder(protocol: Protocol, port: int) -> str:
    """``nginx, pid 123`` of the process that listens on a port; empty if it cannot be found."""
    inodes = {
        fields[9]
        for table in (protocol, f"{protocol}6")
        for fields in _socket_table(table)
        if int(fields[1].rpartition(":")[2], 16) == port
        and (protocol != "tcp" or fields[3] == "0A")
    }
    targets = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and targets & set(_open_files(process)):
            with suppress(OSError):  # it has ended
                return f"{(process / 'comm').read_text().strip()}, pid {process.name}"
    return ""


def _open_files(process: Path) -> Iterator[str]:
    with suppress(OSError):  # it has ended
        for descriptor in (process / "fd").iterdir():
            with suppress(OSError):  # it was closed
                yield str(descriptor.readlink())


def _socket_table(name: str) -> list[list[str]]:
    # The file under /proc/net is that of the main thread's namespace, this one of our own.
    try:
        text = Path("/proc/thread-self/net", name).read_text()
    except OSError:
        return []
    return [line.split() for line in text.splitlines()[1:]]


def _ephemeral_range() -> tuple[int, int, set[int]]:
    folder = Path("/proc/sys/net/ipv4")
    low, high = (int(part) for part in (folder / "ip_local_port_range").read_text().split())
    skipped: set[int] = set()
    reserved = (folder / "ip_local_reserved_ports").read_text().strip()
    for part in filter(None, reserved.split(",")):
        first, _, last = part.partition("-")
        skipped.update(range(int(first), int(last or first) + 1))
    return low, high, skipped
