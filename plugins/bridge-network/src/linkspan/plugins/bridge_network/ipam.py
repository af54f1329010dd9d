"""Which subnets and addresses are free. Pure bookkeeping in memory: the engine's records are the truth."""

from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from linkspan.plugins.bridge_network.config import PoolConfig
from linkspan.sdk.errors import Conflict, InvalidArgument, PermissionDenied, Unavailable
from linkspan.sdk.model.network import AddressPool
from linkspan.sdk.values import frozen

Address = IPv4Address | IPv6Address
Range = IPv4Network | IPv6Network
_DEFAULT_SIZE_V6 = 64


def parse_address(text: str, what: str, version: int = 4) -> Address:
    """An address of IPv4, or IPv6. Raises InvalidArgument naming ``what`` it was meant to be."""
    try:
        address = ip_address(text)
    except ValueError:
        address = None
    if address is None or address.version != version:
        raise InvalidArgument(f"invalid {what}: '{text}' is not an IPv{version} address")
    return address


def parse_subnet(text: str, what: str) -> Range:
    """A subnet. Raises InvalidArgument naming ``what`` it was meant to be."""
    try:
        return ip_network(text)
    except ValueError as error:
        wrong = f"invalid network config:\ninvalid {what} {text}"
        try:
            mended = ip_network(text, strict=False)
        except ValueError:
            raise InvalidArgument(
                f"{wrong}: invalid CIDR block notation", help=f"{error}: write 10.9.0.0/24, say"
            ) from error
        raise InvalidArgument(f"{wrong}: it should be {mended}", help=f"write {mended}") from error


class Subnet:
    """The addresses of one network.

    The lowest free address is given out, as Docker does. Network, broadcast, gateway and auxiliary
    addresses are never given out; ``ip_range`` limits what is chosen, not what may be asked for.
    """

    def __init__(
        self,
        name: str,
        network: Range,
        *,
        gateway: Address | None,
        ip_range: Range | None = None,
        auxiliary: Iterable[Address] = (),
    ) -> None:
        self._name = name
        self.network = network
        self.gateway = gateway
        choice = ip_range or network
        self._first = int(choice.network_address)
        self._last = int(choice.broadcast_address)
        self._reserved = {int(address) for address in auxiliary}
        if gateway is not None:
            self._reserved.add(int(gateway))
        self._reserved.update(map(int, _of_the_subnet_itself(network)))
        self._taken: set[int] = set()
        self._hint = self._first

    def take(self) -> Address:
        """Take the lowest free address.

        Raises:
            Unavailable: code ``addresses_exhausted``.
        """
        candidate = self._hint
        while candidate <= self._last:
            if candidate not in self._taken and candidate not in self._reserved:
                self._taken.add(candidate)
                self._hint = candidate + 1
                return self._address(candidate)
            candidate += 1
        self._hint = candidate
        raise Unavailable(
            f"no available IPv{self.network.version} addresses on this network's address pools:"
            f" {self._name} ({self.network})",
            code="addresses_exhausted",
            details={"network": self._name, "subnet": str(self.network)},
            help="remove containers from the network, or make one with a larger --subnet",
        )

    def _address(self, number: int) -> Address:
        return IPv4Address(number) if self.network.version == 4 else IPv6Address(number)

    def check(self, address: Address) -> None:
        """Refuse an address that a container cannot have.

        Raises:
            InvalidArgument: It is outside the subnet, or reserved.
        """
        if address not in self.network:
            raise InvalidArgument(
                f"invalid address {address}: it does not belong to network {self._name}"
                f" ({self.network})"
            )
        if int(address) in self._reserved:
            raise InvalidArgument(f"invalid address {address}: it is reserved in {self._name}")

    def is_taken(self, address: Address) -> bool:
        """Whether somebody has it."""
        return int(address) in self._taken

    def take_fixed(self, address: Address) -> None:
        """Take this address.

        Raises:
            InvalidArgument: See ``check``.
            Conflict: code ``address_taken``.
        """
        self.check(address)
        if int(address) in self._taken:
            raise Conflict(
                "Address already in use",
                code="address_taken",
                details={"network": self._name, "address": str(address)},
                help=f"{address} of network {self._name} is another container's: choose another one",
            )
        self._taken.add(int(address))

    def keep(self, address: Address) -> None:
        """Note an address that a record says is in use; never refused."""
        self._taken.add(int(address))

    def release(self, address: Address) -> None:
        """Give an address back; silent if it is free."""
        self._taken.discard(int(address))
        if self._first <= int(address) < self._hint:
            self._hint = int(address)


