"""Filling a template: Go's rules for what an action evaluates to, and for what it may not be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn

from linkspan.sdk.templates.functions import FUNCTIONS, Function, truth
from linkspan.sdk.templates.lexing import TemplateError, quoted
from linkspan.sdk.templates.parsing import Command, Node, Pipe, parse
from linkspan.sdk.templates.printing import NO_VALUE, NilPointer, has_fields, text_of, type_name

_MAX_DEPTH: Final = 100
"""How deep templates may call one another; Python's own stack ends not far behind."""


class _Missing:
    """Nothing was piped in."""


_MISSING: Final = _Missing()
_ANY: Final = "interface {}"


class Template:
    """A compiled template."""

    def __init__(
        self, text: str, *, functions: Mapping[str, Function] = FUNCTIONS, name: str = ""
    ) -> None:
        """Compile.

        Args:
            text: The template. ``\\t`` and ``\\n`` outside of actions are a tab and a new line.
            functions: What it may call.
            name: Of the template, for messages.

        Raises:
            TemplateError: It cannot be read.
        """
        self._functions = functions
        self._text = text
        self._name = name
        try:
            self._trees = parse(text, self._functions, name)
        except RecursionError as exc:
            raise TemplateError(f"template: {name}:1: parentheses or blocks are too deep") from exc

    def render(self, data: object) -> str:
        """Fill the template.

        Args:
            data: What ``.`` is. A key that it lacks is a fault, and so is one that a mapping below lacks
                whose keys look like fields (``State``). Of other mappings (labels) it is ``<no value>``.

        Raises:
            TemplateError: It does not fit the data.
        """
        run = _Run(self._trees, self._text, self._functions, data, self._name)
        try:
            run.template("", data)
        except RecursionError as exc:
            raise TemplateError("template: the templates call one another too deeply") from exc
        return "".join(run.out)


class _Break(Exception):
    """Leaves a range."""


class _Continue(Exception):
    """Goes on with a range's next item."""


