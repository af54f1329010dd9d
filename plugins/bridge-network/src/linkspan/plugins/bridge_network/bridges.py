"""A network as this driver carries it: a bridge, a subnet, a zone of names, rules."""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import attrs

from linkspan.plugins.bridge_network.ipam import Subnet, parse_address, parse_subnet
from linkspan.plugins.bridge_network.names import Zone
from linkspan.plugins.bridge_network.ruleset import BridgeRules
from linkspan.sdk.errors import InvalidArgument, Unsupported
from linkspan.sdk.model.network import AddressPool, Network

_PREFIX = "com.docker.network."
BRIDGE_NAME = _PREFIX + "bridge.name"
_DEFAULT_BRIDGE = _PREFIX + "bridge.default_bridge"
_ICC = _PREFIX + "bridge.enable_icc"
_MASQUERADE = _PREFIX + "bridge.enable_ip_masquerade"
_HOST_BINDING = _PREFIX + "bridge.host_binding_ipv4"
MTU = _PREFIX + "driver.mtu"
_SOURCE = _PREFIX + "host_ipv4"
_INTERFACE_PREFIX = _PREFIX + "container_iface_prefix"
_GATEWAY_MODE = _PREFIX + "bridge.gateway_mode_ipv4"
INTERFACE_NAME = _PREFIX + "endpoint.ifname"
_NOT_YET = (
    _PREFIX + "bridge.gateway_mode_ipv6",
    _PREFIX + "bridge.trusted_host_interfaces",
    _PREFIX + "bridge.inhibit_ipv4",
)
_NAME_LIMIT = 15  # IFNAMSIZ without the final zero


@attrs.frozen(kw_only=True)
class BridgeOptions:
    """The driver options of a network (Docker's ``com.docker.network.…``)."""

    bridge: str = ""
    icc: bool = True
    masquerade: bool = True
    host_binding: str = ""
    mtu: int = 0
    source: str = ""
    interface_prefix: str = "eth"


def parse_options(options: Mapping[str, str]) -> BridgeOptions:
    """Read the options of a network; keys of other programs are passed over.

    Raises:
        InvalidArgument: A value that cannot be.
        Unsupported: Something that this driver does not do.
    """
    for key in _NOT_YET:
        if options.get(key):
            raise Unsupported(f"the network option {key} is not supported yet")
    if options.get(_GATEWAY_MODE, "nat") != "nat":
        raise Unsupported(f"{_GATEWAY_MODE} other than 'nat' is not supported yet")
    bridge = options.get(BRIDGE_NAME, "")
    prefix = options.get(_INTERFACE_PREFIX, "eth")
    if len(bridge) > _NAME_LIMIT or "/" in bridge or (prefix and len(prefix) > _NAME_LIMIT - 3):
        raise InvalidArgument(f"invalid interface name '{bridge or prefix}': too long, or with a /")
    for key in (_HOST_BINDING, _SOURCE):
        if options.get(key):
            parse_address(options[key], f"option {key}")
    return BridgeOptions(
        bridge=bridge,
        icc=_flag(options, _ICC),
        masquerade=_flag(options, _MASQUERADE),
        host_binding=options.get(_HOST_BINDING, ""),
        mtu=_mtu(options.get(MTU, "")),
        source=options.get(_SOURCE, ""),
        interface_prefix=prefix,
    )


def _flag(options: Mapping[str, str], key: str) -> bool:
    match options.get(key, "true").lower():
        case "true" | "1":
            return True
        case "false" | "0":
            return False
        case other:
            raise InvalidArgument(f"invalid value '{other}' of {key}: write true or false")


def _mtu(text: str) -> int:
    if not text:
        return 0
    if not text.isdigit() or not 68 <= int(text) <= 65535:
        raise InvalidArgument(f"invalid mtu '{text}': write a number from 68 to 65535")
    return int(text)


def is_default(network: Network) -> bool:
    """Whether it is the network that containers are in when they name none."""
    return network.name == "bridge" or network.spec.options.get(_DEFAULT_BRIDGE) == "true"


def mac_of(address: IPv4Address) -> str:
    """The MAC that goes with an address: a reused address keeps it, so neighbours stay right."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + address.packed)


@attrs.define(eq=False)
class CarriedNetwork:
    """A network with what carries it.

    Attributes:
        index: Of the bridge's link; 0 until it is made.
    """

    network: Network
    options: BridgeOptions
    bridge: str
    mtu: int
    subnet: Subnet
    zone: Zone
    index: int = 0

    @classmethod
    def of(cls, network: Network, bridge: str, mtu: int) -> "CarriedNetwork":
        """Of a network whose choices (subnet, gateway) are made."""
        pool = network.spec.pools[0]
        return cls(
            network=network,
            options=parse_options(network.spec.options),
            bridge=bridge,
            mtu=mtu,
            subnet=_subnet(network.name, pool),
            zone=Zone(network.name),
        )

    @property
    def id(self) -> str:
        """Of the network."""
        return self.network.id

    @property
    def default(self) -> bool:
        """Whether it is the daemon's default network, which has no name service."""
        return is_default(self.network)

    @property
    def internal(self) -> bool:
        """Whether it leads nowhere but to its bridge."""
        return self.network.spec.internal

    @property
    def address(self) -> IPv4Interface:
        """The bridge's own address: the gateway of its containers."""
        assert self.subnet.gateway is not None
        return IPv4Interface((self.subnet.gateway, self.subnet.network.prefixlen))

    @property
    def gateway(self) -> IPv4Address | None:
        """Where its containers send what is not for their network."""
        return None if self.internal else self.subnet.gateway

    @property
    def rules(self) -> BridgeRules:
        """What the firewall knows of it."""
        return BridgeRules(
            bridge=self.bridge,
            subnet=str(self.subnet.network),
            internal=self.internal,
            icc=self.options.icc,
            masquerade=self.options.masquerade,
            source=self.options.source,
        )


def _subnet(name: str, pool: AddressPool) -> Subnet:
    return Subnet(
        name,
        IPv4Network(pool.subnet),
        gateway=IPv4Address(pool.gateway),
        ip_range=parse_subnet(pool.ip_range, "ip range") if pool.ip_range else None,
        auxiliary=[IPv4Address(text) for text in pool.auxiliary.values()],
    )
