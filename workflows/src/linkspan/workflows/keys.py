"""Single keys of the terminal, read without waiting for the end of the line."""

import os
import sys
from typing import Any, Final

ESCAPE: Final = "\x1b"


class Keys:
    """Keys while a view is shown; use it as a context manager. The terminal is as before afterwards.

    Attributes:
        fd: Where to wait for keys; None if there are none: off a terminal, and in the background.
    """

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted
        self._before: Any = None
        self.fd: int | None = None

    def __enter__(self) -> "Keys":
        self.resume()
        return self

    def __exit__(self, *_: object) -> None:
        self.pause()

    def resume(self) -> None:
        """Take the keys (again)."""
        if not self._wanted or self.fd is not None:
            return
        import termios
        import tty

        try:
            fd = sys.stdin.fileno()
            # Who changes a terminal from the background is stopped.
            if not os.isatty(fd) or os.tcgetpgrp(fd) != os.getpgrp():
                return
            self._before = termios.tcgetattr(fd)
            tty.setcbreak(fd, termios.TCSADRAIN)
        except (OSError, ValueError, termios.error):
            return
        self.fd = fd

    def pause(self) -> None:
        """Leave the keyboard to somebody else."""
        if self.fd is None:
            return
        import termios

        fd, self.fd = self.fd, None
        try:
            termios.tcsetattr(fd, termios.TCSADRAIN, self._before)
        except (OSError, termios.error):
            # The terminal has gone.
            return

    def read(self) -> str:
        """The key that was typed; empty for one that sends several characters, as arrows do.

        Nothing more comes from a terminal that was closed: ``fd`` is None then.
        """
        if self.fd is None:
            return ""
        try:
            typed = os.read(self.fd, 64).decode("utf-8", "replace")
        except OSError:
            typed = ""
        if not typed:
            self.pause()
        return "" if typed.startswith(ESCAPE) and len(typed) > 1 else typed[:1]
