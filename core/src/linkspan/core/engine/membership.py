"""Containers go into networks and out of them, at once or at their next start."""

from collections.abc import Callable

import attrs

from linkspan.core.engine.entry import Entry
from linkspan.core.engine.lifecycle import Lifecycle
from linkspan.core.engine.networks import NetworkStore
from linkspan.sdk.errors import InvalidArgument, LinkspanError, NotFound
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
            mode = container.spec.network_mode
            if container.state.running:
                if not container.endpoints:
                    mode = network.name  # it has left the one of its mode
                endpoint, ports = await self._networks.connect_running(network, container, spec)
                endpoints = (*container.endpoints, endpoint)
                container = attrs.evolve(container, endpoints=endpoints, ports=ports)
            networks = {**container.spec.networks, network.name: attrs.evolve(spec, by_hand=True)}
            wanted = attrs.evolve(container.spec, networks=networks, network_mode=mode)
            await self._life.save(entry, attrs.evolve(container, spec=wanted))

    async def disconnect(self, network: Network, ref: str, *, force: bool) -> None:
        """Take a container out of a network."""
        entry = self._entry(ref)
        async with entry.lock:
            container = entry.container
            inside = any(e.network_id == network.id for e in container.endpoints)
            ports = container.ports
            if network.name == "host" and container.spec.network_mode == "host":
                raise InvalidArgument(
                    "container cannot be disconnected from host network or connected to host"
                    " network",
                    code="network_mode",
                )
            if inside:
                ports = await self._networks.disconnect_running(network, container)
            elif container.state.running:
                if force:
                    raise NotFound(
                        f"endpoint {container.name} not found", code="endpoint_not_found"
                    )
                raise LinkspanError(
                    f"container {container.id} is not connected to network {network.name}",
                    code="not_connected",
                )
            networks = {
                name: s
                for name, s in container.spec.networks.items()
                if name not in (network.name, network.id)
            }
            mode = container.spec.network_mode
            if mode in (network.name, network.id) or (
                mode == "default" and network.name == "bridge"
            ):
                # Without any network it keeps its mode: the next start is by that.
                mode = next(iter(networks), mode)
            spec = attrs.evolve(container.spec, networks=networks, network_mode=mode)
            endpoints = tuple(e for e in container.endpoints if e.network_id != network.id)
            changed = attrs.evolve(container, spec=spec, endpoints=endpoints, ports=ports)
            await self._life.save(entry, changed)
