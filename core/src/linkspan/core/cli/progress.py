"""Progress of long work: a live view on a terminal, one line a fact anywhere else.

``live``: rich's Live on stderr, imported only when something takes longer than 0.2 s.
``plain``: a line a change of state, and a sign of life each minute. ``json``: the daemon's own lines.
"""

from __future__ import annotations

import sys
import time

from linkspan.sdk.units import format_duration, format_size

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing these takes longer than a short command may
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Any, Final

    from linkspan.core.cli.session import Session
    from linkspan.core.client.short import Answer

_LIVE_AFTER_S: Final = 0.2
_FRAMES_PER_S: Final = 8
_SILENT_S: Final = 0.25
_SIGN_OF_LIFE_S: Final = 60.0


class Display:
    """What happens now, redrawn in place, or said line by line."""

    def __init__(self, session: Session, lines: Callable[[], list[str]], awaited: str) -> None:
        """Make a display; use it as a context manager.

        Args:
            session: Decides how.
            lines: Draws the present state, for the live view.
            awaited: What is being waited for, for the sign of life.
        """
        self._terminal = session.terminal
        self._lines = lines
        self._awaited = awaited
        self.mode = self._terminal.progress
        self.began = time.monotonic()
        self._said = self.began
        self._drawn = 0.0
        self._live: Any = None

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _exc: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def pause(self) -> None:
        """Leave the terminal to somebody else; the next ``update`` draws again."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    @property
    def elapsed(self) -> str:
        """Since the beginning: ``3.1s``."""
        return format_duration(time.monotonic() - self.began)

    def event(self, record: object) -> None:
        """Pass on what the daemon said, with ``--progress json``."""
        if self.mode == "json":
            import json

            print(json.dumps(record, separators=(",", ":")), file=sys.stderr, flush=True)

    def update(self) -> None:
        """Something may have changed: redraw, or give a sign of life."""
        now = time.monotonic()
        if self.mode == "live":
            if now - self.began < _LIVE_AFTER_S or now - self._drawn < 1 / _FRAMES_PER_S:
                return
            self._drawn = now
            self._draw()
        elif self.mode == "plain" and now - self._said >= _SIGN_OF_LIFE_S:
            self.say(f"  {self._awaited}: still at it after {self.elapsed}")

    def follow(self, answer: Answer) -> Iterator[dict[str, Any]]:
        """What the daemon says, a record at a time; the clocks of the view go on while it is silent."""
        answer.while_silent(self.update, _SILENT_S)
        for record in answer.json_lines():
            self.event(record)
            yield record
            self.update()

    def say(self, line: str, *, always: bool = False) -> None:
        """A line that stays; above the live view where there is one. With ``always`` also with ``-q``."""
        self._said = time.monotonic()
        if self.mode == "none" and always:
            print(line, file=self._terminal.err, flush=True)
        if self.mode in ("none", "json"):
            return
        if self._live is not None:
            from rich.text import Text

            self._live.console.print(Text.from_ansi(line))
        else:
            self._terminal.note(line)

    def _draw(self) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        lines = self._lines()
        if self._live is None:
            console = Console(
                file=sys.stderr,
                force_terminal=True,
                no_color=not self._terminal.err_color,
                highlight=False,
            )
            self._live = Live(console=console, auto_refresh=False, transient=True)
            self._live.start()
        room = max(1, self._live.console.height - 2)
        if len(lines) > room:
            lines = [*lines[: room - 1], f"  and {len(lines) - room + 1} more"]
        text = Text("\n", no_wrap=True, overflow="ellipsis").join(map(Text.from_ansi, lines))
        self._live.update(text, refresh=True)


def bar(current: int, total: int, width: int = 30) -> str:
    """``━━━━━╺───``."""
    done = round(width * min(current, total) / total) if total else 0
    return "━" * done + "─" * (width - done)


class Transfer:
    """The state of a pull or push, from the daemon's lines (API: JSONMessage)."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.parts: dict[str, dict[str, Any]] = {}
        self.digest = ""
        self.size = 0
        self.texts: list[str] = []
        self._began = time.monotonic()

    def take(self, record: dict[str, Any]) -> None:
        """Learn from one line."""
        status, identifier = record.get("status", ""), record.get("id", "")
        detail = record.get("progressDetail") or {}
        aux = record.get("aux")
        if isinstance(aux, dict):
            self.digest = str(aux.get("Digest", "")) or self.digest
        if status.startswith("Digest: "):
            self.digest = status.removeprefix("Digest: ")
        elif identifier and not status.startswith(("Pulling from", "Trying")):
            part = self.parts.setdefault(identifier, {})
            part["status"] = status
            if detail.get("total"):
                part["total"] = detail["total"]
            if "current" in detail:
                part["current"] = detail["current"]
        elif " digest: sha256:" in status:
            self.digest = status.partition(" digest: ")[2].split()[0]
        elif status:
            self.texts.append(status)

    @property
    def here(self) -> int:
        """Parts that need not be moved."""
        words = ("Already exists", "Layer already exists")
        return sum(part["status"].startswith(words) for part in self.parts.values())

    def lines(self) -> list[str]:
        """The live view: a bar for the whole, the parts that move."""
        moving = [p for p in self.parts.values() if p.get("total")]
        total = sum(p["total"] for p in moving)
        current = sum(_moved(p) for p in moving)
        seconds = max(0.001, time.monotonic() - self._began)
        done = sum(_is_done(p["status"]) for p in self.parts.values())
        if total:  # what matters most stands first: a narrow terminal cuts the rest
            speed = current / seconds
            head = (
                f"{100 * current // total:>3} %  {self.what}  {bar(current, total)}  "
                f"{format_size(current)}/{format_size(total)}  {format_size(speed)}/s"
            )
        else:
            head = f"{self.what}  {self.texts[-1] if self.texts else 'asking the registry'}"
        active = [
            f"{identifier} {_doing(part)}"
            for identifier, part in self.parts.items()
            if not _is_done(part["status"])
        ]
        shown = "   ".join([*active[:3], f"{done} done", f"{self.here} were here"])
        return [head, f"  {shown}"] if self.parts else [head]


def _is_done(status: str) -> bool:
    words = ("Pull complete", "Already exists", "Layer already exists", "Pushed", "Mounted")
    return status.startswith(words)


def _moved(part: dict[str, Any]) -> int:
    if part["status"] in ("Downloading", "Pushing"):
        return int(part.get("current", 0))
    return (
        0 if part["status"] in ("Pulling fs layer", "Preparing", "Waiting") else int(part["total"])
    )


def _doing(part: dict[str, Any]) -> str:
    if part["status"] in ("Downloading", "Pushing") and part.get("total"):
        return f"{format_size(part.get('current', 0))}/{format_size(part['total'])}"
    return str(part["status"]).lower()
