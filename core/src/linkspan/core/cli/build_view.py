"""What ``linkspan build`` shows while the daemon builds."""

from __future__ import annotations

import time

from linkspan.core.cli.terminal import paint
from linkspan.sdk.units import format_duration

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing these takes longer than a short command may
    from collections.abc import Iterator
    from typing import Any, Final

_TAIL: Final = 4
_RED: Final = "\x1b[91m"
_RESET: Final = "\x1b[0m"
_KEPT: Final = 20
_DONE_SHOWN: Final = 8


class Step:
    """One step as the live view knows it.

    Attributes:
        seconds: None while it runs.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.began = time.monotonic()
        self.seconds: float | None = None
        self.cached = False
        self.tail: list[str] = []
        self.partial = ""

    def lines(self) -> list[str]:
        """A line, and below it the end of the output while it runs."""
        head = self.text.splitlines()[0]
        if self.seconds is not None:
            spent = "cached" if self.cached else format_duration(self.seconds)
            return [paint(f"  ✓ {head}  {spent}", "dim", True)]
        spent = format_duration(time.monotonic() - self.began)
        shown = [line for line in self.tail if line.strip()][-_TAIL:]
        return [f"  ▸ {head}  {spent}", *(paint(f"    │ {line}", "dim", True) for line in shown)]

    def log(self, text: str) -> None:
        """What its command has written."""
        self.partial += text
        *lines, self.partial = self.partial.split("\n")
        self.tail = [*self.tail, *(line.rstrip("\r") for line in lines)][-_KEPT:]


class Steps:
    """What a build has said so far: the classic builder's stream, and the details of a live view."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.image = ""
        self.elapsed = ""
        self.caches: list[str] = []
        self.warnings: list[dict[str, Any]] = []
        self._step = ""
        self._steps = 0
        self._cached = 0
        self._total = 0
        self._tail: list[str] = []
        self._partial = ""
        self._known: dict[int, Step] = {}

    @property
    def summary(self) -> str:
        """How many steps there were."""
        return f"{self._steps} steps, {self._cached} cached"

    def take(self, record: dict[str, Any]) -> Iterator[str]:
        """Learn from one record; hand out whole lines to show."""
        aux = record.get("aux")
        if isinstance(aux, dict):
            self._detail(aux)
        text = str(record.get("stream") or "")
        if text.startswith(_RED) and text.endswith(_RESET):
            text = text[len(_RED) : -len(_RESET)]  # the daemon's colour of stderr, as in Docker's
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
                self._tail = [*self._tail, line][-_KEPT:]
            if line.strip():
                yield line

    def _detail(self, aux: dict[str, Any]) -> None:
        if aux.get("ID"):
            self.image = str(aux["ID"])
        self.warnings += aux.get("warnings") or []
        self.caches += aux.get("cache") or []
        if step := aux.get("step"):
            number = int(step["number"])
            if step["state"] == "begun":
                self._total = int(step["total"])
                self._known[number] = Step(str(step["text"]))
            elif known := self._known.get(number):
                known.seconds, known.cached = float(step["seconds"]), step["state"] == "cached"
        log = aux.get("log") or {}
        if known := self._known.get(int(log.get("number", -1))):
            known.log(str(log["text"]))

    def lines(self) -> list[str]:
        """The present state, for the live view."""
        if not self._known:
            doing = self._step or "sending the context"
            return [f"{self.what}  {doing}"]
        done = [step for step in self._known.values() if step.seconds is not None]
        running = [step for step in self._known.values() if step.seconds is None]
        cached = sum(step.cached for step in done)
        head = f"{self.what}  {len(done)} of {self._total} steps, {cached} cached"
        return [head, *(line for step in (*done[-_DONE_SHOWN:], *running) for line in step.lines())]

    def unsaid(self, mode: str) -> list[str]:
        """The end of the failing step's output, where it has not been shown as it came."""
        partial = [self._partial] if self._partial.strip() else []
        if mode != "plain" and self._step:
            return [self._step, *self._tail, *partial]
        return partial
