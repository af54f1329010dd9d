"""After a start of the daemon: finding living sandboxes again, and removing what nobody knows."""

import shutil
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

import trio

from linkspan.plugins.bridge_network import rtnetlink
from linkspan.plugins.bridge_network.descriptors import is_network_namespace
from linkspan.plugins.bridge_network.graveyard import Graveyard, Lease
from linkspan.plugins.bridge_network.namespaces import Namespaces
from linkspan.plugins.bridge_network.networks import BridgeNetworks
from linkspan.plugins.bridge_network.pool import port_name
from linkspan.plugins.bridge_network.publications import PublishedPorts
from linkspan.plugins.bridge_network.sandbox import Join, LivingSandbox, Memory, recall
from linkspan.plugins.bridge_network.sandbox_files import SandboxFiles
from linkspan.sdk.drivers.network import Sandbox


class Restoring:
    """See the module.

    Args:
        folder: Of the sandboxes' files.
    """

    def __init__(
        self,
        folder: Path,
        group: int,
        namespaces: Namespaces,
        networks: BridgeNetworks,
        graveyard: Graveyard,
    ) -> None:
        self._folder = folder
        self._group = group
        self._namespaces = namespaces
        self._networks = networks
        self._graveyard = graveyard

    async def recall_sandboxes(
        self, records: Iterable[Sandbox], notes: list[str]
    ) -> dict[str, LivingSandbox]:
        """Those of the records that still live."""
        found = {}
        for record in records:
            if record.namespace is None:
                continue
            memory = await trio.to_thread.run_sync(recall, self._folder / record.container_id)
            if not is_network_namespace(record.namespace) or memory is None:
                name = memory.request.name if memory else record.container_id[:12]
                notes.append(f"the network namespace of container {name} is gone")
                continue
            found[record.container_id] = self._recall_sandbox(record, memory)
        return found

    def _recall_sandbox(self, record: Sandbox, memory: Memory) -> LivingSandbox:
        sandbox = LivingSandbox(
            request=memory.request,
            files=SandboxFiles(self._folder / record.container_id),
            path=record.namespace or "",
            ports=record.ports,
            resolv_conf=memory.resolv_conf,
            linked=memory.linked,
        )
        for endpoint in record.endpoints:
            carried = self._networks.find(endpoint.network_id)
            if carried is None:
                continue
            leases = []
            for text in filter(None, (endpoint.ipv4_address, endpoint.ipv6_address)):
                address = ip_address(text)
                lease = Lease(carried.subnets[address.version], address)
                lease.subnet.keep(address)
                leases.append(lease)
            sandbox.joins[carried.id] = Join(carried, endpoint, tuple(leases))
        sandbox.led_to = sandbox.target() if sandbox.ports else None
        return sandbox

    async def remove_leftovers(
        self, sandboxes: dict[str, LivingSandbox], links: dict[str, rtnetlink.Link]
    ) -> None:
        """Remove namespaces, links and files that belong to no sandbox and no network."""
        known = {Path(sandbox.path) for sandbox in sandboxes.values()}
        stale = [path for path in self._namespaces.files() if Path(path) not in known]
        bridges = {carried.bridge for carried in self._networks.all()}
        ports = {
            port_name(join.endpoint.id)
            for sandbox in sandboxes.values()
            for join in sandbox.joins.values()
        }
        await self._namespaces.drop(stale)
        unknown = {
            link.name: link.kind
            for link in links.values()
            if link.group == self._group and link.name not in bridges | ports
        }
        # The kernel takes the links of dropped namespaces away together, much faster than one by one.
        await self._graveyard.until_gone(name for name, kind in unknown.items() if kind == "veth")
        for name in unknown:
            await self._graveyard.delete_link(name)

        def remove_folders() -> None:
            for folder in self._folder.iterdir():
                if folder.name not in sandboxes:
                    shutil.rmtree(folder, ignore_errors=True)

        await trio.to_thread.run_sync(remove_folders)

    async def repair_ports(
        self, sandbox: LivingSandbox, links: dict[str, rtnetlink.Link], notes: list[str]
    ) -> None:
        """Put a sandbox's links on their bridges again."""
        for join in sandbox.joins.values():
            port = links.get(port_name(join.endpoint.id))
            if port is None:
                notes.append(
                    f"the link of container {sandbox.request.name} to network"
                    f" {join.network.network.name} is gone"
                )
            elif port.master != join.network.index:
                await self._namespaces.send(rtnetlink.enslave(port.name, master=join.network.index))
                notes.append(f"put container {sandbox.request.name} on its bridge again")


def published(sandbox: LivingSandbox) -> PublishedPorts | None:
    """What a recalled sandbox has published."""
    if not sandbox.ports or sandbox.led_to is None:
        return None
    return PublishedPorts(
        container_id=sandbox.id,
        owner=f"container {sandbox.request.name}",
        target=sandbox.led_to,
        ports=sandbox.ports,
    )
