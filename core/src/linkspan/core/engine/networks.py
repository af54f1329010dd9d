"""Networks: records, the predefined three, and which sandbox a container gets."""

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address, ip_interface, ip_network

import attrs
import trio

from linkspan.core.engine.drivers import Drivers
from linkspan.core.engine.names import by_prefix, new_id
from linkspan.core.store.records import Records
from linkspan.sdk.clock import rfc3339
from linkspan.sdk.drivers.network import AttachRequest, NetworkDriver, Sandbox
from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound, PermissionDenied
from linkspan.sdk.events import Event
from linkspan.sdk.model.container import Container, ContainerSpec
from linkspan.sdk.model.network import Endpoint, EndpointSpec, Network, NetworkSpec, PortBinding

log = logging.getLogger("linkspan.networks")

KIND = "network"
PREDEFINED = ("bridge", "host", "none")
ON_MANY_NODES = ("overlay",)
"""Drivers of networks that span a cluster. On one node the chosen driver carries them."""
# Docker takes any that is not blank; one with a slash could not be named in a path.
_NAME = re.compile(r"[^\s/\x00-\x1f\x7f](?:[^/\x00-\x1f\x7f]{0,253}[^\s/\x00-\x1f\x7f])?")
_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")
_TASK_LABEL = "com.docker.swarm.task.id"
Wanted = tuple[tuple[Network, EndpointSpec], ...]


