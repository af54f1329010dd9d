"""Networks: records, the predefined three, and which sandbox a container gets."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

import attrs
import trio

from linkspan.core.engine.drivers import Drivers
from linkspan.core.engine.names import NAME, by_prefix, new_id
from linkspan.core.store.records import Records
from linkspan.sdk.clock import rfc3339
from linkspan.sdk.drivers.network import AttachRequest, NetworkDriver, Sandbox
from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound, PermissionDenied
from linkspan.sdk.events import Event
from linkspan.sdk.model.container import Container
from linkspan.sdk.model.network import Endpoint, EndpointSpec, Network, NetworkSpec, PortBinding

log = logging.getLogger("linkspan.networks")

KIND = "network"
PREDEFINED = ("bridge", "host", "none")
Wanted = tuple[tuple[Network, EndpointSpec], ...]


class NetworkStore:
    """What networks there are. Who is in them is asked of the containers."""

    def __init__(
        self,
        records: Records,
        drivers: Drivers,
        publish: Callable[[Event], None],
        before_create: Callable[[NetworkSpec], Awaitable[NetworkSpec]],
    ) -> None:
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
        for driver_name in self._drivers.names("network"):
            mine = [n for n in self._networks.values() if n.spec.driver == driver_name]
            ids = {n.id for n in mine}
            sandboxes = [
                sandbox_of(c) for c in running if c.endpoints and c.endpoints[0].network_id in ids
            ]
            said += await self._drivers.network(driver_name).restore(mine, sandboxes)
        for name in PREDEFINED:
            if self._named(name) is None and name in self._drivers.names("network"):
                await self._add(NetworkSpec(name=name, driver=name))
        return said

    def _named(self, name: str) -> Network | None:
        return next((n for n in self._networks.values() if n.spec.name == name), None)

    async def create(self, spec: NetworkSpec) -> Network:
        """Make a network; see ``linkspan.sdk.host.Networks``."""
        spec = await self._before_create(spec)
        if NAME.fullmatch(spec.name) is None:
            raise InvalidArgument(f"invalid network name: '{spec.name}'")
        async with self._turn:
            if self._named(spec.name) is not None:
                raise Conflict(f"network with name {spec.name} already exists", code="name_taken")
            return await self._add(spec)

    async def _add(self, spec: NetworkSpec) -> Network:
        draft = Network(id=new_id(), spec=spec, created_at=rfc3339())
        network = await self._drivers.network(spec.driver).create_network(draft)
        try:
            await self._records.put(KIND, network.id, network)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._drivers.network(spec.driver).remove_network(network)
            raise
        self._networks[network.id] = network
        self._publish(_event("create", network))
        return network

    def inspect(self, ref: str) -> Network:
        """By name, id or unique id prefix.

        Raises:
            NotFound: code ``network_not_found``.
        """
        if ref in self._networks:
            return self._networks[ref]
        named = self._named("bridge" if ref == "default" else ref)
        if named is not None:
            return named
        found = by_prefix(ref, self._networks)
        if found is None:
            raise NotFound(f"network {ref} not found", code="network_not_found")
        return self._networks[found]

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
                names = ", ".join(c.name for c in self.containers() if c.id in inside)
                raise PermissionDenied(
                    f"error while removing network: network {network.name} id {network.id} has active "
                    f"endpoints ({names})",
                    code="network_in_use",
                    help=f"disconnect or remove the containers first: {names}",
                )
            await self._records.delete(KIND, network.id)
            del self._networks[network.id]
            await self._drivers.network(network.spec.driver).remove_network(network)
        self._publish(_event("destroy", network))

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

    def of_container(self, container: Container) -> Wanted:
        """The networks a container wants to be in, the one of its mode first.

        Raises:
            NotFound: code ``network_not_found``.
        """
        spec = container.spec
        wanted: dict[str, EndpointSpec] = {}
        if not spec.network_mode.startswith("container:"):
            wanted[self.inspect(spec.network_mode or "default").id] = EndpointSpec()
        for name, settings in spec.networks.items():
            wanted[self.inspect(name).id] = settings
        return tuple((self._networks[key], settings) for key, settings in wanted.items())

    async def attach(self, container: Container, ports: tuple[PortBinding, ...]) -> Sandbox:
        """Make a container's sandbox."""
        networks = self.of_container(container)
        driver = self._driver_of(networks)
        spec = container.spec
        sandbox = await driver.attach(
            AttachRequest(
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
            )
        )
        for network, _ in networks:
            self._publish(_event("connect", network, container=container.id))
        return sandbox

    def _driver_of(self, networks: Wanted) -> NetworkDriver[object]:
        names = {network.spec.driver for network, _ in networks}
        if len(names) != 1:
            raise InvalidArgument(
                f"a container cannot be in networks of several drivers ({', '.join(sorted(names))})"
            )
        return self._drivers.network(names.pop())

    async def detach(self, container: Container) -> None:
        """End a container's sandbox."""
        if container.spec.network_mode.startswith("container:"):
            return
        networks = [
            self._networks[e.network_id]
            for e in container.endpoints
            if e.network_id in self._networks
        ]
        names = {network.spec.driver for network in networks}
        for name in names or {n.spec.driver for n, _ in self.of_container(container)}:
            await self._drivers.network(name).detach(container.id)
        for network in networks:
            self._publish(_event("disconnect", network, container=container.id))

    async def connect_running(
        self, network: Network, container: Container, spec: EndpointSpec
    ) -> Endpoint:
        """Put a running container into a network."""
        endpoint = await self._drivers.network(network.spec.driver).connect(
            container.id, network, spec
        )
        self._publish(_event("connect", network, container=container.id))
        return endpoint

    async def disconnect_running(self, network: Network, container: Container) -> None:
        """Take a running container out of a network."""
        await self._drivers.network(network.spec.driver).disconnect(container.id, network)
        self._publish(_event("disconnect", network, container=container.id))


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
    return Event(
        type="network",
        action=action,
        actor_id=network.id,
        attributes={"name": network.name, "type": network.spec.driver, **facts},
    )


def with_endpoint(container: Container, endpoint: Endpoint | None, network_id: str) -> Container:
    """A container with an endpoint added, or with the one of a network taken away."""
    rest = tuple(e for e in container.endpoints if e.network_id != network_id)
    return attrs.evolve(container, endpoints=(*rest, endpoint) if endpoint else rest)
