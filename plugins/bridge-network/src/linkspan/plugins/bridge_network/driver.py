"""The driver ``bridge``: networks of one host, each a bridge with a subnet of its own."""

import errno
import hashlib
import logging
import re
import shutil
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar, Self

import attrs
import trio

from linkspan.plugins.bridge_network import firewalld, rtnetlink
from linkspan.plugins.bridge_network.bridges import CarriedNetwork
from linkspan.plugins.bridge_network.coexistence import ForeignForwarding
from linkspan.plugins.bridge_network.config import BridgeConfig
from linkspan.plugins.bridge_network.endpoints import Endpoints, names_of
from linkspan.plugins.bridge_network.firewall import Firewall
from linkspan.plugins.bridge_network.firewalld import Firewalld
from linkspan.plugins.bridge_network.graveyard import Grave, Graveyard, end
from linkspan.plugins.bridge_network.namespaces import RESOLVER_ADDRESS, LinkPlan, Namespaces
from linkspan.plugins.bridge_network.networks import BridgeNetworks
from linkspan.plugins.bridge_network.nftables import Nftables, NftablesCrashed, NftablesError
from linkspan.plugins.bridge_network.pool import Pool, new_endpoint_id, port_name
from linkspan.plugins.bridge_network.resolver import Resolver
from linkspan.plugins.bridge_network.restoring import Restoring, published
from linkspan.plugins.bridge_network.sandbox import Join, LivingSandbox
from linkspan.plugins.bridge_network.sandbox_files import (
    SandboxFiles,
    failure,
    hosts_text,
    parse_extra_hosts,
    reachable_from_container,
    wished_settings,
)
from linkspan.sdk.drivers.network import AttachRequest, NetworkCap, NetworkDriver, Sandbox
from linkspan.sdk.errors import Conflict, Internal, LinkspanError, NotFound, NotUsable, Unsupported
from linkspan.sdk.host import Host
from linkspan.sdk.model.network import (
    Backend,
    Endpoint,
    EndpointSpec,
    Network,
    PortBinding,
)
from linkspan.sdk.threads import in_thread

log = logging.getLogger(__name__)