class _Run:
    """One rendering: its output, its variables, and where it is."""

    def __init__(
        self,
        trees: Mapping[str, Sequence[Node]],
        text: str,
        functions: Mapping[str, Function],
        data: object,
        named: str,
    ) -> None:
        self.out: list[str] = []
        self._trees = trees
        self._text = text
        self._functions = functions
        self._data = data
        self._named = named
        self._name = ""
        self._depth = 0
        self._variables: list[tuple[str, Any]] = []
        self._place: Node | Command | Pipe | None = None

    def template(self, name: str, dot: Any) -> None:
        """Render one of the trees; it sees no variables but its own."""
        if self._depth == _MAX_DEPTH:
            self._fail(f"exceeded maximum template depth ({_MAX_DEPTH})")
        kept = self._variables, self._name
        self._variables, self._name = [("$", dot)], name
        self._depth += 1
        self._nodes(self._trees[name], dot)
        self._depth -= 1
        self._variables, self._name = kept

    def _fail(self, message: str) -> NoReturn:
        place = self._place
        at = place.at if place is not None else 0
        line = 1 + self._text.count("\n", 0, at)
        column = len(self._text[self._text.rfind("\n", 0, at) + 1 : at].encode("utf-8", "replace"))
        what = place.text if place is not None else ""
        raise TemplateError(
            f"template: {self._named}:{line}:{column}: "
            f"executing {quoted(self._name or self._named)} at <{what}>: {message}"
        )

    # --- nodes

    def _nodes(self, nodes: Sequence[Node], dot: Any) -> None:
        for node in nodes:
            self._node(node, dot)

    def _node(self, node: Node, dot: Any) -> None:
        match node.kind:
            case "text":
                self.out.append(node.text.replace("\\t", "\t").replace("\\n", "\n"))
            case "action":
                pipe = _pipe_of(node)
                self._place = node
                value = self._pipe(pipe, dot)
                if not pipe.names:
                    self.out.append(NO_VALUE if value is None else text_of(value))
            case "break":
                raise _Break
            case "continue":
                raise _Continue
            case "template":
                self._place = node
                if node.value not in self._trees:
                    self._fail(f"template {quoted(node.value)} not defined")
                inner = None if node.pipe is None else self._pipe(node.pipe, dot)
                self.template(node.value, inner)
            case _:
                count = len(self._variables)
                try:
                    self._branch(node, dot)
                finally:
                    del self._variables[count:]

    def _branch(self, node: Node, dot: Any) -> None:
        self._place = pipe = _pipe_of(node)
        if node.kind == "range":
            self._range(node, pipe, dot)
            return
        value = self._pipe(pipe, dot)
        if truth(value):
            self._nodes(node.body, value if node.kind == "with" else dot)
        else:
            self._nodes(node.other, dot)

    def _range(self, node: Node, pipe: Pipe, dot: Any) -> None:
        found = self._pipe(pipe, dot)
        count, any_item = len(self._variables), False
        for key, item in self._items(found):
            any_item = True
            values = (item,) if len(pipe.names) == 1 else (key, item)
            for name, value in zip(pipe.names, values, strict=False):
                if pipe.assigns:
                    self._assign(name, value)
                else:
                    self._variables.append((name, value))
            try:
                self._nodes(node.body, item)
            except _Continue:
                continue
            except _Break:
                break
            finally:
                del self._variables[count:]
        if not any_item:
            self._nodes(node.other, dot)

    def _items(self, found: Any) -> Iterator[tuple[Any, Any]]:
        """Key and value of what a range goes over; mappings in the order of their keys (as in Go)."""
        if isinstance(found, Mapping):
            yield from sorted(found.items())
        elif isinstance(found, int) and not isinstance(found, bool):
            yield from ((number, number) for number in range(found))
        elif isinstance(found, Sequence) and not isinstance(found, str):
            yield from enumerate(found)
        elif found is not None:
            self._fail(f"range can't iterate over {text_of(found)}")

    # --- pipes

    def _pipe(self, pipe: Pipe, dot: Any) -> Any:
        self._place = pipe
        value: Any = _MISSING
        for command in pipe.commands:
            value = self._command(command, dot, value)
        for name in pipe.names:
            if pipe.assigns:
                self._assign(name, value)
            else:
                self._variables.append((name, value))
        return _there(value)

    def _assign(self, name: str, value: Any) -> None:
        for place in range(len(self._variables) - 1, -1, -1):
            if self._variables[place][0] == name:
                self._variables[place] = (name, value)
                return
        self._fail(f"undefined variable: {name}")

    def _variable(self, name: str) -> Any:
        for known, value in reversed(self._variables):
            if known == name:
                return value
        self._fail(f"undefined variable: {name}")

    def _command(self, command: Command, dot: Any, piped: Any) -> Any:
        first, *rest = command.args
        match first.kind:
            case "field" | "chain":
                return self._path(first, dot, rest, piped)
            case "variable" if first.path:
                return self._path(first, dot, rest, piped)
            case "word":
                self._place = first
                return self._function(first.value, command, rest, dot, piped)
            case "pipe":
                self._refuse_arguments(first, rest, piped)
                return self._pipe(_pipe_of(first), dot)
            case _:
                pass
        self._place = first
        self._refuse_arguments(first, rest, piped)
        if first.kind == "nil":
            self._fail("nil is not a command")
        return self._value(first, dot)

    def _refuse_arguments(self, first: Node, rest: Sequence[Node], piped: Any) -> None:
        if rest or piped is not _MISSING:
            text = (
                f"({first.text})" if first.kind == "pipe" and self._place is first else first.text
            )
            self._fail(f"can't give argument to non-function {text}")

    def _value(self, node: Node, dot: Any) -> Any:
        """What an operand is, by itself."""
        self._place = node
        match node.kind:
            case "dot":
                return dot
            case "field" | "chain":
                return _there(self._path(node, dot, (), _MISSING))
            case "variable" if node.path:
                return _there(self._path(node, dot, (), _MISSING))
            case "variable":
                return self._variable(node.value)
            case "pipe":
                return self._pipe(_pipe_of(node), dot)
            case "word":
                return self._function(node.value, node, (), dot, _MISSING)
            case _:
                return node.value

    # --- fields and methods

    def _path(self, node: Node, dot: Any, rest: Sequence[Node], piped: Any) -> Any:
        self._place = node
        match node.kind:
            case "chain":
                if node.value.kind == "nil":
                    self._fail(f"indirection through explicit nil in {node.text}")
                value = self._value(node.value, dot)
            case "variable":
                value = self._variable(node.value)
            case _:
                value = dot
        *before, last = node.path
        origin = type_name(value) if node.kind in ("chain", "variable") else _ANY
        for name in before:
            value, origin = self._field(value, name, origin), _ANY
        return self._field(value, last, origin, node, rest, dot, piped)

    def _field(
        self,
        value: Any,
        name: str,
        origin: str,
        node: Node | None = None,
        rest: Sequence[Node] = (),
        dot: Any = None,
        piped: Any = _MISSING,
    ) -> Any:
        if value is _MISSING:  # of a mapping that lacks a key all fields are lacking
            return value
        if value is None or isinstance(value, NilPointer):
            self._fail(f"nil pointer evaluating interface {{}}.{name}")
        if not isinstance(value, Mapping):
            self._fail(f"can't evaluate field {name} in type {origin}")
        found = _entry(value, name)
        if callable(found) and node is not None:
            function = getattr(found, "function", Function(found, ("string",)))
            return self._apply(function, name, node, rest, dot, piped)
        if rest or piped is not _MISSING:
            self._fail(f"{name} is not a method but has arguments")
        if found is _MISSING and (value is self._data or has_fields(value)):
            self._fail(f'map has no entry for key "{name}"{_hint(value, name)}')
        return found

    # --- functions

    def _function(
        self, name: str, node: Node | Command, rest: Sequence[Node], dot: Any, piped: Any
    ) -> Any:
        function = self._functions[name]
        if name in ("and", "or"):
            return self._and_or(name, rest, dot, piped)
        return self._apply(function, name, node, rest, dot, piped)

    def _and_or(self, name: str, rest: Sequence[Node], dot: Any, piped: Any) -> Any:
        """The rest is not looked at once the answer is clear."""
        if not rest and piped is _MISSING:
            self._fail(f"wrong number of args for {name}: want at least 1 got 0")
        value: Any = None
        for node in rest:
            value = self._value(node, dot)
            if truth(value) == (name == "or"):
                return value
        return value if piped is _MISSING else piped

    def _apply(
        self,
        function: Function,
        name: str,
        node: Node | Command,
        rest: Sequence[Node],
        dot: Any,
        piped: Any,
    ) -> Any:
        takes = function.takes
        many = takes[-1].removesuffix("...") if takes and takes[-1].endswith("...") else ""
        fixed = len(takes) - bool(many)
        count = len(rest) + (piped is not _MISSING)
        if count < fixed or (count > fixed and not many):
            want = f"at least {fixed}" if many else f"{fixed}"
            got = len(rest) if many else count
            self._fail(f"wrong number of args for {name}: want {want} got {got}")
        kinds = [*takes[:fixed], *[many] * (count - fixed)]
        arguments = [
            self._argument(argument, kind, dot) for argument, kind in zip(rest, kinds, strict=False)
        ]
        if piped is not _MISSING:
            arguments.append(self._fits(piped, kinds[-1]))
        try:
            return function.run(*arguments)
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as exc:
            self._place = node
            self._fail(f"error calling {name}: {_of_call(exc, rest)}")

    def _argument(self, node: Node, kind: str, dot: Any) -> Any:
        self._place = node
        if node.kind == "nil":
            if kind not in ("any", "[]string"):
                self._fail(f"cannot assign nil to {kind}")
            return None
        if node.kind in ("bool", "number", "string") and kind != "any":
            return self._constant(node, kind)
        return self._fits(self._value(node, dot), kind)

    def _constant(self, node: Node, kind: str) -> Any:
        if kind == "int":
            if node.kind == "number" and node.value == int(node.value):
                return int(node.value)
            self._fail(f"expected integer; found {node.text}")
        if kind == "string":
            if node.kind == "string":
                return node.value
            self._fail(f"expected string; found {node.text}")
        self._fail(f"can't handle {node.text} for arg of type {kind}")

    def _fits(self, value: Any, kind: str) -> Any:
        match kind:
            case "string":
                right = isinstance(value, str)
            case "int":
                right = isinstance(value, int) and not isinstance(value, bool)
            case "[]string":
                value = [] if value is None else value
                right = isinstance(value, Sequence) and not isinstance(value, str)
                right = right and all(isinstance(item, str) for item in value)
            case _:
                return value
        if right:
            return value
        if value is None:
            self._fail(f"invalid value; expected {kind}")
        self._fail(f"wrong type for value; expected {kind}; got {type_name(value)}")


def _pipe_of(node: Node) -> Pipe:
    if node.pipe is None:
        raise TypeError(f"a {node.kind} has a pipe")
    return node.pipe


def _there(value: Any) -> Any:
    return None if value is _MISSING else value


def _of_call(exc: Exception, rest: Sequence[Node]) -> str:
    text = str(exc)
    if text.startswith("non-function of") and rest:
        return f"non-function {rest[0].text}{text.removeprefix('non-function')}"
    return text


def _entry(value: Mapping[str, Any], name: str) -> Any:
    if name in value:
        return value[name]
    # Docker's CLI and its API differ in case now and then (ID and Id).
    lower = name.lower()
    for key, found in value.items():
        if key.lower() == lower:
            return found
    return _MISSING


def _hint(value: Mapping[str, Any], name: str) -> str:
    from linkspan.sdk.diagnostics import did_you_mean

    near = did_you_mean(name, value)
    return f": did you mean .{near}?" if near else ""
