"""Settings of the driver ``bridge``: the table ``[network.bridge]``."""

import ipaddress

import attrs

from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.values import frozen


@frozen(kw_only=True)
class PoolConfig:
    """Subnets to choose from.

    Attributes:
        base: A range, ``10.32.0.0/12`` or ``fd00:1234::/48``.
        size: Prefix length of the subnets cut out of it.
    """

    base: str
    size: int

    def __attrs_post_init__(self) -> None:
        try:
            base = ipaddress.ip_network(self.base)
        except ValueError as error:
            raise InvalidArgument(f"address pool '{self.base}': {error}") from error
        longest = base.max_prefixlen - 2
        if not base.prefixlen <= self.size <= longest:
            raise InvalidArgument(
                f"address pool '{self.base}': size {self.size} does not lie between"
                f" {base.prefixlen} and {longest}"
            )


DEFAULT_POOLS = (
    PoolConfig(base="172.17.0.0/16", size=16),
    PoolConfig(base="172.18.0.0/16", size=16),
    PoolConfig(base="172.19.0.0/16", size=16),
    PoolConfig(base="172.20.0.0/14", size=16),
    PoolConfig(base="172.24.0.0/14", size=16),
    PoolConfig(base="172.28.0.0/14", size=16),
    PoolConfig(base="192.168.0.0/16", size=20),
)
"""Docker's: daemon/libnetwork/ipamutils."""


def _not_negative(_: object, attribute: "attrs.Attribute[int]", value: int) -> None:
    if value < 0:
        raise InvalidArgument(f"{attribute.name.replace('_', '-')} must not be negative: {value}")


def _address(_: object, attribute: "attrs.Attribute[str]", value: str) -> None:
    if value:
        try:
            ipaddress.ip_address(value)
        except ValueError as error:
            name = attribute.name.replace("_", "-")
            raise InvalidArgument(f"invalid {name}: '{value}' is not an IP address") from error


@frozen(kw_only=True)
class BridgeConfig:
    """How the driver ``bridge`` works.

    Attributes:
        pool_size: Namespaces kept ready for the default network; 0 makes each when it is needed.
            When more were wanted at once, up to four times as many are kept for ten minutes.
        default_address_pools: Where networks without a subnet of their own get one, of either
            family; without one of IPv6 there is a range that is the daemon's own.
        default_network_ipv6: The default network has IPv6; it is asked when that is first made.
        publish_address: Where ports are published that name no address; empty is everywhere.
        mtu: Of new networks; 0 takes that of the device with the default route.
    """

    pool_size: int = attrs.field(default=8, validator=_not_negative)
    default_address_pools: tuple[PoolConfig, ...] = DEFAULT_POOLS
    default_network_ipv6: bool = False
    publish_address: str = attrs.field(default="", validator=_address)
    mtu: int = attrs.field(default=0, validator=_not_negative)
