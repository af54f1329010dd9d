"""What a process writes, as lines of a step's log and as an output."""

from collections.abc import Callable
from typing import Final

OUTPUT_LIMIT_BYTES: Final = 64 * 1024
"""How much of its end an output of the step keeps."""

_LINE_LIMIT_BYTES: Final = 16 * 1024


class OutputLines:
    """Splits bytes into lines for a log and keeps the last 64 KiB of them.

    Each stream has its own, so that halves of lines of two streams do not meet.
    """

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._rest = b""
        self._tail = bytearray()

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._tail += data
        del self._tail[: max(0, len(self._tail) - OUTPUT_LIMIT_BYTES)]
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._log(_text(line))
        if len(self._rest) > _LINE_LIMIT_BYTES:
            self.end()

    def end(self) -> None:
        """A last line without its end is a line, too."""
        if self._rest:
            self._log(_text(self._rest))
        self._rest = b""

    @property
    def text(self) -> str:
        """The last 64 KiB, without the line end."""
        return self._tail.decode("utf-8", "replace").rstrip("\n")


def _text(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", "replace")