class NetworkStore:
    """What networks there are. Who is in them is asked of the containers."""

    def __init__(
        self,
        records: Records,
        drivers: Drivers,
        publish: Callable[[Event], None],
        before_create: Callable[[NetworkSpec], Awaitable[NetworkSpec]],
        bridge_address: str = "",
    ) -> None:
        """Take what it needs.

        Args:
            bridge_address: Of the default network's gateway, with its prefix; empty if the driver chooses.
        """
        self._bridge_address = bridge_address
        self._records = records
        self._drivers = drivers
        self._publish = publish
        self._before_create = before_create
        self._networks: dict[str, Network] = {}
        self._turn = trio.Lock()
        self.containers: Callable[[], Sequence[Container]] = lambda: ()

    async def load(self) -> None:
        """Read the records."""
        self._networks = await self._records.load(KIND, Network)

    async def restore(self) -> list[str]:
        """Make the drivers carry what the records say; make what is predefined."""
        said: list[str] = []
        running = [c for c in self.containers() if c.state.running]
        moved = self._moved(running, said)
        for driver_name in self._drivers.names("network"):
            driver = self._drivers.network(driver_name)
            mine = [
                n
                for n in self._networks.values()
                if not n.spec.config_only and n is not moved and self._driver(n.spec) is driver
            ]
            sandboxes = [sandbox_of(c) for c in running if self._sandbox_driver(c) is driver]
            said += await driver.restore(mine, sandboxes)
        if moved is not None:
            draft = attrs.evolve(moved, spec=NetworkSpec(name=moved.name, driver=moved.spec.driver))
            self._networks[moved.id] = await self._carry(draft)
            said.append(f"network {moved.name} has the address {self._bridge_address} now")
        for name in PREDEFINED:
            if self._named(name) is None and name in self._drivers.names("network"):
                await self._add(NetworkSpec(name=name, driver=name))
        return said

    def _moved(self, running: Sequence[Container], said: list[str]) -> Network | None:
        """The default network, if the configuration has another address for it since it was made.

        While containers run in it it stays, and that is said.
        """
        network = self._named(PREDEFINED[0])
        if network is None or not self._bridge_address:
            return None
        wanted = ip_interface(self._bridge_address)
        if any(
            (pool.subnet, pool.gateway) == (str(wanted.network), str(wanted.ip))
            for pool in network.spec.pools
        ):
            return None
        inside = [c for c in running if any(e.network_id == network.id for e in c.endpoints)]
        if not inside:
            return network
        said.append(
            f"network {network.name} keeps its address, and not {self._bridge_address}, until the"
            f" daemon starts with no container in it; now there are {len(inside)}"
        )
        return None

    def _named(self, name: str) -> Network | None:
        return next((n for n in self._networks.values() if n.spec.name == name), None)

    def _driver(self, spec: NetworkSpec) -> NetworkDriver[object]:
        """Who carries a network."""
        return self._driver_named(spec.driver)

    def _driver_named(self, name: str) -> NetworkDriver[object]:
        known = self._drivers.names("network")
        if name in ON_MANY_NODES and name not in known:
            return self._drivers.network()
        if name not in known:
            raise NotFound(
                f'plugin "{name}" not found',
                code="driver_not_found",
                help=f"choose one of {', '.join(sorted(known))}",
            )
        return self._drivers.network(name)

    def _sandbox_driver(self, container: Container) -> NetworkDriver[object] | None:
        """Who carries a container's sandbox, also when it is in no network; None: another container's."""
        mode = container.spec.network_mode
        if mode.startswith("container:"):
            return None
        network_id = next((e.network_id for e in container.endpoints), "")
        try:
            if container.sandbox_driver and not network_id:
                return self._driver_named(container.sandbox_driver)
            return self._driver(self.inspect(network_id or mode or "default").spec)
        except NotFound:
            return self._drivers.network()

    async def create(self, spec: NetworkSpec) -> Network:
        """Make a network; see ``linkspan.sdk.host.Networks``."""
        spec = await self._before_create(spec)
        if spec.name in (*PREDEFINED, "default"):
            raise PermissionDenied(
                f"operation is not permitted on predefined {spec.name} network",
                code="network_predefined",
            )
        if _NAME.fullmatch(spec.name) is None:
            raise InvalidArgument(f"invalid network name: '{spec.name}'")
        async with self._turn:
            if self._named(spec.name) is not None:
                raise Conflict(f"network with name {spec.name} already exists", code="name_taken")
            return await self._add(self._with_lent_configuration(spec))

    def _with_lent_configuration(self, spec: NetworkSpec) -> NetworkSpec:
        """What a configuration-only network says, for one that is made from it."""
        if not spec.config_from:
            return spec
        if spec.config_only:
            raise PermissionDenied(
                "a configuration network cannot depend on another configuration network"
            )
        lender = self._named(spec.config_from)
        if lender is None or not lender.spec.config_only:
            raise NotFound(
                f'configuration network "{spec.config_from}" does not exist',
                code="network_not_found",
                help="make it with --config-only",
            )
        own = [
            ("configurations", spec.pools),
            ("options", spec.options),
            ("IPv6", spec.enable_ipv6),
        ]
        for what, value in own:
            if value:
                raise InvalidArgument(
                    f"user specified {what} are not supported if the network depends on a"
                    " configuration network"
                )
        return attrs.evolve(
            spec,
            enable_ipv4=lender.spec.enable_ipv4,
            enable_ipv6=lender.spec.enable_ipv6,
            pools=lender.spec.pools,
            ipam_driver=lender.spec.ipam_driver,
            ipam_options=lender.spec.ipam_options,
            options=lender.spec.options,
            labels={**lender.spec.labels, **spec.labels},
        )

    async def _add(self, spec: NetworkSpec) -> Network:
        draft = Network(
            id=new_id(),
            spec=spec,
            created_at=rfc3339(),
            scope="swarm" if spec.driver in ON_MANY_NODES else "local",
        )
        if spec.config_only:
            network = attrs.evolve(draft, spec=attrs.evolve(spec, driver="null"))
            await self._records.put(KIND, network.id, network)
        else:
            network = await self._carry(draft)
        self._networks[network.id] = network
        self._publish(_event("create", network))
        return network

    async def _carry(self, draft: Network) -> Network:
        driver = self._driver(draft.spec)
        network = _with_choices(draft, await driver.create_network(draft))
        try:
            await self._records.put(KIND, network.id, network)
        except BaseException:
            with trio.CancelScope(shield=True):
                await driver.remove_network(network)
            raise
        return network

    def inspect(self, ref: str) -> Network:
        """By name, id or unique id prefix.

        Raises:
            NotFound: code ``network_not_found``.
        """
        network = self.find(ref)
        if network is None:
            raise NotFound(f"network {ref} not found", code="network_not_found")
        return network

    def find(self, ref: str) -> Network | None:
        """As ``inspect``; None if there is none."""
        if ref in self._networks:
            return self._networks[ref]
        named = self._named("bridge" if ref == "default" else ref)
        if named is not None:
            return named
        found = by_prefix(ref, self._networks)
        return self._networks[found] if found else None

    def list(self) -> Sequence[Network]:
        """All networks, oldest first."""
        return list(self._networks.values())

    async def remove(self, ref: str) -> None:
        """Remove a network; see ``linkspan.sdk.host.Networks``."""
        async with self._turn:
            network = self.inspect(ref)
            if network.name in PREDEFINED:
                raise PermissionDenied(
                    f"{network.name} is a pre-defined network and cannot be removed",
                    code="network_predefined",
                )
            inside = self.endpoints(network.id)
            if inside:
                found = sorted(
                    (c.name, e.id[:12]) for c in self.containers() if (e := inside.get(c.id))
                )
                names = ", ".join(name for name, _ in found)
                told = ", ".join(f'name:"{name}" id:"{short}"' for name, short in found)
                raise PermissionDenied(
                    f"error while removing network: network {network.name} has active endpoints ({told})",
                    code="network_in_use",
                    help=f"disconnect or remove the containers first: {names}",
                )
            lent = [n.name for n in self._networks.values() if n.spec.config_from == network.name]
            if network.spec.config_only and lent:
                raise PermissionDenied(
                    f'error while removing network: configuration network "{network.name}" is in use',
                    code="network_in_use",
                    help=f"remove first: {', '.join(lent)}",
                )
            await self._records.delete(KIND, network.id)
            del self._networks[network.id]
            if not network.spec.config_only:
                await self._driver(network.spec).remove_network(network)
        self._publish(_event("remove" if network.scope == "swarm" else "destroy", network))

    def endpoints(self, ref: str) -> Mapping[str, Endpoint]:
        """Container id → endpoint of the running containers in it."""
        network = self.inspect(ref)
        return {
            c.id: endpoint
            for c in self.containers()
            if c.state.running
            for endpoint in c.endpoints
            if endpoint.network_id == network.id
        }

    def check_choices(self, spec: ContainerSpec) -> None:
        """Refuse what a network that is there does not let its members choose.

        Raises:
            InvalidArgument: In Docker's words.
        """
        for name, settings in spec.networks.items():
            network = self.find(name)
            if network is not None:
                try:
                    _refuse_choices(network, settings)
                except InvalidArgument as error:
                    raise error.within(f"invalid config for network {network.name}") from error

    def of_container(self, container: Container) -> Wanted:
        """The networks a container wants to be in, the one of its mode first.

        Raises:
            NotFound: code ``network_not_found``.
        """
        spec = container.spec
        wanted = {
            self.inspect(name).id: spec.networks.get(name, EndpointSpec())
            for name in spec.wanted_networks
        }
        return tuple((self._networks[key], settings) for key, settings in wanted.items())

    async def attach(self, container: Container, ports: tuple[PortBinding, ...]) -> Sandbox:
        """Make a container's sandbox."""
        networks = self.of_container(container)
        driver = self._driver_of(networks) if networks else self._sandbox_driver(container)
        assert driver is not None, "who shares a namespace is not attached"
        for network, settings in networks:
            _refuse_by_hand(network, container)
            _refuse_choices(network, settings)
        return await driver.attach(_request(container, networks, ports))

    def tell(self, action: str, container: Container) -> None:
        """Tell of each network a container is in that it joined or left it."""
        for endpoint in container.endpoints:
            network = self._networks.get(endpoint.network_id)
            if network is not None:
                self._publish(_event(action, network, container=container.id))

    def _driver_of(self, networks: Wanted) -> NetworkDriver[object]:
        for network, _ in networks:
            if network.spec.config_only:
                raise PermissionDenied(
                    f"configuration network {network.name} cannot be used by containers",
                    code="network_config_only",
                )
        drivers = {id(d): d for d in (self._driver(network.spec) for network, _ in networks)}
        if len(drivers) != 1:
            names = sorted({network.spec.driver for network, _ in networks})
            raise InvalidArgument(
                "container sharing network namespace with another container or host cannot be"
                " connected to any other network"
                if "host" in names
                else "container cannot be connected to multiple networks with one of the networks in"
                " private (none) mode"
                if "null" in names or "none" in names
                else f"a container cannot be in networks of several drivers ({', '.join(names)})"
            )
        return drivers.popitem()[1]

    async def detach(self, container: Container) -> None:
        """End a container's sandbox."""
        if container.spec.network_mode.startswith("container:"):
            return
        networks = [
            self._networks[e.network_id]
            for e in container.endpoints
            if e.network_id in self._networks
        ]
        drivers = [self._driver(n.spec) for n in networks if not n.spec.config_only]
        if not drivers:
            # Its start failed, or its networks went meanwhile: whoever has its sandbox ends it.
            drivers = [self._drivers.network(name) for name in self._drivers.names("network")]
        for driver in {id(driver): driver for driver in drivers}.values():
            await driver.detach(container.id)

    async def rename(self, container: Container) -> None:
        """A running container has another name now."""
        for endpoint in container.endpoints[:1]:
            driver = self._driver(self._networks[endpoint.network_id].spec)
            await driver.rename(container.id, container.name)

    async def relink(self, container: Container, links: tuple[str, ...]) -> None:
        """A running container has these links on the default network now."""
        for endpoint in container.endpoints:
            if endpoint.network_name in PREDEFINED:
                network = self._networks[endpoint.network_id]
                await self._driver(network.spec).relink(container.id, network, links)

    def refuse_connection(
        self, network: Network, container: Container, settings: EndpointSpec
    ) -> None:
        """Refuse what a container's network mode or the network does not allow.

        Raises:
            InvalidArgument, PermissionDenied: In Docker's words.
        """
        mode = container.spec.network_mode
        others = {*container.spec.wanted_networks} - {network.name, network.id}
        if mode.startswith("container:") or (mode == "host" and network.name != "host"):
            raise InvalidArgument(
                "container sharing network namespace with another container or host cannot be"
                " connected to any other network",
                code="network_mode",
            )
        if network.name == "host" and mode != "host":
            raise InvalidArgument(
                "cannot connect container to host network - container must be created in host network"
                " mode",
                code="network_mode",
            )
        if "none" in others or (network.name == "none" and others):
            raise InvalidArgument(
                "container cannot be connected to multiple networks with one of the networks in"
                " private (none) mode",
                code="network_mode",
            )
        inside = [self._networks[e.network_id] for e in container.endpoints]
        self._driver_of(tuple((each, EndpointSpec()) for each in (network, *inside)))
        _refuse_by_hand(network, container)
        _refuse_choices(network, settings)

    @asynccontextmanager
    async def carried_by(
        self, network: Network, container: Container, ports: tuple[PortBinding, ...]
    ) -> AsyncIterator[Container]:
        """While a running container joins a network: have the network's driver carry its sandbox.

        Another that had it lets go of it at the end, when the change is recorded; if it fails, the new one does.
        """
        driver, holder = self._driver(network.spec), self._sandbox_driver(container)
        if holder is None or holder is driver:
            yield container
            return
        sandbox = await driver.adopt(sandbox_of(container), _request(container, (), ports))
        try:
            yield attrs.evolve(
                container, sandbox_key=sandbox.namespace or "", files=dict(sandbox.files)
            )
        except BaseException:
            with trio.CancelScope(shield=True):
                await driver.detach(container.id)
            raise
        with trio.CancelScope(shield=True):
            await holder.detach(container.id)

    async def connect_running(
        self, network: Network, container: Container, spec: EndpointSpec
    ) -> tuple[Endpoint, tuple[PortBinding, ...]]:
        """Put a running container into a network; return its endpoint and all its ports now."""
        driver = self._driver(network.spec)
        endpoint = await driver.connect(container.id, network, spec)
        self._publish(_event("connect", network, container=container.id))
        return endpoint, _ports_now(driver, container)

    async def disconnect_running(
        self, network: Network, container: Container
    ) -> tuple[PortBinding, ...]:
        """Take a running container out of a network; return its ports now."""
        driver = self._driver(network.spec)
        await driver.disconnect(container.id, network)
        self._publish(_event("disconnect", network, container=container.id))
        return _ports_now(driver, container)


