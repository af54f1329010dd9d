"""The daemon's nft table as a whole: claiming it, loading it, changing it.

Where the kernel and libnftables can, the table is *owned*: no other program can change it, and
flushing all rules passes it by. It belongs to a netlink socket, of which the keeper has a duplicate,
so it stays when the daemon dies, and the next daemon goes on with the same socket. Elsewhere the
table is a plain one, which is loaded again when somebody has flushed it.
"""

import errno
import logging
import os
import socket

from linkspan.plugins.bridge_network.nfnetlink import OWNER, PERSIST, NetfilterSocket
from linkspan.plugins.bridge_network.nftables import Nftables
from linkspan.plugins.bridge_network.ruleset import Contents
from linkspan.sdk.errors import NotUsable

log = logging.getLogger(__name__)


class Table:
    """See the module. All methods are called in one thread.

    Args:
        nft: Changes the table. An owned one goes with the last duplicate of its socket.

    Attributes:
        owned: Nobody else can change it.
    """

    def __init__(self, name: str, netfilter: NetfilterSocket, nft: Nftables) -> None:
        self.name = name
        self.owned = False
        self._netfilter = netfilter
        self._nft = nft

    def claim(self, kept: socket.socket | None) -> None:
        """Make the table, or go on with the one that is there.

        Args:
            kept: The socket that has owned it; it is ours to close.

        Raises:
            NftablesError: The kernel refuses the table.
            NotUsable: Another living program owns it, or it is one of another network namespace.
        """
        if kept is not None:
            with kept:
                self._nft.own_by(kept)
        owner = self._nft.owner
        self.owned = owner is not None and self._own(owner)
        if self.owned and not self.is_there():
            # A socket acts in the namespace in which it was made, whoever has it now.
            raise NotUsable(
                f"the firewall table {self.name} and the containers of this exec-root belong to another "
                "network namespace",
                help="start the daemon in the network namespace of the former one (nsenter --net), or "
                "give it an exec-root and a data-root of its own",
            )
        if not self.owned:
            log.info("other programs can flush the firewall table", extra={"table": self.name})
            self._nft.run(f"add table inet {self.name}\n")

    def _own(self, owning: socket.socket) -> bool:
        with socket.socket(fileno=os.dup(owning.fileno())) as borrowed:
            owner = NetfilterSocket(borrowed)
            for flags in (OWNER | PERSIST, OWNER):
                number = owner.own_table(self.name, flags)
                if number == errno.EPERM and self.is_there():
                    raise NotUsable(
                        f"the firewall table {self.name} belongs to another process",
                        help="end the linkspan process that is left over from an earlier daemon",
                    )
                if number == 0:
                    return True
            if self.is_there() and self._can_own(owner):
                # A plain table, of an earlier version, cannot become an owned one: it has to go.
                self._nft.run(f"delete table inet {self.name}\n")
                return any(
                    owner.own_table(self.name, flags) == 0 for flags in (OWNER | PERSIST, OWNER)
                )
        return False

    def _can_own(self, owner: NetfilterSocket) -> bool:
        probe = f"{self.name}_probe"
        if owner.own_table(probe, OWNER) != 0:
            return False
        self._nft.run(f"delete table inet {probe}\n")
        return True

    def ownership(self) -> socket.socket | None:
        """A duplicate of the socket that owns the table, for the keeper."""
        owner = self._nft.owner
        if not self.owned or owner is None:
            return None
        return socket.socket(fileno=os.dup(owner.fileno()))

    def contents(self) -> Contents:
        """What is in it."""
        chains, containers = self._netfilter.contents(self.name)
        return Contents(chains=frozenset(chains), containers=frozenset(containers))

    def is_there(self) -> bool:
        """Whether it exists."""
        return self._netfilter.has_table(self.name)

    def run(self, text: str) -> None:
        """Run commands as one transaction.

        Raises:
            NftablesError: Nothing was changed.
        """
        self._nft.run(text)

    def drop(self) -> None:
        """Take the table away; silent if it is gone."""
        if self.is_there():
            self._nft.run(f"delete table inet {self.name}\n")
