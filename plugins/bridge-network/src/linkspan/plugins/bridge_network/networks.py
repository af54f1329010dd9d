"""The networks that the driver carries: choosing their subnets, making and repairing their bridges."""

import errno
import hashlib
import logging
from collections.abc import Sequence
from ipaddress import IPv6Network, ip_address, ip_interface, ip_network
from pathlib import Path

import attrs
import trio

from linkspan.plugins.bridge_network import rtnetlink
from linkspan.plugins.bridge_network.bridges import (
    BRIDGE_NAME,
    BridgeOptions,
    CarriedNetwork,
    is_default,
    parse_options,
)
from linkspan.plugins.bridge_network.config import BridgeConfig, PoolConfig
from linkspan.plugins.bridge_network.firewall import Firewall
from linkspan.plugins.bridge_network.graveyard import Graveyard
from linkspan.plugins.bridge_network.ipam import (
    Range,
    Surroundings,
    choose_subnet,
    parse_subnet,
    pools_of_daemon,
)
from linkspan.plugins.bridge_network.namespaces import Namespaces
from linkspan.plugins.bridge_network.sandbox_files import host_settings
from linkspan.sdk.errors import (
    Conflict,
    Internal,
    InvalidArgument,
    NotFound,
    Unsupported,
)
from linkspan.sdk.host import Host
from linkspan.sdk.model.network import AddressPool, Network, NetworkSpec

log = logging.getLogger(__name__)

_DEFAULT_MTU = 1500
_DEFAULT_BRIDGE = "linkspan0"
_MAIN_TABLE = 254
_FORWARDING = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}
_BRIDGE_IPV6 = {
    "disable_ipv6": "0",
    "accept_ra": "0",
    "autoconf": "0",
    # While it looks for others with its link-local address, a bridge finds no container.
    "accept_dad": "0",
}
_HAS_IPV6 = Path("/proc/sys/net/ipv6/conf")