def _with_choices(asked: Network, made: Network) -> Network:
    """Note which subnets nobody has asked for; the predefined networks' are the daemon's configuration."""
    if asked.name in PREDEFINED:
        return made
    families = {
        ip_network(pool.subnet, strict=False).version for pool in asked.spec.pools if pool.subnet
    }
    pools = tuple(
        attrs.evolve(
            pool,
            chosen=bool(pool.subnet)
            and ip_network(pool.subnet, strict=False).version not in families,
        )
        for pool in made.spec.pools
    )
    return attrs.evolve(made, spec=attrs.evolve(made.spec, pools=pools))


def _request(
    container: Container, networks: Wanted, ports: tuple[PortBinding, ...]
) -> AttachRequest:
    spec = container.spec
    return AttachRequest(
        container_id=container.id,
        name=container.name,
        hostname=container.hostname,
        domainname=spec.domainname,
        networks=networks,
        ports=ports,
        dns=spec.dns,
        dns_search=spec.dns_search,
        dns_options=spec.dns_options,
        extra_hosts=spec.extra_hosts,
        ipv6=spec.sysctls.get("net.ipv6.conf.all.disable_ipv6", "0") == "0",
    )


def _refuse_by_hand(network: Network, container: Container) -> None:
    """Networks of a cluster are for its tasks, unless they say otherwise."""
    by_hand = _TASK_LABEL not in container.labels
    if network.scope == "swarm" and by_hand and not network.spec.attachable:
        raise PermissionDenied(
            f"Could not attach to network {network.name}: rpc error: code = PermissionDenied desc ="
            f" network {network.name} not manually attachable",
            code="not_attachable",
            help="make the network with --attachable",
        )


