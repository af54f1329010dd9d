"""Text of an expression to a tree with positions (a Pratt parser).

Precedence, low to high: ``?:``, ``||``, ``&&``, ``== != < <= > >= in =~``, ``!``, then ``.name``,
``[expr]`` and ``f(args)``. Names may hold ``-`` because job ids do, so there is no arithmetic.
"""

import re
from collections.abc import Iterator
from typing import Final

import attrs

from linkspan.workflows.expressions.faults import ExpressionFault, ExpressionInvalid

MAX_LENGTH: Final = 4096
MAX_DEPTH: Final = 50

Value = str | int | float | bool | None


@attrs.frozen(kw_only=True)
class Literal:
    """``'text'``, ``3``, ``true``, ``null``."""

    value: Value
    start: int
    end: int


@attrs.frozen(kw_only=True)
class Name:
    """A context: ``inputs``."""

    name: str
    start: int
    end: int


@attrs.frozen(kw_only=True)
class Member:
    """``base.name``; ``name_start`` is where the name begins."""

    base: "Expr"
    name: str
    name_start: int
    start: int
    end: int


@attrs.frozen(kw_only=True)
class Index:
    """``base[key]``."""

    base: "Expr"
    key: "Expr"
    start: int
    end: int


@attrs.frozen(kw_only=True)
class Call:
    """``function(args)``."""

    function: str
    args: "tuple[Expr, ...]"
    start: int
    end: int


@attrs.frozen(kw_only=True)
class Not:
    """``!operand``."""

    operand: "Expr"
    start: int
    end: int


@attrs.frozen(kw_only=True)
class Binary:
    """``left operator right``."""

    operator: str
    left: "Expr"
    right: "Expr"
    start: int
    end: int


@attrs.frozen(kw_only=True)
class Conditional:
    """``condition ? then : otherwise``."""

    condition: "Expr"
    then: "Expr"
    otherwise: "Expr"
    start: int
    end: int


@attrs.frozen(kw_only=True)
class ListOf:
    """``[a, b]``."""

    items: "tuple[Expr, ...]"
    start: int
    end: int


Expr = Literal | Name | Member | Index | Call | Not | Binary | Conditional | ListOf

