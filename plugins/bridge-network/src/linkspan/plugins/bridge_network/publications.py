"""What is published: where ports lead, as elements of the table and as relays."""

from ipaddress import IPv4Address, IPv6Address

from linkspan.plugins.bridge_network import ruleset
from linkspan.plugins.bridge_network.ipam import Address
from linkspan.plugins.bridge_network.ports import Reservation
from linkspan.plugins.bridge_network.ruleset import Element
from linkspan.sdk.model.network import PortBinding
from linkspan.sdk.values import define, frozen


@frozen(kw_only=True)
class Target:
    """Where the published ports of a container lead.

    Attributes:
        routed: Families (4, 6) whose ports are opened at the container's own address instead.
    """

    ipv4: IPv4Address | None = None
    ipv6: IPv6Address | None = None
    routed: frozenset[int] = frozenset()

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Those that there are."""
        return tuple(each for each in (self.ipv4, self.ipv6) if each is not None)

    def behind(self, host: Address) -> Address | None:
        """The address that rules lead to from an address of the host; None if they cannot."""
        return self.ipv4 if isinstance(host, IPv4Address) else self.ipv6


@define
class Publication:
    """The published ports of a container."""

    target: Target
    reservations: list[Reservation]
    opened: tuple[PortBinding, ...] = ()

    def elements(self) -> list[Element]:
        """What they are in the table."""
        found = [
            ruleset.opened(container=at, protocol=binding.protocol, port=binding.container_port)
            for at in self.target.addresses
            if at.version in self.target.routed
            for binding in self.opened
        ]
        for reservation in self.reservations:
            binding = reservation.binding
            found += [
                ruleset.published(
                    host=host,
                    protocol=binding.protocol,
                    host_port=binding.host_port,
                    container=container,
                    port=binding.container_port,
                )
                for host in reservation.sockets
                if (container := self.target.behind(host)) is not None
                and container.version not in self.target.routed
            ]
        return list(dict.fromkeys(found))

    def relays(self) -> list[tuple[str, str, int]]:
        """What rules cannot do: name of a held socket, and where it leads.

        Another family than the container has, and on IPv6 loopback and link-local clients.
        """
        found = []
        for reservation in self.reservations:
            for host, held in reservation.sockets.items():
                container = self.target.behind(host)
                if container is not None and host.version == 4:
                    continue
                to = container or next(iter(self.target.addresses), None)
                if held is not None and to is not None:
                    port = reservation.binding.container_port
                    found.append((reservation.name(host), str(to), port))
        return found


@frozen(kw_only=True)
class PublishedPorts:
    """Ports that a record says are published."""

    container_id: str
    owner: str
    target: Target
    ports: tuple[PortBinding, ...]
