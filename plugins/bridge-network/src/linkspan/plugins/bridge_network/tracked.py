"""Connections that the kernel tracks, and that are to be led anew."""

import logging
from collections.abc import Iterable

from linkspan.plugins.bridge_network.conntrack import Conntrack
from linkspan.plugins.bridge_network.ipam import Address
from linkspan.plugins.bridge_network.nfnetlink import NetfilterSocket
from linkspan.plugins.bridge_network.ports import Reservation
from linkspan.plugins.bridge_network.rtnetlink import RtNetlink

log = logging.getLogger(__name__)


class TrackedConnections:
    """What cannot be forgotten is said in the log: nobody's command fails for it."""

    def __init__(self, netfilter: NetfilterSocket) -> None:
        self._conntrack = Conntrack(netfilter)

    def forget_early(self, reservations: Iterable[Reservation]) -> None:
        """Forget connections that clients have begun before the ports led anywhere."""
        wanted = [
            (reservation, address)
            for reservation in reservations
            if reservation.early_clients()
            for address in reservation.sockets
        ]
        own = _own_addresses() if wanted else []
        for reservation, address in wanted:
            binding = reservation.binding
            same_family = [each for each in own if each.version == address.version]
            for each in [address] if int(address) else same_family:
                self._forget_port(binding.protocol, each, binding.host_port)

    def _forget_port(self, protocol: str, address: Address, port: int) -> None:
        try:
            self._conntrack.purge_port(protocol, address, port)
        except OSError as error:
            _not_forgotten(error)

    def forget(self, address: Address) -> None:
        """Forget all connections to a container."""
        try:
            self._conntrack.purge_replies_from(address)
        except OSError as error:
            _not_forgotten(error)


def _not_forgotten(error: OSError) -> None:
    log.warning("tracked connections were not purged", extra={"reason": str(error)})


def _own_addresses() -> list[Address]:
    with RtNetlink() as netlink:
        return [interface.ip for _, interface in netlink.addresses()]
