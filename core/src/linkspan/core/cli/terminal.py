"""Where a command writes: a pipe gets data, a terminal gets a view.

stdout carries the answer; stderr carries progress, notes and errors. Whether colours and cursor
movements are used is decided here, once, for both.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing these takes longer than a short command may
    from collections.abc import Mapping, Sequence
    from typing import Final, TextIO

_STYLES: Final = {"dim": "2", "green": "32", "cyan": "36", "yellow": "33", "red": "31"}
_SIGNS: Final = {
    "done": ("✓", "ok"),
    "running": ("●", "run"),
    "waiting": ("○", ".."),
    "skipped": ("↷", "skip"),
    "warned": ("!", "warn"),
    "failed": ("✗", "FAIL"),
    "holds": ("‖", "hold"),
    "rolled-back": ("↺", "back"),
    "retry": ("↻", "retry"),
}
_SIGN_STYLES: Final = {
    "done": "green",
    "running": "cyan",
    "waiting": "dim",
    "skipped": "dim",
    "warned": "yellow",
    "failed": "red",
    "holds": "yellow",
    "rolled-back": "yellow",
    "retry": "yellow",
}
_CONTROL: Final = dict.fromkeys([*range(0x20), 0x7F], "?")
_MIN_COLUMN: Final = 8


def visible(text: str) -> int:
    """Cells that a text takes, escape sequences left out."""
    if text.isascii() and "\x1b" not in text:
        return len(text)
    return sum(map(_cell_count, _colors_apart(text)[::2]))


def _cell_count(text: str) -> int:
    return len(text) if text.isascii() else sum(map(_cells, text))


def _cells(char: str) -> int:
    """Two for characters as wide as an ideograph, none for marks that stand on the one before."""
    code = ord(char)
    # Our signs and most letters are here; the tables take longer to load than a short command may.
    if code < 0x300 or 0x2010 <= code < 0x2E80:
        return 1
    import unicodedata

    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _colors_apart(text: str) -> list[str]:
    """Text, colour, text and so on: colours as ``paint`` makes them.

    Without a regular expression: importing those takes longer than a short command may.
    """
    found = [""]
    for number, piece in enumerate(text.split("\x1b[")):
        color, end, rest = piece.partition("m")
        if number and end and not color.strip("0123456789;"):
            found += [f"\x1b[{color}m", rest]
        else:
            found[-1] += f"\x1b[{piece}" if number else piece
    return found


def _harmless(cell: str) -> str:
    """A cell without control characters, but for our own colours."""
    if cell.isprintable():
        return cell
    pieces = _colors_apart(cell)
    pieces[::2] = [piece.translate(_CONTROL) for piece in pieces[::2]]
    return "".join(pieces)


def wants_color(choice: str, stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Decide by ``--color``, NO_COLOR, FORCE_COLOR, TERM=dumb, and whether it is a terminal."""
    if choice in ("always", "never"):
        return choice == "always"
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return environ.get("TERM") != "dumb" and stream.isatty()


