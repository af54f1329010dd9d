"""Putting a sandbox into a network: its addresses, its link, its endpoint's record."""

import re
from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_network

from linkspan.plugins.bridge_network import rtnetlink
from linkspan.plugins.bridge_network.bridges import (
    INTERFACE_NAME,
    INTERFACE_SYSCTLS,
    CarriedNetwork,
)
from linkspan.plugins.bridge_network.graveyard import Graveyard, Lease, end
from linkspan.plugins.bridge_network.ipam import Address, Subnet, parse_address
from linkspan.plugins.bridge_network.namespaces import LinkPlan, Namespaces
from linkspan.plugins.bridge_network.networks import BridgeNetworks
from linkspan.plugins.bridge_network.pool import (
    Pool,
    Prepared,
    isolates_ports,
    new_endpoint_id,
    plan_link,
    take_any,
)
from linkspan.plugins.bridge_network.sandbox import Join, LivingSandbox
from linkspan.sdk.drivers.network import AttachRequest
from linkspan.sdk.errors import Conflict, InvalidArgument, Unavailable
from linkspan.sdk.model.network import Endpoint, EndpointSpec, Network

_SYSCTL = re.compile(r"net\.(ipv4|ipv6|mpls)\.([a-z0-9_]+)\.(?i:IFNAME)\.([a-z0-9_]+)=(.*)")
_MAC = re.compile(r"([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}")


class Endpoints:
    """See the module."""

    def __init__(
        self,
        group: int,
        namespaces: Namespaces,
        networks: BridgeNetworks,
        pool: Pool,
        graveyard: Graveyard,
    ) -> None:
        self._group = group
        self._namespaces = namespaces
        self._networks = networks
        self._pool = pool
        self._graveyard = graveyard
        self._apart: dict[str, bool] = {}

    async def keep_apart(self) -> None:
        """Ports of networks with ``icc`` off: how, depends on what others have made of the host."""
        for carried in self._networks.all():
            if carried.options.icc:
                continue
            isolated = await isolates_ports(carried, self._namespaces)
            if self._apart.get(carried.id, isolated) is not isolated:
                for link in await self._namespaces.links():
                    if link.master == carried.index:
                        message = rtnetlink.bridge_port(link.name, isolated=isolated)
                        await self._namespaces.send(message)
            self._apart[carried.id] = isolated

    def forget(self, carried: CarriedNetwork) -> None:
        """A network is gone."""
        self._apart.pop(carried.id, None)

    def take_prepared(
        self, networks: Sequence[tuple[Network, EndpointSpec]], *, ipv6: bool
    ) -> Prepared | None:
        """A prepared namespace, if the first network is the pool's and there are no wishes."""
        if not networks:
            return None
        network, spec = networks[0]
        wishes = (
            spec.ipv4_address
            or spec.mac_address
            or spec.ipv6_address
            or spec.driver_options
            or spec.link_local_addresses
        )
        ours = self._pool.network
        if wishes or ours is None or ours.id != network.id:
            return None
        if not ipv6 and 6 in ours.subnets:
            return None
        return self._pool.take()

    def take_over(
        self, sandbox: LivingSandbox, network: Network, spec: EndpointSpec, prepared: Prepared
    ) -> None:
        """Have a prepared namespace's endpoint be the sandbox's."""
        carried = self._networks.get(network)
        sandbox.path = prepared.path
        endpoint = _endpoint(
            sandbox.request, carried, spec, prepared.endpoint_id, prepared.link, prepared.leases
        )
        sandbox.joins[carried.id] = Join(carried, endpoint, prepared.leases)

    async def join(
        self, sandbox: LivingSandbox, carried: CarriedNetwork, spec: EndpointSpec
    ) -> LinkPlan:
        """Note a sandbox as a network's; the link that it needs is still to be made.

        Raises:
            Conflict: It is in it already, or code ``address_taken``.
            InvalidArgument: A wish that cannot be.
            Unavailable: code ``addresses_exhausted``.
        """
        if carried.id in sandbox.joins:
            raise Conflict(
                f"endpoint with name {sandbox.request.name} already exists in network"
                f" {carried.network.name}",
                code="endpoint_exists",
            )
        mac = _checked_mac(spec.mac_address)
        link_local = _checked_link_local(spec.link_local_addresses)
        sysctls = _checked_sysctls(spec.driver_options.get(INTERFACE_SYSCTLS, ""))
        isolated = await isolates_ports(carried, self._namespaces)
        leases = await self._take_addresses(carried, spec, _families(carried, sandbox.request))
        endpoint_id = new_endpoint_id()
        wanted_name = spec.driver_options.get(INTERFACE_NAME)
        link = plan_link(
            carried,
            self._group,
            endpoint_id=endpoint_id,
            name=wanted_name or sandbox.free_interface_name(carried.options.interface_prefix),
            leases=leases,
            mac=mac,
            link_local=link_local,
            isolated=isolated,
            sysctls=sysctls,
        )
        endpoint = _endpoint(sandbox.request, carried, spec, endpoint_id, link, leases)
        sandbox.joins[carried.id] = Join(carried, endpoint, leases)
        return link

    async def _take_addresses(
        self, carried: CarriedNetwork, spec: EndpointSpec, subnets: Mapping[int, Subnet]
    ) -> tuple[Lease, ...]:
        wishes = _wished_addresses(carried, spec, subnets)
        taken: list[Lease] = []
        try:
            for version, address in wishes.items():
                taken.append(await self._take_fixed(subnets[version], address))
            if not wishes:
                return await self._take_any(carried, subnets)
            for version, subnet in subnets.items():
                if version not in wishes:
                    taken.append(Lease(subnet, subnet.take()))
        except BaseException:
            end(taken)
            raise
        return tuple(sorted(taken, key=lambda lease: lease.address.version))

    async def _take_fixed(self, subnet: Subnet, address: Address) -> Lease:
        subnet.check(address)
        lease = Lease(subnet, address)
        if subnet.is_taken(address):
            self._pool.give_up(lease)
        if self._graveyard.holds(lease):
            await self._graveyard.flush()
        subnet.take_fixed(address)
        return lease

    async def _take_any(
        self, carried: CarriedNetwork, subnets: Mapping[int, Subnet]
    ) -> tuple[Lease, ...]:
        try:
            return take_any(subnets)
        except Unavailable:
            # Addresses of ended containers come back a second later, and some lie in the pool.
            await self._graveyard.flush()
            if self._pool.network is carried:
                await self._pool.clear()
                self._pool.serve(carried)
            return take_any(subnets)


