"""A network as this driver carries it: a bridge, its subnets, a zone of names, rules."""

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_address, ip_interface

import attrs

from linkspan.plugins.bridge_network.ipam import Address, Subnet, parse_address, parse_subnet
from linkspan.plugins.bridge_network.names import Zone
from linkspan.plugins.bridge_network.ruleset import BridgeRules, FamilyRules
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.network import AddressPool, Network
from linkspan.sdk.values import define, frozen

Interface = IPv4Interface | IPv6Interface

_PREFIX = "com.docker.network."
BRIDGE_NAME = _PREFIX + "bridge.name"
_DEFAULT_BRIDGE = _PREFIX + "bridge.default_bridge"
_ICC = _PREFIX + "bridge.enable_icc"
_MASQUERADE = _PREFIX + "bridge.enable_ip_masquerade"
_HOST_BINDING = _PREFIX + "bridge.host_binding_ipv4"
MTU = _PREFIX + "driver.mtu"
_SOURCE = {4: _PREFIX + "host_ipv4", 6: _PREFIX + "host_ipv6"}
_INTERFACE_PREFIX = _PREFIX + "container_iface_prefix"
_GATEWAY_MODE = {version: f"{_PREFIX}bridge.gateway_mode_ipv{version}" for version in (4, 6)}
_TRUSTED = _PREFIX + "bridge.trusted_host_interfaces"
_INHIBIT = _PREFIX + "bridge.inhibit_ipv4"
INTERFACE_NAME = _PREFIX + "endpoint.ifname"
INTERFACE_SYSCTLS = _PREFIX + "endpoint.sysctls"
GATEWAY_MODES = ("nat", "nat-unprotected", "routed", "isolated")
_INTERFACE = re.compile(r"[A-Za-z0-9_.@+-]{1,15}")  # IFNAMSIZ without the final zero


@frozen(kw_only=True)
class BridgeOptions:
    """The driver options of a network (Docker's ``com.docker.network.…``).

    Attributes:
        source: Family (4, 6) → address that containers have outside.
        gateway_mode: Family → one of ``GATEWAY_MODES``.
        trusted: Interfaces of the host from which containers are reached directly.
        inhibit_ipv4: The bridge gets no IPv4 address: something else is the gateway.
    """

    bridge: str = ""
    icc: bool = True
    masquerade: bool = True
    host_binding: str = ""
    mtu: int = 0
    source: Mapping[int, str] = attrs.field(factory=dict)
    gateway_mode: Mapping[int, str] = attrs.field(factory=dict)
    trusted: tuple[str, ...] = ()
    inhibit_ipv4: bool = False
    interface_prefix: str = "eth"


def parse_options(options: Mapping[str, str]) -> BridgeOptions:
    """Read the options of a network; keys of other programs are passed over.

    Raises:
        InvalidArgument: A value that cannot be.
    """
    bridge = options.get(BRIDGE_NAME, "")
    prefix = options.get(_INTERFACE_PREFIX, "eth")
    trusted = tuple(name for name in options.get(_TRUSTED, "").split(":") if name)
    # They stand in the firewall's rules, so only plain ones are taken.
    for name in filter(None, (bridge, f"{prefix}000" if prefix else "", *trusted)):
        if _INTERFACE.fullmatch(name) is None:
            raise InvalidArgument(
                f"invalid interface name '{name}'",
                help="at most 15 letters, digits and any of . _ - @ +",
            )
    if options.get(_HOST_BINDING):
        parse_address(options[_HOST_BINDING], f"option {_HOST_BINDING}")
    return BridgeOptions(
        bridge=bridge,
        icc=_flag(options, _ICC, default="true"),
        masquerade=_flag(options, _MASQUERADE, default="true"),
        host_binding=options.get(_HOST_BINDING, ""),
        mtu=_mtu(options.get(MTU, "")),
        source={v: str(a) for v in _SOURCE if (a := _source(options, v)) is not None},
        gateway_mode={version: _mode(options, version) for version in _GATEWAY_MODE},
        trusted=trusted,
        inhibit_ipv4=_flag(options, _INHIBIT, default="false"),
        interface_prefix=prefix,
    )


def _source(options: Mapping[str, str], version: int) -> Address | None:
    text = options.get(_SOURCE[version])
    return parse_address(text, f"option {_SOURCE[version]}", version) if text else None


def _mode(options: Mapping[str, str], version: int) -> str:
    mode = options.get(_GATEWAY_MODE[version]) or "nat"
    if mode not in GATEWAY_MODES:
        raise InvalidArgument(
            f"invalid value '{mode}' of {_GATEWAY_MODE[version]}",
            help=f"write one of {', '.join(GATEWAY_MODES)}",
        )
    return mode


