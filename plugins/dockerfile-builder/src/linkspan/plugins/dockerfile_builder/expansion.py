"""Variables in a word: ``$name``, ``${name:-default}``, quotes and escapes.

A port of the behaviour of BuildKit's ``frontend/dockerfile/shell`` lexer; the cases in
``tests/data/shell-expansion.json`` were computed with it.
"""

import re
from collections.abc import Iterator, Mapping

import attrs

from linkspan.plugins.dockerfile_builder.fault import quote
from linkspan.sdk.glob import (
    ANY_CHARACTER,
    ANY_TEXT,
    Element,
    Glob,
    literal,
)

# `ENV A=$A$A` doubles a value; without a limit forty lines would fill the memory.
MAX_VALUE_CHARACTERS = 1 << 20
MAX_SEARCHED_CHARACTERS = 4096

_BLANKS = re.compile(r"(\s+)")
_SPECIAL = "@*#?-$!0"
# What Go prints for "no more characters", where it names the character that it did not expect.
_END = "�"


class ExpansionError(ValueError):
    """A word cannot be expanded; the text has Docker's wording."""


@attrs.frozen(kw_only=True)
class Expanded:
    """What became of a word.

    Attributes:
        text: As one word, blanks kept.
        words: Split at the blanks that neither quotes nor escapes protect (EXPOSE only).
        unset: Names that were looked up and not found.
    """

    text: str
    words: tuple[str, ...]
    unset: frozenset[str]


def expand(
    word: str, env: Mapping[str, str], escape: str = "\\", *, raw_quotes: bool = False
) -> Expanded:
    """Expand one word.

    Args:
        raw_quotes: Quotes mean nothing (inline documents).

    Raises:
        ExpansionError: A quote or brace is not closed, a modifier is unknown, ``${x:?}`` found
            nothing, or the value grows beyond 1 MiB.
    """
    if escape not in word and not any(char in word for char in "$'\""):
        return Expanded(text=word, words=tuple(word.split()), unset=frozenset())
    scan = _Scan(word, env, escape, "" if raw_quotes else "'\"")
    try:
        text, words = scan.until("")
    except ExpansionError as error:
        raise ExpansionError(f"failed to process {quote(word)}: {error}") from None
    return Expanded(text=text, words=tuple(words), unset=frozenset(scan.unset))