def names_of(request: AttachRequest, spec: EndpointSpec) -> tuple[str, ...]:
    """What a container is called in a network."""
    names = (request.name, *spec.aliases, request.container_id[:12], request.hostname)
    return tuple(dict.fromkeys(name for name in names if name))


def _endpoint(
    request: AttachRequest,
    carried: CarriedNetwork,
    spec: EndpointSpec,
    endpoint_id: str,
    link: LinkPlan,
    leases: tuple[Lease, ...],
) -> Endpoint:
    has = {lease.address.version: lease for lease in leases}
    gateways = carried.gateways()

    def address(version: int) -> str:
        return str(has[version].address) if version in has else ""

    def prefix(version: int) -> int:
        return has[version].subnet.network.prefixlen if version in has else 0

    return Endpoint(
        id=endpoint_id,
        network_id=carried.id,
        network_name=carried.network.name,
        interface=link.name,
        ipv4_address=address(4),
        ipv4_prefix=prefix(4),
        gateway=str(gateways.get(4, "")) if 4 in has else "",
        ipv6_address=address(6),
        ipv6_prefix=prefix(6),
        ipv6_gateway=str(gateways.get(6, "")) if 6 in has else "",
        mac_address=link.mac,
        spec=spec,
        names=names_of(request, spec),
    )


def _families(carried: CarriedNetwork, request: AttachRequest) -> Mapping[int, Subnet]:
    """The subnets that a container gets addresses of; all of them, if it wants none that there is."""
    wanted = {v: subnet for v, subnet in carried.subnets.items() if v == 4 or request.ipv6}
    return wanted or carried.subnets


def _wished_addresses(
    carried: CarriedNetwork, spec: EndpointSpec, subnets: Mapping[int, Subnet]
) -> dict[int, Address]:
    wishes = {}
    for version, text in ((4, spec.ipv4_address), (6, spec.ipv6_address)):
        if not text:
            continue
        address = parse_address(text, "address", version)
        if version in subnets:
            wishes[version] = address
            continue
        # Docker takes an address of a subnet that the network was given, but does not use.
        unused = (ip_network(pool.subnet) for pool in carried.network.spec.pools)
        if not any(address in subnet for subnet in unused):
            raise InvalidArgument(
                f"invalid address {text}: network {carried.network.name} has no IPv{version} subnet"
            )
    return wishes


def _checked_mac(text: str) -> str:
    if not text:
        return ""
    if _MAC.fullmatch(text):
        if int(text[:2], 16) & 1:
            raise InvalidArgument(
                f"invalid MAC address '{text}': it is one of a group",
                help="its first byte must be even",
            )
        return text.lower()
    raise InvalidArgument(f"invalid MAC address '{text}'", help="write 02:42:ac:11:00:02")


def _checked_sysctls(text: str) -> tuple[tuple[str, str], ...]:
    """``net.ipv4.conf.IFNAME.log_martians=1,…``: see ``LinkPlan.sysctls``."""
    found = []
    for part in filter(None, text.split(",")):
        parsed = _SYSCTL.fullmatch(part)
        if parsed is None:
            raise InvalidArgument(
                f"invalid endpoint settings:\nunrecognised network interface sysctl '{part}'; represent"
                " 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
            )
        family, kind, name, value = parsed.groups()
        found.append((f"net/{family}/{kind}/{{}}/{name}", value))
    return tuple(found)


def _checked_link_local(texts: Sequence[str]) -> list[Address]:
    found: list[Address] = []
    for text in texts:
        try:
            address = ip_address(text)
        except ValueError:
            raise InvalidArgument(f"invalid link-local IP address: {text}") from None
        if not address.is_link_local:
            raise InvalidArgument(
                f"invalid link local IP address: {text}", help="169.254.0.0/16, or fe80::/10"
            )
        found.append(address)
    return found