def _refuse_choices(network: Network, settings: EndpointSpec) -> None:
    """Addresses of the predefined networks are given out, and they have no name service.

    Raises:
        InvalidArgument: code ``endpoint_settings``: all that is wrong, a line each.
    """
    if settings.mac_address and not _MAC.fullmatch(settings.mac_address):
        raise InvalidArgument(f"invalid MAC address {settings.mac_address}")
    wrong = []
    chosen = [text for text in (settings.ipv4_address, settings.ipv6_address) if text]
    if network.name in PREDEFINED:
        if chosen:
            wrong.append("user specified IP address is supported on user defined networks only")
        if settings.aliases:
            wrong.append(
                "network-scoped alias is supported only for containers in user defined networks"
            )
    wrong += [line for text in chosen for line in _wrong_of_address(network, text)]
    wrong += [
        f"invalid link-local IP address: {text}"
        for text in settings.link_local_addresses
        if not _is_address(text)
    ]
    if wrong:
        bullet = "* " if len(wrong) > 1 else ""
        raise InvalidArgument(
            "\n".join(["invalid endpoint settings:", *(f"{bullet}{line}" for line in wrong)]),
            code="endpoint_settings",
            help="make a network with --subnet, and choose the address there" if chosen else "",
        )


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _wrong_of_address(network: Network, text: str) -> Iterator[str]:
    subnets = [ip_network(p.subnet) for p in network.spec.pools if p.subnet and not p.chosen]
    try:
        address = ip_address(text)
    except ValueError:
        yield f"invalid IPv{6 if ':' in text else 4} address: {text}"
        address = None
    alike = [s for s in subnets if address is None or s.version == address.version]
    if not alike:
        yield (
            "user specified IP address is supported only when connecting to networks with user"
            " configured subnets"
        )
    elif address is None or not any(address in subnet for subnet in alike):
        yield f"no configured subnet or ip-range contain the IP address {text}"


def _ports_now(driver: NetworkDriver[object], container: Container) -> tuple[PortBinding, ...]:
    ports = driver.published(container.id)
    return container.ports if ports is None else ports


def sandbox_of(container: Container) -> Sandbox:
    """The sandbox that a container's record describes."""
    return Sandbox(
        container_id=container.id,
        namespace=container.sandbox_key or None,
        endpoints=container.endpoints,
        ports=container.ports,
        files=container.files,
    )


def _event(action: str, network: Network, **facts: str) -> Event:
    kind = {} if network.scope == "swarm" else {"type": network.spec.driver}
    return Event(
        type="network",
        action=action,
        actor_id=network.id,
        attributes={"name": network.name, **kind, **facts},
        # Who joins it does so here.
        scope="local" if facts else network.scope,
    )
