"""Values of a pipeline that may hold expressions: ``"web:${{ inputs.version }}"``."""

from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

import attrs

from linkspan.workflows.expressions import (
    EvaluationFailed,
    Expr,
    ExpressionInvalid,
    Scope,
    evaluate,
    parse,
    plain_text,
)
from linkspan.workflows.expressions.faults import ExpressionFault
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.parse import Scalar

OPEN: Final = "${{"
CLOSE: Final = "}}"


@attrs.frozen(kw_only=True)
class Expression:
    """An expression and where it stands.

    Attributes:
        source: Its own text.
        node: The scalar that holds it.
        offset: Where ``source`` begins in the scalar's value.
    """

    source: str
    tree: Expr
    node: Scalar = attrs.field(eq=False, repr=False)
    offset: int


@attrs.frozen(kw_only=True)
class Template:
    """A text with expressions in it.

    Attributes:
        parts: Texts and expressions in order.
    """

    parts: tuple[str | Expression, ...]

    @property
    def sole(self) -> Expression | None:
        """The expression, if the whole value is one: it keeps its type then."""
        if len(self.parts) == 1 and isinstance(self.parts[0], Expression):
            return self.parts[0]
        return None


Value: TypeAlias = (
    "str | int | float | bool | Template | tuple[Value, ...] | dict[str, Value] | None"
)
"""A JSON value with templates where texts may be."""


class TemplateInvalid(Exception):
    """An expression in a text cannot be read; the fault's places count in the scalar's value."""

    def __init__(self, faults: list[ExpressionFault]) -> None:
        super().__init__(faults[0].headline)
        self.faults = faults


def placeholders(text: str) -> Iterator[tuple[int, int, int, int]]:
    """``(start, source_start, source_end, end)`` of each ``${{ … }}``.

    Raises:
        TemplateInvalid: One is not closed.
    """
    at = 0
    while (start := text.find(OPEN, at)) >= 0:
        close = _closing(text, start + len(OPEN))
        if close < 0:
            fault = ExpressionFault(
                id="LS1204",
                headline="'${{' is not closed",
                start=start,
                end=start + len(OPEN),
                helps=("add '}}'",),
            )
            raise TemplateInvalid([fault])
        body = text[start + len(OPEN) : close]
        source_start = start + len(OPEN) + len(body) - len(body.lstrip())
        source_end = start + len(OPEN) + len(body.rstrip())
        yield start, source_start, max(source_start, source_end), close + len(CLOSE)
        at = close + len(CLOSE)


def _closing(text: str, at: int) -> int:
    """The index of the ``}}`` that ends an expression; those inside its texts do not count."""
    quote = ""
    while at < len(text):
        char = text[at]
        if quote:
            if char == "\\":
                at += 1
            elif char == quote:
                quote = ""
        elif char in "'\"":
            quote = char
        elif text.startswith(CLOSE, at):
            return at
        at += 1
    return -1


def parse_expression(node: Scalar, start: int, end: int) -> Expression:
    """The expression at ``start`` to ``end`` of a scalar's value.

    Raises:
        TemplateInvalid: It cannot be read.
    """
    source = node.text[start:end]
    try:
        tree = parse(source)
    except ExpressionInvalid as invalid:
        fault = invalid.fault
        moved = attrs.evolve(fault, start=fault.start + start, end=fault.end + start)
        raise TemplateInvalid([moved]) from invalid
    return Expression(source=source, tree=tree, node=node, offset=start)


def parse_template(node: Scalar) -> Template | str:
    """A scalar's value: its text, or a template if there is an expression in it.

    Raises:
        TemplateInvalid: With every expression that cannot be read.
    """
    if OPEN not in node.text:
        return node.text
    parts: list[str | Expression] = []
    faults: list[ExpressionFault] = []
    at = 0
    for start, source_start, source_end, end in placeholders(node.text):
        if start > at:
            parts.append(node.text[at:start])
        try:
            parts.append(parse_expression(node, source_start, source_end))
        except TemplateInvalid as invalid:
            faults += invalid.faults
        at = end
    if faults:
        raise TemplateInvalid(faults)
    if at < len(node.text):
        parts.append(node.text[at:])
    return Template(parts=tuple(parts))


def expressions_in(value: Value) -> Iterator[Expression]:
    """All expressions of a value."""
    match value:
        case Template():
            yield from (part for part in value.parts if isinstance(part, Expression))
        case tuple():
            for item in value:
                yield from expressions_in(item)
        case dict():
            for item in value.values():
                yield from expressions_in(item)
        case _:
            pass


def resolve(value: Value, scope: Scope) -> Json:
    """The value with its expressions evaluated; one that stands alone keeps its type.

    Raises:
        EvaluationFailed: An expression has no value, or null is put into a text.
    """
    match value:
        case Template():
            if value.sole is not None:
                return evaluate(value.sole.tree, scope)
            return "".join(_text_of(part, scope) for part in value.parts)
        case tuple():
            return [resolve(item, scope) for item in value]
        case dict():
            return resolve_each(value, scope)
        case _:
            return value


def resolve_each(values: Mapping[str, Value], scope: Scope) -> dict[str, Json]:
    """``resolve`` of each value."""
    return {name: resolve(value, scope) for name, value in values.items()}


def resolve_text(value: Template | str, scope: Scope) -> str:
    """The value as a text.

    Raises:
        EvaluationFailed: It has no form as a text.
    """
    if isinstance(value, str):
        return value
    return "".join(_text_of(part, scope) for part in value.parts)


def resolve_texts(values: Mapping[str, Template | str], scope: Scope) -> dict[str, str]:
    """``resolve_text`` of each value."""
    return {name: resolve_text(value, scope) for name, value in values.items()}


def _text_of(part: str | Expression, scope: Scope) -> str:
    if isinstance(part, str):
        return part
    try:
        return plain_text(evaluate(part.tree, scope))
    except ValueError as fault:
        raise EvaluationFailed(f"'{part.source}': {fault}", 0, len(part.source)) from fault