class _Words:
    """Collects the split form beside the joined one."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self._word: list[str] = []

    def add(self, text: str) -> None:
        """Text in which blanks split."""
        for piece in _BLANKS.split(text):
            if piece.isspace():
                self.finish()
            elif piece:
                self.add_raw(piece)

    def add_raw(self, text: str) -> None:
        self._word.append(text)

    def finish(self) -> list[str]:
        word = "".join(self._word)
        if word:
            self.done.append(word)
        self._word.clear()
        return self.done


class _Scan:
    """One walk over a word; recursion follows the nesting of ``${}``."""

    def __init__(self, word: str, env: Mapping[str, str], escape: str, quotes: str) -> None:
        self.quotes = quotes
        self.word = word
        self.at = 0
        self.env = env
        self.escape = escape
        self.unset: set[str] = set()
        self.depth = 0

    @property
    def peek(self) -> str:
        """The next character; empty at the end."""
        return self.word[self.at : self.at + 1]

    def take(self) -> str:
        char = self.peek
        self.at += 1
        return char

    def until(self, stop: str, *, raw_escapes: bool = False) -> tuple[str, list[str]]:
        """Expand up to ``stop`` (swallowed) or, when it is empty, to the end."""
        result: list[str] = []
        words = _Words()
        while self.peek:
            char = self.peek
            if char == stop:
                self.at += 1
                return self._joined(result), words.finish()
            if char == "$":
                value = self._dollar()
                result.append(value)
                words.add(value)
            elif char in self.quotes:
                value = self._single_quoted() if char == "'" else self._double_quoted(raw_escapes)
                result.append(value)
                words.add_raw(value)
            elif char == self.escape:
                self.at += 1
                value = (char if raw_escapes else "") + self.take()
                result.append(value)
                words.add_raw(value)
            else:
                result.append(self.take())
                words.add(char)
        if stop:
            raise ExpansionError(f"unexpected end of statement while looking for matching {stop}")
        return self._joined(result), words.finish()

    def _joined(self, parts: list[str]) -> str:
        if sum(map(len, parts)) > MAX_VALUE_CHARACTERS:
            raise ExpansionError(f"the value is longer than {MAX_VALUE_CHARACTERS} characters")
        return "".join(parts)

    def _single_quoted(self) -> str:
        end = self.word.find("'", self.at + 1)
        if end < 0:
            raise ExpansionError(
                "unexpected end of statement while looking for matching single-quote"
            )
        value = self.word[self.at + 1 : end]
        self.at = end + 1
        return value

    def _double_quoted(self, raw_escapes: bool) -> str:
        self.at += 1
        result: list[str] = []
        while True:
            char = self.peek
            if not char:
                raise ExpansionError(
                    "unexpected end of statement while looking for matching double-quote"
                )
            if char == "$":
                result.append(self._dollar())
                continue
            self.at += 1
            if char == '"':
                return self._joined(result)
            if char == self.escape:
                if not self.peek:
                    continue
                if raw_escapes:
                    result.append(char)
                if self.peek in ('"', "$", self.escape):
                    char = self.take()
            result.append(char)

    def _dollar(self) -> str:
        self.at += 1
        if self.peek != "{":
            name = self._name()
            return (self._lookup(name) or "") if name else "$"
        self.at += 1
        if not self.peek:
            raise ExpansionError("syntax error: missing '}'")
        if self.peek in "{}:":
            raise ExpansionError("syntax error: bad substitution")
        self.depth += 1
        if self.depth > 100:
            raise ExpansionError("syntax error: substitutions are nested too deeply")
        value = self._braced(self._name())
        self.depth -= 1
        return value

    def _name(self) -> str:
        start = self.at
        first = self.peek
        if (
            first
            and first in _SPECIAL
            and not (first == "0" and self.word[start + 1 :][:1].isdecimal())
        ):
            self.at += 1
            return first
        if first.isdecimal():
            while self.peek.isdecimal():
                self.at += 1
        else:
            while self.peek.isalpha() or self.peek.isdecimal() or self.peek == "_":
                self.at += 1
        return self.word[start : self.at]

    def _lookup(self, name: str) -> str | None:
        value = self.env.get(name)
        if value is None:
            self.unset.add(name)
        return value

    def _braced(self, name: str) -> str:
        """What stands between ``${name`` and ``}``, both swallowed."""
        modifier = self.take()
        if modifier == "}":
            return self._lookup(name) or ""
        if modifier == "/":
            return self._replaced(name)
        empty_is_unset = modifier == ":"
        if empty_is_unset:
            modifier = self.take()
        if modifier not in tuple("+-?#%") or (empty_is_unset and modifier in "#%"):
            shown = (":" if empty_is_unset else "") + (modifier or _END)
            raise ExpansionError(f"unsupported modifier ({shown}) in substitution")
        word = self._operand("}", raw_escapes=modifier in "#%")
        value = self._lookup(name)
        if modifier in "#%":
            return _trimmed(value or "", word, modifier)
        found = value is not None and not (empty_is_unset and not value)
        if modifier == "+":
            return word if found else ""
        if found:
            return value or ""
        if modifier == "?":
            state = "unset" if value is None else "empty"
            raise ExpansionError(f"{name}: {word or f'is not allowed to be {state}'}")
        return word

    def _operand(self, stop: str, *, raw_escapes: bool) -> str:
        try:
            return self.until(stop, raw_escapes=raw_escapes)[0]
        except ExpansionError as error:
            if self.peek:
                raise
            if "unexpected end" not in str(error):
                raise
            text = "missing '/' in ${}" if stop == "/" else "missing '}'"
            raise ExpansionError(f"syntax error: {text}") from None

    def _replaced(self, name: str) -> str:
        everywhere = self.peek == "/"
        if everywhere:
            self.at += 1
        pattern = self._operand("/", raw_escapes=True)
        replacement = self._operand("}", raw_escapes=False)
        value = self._lookup(name) or ""
        return self._joined(list(_replace(value, pattern, replacement, everywhere)))


def _trimmed(value: str, pattern: str, modifier: str) -> str:
    """``#`` and ``%`` cut the shortest prefix or suffix that matches, doubled the longest."""
    longest = pattern.startswith(modifier)
    elements = _elements(pattern[1:] if longest else pattern)
    if modifier == "%":
        value, elements = value[::-1], elements[::-1]
    ends = list(Glob(elements).ends(value))
    cut = (ends[-1] if longest else ends[0]) if ends else 0
    return value[cut:] if modifier == "#" else value[cut:][::-1]


def _replace(value: str, pattern: str, replacement: str, everywhere: bool) -> Iterator[str]:
    # Every start is tried against the whole rest: the limit keeps that below a second.
    if len(value) > MAX_SEARCHED_CHARACTERS:
        raise ExpansionError(
            f"the value to replace in is longer than {MAX_SEARCHED_CHARACTERS} characters"
        )
    glob = Glob(_elements(pattern))
    at = 0
    while at < len(value):
        end = max(glob.ends(value, at), default=at)
        if end == at:
            yield value[at]
            at += 1
            continue
        yield replacement
        at = end
        if not everywhere:
            break
    yield value[at:]


def _elements(pattern: str) -> list[Element]:
    """Pieces of a shell pattern: only ``*``, ``?`` and the backslash mean something."""
    elements: list[Element] = []
    characters = iter(pattern)
    for char in characters:
        if char == "*":
            elements.append(ANY_TEXT)
        elif char == "?":
            elements.append(ANY_CHARACTER)
        else:
            elements.append(literal(next(characters, "\\") if char == "\\" else char))
    return elements
