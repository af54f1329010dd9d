"""Namespaces kept ready for the default network: address and route are set, a start just takes one."""

import logging
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv4Interface

import attrs
import trio

from linkspan.plugins.bridge_network.bridges import CarriedNetwork, mac_of
from linkspan.plugins.bridge_network.graveyard import Grave, Graveyard, Lease
from linkspan.plugins.bridge_network.namespaces import LinkPlan, Namespaces
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
        paths = [prepared.path for prepared in self._ready]
        self._ready.clear()
        return paths

    async def run(self) -> None:
        """Fill the pool whenever something is taken, for ever."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            await trio.sleep(_REST_S)
            while self.network is not None and len(self._ready) < self._size:
                try:
                    prepared = await self._prepare(self.network)
                except (LinkspanError, OSError) as error:
                    # Starts make what they need themselves; the next one tries to fill the pool again.
                    log.warning("no namespace was prepared", extra={"reason": str(error)})
                    break
                if prepared.lease.subnet is not getattr(self.network, "subnet", None):
                    self._bury(prepared)  # the network was removed meanwhile
                    break
                self._ready.append(prepared)
                await trio.lowlevel.checkpoint()

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
