"""Networks and volumes of the engine in memory: entries in books."""

import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs
import trio

from linkspan.sdk.clock import rfc3339
from linkspan.sdk.errors import (
    Conflict,
    NotFound,
    PermissionDenied,
)
from linkspan.sdk.model.container import (
    ContainerFilter,
)
from linkspan.sdk.model.network import Endpoint, EndpointSpec, Network, NetworkSpec
from linkspan.sdk.model.volume import Volume, VolumeSpec
from linkspan.sdk.testing.fakes.engine_events import FakeEvents

if TYPE_CHECKING:
    from linkspan.sdk.testing.fakes.engine_containers import FakeContainers

_NO_SETTINGS = EndpointSpec()


class FakeNetworks:
    """Networks in a book; addresses count up from 172.30.0.2."""

    def __init__(self, containers: "FakeContainers", events: FakeEvents) -> None:
        self._containers = containers
        self._events = events
        self._networks: dict[str, Network] = {}
        self._last_host = 1
        for name, driver in (("bridge", "bridge"), ("host", "host"), ("none", "null")):
            self._add(NetworkSpec(name=name, driver=driver))

    def _add(self, spec: NetworkSpec) -> Network:
        scope = "swarm" if spec.driver == "overlay" else "local"
        network = Network(id=secrets.token_hex(32), spec=spec, created_at=rfc3339(), scope=scope)
        self._networks[network.id] = network
        return network

    async def create(self, spec: NetworkSpec) -> Network:
        await trio.lowlevel.checkpoint()
        if any(n.name == spec.name for n in self._networks.values()):
            raise Conflict(f"network with name {spec.name} already exists", code="name_taken")
        return self._add(spec)

    def inspect(self, ref: str) -> Network:
        for network in self._networks.values():
            if ref in (network.id, network.name) or (ref and network.id.startswith(ref)):
                return network
        raise NotFound(f"network {ref} not found", code="network_not_found")

    def list(self) -> Sequence[Network]:
        return list(self._networks.values())

    async def remove(self, ref: str) -> None:
        network = self.inspect(ref)
        await trio.lowlevel.checkpoint()
        if network.name in ("bridge", "host", "none"):
            raise PermissionDenied(
                f"{network.name} is a pre-defined network and cannot be removed",
                code="predefined_network",
            )
        if self.endpoints(network.id):
            raise PermissionDenied(
                f"error while removing network: network {network.name} has active endpoints",
                code="network_in_use",
            )
        del self._networks[network.id]

    async def connect(self, ref: str, container: str, spec: EndpointSpec = _NO_SETTINGS) -> None:
        network = self.inspect(ref)
        found = self._containers.inspect(container)
        await trio.lowlevel.checkpoint()
        changed = attrs.evolve(found.spec, networks={**found.spec.networks, network.name: spec})
        endpoints = found.endpoints
        if found.state.running:
            endpoints = (*endpoints, self.endpoint(network, spec))
        self._containers.put(attrs.evolve(found, spec=changed, endpoints=endpoints))

    async def disconnect(self, ref: str, container: str, *, force: bool = False) -> None:
        network = self.inspect(ref)
        found = self._containers.inspect(container)
        await trio.lowlevel.checkpoint()
        networks = {n: s for n, s in found.spec.networks.items() if n != network.name}
        endpoints = tuple(e for e in found.endpoints if e.network_id != network.id)
        spec = attrs.evolve(found.spec, networks=networks)
        self._containers.put(attrs.evolve(found, spec=spec, endpoints=endpoints))

    def endpoint(self, network: Network, spec: EndpointSpec) -> Endpoint:
        """A fresh endpoint."""
        self._last_host += 1
        number = self._last_host
        return Endpoint(
            id=secrets.token_hex(32),
            network_id=network.id,
            network_name=network.name,
            interface="eth0",
            ipv4_address=spec.ipv4_address or f"172.30.{number >> 8}.{number & 255}",
            ipv4_prefix=16,
            gateway="172.30.0.1",
            mac_address=f"02:42:ac:1e:{number >> 8:02x}:{number & 255:02x}",
            spec=spec,
        )

    def endpoints(self, ref: str) -> Mapping[str, Endpoint]:
        network = self.inspect(ref)
        return {
            c.id: e
            for c in self._containers.list(ContainerFilter(all=True))
            for e in c.endpoints
            if e.network_id == network.id
        }


class FakeVolumes:
    """Volumes in a book."""

    def __init__(self, containers: "FakeContainers") -> None:
        self._containers = containers
        self._volumes: dict[str, Volume] = {}

    async def create(self, spec: VolumeSpec) -> Volume:
        await trio.lowlevel.checkpoint()
        name = spec.name or secrets.token_hex(32)
        if name not in self._volumes:
            self._volumes[name] = Volume(
                name=name,
                driver=spec.driver or "local",
                mountpoint=f"/volumes/{name}/_data",
                created_at=rfc3339(),
                options=spec.options,
                labels=spec.labels,
                anonymous=not spec.name,
            )
        return self._volumes[name]

    async def inspect(self, name: str) -> Volume:
        await trio.lowlevel.checkpoint()
        if name not in self._volumes:
            raise NotFound(f"get {name}: no such volume", code="volume_not_found")
        return self._volumes[name]

    async def list(self) -> Sequence[Volume]:
        await trio.lowlevel.checkpoint()
        return list(self._volumes.values())

    async def remove(self, name: str, *, force: bool = False) -> None:
        if force and name not in self._volumes:
            return
        await self.inspect(name)
        users = self.users(name)
        if users:
            raise Conflict(
                f"remove {name}: volume is in use - [{', '.join(users)}]", code="volume_in_use"
            )
        del self._volumes[name]

    def users(self, name: str) -> Sequence[str]:
        everything = self._containers.list(ContainerFilter(all=True))
        return [c.id for c in everything if any(m.name == name for m in c.mounts)]
