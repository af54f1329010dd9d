"""Which subnets and addresses are free. Pure bookkeeping in memory: the engine's records are the truth."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from linkspan.plugins.bridge_network.config import PoolConfig
from linkspan.sdk.errors import Conflict, InvalidArgument, PermissionDenied, Unavailable
from linkspan.sdk.model.network import AddressPool


def parse_address(text: str, what: str) -> IPv4Address:
    """An IPv4 address. Raises InvalidArgument naming ``what`` it was meant to be."""
    try:
        return IPv4Address(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid {what}: '{text}' is not an IPv4 address") from error


def parse_subnet(text: str, what: str) -> IPv4Network:
    """An IPv4 subnet. Raises InvalidArgument naming ``what`` it was meant to be."""
    try:
        return IPv4Network(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid {what}: '{text}' is not an IPv4 subnet: {error}") from error


class Subnet:
    """The addresses of one network.

    The lowest free address is given out, as Docker does. Network, broadcast, gateway and auxiliary
    addresses are never given out; ``ip_range`` limits what is chosen, not what may be asked for.
    """

    def __init__(
        self,
        name: str,
        network: IPv4Network,
        *,
        gateway: IPv4Address | None,
        ip_range: IPv4Network | None = None,
        auxiliary: Iterable[IPv4Address] = (),
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
        if network.prefixlen < 31:  # RFC 3021: a /31 has neither
            self._reserved.add(int(network.network_address))
            self._reserved.add(int(network.broadcast_address))
        self._taken: set[int] = set()
        self._hint = self._first

    def take(self) -> IPv4Address:
        """Take the lowest free address.

        Raises:
            Unavailable: code ``addresses_exhausted``.
        """
        candidate = self._hint
        while candidate <= self._last:
            if candidate not in self._taken and candidate not in self._reserved:
                self._taken.add(candidate)
                self._hint = candidate + 1
                return IPv4Address(candidate)
            candidate += 1
        self._hint = candidate
        raise Unavailable(
            f"no available IPv4 addresses on network {self._name} ({self.network})",
            code="addresses_exhausted",
            details={"network": self._name, "subnet": str(self.network)},
            help="remove containers from the network, or make one with a larger --subnet",
        )

    def check(self, address: IPv4Address) -> None:
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

    def is_taken(self, address: IPv4Address) -> bool:
        """Whether somebody has it."""
        return int(address) in self._taken

    def take_fixed(self, address: IPv4Address) -> None:
        """Take this address.

        Raises:
            InvalidArgument: See ``check``.
            Conflict: code ``address_taken``.
        """
        self.check(address)
        if int(address) in self._taken:
            raise Conflict(
                f"Address already in use: {address} in network {self._name}",
                code="address_taken",
                details={"network": self._name, "address": str(address)},
            )
        self._taken.add(int(address))

    def keep(self, address: IPv4Address) -> None:
        """Note an address that a record says is in use; never refused."""
        self._taken.add(int(address))

    def release(self, address: IPv4Address) -> None:
        """Give an address back; silent if it is free."""
        self._taken.discard(int(address))
        if self._first <= int(address) < self._hint:
            self._hint = int(address)


def choose_subnet(
    wanted: AddressPool,
    pools: Iterable[PoolConfig],
    *,
    own: Iterable[IPv4Network],
    foreign: Iterable[IPv4Network],
) -> AddressPool:
    """Fill in what a network has left open: subnet and gateway.

    Args:
        wanted: What was asked for.
        pools: Where subnets are cut from.
        own: Subnets of other networks of this daemon.
        foreign: What the host has routes to; only choices of ours avoid it.

    Raises:
        PermissionDenied: code ``pool_overlaps``.
        InvalidArgument: code ``pools_exhausted``, or a part that does not fit.
    """
    taken = list(own)
    if wanted.subnet:
        network = parse_subnet(wanted.subnet, "subnet")
        for other in taken:
            if network.overlaps(other):
                raise PermissionDenied(
                    "invalid pool request: Pool overlaps with other one on this address space:"
                    f" {network} and {other}",
                    code="pool_overlaps",
                    details={"subnet": str(network), "other": str(other)},
                )
    else:
        network = _free_subnet(pools, [*taken, *foreign])
    _check_parts(wanted, network)
    return AddressPool(
        subnet=str(network),
        ip_range=wanted.ip_range,
        gateway=wanted.gateway or str(_first_usable(wanted, network)),
        auxiliary=wanted.auxiliary,
    )


def _free_subnet(pools: Iterable[PoolConfig], avoid: list[IPv4Network]) -> IPv4Network:
    for pool in pools:
        for candidate in IPv4Network(pool.base).subnets(new_prefix=pool.size):
            if not any(candidate.overlaps(other) for other in avoid):
                return candidate
    raise InvalidArgument(
        "all predefined address pools have been fully subnetted",
        code="pools_exhausted",
        help="give --subnet, or more pools: [network.bridge] default-address-pools",
    )


def _check_parts(wanted: AddressPool, network: IPv4Network) -> None:
    if wanted.ip_range:
        ip_range = parse_subnet(wanted.ip_range, "ip range")
        if not ip_range.subnet_of(network):
            raise InvalidArgument(f"invalid ip range {ip_range}: it is not within {network}")
    named = [("gateway", wanted.gateway)] if wanted.gateway else []
    named += [(f"auxiliary address {name}", text) for name, text in wanted.auxiliary.items()]
    for what, text in named:
        if parse_address(text, what) not in network:
            raise InvalidArgument(f"invalid {what}: {text} is not within {network}")


def _first_usable(wanted: AddressPool, network: IPv4Network) -> IPv4Address:
    auxiliary = {IPv4Address(text) for text in wanted.auxiliary.values()}
    for address in network.hosts():
        if address not in auxiliary:
            return address
    raise InvalidArgument(f"subnet {network} has no room for a gateway")
