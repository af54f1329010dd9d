"""Role ``network``: networks, endpoints, published ports and names.

A *sandbox* is the network view of one container: a namespace, the endpoints in it, and the files
``/etc/hosts``, ``/etc/resolv.conf`` and ``/etc/hostname`` that the container sees. ``attach`` makes a
sandbox with all its endpoints and ports, ``connect`` and ``disconnect`` change a living one,
``detach`` ends it. Sandboxes outlive the daemon; ``recover`` finds them again.

Networks are records of the engine; the driver is told of them by ``create_network`` (and again after
a restart by ``restore``), it keeps what it needs to carry them.
"""

import abc
import enum
from collections.abc import Iterable, Mapping

import attrs

from linkspan.sdk.drivers.base import Config, Driver
from linkspan.sdk.errors import Unsupported
from linkspan.sdk.model.network import Backend, Endpoint, EndpointSpec, Network, PortBinding
from linkspan.sdk.stability import Stage, contract
from linkspan.sdk.values import frozen


class NetworkCap(enum.Flag):
    """PUBLISH: ports; NAMES: names resolved between containers; BALANCE: ``balance``."""

    NONE = 0
    PUBLISH = enum.auto()
    NAMES = enum.auto()
    BALANCE = enum.auto()
    IPV6 = enum.auto()


@frozen(kw_only=True)
class AttachRequest:
    """A container that wants to be in networks.

    Attributes:
        networks: Network and settings, the one with the default route first.
        names: Names it is known by in every network, beside the endpoint's aliases.
        ipv6: False if it switches IPv6 off for itself: it needs no such addresses.
    """

    container_id: str
    name: str
    hostname: str
    domainname: str = ""
    networks: tuple[tuple[Network, EndpointSpec], ...] = ()
    ports: tuple[PortBinding, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    ipv6: bool = True


@frozen(kw_only=True)
class Sandbox:
    """A container's network view.

    Attributes:
        namespace: Path of the network namespace; None is the host's.
        ports: As published: every ``host_port`` is a number now.
        files: Path in the container → file on the host, to be bind mounted.
    """

    container_id: str
    namespace: str | None
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[PortBinding, ...] = ()
    files: Mapping[str, str] = attrs.field(factory=dict)


@contract(role="network", version=1, stage=Stage.BETA, since="0.1")
class NetworkDriver(Driver[Config], abc.ABC):
    """Carries networks; see the module."""

    @property
    @abc.abstractmethod
    def capabilities(self) -> NetworkCap:
        """What this driver can on this machine."""

    @abc.abstractmethod
    async def create_network(self, network: Network) -> Network:
        """Make a network; return it with the choices made (subnet, gateway, bridge name).

        Raises:
            PermissionDenied: code ``pool_overlaps``.
            InvalidArgument: code ``pools_exhausted``, or a bad subnet, address or option.
        If cancelled: nothing is left.
        """

    @abc.abstractmethod
    async def restore(self, networks: Iterable[Network], sandboxes: Iterable[Sandbox]) -> list[str]:
        """After a start of the daemon: make true again what the engine's records say.

        Repairs links, rules, name service and reservations of living sandboxes, and removes what
        nobody knows.

        Returns:
            What was repaired, a sentence each.
        """

    @abc.abstractmethod
    async def remove_network(self, network: Network) -> None:
        """Take a network away; silent if it is gone. The engine has made sure that it is empty."""

    @abc.abstractmethod
    async def attach(self, request: AttachRequest) -> Sandbox:
        """Make a sandbox.

        Raises:
            Conflict: code ``port_taken`` (details: address, port, protocol, holder), or
                ``address_taken``.
            InvalidArgument: A fixed address outside the subnet.
            Unavailable: code ``addresses_exhausted``.
        If cancelled or failed: nothing is left.
        """

    @abc.abstractmethod
    async def detach(self, container_id: str) -> None:
        """End a sandbox and free its addresses and ports; silent if there is none."""

    async def adopt(self, sandbox: Sandbox, request: AttachRequest) -> Sandbox:
        """Take over a living sandbox without endpoints that another driver made; ``connect`` follows.

        That driver is told to ``detach`` afterwards, so namespace and files are to be held by means of
        one's own (a further mount, further names of the same files: they are mounted in the container).

        Args:
            request: As for ``attach``, without networks.

        Raises:
            Unsupported: This driver, or this sandbox's namespace, is not made for it.
        If cancelled or failed: nothing is left, and the sandbox is as it was.
        """
        raise Unsupported("this network driver cannot take over a running container")

    async def connect(self, container_id: str, network: Network, spec: EndpointSpec) -> Endpoint:
        """Add an endpoint to a living sandbox."""
        raise Unsupported("this network driver cannot connect a running container")

    async def disconnect(self, container_id: str, network: Network) -> None:
        """Take an endpoint out of a living sandbox."""
        raise Unsupported("this network driver cannot disconnect a running container")

    def published(self, container_id: str) -> tuple[PortBinding, ...] | None:
        """A living sandbox's ports as they are published now, for after a change of its networks.

        None if the driver never changes them, or there is no such sandbox.
        """
        return None

    async def rename(self, container_id: str, name: str) -> None:
        """The container is known by another name from now on."""

    async def relink(self, container_id: str, network: Network, links: tuple[str, ...]) -> None:
        """In a network, a living sandbox has these links from now on; silent if it is not there."""

    async def balance(self, port: PortBinding, backends: tuple[Backend, ...]) -> PortBinding:
        """Spread connections to a host port over backends, in the kernel (cap BALANCE).

        Called again for the same port it replaces the backends; established connections stay where
        they are. ``host_port`` 0 chooses one.

        Raises:
            Conflict: code ``port_taken``.
        """
        raise Unsupported("this network driver cannot balance")

    async def unbalance(self, port: PortBinding) -> None:
        """Stop it; silent if it is not balanced (cap BALANCE)."""
        raise Unsupported("this network driver cannot balance")
