"""Where each key and value of a TOML document stands.

tomllib gives values without positions. This scanner runs over text that tomllib has accepted, so
it checks nothing: it only follows the grammar of TOML 1.0 (https://toml.io/en/v1.0.0) closely
enough to tell keys, values, strings and comments apart. Columns count characters from 1.
"""

import bisect
import re
import tomllib
from typing import Final

from linkspan.sdk.diagnostics import Span
from linkspan.sdk.values import frozen

Path = tuple[str | int, ...]

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_BLANK: Final = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_INLINE_BLANK: Final = re.compile(r"[ \t]*")
_SCALAR: Final = re.compile(r"[^,\]}#\n]*")


@frozen
class Place:
    """Where one path of the document stands.

    Attributes:
        key: The key (of a table, its name in the header); of an array's item, the item itself.
        value: The value; of a table with a header, the same as ``key``. Only its first line.
    """

    key: Span
    value: Span


def scan(text: str) -> dict[Path, Place]:
    """Find every key, table and array item of a document that ``tomllib.loads`` accepts.

    Args:
        text: The document, without a byte order mark.

    Returns:
        A place for each path, e.g. ``("runtime", "oci", "args", 0)``.
    """
    scanner = _Scanner(text.replace("\r\n", "\n"))
    scanner.document()
    return scanner.places


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.places: dict[Path, Place] = {}
        self._line_starts = [0, *(m.end() for m in re.finditer("\n", text))]
        self._table_counts: dict[Path, int] = {}

    def document(self) -> None:
        table: Path = ()
        while True:
            self._skip(_BLANK)
            if self.at >= len(self.text):
                return
            if self.text.startswith("[[", self.at):
                table = self._header(2)
            elif self.text[self.at] == "[":
                table = self._header(1)
            else:
                self._pair(table)

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        assert match is not None  # every pattern used here matches the empty string
        self.at = match.end()
        return match[0]

    def _span(self, start: int, end: int) -> Span:
        line = bisect.bisect_right(self._line_starts, start)
        newline = self.text.find("\n", start, end)
        stop = end if newline < 0 else newline
        return Span(
            line=line,
            column=start - self._line_starts[line - 1] + 1,
            length=max(1, stop - start),
        )

    def _header(self, brackets: int) -> Path:
        self.at += brackets
        parts = self._key()
        self.at += brackets
        path: Path = ()
        for name, span in parts[:-1]:
            path = self._into_last((*path, name), span)
        name, span = parts[-1]
        path = (*path, name)
        if brackets == 1:
            # `[a]` after `[a.b]`: the header that defines the table is its better place.
            self.places[path] = Place(span, span)
            return path
        index = self._table_counts.get(path, 0)
        self._table_counts[path] = index + 1
        self.places.setdefault(path, Place(span, span))
        self.places[(*path, index)] = Place(span, span)
        return (*path, index)

    def _into_last(self, path: Path, span: Span) -> Path:
        """The table that a header's leading part means: of an array of tables, the last one."""
        self.places.setdefault(path, Place(span, span))
        count = self._table_counts.get(path)
        return path if count is None else (*path, count - 1)

    def _pair(self, table: Path) -> None:
        parts = self._key()
        path = table
        for name, span in parts[:-1]:
            path = (*path, name)
            self.places.setdefault(path, Place(span, span))
        name, key = parts[-1]
        self._skip(_INLINE_BLANK)
        self.at += 1  # the equals sign
        self._skip(_INLINE_BLANK)
        self._value((*path, name), key)

    def _key(self) -> list[tuple[str, Span]]:
        parts: list[tuple[str, Span]] = []
        while True:
            self._skip(_INLINE_BLANK)
            start = self.at
            if self.text[start] in "\"'":
                self._one_line_string()
                raw = self.text[start : self.at]
                name = tomllib.loads(f"k = {raw}")["k"]
            else:
                name = self._skip(_BARE_KEY)
            parts.append((name, self._span(start, self.at)))
            self._skip(_INLINE_BLANK)
            if self.text[self.at] != ".":
                return parts
            self.at += 1

    def _value(self, path: Path, key: Span | None) -> None:
        start = self.at
        # Entered before the items of a container, so that the mapping is in document order.
        self.places[path] = Place(self._span(start, start), self._span(start, start))
        first = self.text[start]
        if first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        elif self.text.startswith(('"""', "'''"), start):
            self._many_line_string()
        elif first in "\"'":
            self._one_line_string()
        else:
            self.at = start + len(self._skip(_SCALAR).rstrip())
        value = self._span(start, self.at)
        self.places[path] = Place(key or value, value)

    def _array(self, path: Path) -> None:
        self.at += 1
        index = 0
        while True:
            self._skip(_BLANK)
            if self.text[self.at] == "]":
                self.at += 1
                return
            if self.text[self.at] == ",":
                self.at += 1
                continue
            self._value((*path, index), None)
            index += 1

    def _inline_table(self, path: Path) -> None:
        self.at += 1
        while True:
            self._skip(_BLANK)
            if self.text[self.at] == "}":
                self.at += 1
                return
            if self.text[self.at] == ",":
                self.at += 1
                continue
            self._pair(path)

    def _one_line_string(self) -> None:
        quote = self.text[self.at]
        self.at += 1
        while self.text[self.at] != quote:
            self.at += 2 if quote == '"' and self.text[self.at] == "\\" else 1
        self.at += 1

    def _many_line_string(self) -> None:
        quote = self.text[self.at]
        self.at += 3
        while not self.text.startswith(quote * 3, self.at):
            self.at += 2 if quote == '"' and self.text[self.at] == "\\" else 1
        self.at += 3
        # Up to two quotes may stand directly before the closing three.
        for _ in range(2):
            if self.text.startswith(quote, self.at):
                self.at += 1
