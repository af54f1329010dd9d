"""Regular expressions for ``=~`` and ``pattern:``, matched in time linear in the text.

Supported: literals, ``.``, classes, ``\\d \\w \\s`` and their opposites, groups, ``|``,
``* + ? {m,n}``, ``^`` and ``$``. There are no backreferences and no lookaround, so no pattern that
somebody writes can make the runner search for hours, as Python's ``re`` can.
"""

from collections.abc import Callable
from typing import Final

import attrs

MAX_PATTERN: Final = 256
MAX_STATES: Final = 5000
MAX_DEPTH: Final = 50

_SPECIAL = set("\\^$.|?*+()[]{}")
_CLASS_ESCAPES: dict[str, Callable[[str], bool]] = {
    "d": lambda c: c in "0123456789",
    "w": lambda c: c == "_" or (c.isascii() and c.isalnum()),
    "s": lambda c: c in " \t\r\n\f\v",
}
_CONTROL = {"n": "\n", "t": "\t", "r": "\r"}


class PatternError(ValueError):
    """The pattern cannot be read; ``at`` is the index in it."""

    def __init__(self, message: str, at: int) -> None:
        super().__init__(message)
        self.at = at


@attrs.frozen
class _One:
    accepts: Callable[[str], bool]


@attrs.frozen
class _Edge:
    start: bool


@attrs.frozen
class _Concat:
    parts: "tuple[_Tree, ...]"


@attrs.frozen
class _Choice:
    parts: "tuple[_Tree, ...]"


@attrs.frozen
class _Repeat:
    part: "_Tree"
    least: int
    most: int | None


_Tree = _One | _Edge | _Concat | _Choice | _Repeat


