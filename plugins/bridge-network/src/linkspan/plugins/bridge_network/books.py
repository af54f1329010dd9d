"""The firewall's books, and the table that follows them; for its thread only.

Every change is one transaction, made after the host ports are reserved and undone with them.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

import attrs

from linkspan.plugins.bridge_network import ruleset
from linkspan.plugins.bridge_network.balancing import (
    Balance,
    BalanceMemory,
    balanced_address,
    check_backends,
    key,
)
from linkspan.plugins.bridge_network.custody import Custody
from linkspan.plugins.bridge_network.ipam import Address
from linkspan.plugins.bridge_network.nfnetlink import NetfilterSocket
from linkspan.plugins.bridge_network.nftables import Nftables, NftablesCrashed, NftablesError
from linkspan.plugins.bridge_network.ports import Ports, Reservation
from linkspan.plugins.bridge_network.publications import Publication, PublishedPorts, Target
from linkspan.plugins.bridge_network.ruleset import BalancedPort, BridgeRules
from linkspan.plugins.bridge_network.table import Table
from linkspan.plugins.bridge_network.tracked import TrackedConnections
from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.model.network import Backend, PortBinding

log = logging.getLogger(__name__)

_BALANCE_OWNER = "a balanced service port"


class Books:
    """Networks, published and balanced ports; ``Firewall`` says more of the methods of the same names."""

    def __init__(self, table: str, group: int, folder: Path, nft: Nftables) -> None:
        self._name = table
        self._group = group
        self._folder = folder
        self._nft = nft
        self._stale = False
        self._memory = BalanceMemory(folder / "balanced.json")
        self._keep_apart: frozenset[int] = frozenset()
        self._table: Table | None = None
        self._custody: Custody | None = None
        self._netfilter: NetfilterSocket | None = None
        self._tracked: TrackedConnections | None = None
        self._ports = Ports()
        self._networks: dict[str, BridgeRules] = {}
        self._published: dict[str, Publication] = {}
        self._balanced: dict[tuple[str, str, int], Balance] = {}

    def run(self, text: str) -> None:
        """Change the table; if it is not what the books say, it is loaded again first."""
        table = self._its_table()
        try:
            table.run(text)
        except NftablesCrashed:
            self._stale = True  # it may be changed or not
            self.load()
            table.run(text)
        except NftablesError:
            if table.is_there():
                raise
            self._repair()
            table.run(text)

    def has_table(self, name: str) -> bool:
        """Whether another program has this table."""
        assert self._netfilter is not None, "used before open"
        return self._netfilter.has_table(name)

    def _its_table(self) -> Table:
        assert self._table is not None, "used before open"
        return self._table

    def _take_out(self, text: str) -> None:
        """Delete what our books have no more; where it is not as it was, the books win."""
        try:
            self._its_table().run(text)
        except NftablesError as error:
            log.warning("the firewall table is loaded again", extra={"reason": str(error)})
            self._load_if_possible()

    def _load_if_possible(self) -> bool:
        """Load the table by the books. If nftables crashes at it, it stays as it is until ``repair`` can."""
        try:
            self.load()
        except NftablesCrashed:
            self._stale = True
        return not self._stale

    def open(self) -> None:
        """See ``Firewall.open``."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._nft.start()
        self._netfilter = NetfilterSocket()
        self._tracked = TrackedConnections(self._netfilter)
        self._table = Table(self._name, self._netfilter, self._nft)
        was_there = self._table.is_there()
        self._custody = Custody(self._folder, self._table, self._reserved)
        ownership, kept = self._custody.fetch()
        self._ports.settle = self._custody.settle
        self._ports.know_kept(kept)
        self._table.claim(ownership)
        if not was_there:
            self.load()
        self._custody.hold_table()

    def close(self, remove: bool) -> None:
        """See ``Firewall.close``."""
        try:
            if self._table is not None and remove:
                with suppress(NftablesCrashed):  # said so in the log
                    self._table.drop()
                self._memory.drop()
        finally:
            self._ports.drop_kept()
            if self._custody is not None:
                self._custody.close(end=remove)
            if self._netfilter is not None:
                self._netfilter.close()
            for reservations, _ in self._reserved():
                self._ports.release(reservations)

    def _reserved(self) -> Iterator[tuple[list[Reservation], list[tuple[str, str, int]]]]:
        """What is held by the keeper, and where that leads."""
        for publication in self._published.values():
            yield publication.reservations, publication.relays()
        for balance in self._balanced.values():
            yield [balance.reservation], balance.relays()

    def _its_custody(self) -> Custody:
        assert self._custody is not None, "used before open"
        return self._custody

    def _connections(self) -> TrackedConnections:
        assert self._tracked is not None, "used before open"
        return self._tracked

    def _release(self, reservations: Iterable[Reservation]) -> None:
        gone = list(reservations)
        names = [name for reservation in gone for name in reservation.named_sockets()]
        self._ports.release(gone)
        self._its_custody().release(names)

    def restore(
        self, networks: list[BridgeRules], published: list[PublishedPorts], living: set[str]
    ) -> list[str]:
        """Take over what the records say, and load the table by it."""
        notes: list[str] = []
        self._networks = {rules.bridge: rules for rules in networks}
        for ports in published:
            reservations = [
                self._reserve_again(ports.owner, binding, notes)
                for binding in ports.ports
                if binding.host_port
            ]
            self._published[ports.container_id] = self._publication(
                ports.target, reservations, ports.ports
            )
        for binding, backends in self._memory.read():
            reservation = self._reserve_again(_BALANCE_OWNER, binding, notes)
            alive = tuple(backend for backend in backends if backend.address in living)
            self._keep_balance(reservation, binding, alive)
        if not self._load_if_possible():
            notes.append("the firewall table stays as the last daemon left it: nftables crashes")
        self._its_custody().release(self._ports.drop_kept())
        for reservations, relays in self._reserved():
            self._its_custody().hold(reservations, relays)
        return notes

    def load(self) -> None:
        """Load the whole table by the books, in one transaction."""
        elements = [e for rules in self._networks.values() for e in rules.elements()]
        elements += [e for item in self._published.values() for e in item.elements()]
        balanced = [balance.rules for balance in self._balanced.values()]
        table = self._its_table()
        text = ruleset.load(
            table.name,
            self._group,
            elements,
            balanced,
            found=table.contents(),
            keep_apart=self._keep_apart,
        )
        table.run(text)
        self._stale = False

    def stop_forwarding_foreign(self, version: int) -> None:
        """Keep traffic of this family apart that is none of ours."""
        if version not in self._keep_apart:
            self._keep_apart |= {version}
            self.load()

    def repair_if_possible(self) -> None:
        """Load the table again if it is gone or stale; where nftables crashes at it, later."""
        try:
            self._repair()
        except NftablesCrashed:
            self._stale = True

    def _repair(self) -> None:
        table = self._its_table()
        if not table.is_there():
            table.claim(None)
            self.load()
            self._its_custody().hold_table()
            log.warning(
                "the firewall table was gone and is loaded again", extra={"table": table.name}
            )
        elif self._stale:
            self._load_if_possible()

    def _reserve_again(self, owner: str, binding: PortBinding, notes: list[str]) -> Reservation:
        try:
            return self._ports.reserve(owner, [binding])[0]
        except LinkspanError as error:
            notes.append(f"host port of {owner} could not be reserved again: {error}")
            return self._ports.note(owner, binding)

    def add_network(self, rules: BridgeRules) -> None:
        """Know one more network."""
        self.run(ruleset.add(self._name, rules.elements()))
        self._networks[rules.bridge] = rules

    def remove_network(self, bridge: str) -> None:
        """Forget a network."""
        rules = self._networks.pop(bridge, None)
        if rules is not None:
            self._take_out(ruleset.delete(self._name, rules.elements()))

    def publish(
        self, container_id: str, owner: str, target: Target, ports: tuple[PortBinding, ...]
    ) -> tuple[PortBinding, ...]:
        """Publish all ports of a container, or none."""
        families = {address.version for address in target.addresses} - target.routed
        reservations = self._ports.reserve(owner, ports) if families else []
        publication = self._publication(target, reservations, ports)
        try:
            self.run(ruleset.add(self._name, publication.elements()))
        except BaseException:
            self._ports.release(reservations)
            raise
        self._published[container_id] = publication
        self._its_custody().hold(reservations, publication.relays())
        self._connections().forget_early(reservations)
        return tuple(reservation.shown() for reservation in reservations) if families else ports

    def _publication(
        self,
        target: Target,
        reservations: list[Reservation],
        ports: Iterable[PortBinding] = (),
    ) -> Publication:
        opened = tuple(ports) or tuple(each.binding for each in reservations)
        return Publication(target, reservations, opened)

    def unpublish(self, container_id: str) -> None:
        """Take a container's ports back."""
        publication = self._published.pop(container_id, None)
        if publication is not None:
            _refuse(publication.reservations, publication.relays())
            self._take_out(ruleset.delete(self._name, publication.elements()))
            self._release(publication.reservations)

    def move(self, container_id: str, target: Target) -> None:
        """Lead a container's ports to other addresses of it."""
        publication = self._published.get(container_id)
        if publication is None:
            return
        before = publication.elements()
        old, publication.target = publication.target, target
        try:
            self.run(
                ruleset.delete(self._name, before) + ruleset.add(self._name, publication.elements())
            )
        except BaseException:
            publication.target = old
            raise
        self._its_custody().hold((), publication.relays())
        self._connections().forget_early(publication.reservations)

    def forget(self, addresses: tuple[Address, ...]) -> None:
        """Lead nothing to these addresses any more."""
        texts = {str(address) for address in addresses}
        for balance in self._balanced.values():
            kept = tuple(b for b in balance.rules.backends if b.address not in texts)
            if kept != balance.rules.backends:
                self._replace(balance, kept)
        for address in addresses:
            self._connections().forget(address)

    def leave(self, container_id: str, addresses: tuple[Address, ...]) -> None:
        """Take back what a container has, and lead nothing to it any more."""
        self.unpublish(container_id)
        self.forget(addresses)

    def balance(self, port: PortBinding, backends: tuple[Backend, ...]) -> PortBinding:
        """Spread a port over backends, or over others than before."""
        check_backends(backends)
        known = self._balanced.get(key(port))
        if known is not None:
            self._replace(known, backends)
            return known.reservation.binding
        balanced_address(port)
        reservation = self._ports.reserve(_BALANCE_OWNER, [port])[0]
        balance = self._keep_balance(reservation, reservation.binding, backends)
        try:
            self.run(balance.rules.change(self._name, None))
        except BaseException:
            del self._balanced[key(reservation.binding)]
            self._ports.release([reservation])
            raise
        self._its_custody().hold([reservation], balance.relays())
        self._connections().forget_early([reservation])
        self._memory.write(self._balanced.values())
        return reservation.binding

    def _keep_balance(
        self, reservation: Reservation, binding: PortBinding, backends: tuple[Backend, ...]
    ) -> Balance:
        rules = BalancedPort(
            host_ip=balanced_address(binding),
            protocol=binding.protocol,
            host_port=binding.host_port,
            backends=backends,
        )
        balance = Balance(reservation, rules)
        self._balanced[key(binding)] = balance
        return balance

    def _replace(self, balance: Balance, backends: tuple[Backend, ...]) -> None:
        before = balance.rules
        after = attrs.evolve(before, backends=backends)
        self.run(after.change(self._name, before))
        balance.rules = after
        if before.protocol == "udp":
            # Datagrams have no end: flows to a backend that is gone are led anew.
            for gone in {b.address for b in before.backends} - {b.address for b in backends}:
                self._connections().forget(IPv4Address(gone))
        self._memory.write(self._balanced.values())

    def unbalance(self, port: PortBinding) -> None:
        """Stop it."""
        balance = self._balanced.pop(key(port), None)
        if balance is not None:
            _refuse([balance.reservation], balance.relays())
            self._take_out(balance.rules.removal(self._name))
            self._release([balance.reservation])
            self._memory.write(self._balanced.values())


def _refuse(reservations: Iterable[Reservation], relays: Iterable[tuple[str, str, int]]) -> None:
    relayed = {name for name, _, _ in relays}
    for reservation in reservations:
        reservation.refuse(relayed)
