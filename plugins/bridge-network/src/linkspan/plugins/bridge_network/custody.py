"""What the keeper holds for the firewall: its table, and the sockets of reserved ports.

See ``keeper``. It is told again after somebody has killed it.
"""

import logging
import socket
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from linkspan.plugins.bridge_network.keeping import KeeperGone, Keeping
from linkspan.plugins.bridge_network.ports import Reservation
from linkspan.plugins.bridge_network.table import Table

log = logging.getLogger(__name__)

T = TypeVar("T")
Relays = Sequence[tuple[str, str, int]]
"""Names of held sockets, and the addresses and ports where they lead."""

_OWNERSHIP = "table"


class Custody:
    """See the module.

    Args:
        folder: Of the keeper's socket.
        table: Is owned by whoever made it, and goes with them.
        everything: What is reserved, and where that leads; asked when there is another keeper.
    """

    def __init__(
        self,
        folder: Path,
        table: Table,
        everything: Callable[[], Iterable[tuple[Iterable[Reservation], Relays]]],
    ) -> None:
        self._keeping = Keeping(folder)
        self._table = table
        self._everything = everything

    def fetch(self) -> tuple[socket.socket | None, dict[str, socket.socket]]:
        """What an earlier daemon has left: who owns the table, and sockets by name."""
        kept = self._tell(lambda keeping: keeping.fetch()) or {}
        return kept.pop(_OWNERSHIP, None), kept

    def close(self, *, end: bool) -> None:
        """Leave the keeper alone, or ``end`` it."""
        self._keeping.end() if end else self._keeping.close()

    def _tell(self, what: Callable[[Keeping], T]) -> T | None:
        """Ask something of the keeper; if it was killed, another one is told everything first."""
        try:
            return what(self._keeping)
        except KeeperGone as error:
            log.warning("the keeper is started again", extra={"reason": str(error)})
        try:
            self._keeping.renew()
            self.hold_table()
            for reservations, relays in self._everything():
                self.hold(reservations, relays)
            return what(self._keeping)
        except (KeeperGone, OSError) as error:
            log.error("the keeper cannot be started", extra={"reason": str(error)})  # noqa: TRY400
            return None

    def settle(self) -> None:
        """Wait until all is done that it was told."""
        self._tell(lambda keeping: keeping.settle())

    def hold_table(self) -> None:
        """Have the table owned, so that it outlives this daemon."""
        ownership = self._table.ownership()
        if ownership is not None:
            with ownership:
                self._tell(lambda keeping: keeping.hold({_OWNERSHIP: ownership}))

    def hold(self, reservations: Iterable[Reservation], relays: Relays) -> None:
        """Have ports held, and lead what comes there where rules cannot."""
        sockets: dict[str, socket.socket] = {}
        for reservation in reservations:
            sockets |= reservation.named_sockets()
        # Until it is relayed a datagram is lost, while a tcp client comes again by itself.
        matters = any(name.startswith("udp") for name, _, _ in relays)

        def hold(keeping: Keeping) -> None:
            if sockets:
                keeping.hold(sockets)
            for name, address, port in relays:
                keeping.relay(name, address, port)
            if matters:
                keeping.settle()

        self._tell(hold)

    def release(self, names: Iterable[str]) -> None:
        """Have ports let go, by the names of their sockets."""
        if wanted := list(names):
            self._tell(lambda keeping: keeping.release(wanted))
