"""The daemon's nft table with all that is in it, and the host ports, in one dedicated thread.

The thread owns the state: nothing else reads or changes it. Every change is one transaction, made
after the host ports are reserved and undone with them.
"""

import json
import logging
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address
from pathlib import Path

import attrs
import trio

from linkspan.plugins.bridge_network import ruleset
from linkspan.plugins.bridge_network.conntrack import Conntrack
from linkspan.plugins.bridge_network.nfnetlink import NetfilterSocket
from linkspan.plugins.bridge_network.nftables import Nftables, NftablesError, open_nftables
from linkspan.plugins.bridge_network.ports import Ports, Reservation
from linkspan.plugins.bridge_network.ruleset import BalancedPort, BridgeRules, Element
from linkspan.plugins.bridge_network.worker import Worker
from linkspan.sdk.errors import InvalidArgument, LinkspanError
from linkspan.sdk.model.network import Backend, PortBinding

log = logging.getLogger(__name__)

_BALANCE_OWNER = "a balanced service port"


@attrs.define
class _Publication:
    """The published ports of a container."""

    address: IPv4Address
    reservations: list[Reservation]

    def elements(self) -> list[Element]:
        return [
            ruleset.published(
                host_ip=reservation.host_ip,
                protocol=reservation.binding.protocol,
                host_port=reservation.binding.host_port,
                address=self.address,
                port=reservation.binding.container_port,
            )
            for reservation in self.reservations
        ]

    def bindings(self) -> tuple[PortBinding, ...]:
        return tuple(reservation.binding for reservation in self.reservations)


@attrs.define
class _Balance:
    reservation: Reservation
    rules: BalancedPort
    container_port: int


@attrs.frozen(kw_only=True)
class PublishedPorts:
    """Ports that a record says are published."""

    container_id: str
    owner: str
    address: IPv4Address
    ports: tuple[PortBinding, ...]