_TOKEN = re.compile(
    r"""
    (?P<blank>\s+)
  | (?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?![\w.]))
  | (?P<name>[A-Za-z_][A-Za-z0-9_-]*)
  | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
  | (?P<operator>&&|\|\||==|!=|<=|>=|=~|[<>!?:.,()\[\]])
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"'}
_WORD_OPERATORS = {"and": "&&", "or": "||", "not": "!", "eq": "==", "ne": "!="}
_SINGLE = {"&": "&&", "|": "||", "=": "=="}
_COMPARISON = {"==", "!=", "<", "<=", ">", ">=", "in", "=~"}
_BINDING = {"?": 1, "||": 2, "&&": 3, **dict.fromkeys(_COMPARISON, 4)}


@attrs.frozen
class _Token:
    kind: str
    text: str
    start: int
    end: int


def _fail(message: str, start: int, end: int, *helps: str) -> ExpressionInvalid:
    return ExpressionInvalid(
        ExpressionFault(id="LS1204", headline=message, start=start, end=end, helps=helps)
    )


def _tokens(source: str) -> Iterator[_Token]:
    at = 0
    while at < len(source):
        match = _TOKEN.match(source, at)
        if match is None:
            raise _unreadable(source, at)
        kind = str(match.lastgroup)
        if kind != "blank":
            text = match[0]
            if kind == "name" and text == "in":
                kind = "operator"
            yield _Token(kind, text, at, match.end())
        at = match.end()
    yield _Token("end", "", len(source), len(source))


def _unreadable(source: str, at: int) -> ExpressionInvalid:
    char = source[at]
    if char in "'\"":
        return _fail("a text is not closed", at, len(source), f"end it with {char}")
    if char in _SINGLE:
        return _fail(f"'{char}' is not an operator", at, at + 1, f"use '{_SINGLE[char]}'")
    if char in "+-*/%":
        return _fail(
            f"'{char}' is not an operator: expressions do not calculate",
            at,
            at + 1,
            "calculate in a `run` step and write the result to $LINKSPAN_OUTPUT",
        )
    if char.isdigit():
        return _fail("this is not a number", at, at + 1, "write 3, -3 or 2.5")
    return _fail(f"'{char}' has no meaning here", at, at + 1)


def parse(source: str) -> Expr:
    """Parse one expression.

    Raises:
        ExpressionInvalid: LS1204, with the place.
    """
    if len(source) > MAX_LENGTH:
        raise _fail(f"an expression may have {MAX_LENGTH} characters", 0, len(source))
    return _Parser(source).parse()


class _Parser:
    def __init__(self, source: str) -> None:
        self.source = source
        self.tokens = list(_tokens(source))
        self.at = 0
        self.depth = 0

    @property
    def token(self) -> _Token:
        return self.tokens[self.at]

    def parse(self) -> Expr:
        if self.token.kind == "end":
            raise _fail("the expression is empty", 0, max(1, len(self.source)))
        tree = self._expression(0)
        if self.token.kind != "end":
            raise self._surplus()
        return tree

    def _surplus(self) -> ExpressionInvalid:
        token = self.token
        if token.text in _WORD_OPERATORS:
            return self._word_operator(token)
        return _fail(f"'{token.text}' is not expected here", token.start, token.end)

    def _word_operator(self, token: _Token) -> ExpressionInvalid:
        wanted = _WORD_OPERATORS[token.text]
        rest = [f"'{sign}' for {word}" for word, sign in list(_WORD_OPERATORS.items())[:3]]
        others = ", ".join(item for item in rest if f"'{wanted}'" not in item)
        return _fail(
            f"'{token.text}' is not an operator",
            token.start,
            token.end,
            f"use '{wanted}' ({others})",
        )

    def _take(self) -> _Token:
        token = self.token
        self.at += 1
        return token

    def _expect(self, text: str, opened: _Token) -> _Token:
        if self.token.text != text or self.token.kind == "text":
            if self.token.kind == "end":
                raise _fail(
                    f"'{opened.text}' is not closed", opened.start, opened.end, f"add '{text}'"
                )
            raise self._surplus()
        return self._take()

    def _expression(self, least: int) -> Expr:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _fail(
                f"the expression nests more than {MAX_DEPTH} deep", self.token.start, self.token.end
            )
        left = self._postfix(self._prefix())
        while self.token.kind == "operator" and _BINDING.get(self.token.text, 0) > least:
            left = self._infix(left, self._take())
        self.depth -= 1
        return left

    def _infix(self, left: Expr, operator: _Token) -> Expr:
        binding = _BINDING[operator.text]
        if operator.text == "?":
            then = self._expression(0)
            self._expect(":", operator)
            # Right-associative: a ? b : c ? d : e is a ? b : (c ? d : e).
            otherwise = self._expression(0)
            return Conditional(
                condition=left, then=then, otherwise=otherwise, start=left.start, end=otherwise.end
            )
        right = self._expression(binding)
        following = self.token
        if binding == 4 and following.kind == "operator" and following.text in _COMPARISON:
            raise _fail(
                "comparisons cannot be chained",
                following.start,
                following.end,
                "write both with '&&' between them",
            )
        return Binary(
            operator=operator.text, left=left, right=right, start=left.start, end=right.end
        )

    def _prefix(self) -> Expr:
        token = self._take()
        match token.kind:
            case "number":
                number = float(token.text) if "." in token.text else int(token.text)
                return Literal(value=number, start=token.start, end=token.end)
            case "text":
                return Literal(value=self._unescape(token), start=token.start, end=token.end)
            case "name":
                return self._name(token)
            case "end":
                raise _fail("the expression ends too early", max(0, token.start - 1), token.start)
            case _:
                return self._bracket(token)

    def _unescape(self, token: _Token) -> str:
        def replace(match: re.Match[str]) -> str:
            if match[1] not in _ESCAPED:
                at = token.start + 1 + match.start()
                raise _fail(f"'\\{match[1]}' is not an escape", at, at + 2, "write \\\\ for a \\")
            return _ESCAPED[match[1]]

        return _ESCAPE.sub(replace, token.text[1:-1])

    def _name(self, token: _Token) -> Expr:
        constants: dict[str, Value] = {"true": True, "false": False, "null": None}
        if token.text in constants:
            return Literal(value=constants[token.text], start=token.start, end=token.end)
        if self.token.text == "(" and self.token.kind == "operator":
            args, end = self._items(self._take(), ")")
            return Call(function=token.text, args=args, start=token.start, end=end)
        if token.text == "not":
            raise self._word_operator(token)
        return Name(name=token.text, start=token.start, end=token.end)

    def _bracket(self, token: _Token) -> Expr:
        if token.text == "!":
            # Binds closer than comparisons and looser than '.', '[' and '('.
            operand = self._expression(4)
            return Not(operand=operand, start=token.start, end=operand.end)
        if token.text == "(":
            inner = self._expression(0)
            self._expect(")", token)
            return inner
        if token.text == "[":
            items, end = self._items(token, "]")
            return ListOf(items=items, start=token.start, end=end)
        raise _fail(f"a value is missing before '{token.text}'", token.start, token.end)

    def _items(self, opened: _Token, close: str) -> tuple[tuple[Expr, ...], int]:
        items: list[Expr] = []
        while self.token.text != close or self.token.kind == "text":
            items.append(self._expression(0))
            if self.token.text != "," or self.token.kind == "text":
                break
            self._take()
        return tuple(items), self._expect(close, opened).end

    def _postfix(self, base: Expr) -> Expr:
        while self.token.kind == "operator" and self.token.text in {".", "["}:
            operator = self._take()
            if operator.text == ".":
                name = self._take()
                if name.kind != "name" and name.text != "in":
                    raise _fail("a name is missing after '.'", operator.start, operator.end)
                base = Member(
                    base=base,
                    name=name.text,
                    name_start=name.start,
                    start=base.start,
                    end=name.end,
                )
            else:
                key = self._expression(0)
                end = self._expect("]", operator).end
                base = Index(base=base, key=key, start=base.start, end=end)
        return base


def children(tree: Expr) -> tuple[Expr, ...]:
    """The parts of a node, left to right."""
    match tree:
        case Member():
            return (tree.base,)
        case Index():
            return (tree.base, tree.key)
        case Call():
            return tree.args
        case Not():
            return (tree.operand,)
        case Binary():
            return (tree.left, tree.right)
        case Conditional():
            return (tree.condition, tree.then, tree.otherwise)
        case ListOf():
            return tree.items
        case Literal() | Name():
            return ()


def walk(tree: Expr) -> Iterator[Expr]:
    """The node and all below it."""
    yield tree
    for child in children(tree):
        yield from walk(child)