def _flag(options: Mapping[str, str], key: str, *, default: str) -> bool:
    match (options.get(key) or default).lower():
        case "true" | "1":
            return True
        case "false" | "0":
            return False
        case other:
            raise InvalidArgument(
                f'failed to parse {key} value: {other} (strconv.ParseBool: parsing "{other}": invalid'
                " syntax)",
                help="write true or false",
            )


def _mtu(text: str) -> int:
    if not text:
        return 0
    if not text.isdigit():
        raise InvalidArgument(
            f'failed to parse com.docker.network.driver.mtu value: {text} (strconv.Atoi: parsing "{text}":'
            " invalid syntax)",
            help="write a number from 68 to 65535",
        )
    if not 68 <= int(text) <= 65535:
        raise InvalidArgument(f"invalid mtu '{text}': write a number from 68 to 65535")
    return int(text)


def is_default(network: Network) -> bool:
    """Whether it is the network that containers are in when they name none."""
    return network.name == "bridge" or network.spec.options.get(_DEFAULT_BRIDGE) == "true"


def mac_of(address: Address) -> str:
    """The MAC that goes with an address: a reused address keeps it, so neighbours stay right.

    Of an IPv6 address its last four bytes are in it.
    """
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + address.packed[-4:])


@define(eq=False)
class CarriedNetwork:
    """A network with what carries it.

    Attributes:
        subnets: Family (4, 6) → its subnet; one at least.
        index: Of the bridge's link; 0 until it is made.
    """

    network: Network
    options: BridgeOptions
    bridge: str
    mtu: int
    subnets: dict[int, Subnet]
    zone: Zone
    index: int = 0

    @classmethod
    def of(cls, network: Network, bridge: str, mtu: int) -> "CarriedNetwork":
        """Of a network whose choices (subnets, gateways) are made."""
        spec = network.spec
        has = {4: spec.enable_ipv4, 6: spec.enable_ipv6}
        used = (pool for pool in spec.pools if has[parse_subnet(pool.subnet, "subnet").version])
        subnets = [_subnet(network.name, pool) for pool in used]
        return cls(
            network=network,
            options=parse_options(spec.options),
            bridge=bridge,
            mtu=mtu,
            subnets={subnet.network.version: subnet for subnet in subnets},
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
    def host_address(self) -> IPv4Address | None:
        """The host as its containers see it."""
        subnet = self.subnets.get(4)
        gateway = subnet.gateway if subnet else None
        return gateway if isinstance(gateway, IPv4Address) else None

    def mode(self, version: int) -> str:
        """Its gateway mode."""
        return self.options.gateway_mode.get(version, "nat")

    @property
    def mac(self) -> str:
        """Of the bridge."""
        return mac_of(next(s.gateway for s in self.subnets.values() if s.gateway is not None))

    def bridge_addresses(self) -> list[Interface]:
        """The bridge's own addresses: the gateways of its containers."""
        return [
            ip_interface((subnet.gateway, subnet.network.prefixlen))
            for version, subnet in self.subnets.items()
            if subnet.gateway is not None
            and self.mode(version) != "isolated"
            and not (version == 4 and self.options.inhibit_ipv4)
        ]

    def gateways(self) -> dict[int, Address]:
        """Family → where its containers send what is not for their network."""
        if self.internal:
            return {}
        return {v: s.gateway for v, s in self.subnets.items() if s.gateway is not None}

    @property
    def routed(self) -> frozenset[int]:
        """Families whose containers are reached at their own addresses."""
        return frozenset(v for v in self.subnets if self.mode(v) == "routed")

    @property
    def rules(self) -> BridgeRules:
        """What the firewall knows of it."""
        return BridgeRules(
            bridge=self.bridge,
            internal=self.internal,
            icc=self.options.icc,
            ipv4=self._family_rules(4),
            ipv6=self._family_rules(6),
            trusted=self.options.trusted,
        )

    def _family_rules(self, version: int) -> FamilyRules | None:
        subnet = self.subnets.get(version)
        if subnet is None:
            return None
        mode = self.mode(version)
        return FamilyRules(
            subnets=(str(subnet.network),),
            masquerade=self.options.masquerade and mode.startswith("nat"),
            source=self.options.source.get(version, "") if mode.startswith("nat") else "",
            unprotected=mode == "nat-unprotected",
        )


def _subnet(name: str, pool: AddressPool) -> Subnet:
    return Subnet(
        name,
        parse_subnet(pool.subnet, "subnet"),
        gateway=ip_address(pool.gateway),
        ip_range=parse_subnet(pool.ip_range, "ip range") if pool.ip_range else None,
        auxiliary=[ip_address(text) for text in pool.auxiliary.values()],
    )
