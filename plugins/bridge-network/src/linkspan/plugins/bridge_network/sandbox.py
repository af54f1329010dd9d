"""The network view of one container, as this driver keeps it, and its memory on disk.

The engine keeps the ``Sandbox`` values; what they do not say (name, hostname, resolver wishes) is
kept beside the container's files, so that a restarted daemon can serve names and rewrite them.
"""

import json
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import attrs

from linkspan.plugins.bridge_network.bridges import CarriedNetwork
from linkspan.plugins.bridge_network.graveyard import Lease
from linkspan.plugins.bridge_network.ipam import Address
from linkspan.plugins.bridge_network.namespaces import DefaultRoute, ResolverSockets, Routes
from linkspan.plugins.bridge_network.publications import Target
from linkspan.plugins.bridge_network.sandbox_files import SandboxFiles, own_names
from linkspan.sdk.drivers.network import AttachRequest, Sandbox
from linkspan.sdk.files import replace_file
from linkspan.sdk.locks import QuickLock
from linkspan.sdk.model.network import Endpoint, PortBinding
from linkspan.sdk.values import define, frozen

_MEMORY = "sandbox.json"


@define(eq=False)
class Join:
    """A sandbox in a network."""

    network: CarriedNetwork
    endpoint: Endpoint
    leases: tuple[Lease, ...]

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The container's addresses in the network."""
        return tuple(lease.address for lease in self.leases)

    def address(self, version: int) -> Address | None:
        """The one of a family."""
        return next((each for each in self.addresses if each.version == version), None)


@define(eq=False)
class LivingSandbox:
    """See the module.

    Attributes:
        request: What was asked for, without its networks.
        ports: As published now; without a way out nothing is.
        led_to: Where the ports lead.
        resolv_conf: As we wrote it last.
        linked: The lines of links in its hosts file, as we wrote them last.
    """

    request: AttachRequest
    files: SandboxFiles
    path: str = ""
    joins: dict[str, Join] = attrs.field(factory=dict)
    ports: tuple[PortBinding, ...] = ()
    led_to: Target | None = None
    resolver: ResolverSockets | None = None
    resolv_conf: str = ""
    linked: tuple[tuple[str, str], ...] = ()
    lock: QuickLock = attrs.field(factory=QuickLock)

    @property
    def id(self) -> str:
        """Of the container."""
        return self.request.container_id

    @property
    def needs_resolver(self) -> bool:
        """Whether it is in a network whose names are served."""
        return any(not join.network.default for join in self.joins.values())

    @property
    def leads_out(self) -> bool:
        """Whether it is in a network that is not internal."""
        return any(not join.network.internal for join in self.joins.values())

    @property
    def has_ipv6(self) -> bool:
        """Whether one of its networks has it."""
        return any(join.address(6) is not None for join in self.joins.values())

    def way_out(self, version: int) -> Join | None:
        """The endpoint with the default route of a family.

        Highest priority, then the network's name, as in Docker.
        """
        candidates = [
            join
            for join in self.joins.values()
            if version in join.network.gateways() and join.address(version) is not None
        ]
        return min(
            candidates,
            key=lambda join: (-join.endpoint.spec.gateway_priority, join.network.network.name),
            default=None,
        )

    def ways_out(self) -> dict[int, Join]:
        """Family → the endpoint with its default route."""
        return {v: join for v in (4, 6) if (join := self.way_out(v)) is not None}

    def routes(self) -> Routes:
        """Its default routes."""
        return {
            version: DefaultRoute(join.endpoint.interface, join.network.gateways()[version])
            for version, join in self.ways_out().items()
        }

    def target(self) -> Target | None:
        """Where its published ports lead now; None if nowhere."""
        ways = self.ways_out()
        if not ways:
            return None
        four = ways[4].address(4) if 4 in ways else None
        six = ways[6].address(6) if 6 in ways else None
        assert four is None or isinstance(four, IPv4Address)
        assert six is None or isinstance(six, IPv6Address)
        routed = {version for version, join in ways.items() if version in join.network.routed}
        return Target(ipv4=four, ipv6=six, routed=frozenset(routed))

    def free_interface_name(self, prefix: str) -> str:
        """The lowest ``eth<N>`` that is not taken."""
        taken = {join.endpoint.interface for join in self.joins.values()}
        return next(name for n in range(len(taken) + 1) if (name := f"{prefix}{n}") not in taken)

    def own_hosts(self, join: Join) -> list[tuple[str, str]]:
        """The container's own lines in its hosts file."""
        names = own_names(self.request.hostname, self.request.domainname)
        return [(str(address), names) for address in join.addresses]

    def view(self) -> Sandbox:
        """As the engine keeps it."""
        return Sandbox(
            container_id=self.id,
            namespace=self.path,
            endpoints=tuple(join.endpoint for join in self.joins.values()),
            ports=self.ports,
            files=self.files.mapping(),
        )

    def remember(self) -> None:
        """Write down what the engine does not keep. Blocks."""
        memory = {
            "request": attrs.asdict(attrs.evolve(self.request, networks=())),
            "resolv_conf": self.resolv_conf,
            "linked": self.linked,
        }
        replace_file(self.files.folder / _MEMORY, json.dumps(memory).encode())


@frozen(kw_only=True)
class Memory:
    """What was written down of a sandbox."""

    request: AttachRequest
    resolv_conf: str
    linked: tuple[tuple[str, str], ...] = ()


def recall(folder: Path) -> Memory | None:
    """Read what was written down of a sandbox; None if it was not. Blocks."""
    try:
        memory = json.loads((folder / _MEMORY).read_text())
        return Memory(
            request=_request(memory["request"]),
            resolv_conf=memory["resolv_conf"],
            linked=tuple((address, names) for address, names in memory.get("linked", ())),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _request(memory: dict[str, Any]) -> AttachRequest:
    fields: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in memory.items()
    }
    fields["ports"] = tuple(PortBinding(**port) for port in memory["ports"])
    return AttachRequest(**fields)