class BridgeNetworks:
    """See the module.

    Args:
        short_id: Of the daemon.
        group: Link group of its bridges.
    """

    def __init__(
        self,
        config: BridgeConfig,
        host: Host,
        short_id: str,
        group: int,
        namespaces: Namespaces,
        firewall: Firewall,
        graveyard: Graveyard,
    ) -> None:
        self._config = config
        self._host = host
        self._short_id = short_id
        self._group = group
        self._namespaces = namespaces
        self._firewall = firewall
        self._graveyard = graveyard
        self._carried: dict[str, CarriedNetwork] = {}

    def all(self) -> list[CarriedNetwork]:
        """Those that there are."""
        return list(self._carried.values())

    def find(self, network_id: str) -> CarriedNetwork | None:
        """By its id."""
        return self._carried.get(network_id)

    def get(self, network: Network) -> CarriedNetwork:
        """By its record.

        Raises:
            NotFound: It is not carried.
        """
        found = self._carried.get(network.id)
        if found is None:
            raise NotFound(f"network {network.name} is not carried by the driver bridge")
        return found

    def default(self) -> CarriedNetwork | None:
        """The one of containers that name none."""
        return next((carried for carried in self.all() if carried.default), None)

    async def create(self, network: Network) -> CarriedNetwork:
        """Make a network with its bridge.

        Raises: See ``NetworkDriver.create_network``.
        """
        if is_default(network) and self._config.default_network_ipv6:
            network = attrs.evolve(network, spec=attrs.evolve(network.spec, enable_ipv6=True))
        options = parse_options(network.spec.options)
        await trio.to_thread.run_sync(_check, network, options)
        mtu = options.mtu or self._config.mtu or await self.uplink_mtu()
        foreign = await self._foreign_subnets()
        pools = self._choose_pools(network, foreign)
        chosen = attrs.evolve(network, spec=attrs.evolve(network.spec, pools=pools))
        carried = CarriedNetwork.of(chosen, "", mtu)
        self._carried[network.id] = carried  # from now on its subnet is taken
        try:
            await self._make_bridge(carried, self._bridge_names(network, options.bridge))
        except BaseException:
            del self._carried[network.id]
            with trio.CancelScope(shield=True):
                await self._unmake_bridge(carried)
            raise
        return carried

    async def remove(self, carried: CarriedNetwork) -> None:
        """Take a network away."""
        self._carried.pop(carried.id, None)
        await self._unmake_bridge(carried)

    # Subnets

    def _choose_pools(
        self, network: Network, foreign: tuple[Range, ...]
    ) -> tuple[AddressPool, ...]:
        """Those asked for, also of a family that is not to be, as in Docker; then those chosen."""
        given = {
            _version_of(pool): attrs.evolve(pool, subnet=str(parse_subnet(pool.subnet, "subnet")))
            for pool in network.spec.pools
            if pool.subnet
        }
        wanted = self._wanted_pools(network)
        own = tuple(s.network for carried in self.all() for s in carried.subnets.values())
        around = Surroundings(own=own, foreign=foreign)
        chosen = {
            version: choose_subnet(
                wanted[version], self._default_pools(version, network.spec), around
            )
            for version in sorted(wanted)
        }
        shown = [chosen.get(version, given[version]) for version in sorted(given)]
        return (*shown, *(pool for version, pool in chosen.items() if version not in given))

    def _default_pools(self, version: int, spec: NetworkSpec) -> list[PoolConfig]:
        asked = [PoolConfig(base=pool.base, size=pool.size) for pool in spec.subnet_pools]
        given = self._config.default_address_pools
        found = [pool for pool in asked if ip_network(pool.base).version == version] or [
            pool for pool in given if ip_network(pool.base).version == version
        ]
        if version == 4 or found:
            return found
        digest = hashlib.sha256(self._host.daemon.id.encode()).digest()
        own = IPv6Network((b"\xfd" + digest[:5] + bytes(10), 48))  # RFC 4193
        return [pools_of_daemon(own)]

    def _wanted_pools(self, network: Network) -> dict[int, AddressPool]:
        """Family → what was asked for of it; families that are not to be are not in it."""
        spec = network.spec
        wanted: dict[int, AddressPool] = {}
        for pool in spec.pools:
            version = _version_of(pool)
            if version in wanted:
                raise Unsupported(
                    "bridge driver doesn't support multiple subnets", code="several_subnets"
                )
            wanted[version] = pool
        if not spec.enable_ipv6:
            wanted.pop(6, None)
        elif 6 not in wanted:
            wanted[6] = AddressPool()
        if not spec.enable_ipv4:
            wanted.pop(4, None)
        elif 4 not in wanted:
            wanted[4] = self._default_pool(network)
        return wanted

    def _default_pool(self, network: Network) -> AddressPool:
        own = self._host.daemon.bridge_address
        if not own or not is_default(network):
            return AddressPool()
        try:
            interface = ip_interface(own)
        except ValueError as error:
            raise InvalidArgument(f"invalid bridge address '{own}': {error}") from error
        return AddressPool(subnet=str(interface.network), gateway=str(interface.ip))

    async def _foreign_subnets(self) -> tuple[Range, ...]:
        own = {carried.index for carried in self.all()}
        found: list[Range] = [
            route.destination
            for route in await self._namespaces.routes()
            if route.destination.prefixlen > 0 and route.device not in own
        ]
        addresses = await self._namespaces.addresses()
        found += [interface.network for index, interface in addresses if index not in own]
        settings = await trio.to_thread.run_sync(host_settings)
        for server in settings.servers:
            try:
                found.append(ip_network(server.partition("%")[0]))
            except ValueError:
                continue
        return tuple(found)

    # Bridges

    def _bridge_names(self, network: Network, wanted: str) -> list[str]:
        if wanted:
            return [wanted]
        if is_default(network):
            return self._default_bridges()
        return [f"br-{network.id[:12]}"]

    def _default_bridges(self) -> list[str]:
        return [_DEFAULT_BRIDGE, f"lsbr-{self._short_id}"]

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
            _tell_bridge(carried)

    def _bridge_message(self, carried: CarriedNetwork) -> rtnetlink.Message:
        return rtnetlink.bridge(
            carried.bridge,
            group=self._group,
            mac=carried.mac,
            mtu=carried.mtu,
            alias=f"linkspan:{self._short_id}:{carried.network.name}",
        )

    async def _set_up_bridge(self, carried: CarriedNetwork) -> None:
        links = {link.name: link for link in await self._namespaces.links()}
        carried.index = links[carried.bridge].index
        if 6 in carried.subnets:
            for name, value in _BRIDGE_IPV6.items():
                await self._namespaces.set_sysctl(f"net/ipv6/conf/{carried.bridge}/{name}", value)
        addresses = [
            rtnetlink.address(carried.index, interface) for interface in carried.bridge_addresses()
        ]
        await self._namespaces.send(*addresses, rtnetlink.link_up(carried.index))
        # Published ports are asked for over 127.0.0.1, too. Only now: the table guards it.
        sysctl = f"net/ipv4/conf/{carried.bridge}/route_localnet"
        await self._namespaces.set_sysctl(sysctl, "1")
        if not carried.internal:
            for version in carried.subnets:
                await self._forward(version)

    async def _forward(self, version: int) -> None:
        """Have the host forward packets; if it was none before, it becomes no router for others."""
        sysctl = _FORWARDING[version]
        mark = self._host.run_dir / f"forwards-ours-only-{version}"
        if await self._namespaces.sysctl(sysctl) == "0":
            if version == 6:
                await self._keep_router_advertisements()
            await trio.to_thread.run_sync(mark.touch)
            await self._firewall.stop_forwarding_foreign(version)
            await self._namespaces.set_sysctl(sysctl, "1")
            log.warning("the host forwards containers' packets now", extra={"sysctl": sysctl})
        elif await trio.to_thread.run_sync(mark.exists):
            await self._firewall.stop_forwarding_foreign(version)

    async def _keep_router_advertisements(self) -> None:
        """A host that forwards takes no default route from a router any more, unless told to."""
        for link in await self._namespaces.links():
            sysctl = f"net/ipv6/conf/{link.name}/accept_ra"
            if await self._namespaces.sysctl(sysctl) == "1" and link.group != self._group:
                await self._namespaces.set_sysctl(sysctl, "2")

    async def _unmake_bridge(self, carried: CarriedNetwork) -> None:
        if carried.bridge:
            await self._graveyard.delete_link(carried.bridge)
            await self._firewall.remove_network(carried.bridge)

    async def uplink_mtu(self) -> int:
        """Of the device with the default route."""
        devices = {
            route.device
            for route in await self._namespaces.routes()
            if route.destination.prefixlen == 0 and route.table == _MAIN_TABLE
        }
        links = await self._namespaces.links()
        sizes = [link.mtu for link in links if link.index in devices and link.name != "lo"]
        return min(sizes, default=_DEFAULT_MTU)

    # After a restart of the daemon

    async def recall(self, network: Network) -> None:
        """Know a network that an earlier daemon has made."""
        if network.id in self._carried:
            return
        options = parse_options(network.spec.options)
        mtu = options.mtu or self._config.mtu or await self.uplink_mtu()
        bridge = self._bridge_names(network, options.bridge)[0]
        self._carried[network.id] = CarriedNetwork.of(network, bridge, mtu)

    def settle_bridge(self, links: dict[str, rtnetlink.Link], notes: list[str]) -> None:
        """Leave the default network's bridge to who has taken its name while no daemon of ours ran."""
        carried = self.default()
        if carried is None:
            return
        names = list(dict.fromkeys([carried.bridge, *self._default_bridges()]))
        ours = [name for name in names if name in links and links[name].group == self._group]
        free = [name for name in names if name not in links]
        chosen = (ours or free or names)[0]
        if chosen == carried.bridge:
            return
        if carried.bridge in links:
            notes.append(
                f"the bridge {carried.bridge} is another's now: network {carried.network.name}"
                f" has {chosen}"
            )
        carried.bridge = chosen
        _tell_bridge(carried)

    async def repair(
        self, carried: CarriedNetwork, links: dict[str, rtnetlink.Link], notes: list[str]
    ) -> None:
        """Make its bridge be as it should; note what was not."""
        if carried.bridge not in links:
            await self._namespaces.send(self._bridge_message(carried))
            notes.append(
                f"made the bridge {carried.bridge} of network {carried.network.name} again"
            )
            await self._note_rivals(carried, notes)
        await self._set_up_bridge(carried)

    async def _note_rivals(self, carried: CarriedNetwork, notes: list[str]) -> None:
        """Say which subnets somebody has taken while no daemon of ours ran."""
        foreign = await self._foreign_subnets()
        for version, subnet in carried.subnets.items():
            rivals = [r for r in foreign if r.version == version and r.overlaps(subnet.network)]
            if rivals:
                widest = min(rivals, key=lambda rival: rival.prefixlen)
                notes.append(
                    f"{subnet.network} of network {carried.network.name} is also used elsewhere on this"
                    f" machine ({widest}): containers in it may not be reached"
                )