class _Parser:
    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0
        self.depth = 0

    def parse(self) -> _Tree:
        tree = self._choice()
        if self.at < len(self.pattern):
            self._fail("unbalanced ')'")
        return tree

    def _fail(self, message: str) -> None:
        raise PatternError(message, self.at)

    def _peek(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def _choice(self) -> _Tree:
        parts = [self._concat()]
        while self._peek() == "|":
            self.at += 1
            parts.append(self._concat())
        return parts[0] if len(parts) == 1 else _Choice(tuple(parts))

    def _concat(self) -> _Tree:
        parts: list[_Tree] = []
        while (char := self._peek()) and char not in "|)":
            parts.append(self._repeat(self._atom()))
        return _Concat(tuple(parts))

    def _repeat(self, tree: _Tree) -> _Tree:
        while (char := self._peek()) and char in "*+?{":
            if isinstance(tree, _Edge):
                self._fail("nothing to repeat")
            least, most = self._bounds(char)
            tree = _Repeat(tree, least, most)
        return tree

    def _bounds(self, char: str) -> tuple[int, int | None]:
        self.at += 1
        if char != "{":
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
        end = self.pattern.find("}", self.at)
        low, comma, high = self.pattern[self.at : max(end, self.at)].partition(",")
        numbers = low.isdecimal() and (high.isdecimal() or not high) and low.isascii()
        if end < 0 or not numbers or len(low) > 4 or len(high) > 4:
            self._fail("a repeat is written {2}, {2,} or {2,5}")
        self.at = end + 1
        least = int(low)
        most = least if not comma else int(high) if high else None
        if most is not None and most < least:
            self._fail("the bounds of a repeat are the wrong way round")
        return least, most

    def _atom(self) -> _Tree:
        char = self._peek()
        if char in {"*", "+", "?", "{"}:
            self._fail("nothing to repeat")
        self.at += 1
        match char:
            case "(":
                return self._group()
            case "[":
                return _One(self._class())
            case ".":
                return _One(lambda c: c != "\n")
            case "^":
                return _Edge(start=True)
            case "$":
                return _Edge(start=False)
            case "\\":
                return _One(self._escape())
            case _:
                return _One(lambda c: c == char)

    def _group(self) -> _Tree:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self._fail(f"groups nest more than {MAX_DEPTH} deep")
        if self._peek() == "?":
            if self.pattern[self.at : self.at + 2] != "?:":
                self._fail("lookaround and named groups are not supported")
            self.at += 2
        tree = self._choice()
        if self._peek() != ")":
            self._fail("a '(' is not closed")
        self.at += 1
        self.depth -= 1
        return tree

    def _escape(self) -> Callable[[str], bool]:
        char = self._peek()
        if not char:
            self._fail("the pattern ends in a backslash")
        self.at += 1
        if char in _CLASS_ESCAPES:
            return _CLASS_ESCAPES[char]
        if char.lower() in _CLASS_ESCAPES:
            inner = _CLASS_ESCAPES[char.lower()]
            return lambda c: not inner(c)
        if char.isalnum() and char not in _CONTROL:
            self.at -= 1
            self._fail(f"'\\{char}' is not supported")
        wanted = _CONTROL.get(char, char)
        return lambda c: c == wanted

    def _class(self) -> Callable[[str], bool]:
        negate = self._peek() == "^"
        if negate:
            self.at += 1
        tests: list[Callable[[str], bool]] = []
        first = True
        while (char := self._peek()) != "]" or first:
            if not char:
                self._fail("a '[' is not closed")
            first = False
            tests.append(self._class_item())
        self.at += 1
        return lambda c: any(test(c) for test in tests) is not negate

    def _class_item(self) -> Callable[[str], bool]:
        low = self._class_char()
        if callable(low):
            return low
        if self._peek() == "-" and self.pattern[self.at + 1 : self.at + 2] not in {"", "]"}:
            self.at += 1
            high = self._class_char()
            if callable(high) or high < low:
                self._fail("a range in [] is the wrong way round")
            return lambda c: low <= c <= str(high)
        return lambda c: c == low

    def _class_char(self) -> str | Callable[[str], bool]:
        char = self._peek()
        self.at += 1
        if char != "\\":
            return char
        following = self._peek()
        test = self._escape()
        if following.lower() in _CLASS_ESCAPES:
            return test
        return _CONTROL.get(following, following)


_SPLIT = 0
_ACCEPT = 1
_MATCH = 2
_EDGE = 3


class Pattern:
    """A compiled pattern.

    Raises:
        PatternError: It cannot be read, or is too large.
    """

    def __init__(self, pattern: str) -> None:
        if len(pattern) > MAX_PATTERN:
            raise PatternError(f"a pattern may have {MAX_PATTERN} characters", MAX_PATTERN)
        self.pattern = pattern
        # One row a state: what it does, its argument, and where it leads.
        self._states: list[tuple[int, object, int, int]] = []
        end = self._state(_MATCH, None, -1, -1)
        self._first = self._compile(_Parser(pattern).parse(), end)

    def _state(self, kind: int, argument: object, one: int, two: int) -> int:
        if len(self._states) >= MAX_STATES:
            raise PatternError("the pattern's repeats are too large", 0)
        self._states.append((kind, argument, one, two))
        return len(self._states) - 1

    def _compile(self, tree: _Tree, then: int) -> int:
        """Add the states of a tree, built from its end; return the first of them."""
        match tree:
            case _One(accepts):
                return self._state(_ACCEPT, accepts, then, -1)
            case _Edge(start):
                return self._state(_EDGE, start, then, -1)
            case _Concat(parts):
                for part in reversed(parts):
                    then = self._compile(part, then)
                return then
            case _Choice(parts):
                first = self._compile(parts[-1], then)
                for part in reversed(parts[:-1]):
                    first = self._state(_SPLIT, None, self._compile(part, then), first)
                return first
            case _Repeat(part, least, most):
                return self._compile_repeat(part, least, most, then)

    def _compile_repeat(self, part: _Tree, least: int, most: int | None, then: int) -> int:
        if most is None:
            loop = self._state(_SPLIT, None, then, then)
            self._states[loop] = (_SPLIT, None, self._compile(part, loop), then)
            then = loop
        else:
            after = then
            for _ in range(most - least):
                then = self._state(_SPLIT, None, self._compile(part, then), after)
        for _ in range(least):
            then = self._compile(part, then)
        return then

    def search(self, text: str) -> bool:
        """Whether the pattern matches anywhere in the text."""
        return self._run(text, anchored=False)

    def fullmatch(self, text: str) -> bool:
        """Whether the pattern matches the whole text."""
        return self._run(text, anchored=True)

    def _run(self, text: str, *, anchored: bool) -> bool:
        length = len(text)
        active = self._follow([self._first], 0, length)
        for at, char in enumerate(text):
            if not anchored and 0 in active:
                return True
            moved = []
            for state in active:
                kind, accepts, one, _ = self._states[state]
                if kind == _ACCEPT and accepts(char):  # type: ignore[operator]
                    moved.append(one)
            if not anchored:
                moved.append(self._first)
            active = self._follow(moved, at + 1, length)
            if not active:
                return False
        return 0 in active

    def _follow(self, states: list[int], at: int, length: int) -> set[int]:
        """All states that can be reached without reading a character."""
        found: set[int] = set()
        todo = list(states)
        while todo:
            state = todo.pop()
            if state in found:
                continue
            found.add(state)
            kind, argument, one, two = self._states[state]
            if kind == _SPLIT:
                todo += [one, two]
            elif kind == _EDGE and at == (0 if argument else length):
                todo.append(one)
        return found
