"""Letting our packets through another program's firewall.

An accept in our table does not undo a drop in another one at the same place. Docker and ufw set the
policy of iptables' FORWARD chain to DROP; then two rules are put there that accept what comes from or
goes to the daemon's bridges, by their link group. Our own table still drops what it drops.
"""

import logging
import shutil
import subprocess
from collections.abc import Sequence

import trio

from linkspan.plugins.bridge_network.worker import Worker

log = logging.getLogger(__name__)

_PROGRAMS = ("iptables", "ip6tables")
_CHAINS = ("DOCKER-USER", "FORWARD")  # Docker keeps the first for rules of others


class ForeignForwarding:
    """Two rules in iptables, there as long as they are needed.

    Args:
        group: Link group of the daemon's bridges.
        label: Comment of the rules, by which people know whose they are.
    """

    def __init__(self, group: int, label: str) -> None:
        self._group = group
        self._label = label
        self._worker = Worker("linkspan-iptables")
        self._reported = False

    async def ensure(self) -> None:
        """Put the rules in place, if they are needed; other programs come later, and flush."""
        await self._worker.run(self._ensure)

    async def close(self, *, remove: bool) -> None:
        """End the thread; ``remove`` takes the rules, too."""
        with trio.CancelScope(shield=True):
            if remove:
                await self._worker.run(self._remove)
            await self._worker.close()

    # In the thread from here on: it is in the daemon's namespace, and so is what it starts.

    def _ensure(self) -> None:
        for program in _PROGRAMS:
            self._ensure_in(program)

    def _ensure_in(self, program: str) -> None:
        listed = _iptables(program, "-S", "FORWARD")
        if listed is None or "-P FORWARD DROP" not in listed:
            return
        chain = next(chain for chain in _CHAINS if _iptables(program, "-S", chain) is not None)
        for rule in self._rules():
            if _iptables(program, "-C", chain, *rule) is not None:
                continue
            if _iptables(program, "-I", chain, *rule) is None and not self._reported:
                self._reported = True
                log.warning(
                    "another firewall drops forwarded packets, and iptables takes no exception",
                    extra={"chain": chain, "program": program},
                )

    def _remove(self) -> None:
        for program in _PROGRAMS:
            for chain in _CHAINS:
                listed = _iptables(program, "-S", chain) or ""
                if self._label not in listed:
                    continue
                for rule in self._rules():
                    _iptables(program, "-D", chain, *rule)

    def _rules(self) -> list[list[str]]:
        end = ("-m", "comment", "--comment", self._label, "-j", "ACCEPT")
        sides = ("--src-group", "--dst-group")
        return [["-m", "devgroup", side, f"{self._group:#x}", *end] for side in sides]


def _iptables(name: str, *arguments: str) -> str | None:
    """What iptables prints; None if it fails, or is not here."""
    program = shutil.which(name)
    if program is None:
        return None
    command: Sequence[str] = (program, "--wait", "2", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None