def _tell_bridge(carried: CarriedNetwork) -> None:
    """Have the record name the bridge."""
    options = {**carried.network.spec.options, BRIDGE_NAME: carried.bridge}
    spec = attrs.evolve(carried.network.spec, options=options)
    carried.network = attrs.evolve(carried.network, spec=spec)


def _version_of(pool: AddressPool) -> int:
    for text in (pool.subnet, pool.ip_range):
        if text:
            return parse_subnet(text, "subnet").version
    for text in (pool.gateway, *pool.auxiliary.values()):
        try:
            return ip_address(text).version
        except ValueError:
            continue
    return 4


def _check(network: Network, options: BridgeOptions) -> None:
    """Refuse what cannot be. Blocks for a moment."""
    spec = network.spec
    if not (spec.enable_ipv4 or spec.enable_ipv6):
        raise InvalidArgument("IPv4 or IPv6 must be enabled")
    if spec.enable_ipv6 and not _HAS_IPV6.exists():
        raise Unsupported(
            f"network {network.name}: this host's kernel has no IPv6", help="leave out --ipv6"
        )
    if spec.ipam_driver not in ("", "default"):
        raise NotFound(
            f'plugin "{spec.ipam_driver}" not found',
            help="leave it out, or write default",
        )
    for version, mode in options.gateway_mode.items():
        if mode == "isolated" and not spec.internal:
            raise InvalidArgument(
                f"gateway mode 'isolated' of IPv{version} can only be used for an internal network",
                help="add --internal",
            )
