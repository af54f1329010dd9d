"""Containers go into networks and out of them, at once or at their next start."""

from collections.abc import Callable

import attrs

from linkspan.core.engine.creation import wanted_ports
from linkspan.core.engine.entry import Entry
from linkspan.core.engine.lifecycle import Lifecycle
from linkspan.core.engine.networks import NetworkStore
from linkspan.sdk.errors import InvalidArgument, LinkspanError, NotFound
from linkspan.sdk.model.container import Container, ContainerSpec
from linkspan.sdk.model.network import EndpointSpec, Network


class Membership:
    """See the module.

    Args:
        entry_of: A container by its id, name or prefix. Raises NotFound.
    """

    def __init__(
        self, networks: NetworkStore, lifecycle: Lifecycle, entry_of: Callable[[str], Entry]
    ) -> None:
        self._networks = networks
        self._life = lifecycle
        self._entry = entry_of

    async def connect(self, network: Network, ref: str, spec: EndpointSpec) -> None:
        """Put a container into a network, now or at its next start."""
        entry = self._entry(ref)
        async with entry.lock:
            container = entry.container
            self._networks.refuse_connection(network, container, spec)
            if any(e.network_id == network.id for e in container.endpoints):
                raise LinkspanError(
                    f"endpoint with name {container.name} already exists in network {network.name}",
                    code="already_connected",
                )
            wanted = _with_network(container.spec, network, spec)
            if not container.state.running:
                await self._life.save(entry, attrs.evolve(container, spec=wanted))
                return
            ports = wanted_ports(container)
            async with self._networks.carried_by(network, container, ports) as carried:
                endpoint, ports = await self._networks.connect_running(network, carried, spec)
                endpoints = (*carried.endpoints, endpoint)
                inside = attrs.evolve(carried, spec=wanted, endpoints=endpoints, ports=ports)
                await self._life.save(entry, inside)
            await self._life.tell_linkers(inside)

    async def disconnect(self, network: Network, ref: str, *, force: bool) -> None:
        """Take a container out of a network; ``force`` is for one that is not there any more."""
        try:
            entry = self._entry(ref)
        except NotFound as error:
            if force:
                raise NotFound(f"endpoint {ref} not found", code="endpoint_not_found") from error
            raise
        async with entry.lock:
            container = entry.container
            _refuse_leaving(network, container)
            spec = _without_network(container.spec, network)
            left = attrs.evolve(container, spec=spec)
            if container.state.running:
                ports = await self._networks.disconnect_running(network, container)
                endpoints = tuple(e for e in container.endpoints if e.network_id != network.id)
                driver = network.spec.driver  # keeps the sandbox until another network takes it
                left = attrs.evolve(left, endpoints=endpoints, ports=ports, sandbox_driver=driver)
            await self._life.save(entry, left)
            await self._life.tell_linkers(left)


def _refuse_leaving(network: Network, container: Container) -> None:
    """Raises InvalidArgument: code ``network_mode``; LinkspanError: code ``not_connected``."""
    running = container.state.running
    if running and network.name == "host" and container.spec.network_mode == "host":
        raise InvalidArgument(
            "cannot disconnect container from host network - container was created in host network mode",
            code="network_mode",
        )
    inside = (
        any(e.network_id == network.id for e in container.endpoints)
        if running
        else not {network.name, network.id}.isdisjoint(container.spec.wanted_networks)
    )
    if not inside:
        which = "network" if running else "the network"
        raise LinkspanError(
            f"container {container.id} is not connected to {which} {network.name}",
            code="not_connected",
        )


def _is_own(network: Network, spec: ContainerSpec) -> bool:
    """Whether it is the one of the container's mode."""
    mode = "bridge" if spec.network_mode in ("", "default") else spec.network_mode
    return mode in (network.name, network.id)


def _with_network(spec: ContainerSpec, network: Network, settings: EndpointSpec) -> ContainerSpec:
    networks = {**spec.networks, network.name: attrs.evolve(settings, by_hand=True)}
    left = spec.left_network and not _is_own(network, spec)
    return attrs.evolve(spec, networks=networks, left_network=left)


def _without_network(spec: ContainerSpec, network: Network) -> ContainerSpec:
    gone = (network.name, network.id)
    networks = {name: settings for name, settings in spec.networks.items() if name not in gone}
    left = spec.left_network or _is_own(network, spec)
    return attrs.evolve(spec, networks=networks, left_network=left)
