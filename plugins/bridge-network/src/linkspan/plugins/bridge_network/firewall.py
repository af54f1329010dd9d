"""Networks, published and balanced ports in the daemon's nft table, in one dedicated thread.

The thread owns the state: nothing else reads or changes it. Every change is one transaction, made
after the host ports are reserved and undone with them.
"""

import json
import logging
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import TypeVar

import attrs
import trio

from linkspan.plugins.bridge_network import ruleset
from linkspan.plugins.bridge_network.conntrack import Conntrack
from linkspan.plugins.bridge_network.ipam import Address
from linkspan.plugins.bridge_network.keeping import KeeperGone, Keeping
from linkspan.plugins.bridge_network.nfnetlink import NetfilterSocket
from linkspan.plugins.bridge_network.nftables import Nftables, NftablesCrashed, NftablesError
from linkspan.plugins.bridge_network.ports import Ports, Reservation
from linkspan.plugins.bridge_network.publications import (
    Balance,
    Publication,
    PublishedPorts,
    Target,
)
from linkspan.plugins.bridge_network.rtnetlink import RtNetlink
from linkspan.plugins.bridge_network.ruleset import BalancedPort, BridgeRules
from linkspan.plugins.bridge_network.table import Table
from linkspan.plugins.bridge_network.watching import RuleWatch, open_watch
from linkspan.plugins.bridge_network.worker import Worker
from linkspan.sdk.errors import InvalidArgument, LinkspanError
from linkspan.sdk.files import replace_file
from linkspan.sdk.model.network import Backend, PortBinding

log = logging.getLogger(__name__)

T = TypeVar("T")

_BALANCE_OWNER = "a balanced service port"
_OWNERSHIP = "table"


