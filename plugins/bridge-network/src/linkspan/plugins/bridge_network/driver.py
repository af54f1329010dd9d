"""The driver ``bridge``: networks of one host, each a bridge with a subnet of its own."""

import errno
import hashlib
import logging
import re
import shutil
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Self

import attrs
import trio

from linkspan.plugins.bridge_network import rtnetlink, syscalls
from linkspan.plugins.bridge_network.bridges import (
    BRIDGE_NAME,
    INTERFACE_NAME,
    CarriedNetwork,
    is_default,
    mac_of,
    parse_options,
)
from linkspan.plugins.bridge_network.coexistence import ForeignForwarding
from linkspan.plugins.bridge_network.config import BridgeConfig
from linkspan.plugins.bridge_network.firewall import Firewall, PublishedPorts
from linkspan.plugins.bridge_network.graveyard import Grave, Graveyard, Lease, end
from linkspan.plugins.bridge_network.ipam import choose_subnet, parse_address
from linkspan.plugins.bridge_network.namespaces import (
    RESOLVER_ADDRESS,
    LinkPlan,
    Namespaces,
)
from linkspan.plugins.bridge_network.nftables import NftablesError
from linkspan.plugins.bridge_network.pool import (
    Pool,
    Prepared,
    new_endpoint_id,
    plan_link,
    port_name,
)
from linkspan.plugins.bridge_network.resolver import Resolver
from linkspan.plugins.bridge_network.sandbox import Join, LivingSandbox, Memory, recall
from linkspan.plugins.bridge_network.sandbox_files import (
    SandboxFiles,
    failure,
    host_settings,
    hosts_text,
    parse_extra_hosts,
    reachable_from_container,
    with_wishes,
)
from linkspan.sdk.drivers.network import AttachRequest, NetworkCap, NetworkDriver, Sandbox
from linkspan.sdk.errors import (
    Conflict,
    Internal,
    InvalidArgument,
    NotFound,
    NotUsable,
    Unavailable,
    Unsupported,
)
from linkspan.sdk.host import Host
from linkspan.sdk.model.network import (
    AddressPool,
    Backend,
    Endpoint,
    EndpointSpec,
    Network,
    PortBinding,
)

log = logging.getLogger(__name__)

_DEFAULT_MTU = 1500
_LOOK_AFTER_RULES_S = 30.0
_DEFAULT_BRIDGE = "linkspan0"
_MAIN_TABLE = 254
_BR_NETFILTER = "net/bridge/bridge-nf-call-iptables"
_FORWARDING = "net/ipv4/ip_forward"


def short_id(daemon_id: str) -> str:
    """Eight characters that tell daemons apart in names of tables, groups and bridges."""
    if re.match(r"[0-9a-f]{8}", daemon_id):
        return daemon_id[:8]
    return hashlib.sha256(daemon_id.encode()).hexdigest()[:8]


