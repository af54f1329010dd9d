"""``--format '{{.Names}}'``: the part of Go's text/template that people use with Docker.

Text and actions; fields, variables, pipes, parentheses, functions (``template_functions``), ``if``,
``else if``, ``with``, ``range`` with ``break`` and ``continue``, and trimming (``{{-``, ``-}}``).
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from linkspan.core.cli.template_functions import FUNCTIONS, TemplateError, text_of, truth

__all__ = ["Template", "TemplateError"]

_ACTION: Final = re.compile(r"\{\{(-\s)?\s*(.*?)\s*(\s-)?\}\}", re.DOTALL)
_WORD: Final = re.compile(
    r"""\s*("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])+'|`[^`]*`|:=|\)(?:\.[\w-]+)*|[^\s|(),="`']+|[|(),=])"""
)
_NUMBER: Final = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]+|\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)")
_NAME: Final = re.compile(r"\$?\w*")


class Call(NamedTuple):
    """One part of a pipe: a function, or a value, with arguments."""

    words: tuple["Operand", ...]


class Operand(NamedTuple):
    """What an argument is.

    Attributes:
        kind: ``const``, ``field``, ``variable``, ``function``, ``pipe``.
        value: The constant, the variable's or function's name, or the Pipe in parentheses.
        path: Fields below it.
    """

    kind: str
    value: Any
    path: tuple[str, ...] = ()


class Pipe(NamedTuple):
    """Calls, each getting the last one's result as its last argument.

    Attributes:
        calls: In their order.
        names: Variables that get the result; two in a range.
        declares: They are new (``:=``).
    """

    calls: tuple[Call, ...]
    names: tuple[str, ...] = ()
    declares: bool = False


class Node(NamedTuple):
    """A part of the template.

    Attributes:
        kind: ``text``, ``value``, ``if``, ``with``, ``range``, ``break``, ``continue``.
        content: The text, or the Pipe.
        body: What is inside.
        other: What is behind ``else``.
    """

    kind: str
    content: Any
    body: tuple["Node", ...] = ()
    other: tuple["Node", ...] = ()


class Template:
    """A compiled template."""

    def __init__(self, text: str) -> None:
        """Compile.

        Raises:
            TemplateError: It cannot be read.
        """
        self._tokens = _tokenize(text)
        self._at = 0
        self._nodes, end = self._block()
        if end:
            raise TemplateError(f"'{{{{{end}}}}}' without a beginning")

    def render(self, data: object) -> str:
        """Fill the template.

        Raises:
            TemplateError: A function got what it cannot take.
        """
        out: list[str] = []
        _Run(data, out).nodes(self._nodes, data)
        return "".join(out)

    def _block(self) -> tuple[tuple[Node, ...], str]:
        """Nodes up to ``end`` or ``else …``, and that word; empty at the end of the template."""
        nodes: list[Node] = []
        while self._at < len(self._tokens):
            kind, text = self._tokens[self._at]
            self._at += 1
            if kind == "text":
                nodes.append(Node("text", text))
                continue
            word, _, rest = text.partition(" ")
            if word in ("end", "else"):
                return tuple(nodes), text
            if word in ("range", "if", "with"):
                nodes.append(self._branch(word, rest))
            elif word in ("break", "continue"):
                nodes.append(Node(word, None))
            elif not word.startswith("/*"):
                nodes.append(Node("value", _pipe(text)))
        return tuple(nodes), ""

    def _branch(self, word: str, rest: str) -> Node:
        body, stop = self._block()
        other: tuple[Node, ...] = ()
        if stop.startswith("else "):
            again, _, condition = stop.removeprefix("else ").strip().partition(" ")
            if again not in ("if", "with"):
                raise TemplateError(f"'{{{{{stop}}}}}' is not understood")
            return Node(word, _pipe(rest), body, (self._branch(again, condition),))
        if stop == "else":
            other, stop = self._block()
        if stop != "end":
            raise TemplateError(f"'{{{{{word}}}}}' has no '{{{{end}}}}'")
        return Node(word, _pipe(rest), body, other)


def _tokenize(text: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    at, trim = 0, False
    text = text.replace("\\t", "\t").replace("\\n", "\n")
    for match in _ACTION.finditer(text):
        before = text[at : match.start()]
        before = before.lstrip() if trim else before
        tokens.append(("text", before.rstrip() if match[1] else before))
        tokens.append(("action", match[2]))
        at, trim = match.end(), bool(match[3])
    rest = text[at:]
    if "{{" in rest:
        raise TemplateError("'{{' without '}}'")
    tokens.append(("text", rest.lstrip() if trim else rest))
    return tokens


def _pipe(text: str) -> Pipe:
    words = []
    at = 0
    while at < len(text):
        match = _WORD.match(text, at)
        if match is None:
            if not text[at:].strip():
                break
            raise TemplateError(f"'{text[at:].strip()}' is not understood")
        words.append(match[1])
        at = match.end()
    if not words:
        raise TemplateError("'{{}}' is empty")
    pipe, rest = _parse_pipe(words)
    if rest:
        raise TemplateError(f"unexpected '{rest[0]}'")
    return pipe


def _parse_pipe(words: list[str]) -> tuple[Pipe, list[str]]:
    names, declares, words = _assignment(words)
    calls: list[Call] = []
    operands: list[Operand] = []
    while True:
        if not words or words[0].startswith(")") or words[0] == "|":
            if not operands:
                raise TemplateError("a value or a function is expected")
            calls.append(Call(tuple(operands)))
            operands = []
            if not words or words[0] != "|":
                return Pipe(tuple(calls), names, declares), words
            words = words[1:]
        elif words[0] == "(":
            inner, words = _parse_pipe(words[1:])
            if not words:
                raise TemplateError("'(' without ')'")
            path = tuple(filter(None, words[0][1:].split(".")))
            operands.append(Operand("pipe", inner, path))
            words = words[1:]
        else:
            operands.append(_operand(words[0], first=not operands))
            words = words[1:]


def _assignment(words: list[str]) -> tuple[tuple[str, ...], bool, list[str]]:
    """``$x :=``, ``$i, $x :=``, ``$x =`` before a pipe."""
    for count in (1, 3):
        if len(words) > count and words[count] in (":=", "="):
            names = words[:count:2]
            if all(name.startswith("$") and len(name) > 1 for name in names):
                return tuple(names), words[count] == ":=", words[count + 1 :]
    return (), False, words


def _operand(word: str, *, first: bool) -> Operand:
    if word[0] == '"':
        try:
            return Operand("const", json.loads(word))
        except ValueError as exc:
            raise TemplateError(f"{word} is no text") from exc
    if word[0] == "`":
        return Operand("const", word[1:-1])
    if word in ("true", "false", "nil"):
        return Operand("const", {"true": True, "false": False, "nil": None}[word])
    if _NUMBER.fullmatch(word):
        return Operand("const", _number(word))
    if word[0] == "$":
        name, _, path = word.partition(".")
        return Operand("variable", name, tuple(filter(None, path.split("."))))
    if word[0] == ".":
        return Operand("field", None, tuple(filter(None, word.split("."))))
    if word not in FUNCTIONS and word not in ("and", "or"):
        raise TemplateError(f"there is no function '{word}'")
    if not first:
        return Operand("pipe", Pipe((Call((Operand("function", word),)),)))
    return Operand("function", word)


def _number(word: str) -> int | float:
    try:
        return int(word, 0)
    except ValueError:
        return float(word)


class _Break(Exception):
    """Leaves a range."""


class _Continue(Exception):
    """Goes on with a range's next item."""


class _Run:
    """One rendering: its output and its variables."""

    def __init__(self, data: object, out: list[str]) -> None:
        self._out = out
        self._scopes: list[dict[str, Any]] = [{"$": data}]

    def nodes(self, nodes: Sequence[Node], dot: object) -> None:
        """Render nodes; variables that they declare end with them."""
        self._scopes.append({})
        try:
            for node in nodes:
                self._node(node, dot)
        finally:
            self._scopes.pop()

    def _node(self, node: Node, dot: object) -> None:
        match node.kind:
            case "text":
                self._out.append(node.content)
            case "value":
                value = self._value(node.content, dot)
                if not node.content.names:
                    if value is None and dot is self._scopes[0]["$"]:
                        _refuse_unknown(node.content, dot)
                    self._out.append(text_of(value))
            case "break":
                raise _Break
            case "continue":
                raise _Continue
            case "range":
                self._range(node, dot)
            case _:
                self._scopes.append({})
                try:
                    value = self._value(node.content, dot)
                    if truth(value):
                        self.nodes(node.body, value if node.kind == "with" else dot)
                    else:
                        self.nodes(node.other, dot)
                finally:
                    self._scopes.pop()

    def _range(self, node: Node, dot: object) -> None:
        pipe: Pipe = node.content
        found = self._value(pipe._replace(names=()), dot)
        items = list(_items(found))
        for key, item in items:
            self._scopes.append({})
            values = (item,) if len(pipe.names) == 1 else (key, item)
            for name, value in zip(pipe.names, values, strict=False):
                self._set(name, value, new=pipe.declares)
            try:
                self.nodes(node.body, item)
            except _Continue:
                continue
            except _Break:
                break
            finally:
                self._scopes.pop()
        if not items:
            self.nodes(node.other, dot)

    def _set(self, name: str, value: Any, *, new: bool) -> None:
        if new:
            self._scopes[-1][name] = value
            return
        for scope in reversed(self._scopes):
            if name in scope:
                scope[name] = value
                return
        raise TemplateError(f"there is no variable '{name}'")

    def _value(self, pipe: Pipe, dot: object) -> Any:
        piped: list[Any] = []
        for call in pipe.calls:
            piped = [self._call(call, piped, dot)]
        for name in pipe.names:
            self._set(name, piped[0], new=pipe.declares)
        return piped[0]

    def _call(self, call: Call, piped: list[Any], dot: object) -> Any:
        first, *rest = call.words
        if first.kind == "function":
            return self._function(first.value, rest, piped, dot)
        value = self._operand(first, dot)
        arguments = [*(self._operand(word, dot) for word in rest), *piped]
        if callable(value):
            return _apply(value, arguments, first.path[-1] if first.path else "call")
        if arguments:
            raise TemplateError("a value takes no arguments")
        return value

    def _function(self, name: str, rest: Sequence[Operand], piped: list[Any], dot: object) -> Any:
        if name in ("and", "or"):  # the rest is not looked at once the answer is clear
            value: Any = None
            for word in rest:
                value = self._operand(word, dot)
                if truth(value) == (name == "or"):
                    return value
            return piped[0] if piped else value
        arguments = [*(self._operand(word, dot) for word in rest), *piped]
        return _apply(FUNCTIONS[name], arguments, name)

    def _operand(self, operand: Operand, dot: object) -> Any:
        match operand.kind:
            case "const":
                return operand.value
            case "pipe":
                value = self._value(operand.value, dot)
            case "variable":
                value = self._variable(operand.value)
            case _:
                value = dot
        for part in operand.path:
            value = _field(value, part)
        return value

    def _variable(self, name: str) -> Any:
        for scope in reversed(self._scopes):
            if name in scope:
                return scope[name]
        raise TemplateError(f"there is no variable '{name}'")


def _apply(function: Any, arguments: list[Any], name: str) -> Any:
    try:
        return function(*arguments)
    except TemplateError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError) as exc:
        raise TemplateError(f"{name}: {exc}") from exc


