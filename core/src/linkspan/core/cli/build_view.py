"""What ``linkspan build`` shows while the daemon builds."""

from collections.abc import Iterator
from typing import Any

from linkspan.core.cli.terminal import paint


class Steps:
    """What a build has said so far, from the classic builder's stream."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.image = ""
        self._step = ""
        self._steps = 0
        self._cached = 0
        self._tail: list[str] = []
        self._partial = ""

    @property
    def summary(self) -> str:
        """How many steps there were."""
        return f"{self._steps} steps, {self._cached} cached"

    def take(self, record: dict[str, Any]) -> Iterator[str]:
        """Learn from one record; hand out whole lines to show."""
        aux = record.get("aux")
        if isinstance(aux, dict) and aux.get("ID"):
            self.image = str(aux["ID"])
        text = str(record.get("stream") or "")
        if not text and record.get("status") and not record.get("progressDetail"):
            identifier = f"{record['id']}: " if record.get("id") else ""
            text = f"{identifier}{record['status']}\n"
        self._partial += text
        *lines, self._partial = self._partial.split("\n")
        for line in lines:
            line = line.rstrip("\r")
            if line.startswith("Step "):
                self._step, self._steps, self._tail = line, self._steps + 1, []
            elif line.strip() == "---> Using cache":
                self._cached += 1
            elif line.startswith("Successfully built ") and not self.image:
                self.image = line.removeprefix("Successfully built ").strip()
            else:
                self._tail = [*self._tail, line][-20:]
            if line.strip():
                yield line

    def lines(self) -> list[str]:
        """The present state, for the live view."""
        head = f"{self.what}  {self._step}" if self._step else f"{self.what}  sending the context"
        shown = [paint(f"  │ {line}", "dim", True) for line in self._tail[-4:] if line.strip()]
        return [head, *shown]

    def unsaid(self, mode: str) -> list[str]:
        """The end of the failing step's output, where it has not been shown as it came."""
        return [self._step, *self._tail] if mode == "live" and self._step else []
