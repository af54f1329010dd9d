"""Networks, published and balanced ports in the daemon's nft table, in one dedicated thread.

The thread owns the state (``books``): nothing else reads or changes it.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import trio

from linkspan.plugins.bridge_network.books import Books
from linkspan.plugins.bridge_network.ipam import Address
from linkspan.plugins.bridge_network.nftables import Nftables
from linkspan.plugins.bridge_network.publications import PublishedPorts, Target
from linkspan.plugins.bridge_network.ruleset import BridgeRules
from linkspan.plugins.bridge_network.watching import RuleWatch, open_watch
from linkspan.plugins.bridge_network.worker import Worker
from linkspan.sdk.model.network import Backend, PortBinding


class Firewall:
    """See the module.

    Args:
        table: Name of the table.
        group: Link group of the daemon's bridges.
        folder: Of the keeper's socket, and of the file that remembers balanced ports.
        nft: Changes the rules; the caller's to close, after ``close``.
    """

    def __init__(self, table: str, group: int, folder: Path, nft: Nftables) -> None:
        self._name = table
        self._worker = Worker("linkspan-nft")
        self._books = Books(table, group, folder, nft)

    async def open(self) -> None:
        """Make sure that the table is there; one that is there stays as it is until ``restore``.

        Raises:
            NotUsable: nftables is missing.
            NftablesError: The kernel refuses the table.
        """
        await self._worker.run(self._books.open)

    async def close(self, *, remove: bool) -> None:
        """Let go of the ports and end the thread; ``remove`` takes the table, too."""
        with trio.CancelScope(shield=True):
            await self._worker.run(self._books.close, remove)
            await self._worker.close()

    async def restore(
        self, networks: Iterable[BridgeRules], published: Iterable[PublishedPorts], living: set[str]
    ) -> list[str]:
        """Load the whole table anew, in one transaction, and reserve the ports again.

        Args:
            networks: All networks.
            published: Ports of living containers.
            living: Addresses of living containers: balanced ports keep only these.

        Returns:
            What is not as it was, a sentence each.
        """
        return await self._worker.run(self._books.restore, list(networks), list(published), living)

    async def repair(self) -> None:
        """Load the table again if another program has flushed it, or if it could not be loaded before."""
        await self._worker.run(self._books.repair_if_possible)

    async def has_table(self, name: str) -> bool:
        """Whether there is a table of family inet with this name, another program's."""
        return await self._worker.run(self._books.has_table, name)

    async def watch(self) -> RuleWatch:
        """Notice from now on what other programs do to rules.

        Raises:
            OSError: The kernel does not tell.
        """
        return RuleWatch(await self._worker.run(open_watch), self._name)

    async def add_network(self, rules: BridgeRules) -> None:
        """Know one more network."""
        await self._worker.run(self._books.add_network, rules)

    async def remove_network(self, bridge: str) -> None:
        """Forget a network; silent if it is unknown."""
        await self._worker.run(self._books.remove_network, bridge)

    async def publish(
        self, container_id: str, owner: str, target: Target, ports: Sequence[PortBinding]
    ) -> tuple[PortBinding, ...]:
        """Publish a container's ports, all or none; return them with their host ports.

        Raises:
            Conflict: code ``port_taken``.
            InvalidArgument: A port or address that cannot be.
        """
        return await self._worker.run(
            self._books.publish, container_id, owner, target, tuple(ports)
        )

    async def unpublish(self, container_id: str) -> None:
        """Take a container's ports back; silent if there are none."""
        await self._worker.run(self._books.unpublish, container_id)

    async def move(self, container_id: str, target: Target) -> None:
        """Lead a container's ports to other addresses of it; the host ports stay."""
        await self._worker.run(self._books.move, container_id, target)

    async def forget(self, addresses: Sequence[Address]) -> None:
        """A container's addresses are gone: no connection leads there, tracked or new."""
        await self._worker.run(self._books.forget, tuple(addresses))

    async def leave(self, container_id: str, addresses: Sequence[Address]) -> None:
        """A container has ended: ``unpublish`` and ``forget``, in one piece of work of the thread."""
        await self._worker.run(self._books.leave, container_id, tuple(addresses))

    async def stop_forwarding_foreign(self, version: int) -> None:
        """Forward what comes from or goes to our bridges only: the host is no router otherwise."""
        await self._worker.run(self._books.stop_forwarding_foreign, version)

    async def balance(self, port: PortBinding, backends: Sequence[Backend]) -> PortBinding:
        """Spread a host port over backends.

        Raises:
            Conflict: code ``port_taken``.
            InvalidArgument: A backend that is not an address and a port.
        """
        return await self._worker.run(self._books.balance, port, tuple(backends))

    async def unbalance(self, port: PortBinding) -> None:
        """Stop it; silent if it is not balanced."""
        await self._worker.run(self._books.unbalance, port)
