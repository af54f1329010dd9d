"""A command on a terminal."""

import os
import pty
import re
import select
import sys
import time
from collections.abc import Sequence

from daemon_harness.daemon import Daemon


class Typed:
    """A command on a terminal, with somebody at the keys.

    It is ``linkspan WORDS…``; or, with ``program``, that one.
    """

    def __init__(self, daemon: Daemon, *words: str, program: Sequence[str] = ()) -> None:
        line = [*(program or (sys.executable, "-m", "linkspan.core.cli")), *words]
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.execvpe(line[0], line, {**daemon.environment, "TERM": "xterm"})
        self.seen = ""

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._fd, text.encode())

    def see(self, pattern: str) -> str:
        """Wait until the screen has something; what it was."""
        end = time.monotonic() + 60
        while not (match := re.search(pattern, self.seen)):
            assert time.monotonic() < end, f"{pattern!r} is not in {self.seen!r}"
            self._read(end)
        self.seen = self.seen[match.end() :]
        return match[0]

    def _read(self, end: float) -> None:
        ready, _, _ = select.select([self._fd], [], [], max(0, end - time.monotonic()))
        if ready:
            self.seen += os.read(self._fd, 65536).decode(errors="replace")

    def size(self, rows: int, columns: int) -> None:
        """Change the window."""
        import fcntl
        import struct
        import termios

        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def end(self) -> int:
        """Wait for the command; its exit status."""
        try:
            while True:
                self.seen += os.read(self._fd, 65536).decode(errors="replace")
        except OSError:  # the terminal has no writer any more
            _, status = os.waitpid(self.pid, 0)
            os.close(self._fd)
            return os.waitstatus_to_exitcode(status)
