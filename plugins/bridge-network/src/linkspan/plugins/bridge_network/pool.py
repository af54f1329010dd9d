"""Namespaces kept ready, so that a start just takes one.

Those for the default network have address and route; for other networks there are bare ones, with
the sockets of the name service in them.
"""

import logging
import secrets
from collections import deque
from collections.abc import Iterable, Mapping
from ipaddress import ip_interface

import trio

from linkspan.plugins.bridge_network.bridges import CarriedNetwork, mac_of
from linkspan.plugins.bridge_network.graveyard import Grave, Graveyard, Lease, end
from linkspan.plugins.bridge_network.ipam import Address, Subnet
from linkspan.plugins.bridge_network.namespaces import (
    DefaultRoute,
    LinkPlan,
    Namespaces,
    ResolverSockets,
)
from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.values import frozen

log = logging.getLogger(__name__)

_BR_NETFILTER = "net/bridge/bridge-nf-call-iptables"
_REST_S = 0.2
"""The pool is filled when the starts that have emptied it are over: both need the same lock in the kernel. A
namespace is taken early in a start, so the last of a burst take that much longer."""
_LONGEST_REST_S = 2.0
MOST_GROWTH = 4
_REMEMBERED_S = 600.0


@frozen(kw_only=True)
class Prepared:
    """A namespace with its one link, not yet anybody's."""

    path: str
    endpoint_id: str
    link: LinkPlan
    leases: tuple[Lease, ...]


def new_endpoint_id() -> str:
    """64 hex digits, as Docker's."""
    return secrets.token_hex(32)


def port_name(endpoint_id: str) -> str:
    """The host's end of an endpoint's link; never used twice, since old links vanish late."""
    return f"lsv{endpoint_id[:10]}"


def plan_link(
    network: CarriedNetwork,
    group: int,
    *,
    endpoint_id: str,
    name: str,
    leases: tuple[Lease, ...],
    mac: str = "",
    link_local: Iterable[Address] = (),
    isolated: bool,
    sysctls: tuple[tuple[str, str], ...] = (),
) -> LinkPlan:
    """The link of an endpoint."""
    addresses = [(lease.address, lease.subnet.network.prefixlen) for lease in leases]
    # As Docker: further link-local addresses are for the link as a whole.
    addresses += [(address, 16 if address.version == 4 else 64) for address in link_local]
    return LinkPlan(
        port=port_name(endpoint_id),
        name=name,
        bridge=network.index,
        group=group,
        mac=mac or mac_of(leases[0].address),
        mtu=network.mtu,
        interfaces=tuple(ip_interface(each) for each in addresses),
        isolated=isolated,
        sysctls=sysctls,
    )


def take_any(subnets: Mapping[int, Subnet]) -> tuple[Lease, ...]:
    """Take an address of each family, or none.

    Raises:
        Unavailable: code ``addresses_exhausted``.
    """
    taken: list[Lease] = []
    try:
        for _, subnet in sorted(subnets.items()):
            taken.append(Lease(subnet, subnet.take()))
    except BaseException:
        end(taken)
        raise
    return tuple(taken)


async def isolates_ports(network: CarriedNetwork, namespaces: Namespaces) -> bool:
    """Whether the bridge's ports must not see each other.

    With br_netfilter the table sees bridged frames and drops them itself; an isolated port would
    stop the way back to one's own published port, too.
    """
    if network.options.icc:
        return False
    return await namespaces.sysctl(_BR_NETFILTER) != "1"


@frozen
class Bare:
    """A namespace with nothing but the sockets of the name service."""

    path: str
    resolver: ResolverSockets


