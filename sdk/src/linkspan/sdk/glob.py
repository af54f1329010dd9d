"""Patterns with ``*``, ``?``, ``[a-z]`` and ``**``, matched in linear time.

Build contexts and Dockerfiles are hostile until read, and a backtracking matcher can be made to run
for hours. This one follows all partial matches at once, as bits of one integer: a match takes
len(text) steps whatever the pattern says.
"""

from collections.abc import Callable, Iterator, Sequence

import attrs

Accepts = Callable[[str], bool]


@attrs.frozen
class Element:
    """One piece of a pattern.

    Attributes:
        accepts: Says which characters it takes.
        loops: Takes any number of them, also none.
        skips: A way past this and the next two elements; see ``SOME_DIRECTORIES``.
    """

    accepts: Accepts
    loops: bool = False
    skips: bool = False


def literal(char: str) -> Element:
    """Exactly this character."""
    return Element(lambda c: c == char)


class Glob:
    """A compiled pattern."""

    def __init__(self, elements: Sequence[Element]) -> None:
        self._elements = elements
        self._loops = sum(1 << i for i, e in enumerate(elements) if e.loops)
        self._skips = sum(1 << i for i, e in enumerate(elements) if e.skips)
        self._accepting = 1 << len(elements)
        self._masks: dict[str, int] = {}
        self._start = self._closed(1)

    def _closed(self, states: int) -> int:
        """The states and those that are reached without taking a character."""
        while True:
            more = states | (states & self._loops) << 1 | (states & self._skips) << 3
            if more == states:
                return states
            states = more

    def _step(self, states: int, char: str) -> int:
        mask = self._masks.get(char)
        if mask is None:
            mask = sum(1 << i for i, e in enumerate(self._elements) if e.accepts(char))
            self._masks[char] = mask
        taken = states & mask
        return self._closed((taken & ~self._loops) << 1 | taken & self._loops)

    def ends(self, text: str, start: int = 0) -> Iterator[int]:
        """Every index at which a match that begins at ``start`` may end, in rising order."""
        states, at = self._start, start
        while states:
            if states & self._accepting:
                yield at
            if at == len(text):
                return
            states = self._step(states, text[at])
            at += 1

    def matches(self, text: str) -> bool:
        """Whether the whole text matches."""
        states = self._start
        for char in text:
            states = self._step(states, char)
            if not states:
                return False
        return bool(states & self._accepting)

    def matches_path_or_parent(self, path: str) -> bool:
        """Whether a slash-separated path or one of the directories above it matches."""
        states = self._start
        for char in path:
            if char == "/" and states & self._accepting:
                return True
            states = self._step(states, char)
            if not states:
                return False
        return bool(states & self._accepting)


class PatternError(ValueError):
    """A pattern cannot be read; the text has Docker's wording."""

    def __init__(self, text: str = "syntax error in pattern") -> None:
        super().__init__(text)


def character_class(pattern: str, at: int) -> tuple[Element, int]:
    """The element of ``[...]`` whose ``[`` is just before ``at``, and the index after its ``]``.

    Raises:
        PatternError: It is empty or not closed.
    """
    negated = pattern.startswith("^", at)
    at += negated
    ranges: list[tuple[str, str]] = []
    while not (ranges and pattern.startswith("]", at)):
        low, at = _class_character(pattern, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _class_character(pattern, at + 1)
        ranges.append((low, high))
    members = tuple(ranges)
    return (
        Element(lambda c: any(low <= c <= high for low, high in members) != negated),
        at + 1,
    )


def _class_character(pattern: str, at: int) -> tuple[str, int]:
    char = pattern[at : at + 1]
    if char in ("", "-", "]"):
        raise PatternError
    if char == "\\":
        at += 1
        char = pattern[at : at + 1]
        if not char:
            raise PatternError
    return char, at + 1


def _not_slash(char: str) -> bool:
    return char != "/"


def _any(char: str) -> bool:
    return True


def _none(char: str) -> bool:
    return False


STAR = Element(_not_slash, loops=True)
ANY_TEXT = Element(_any, loops=True)
ANY_CHARACTER = Element(_any)
NOT_SLASH = Element(_not_slash)
# `**/`: a gate that takes nothing and is passed either into `**` or beyond the slash.
SOME_DIRECTORIES = (Element(_none, loops=True, skips=True), ANY_TEXT, literal("/"))


def has_wildcard(name: str) -> bool:
    """Whether a COPY source has to be matched (Go ``filepath.Match``) rather than looked up."""
    return any(char in name for char in "*?[\\")


def filename_glob(pattern: str) -> Glob:
    """The pattern of one path component, as Go's ``filepath.Match`` reads it.

    Raises:
        PatternError: It cannot be read.
    """
    elements: list[Element] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            elements.append(STAR)
        elif char == "?":
            elements.append(NOT_SLASH)
        elif char == "[":
            element, at = character_class(pattern, at)
            elements.append(element)
        elif char == "\\":
            if at == len(pattern):
                raise PatternError
            elements.append(literal(pattern[at]))
            at += 1
        else:
            elements.append(literal(char))
    return Glob(elements)