class BridgeNetwork(NetworkDriver[BridgeConfig]):
    """See the module. Made by ``open``.

    All state is changed by the event loop; threads of their own do what blocks: ``Namespaces`` the
    links, ``Firewall`` rules and host ports.
    """

    config_type = BridgeConfig

    def __init__(self, config: BridgeConfig, host: Host) -> None:
        self._config = config
        self._host = host
        self._short_id = short_id(host.daemon.id)
        # A prefix of our own, so that other programs' groups (mostly small numbers) are not met.
        self._group = 0x4C000000 | int(hashlib.sha256(host.daemon.id.encode()).hexdigest()[:6], 16)
        self._sandbox_folder = host.run_dir / "sandboxes"
        self._namespaces = Namespaces(host.run_dir / "netns")
        self._firewall = Firewall(
            f"linkspan_{self._short_id}", self._group, host.run_dir / "balanced.json"
        )
        self._foreign = ForeignForwarding(self._group, f"linkspan:{self._short_id}")
        self._graveyard = Graveyard(self._namespaces)
        self._pool = Pool(
            config.pool_size, self._group, self._namespaces, self._graveyard, self._isolated
        )
        self._resolver = Resolver(self._namespaces)
        self._networks: dict[str, CarriedNetwork] = {}
        self._sandboxes: dict[str, LivingSandbox] = {}
        self._closing = trio.Event()
        self._idle = trio.Event()
        self._idle.set()

    @classmethod
    @asynccontextmanager
    async def open(cls, config: BridgeConfig, host: Host) -> AsyncIterator[Self]:
        """See ``Driver``. Containers and their networking outlive the context.

        When no container is left at its end, everything is taken away.
        """
        driver = cls(config, host)
        try:
            await driver._open()
            await host.start_task(driver._work, name="bridge-network")
            yield driver
        finally:
            with trio.CancelScope(shield=True):
                await driver._close()

    @property
    def capabilities(self) -> NetworkCap:
        """Ports, names, balancing; IPv4 only."""
        return NetworkCap.PUBLISH | NetworkCap.NAMES | NetworkCap.BALANCE

    # Life of the driver

    async def _open(self) -> None:
        await trio.to_thread.run_sync(
            lambda: self._sandbox_folder.mkdir(parents=True, exist_ok=True)
        )
        try:
            await self._firewall.open()
            await self._namespaces.links()
        except (NftablesError, PermissionError) as error:
            raise NotUsable(
                f"bridge networks need the right to change the network (CAP_NET_ADMIN): {error}",
                help="run the daemon as root",
            ) from error

    async def _work(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self._idle = trio.Event()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pool.run)
                nursery.start_soon(self._graveyard.run)
                nursery.start_soon(self._look_after_rules)
                await nursery.start(self._resolver.run)
                task_status.started()
                await self._closing.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._idle.set()

    async def _look_after_rules(self) -> None:
        while True:
            await self._firewall.repair()
            await self._foreign.ensure()
            await trio.sleep(_LOOK_AFTER_RULES_S)

    async def gc(self, known: Iterable[str]) -> Mapping[str, str]:
        """See ``Driver``: ``known`` are ids of containers that have a sandbox."""
        keep = set(known)
        unknown = [container_id for container_id in self._sandboxes if container_id not in keep]
        for container_id in unknown:
            await self.detach(container_id)
        return dict.fromkeys(unknown, "no container has this network sandbox")

    async def _close(self) -> None:
        self._closing.set()
        await self._idle.wait()
        for sandbox in self._sandboxes.values():
            self._resolver.stop(sandbox)
        self._pool.network = None
        await self._namespaces.drop(self._pool.drain())
        await self._graveyard.let_go()
        empty = not self._sandboxes
        if empty:
            await self._delete_all_links()
        await self._foreign.close(remove=empty)
        await self._firewall.close(remove=empty)
        await self._namespaces.close()

    async def _delete_all_links(self) -> None:
        try:
            await self._namespaces.send(rtnetlink.delete_group(self._group))
        except OSError as error:
            if error.errno != errno.ENODEV:  # there is none
                log.warning("links were left behind", extra={"reason": str(error)})

    # Networks

    async def create_network(self, network: Network) -> Network:
        """See ``NetworkDriver``."""
        if network.id in self._networks:
            return self._networks[network.id].network
        _check_spec(network)
        options = parse_options(network.spec.options)
        mtu = options.mtu or self._config.mtu or await self._uplink_mtu()
        foreign = await self._foreign_subnets()
        pool = choose_subnet(
            self._wanted_pool(network),
            self._config.default_address_pools,
            own=[carried.subnet.network for carried in self._networks.values()],
            foreign=foreign,
        )
        chosen = attrs.evolve(network, spec=attrs.evolve(network.spec, pools=(pool,)))
        carried = CarriedNetwork.of(chosen, "", mtu)
        self._networks[network.id] = carried  # from now on its subnet is taken
        try:
            await self._make_bridge(carried, self._bridge_names(network, options.bridge))
        except BaseException:
            del self._networks[network.id]
            with trio.CancelScope(shield=True):
                await self._unmake_bridge(carried)
            raise
        self._keep_ready(carried)
        return carried.network

    def _keep_ready(self, carried: CarriedNetwork) -> None:
        if carried.default:
            self._pool.serve(carried)
        else:
            self._pool.want_bare()

    def _wanted_pool(self, network: Network) -> AddressPool:
        if network.spec.pools:
            return network.spec.pools[0]
        if is_default(network) and self._host.daemon.bridge_address:
            own = self._host.daemon.bridge_address
            try:
                interface = IPv4Interface(own)
            except ValueError as error:
                raise InvalidArgument(f"invalid bridge address '{own}': {error}") from error
            return AddressPool(subnet=str(interface.network), gateway=str(interface.ip))
        return AddressPool()

    def _bridge_names(self, network: Network, wanted: str) -> list[str]:
        if wanted:
            return [wanted]
        if is_default(network):
            return [_DEFAULT_BRIDGE, f"lsbr-{self._short_id}"]
        return [f"br-{network.id[:12]}"]

    async def _make_bridge(self, carried: CarriedNetwork, names: Sequence[str]) -> None:
        for name in names:
            carried.bridge = name
            await self._firewall.add_network(carried.rules)
            try:
                await self._namespaces.send(self._bridge_message(carried))
                break
            except OSError as error:
                await self._firewall.remove_network(name)
                carried.bridge = ""
                if error.errno != errno.EEXIST:
                    raise Internal(f"network {carried.network.name}: {error}") from error
        else:
            raise Conflict(f"a link named {names[-1]} exists already", details={"link": names[-1]})
        await self._set_up_bridge(carried)
        if carried.default:
            options = {**carried.network.spec.options, BRIDGE_NAME: carried.bridge}
            spec = attrs.evolve(carried.network.spec, options=options)
            carried.network = attrs.evolve(carried.network, spec=spec)

    def _bridge_message(self, carried: CarriedNetwork) -> rtnetlink.Message:
        return rtnetlink.bridge(
            carried.bridge,
            group=self._group,
            mac=mac_of(carried.address.ip),
            mtu=carried.mtu,
            alias=f"linkspan:{self._short_id}:{carried.network.name}",
        )

    async def _set_up_bridge(self, carried: CarriedNetwork) -> None:
        links = {link.name: link for link in await self._namespaces.links()}
        carried.index = links[carried.bridge].index
        await self._namespaces.send(
            rtnetlink.address(carried.index, carried.address), rtnetlink.link_up(carried.index)
        )
        # Published ports are asked for over 127.0.0.1, too. Only now: the table guards it.
        sysctl = f"net/ipv4/conf/{carried.bridge}/route_localnet"
        await self._namespaces.set_sysctl(sysctl, "1")
        if not carried.internal:
            before = await self._namespaces.set_sysctl(_FORWARDING, "1")
            if before == "0":
                log.warning("the host forwards packets from now on", extra={"sysctl": _FORWARDING})

    async def _unmake_bridge(self, carried: CarriedNetwork) -> None:
        if carried.bridge:
            await self._graveyard.delete_link(carried.bridge)
            await self._firewall.remove_network(carried.bridge)

    async def remove_network(self, network: Network) -> None:
        """See ``NetworkDriver``. If cancelled: it is removed all the same."""
        carried = self._networks.pop(network.id, None)
        if carried is None:
            return
        with trio.CancelScope(shield=True):
            if self._pool.network is carried:
                await self._pool.clear()
            await self._unmake_bridge(carried)

    async def _uplink_mtu(self) -> int:
        devices = {
            route.device
            for route in await self._namespaces.routes()
            if route.destination.prefixlen == 0 and route.table == _MAIN_TABLE
        }
        sizes = [link.mtu for link in await self._namespaces.links() if link.index in devices]
        return min(sizes, default=_DEFAULT_MTU)

    async def _foreign_subnets(self) -> list[IPv4Network]:
        own = {carried.index for carried in self._networks.values()}
        found = [
            route.destination
            for route in await self._namespaces.routes()
            if route.destination.prefixlen > 0 and route.device not in own
        ]
        addresses = await self._namespaces.addresses()
        found += [interface.network for index, interface in addresses if index not in own]
        settings = await trio.to_thread.run_sync(host_settings)
        for server in settings.servers:
            try:
                found.append(IPv4Network(server))
            except ValueError:
                continue  # an IPv6 server
        return found

    async def _isolated(self, carried: CarriedNetwork) -> bool:
        # With br_netfilter the table sees bridged frames and drops them itself; an isolated port
        # would stop the way back to one's own published port, too.
        if carried.options.icc:
            return False
        return await self._namespaces.sysctl(_BR_NETFILTER) != "1"

    def _carried(self, network: Network) -> CarriedNetwork:
        try:
            return self._networks[network.id]
        except KeyError:
            raise NotFound(f"network {network.name} is not carried by the driver bridge") from None

    # Sandboxes

    async def attach(self, request: AttachRequest) -> Sandbox:
        """See ``NetworkDriver``."""
        await trio.lowlevel.checkpoint()
        if request.container_id in self._sandboxes:
            raise Conflict(
                f"container {request.name} has a network sandbox already", code="sandbox_exists"
            )
        sandbox = LivingSandbox(
            request=attrs.evolve(request, networks=()),
            files=SandboxFiles(self._sandbox_folder / request.container_id),
        )
        self._sandboxes[sandbox.id] = sandbox
        async with sandbox.lock:
            try:
                await self._make_namespace(sandbox, request.networks)
                await self._publish(sandbox)
                await self._write_files(sandbox)
            except BaseException as error:
                with trio.CancelScope(shield=True):
                    await self._end(sandbox)
                if isinstance(error, OSError):
                    raise failure(error, request.name) from error
                raise
            self._make_known(sandbox)
            return sandbox.view()

    async def _make_namespace(
        self, sandbox: LivingSandbox, networks: Sequence[tuple[Network, EndpointSpec]]
    ) -> None:
        prepared = self._take_prepared(networks)
        rest = networks
        if prepared is not None:
            network, spec = networks[0]
            sandbox.path = prepared.path
            self._take_over(sandbox, self._carried(network), spec, prepared)
            rest = networks[1:]
        links = [await self._join(sandbox, self._carried(network), spec) for network, spec in rest]
        if prepared is None:
            await self._furnish(sandbox, links)
            return
        for link in links:
            await self._namespaces.add_link(sandbox.path, link)
        if sandbox.needs_resolver:
            sandbox.resolver = await self._namespaces.open_resolver(sandbox.path)

    async def _furnish(self, sandbox: LivingSandbox, links: list[LinkPlan]) -> None:
        way_out = next((j for j in sandbox.joins.values() if not j.network.internal), None)
        gateway = way_out.network.gateway if way_out else None
        ordered = _put_first(links, way_out)
        bare = self._pool.take_bare() if sandbox.needs_resolver else None
        if bare is not None:
            sandbox.path, sandbox.resolver = bare.path, bare.resolver
            await self._namespaces.furnish(bare.path, ordered, gateway=gateway)
            return
        sandbox.path, sandbox.resolver = await self._namespaces.create(
            new_endpoint_id()[:12], ordered, gateway=gateway, resolver=sandbox.needs_resolver
        )

    def _take_prepared(self, networks: Sequence[tuple[Network, EndpointSpec]]) -> Prepared | None:
        if not networks:
            return None
        network, spec = networks[0]
        wishes = spec.ipv4_address or spec.mac_address or spec.ipv6_address or spec.driver_options
        ours = self._pool.network
        if wishes or ours is None or ours.id != network.id:
            return None
        return self._pool.take()

    def _take_over(
        self,
        sandbox: LivingSandbox,
        carried: CarriedNetwork,
        spec: EndpointSpec,
        prepared: Prepared,
    ) -> None:
        endpoint = self._endpoint(sandbox, carried, spec, prepared.endpoint_id, prepared.link)
        sandbox.joins[carried.id] = Join(carried, endpoint, prepared.lease)

    async def _join(
        self, sandbox: LivingSandbox, carried: CarriedNetwork, spec: EndpointSpec
    ) -> LinkPlan:
        if spec.ipv6_address:
            raise Unsupported(f"network {carried.network.name} has no IPv6: not supported yet")
        if carried.id in sandbox.joins:
            raise Conflict(
                f"container {sandbox.request.name} is in network {carried.network.name} already"
            )
        isolated = await self._isolated(carried)
        lease = await self._take_address(carried, spec)
        endpoint_id = new_endpoint_id()
        wanted_name = spec.driver_options.get(INTERFACE_NAME)
        link = plan_link(
            carried,
            self._group,
            endpoint_id=endpoint_id,
            name=wanted_name or sandbox.free_interface_name(carried.options.interface_prefix),
            address=lease.address,
            mac=_checked_mac(spec.mac_address, lease),
            isolated=isolated,
        )
        endpoint = self._endpoint(sandbox, carried, spec, endpoint_id, link)
        sandbox.joins[carried.id] = Join(carried, endpoint, lease)
        return link

    def _endpoint(
        self,
        sandbox: LivingSandbox,
        carried: CarriedNetwork,
        spec: EndpointSpec,
        endpoint_id: str,
        link: LinkPlan,
    ) -> Endpoint:
        return Endpoint(
            id=endpoint_id,
            network_id=carried.id,
            network_name=carried.network.name,
            interface=link.name,
            ipv4_address=str(link.interface.ip),
            ipv4_prefix=link.interface.network.prefixlen,
            gateway=str(carried.gateway or ""),
            mac_address=link.mac,
            spec=spec,
            names=_names(sandbox.request, spec),
        )

    async def _take_address(self, carried: CarriedNetwork, spec: EndpointSpec) -> Lease:
        subnet = carried.subnet
        if spec.ipv4_address:
            address = parse_address(spec.ipv4_address, "address")
            subnet.check(address)
            lease = Lease(subnet, address)
            if subnet.is_taken(address):
                self._pool.give_up(lease)
            if self._graveyard.holds(lease):
                await self._graveyard.flush()
            subnet.take_fixed(address)
            return lease
        try:
            return Lease(subnet, subnet.take())
        except Unavailable:
            # Addresses of ended containers come back a second later, and some lie in the pool.
            await self._graveyard.flush()
            if self._pool.network is carried:
                await self._pool.clear()
                self._pool.serve(carried)
            return Lease(subnet, subnet.take())

    async def _publish(self, sandbox: LivingSandbox) -> None:
        way_out = next((j for j in sandbox.joins.values() if not j.network.internal), None)
        if way_out is None or not sandbox.request.ports:
            return
        binding = way_out.network.options.host_binding
        wanted = [
            attrs.evolve(port, host_ip=binding) if binding and not port.host_ip else port
            for port in sandbox.request.ports
        ]
        sandbox.ports = await self._firewall.publish(
            sandbox.id, f"container {sandbox.request.name}", way_out.address, wanted
        )
        sandbox.published_at = way_out.endpoint.id

    async def _write_files(self, sandbox: LivingSandbox) -> None:
        hosts = hosts_text(
            [sandbox.own_hosts(join) for join in sandbox.joins.values()],
            [*self._linked_hosts(sandbox), *self._extra_hosts(sandbox.request)],
        )
        hostname = sandbox.request.hostname

        def write() -> None:
            sandbox.resolv_conf = _resolv_conf(sandbox)
            sandbox.files.write(hosts=hosts, resolv_conf=sandbox.resolv_conf, hostname=hostname)
            sandbox.remember()

        await trio.to_thread.run_sync(write)

    def _extra_hosts(self, request: AttachRequest) -> list[tuple[str, str]]:
        default = next((c for c in self._networks.values() if c.default), None)
        gateway = default.subnet.gateway if default else None
        return parse_extra_hosts(request.extra_hosts, gateway)

    def _linked_hosts(self, sandbox: LivingSandbox) -> list[tuple[str, str]]:
        """Links on the default network are lines in the hosts file: it has no name service."""
        lines = []
        for join in sandbox.joins.values():
            if not join.network.default:
                continue
            for link in join.endpoint.spec.links:
                target, _, alias = link.partition(":")
                for address in join.network.zone.resolve(target.lower()):
                    lines.append((str(address), " ".join(dict.fromkeys((alias or target, target)))))
        return lines

    def _make_known(self, sandbox: LivingSandbox) -> None:
        for join in sandbox.joins.values():
            join.network.zone.add(join.endpoint.id, join.endpoint.names, join.address)
        self._resolver.serve(sandbox)

    async def detach(self, container_id: str) -> None:
        """See ``NetworkDriver``. If cancelled: it is ended all the same."""
        await trio.lowlevel.checkpoint()
        sandbox = self._sandboxes.get(container_id)
        if sandbox is None:
            return
        with trio.CancelScope(shield=True):
            async with sandbox.lock:
                if self._sandboxes.get(container_id) is sandbox:
                    await self._end(sandbox)

    async def _end(self, sandbox: LivingSandbox) -> None:
        for join in sandbox.joins.values():
            join.network.zone.remove(join.endpoint.id)
        self._resolver.stop(sandbox)
        await self._firewall.unpublish(sandbox.id)
        for join in sandbox.joins.values():
            await self._firewall.forget(join.address)
        joins = sandbox.joins.values()
        if sandbox.path:
            ports = tuple(port_name(join.endpoint.id) for join in joins)
            leases = tuple(join.lease for join in joins)
            self._graveyard.bury(Grave(sandbox.path, ports, leases))
        else:
            end(join.lease for join in joins)
        await trio.to_thread.run_sync(
            lambda: shutil.rmtree(sandbox.files.folder, ignore_errors=True)
        )
        del self._sandboxes[sandbox.id]

    async def connect(self, container_id: str, network: Network, spec: EndpointSpec) -> Endpoint:
        """See ``NetworkDriver``.

        Raises:
            NotFound: There is no such sandbox, or network.
            Conflict: It is in the network, or code ``address_taken``.
            InvalidArgument, Unavailable: As ``attach``.
        If cancelled or failed: nothing is left.
        """
        sandbox = self._living(container_id)
        carried = self._carried(network)
        async with sandbox.lock:
            link = await self._join(sandbox, carried, spec)
            join = sandbox.joins[carried.id]
            try:
                await self._namespaces.add_link(sandbox.path, link)
            except BaseException as error:
                del sandbox.joins[carried.id]
                join.lease.end()
                if isinstance(error, OSError):
                    raise Internal(f"network {network.name}: {error}") from error
                raise
            with trio.CancelScope(shield=True):
                if sandbox.needs_resolver and sandbox.resolver is None:
                    sandbox.resolver = await self._namespaces.open_resolver(sandbox.path)
                    self._resolver.serve(sandbox)
                carried.zone.add(join.endpoint.id, join.endpoint.names, join.address)
                await self._settle(sandbox, added=join)
            return join.endpoint

    async def disconnect(self, container_id: str, network: Network) -> None:
        """See ``NetworkDriver``.

        Raises:
            NotFound: There is no such sandbox, or it is not in the network.
        If cancelled: it is out of the network all the same.
        """
        sandbox = self._living(container_id)
        async with sandbox.lock:
            join = sandbox.joins.get(network.id)
            if join is None:
                raise NotFound(
                    f"container {sandbox.request.name} is not connected to network {network.name}"
                )
            with trio.CancelScope(shield=True):
                join.network.zone.remove(join.endpoint.id)
                del sandbox.joins[network.id]
                await self._settle(sandbox, removed=join)
                await self._firewall.forget(join.address)
                await self._namespaces.remove_link(sandbox.path, join.endpoint.interface)
                join.lease.end()

    async def _settle(
        self, sandbox: LivingSandbox, *, added: Join | None = None, removed: Join | None = None
    ) -> None:
        """Put the default route, published ports and files right after a change of networks."""
        way_out = sandbox.way_out()
        if way_out is None:
            await self._namespaces.set_default_route(sandbox.path, "", None)
            await self._firewall.unpublish(sandbox.id)
            sandbox.ports, sandbox.published_at = (), ""
        else:
            gateway = way_out.network.gateway
            interface = way_out.endpoint.interface
            await self._namespaces.set_default_route(sandbox.path, interface, gateway)
            await self._move_ports(sandbox, way_out)

        def write() -> None:
            if added is not None:
                sandbox.files.add_hosts([sandbox.own_hosts(added)])
            if removed is not None:
                sandbox.files.remove_hosts([sandbox.own_hosts(removed)])
            wanted = _resolv_conf(sandbox)
            if sandbox.files.change_resolv_conf(sandbox.resolv_conf, wanted):
                sandbox.resolv_conf = wanted
            sandbox.remember()

        await trio.to_thread.run_sync(write)

    async def _move_ports(self, sandbox: LivingSandbox, way_out: Join) -> None:
        if not sandbox.ports:
            await self._publish(sandbox)
        elif sandbox.published_at != way_out.endpoint.id:
            await self._firewall.move(sandbox.id, way_out.address)
            sandbox.published_at = way_out.endpoint.id

    async def rename(self, container_id: str, name: str) -> None:
        """See ``NetworkDriver``. If cancelled: it has the new name all the same."""
        sandbox = self._sandboxes.get(container_id)
        if sandbox is None:
            return
        async with sandbox.lock:
            with trio.CancelScope(shield=True):
                sandbox.request = attrs.evolve(sandbox.request, name=name)
                for join in sandbox.joins.values():
                    names = _names(sandbox.request, join.endpoint.spec)
                    join.network.zone.remove(join.endpoint.id)
                    join.endpoint = attrs.evolve(join.endpoint, names=names)
                    join.network.zone.add(join.endpoint.id, names, join.address)
                await trio.to_thread.run_sync(sandbox.remember)

    def _living(self, container_id: str) -> LivingSandbox:
        try:
            return self._sandboxes[container_id]
        except KeyError:
            raise NotFound(f"container {container_id[:12]} has no network sandbox") from None

    # Balanced ports

    async def balance(self, port: PortBinding, backends: tuple[Backend, ...]) -> PortBinding:
        """See ``NetworkDriver``. Without backends connections are refused at once.

        If cancelled: either done or not begun.
        """
        return await self._firewall.balance(port, backends)

    async def unbalance(self, port: PortBinding) -> None:
        """See ``NetworkDriver``. If cancelled: either done or not begun."""
        await self._firewall.unbalance(port)

    # After a restart of the daemon

    async def restore(self, networks: Iterable[Network], sandboxes: Iterable[Sandbox]) -> list[str]:
        """See ``NetworkDriver``. If cancelled: call it again."""
        notes: list[str] = []
        links = {link.name: link for link in await self._namespaces.links()}
        for network in networks:
            if network.id not in self._networks:
                self._networks[network.id] = await self._recall_network(network)
        memories = await self._recall_sandboxes(sandboxes, notes)
        await self._remove_leftovers(links)
        published = [ports for each in self._sandboxes.values() if (ports := _published(each))]
        living = {
            str(join.address) for each in self._sandboxes.values() for join in each.joins.values()
        }
        notes += await self._firewall.restore(
            [carried.rules for carried in self._networks.values()], published, living
        )
        for carried in self._networks.values():
            await self._repair_bridge(carried, links, notes)
        for sandbox in self._sandboxes.values():
            await self._repair_ports(sandbox, links, notes)
            if sandbox.needs_resolver and sandbox.resolver is None:
                sandbox.resolver = await self._namespaces.open_resolver(sandbox.path)
            self._make_known(sandbox)
        for carried in self._networks.values():
            self._keep_ready(carried)
        log.info("networks restored", extra={"sandboxes": len(memories), "notes": notes})
        return notes

    async def _recall_network(self, network: Network) -> CarriedNetwork:
        options = parse_options(network.spec.options)
        mtu = options.mtu or self._config.mtu or await self._uplink_mtu()
        bridge = self._bridge_names(network, options.bridge)[0]
        return CarriedNetwork.of(network, bridge, mtu)

    async def _recall_sandboxes(
        self, sandboxes: Iterable[Sandbox], notes: list[str]
    ) -> list[LivingSandbox]:
        found = []
        for record in sandboxes:
            if record.container_id in self._sandboxes or record.namespace is None:
                continue
            folder = self._sandbox_folder / record.container_id
            memory = await trio.to_thread.run_sync(recall, folder)
            if not syscalls.is_network_namespace(record.namespace) or memory is None:
                name = memory.request.name if memory else record.container_id[:12]
                notes.append(f"the network namespace of container {name} is gone")
                continue
            sandbox = self._recall_sandbox(record, memory)
            self._sandboxes[sandbox.id] = sandbox
            found.append(sandbox)
        return found

    def _recall_sandbox(self, record: Sandbox, memory: Memory) -> LivingSandbox:
        sandbox = LivingSandbox(
            request=memory.request,
            files=SandboxFiles(self._sandbox_folder / record.container_id),
            path=record.namespace or "",
            ports=record.ports,
            published_at=memory.published_at,
            resolv_conf=memory.resolv_conf,
        )
        for endpoint in record.endpoints:
            carried = self._networks.get(endpoint.network_id)
            if carried is None:
                continue
            lease = Lease(carried.subnet, IPv4Address(endpoint.ipv4_address))
            carried.subnet.keep(lease.address)
            sandbox.joins[carried.id] = Join(carried, endpoint, lease)
        return sandbox

    async def _remove_leftovers(self, links: dict[str, rtnetlink.Link]) -> None:
        known = {Path(sandbox.path) for sandbox in self._sandboxes.values()}
        stale = [path for path in self._namespaces.files() if Path(path) not in known]
        bridges = {carried.bridge for carried in self._networks.values()}
        ports = {
            port_name(join.endpoint.id)
            for sandbox in self._sandboxes.values()
            for join in sandbox.joins.values()
        }
        await self._namespaces.drop(stale)
        unknown = {
            link.name: link.kind
            for link in links.values()
            if link.group == self._group and link.name not in bridges | ports
        }
        # The kernel takes the links of dropped namespaces away together, much faster than one by one.
        await self._graveyard.until_gone(name for name, kind in unknown.items() if kind == "veth")
        for name in unknown:
            await self._graveyard.delete_link(name)

        def remove_folders() -> None:
            for folder in self._sandbox_folder.iterdir():
                if folder.name not in self._sandboxes:
                    shutil.rmtree(folder, ignore_errors=True)

        await trio.to_thread.run_sync(remove_folders)

    async def _repair_bridge(
        self, carried: CarriedNetwork, links: dict[str, rtnetlink.Link], notes: list[str]
    ) -> None:
        if carried.bridge not in links:
            await self._namespaces.send(self._bridge_message(carried))
            notes.append(
                f"made the bridge {carried.bridge} of network {carried.network.name} again"
            )
        await self._set_up_bridge(carried)

    async def _repair_ports(
        self, sandbox: LivingSandbox, links: dict[str, rtnetlink.Link], notes: list[str]
    ) -> None:
        for join in sandbox.joins.values():
            port = links.get(port_name(join.endpoint.id))
            if port is None:
                notes.append(
                    f"the link of container {sandbox.request.name} to network"
                    f" {join.network.network.name} is gone"
                )
            elif port.master != join.network.index:
                await self._namespaces.send(rtnetlink.enslave(port.name, master=join.network.index))
                notes.append(f"put container {sandbox.request.name} on its bridge again")