class Demand:
    """How many namespaces are worth keeping: some, and as many more as were missing a while ago."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._more = 0
        self._missed = 0
        self._until = 0.0

    def miss(self) -> None:
        """One was wanted, and none was there."""
        self._missed += 1

    def wanted(self) -> int:
        """How many to keep from now on; to be asked when a burst is over."""
        now = trio.current_time()
        if self._missed:
            self._more = min(self._more + self._missed, self._size * (MOST_GROWTH - 1))
            self._missed, self._until = 0, now + _REMEMBERED_S
        elif now > self._until:
            self._more = 0
        return self._size + self._more


class Pool:
    """See the module."""

    def __init__(
        self,
        size: int,
        group: int,
        namespaces: Namespaces,
        graveyard: Graveyard,
    ) -> None:
        self._size = size
        self._group = group
        self._namespaces = namespaces
        self._graveyard = graveyard
        self._ready: deque[Prepared] = deque()
        self._bare: deque[Bare] = deque()
        self._bare_wanted = False
        self._wanted = trio.Event()
        self._taken_at = 0.0
        self._demand = Demand(size)
        self.network: CarriedNetwork | None = None

    def serve(self, network: CarriedNetwork | None) -> None:
        """Keep namespaces of this network ready; the old ones must have been cleared."""
        self.network = network
        self._want()

    def take(self) -> Prepared | None:
        """Take one, if there is one."""
        self._want()
        if self._ready:
            return self._ready.popleft()
        self._demand.miss()
        return None

    def want_bare(self) -> None:
        """There are other networks than the default one: keep bare namespaces, too."""
        self._bare_wanted = True
        self._want()

    def take_bare(self) -> Bare | None:
        """Take a bare one, if there is one."""
        self._want()
        return self._bare.popleft() if self._bare else None

    def give_up(self, lease: Lease) -> None:
        """Bury the one that has an address, if one has."""
        for prepared in [each for each in self._ready if lease in each.leases]:
            self._ready.remove(prepared)
            self._bury(prepared)

    async def clear(self) -> None:
        """Let all go; their addresses are free at once."""
        self.network = None
        while self._ready:
            self._bury(self._ready.popleft())
        await self._graveyard.flush()

    def drain(self) -> list[str]:
        """Take all out, at the end of the daemon; return the paths of their namespaces."""
        for bare in self._bare:
            bare.resolver.close()
        paths = [each.path for each in self._ready] + [each.path for each in self._bare]
        self._ready.clear()
        self._bare.clear()
        return paths

    async def run(self) -> None:
        """Fill the pool whenever something is taken, for ever."""
        while True:
            await self._wanted.wait()
            await self._rest()
            try:
                await self._fill()
            except (LinkspanError, OSError) as error:
                # Starts make what they need themselves; the next one tries to fill the pool again.
                log.warning("no namespace was prepared", extra={"reason": str(error)})

    async def _rest(self) -> None:
        """Wait until nothing was taken for a moment, but not for ever."""
        end = trio.current_time() + _LONGEST_REST_S
        while (until := min(self._taken_at + _REST_S, end)) > trio.current_time():  # noqa: ASYNC110 - put off again and again
            await trio.sleep_until(until)
        self._wanted = trio.Event()

    def _want(self) -> None:
        """Fill it soon. Called for each start of a burst, so it must not wake a task each time."""
        self._taken_at = trio.current_time()
        self._wanted.set()

    async def _fill(self) -> None:
        keep = self._demand.wanted()
        while (network := self.network) is not None and len(self._ready) < keep:
            prepared = await self._prepare(network)
            if self.network is not network:
                self._bury(prepared)  # it was removed meanwhile
                return
            self._ready.append(prepared)
        while self._bare_wanted and len(self._bare) < self._size:
            path, resolver = await self._namespaces.create(new_endpoint_id()[:12], resolver=True)
            assert resolver is not None
            self._bare.append(Bare(path, resolver))

    async def _prepare(self, network: CarriedNetwork) -> Prepared:
        isolated = await isolates_ports(network, self._namespaces)
        leases = take_any(network.subnets)
        endpoint_id = new_endpoint_id()
        link = plan_link(
            network,
            self._group,
            endpoint_id=endpoint_id,
            name=f"{network.options.interface_prefix}0",
            leases=leases,
            isolated=isolated,
        )
        routes = {v: DefaultRoute(link.name, at) for v, at in network.gateways().items()}
        try:
            path, _ = await self._namespaces.create(endpoint_id[:12], [link], routes=routes)
        except BaseException:
            end(leases)
            raise
        return Prepared(path=path, endpoint_id=endpoint_id, link=link, leases=leases)

    def _bury(self, prepared: Prepared) -> None:
        self._graveyard.bury(Grave(prepared.path, (prepared.link.port,), prepared.leases))