class Firewall:
    """See the module.

    Args:
        table: Name of the table.
        group: Link group of the daemon's bridges.
        folder: Of the keeper's socket, and of the file that remembers balanced ports.
        nft: Changes the rules; the caller's to close, after ``close``.
    """

    def __init__(self, table: str, group: int, folder: Path, nft: Nftables) -> None:
        self._name = table
        self._group = group
        self._folder = folder
        self._nft = nft
        self._stale = False
        self._memory = folder / "balanced.json"
        self._keep_apart: frozenset[int] = frozenset()
        self._worker = Worker("linkspan-nft")
        self._table: Table | None = None
        self._keeping: Keeping | None = None
        self._netfilter: NetfilterSocket | None = None
        self._conntrack: Conntrack | None = None
        self._ports = Ports()
        self._networks: dict[str, BridgeRules] = {}
        self._published: dict[str, Publication] = {}
        self._balanced: dict[tuple[str, str, int], Balance] = {}

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
        """Load the table again if another program has flushed it, or if it could not be loaded before."""
        await self._worker.run(self._repair_if_possible)

    async def has_table(self, name: str) -> bool:
        """Whether there is a table of family inet with this name, another program's."""
        return await self._worker.run(self._has_table, name)

    async def watch(self) -> RuleWatch:
        """Notice from now on what other programs do to rules.

        Raises:
            OSError: The kernel does not tell.
        """
        return RuleWatch(await self._worker.run(open_watch), self._name)

    async def add_network(self, rules: BridgeRules) -> None:
        """Know one more network."""
        await self._worker.run(self._add_network, rules)

    async def remove_network(self, bridge: str) -> None:
        """Forget a network; silent if it is unknown."""
        await self._worker.run(self._remove_network, bridge)

    async def publish(
        self, container_id: str, owner: str, target: Target, ports: Sequence[PortBinding]
    ) -> tuple[PortBinding, ...]:
        """Publish a container's ports, all or none; return them with their host ports.

        Raises:
            Conflict: code ``port_taken``.
            InvalidArgument: A port or address that cannot be.
        """
        return await self._worker.run(self._publish, container_id, owner, target, tuple(ports))

    async def unpublish(self, container_id: str) -> None:
        """Take a container's ports back; silent if there are none."""
        await self._worker.run(self._unpublish, container_id)

    async def move(self, container_id: str, target: Target) -> None:
        """Lead a container's ports to other addresses of it; the host ports stay."""
        await self._worker.run(self._move, container_id, target)

    async def forget(self, addresses: Sequence[Address]) -> None:
        """A container's addresses are gone: no connection leads there, tracked or new."""
        await self._worker.run(self._forget, tuple(addresses))

    async def stop_forwarding_foreign(self, version: int) -> None:
        """Forward what comes from or goes to our bridges only: the host is no router otherwise."""
        await self._worker.run(self._stop_forwarding_foreign, version)

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
        """Change the table; if it is not what the books say, it is loaded again first."""
        table = self._its_table()
        try:
            table.run(text)
        except NftablesCrashed:
            self._stale = True  # it may be changed or not
            self._load()
            table.run(text)
        except NftablesError:
            if table.is_there():
                raise
            self._repair()
            table.run(text)

    def _has_table(self, name: str) -> bool:
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
            self._load()
        except NftablesCrashed:
            self._stale = True
        return not self._stale

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._nft.start()
        self._netfilter = NetfilterSocket()
        self._conntrack = Conntrack(self._netfilter)
        self._table = Table(self._name, self._netfilter, self._nft)
        was_there = self._table.is_there()
        self._keeping = Keeping(self._folder)
        kept = self._keep(lambda keeping: keeping.fetch()) or {}
        self._ports.settle = self._settle
        ownership = kept.pop(_OWNERSHIP, None)
        self._ports.know_kept(kept)
        self._table.claim(ownership)
        if not was_there:
            self._load()
        self._keep_table()

    def _close(self, remove: bool) -> None:
        try:
            if self._table is not None and remove:
                with suppress(NftablesCrashed):  # said so in the log
                    self._table.drop()
                self._memory.unlink(missing_ok=True)
        finally:
            self._ports.drop_kept()
            if self._keeping is not None:
                self._keeping.end() if remove else self._keeping.close()
            if self._netfilter is not None:
                self._netfilter.close()
            for publication in self._published.values():
                self._ports.release(publication.reservations)
            self._ports.release(balance.reservation for balance in self._balanced.values())

    def _keep(self, what: Callable[[Keeping], T]) -> T | None:
        """Ask something of the keeper; if it was killed, another one is told everything first."""
        assert self._keeping is not None
        try:
            return what(self._keeping)
        except KeeperGone as error:
            log.warning("the keeper is started again", extra={"reason": str(error)})
        try:
            self._keeping.renew()
            self._keep_table()
            for publication in self._published.values():
                self._entrust(publication.reservations, publication.relays())
            for balance in self._balanced.values():
                self._entrust([balance.reservation], balance.relays())
            return what(self._keeping)
        except (KeeperGone, OSError) as error:
            log.error("the keeper cannot be started", extra={"reason": str(error)})  # noqa: TRY400
            return None

    def _settle(self) -> None:
        self._keep(lambda keeping: keeping.settle())

    def _keep_table(self) -> None:
        ownership = self._its_table().ownership()
        if ownership is not None:
            with ownership:
                self._keep(lambda keeping: keeping.hold({_OWNERSHIP: ownership}))

    def _entrust(
        self, reservations: Iterable[Reservation], relays: Sequence[tuple[str, str, int]]
    ) -> None:
        sockets: dict[str, socket.socket] = {}
        for reservation in reservations:
            sockets |= reservation.named_sockets()
        # Until it is relayed a datagram is lost, while a tcp client comes again by itself.
        matters = any(name.startswith("udp") for name, _, _ in relays)

        def hold(keeping: Keeping) -> None:
            if sockets:
                keeping.hold(sockets)
            for name, address, port in relays:
                keeping.relay(name, address, port)
            if matters:
                keeping.settle()

        self._keep(hold)

    def _release(self, reservations: Iterable[Reservation]) -> None:
        gone = list(reservations)
        names = [name for reservation in gone for name in reservation.named_sockets()]
        self._ports.release(gone)
        if names:
            self._keep(lambda keeping: keeping.release(names))

    def _restore(
        self, networks: list[BridgeRules], published: list[PublishedPorts], living: set[str]
    ) -> list[str]:
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
        for binding, backends in self._remembered():
            reservation = self._reserve_again(_BALANCE_OWNER, binding, notes)
            alive = tuple(backend for backend in backends if backend.address in living)
            self._keep_balance(reservation, binding, alive)
        if not self._load_if_possible():
            notes.append("the firewall table stays as the last daemon left it: nftables crashes")
        unclaimed = self._ports.drop_kept()
        if unclaimed:
            self._keep(lambda keeping: keeping.release(unclaimed))
        for publication in self._published.values():
            self._entrust(publication.reservations, publication.relays())
        for balance in self._balanced.values():
            self._entrust([balance.reservation], balance.relays())
        return notes

    def _load(self) -> None:
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

    def _stop_forwarding_foreign(self, version: int) -> None:
        if version not in self._keep_apart:
            self._keep_apart |= {version}
            self._load()

    def _repair_if_possible(self) -> None:
        try:
            self._repair()
        except NftablesCrashed:
            self._stale = True

    def _repair(self) -> None:
        table = self._its_table()
        if not table.is_there():
            table.claim(None)
            self._load()
            self._keep_table()
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

    def _add_network(self, rules: BridgeRules) -> None:
        self._run(ruleset.add(self._name, rules.elements()))
        self._networks[rules.bridge] = rules

    def _remove_network(self, bridge: str) -> None:
        rules = self._networks.pop(bridge, None)
        if rules is not None:
            self._take_out(ruleset.delete(self._name, rules.elements()))

    def _publish(
        self, container_id: str, owner: str, target: Target, ports: tuple[PortBinding, ...]
    ) -> tuple[PortBinding, ...]:
        families = {address.version for address in target.addresses} - target.routed
        reservations = self._ports.reserve(owner, ports) if families else []
        publication = self._publication(target, reservations, ports)
        try:
            self._run(ruleset.add(self._name, publication.elements()))
        except BaseException:
            self._ports.release(reservations)
            raise
        self._published[container_id] = publication
        self._entrust(reservations, publication.relays())
        self._purge_early(reservations)
        return tuple(reservation.shown() for reservation in reservations) if families else ports

    def _publication(
        self,
        target: Target,
        reservations: list[Reservation],
        ports: Iterable[PortBinding] = (),
    ) -> Publication:
        opened = tuple(ports) or tuple(each.binding for each in reservations)
        return Publication(target, reservations, opened)

    def _unpublish(self, container_id: str) -> None:
        publication = self._published.pop(container_id, None)
        if publication is not None:
            self._take_out(ruleset.delete(self._name, publication.elements()))
            self._release(publication.reservations)

    def _move(self, container_id: str, target: Target) -> None:
        publication = self._published.get(container_id)
        if publication is None:
            return
        before = publication.elements()
        old, publication.target = publication.target, target
        try:
            self._run(
                ruleset.delete(self._name, before) + ruleset.add(self._name, publication.elements())
            )
        except BaseException:
            publication.target = old
            raise
        self._entrust((), publication.relays())
        self._purge_early(publication.reservations)

    def _forget(self, addresses: tuple[Address, ...]) -> None:
        texts = {str(address) for address in addresses}
        for balance in self._balanced.values():
            kept = tuple(b for b in balance.rules.backends if b.address not in texts)
            if kept != balance.rules.backends:
                self._replace(balance, kept)
        for address in addresses:
            self._purge(address)

    def _balance(self, port: PortBinding, backends: tuple[Backend, ...]) -> PortBinding:
        _check_backends(backends)
        known = self._balanced.get(_key(port))
        if known is not None:
            self._replace(known, backends)
            return known.reservation.binding
        _balanced_address(port)
        reservation = self._ports.reserve(_BALANCE_OWNER, [port])[0]
        balance = self._keep_balance(reservation, reservation.binding, backends)
        try:
            self._run(balance.rules.change(self._name, None))
        except BaseException:
            del self._balanced[_key(reservation.binding)]
            self._ports.release([reservation])
            raise
        self._entrust([reservation], balance.relays())
        self._purge_early([reservation])
        self._remember()
        return reservation.binding

    def _keep_balance(
        self, reservation: Reservation, binding: PortBinding, backends: tuple[Backend, ...]
    ) -> Balance:
        rules = BalancedPort(
            host_ip=_balanced_address(binding),
            protocol=binding.protocol,
            host_port=binding.host_port,
            backends=backends,
        )
        balance = Balance(reservation, rules)
        self._balanced[_key(binding)] = balance
        return balance

    def _replace(self, balance: Balance, backends: tuple[Backend, ...]) -> None:
        before = balance.rules
        after = attrs.evolve(before, backends=backends)
        self._run(after.change(self._name, before))
        balance.rules = after
        if before.protocol == "udp":
            # Datagrams have no end: flows to a backend that is gone are led anew.
            for gone in {b.address for b in before.backends} - {b.address for b in backends}:
                self._purge(IPv4Address(gone))
        self._remember()

    def _unbalance(self, port: PortBinding) -> None:
        balance = self._balanced.pop(_key(port), None)
        if balance is not None:
            self._take_out(balance.rules.removal(self._name))
            self._release([balance.reservation])
            self._remember()

    def _purge_early(self, reservations: Iterable[Reservation]) -> None:
        """Forget connections that clients have begun before the ports led anywhere."""
        wanted = [
            (reservation, address)
            for reservation in reservations
            if reservation.early_clients()
            for address in reservation.sockets
        ]
        own = self._own_addresses() if wanted else []
        for reservation, address in wanted:
            binding = reservation.binding
            same_family = [each for each in own if each.version == address.version]
            for each in [address] if int(address) else same_family:
                self._purge(each, binding.protocol, binding.host_port)

    def _own_addresses(self) -> list[Address]:
        with RtNetlink() as netlink:
            return [interface.ip for _, interface in netlink.addresses()]

    def _purge(self, address: Address, protocol: str = "", port: int = 0) -> None:
        """Forget tracked connections: to a port of the host, or all of a container."""
        assert self._conntrack is not None
        try:
            if port:
                self._conntrack.purge_port(protocol, address, port)
            else:
                self._conntrack.purge_replies_from(address)
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
        replace_file(self._memory, json.dumps(records).encode())

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


def _balanced_address(port: PortBinding) -> IPv4Address:
    """The address of a balanced port; its IPv6 clients come by the relay."""
    try:
        return IPv4Address(port.host_ip or 0)
    except ValueError as error:
        raise InvalidArgument(
            f"invalid host address '{port.host_ip}' of a balanced port: it is not an IPv4 address",
            help="leave it out: then the port is balanced on all addresses, IPv6 ones too",
        ) from error


def _check_backends(backends: Iterable[Backend]) -> None:
    for backend in backends:
        try:
            IPv4Address(backend.address)
        except ValueError as error:
            raise InvalidArgument(f"invalid backend address '{backend.address}'") from error
        if not 1 <= backend.port <= 65535:
            raise InvalidArgument(f"invalid backend port {backend.port}")