@frozen(kw_only=True)
class Surroundings:
    """What a new subnet must not meet.

    Attributes:
        own: Subnets of other networks of this daemon.
        foreign: What the host has routes to; only choices of ours avoid it.
    """

    own: tuple[Range, ...] = ()
    foreign: tuple[Range, ...] = ()


def choose_subnet(
    wanted: AddressPool, pools: Iterable[PoolConfig], around: Surroundings
) -> AddressPool:
    """Fill in what a network has left open: subnet and gateway.

    Args:
        wanted: What was asked for.
        pools: Where subnets are cut from.
        around: What must not be met.

    Raises:
        PermissionDenied: code ``pool_overlaps``.
        InvalidArgument: code ``pools_exhausted``, or a part that does not fit.
    """
    if wanted.subnet:
        network = parse_subnet(wanted.subnet, "subnet")
        for other in around.own:
            if network.version == other.version and network.overlaps(other):
                raise PermissionDenied(
                    "invalid pool request: Pool overlaps with other one on this address space",
                    code="pool_overlaps",
                    details={"subnet": str(network), "other": str(other)},
                    help=f"{other} is in use: choose another --subnet, or none",
                )
    else:
        network = _free_subnet(pools, [*around.own, *around.foreign])
    _check_parts(wanted, network)
    return AddressPool(
        subnet=str(network),
        ip_range=wanted.ip_range,
        gateway=wanted.gateway or str(_first_usable(wanted, network)),
        auxiliary=wanted.auxiliary,
    )


def _free_subnet(pools: Iterable[PoolConfig], avoid: list[Range]) -> Range:
    for pool in pools:
        base = ip_network(pool.base)
        rivals = [other for other in avoid if other.version == base.version]
        # A base may hold billions of candidates: what covers one is left in one step.
        step = 1 << (base.max_prefixlen - pool.size)
        start = int(base.network_address)
        while start <= int(base.broadcast_address):
            candidate = ip_network((start, pool.size))
            met = [int(other.broadcast_address) for other in rivals if candidate.overlaps(other)]
            if not met:
                return candidate
            start += ((max(met) - start) // step + 1) * step
    raise InvalidArgument(
        "all predefined address pools have been fully subnetted",
        code="pools_exhausted",
        help="give --subnet, or more pools: [network.bridge] default-address-pools",
    )


def _check_parts(wanted: AddressPool, network: Range) -> None:
    if wanted.ip_range:
        ip_range = parse_subnet(wanted.ip_range, "ip range")
        if ip_range.version != network.version or not _contains(network, ip_range):
            raise InvalidArgument(
                f"invalid network config:\ninvalid ip-range {ip_range}: parent subnet {network} doesn't contain"
                " ip-range"
            )
    named = [("gateway", wanted.gateway)] if wanted.gateway else []
    named += [(f"auxiliary address {name}", text) for name, text in wanted.auxiliary.items()]
    taken = set(_of_the_subnet_itself(network))
    for what, text in named:
        address = parse_address(text, what, network.version)
        if address in taken:
            name = what.removeprefix("auxiliary address ")
            shown = f"gateway ({text})" if what == name else f"secondary ip address ({name}:{text})"
            raise InvalidArgument(
                f"failed to allocate {shown}: Address already in use",
                help=f"first and last address of {network} are no host's; take another one for each",
            )
        taken.add(address)
        if address not in network:
            shown = what if what.startswith("auxiliary") else f"{what} {text}"
            raise InvalidArgument(
                f"invalid network config:\ninvalid {shown}: parent subnet {network} doesn't contain this address",
                help=f"write an address of {network}",
            )


def _of_the_subnet_itself(network: Range) -> list[Address]:
    """Addresses that no host can have."""
    if network.prefixlen >= network.max_prefixlen - 1:  # RFC 3021: a /31 has none
        return []
    if network.version == 4:
        return [network.network_address, network.broadcast_address]
    return [network.network_address]


def _contains(network: Range, part: Range) -> bool:
    return (
        network.network_address <= part.network_address  # type: ignore[operator]
        and part.broadcast_address <= network.broadcast_address  # type: ignore[operator]
    )


def _first_usable(wanted: AddressPool, network: Range) -> Address:
    auxiliary = {ip_address(text) for text in wanted.auxiliary.values()}
    for address in network.hosts():
        if address not in auxiliary:
            return address
    raise InvalidArgument(f"subnet {network} has no room for a gateway")


def pools_of_daemon(unique_local: IPv6Network) -> PoolConfig:
    """Where a daemon's IPv6 networks without a subnet get one: a /64 each of its own /48."""
    return PoolConfig(base=str(unique_local), size=_DEFAULT_SIZE_V6)