def _check_spec(network: Network) -> None:
    spec = network.spec
    if spec.enable_ipv6:
        raise Unsupported(
            f"network {network.name}: IPv6 is not supported yet", help="leave out --ipv6"
        )
    if len(spec.pools) > 1:
        raise Unsupported(f"network {network.name}: more than one subnet is not supported")
    if spec.ipam_driver not in ("", "default"):
        raise InvalidArgument(
            f"network {network.name}: unknown address manager '{spec.ipam_driver}'",
            help="leave it out, or write default",
        )


def _names(request: AttachRequest, spec: EndpointSpec) -> tuple[str, ...]:
    names = (request.name, *spec.aliases, request.container_id[:12], request.hostname)
    return tuple(dict.fromkeys(name for name in names if name))


def _checked_mac(text: str, lease: Lease) -> str:
    if not text or re.fullmatch(r"([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}", text):
        return text.lower()
    lease.end()
    raise InvalidArgument(f"invalid MAC address '{text}'", help="write 02:42:ac:11:00:02")


def _put_first(links: list[LinkPlan], way_out: Join | None) -> list[LinkPlan]:
    if way_out is None:
        return links
    return sorted(links, key=lambda link: link.name != way_out.endpoint.interface)


def _resolv_conf(sandbox: LivingSandbox) -> str:
    """The container's resolv.conf. Blocks: it reads the host's."""
    request = sandbox.request
    settings = with_wishes(
        host_settings(), dns=request.dns, search=request.dns_search, options=request.dns_options
    )
    if sandbox.needs_resolver:
        options = settings.options
        if not any(option.startswith("ndots:") for option in options):
            options = (*options, "ndots:0")
        return attrs.evolve(settings, servers=(RESOLVER_ADDRESS,), options=options).text()
    return (settings if request.dns else reachable_from_container(settings)).text()


def _published(sandbox: LivingSandbox) -> PublishedPorts | None:
    at = [j for j in sandbox.joins.values() if j.endpoint.id == sandbox.published_at]
    if not sandbox.ports or not at:
        return None
    return PublishedPorts(
        container_id=sandbox.id,
        owner=f"container {sandbox.request.name}",
        address=at[0].address,
        ports=sandbox.ports,
    )
