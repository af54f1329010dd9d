"""A table that is redrawn in place on a terminal, until Ctrl-C; without rich, which starts slowly."""

import os
import time
from collections.abc import Callable

from linkspan.core.cli.terminal import Terminal

Frame = Callable[[], list[str]]
"""Draws the present state, one text a line."""


class Repaint:
    """Draws frames over one another; use it as a context manager."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._drawn = 0

    def __enter__(self) -> "Repaint":
        self._terminal.write("\x1b[?25l")  # the cursor would flicker
        return self

    def __exit__(self, *_: object) -> None:
        self._terminal.write("\x1b[?25h")
        self._terminal.out.flush()

    def draw(self, lines: list[str]) -> None:
        """Put these lines where the last ones were; what does not fit is counted in the last line."""
        room = max(2, self._height() - 1)
        if len(lines) > room:
            lines = [*lines[: room - 1], f"and {len(lines) - room + 1} more"]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        body = "".join(f"{line}\x1b[K\n" for line in lines)
        self._terminal.write(f"{up}\r{body}\x1b[J")
        self._terminal.out.flush()
        self._drawn = len(lines)

    def _height(self) -> int:
        try:
            return os.get_terminal_size(self._terminal.out.fileno()).lines or 24
        except OSError:
            return 24


def watch(terminal: Terminal, frame: Frame, interval_s: float) -> None:
    """Draw again and again until Ctrl-C, which is the way to end it and no error.

    Where nothing can be drawn over one frame is printed: a pipe gets data, not a view.
    """
    if not terminal.redraws:
        for line in frame():
            terminal.print(line)
        return
    try:
        with Repaint(terminal) as paint:
            while True:
                paint.draw(frame())
                time.sleep(interval_s)
    except KeyboardInterrupt:
        return
