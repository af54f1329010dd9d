"""Namespaces kept ready, so that a start just takes one.

Those for the default network have address and route; for other networks there are bare ones, with
the sockets of the name service in them.
"""

import logging
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv4Interface

import attrs
import trio

from linkspan.plugins.bridge_network.bridges import CarriedNetwork, mac_of
from linkspan.plugins.bridge_network.graveyard import Grave, Graveyard, Lease
from linkspan.plugins.bridge_network.namespaces import LinkPlan, Namespaces, ResolverSockets
from linkspan.sdk.errors import LinkspanError

log = logging.getLogger(__name__)

_REST_S = 0.05
"""The pool is filled when the start that has emptied it is over: both need the same lock in the kernel."""


@attrs.frozen(kw_only=True)
class Prepared:
    """A namespace with its one link, not yet anybody's."""

    path: str
    endpoint_id: str
    link: LinkPlan
    lease: Lease


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
    address: IPv4Address,
    mac: str = "",
    isolated: bool,
) -> LinkPlan:
    """The link of an endpoint."""
    return LinkPlan(
        port=port_name(endpoint_id),
        name=name,
        bridge=network.index,
        group=group,
        mac=mac or mac_of(address),
        mtu=network.mtu,
        interface=IPv4Interface((address, network.subnet.network.prefixlen)),
        gateway=network.gateway,
        isolated=isolated,
    )


@attrs.frozen
class Bare:
    """A namespace with nothing but the sockets of the name service."""

    path: str
    resolver: ResolverSockets


class Pool:
    """See the module. ``isolated`` says whether ports of a network must not see each other."""

    def __init__(
        self,
        size: int,
        group: int,
        namespaces: Namespaces,
        graveyard: Graveyard,
        isolated: Callable[[CarriedNetwork], Awaitable[bool]],
    ) -> None:
        self._size = size
        self._group = group
        self._namespaces = namespaces
        self._graveyard = graveyard
        self._isolated = isolated
        self._ready: deque[Prepared] = deque()
        self._bare: deque[Bare] = deque()
        self._bare_wanted = False
        self._wanted = trio.Event()
        self.network: CarriedNetwork | None = None

    def serve(self, network: CarriedNetwork | None) -> None:
        """Keep namespaces of this network ready; the old ones must have been cleared."""
        self.network = network
        self._wanted.set()

    def take(self) -> Prepared | None:
        """Take one, if there is one."""
        self._wanted.set()
        return self._ready.popleft() if self._ready else None

    def want_bare(self) -> None:
        """There are other networks than the default one: keep bare namespaces, too."""
        self._bare_wanted = True
        self._wanted.set()

    def take_bare(self) -> Bare | None:
        """Take a bare one, if there is one."""
        self._wanted.set()
        return self._bare.popleft() if self._bare else None

    def give_up(self, lease: Lease) -> None:
        """Bury the one that has an address, if one has."""
        for prepared in [each for each in self._ready if each.lease == lease]:
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
            self._wanted = trio.Event()
            await trio.sleep(_REST_S)
            try:
                await self._fill()
            except (LinkspanError, OSError) as error:
                # Starts make what they need themselves; the next one tries to fill the pool again.
                log.warning("no namespace was prepared", extra={"reason": str(error)})

    async def _fill(self) -> None:
        while (network := self.network) is not None and len(self._ready) < self._size:
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
        isolated = await self._isolated(network)
        lease = Lease(network.subnet, network.subnet.take())
        endpoint_id = new_endpoint_id()
        link = plan_link(
            network,
            self._group,
            endpoint_id=endpoint_id,
            name=f"{network.options.interface_prefix}0",
            address=lease.address,
            isolated=isolated,
        )
        try:
            path, _ = await self._namespaces.create(
                endpoint_id[:12], [link], gateway=network.gateway
            )
        except BaseException:
            lease.end()
            raise
        return Prepared(path=path, endpoint_id=endpoint_id, link=link, lease=lease)

    def _bury(self, prepared: Prepared) -> None:
        self._graveyard.bury(Grave(prepared.path, (prepared.link.port,), (prepared.lease,)))
