"""Namespaces of ended containers, on their way out.

Deleting a veth pair waits for grace periods (some 30 ms) under the lock that every start needs, so
dead namespaces are let go in batches, a second later, and the kernel takes their links away. Until
then an address of theirs would be there twice, so it is given back only when its link is gone.
"""

import errno
from collections.abc import Iterable

import trio

from linkspan.plugins.bridge_network import rtnetlink
from linkspan.plugins.bridge_network.ipam import Address, Subnet
from linkspan.plugins.bridge_network.namespaces import Namespaces
from linkspan.sdk.values import define, frozen

_REST_S = 1.0
_LOOK_AGAIN_S = 0.2
# A namespace that somebody else is in, too (`run --network container:…`), does not end with its container.
_LOOKS_BEFORE_LINKS_GO = 10
_LOOK_AGAIN_SOON_S = 0.01
_LONG_ENOUGH_S = 0.5


@frozen
class Lease:
    """An address of a subnet that somebody has."""

    subnet: Subnet
    address: Address

    def end(self) -> None:
        """Give it back."""
        self.subnet.release(self.address)


@define(eq=False)
class Grave:
    """A namespace (path empty: it is gone already) with the ports of its links and their addresses."""

    path: str
    ports: tuple[str, ...]
    leases: tuple[Lease, ...]


class Graveyard:
    """See the module."""

    def __init__(self, namespaces: Namespaces) -> None:
        self._namespaces = namespaces
        self._fresh: list[Grave] = []
        self._sinking: list[Grave] = []
        self._filled = trio.Event()
        self._working = trio.Lock()

    def bury(self, grave: Grave) -> None:
        """Leave a dead namespace to us."""
        self._fresh.append(grave)
        self._filled.set()

    def holds(self, lease: Lease) -> bool:
        """Whether an address is still to be given back."""
        return any(lease in grave.leases for grave in (*self._fresh, *self._sinking))

    async def run(self) -> None:
        """Do the work, for ever."""
        while True:
            await self._filled.wait()
            self._filled = trio.Event()
            await trio.sleep(_REST_S)
            await self.let_go()
            looks = 0
            while not await self._give_back():
                looks += 1
                if looks == _LOOKS_BEFORE_LINKS_GO:
                    await self._delete_links()
                await trio.sleep(_LOOK_AGAIN_S)

    async def let_go(self) -> None:
        """Let all dead namespaces go now; their addresses follow."""
        async with self._working:
            batch, self._fresh = self._fresh, []
            self._sinking += batch
            await self._namespaces.drop([grave.path for grave in batch if grave.path])

    async def flush(self) -> None:
        """Give all addresses back at once, at the price of waiting for the kernel."""
        await self.let_go()
        await self._delete_links()
        await self._give_back()

    async def _delete_links(self) -> None:
        for port in [port for grave in self._sinking for port in grave.ports]:
            await self.delete_link(port)

    async def delete_link(self, name: str) -> None:
        """Delete a link of the host; silent if it is gone."""
        try:
            await self._namespaces.send(rtnetlink.delete_link(name))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise

    async def until_gone(self, names: Iterable[str]) -> None:
        """Wait, but not long, until the kernel has taken links away."""
        waiting = set(names)
        with trio.move_on_after(_LONG_ENOUGH_S):
            while waiting & {link.name for link in await self._namespaces.links()}:  # noqa: ASYNC110
                await trio.sleep(_LOOK_AGAIN_SOON_S)

    async def _give_back(self) -> bool:
        async with self._working:
            if not self._sinking:
                return True
            there = {link.name for link in await self._namespaces.links()}
            waiting: list[Grave] = []
            for grave in self._sinking:
                if there.isdisjoint(grave.ports):
                    end(grave.leases)
                else:
                    waiting.append(grave)
            self._sinking = waiting
            return not waiting


def end(leases: Iterable[Lease]) -> None:
    """Give addresses back."""
    for lease in leases:
        lease.end()
