"""Networks in memory: addresses, ports and names are kept in books, no packet moves."""

import shutil
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Self

import attrs
import trio

from linkspan.sdk.drivers.base import NoConfig
from linkspan.sdk.drivers.network import AttachRequest, NetworkCap, NetworkDriver, Sandbox
from linkspan.sdk.errors import (
    Conflict,
    InvalidArgument,
    NotFound,
    PermissionDenied,
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

_FIRST_EPHEMERAL = 32768
PortKey = tuple[str, int]


@attrs.define
class _Subnet:
    network: IPv4Network
    gateway: IPv4Address
    taken: set[IPv4Address]

    def take(self, wanted: str, name: str) -> IPv4Address:
        if wanted:
            return self._take_fixed(_address(wanted), name)
        for address in self.network.hosts():
            if address not in self.taken:
                self.taken.add(address)
                return address
        raise Unavailable(
            f"no available IPv4 addresses on network {name}", code="addresses_exhausted"
        )

    def _take_fixed(self, address: IPv4Address, name: str) -> IPv4Address:
        if address not in self.network or address == self.gateway:
            raise InvalidArgument(f"address {address} is not one for a container in {name}")
        if address in self.taken:
            raise Conflict(f"Address already in use: {address}", code="address_taken")
        self.taken.add(address)
        return address


class FakeNetwork(NetworkDriver[NoConfig]):
    """Implements the role ``network``.

    Attributes:
        networks: Id → network.
        sandboxes: Container id → its sandbox.
        balanced: (protocol, host port) → where connections to it are led.
        holders: (protocol, host port) → who has it; a test may take ports itself.
    """

    def __init__(self, host: Host) -> None:
        self._folder = host.run_dir / "sandboxes"
        self._subnets: dict[str, _Subnet] = {}
        self._requests: dict[str, AttachRequest] = {}
        self.networks: dict[str, Network] = {}
        self.sandboxes: dict[str, Sandbox] = {}
        self.balanced: dict[PortKey, tuple[Backend, ...]] = {}
        self.holders: dict[PortKey, str] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, config: NoConfig, host: Host) -> AsyncIterator[Self]:
        yield cls(host)

    @property
    def capabilities(self) -> NetworkCap:
        return NetworkCap.PUBLISH | NetworkCap.NAMES | NetworkCap.BALANCE

    async def create_network(self, network: Network) -> Network:
        await trio.lowlevel.checkpoint()
        if network.spec.enable_ipv6:
            raise Unsupported("this network driver has no IPv6")
        wanted = network.spec.pools[0] if network.spec.pools else AddressPool()
        subnet = self._choose_subnet(wanted)
        pool = attrs.evolve(wanted, subnet=str(subnet.network), gateway=str(subnet.gateway))
        made = attrs.evolve(network, spec=attrs.evolve(network.spec, pools=(pool,)))
        self._subnets[network.id] = subnet
        self.networks[network.id] = made
        return made

    def _choose_subnet(self, wanted: AddressPool) -> _Subnet:
        own = [subnet.network for subnet in self._subnets.values()]
        if wanted.subnet:
            network = _network(wanted.subnet)
            if any(network.overlaps(other) for other in own):
                raise PermissionDenied(
                    f"Pool overlaps with other one: {network}", code="pool_overlaps"
                )
        else:
            free = (IPv4Network((f"172.{number}.0.0", 16)) for number in range(17, 32))
            chosen = next((each for each in free if each not in own), None)
            if chosen is None:
                raise InvalidArgument("all pools are in use", code="pools_exhausted")
            network = chosen
        auxiliary = {_address(text) for text in wanted.auxiliary.values()}
        free_hosts = (host for host in network.hosts() if host not in auxiliary)
        gateway = _address(wanted.gateway) if wanted.gateway else next(free_hosts)
        if any(address not in network for address in (gateway, *auxiliary)):
            raise InvalidArgument(f"an address of the network is not within {network}")
        return _Subnet(network, gateway, {gateway, *auxiliary})

    async def remove_network(self, network: Network) -> None:
        await trio.lowlevel.checkpoint()
        self.networks.pop(network.id, None)
        self._subnets.pop(network.id, None)

    async def restore(self, networks: Iterable[Network], sandboxes: Iterable[Sandbox]) -> list[str]:
        await trio.lowlevel.checkpoint()
        for network in networks:
            pool = network.spec.pools[0]
            gateway = _address(pool.gateway)
            taken = {gateway, *map(_address, pool.auxiliary.values())}
            self.networks[network.id] = network
            self._subnets[network.id] = _Subnet(_network(pool.subnet), gateway, taken)
        for sandbox in sandboxes:
            self.sandboxes[sandbox.container_id] = sandbox
            self._requests[sandbox.container_id] = AttachRequest(
                container_id=sandbox.container_id, name=sandbox.container_id[:12], hostname=""
            )
            for endpoint in sandbox.endpoints:
                self._subnets[endpoint.network_id].taken.add(_address(endpoint.ipv4_address))
            for port in sandbox.ports:
                self.holders[port.protocol, port.host_port] = sandbox.container_id
        return []

    async def attach(self, request: AttachRequest) -> Sandbox:
        await trio.lowlevel.checkpoint()
        if request.container_id in self.sandboxes:
            raise Conflict(f"container {request.name} is attached already", code="sandbox_exists")
        endpoints: list[Endpoint] = []
        ports: tuple[PortBinding, ...] = ()
        try:
            for network, spec in request.networks:
                endpoints.append(self._join(request, network, spec, f"eth{len(endpoints)}"))
            if any(not network.spec.internal for network, _ in request.networks):
                ports = self._reserve(f"container {request.name}", request.ports)
            files = self._write_files(request, endpoints)
        except BaseException:
            self._release(endpoints, ports)
            raise
        sandbox = Sandbox(
            container_id=request.container_id,
            namespace=f"/fake/netns/{request.container_id[:12]}",
            endpoints=tuple(endpoints),
            ports=ports,
            files=files,
        )
        self._requests[request.container_id] = request
        self.sandboxes[request.container_id] = sandbox
        return sandbox

    def _join(
        self, request: AttachRequest, network: Network, spec: EndpointSpec, interface: str
    ) -> Endpoint:
        subnet = self._subnets.get(network.id)
        if subnet is None:
            raise NotFound(f"network {network.name} is unknown to the driver")
        address = subnet.take(spec.ipv4_address, network.name)
        mac = ":".join(f"{byte:02x}" for byte in b"\x02\x42" + address.packed)
        return Endpoint(
            id=(request.container_id + network.id)[-64:],
            network_id=network.id,
            network_name=network.name,
            interface=interface,
            ipv4_address=str(address),
            ipv4_prefix=subnet.network.prefixlen,
            gateway="" if network.spec.internal else str(subnet.gateway),
            mac_address=spec.mac_address or mac,
            spec=spec,
            names=(request.name, *spec.aliases, request.container_id[:12]),
        )

    def _reserve(self, owner: str, wanted: Iterable[PortBinding]) -> tuple[PortBinding, ...]:
        done: list[PortBinding] = []
        try:
            for port in wanted:
                first = port.host_port or _FIRST_EPHEMERAL
                last = max(first, port.host_port_end) if port.host_port else 65535
                free = (n for n in range(first, last + 1) if (port.protocol, n) not in self.holders)
                number = next(free, None)
                if number is None:
                    raise self._port_taken(port)
                self.holders[port.protocol, number] = owner
                done.append(attrs.evolve(port, host_port=number, host_port_end=0))
        except BaseException:
            self._release((), done)
            raise
        return tuple(done)

    def _port_taken(self, port: PortBinding) -> Conflict:
        holder = self.holders[port.protocol, port.host_port]
        address = port.host_ip or "0.0.0.0"
        return Conflict(
            f"Bind for {address}:{port.host_port} failed: port is already allocated (by {holder})",
            code="port_taken",
            details={
                "address": address,
                "port": port.host_port,
                "protocol": port.protocol,
                "holder": holder,
            },
        )

    def _release(self, endpoints: Iterable[Endpoint], ports: Iterable[PortBinding]) -> None:
        for endpoint in endpoints:
            subnet = self._subnets.get(endpoint.network_id)
            if subnet is not None:
                subnet.taken.discard(_address(endpoint.ipv4_address))
        for port in ports:
            self.holders.pop((port.protocol, port.host_port), None)

    def _write_files(self, request: AttachRequest, endpoints: list[Endpoint]) -> dict[str, str]:
        folder = self._folder / request.container_id
        folder.mkdir(parents=True, exist_ok=True)
        lines = ["127.0.0.1\tlocalhost"]
        lines += ["\t".join(reversed(text.split(":", 1))) for text in request.extra_hosts]
        lines += [f"{endpoint.ipv4_address}\t{request.hostname}" for endpoint in endpoints]
        servers = request.dns or ("127.0.0.11",)
        contents = {
            "hosts": "\n".join(lines),
            "resolv.conf": "\n".join(f"nameserver {server}" for server in servers),
            "hostname": request.hostname,
        }
        for name, text in contents.items():
            Path(folder, name).write_text(text + "\n")
        return {f"/etc/{name}": str(folder / name) for name in contents}

    def _share_files(self, sandbox: Sandbox) -> dict[str, str]:
        folder = self._folder / sandbox.container_id
        folder.mkdir(parents=True)
        files = {inside: str(folder / Path(inside).name) for inside in sandbox.files}
        for inside, own in files.items():
            Path(own).hardlink_to(sandbox.files[inside])
        return files

    async def relink(self, container_id: str, network: Network, links: tuple[str, ...]) -> None:
        await trio.lowlevel.checkpoint()
        sandbox = self.sandboxes.get(container_id)
        if sandbox is None:
            return
        endpoints = tuple(
            attrs.evolve(endpoint, spec=attrs.evolve(endpoint.spec, links=links))
            if endpoint.network_id == network.id
            else endpoint
            for endpoint in sandbox.endpoints
        )
        self.sandboxes[container_id] = attrs.evolve(sandbox, endpoints=endpoints)

    async def detach(self, container_id: str) -> None:
        await trio.lowlevel.checkpoint()
        sandbox = self.sandboxes.pop(container_id, None)
        if sandbox is None:
            return
        del self._requests[container_id]
        self._release(sandbox.endpoints, sandbox.ports)
        gone = {endpoint.ipv4_address for endpoint in sandbox.endpoints}
        for key, backends in self.balanced.items():
            self.balanced[key] = tuple(each for each in backends if each.address not in gone)
        shutil.rmtree(self._folder / container_id, ignore_errors=True)

    async def adopt(self, sandbox: Sandbox, request: AttachRequest) -> Sandbox:
        await trio.lowlevel.checkpoint()
        self._requests[sandbox.container_id] = request
        adopted = attrs.evolve(sandbox, files=self._share_files(sandbox))
        self.sandboxes[sandbox.container_id] = adopted
        return adopted

    async def connect(self, container_id: str, network: Network, spec: EndpointSpec) -> Endpoint:
        await trio.lowlevel.checkpoint()
        sandbox = self._sandbox(container_id)
        if any(endpoint.network_id == network.id for endpoint in sandbox.endpoints):
            raise Conflict(f"the container is in network {network.name} already")
        taken = {endpoint.interface for endpoint in sandbox.endpoints}
        interface = next(name for n in range(99) if (name := f"eth{n}") not in taken)
        endpoint = self._join(self._requests[container_id], network, spec, interface)
        endpoints = (*sandbox.endpoints, endpoint)
        self.sandboxes[container_id] = attrs.evolve(sandbox, endpoints=endpoints)
        return endpoint

    async def disconnect(self, container_id: str, network: Network) -> None:
        await trio.lowlevel.checkpoint()
        sandbox = self._sandbox(container_id)
        gone = [e for e in sandbox.endpoints if e.network_id == network.id]
        if not gone:
            raise NotFound(f"the container is not connected to network {network.name}")
        self._release(gone, ())
        kept = tuple(e for e in sandbox.endpoints if e.network_id != network.id)
        self.sandboxes[container_id] = attrs.evolve(sandbox, endpoints=kept)

    def _sandbox(self, container_id: str) -> Sandbox:
        if container_id not in self.sandboxes:
            raise NotFound(f"container {container_id[:12]} has no network sandbox")
        return self.sandboxes[container_id]

    async def balance(self, port: PortBinding, backends: tuple[Backend, ...]) -> PortBinding:
        await trio.lowlevel.checkpoint()
        if (port.protocol, port.host_port) not in self.balanced:
            (port,) = self._reserve("a balanced service port", [port])
        self.balanced[port.protocol, port.host_port] = backends
        return port

    async def unbalance(self, port: PortBinding) -> None:
        await trio.lowlevel.checkpoint()
        if self.balanced.pop((port.protocol, port.host_port), None) is not None:
            self._release((), [port])


def _address(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid address '{text}'") from error


def _network(text: str) -> IPv4Network:
    try:
        return IPv4Network(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid subnet '{text}': {error}") from error