class Terminal:
    """stdout and stderr with what may be done to them."""

    def __init__(
        self,
        *,
        color: str = "auto",
        progress: str = "auto",
        quiet: bool = False,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.out, self.err = sys.stdout, sys.stderr
        self.out_color = wants_color(color, self.out, environ)
        self.err_color = wants_color(color, self.err, environ)
        self.out_is_tty = self.out.isatty()
        self.err_is_tty = self.err.isatty()
        dumb = environ.get("TERM") == "dumb"
        self.redraws = self.out_is_tty and not dumb
        encoding = (self.out.encoding or "ascii").lower().replace("-", "")
        self._ascii = bool(environ.get("LINKSPAN_ASCII")) or encoding not in ("utf8", "utf16")
        ci = bool(environ.get("CI"))
        live = self.err_is_tty and not ci and not dumb
        self.progress = progress if progress != "auto" else "live" if live else "plain"
        if quiet:
            self.progress = "none"
        self.quiet = quiet
        self.wide = False

    @property
    def width(self) -> int:
        """Columns of the terminal on stdout."""
        try:
            return os.get_terminal_size(self.out.fileno()).columns or 80
        except OSError:
            return 80

    def sign(self, name: str) -> str:
        """``✓`` for ``done`` and so on; words where the terminal has no such signs."""
        return _SIGNS[name][1 if self._ascii else 0]

    def painted_sign(self, name: str, *, on_err: bool = True) -> str:
        """A sign in its colour."""
        color = self.err_color if on_err else self.out_color
        return paint(self.sign(name), _SIGN_STYLES[name], color)

    def state(self, sign: str, word: str) -> str:
        """A sign with its word, for a table on stdout."""
        return f"{self.painted_sign(sign, on_err=False)} {word}"

    def print(self, text: str = "") -> None:
        """A line of the answer."""
        print(text, file=self.out)

    def write(self, text: str) -> None:
        """Part of the answer, as it is."""
        self.out.write(text)

    def note(self, text: str) -> None:
        """A remark; not said with ``-q``."""
        if not self.quiet:
            self.out.flush()
            print(text, file=self.err, flush=True)

    def error(self, text: str) -> None:
        """An error; always said."""
        self.out.flush()
        if self.err_color:
            head, colon, rest = text.partition(":")
            text = f"{paint(head, 'red', True)}{colon}{rest}"
        print(text, file=self.err, flush=True)

    def table(
        self,
        headers: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        drop: Sequence[str] = (),
        keep: Sequence[str] = (),
        trunc: bool = True,
    ) -> None:
        """Print columns, two spaces between.

        On a terminal, text columns shrink to 8 cells, then columns go whole; a pipe gets everything.

        Args:
            headers: Upper case.
            rows: Cells; colours allowed.
            drop: Headers of columns that may go, first to go first.
            keep: Headers of columns that are never shortened.
            trunc: False leaves everything whole on a terminal too.
        """
        for line in self.table_lines(headers, rows, drop=drop, keep=keep, trunc=trunc):
            self.print(line)

    def table_lines(
        self,
        headers: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        drop: Sequence[str] = (),
        keep: Sequence[str] = (),
        trunc: bool = True,
    ) -> list[str]:
        """The lines of ``table``, for a view that is redrawn."""
        clean = [[_harmless(cell) for cell in row] for row in rows]
        columns = list(range(len(headers)))
        widths = [max([visible(headers[i]), *(visible(row[i]) for row in clean)]) for i in columns]
        if self.out_is_tty and trunc and not self.wide:
            columns, widths = self._fit(headers, widths, drop, keep)
        lines = []
        for row in [headers, *clean]:
            cells = [_pad(_shorten(row[i], widths[i]), widths[i]) for i in columns]
            line = "  ".join(cells).rstrip()
            lines.append(paint(line, "dim", self.out_color) if row is headers else line)
        return lines

    def _fit(
        self, headers: Sequence[str], widths: list[int], drop: Sequence[str], keep: Sequence[str]
    ) -> tuple[list[int], list[int]]:
        columns = list(range(len(headers)))
        widths = list(widths)
        going = [headers.index(name) for name in drop if name in headers]
        while True:
            over = sum(widths[i] for i in columns) + 2 * (len(columns) - 1) - self.width
            if over <= 0:
                return columns, widths
            soft = [i for i in columns if headers[i] not in keep and widths[i] > _MIN_COLUMN]
            room = sum(widths[i] - _MIN_COLUMN for i in soft)
            if room < over and not going:
                # Even what should stay whole is better cut than wrapped.
                soft = [i for i in columns if widths[i] > _MIN_COLUMN]
            if room >= over or not going:
                for i in sorted(soft, key=lambda i: (headers[i] in keep, -widths[i])):
                    cut = max(0, min(over, widths[i] - _MIN_COLUMN))
                    widths[i] -= cut
                    over -= cut
                return columns, widths
            gone = going.pop(0)
            columns.remove(gone)


def paint(text: str, style: str, on: bool) -> str:
    """Colour a text, if colours are on."""
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if on and text else text


def _pad(text: str, width: int) -> str:
    return text + " " * (width - visible(text))


def _shorten(text: str, width: int) -> str:
    if visible(text) <= width:
        return text
    kept, room = "", width - 1
    for char in "".join(_colors_apart(text)[::2]):
        room -= _cells(char)
        if room < 0:
            break
        kept += char
    return f"{kept}…"
