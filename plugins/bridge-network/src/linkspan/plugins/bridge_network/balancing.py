"""Balanced ports: where they lead, and the file that remembers them over the daemon's end."""

import json
from collections.abc import Iterable
from ipaddress import IPv4Address
from pathlib import Path

import attrs

from linkspan.plugins.bridge_network.ports import Reservation
from linkspan.plugins.bridge_network.ruleset import BalancedPort
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.files import replace_file
from linkspan.sdk.model.network import Backend, PortBinding
from linkspan.sdk.values import define

_LOOPBACK = "127.0.0.1"


@define
class Balance:
    """A balanced port."""

    reservation: Reservation
    rules: BalancedPort

    def relays(self) -> list[tuple[str, str, int]]:
        """IPv6 clients are led to the host's own balanced port."""
        port = self.reservation.binding.host_port
        return [
            (self.reservation.name(host), _LOOPBACK, port)
            for host, held in self.reservation.sockets.items()
            if host.version == 6 and held is not None
        ]


class BalanceMemory:
    """Balanced ports in a file: no record of a container says where they lead."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def write(self, balances: Iterable[Balance]) -> None:
        """Remember these, and no others."""
        records = [
            {
                "port": attrs.asdict(balance.reservation.binding),
                "backends": [attrs.asdict(backend) for backend in balance.rules.backends],
            }
            for balance in balances
        ]
        replace_file(self._file, json.dumps(records).encode())

    def read(self) -> list[tuple[PortBinding, list[Backend]]]:
        """What is remembered."""
        try:
            records = json.loads(self._file.read_text())
        except FileNotFoundError:
            return []
        return [
            (PortBinding(**record["port"]), [Backend(**each) for each in record["backends"]])
            for record in records
        ]

    def drop(self) -> None:
        """Remember nothing."""
        self._file.unlink(missing_ok=True)


def key(port: PortBinding) -> tuple[str, str, int]:
    """What balanced ports are told apart by: address, protocol and port of the host."""
    return port.host_ip, port.protocol, port.host_port


def balanced_address(port: PortBinding) -> IPv4Address:
    """The address of a balanced port; its IPv6 clients come by the relay.

    Raises:
        InvalidArgument: It is not an IPv4 address.
    """
    try:
        return IPv4Address(port.host_ip or 0)
    except ValueError as error:
        raise InvalidArgument(
            f"invalid host address '{port.host_ip}' of a balanced port: it is not an IPv4 address",
            help="leave it out: then the port is balanced on all addresses, IPv6 ones too",
        ) from error


def check_backends(backends: Iterable[Backend]) -> None:
    """Refuse what nothing can be led to.

    Raises:
        InvalidArgument: A backend is not an address and a port.
    """
    for backend in backends:
        try:
            IPv4Address(backend.address)
        except ValueError as error:
            raise InvalidArgument(f"invalid backend address '{backend.address}'") from error
        if not 1 <= backend.port <= 65535:
            raise InvalidArgument(f"invalid backend port {backend.port}")
