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
        flags: ``secret`` for what must not be shown, ``untrusted`` for what a stranger may have written,
            ``derived`` for what a script has made of that; whatever is made of a flagged value carries its flags.
        explain: Asked about a name that is not in ``fields``, with the place of the whole path; a
            better fault than "does not exist", or None.
    """

    kind: Kind
    fields: "Mapping[str, Type] | None" = None
    item: "Type | None" = None
    what: str = ""
    declared: Span | None = attrs.field(default=None, eq=False)
    flags: frozenset[str] = frozenset()
    explain: Explain | None = attrs.field(default=None, eq=False, repr=False)


NO_FLAGS: frozenset[str] = frozenset()
SECRET = frozenset({"secret"})
UNTRUSTED = frozenset({"untrusted"})
DERIVED = frozenset({"derived"})

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


def flagged(found: Type, flags: frozenset[str]) -> Type:
    """The type with more flags."""
    return found if flags <= found.flags else attrs.evolve(found, flags=found.flags | flags)


def unify(one: Type, other: Type) -> Type:
    """The type of a value that is one or the other."""
    flags = one.flags | other.flags
    if one.kind is other.kind:
        return flagged(one, flags) if one == other else Type(kind=one.kind, item=ANY, flags=flags)
    if one.kind is Kind.NULL:
        return flagged(other, flags)
    if other.kind is Kind.NULL:
        return flagged(one, flags)
    return flagged(ANY, flags)