class Firewall:
    """See the module.

    Args:
        table: Name of the table.
        group: Link group of the daemon's bridges.
        memory: File that remembers balanced ports over a restart of the daemon.
    """

    def __init__(self, table: str, group: int, memory: Path) -> None:
        self._table = table
        self._group = group
        self._memory = memory
        self._worker = Worker("linkspan-nft")
        self._nft: Nftables | None = None
        self._netfilter: NetfilterSocket | None = None
        self._conntrack: Conntrack | None = None
        self._ports = Ports()
        self._networks: dict[str, BridgeRules] = {}
        self._published: dict[str, _Publication] = {}
        self._balanced: dict[tuple[str, str, int], _Balance] = {}

    async def open(self) -> None:
        """Make sure that the table is there; one that is there stays as it is until ``restore``.

        Raises:
            NotUsable: nftables is missing.
            NftablesError: The kernel refuses the table.
        """
        await self._worker.run(self._open)

    async def close(self, *, remove: bool) -> None:
        """Let go of the ports and end the thread; ``remove`` takes the table, too."""
        with trio.CancelScope(shield=True):
            await self._worker.run(self._close, remove)
            await self._worker.close()

    async def restore(
        self, networks: Iterable[BridgeRules], published: Iterable[PublishedPorts], living: set[str]
    ) -> list[str]:
        """Load the whole table anew, in one transaction, and reserve the ports again.

        Args:
            networks: All networks.
            published: Ports of living containers.
            living: Addresses of living containers: balanced ports keep only these.

        Returns:
            What is not as it was, a sentence each.
        """
        return await self._worker.run(self._restore, list(networks), list(published), living)

    async def repair(self) -> None:
        """Load the table again if another program has flushed it."""
        await self._worker.run(self._repair)

    async def add_network(self, rules: BridgeRules) -> None:
        """Know one more network."""
        await self._worker.run(self._add_network, rules)

    async def remove_network(self, bridge: str) -> None:
        """Forget a network; silent if it is unknown."""
        await self._worker.run(self._remove_network, bridge)

    async def publish(
        self, container_id: str, owner: str, address: IPv4Address, ports: Sequence[PortBinding]
    ) -> tuple[PortBinding, ...]:
        """Publish a container's ports, all or none; return them with their host ports.

        Raises:
            Conflict: code ``port_taken``.
            InvalidArgument: A port or address that cannot be.
        """
        return await self._worker.run(self._publish, container_id, owner, address, tuple(ports))

    async def unpublish(self, container_id: str) -> None:
        """Take a container's ports back; silent if there are none."""
        await self._worker.run(self._unpublish, container_id)

    async def move(self, container_id: str, address: IPv4Address) -> None:
        """Lead a container's ports to another address of it; the host ports stay."""
        await self._worker.run(self._move, container_id, address)

    async def forget(self, address: IPv4Address) -> None:
        """A container's address is gone: no connection leads there, tracked or new."""
        await self._worker.run(self._forget, address)

    async def balance(self, port: PortBinding, backends: Sequence[Backend]) -> PortBinding:
        """Spread a host port over backends.

        Raises:
            Conflict: code ``port_taken``.
            InvalidArgument: A backend that is not an address and a port.
        """
        return await self._worker.run(self._balance, port, tuple(backends))

    async def unbalance(self, port: PortBinding) -> None:
        """Stop it; silent if it is not balanced."""
        await self._worker.run(self._unbalance, port)

    # In the thread from here on.

    def _run(self, text: str) -> None:
        """Change the table; if another program has flushed it, it is loaded again first."""
        assert self._nft is not None
        try:
            self._nft.run(text)
        except NftablesError:
            if self._is_there():
                raise
            self._repair()
            self._nft.run(text)

    def _take_out(self, text: str) -> None:
        """Delete what our books have no more; where it is not as it was, the books win."""
        assert self._nft is not None
        try:
            self._nft.run(text)
        except NftablesError as error:
            log.warning("the firewall table is loaded again", extra={"reason": str(error)})
            self._load()

    def _open(self) -> None:
        self._nft = open_nftables()
        self._netfilter = NetfilterSocket()
        self._conntrack = Conntrack(self._netfilter)
        if not self._is_there():
            self._load()

    def _close(self, remove: bool) -> None:
        try:
            if self._nft is not None and remove:
                self._run(ruleset.drop(self._table))
                self._memory.unlink(missing_ok=True)
        finally:
            if self._nft is not None:
                self._nft.close()
            if self._netfilter is not None:
                self._netfilter.close()
            for publication in self._published.values():
                self._ports.release(publication.reservations)
            self._ports.release(balance.reservation for balance in self._balanced.values())

    def _restore(
        self, networks: list[BridgeRules], published: list[PublishedPorts], living: set[str]
    ) -> list[str]:
        notes: list[str] = []
        self._networks = {rules.bridge: rules for rules in networks}
        for ports in published:
            reservations = [
                self._reserve_again(ports.owner, binding, notes) for binding in ports.ports
            ]
            self._published[ports.container_id] = _Publication(ports.address, reservations)
        for binding, backends in self._remembered():
            reservation = self._reserve_again(_BALANCE_OWNER, binding, notes)
            alive = tuple(backend for backend in backends if backend.address in living)
            self._keep_balance(reservation, binding, alive)
        self._load()
        return notes

    def _load(self) -> None:
        elements = [e for rules in self._networks.values() for e in rules.elements()]
        elements += [e for item in self._published.values() for e in item.elements()]
        balanced = [balance.rules for balance in self._balanced.values()]
        assert self._nft is not None
        self._nft.run(ruleset.load(self._table, self._group, elements, balanced))

    def _is_there(self) -> bool:
        assert self._netfilter is not None
        return self._netfilter.has_table(self._table)

    def _repair(self) -> None:
        if not self._is_there():
            self._load()
            log.warning(
                "the firewall table was gone and is loaded again", extra={"table": self._table}
            )

    def _reserve_again(self, owner: str, binding: PortBinding, notes: list[str]) -> Reservation:
        try:
            return self._ports.reserve(owner, [binding])[0]
        except LinkspanError as error:
            notes.append(f"host port of {owner} could not be reserved again: {error}")
            return self._ports.note(owner, binding)

    def _add_network(self, rules: BridgeRules) -> None:
        self._run(ruleset.add(self._table, rules.elements()))
        self._networks[rules.bridge] = rules

    def _remove_network(self, bridge: str) -> None:
        rules = self._networks.pop(bridge, None)
        if rules is not None:
            self._take_out(ruleset.delete(self._table, rules.elements()))

    def _publish(
        self,
        container_id: str,
        owner: str,
        address: IPv4Address,
        ports: tuple[PortBinding, ...],
    ) -> tuple[PortBinding, ...]:
        reservations = self._ports.reserve(owner, ports)
        publication = _Publication(address, reservations)
        try:
            self._run(ruleset.add(self._table, publication.elements()))
        except BaseException:
            self._ports.release(reservations)
            raise
        self._published[container_id] = publication
        self._purge_udp(reservations)
        return publication.bindings()

    def _unpublish(self, container_id: str) -> None:
        publication = self._published.pop(container_id, None)
        if publication is not None:
            self._take_out(ruleset.delete(self._table, publication.elements()))
            self._ports.release(publication.reservations)

    def _move(self, container_id: str, address: IPv4Address) -> None:
        publication = self._published.get(container_id)
        if publication is None:
            return
        before = publication.elements()
        old, publication.address = publication.address, address
        try:
            self._run(
                ruleset.delete(self._table, before)
                + ruleset.add(self._table, publication.elements())
            )
        except BaseException:
            publication.address = old
            raise
        self._purge_udp(publication.reservations)

    def _forget(self, address: IPv4Address) -> None:
        text = str(address)
        for balance in self._balanced.values():
            kept = tuple(b for b in balance.rules.backends if b.address != text)
            if kept != balance.rules.backends:
                self._replace(balance, kept)
        self._purge(address)

    def _balance(self, port: PortBinding, backends: tuple[Backend, ...]) -> PortBinding:
        _check_backends(backends)
        known = self._balanced.get(_key(port))
        if known is not None:
            self._replace(known, backends)
            return known.reservation.binding
        reservation = self._ports.reserve(_BALANCE_OWNER, [port])[0]
        balance = self._keep_balance(reservation, reservation.binding, backends)
        try:
            self._run(balance.rules.change(self._table, None))
        except BaseException:
            del self._balanced[_key(reservation.binding)]
            self._ports.release([reservation])
            raise
        self._purge_udp([reservation])
        self._remember()
        return reservation.binding

    def _keep_balance(
        self, reservation: Reservation, binding: PortBinding, backends: tuple[Backend, ...]
    ) -> _Balance:
        rules = BalancedPort(
            host_ip=reservation.host_ip,
            protocol=binding.protocol,
            host_port=binding.host_port,
            backends=backends,
        )
        balance = _Balance(reservation, rules, binding.container_port)
        self._balanced[_key(binding)] = balance
        return balance

    def _replace(self, balance: _Balance, backends: tuple[Backend, ...]) -> None:
        before = balance.rules
        after = attrs.evolve(before, backends=backends)
        self._run(after.change(self._table, before))
        balance.rules = after
        if before.protocol == "udp":
            # Datagrams have no end: flows to a backend that is gone are led anew.
            for gone in {b.address for b in before.backends} - {b.address for b in backends}:
                self._purge(IPv4Address(gone))
        self._remember()

    def _unbalance(self, port: PortBinding) -> None:
        balance = self._balanced.pop(_key(port), None)
        if balance is not None:
            self._take_out(balance.rules.removal(self._table))
            self._ports.release([balance.reservation])
            self._remember()

    def _purge_udp(self, reservations: Iterable[Reservation]) -> None:
        for reservation in reservations:
            if reservation.binding.protocol == "udp":
                self._purge(reservation.binding.host_port)

    def _purge(self, what: IPv4Address | int) -> None:
        """Forget tracked connections to a container's address, or udp flows to a host port."""
        assert self._conntrack is not None
        try:
            if isinstance(what, int):
                self._conntrack.purge_udp_port(what)
            else:
                self._conntrack.purge_replies_from(what)
        except OSError as error:
            log.warning("tracked connections were not purged", extra={"reason": str(error)})

    def _remember(self) -> None:
        records = [
            {
                "port": attrs.asdict(balance.reservation.binding),
                "backends": [attrs.asdict(backend) for backend in balance.rules.backends],
            }
            for balance in self._balanced.values()
        ]
        new = self._memory.with_suffix(".new")
        new.write_text(json.dumps(records))
        new.replace(self._memory)

    def _remembered(self) -> list[tuple[PortBinding, list[Backend]]]:
        try:
            records = json.loads(self._memory.read_text())
        except FileNotFoundError:
            return []
        return [
            (PortBinding(**record["port"]), [Backend(**each) for each in record["backends"]])
            for record in records
        ]


def _key(port: PortBinding) -> tuple[str, str, int]:
    return port.host_ip, port.protocol, port.host_port


def _check_backends(backends: Iterable[Backend]) -> None:
    for backend in backends:
        try:
            IPv4Address(backend.address)
        except ValueError as error:
            raise InvalidArgument(f"invalid backend address '{backend.address}'") from error
        if not 1 <= backend.port <= 65535:
            raise InvalidArgument(f"invalid backend port {backend.port}")
