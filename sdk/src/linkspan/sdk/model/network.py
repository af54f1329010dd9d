"""Networks, endpoints and published ports."""

from collections.abc import Mapping
from typing import Literal

import attrs

from linkspan.sdk.values import frozen

Protocol = Literal["tcp", "udp", "sctp"]


@frozen(kw_only=True)
class PortBinding:
    """A container port and where it is reachable.

    Attributes:
        host_ip: Empty means all addresses, both families.
        host_port: 0 means: choose one from the ephemeral range.
        host_port_end: The end of a range to choose from; 0 means just ``host_port``.
    """

    container_port: int
    protocol: Protocol = "tcp"
    host_ip: str = ""
    host_port: int = 0
    host_port_end: int = 0


@frozen(kw_only=True)
class AddressPool:
    """One subnet of a network (Docker API IPAMConfig); empty parts are chosen.

    Attributes:
        chosen: Nobody asked for this subnet; another network of the same name may have another one.
    """

    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    auxiliary: Mapping[str, str] = attrs.field(factory=dict)
    chosen: bool = False


@frozen(kw_only=True)
class SubnetPool:
    """A range that subnets of ``size`` (a prefix length) are cut from: ``10.20.0.0/16``."""

    base: str
    size: int


@frozen(kw_only=True)
class NetworkSpec:
    """A network asked for (Docker API NetworkCreateRequest).

    Attributes:
        config_only: It carries nothing, but lends its configuration to others.
        config_from: Name of the network that lends it.
        subnet_pools: Where a subnet that is left open is cut from; empty: as the driver's config says.
        ipam_options: None if the client sent none, not even empty ones.
    """

    name: str
    driver: str = "bridge"
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    config_only: bool = False
    config_from: str = ""
    pools: tuple[AddressPool, ...] = ()
    subnet_pools: tuple[SubnetPool, ...] = ()
    ipam_driver: str = "default"
    ipam_options: Mapping[str, str] | None = None
    options: Mapping[str, str] = attrs.field(factory=dict)
    labels: Mapping[str, str] = attrs.field(factory=dict)


@frozen(kw_only=True)
class Network:
    """A network as it is; ``id`` is 64 hex digits, ``created_at`` RFC 3339."""

    id: str
    spec: NetworkSpec
    created_at: str
    scope: str = "local"

    @property
    def name(self) -> str:
        """The network's name."""
        return self.spec.name


@frozen(kw_only=True)
class EndpointSpec:
    """How a container wants to be in a network (Docker API EndpointSettings).

    Attributes:
        link_local_addresses: Further addresses of its interface, 169.254.0.0/16 or fe80::/10.
        by_hand: It was connected after it was created.
    """

    ipv4_address: str = ""
    ipv6_address: str = ""
    link_local_addresses: tuple[str, ...] = ()
    mac_address: str = ""
    aliases: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    driver_options: Mapping[str, str] = attrs.field(factory=dict)
    gateway_priority: int = 0
    by_hand: bool = False


@frozen(kw_only=True)
class Endpoint:
    """A container in a network. Addresses are without prefix length; empty where there is none."""

    id: str
    network_id: str
    network_name: str
    interface: str = ""
    ipv4_address: str = ""
    ipv4_prefix: int = 0
    gateway: str = ""
    ipv6_address: str = ""
    ipv6_prefix: int = 0
    ipv6_gateway: str = ""
    mac_address: str = ""
    spec: EndpointSpec = EndpointSpec()
    names: tuple[str, ...] = ()


@frozen(kw_only=True)
class Backend:
    """Where a balanced port leads."""

    address: str
    port: int
