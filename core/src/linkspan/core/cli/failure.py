"""How a command fails: one shape for every error, one table of exit statuses.

The shape is that of ``linkspan.sdk.diagnostics``, drawn here without attrs, whose import takes longer
than a short command may.
"""

from __future__ import annotations

from linkspan.core.client.errors import ApiError, ConnectionLost, Unreachable
from linkspan.sdk.errors import LinkspanError

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing these takes longer than a short command may
    from collections.abc import Iterable
    from typing import Final

FAILED: Final = 1
USAGE: Final = 2
REFUSED: Final = 3
NOT_ALLOWED: Final = 4
UNREACHABLE: Final = 69
LOCKED: Final = 75
TIMED_OUT: Final = 124
DAEMON_FAILED: Final = 125
CANNOT_RUN: Final = 126
NO_COMMAND: Final = 127
INTERRUPTED: Final = 130
READER_GONE: Final = 141


class Failure(Exception):
    """A command that stopped short.

    Attributes:
        headline: Lower case, stands alone.
        id: ``LS0003``; empty where the daemon's own words are all there is.
        status: The exit status.
        line: The command line, to point into.
        mark: Column (from 0) and length of what is wrong in ``line``.
        notes: (word, text) pairs: ``cause``, ``state``, ``note``.
        helps: What to type next.
    """

    def __init__(
        self,
        headline: str,
        *,
        id: str = "",  # noqa: A002 - the field's name in every error shape of ours
        status: int = FAILED,
        line: str = "",
        mark: tuple[int, int] = (0, 0),
        notes: Iterable[tuple[str, str]] = (),
        helps: Iterable[str] = (),
    ) -> None:
        super().__init__(headline)
        self.headline = headline
        self.id = id
        self.status = status
        self.line = line
        self.mark = mark
        self.notes = list(notes)
        self.helps = [text for text in helps if text]

    def render(self) -> str:
        """Plain text without a final newline."""
        head, _, rest = self.headline.partition("\n")
        out = [f"error[{self.id}]: {head}" if self.id else f"error: {head}"]
        out.extend(rest.splitlines())
        if self.line:
            column, length = self.mark
            out += ["  |", f"  | {self.line}", f"  | {' ' * column}{'^' * max(1, length)}"]
        out.extend(f"  = {word}: {text}" for word, text in self.notes)
        out.extend(f"  = help: {text}" for text in self.helps)
        return "\n".join(out)


def of_error(exc: LinkspanError) -> Failure:
    """The failure for an error of the client, the daemon or the core."""
    if isinstance(exc, Unreachable):
        return Failure(
            exc.message,
            id="LS0101",
            status=NOT_ALLOWED if exc.cause == "permission" else UNREACHABLE,
            notes=[("cause", exc.reason)],
            helps=[exc.help],
        )
    if isinstance(exc, ApiError):
        status = {403: REFUSED, 504: TIMED_OUT}.get(exc.status, FAILED)
        return Failure(exc.message, id="LS0102", status=status, helps=[exc.help])
    if isinstance(exc, ConnectionLost):
        helps = ["linkspan daemon status"]
        return Failure(exc.message, id="LS0103", status=UNREACHABLE, helps=helps)
    diagnostics = getattr(exc, "diagnostics", None)
    if diagnostics:
        return Rendered(str(exc), len(diagnostics))
    return Failure(exc.message, helps=[exc.help])


class Rendered(Failure):
    """Diagnostics that have drawn themselves; findings in a file are wrong usage."""

    def __init__(self, text: str, count: int) -> None:
        super().__init__(text, status=USAGE)
        self.count = count

    def render(self) -> str:
        """The diagnostics, and how many there are."""
        return f"{self.headline}\n\n{self.count} error{'s' if self.count != 1 else ''}"