def _items(found: Any) -> Iterator[tuple[Any, Any]]:
    """Key and value of what a range goes over; mappings in the order of their keys (as in Go)."""
    if isinstance(found, Mapping):
        yield from sorted(found.items())
    elif isinstance(found, int) and not isinstance(found, bool):
        yield from ((number, number) for number in range(found))
    elif found is None:
        return
    elif isinstance(found, Sequence) and not isinstance(found, str):
        yield from enumerate(found)
    else:
        raise TemplateError(f"cannot range over {text_of(found)}")


def _refuse_unknown(pipe: Pipe, data: object) -> None:
    """A field that what is shown has not is a slip of the pen. Raises TemplateError."""
    (first, *more), *others = (call.words for call in pipe.calls)
    if others or more or first.kind != "field" or not first.path or not isinstance(data, Mapping):
        return
    name = first.path[0]
    known = {str(key).lower(): str(key) for key in data}
    if name.lower() not in known:
        from linkspan.sdk.diagnostics import did_you_mean

        near = did_you_mean(name, known.values())
        raise TemplateError(
            f"there is no field .{name}" + (f": did you mean .{near}?" if near else "")
        )


def _field(value: Any, name: str) -> Any:
    if not isinstance(value, Mapping):
        return None
    if name in value:
        return value[name]
    # Docker's CLI and its API differ in case now and then (ID and Id).
    for key, found in value.items():
        if isinstance(key, str) and key.lower() == name.lower():
            return found
    return None
