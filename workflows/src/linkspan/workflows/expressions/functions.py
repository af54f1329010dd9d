"""The functions an expression may call."""

import fnmatch
import json
import re
from collections.abc import Callable
from typing import Any, Final

import attrs

from linkspan.workflows.expressions.types import ANY, BOOL, TEXT, Json, Kind, Type

MAX_TEXT: Final = 1024 * 1024
"""Characters that one function may return; outputs have the same limit."""


@attrs.frozen(kw_only=True)
class Function:
    """A function's signature and what it does.

    Attributes:
        takes: Accepted kinds of each argument.
        optional: How many of the last arguments may be missing.
        variadic: The last argument may be repeated, or be missing.
        call: Gets the values; raises ValueError for those it cannot take.
    """

    takes: tuple[frozenset[Kind], ...]
    returns: Type
    call: Callable[..., Any]
    optional: int = 0
    variadic: bool = False

    def arity(self) -> str:
        """``2 arguments``, ``1 or more arguments``."""
        least, most = self.bounds()
        if most is None:
            return f"{least} or more arguments"
        if least != most:
            return f"{least} to {most} arguments"
        return "no arguments" if most == 0 else "1 argument" if most == 1 else f"{most} arguments"

    def bounds(self) -> tuple[int, int | None]:
        """Least and most arguments; None for no limit."""
        if self.variadic:
            return len(self.takes) - 1, None
        return len(self.takes) - self.optional, len(self.takes)

    def kinds_at(self, position: int) -> frozenset[Kind]:
        """The kinds that the argument at a position may have."""
        return self.takes[min(position, len(self.takes) - 1)]


_TEXT = frozenset({Kind.TEXT})
_LIST = frozenset({Kind.LIST})
_HOLDER = frozenset({Kind.TEXT, Kind.LIST})
_PLAIN = frozenset({Kind.TEXT, Kind.NUMBER, Kind.BOOL})
_ANYTHING = frozenset(Kind)
_FIELD = re.compile(r"\{\{|\}\}|\{(\d+)\}|[{}]")


def plain_text(value: object) -> str:
    """A value as it is put into a text.

    Raises:
        ValueError: null, a list or a mapping has no such form.
    """
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case int():
            return str(value)
        case float():
            return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
        case None:
            raise ValueError("null cannot be put into a text; use default(value, 'text')")
        case list() | tuple():
            raise ValueError(
                "a list cannot be put into a text; use join(list, ',') or to_json(list)"
            )
        case _:
            raise ValueError("a mapping cannot be put into a text; use to_json(value)")


def _limited(text: str) -> str:
    if len(text) > MAX_TEXT:
        raise ValueError(f"the text would have more than {MAX_TEXT} characters")
    return text


def _contains(holder: str | list[Json], item: Json) -> bool:
    if isinstance(holder, str):
        if not isinstance(item, str):
            raise ValueError(  # noqa: TRY004 - all faults of values are one kind here
                "a text can contain a text only"
            )
        return item in holder
    return any(same(item, each) for each in holder)


def same(one: object, other: object) -> bool:
    """Equality without casts: ``1 == true`` is false here, unlike in Python."""
    if isinstance(one, bool) is not isinstance(other, bool):
        return False
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other


def _format(template: str, *values: object) -> str:
    def fill(match: re.Match[str]) -> str:
        if match[0] in {"{{", "}}"}:
            return match[0][0]
        if match[1] is None:
            raise ValueError(f"a single '{match[0]}' in format(); write it twice")
        if int(match[1]) >= len(values):
            raise ValueError(f"format() has no value for {match[0]}")
        return plain_text(values[int(match[1])])

    return _limited(_FIELD.sub(fill, template))


def _from_json(text: str) -> Json:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise ValueError(f"the text is not JSON: {fault}") from fault


FUNCTIONS: Final[dict[str, Function]] = {
    "contains": Function(takes=(_HOLDER, _ANYTHING), returns=BOOL, call=_contains),
    "starts_with": Function(takes=(_TEXT, _TEXT), returns=BOOL, call=str.startswith),
    "ends_with": Function(takes=(_TEXT, _TEXT), returns=BOOL, call=str.endswith),
    "glob": Function(takes=(_TEXT, _TEXT), returns=BOOL, call=fnmatch.fnmatchcase),
    "format": Function(takes=(_TEXT, _PLAIN), returns=TEXT, call=_format, variadic=True),
    "join": Function(
        takes=(_LIST, _TEXT),
        returns=TEXT,
        call=lambda items, by=",": _limited(by.join(plain_text(item) for item in items)),
        optional=1,
    ),
    "default": Function(
        takes=(_ANYTHING, _ANYTHING),
        returns=ANY,
        call=lambda value, fallback: fallback if value is None else value,
    ),
    "to_json": Function(
        takes=(_ANYTHING,),
        returns=TEXT,
        call=lambda value: _limited(json.dumps(value, separators=(",", ":"), ensure_ascii=False)),
    ),
    "from_json": Function(takes=(_TEXT,), returns=ANY, call=_from_json),
}
"""Functions of values alone. ``default`` is typed by the checker."""

STATUS_FUNCTIONS: Final = frozenset({"success", "failure", "always", "cancelled"})
"""Functions of how the run stands; a condition that calls one decides for itself about failures."""

RUN_FUNCTIONS: Final = frozenset({"hash_files", "digest"})
"""Functions of what is on disk or in the engine; a run answers them (``Scope.call``)."""

FUNCTIONS["hash_files"] = Function(takes=(_TEXT, _TEXT), returns=TEXT, call=str, variadic=True)
FUNCTIONS["digest"] = Function(takes=(_TEXT,), returns=TEXT, call=str)
for _name in STATUS_FUNCTIONS:
    # Answered by the evaluator, which knows the run; listed here for their signature.
    FUNCTIONS[_name] = Function(takes=(), returns=BOOL, call=bool)
