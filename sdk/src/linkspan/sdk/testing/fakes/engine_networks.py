"""Networks of the engine in memory."""

import secrets
from collections.abc import Mapping, Sequence

import attrs
import trio

from linkspan.sdk.clock import rfc3339
from linkspan.sdk.errors import (
    Conflict,
    NotFound,
    PermissionDenied,
)
from linkspan.sdk.model.network import Endpoint, EndpointSpec, Network, NetworkSpec
from linkspan.sdk.testing.fakes.engine_records import ContainerBook

_NO_SETTINGS = EndpointSpec()


class FakeNetworks:
    """Networks in a book; addresses count up from 172.30.0.2."""

    def __init__(self, book: ContainerBook) -> None:
        self._book = book
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
        entry = self._book.entry(container)
        found = entry.container
        await trio.lowlevel.checkpoint()
        chosen = {network.name: attrs.evolve(spec, by_hand=True)}
        changed = attrs.evolve(found.spec, networks={**found.spec.networks, **chosen})
        endpoints = found.endpoints
        if found.state.running:
            endpoints = (*endpoints, self.endpoint(network, spec))
        entry.change(spec=changed, endpoints=endpoints)

    async def disconnect(self, ref: str, container: str, *, force: bool = False) -> None:
        network = self.inspect(ref)
        entry = self._book.entry(container)
        found = entry.container
        await trio.lowlevel.checkpoint()
        networks = {n: s for n, s in found.spec.networks.items() if n != network.name}
        endpoints = tuple(e for e in found.endpoints if e.network_id != network.id)
        spec = attrs.evolve(found.spec, networks=networks)
        entry.change(spec=spec, endpoints=endpoints)

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
            c.id: e for c in self._book.all() for e in c.endpoints if e.network_id == network.id
        }