_LOOK_AFTER_RULES_S = 30.0


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
    _started: ClassVar[list[Nftables]] = []

    @classmethod
    def prepare_process(cls, config: BridgeConfig, run_dir: Path) -> None:
        """Start nftables' process, so that it is up by the time it is needed."""
        nft = Nftables()
        try:
            nft.start()
        except OSError:
            nft.close()  # `open` tries again, and says why
        else:
            cls._started.append(nft)

    def __init__(self, config: BridgeConfig, host: Host) -> None:
        self._config = config
        self._short_id = short_id(host.daemon.id)
        # A prefix of our own, so that other programs' groups (mostly small numbers) are not met.
        self._group = 0x4C000000 | int(hashlib.sha256(host.daemon.id.encode()).hexdigest()[:6], 16)
        self._sandbox_folder = host.run_dir / "sandboxes"
        self._nft = self._started.pop() if self._started else Nftables()
        self._namespaces = Namespaces(host.run_dir / "netns", self._nft)
        self._firewall = Firewall(
            f"linkspan_{self._short_id}", self._group, host.run_dir, self._nft
        )
        self._foreign = ForeignForwarding(self._group, f"linkspan:{self._short_id}")
        self._firewalld = Firewalld()
        self._graveyard = Graveyard(self._namespaces)
        self._pool = Pool(config.pool_size, self._group, self._namespaces, self._graveyard)
        self._resolver = Resolver(self._namespaces)
        self._networks = BridgeNetworks(
            config,
            host,
            self._short_id,
            self._group,
            self._namespaces,
            self._firewall,
            self._graveyard,
        )
        self._endpoints = Endpoints(
            self._group, self._namespaces, self._networks, self._pool, self._graveyard
        )
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
        """Ports, names, balancing, IPv6."""
        return NetworkCap.PUBLISH | NetworkCap.NAMES | NetworkCap.BALANCE | NetworkCap.IPV6

    # Life of the driver

    async def _open(self) -> None:
        await trio.to_thread.run_sync(
            lambda: self._sandbox_folder.mkdir(parents=True, exist_ok=True)
        )
        try:
            await self._firewall.open()
            await self._namespaces.links()
        except NftablesCrashed as error:
            raise NotUsable(error.message, help=error.help) from error
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
        watch = await self._firewall.watch()
        try:
            while True:
                await self._firewall.repair()
                await self._foreign.ensure()
                await self._endpoints.keep_apart()
                await self._tell_firewalld()
                # Some programs change rules in ways that the kernel does not tell of.
                with trio.move_on_after(_LOOK_AFTER_RULES_S):
                    await watch.changed()
        finally:
            watch.close()

    async def _tell_firewalld(self) -> None:
        running = await self._firewall.has_table(firewalld.TABLE)
        await self._firewalld.ensure(
            lambda: [carried.bridge for carried in self._networks.all()], running=running
        )

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
            await self._firewalld.remove(carried.bridge for carried in self._networks.all())
            await self._delete_all_links()
        await self._foreign.close(remove=empty)
        await self._firewall.close(remove=empty)
        await self._namespaces.close()
        await trio.to_thread.run_sync(self._nft.close)

    async def _delete_all_links(self) -> None:
        try:
            await self._namespaces.send(rtnetlink.delete_group(self._group))
        except OSError as error:
            if error.errno != errno.ENODEV:  # there is none
                log.warning("links were left behind", extra={"reason": str(error)})

    # Networks

    async def create_network(self, network: Network) -> Network:
        """See ``NetworkDriver``."""
        carried = self._networks.find(network.id)
        if carried is None:
            carried = await self._networks.create(network)
            with trio.CancelScope(shield=True):
                await self._tell_firewalld()
            self._keep_ready(carried)
        return carried.network

    def _keep_ready(self, carried: CarriedNetwork) -> None:
        if carried.default:
            self._pool.serve(carried)
        else:
            self._pool.want_bare()

    async def remove_network(self, network: Network) -> None:
        """See ``NetworkDriver``. If cancelled: it is removed all the same."""
        carried = self._networks.find(network.id)
        if carried is None:
            return
        with trio.CancelScope(shield=True):
            if self._pool.network is carried:
                await self._pool.clear()
            await self._networks.remove(carried)
            await self._firewalld.remove([carried.bridge])
            self._endpoints.forget(carried)

    # Sandboxes

    async def attach(self, request: AttachRequest) -> Sandbox:
        """See ``NetworkDriver``."""
        await trio.lowlevel.checkpoint_if_cancelled()
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
        prepared = self._endpoints.take_prepared(networks, ipv6=sandbox.request.ipv6)
        rest = networks
        if prepared is not None:
            self._endpoints.take_over(sandbox, *networks[0], prepared)
            rest = networks[1:]
        links = [
            await self._endpoints.join(sandbox, self._networks.get(network), spec)
            for network, spec in rest
        ]
        if prepared is None:
            await self._furnish(sandbox, links)
            return
        for link in links:
            await self._namespaces.add_link(sandbox.path, link)
        if links:
            await self._namespaces.set_routes(sandbox.path, sandbox.routes())
        if sandbox.needs_resolver:
            sandbox.resolver = await self._namespaces.open_resolver(sandbox.path)

    async def _furnish(self, sandbox: LivingSandbox, links: list[LinkPlan]) -> None:
        bare = self._pool.take_bare() if sandbox.needs_resolver else None
        if bare is not None:
            sandbox.path, sandbox.resolver = bare.path, bare.resolver
            await self._namespaces.furnish(bare.path, links, sandbox.routes())
            return
        sandbox.path, sandbox.resolver = await self._namespaces.create(
            new_endpoint_id()[:12],
            links,
            routes=sandbox.routes(),
            resolver=sandbox.needs_resolver,
        )

    async def _publish(self, sandbox: LivingSandbox) -> None:
        target = sandbox.target()
        if target is None or not sandbox.request.ports:
            return
        ways = sandbox.ways_out()
        binding = ways[min(ways)].network.options.host_binding or self._config.publish_address
        wanted = [
            attrs.evolve(port, host_ip=binding) if binding and not port.host_ip else port
            for port in sandbox.request.ports
        ]
        owner = f"container {sandbox.request.name}"
        try:
            sandbox.ports = await self._firewall.publish(sandbox.id, owner, target, wanted)
        except LinkspanError as error:
            endpoint = ways[min(ways)].endpoint
            raise error.within(
                "driver failed programming external connectivity on endpoint"
                f" {sandbox.request.name} ({endpoint.id})"
            ) from error
        sandbox.led_to = target

    async def _write_files(self, sandbox: LivingSandbox) -> None:
        linked = self._linked_hosts(sandbox)
        hosts = hosts_text(
            [line for join in sandbox.joins.values() for line in sandbox.own_hosts(join)],
            [*linked, *self._extra_hosts(sandbox.request)],
            ipv6=sandbox.request.ipv6,
        )
        hostname = sandbox.request.hostname

        def write() -> None:
            sandbox.resolv_conf, sandbox.linked = _resolv_conf(sandbox), linked
            sandbox.files.write(hosts=hosts, resolv_conf=sandbox.resolv_conf, hostname=hostname)
            sandbox.remember()

        await in_thread(write)

    def _extra_hosts(self, request: AttachRequest) -> list[tuple[str, str]]:
        default = self._networks.default()
        gateway = default.host_address if default else None
        return parse_extra_hosts(request.extra_hosts, gateway)

    def _linked_hosts(self, sandbox: LivingSandbox) -> tuple[tuple[str, str], ...]:
        """Links on the default network are lines in the hosts file: it has no name service."""
        lines = []
        for join in sandbox.joins.values():
            if not join.network.default:
                continue
            for link in join.endpoint.spec.links:
                target, _, alias = link.partition(":")
                hostnames = (
                    each.request.hostname
                    for each in self._sandboxes.values()
                    if each.request.name == target
                )
                names = dict.fromkeys((alias or target, *hostnames, target))
                for address in join.network.zone.resolve(target.lower()):
                    lines.append((str(address), " ".join(filter(None, names))))
        return tuple(lines)

    def _make_known(self, sandbox: LivingSandbox) -> None:
        for join in sandbox.joins.values():
            join.network.zone.add(join.endpoint.id, join.endpoint.names, join.addresses)
        self._resolver.serve(sandbox)

    async def detach(self, container_id: str) -> None:
        """See ``NetworkDriver``. If cancelled: it is ended all the same."""
        await trio.lowlevel.checkpoint_if_cancelled()
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
        joins = sandbox.joins.values()
        await self._firewall.leave(
            sandbox.id, [address for join in joins for address in join.addresses]
        )
        if sandbox.path:
            ports = tuple(port_name(join.endpoint.id) for join in joins)
            leases = tuple(lease for join in joins for lease in join.leases)
            self._graveyard.bury(Grave(sandbox.path, ports, leases))
        else:
            end(lease for join in joins for lease in join.leases)
        await in_thread(lambda: shutil.rmtree(sandbox.files.folder, ignore_errors=True))
        del self._sandboxes[sandbox.id]

    async def adopt(self, sandbox: Sandbox, request: AttachRequest) -> Sandbox:
        """See ``NetworkDriver``."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if sandbox.namespace is None:
            raise Unsupported("a container in the host's network namespace stays there")
        living = LivingSandbox(
            request=attrs.evolve(request, networks=()),
            files=SandboxFiles(self._sandbox_folder / sandbox.container_id),
            # Of another driver: if that has written it so, it is not a user's.
            resolv_conf=wished_settings(request).text(),
        )

        def share() -> None:
            living.files.share(sandbox.files)
            living.remember()

        self._sandboxes[living.id] = living
        async with living.lock:
            try:
                living.path = await self._namespaces.hold(sandbox.namespace, new_endpoint_id()[:12])
                await in_thread(share)
            except BaseException as error:
                with trio.CancelScope(shield=True):
                    await self._end(living)
                if isinstance(error, OSError):
                    raise failure(error, request.name) from error
                raise
            return living.view()

    async def connect(self, container_id: str, network: Network, spec: EndpointSpec) -> Endpoint:
        """See ``NetworkDriver``.

        Raises:
            NotFound: There is no such sandbox, or network.
            Conflict: It is in the network, or code ``address_taken``.
            InvalidArgument, Unavailable: As ``attach``.
        If cancelled or failed: nothing is left.
        """
        sandbox = self._living(container_id)
        carried = self._networks.get(network)
        async with sandbox.lock:
            link = await self._endpoints.join(sandbox, carried, spec)
            join = sandbox.joins[carried.id]
            try:
                await self._namespaces.add_link(sandbox.path, link)
            except BaseException as error:
                del sandbox.joins[carried.id]
                end(join.leases)
                if isinstance(error, OSError):
                    raise Internal(f"network {network.name}: {error}") from error
                raise
            with trio.CancelScope(shield=True):
                if sandbox.needs_resolver and sandbox.resolver is None:
                    sandbox.resolver = await self._namespaces.open_resolver(sandbox.path)
                    self._resolver.serve(sandbox)
                carried.zone.add(join.endpoint.id, join.endpoint.names, join.addresses)
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
                await self._firewall.forget(join.addresses)
                await self._namespaces.remove_link(sandbox.path, join.endpoint.interface)
                end(join.leases)

    async def _settle(
        self, sandbox: LivingSandbox, *, added: Join | None = None, removed: Join | None = None
    ) -> None:
        """Put the default route, published ports and files right after a change of networks."""
        await self._namespaces.set_routes(sandbox.path, sandbox.routes())
        await self._move_ports(sandbox)

        def write() -> None:
            if added is not None:
                sandbox.files.add_hosts(sandbox.own_hosts(added))
            if removed is not None:
                sandbox.files.remove_hosts(sandbox.own_hosts(removed))
            wanted = _resolv_conf(sandbox)
            if sandbox.files.change_resolv_conf(sandbox.resolv_conf, wanted):
                sandbox.resolv_conf = wanted
            sandbox.remember()

        await in_thread(write)

    async def _move_ports(self, sandbox: LivingSandbox) -> None:
        target = sandbox.target()
        if target is None:
            await self._firewall.unpublish(sandbox.id)
            sandbox.ports, sandbox.led_to = (), None
        elif not sandbox.ports:
            await self._publish(sandbox)
        elif sandbox.led_to != target:
            await self._firewall.move(sandbox.id, target)
            sandbox.led_to = target

    def published(self, container_id: str) -> tuple[PortBinding, ...] | None:
        """See ``NetworkDriver``."""
        sandbox = self._sandboxes.get(container_id)
        return None if sandbox is None else sandbox.ports

    async def rename(self, container_id: str, name: str) -> None:
        """See ``NetworkDriver``. If cancelled: it has the new name all the same."""
        sandbox = self._sandboxes.get(container_id)
        if sandbox is None:
            return
        async with sandbox.lock:
            with trio.CancelScope(shield=True):
                sandbox.request = attrs.evolve(sandbox.request, name=name)
                for join in sandbox.joins.values():
                    names = names_of(sandbox.request, join.endpoint.spec)
                    join.network.zone.remove(join.endpoint.id)
                    join.endpoint = attrs.evolve(join.endpoint, names=names)
                    join.network.zone.add(join.endpoint.id, names, join.addresses)
                await trio.to_thread.run_sync(sandbox.remember)

    async def relink(self, container_id: str, network: Network, links: tuple[str, ...]) -> None:
        """See ``NetworkDriver``. If cancelled: it has the new links all the same."""
        sandbox = self._sandboxes.get(container_id)
        if sandbox is None:
            return
        async with sandbox.lock:
            join = sandbox.joins.get(network.id)
            if join is None:
                return
            spec = attrs.evolve(join.endpoint.spec, links=links)
            join.endpoint = attrs.evolve(join.endpoint, spec=spec)
            linked = self._linked_hosts(sandbox)

            def write() -> None:
                sandbox.files.remove_hosts(sandbox.linked)
                sandbox.files.add_hosts(linked)
                sandbox.linked = linked
                sandbox.remember()

            if linked != sandbox.linked:
                with trio.CancelScope(shield=True):
                    await in_thread(write)

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
        restoring = Restoring(
            self._sandbox_folder, self._group, self._namespaces, self._networks, self._graveyard
        )
        links = {link.name: link for link in await self._namespaces.links()}
        for network in networks:
            await self._networks.recall(network)
        self._networks.settle_bridge(links, notes)
        unknown = [each for each in sandboxes if each.container_id not in self._sandboxes]
        self._sandboxes |= await restoring.recall_sandboxes(unknown, notes)
        await restoring.remove_leftovers(self._sandboxes, links)
        living = {
            str(address)
            for sandbox in self._sandboxes.values()
            for join in sandbox.joins.values()
            for address in join.addresses
        }
        notes += await self._firewall.restore(
            [carried.rules for carried in self._networks.all()],
            [ports for each in self._sandboxes.values() if (ports := published(each))],
            living,
        )
        for carried in self._networks.all():
            await self._networks.repair(carried, links, notes)
        for sandbox in self._sandboxes.values():
            await restoring.repair_ports(sandbox, links, notes)
            if sandbox.needs_resolver and sandbox.resolver is None:
                sandbox.resolver = await self._namespaces.open_resolver(sandbox.path)
            self._make_known(sandbox)
        for carried in self._networks.all():
            self._keep_ready(carried)
        await self._tell_firewalld()
        log.info("networks restored", extra={"sandboxes": len(self._sandboxes), "notes": notes})
        return notes


def _resolv_conf(sandbox: LivingSandbox) -> str:
    """The container's resolv.conf. Blocks: it reads the host's."""
    request = sandbox.request
    settings = wished_settings(request)
    if sandbox.needs_resolver:
        options = settings.options
        if not any(option.startswith("ndots:") for option in options):
            options = (*options, "ndots:0")
        return attrs.evolve(settings, servers=(RESOLVER_ADDRESS,), options=options).text()
    return (
        settings if request.dns else reachable_from_container(settings, ipv6=sandbox.has_ipv6)
    ).text()
