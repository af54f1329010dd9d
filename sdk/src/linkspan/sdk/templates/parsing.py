"""From words to a tree, with Go's rules and Go's words for what is wrong."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Container, Iterator
from typing import Any, Final, NoReturn

from linkspan.sdk.templates.lexing import TemplateError, Token, quoted, tokens

_OPERANDS: Final = frozenset(
    ("bool", "char", "dot", "field", "word", "number", "nil", "raw", "string", "variable", "(")
)
_CONSTANTS: Final = frozenset(("bool", "dot", "nil", "number", "string"))
_ESCAPE: Final = re.compile(
    r"""\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|([abfnrtv\\'"])|(.))""",
    re.DOTALL,
)
_PLAIN: Final = dict(zip("abfnrtv", "\a\b\f\n\r\t\v", strict=True))


class Node:
    """A part of the tree.

    Attributes:
        kind: ``text``, ``action``, ``if``, ``with``, ``range``, ``template``, ``break``, ``continue``;
            of operands ``field``, ``variable``, ``chain``, ``word``, ``pipe``, ``dot``, ``nil``, ``bool``,
            ``number``, ``string``.
        at: Where it stands.
        text: Its source, in Go's normal form; of ``text``, what is written.
        value: The constant; the name of a word, variable or template; the operand below a chain.
        path: Fields of a field, variable or chain.
        pipe: Of an action or a branch.
        body: What is inside of a branch.
        other: What is behind its ``else``.
    """

    __slots__ = ("at", "body", "kind", "other", "path", "pipe", "text", "value")

    def __init__(
        self,
        kind: str,
        at: int,
        text: str = "",
        *,
        value: Any = None,
        path: tuple[str, ...] = (),
        pipe: Pipe | None = None,
        body: tuple[Node, ...] = (),
        other: tuple[Node, ...] = (),
    ) -> None:
        self.kind = kind
        self.at = at
        self.text = text
        self.value = value
        self.path = path
        self.pipe = pipe
        self.body = body
        self.other = other


class Command:
    """One stage of a pipe: a word or a value, and its arguments."""

    __slots__ = ("args", "at", "text")

    def __init__(self, at: int, args: tuple[Node, ...]) -> None:
        self.at = at
        self.args = args
        self.text = " ".join(f"({arg.text})" if arg.kind == "pipe" else arg.text for arg in args)


class Pipe:
    """Commands, each given the last one's result, and the variables that get the final one."""

    __slots__ = ("assigns", "at", "commands", "names", "text")

    def __init__(
        self, at: int, commands: tuple[Command, ...], names: tuple[str, ...], *, assigns: bool
    ) -> None:
        self.at = at
        self.commands = commands
        self.names = names
        self.assigns = assigns
        text = " | ".join(command.text for command in commands)
        head = f"{', '.join(names)} {'=' if assigns else ':='} " if names else ""
        self.text = head + text


def parse(text: str, functions: Container[str], name: str = "") -> dict[str, tuple[Node, ...]]:
    """Trees by name; the template's own has none.

    Args:
        text: The template.
        functions: Names that may be called.
        name: Of the template, for messages.

    Raises:
        TemplateError: It cannot be read.
    """
    parser = _Parser(text, functions, name)
    parser.definitions[""] = parser.whole()
    return parser.definitions


class _Parser:
    def __init__(self, text: str, functions: Container[str], name: str) -> None:
        self._named = name
        self._source = text
        self._tokens = tokens(text)
        self._next = 0
        self._functions = functions
        self._variables = ["$"]
        self._ranges = 0
        self._action = -1
        self.definitions: dict[str, tuple[Node, ...]] = {}

    # --- words

    def _take(self) -> Token:
        token = self._tokens[min(self._next, len(self._tokens) - 1)]
        self._next += 1
        return token

    def _peek(self) -> Token:
        return self._tokens[min(self._next, len(self._tokens) - 1)]

    def _take_word(self) -> Token:
        while (token := self._take()).kind == "space":
            pass
        return token

    def _peek_word(self) -> Token:
        while self._peek().kind == "space":
            self._next += 1
        return self._peek()

    def _expect(self, kind: str, context: str) -> Token:
        token = self._take_word()
        if token.kind != kind:
            self._unexpected(token, context)
        return token

    def _line(self, at: int) -> int:
        return 1 + self._source.count("\n", 0, at)

    def _fail(self, message: str) -> NoReturn:
        line = self._line(self._tokens[max(0, min(self._next, len(self._tokens)) - 1)].at)
        raise TemplateError(f"template: {self._named}:{line}: {message}")

    def _unexpected(self, token: Token, context: str) -> NoReturn:
        if token.kind != "error":
            self._fail(f"unexpected {token} in {context}")
        extra = ""
        if self._action >= 0 and (line := self._line(self._action)) != self._line(token.at):
            extra = f" in action started at {self._named}:{line}"
            if token.text.endswith(" action"):
                extra = extra.removeprefix(" in action")
        self._fail(f"{token}{extra}")

    # --- templates and blocks

    def whole(self) -> tuple[Node, ...]:
        """The template itself; what it defines is in ``definitions``."""
        nodes = []
        while self._peek().kind != "eof":
            before = self._next
            if self._take().kind == "left" and self._take_word().kind == "define":
                self._definition()
                continue
            self._next = before
            node = self._text_or_action()
            if isinstance(node, str):
                self._fail(f"unexpected {{{{{node}}}}}")
            nodes.append(node)
        return tuple(nodes)

    def _definition(self) -> None:
        context = "define clause"
        name = self._name(self._take_word(), context)
        self._expect("right", context)
        self._define(name, context)

    def _define(self, name: str, context: str) -> None:
        """Read a tree up to its end; variables and ranges around it are not its own."""
        kept = self._variables, self._ranges
        self._variables, self._ranges = ["$"], 0
        nodes, end = self._list()
        self._variables, self._ranges = kept
        if end != "end":
            self._fail(f"unexpected {{{{{end}}}}} in {context}")
        known = self.definitions.get(name, ())
        if _blank(known):
            self.definitions[name] = nodes
        elif not _blank(nodes):
            self._fail(f"template: multiple definition of template {quoted(name)}")

    def _name(self, token: Token, context: str) -> str:
        if token.kind not in ("string", "raw"):
            self._unexpected(token, context)
        return self._unquoted(token)

    def _list(self) -> tuple[tuple[Node, ...], str]:
        """Nodes up to ``end`` or ``else``, and which."""
        nodes: list[Node] = []
        while self._peek_word().kind != "eof":
            node = self._text_or_action()
            if isinstance(node, str):
                return tuple(nodes), node
            nodes.append(node)
        self._fail("unexpected EOF")

    def _text_or_action(self) -> Node | str:
        token = self._take_word()
        if token.kind == "text":
            return Node("text", token.at, token.text)
        if token.kind != "left":
            self._unexpected(token, "input")
        self._action = token.at
        try:
            return self._of_action()
        finally:
            self._action = -1

    def _of_action(self) -> Node | str:
        before = self._next
        token = self._take_word()
        match token.kind:
            case "if" | "with" | "range":
                return self._branch(token.kind)
            case "break" | "continue":
                stop = self._take_word()
                if stop.kind != "right":
                    self._unexpected(stop, f"{{{{{token.kind}}}}}")
                if not self._ranges:
                    self._fail(f"{{{{{token.kind}}}}} outside {{{{range}}}}")
                return Node(token.kind, token.at)
            case "end":
                self._expect("right", "end")
                return "end"
            case "else":
                if self._peek_word().kind not in ("if", "with"):
                    self._expect("right", "else")
                return "else"
            case "block":
                return self._template("block clause", block=True)
            case "template":
                return self._template("template clause", block=False)
            case _:
                pass
        self._next = before
        token = self._peek_word()
        pipe = self._pipe("command", "right")
        return Node("action", token.at, f"{{{{{pipe.text}}}}}", pipe=pipe)

    def _template(self, context: str, *, block: bool) -> Node:
        token = self._take_word()
        name = self._name(token, context)
        pipe = None
        if block or self._peek_word().kind != "right":
            pipe = self._pipe(context, "right")
        else:
            self._take_word()
        if block:
            self._define(name, context)
        text = f"{{{{template {quoted(name)}{f' {pipe.text}' if pipe else ''}}}}}"
        return Node("template", token.at, text, value=name, pipe=pipe)

    def _branch(self, word: str) -> Node:
        with self._scope():
            pipe = self._pipe(word, "right")
            self._ranges += word == "range"
            body, end = self._list()
            self._ranges -= word == "range"
            other: tuple[Node, ...] = ()
            if end == "else":
                if word != "range" and self._peek().kind == word:
                    self._take()
                    other = (self._branch(word),)
                else:
                    other, end = self._list()
                    if end != "end":
                        self._fail(f"expected end; found {{{{{end}}}}}")
        return Node(word, pipe.at, pipe=pipe, body=body, other=other)

    @contextlib.contextmanager
    def _scope(self) -> Iterator[None]:
        """Variables that are declared inside end with it."""
        count = len(self._variables)
        yield
        del self._variables[count:]

    # --- pipes

    def _pipe(self, context: str, end: str) -> Pipe:
        at = self._peek_word().at
        names, assigns = self._declared(context)
        commands: list[Command] = []
        while True:
            before = self._next
            token = self._take_word()
            if token.kind == end:
                break
            if token.kind not in _OPERANDS:
                self._unexpected(token, context)
            self._next = before
            commands.append(self._command())
        if not commands:
            self._fail(f"missing value for {context}")
        for number, command in enumerate(commands[1:], 2):
            if command.args[0].kind in _CONSTANTS:
                self._fail(f"non executable command in pipeline stage {number}")
        return Pipe(at, tuple(commands), names, assigns=assigns)

    def _declared(self, context: str) -> tuple[tuple[str, ...], bool]:
        """``$x :=``, ``$i, $x :=``, ``$x =`` before a pipe, and whether it is the last form."""
        names: list[str] = []
        while self._peek_word().kind == "variable":
            before = self._next
            variable = self._take()
            following = self._peek_word()
            if following.kind in ("=", ":="):
                self._take()
                self._variables.append(variable.text)
                return (*names, variable.text), following.kind == "="
            if following.text != "," or following.kind != "sign":
                self._next = before
                break
            self._take()
            self._variables.append(variable.text)
            names.append(variable.text)
            if context != "range" or len(names) > 1:
                self._fail(f"too many declarations in {context}")
            if self._peek_word().kind not in ("variable", "right", ")"):
                self._fail("range can only initialize variables")
        return tuple(names), False

    def _command(self) -> Command:
        at = self._peek_word().at
        args: list[Node] = []
        while True:
            self._peek_word()
            operand = self._operand()
            if operand is not None:
                args.append(operand)
            token = self._take()
            if token.kind == "space":
                continue
            if token.kind in ("right", ")"):
                self._next -= 1
            elif token.kind != "pipe":
                self._unexpected(token, "operand")
            break
        if not args:
            self._fail("empty command")
        return Command(at, tuple(args))

    def _operand(self) -> Node | None:
        node = self._term()
        if node is None or self._peek().kind != "field":
            return node
        at, fields = self._peek().at, []
        while self._peek().kind == "field":
            fields.append(self._take().text[1:])
        path = (*node.path, *fields)
        below = f"({node.text})" if node.kind == "pipe" else node.text
        text = ".".join([below, *fields])
        if node.kind in _CONSTANTS:
            self._fail(f"unexpected . after term {quoted(node.text)}")
        if node.kind in ("field", "variable"):
            return Node(node.kind, at, text, value=node.value, path=path)
        return Node("chain", at, text, value=node, path=path)

    def _term(self) -> Node | None:
        before = self._next
        token = self._take_word()
        at, text = token.at, token.text
        match token.kind:
            case "word":
                if text not in self._functions:
                    self._fail(f'function "{text}" not defined')
                return Node("word", at, text, value=text)
            case "dot" | "nil":
                return Node(token.kind, at, text)
            case "variable":
                if text not in self._variables:
                    self._fail(f'undefined variable "{text}"')
                return Node("variable", at, text, value=text)
            case "field":
                return Node("field", at, text, path=(text[1:],))
            case "bool":
                return Node("bool", at, text, value=text == "true")
            case "number":
                return Node("number", at, text, value=self._number(text))
            case "char":
                return Node("number", at, text, value=self._character(token))
            case "string" | "raw":
                return Node("string", at, text, value=self._unquoted(token))
            case "(":
                pipe = self._pipe("parenthesized pipeline", ")")
                return Node("pipe", pipe.at, pipe.text, pipe=pipe)
            case _:
                pass
        self._next = before
        return None

    def _number(self, text: str) -> int | float:
        try:
            digits = text.lstrip("+-")
            if re.fullmatch(r"0[0-7_]+", digits):
                return int(text.replace("_", ""), 8)
            try:
                return int(text, 0)
            except ValueError:
                number = float(text)
        except ValueError:
            self._fail(f'illegal number syntax: "{text}"')
        # Where a whole number is wanted, 1e3 is one; only what is written with a point stays a fraction.
        return number

    def _character(self, token: Token) -> int:
        inner = token.text[1:-1]
        try:
            char = _unescaped(inner, "'")
        except ValueError:
            char = ""
        if len(char) != 1:
            self._fail(f"malformed character constant: {token.text}")
        return ord(char)

    def _unquoted(self, token: Token) -> str:
        if token.kind == "raw":
            return token.text[1:-1].replace("\r", "")
        try:
            return _unescaped(token.text[1:-1], '"')
        except ValueError:
            self._fail("invalid syntax")


def _blank(nodes: tuple[Node, ...]) -> bool:
    return all(node.kind == "text" and not node.text.strip() for node in nodes)


def _unescaped(text: str, mark: str) -> str:
    """What stands between the quotes of Go's source. Raises ValueError."""
    if "\\" not in text:
        return text
    if text.endswith("\\") and (len(text) - len(text.rstrip("\\"))) % 2:
        raise ValueError("a lone backslash")
    raw = bytearray()
    at = 0
    for match in _ESCAPE.finditer(text):
        raw += text[at : match.start()].encode("utf-8", "surrogatepass")
        at = match.end()
        raw += _escape(match, mark)
    raw += text[at:].encode("utf-8", "surrogatepass")
    return raw.decode("utf-8", "replace")


def _escape(match: re.Match[str], mark: str) -> bytes:
    pair, four, eight, octal, plain, other = match.groups()
    if other is not None or (plain in ("'", '"') and plain != mark):
        raise ValueError(f"no escape: {match[0]}")
    if pair or octal:
        code = int(pair, 16) if pair else int(octal, 8)
        return bytes([code])  # more than 0o377 is a ValueError
    if four or eight:
        return chr(int(four or eight, 16)).encode()
    return _PLAIN.get(plain, plain).encode()
