"""What the checker knows about a value before the run."""

import enum
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import attrs

from linkspan.sdk.diagnostics import Span
from linkspan.workflows.expressions.faults import ExpressionFault

Json: TypeAlias = Any
"""A value of JSON types: what expressions read and give."""


class Kind(enum.Enum):
    """The kinds of values; the value of each is its name in messages."""

    TEXT = "text"
    NUMBER = "number"
    BOOL = "true/false"
    NULL = "null"
    LIST = "list"
    MAP = "mapping"
    ANY = "any value"


Explain = Callable[[str, int, int], ExpressionFault | None]


@attrs.frozen(kw_only=True)
class Type:
    """A kind, and what is known below it.

    Attributes:
        fields: Of a mapping: its keys and no others; None if any key may be there.
        item: Of a list: the type of its items.
        what: The mapping in words, for "'x' does not exist in …".
        declared: Where the value's type was written.
        explain: Asked about a name that is not in ``fields``, with the place of the whole path; a
            better fault than "does not exist", or None.
    """

    kind: Kind
    fields: "Mapping[str, Type] | None" = None
    item: "Type | None" = None
    what: str = ""
    declared: Span | None = attrs.field(default=None, eq=False)
    explain: Explain | None = attrs.field(default=None, eq=False, repr=False)


ANY = Type(kind=Kind.ANY)
TEXT = Type(kind=Kind.TEXT)
NUMBER = Type(kind=Kind.NUMBER)
BOOL = Type(kind=Kind.BOOL)
NULL = Type(kind=Kind.NULL)
LIST = Type(kind=Kind.LIST, item=ANY)
MAP = Type(kind=Kind.MAP)


def of_value(value: object) -> Type:
    """The type of a JSON value."""
    match value:
        case None:
            return NULL
        case bool():
            return BOOL
        case int() | float():
            return NUMBER
        case str():
            return TEXT
        case list() | tuple():
            return LIST
        case Mapping():
            return MAP
        case _:
            return ANY


def unify(one: Type, other: Type) -> Type:
    """The type of a value that is one or the other."""
    if one.kind is other.kind:
        return one if one == other else Type(kind=one.kind, item=ANY)
    if one.kind is Kind.NULL:
        return other
    if other.kind is Kind.NULL:
        return one
    return ANY
