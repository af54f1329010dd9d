"""The words of a template, as Go's lexer splits it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

_LEFT: Final = "{{"
_RIGHT: Final = "}}"
_SPACES: Final = " \t\r\n"
_ENDS: Final = ".,|:)("
KEYWORDS: Final = frozenset(
    (
        "block",
        "break",
        "continue",
        "define",
        "else",
        "end",
        "if",
        "range",
        "template",
        "with",
        "nil",
    )
)


class TemplateError(ValueError):
    """The template cannot be read, or does not fit the data."""


class Token(NamedTuple):
    """One word.

    Attributes:
        kind: ``text``, ``left``, ``right``, ``space``, ``word``, ``field``, ``dot``, ``variable``,
            ``string``, ``raw``, ``char``, ``number``, ``bool``, ``pipe``, ``(``, ``)``, ``:=``, ``=``,
            ``sign`` (any other character), ``error``, ``eof``, or one of the keywords.
        text: As it is written; of an error, what is wrong.
        at: Where it begins.
    """

    kind: str
    text: str
    at: int

    def __str__(self) -> str:
        if self.kind == "eof":
            return "EOF"
        if self.kind == "error":
            return self.text
        if self.kind in KEYWORDS or self.kind == "dot":
            return f"<{self.text}>"
        if len(self.text) > 10:
            return f"{quoted(self.text[:10])}..."
        return quoted(self.text)


def quoted(text: str) -> str:
    """A text as Go writes it with ``%q``."""
    out = ['"']
    for char in text:
        code = ord(char)
        if char in '"\\':
            out.append(f"\\{char}")
        elif char in _ESCAPES:
            out.append(_ESCAPES[char])
        elif char.isprintable():
            out.append(char)
        elif code < 0x80:
            out.append(f"\\x{code:02x}")
        else:
            out.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return "".join([*out, '"'])


_ESCAPES: Final = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}


class _Fault(Exception):
    """What is wrong with a word."""


def tokens(text: str) -> list[Token]:
    """All words of a template; the last is ``eof``, or an ``error`` where reading had to stop."""
    lexer = _Lexer(text)
    found: list[Token] = []
    try:
        found.extend(lexer.all())
    except _Fault as exc:
        found = [*lexer.seen, Token("error", str(exc), lexer.start)]
    return found


class _Lexer:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.start = 0
        self.seen: list[Token] = []

    def all(self) -> list[Token]:
        """Every word. Raises _Fault; ``seen`` has those before it."""
        for token in self._outside():
            self.seen.append(token)
        return self.seen

    def _outside(self) -> Iterator[Token]:
        text, trim = self._text, False
        while True:
            begin = self._at
            if trim:
                while begin < len(text) and text[begin] in _SPACES:
                    begin += 1
            left = text.find(_LEFT, begin)
            end = len(text) if left < 0 else left
            marked = left >= 0 and _left_marker(text, left + 2)
            plain = text[begin:end].rstrip(_SPACES) if marked else text[begin:end]
            if plain:
                yield Token("text", plain, begin)
            if left < 0:
                yield Token("eof", "", len(text))
                return
            self.start = left
            self._at = left + 2 + (2 if marked else 0)
            if text.startswith("/*", self._at):
                trim = self._comment()
            else:
                yield Token("left", _LEFT, left)
                yield from self._inside()
                right = self.seen[-1]
                trim = right.text != _RIGHT

    def _comment(self) -> bool:
        """Leave a comment out; whether what is behind it is trimmed."""
        end = self._text.find("*/", self._at)
        if end < 0:
            raise _Fault("unclosed comment")
        self._at = end + 2
        trim = _right_marker(self._text, self._at)
        if trim:
            self._at += 2
        elif not self._text.startswith(_RIGHT, self._at):
            raise _Fault("comment ends before closing delimiter")
        self._at += 2
        return trim

    def _inside(self) -> Iterator[Token]:
        """The words of one action, up to and with its closing braces."""
        text, depth = self._text, 0
        while True:
            self.start = at = self._at
            trim = _right_marker(text, at)
            if trim or text.startswith(_RIGHT, at):
                if depth:
                    raise _Fault("unclosed left paren")
                self._at = at + (4 if trim else 2)
                yield Token("right", " -}}" if trim else _RIGHT, at)
                return
            if at >= len(text):
                raise _Fault("unclosed action")
            char = text[at]
            if char == "(":
                depth += 1
            elif char == ")":
                depth -= 1
                if depth < 0:
                    raise _Fault("unexpected right paren")
            yield self._word(char)

    def _word(self, char: str) -> Token:
        at = self._at
        if char in _SPACES:
            return self._space()
        self._at = at + 1
        following = self._text[at + 1 : at + 2]
        match char:
            case "=":
                return self._token("=")
            case ":":
                if following != "=":
                    raise _Fault("expected :=")
                self._at += 1
                return self._token(":=")
            case "|":
                return self._token("pipe")
            case '"' | "'":
                return self._quote(char)
            case "`":
                end = self._text.find("`", self._at)
                if end < 0:
                    raise _Fault("unterminated raw quoted string")
                self._at = end + 1
                return self._token("raw")
            case "$":
                return self._field("variable")
            case "(" | ")":
                return self._token(char)
            case _:
                pass
        if char == "." and not ("0" <= following <= "9"):
            return self._field("field")
        if char in "+-." or "0" <= char <= "9":
            return self._number()
        if _of_word(char):
            return self._identifier()
        if char.isascii() and char.isprintable():
            return self._token("sign")
        raise _Fault(f"unrecognized character in action: {_named(char)}")

    def _token(self, kind: str) -> Token:
        return Token(kind, self._text[self.start : self._at], self.start)

    def _space(self) -> Token:
        text = self._text
        while self._at < len(text) and text[self._at] in _SPACES:
            self._at += 1
        # The last space may belong to the marker of ` -}}`.
        if _right_marker(text, self._at - 1):
            self._at -= 1
            if self._at == self.start:
                self._at = self.start + 1
        return self._token("space")

    def _quote(self, mark: str) -> Token:
        text, what = self._text, "quoted string" if mark == '"' else "character constant"
        while True:
            char = text[self._at : self._at + 1]
            self._at += 1
            if char == "\\":
                char = text[self._at : self._at + 1]
                self._at += 1
                if char and char != "\n":
                    continue
            if char in ("", "\n"):
                raise _Fault(f"unterminated {what}")
            if char == mark:
                return self._token("string" if mark == '"' else "char")

    def _field(self, kind: str) -> Token:
        if self._ends():
            return self._token("dot" if kind == "field" else kind)
        self._letters()
        return self._token(kind)

    def _identifier(self) -> Token:
        self._letters()
        word = self._text[self.start : self._at]
        if word in KEYWORDS:
            return self._token(word)
        return self._token("bool" if word in ("true", "false") else "word")

    def _letters(self) -> None:
        text = self._text
        while self._at < len(text) and _of_word(text[self._at]):
            self._at += 1
        if not self._ends():
            raise _Fault(f"bad character {_named(text[self._at])}")

    def _ends(self) -> bool:
        """Whether a name ends here."""
        char = self._text[self._at : self._at + 1]
        return not char or char in _SPACES or char in _ENDS or self._text.startswith("}}", self._at)

    def _number(self) -> Token:
        text = self._text
        self._at = self.start
        self._accept("+-")
        digits, base = "0123456789_", 10
        if self._accept("0"):
            for letters, more, radix in (
                ("xX", "0123456789abcdefABCDEF_", 16),
                ("oO", "01234567_", 8),
                ("bB", "01_", 2),
            ):
                if self._accept(letters):
                    digits, base = more, radix
                    break
        self._run(digits)
        if self._accept("."):
            self._run(digits)
        if base == 10 and self._accept("eE"):
            self._accept("+-")
            self._run("0123456789_")
        following = text[self._at : self._at + 1]
        if following and _of_word(following):
            self._at += 1
            raise _Fault(f"bad number syntax: {quoted(text[self.start : self._at])}")
        return self._token("number")

    def _accept(self, chars: str) -> bool:
        char = self._text[self._at : self._at + 1]
        if not char or char not in chars:
            return False
        self._at += 1
        return True

    def _run(self, chars: str) -> None:
        while self._accept(chars):
            pass


def _left_marker(text: str, at: int) -> bool:
    """Whether ``- `` stands there."""
    return text[at : at + 1] == "-" and text[at + 1 : at + 2] in tuple(_SPACES)


def _right_marker(text: str, at: int) -> bool:
    """Whether `` -}}`` stands there."""
    return text[at : at + 1] in tuple(_SPACES) and text.startswith("-}}", at + 1)


def _of_word(char: str) -> bool:
    return char == "_" or char.isalpha() or char.isdigit()


def _named(char: str) -> str:
    return f"U+{ord(char):04X} '{char}'"
