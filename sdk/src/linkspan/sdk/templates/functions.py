"""The functions of templates: Go's own, and those that Docker adds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from linkspan.sdk.templates.lexing import TemplateError
from linkspan.sdk.templates.printing import sprint, sprintf, sprintln, text_of, type_name

_HTML: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;", "\0": "\ufffd"}
_JS: Final = {"\\": "\\\\", "'": "\\'", '"': '\\"'}
_JS_HEX: Final = "<>&="


class Function(NamedTuple):
    """A function and what it takes.

    Attributes:
        run: Does it.
        takes: A word each: ``string``, ``int``, ``[]string`` or ``any``; the last may be given any number
            of times if it ends in ``...``.
    """

    run: Callable[..., Any]
    takes: tuple[str, ...]


def truth(value: Any) -> bool:
    """Whether a value counts as true: not zero, not empty (as in Go)."""
    return callable(value) or bool(value)


def to_json(value: Any) -> str:
    """A value as JSON, as Go writes it; callables of a mapping are left out."""
    own = getattr(value, "as_json", None)
    if own is not None:
        return str(own())
    return json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return int(value)
    if isinstance(value, Mapping):
        items = [(key, _plain(item)) for key, item in value.items() if not callable(item)]
        # Go sorts its maps; the fields of a struct stay as they are.
        return dict(items if any(key[:1].isupper() for key, _ in items) else sorted(items))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(raw: bytes) -> str:
    """What is left of a text; half a character is dropped."""
    return raw.decode("utf-8", "ignore")


def _len(value: Any) -> int:
    if isinstance(value, str):
        return len(_raw(value))
    if isinstance(value, (Mapping, Sequence)):
        return len(value)
    if value is None:
        raise TemplateError("reflect: call of reflect.Value.Type on zero Value")
    raise TemplateError(f"len of type {type_name(value)}")


def _index(value: Any, *keys: Any) -> Any:
    if value is None:
        raise TemplateError("index of untyped nil")
    for key in keys:
        if value is None:
            raise TemplateError("index of nil pointer")
        if isinstance(value, Mapping):
            if not isinstance(key, str):
                raise TemplateError(f"value has type {type_name(key)}; should be string")
            # A Go map has the zero of its type: that of texts has "".
            value = value[key] if key in value else _zero(value)
        elif isinstance(value, (str, Sequence)):
            items = _raw(value) if isinstance(value, str) else value
            value = items[_place(key, len(items) - 1)]
        else:
            raise TemplateError(f"can't index item of type {type_name(value)}")
    return value


def _zero(of: Mapping[str, Any]) -> str | None:
    return "" if all(isinstance(item, str) for item in of.values()) else None


def _place(key: Any, last: int) -> int:
    if key is None:
        raise TemplateError("cannot index slice/array with nil")
    if isinstance(key, bool) or not isinstance(key, int):
        raise TemplateError(f"cannot index slice/array with type {type_name(key)}")
    if not 0 <= key <= last:
        raise TemplateError(f"index out of range: {key}")
    return key


def _slice(value: Any, *bounds: Any) -> Any:
    if value is None:
        raise TemplateError("slice of untyped nil")
    if len(bounds) > 3:
        raise TemplateError(f"too many slice indexes: {len(bounds)}")
    if isinstance(value, Mapping) or not isinstance(value, Sequence):
        raise TemplateError(f"can't slice item of type {type_name(value)}")
    if isinstance(value, str) and len(bounds) == 3:
        raise TemplateError("cannot 3-index slice a string")
    items = _raw(value) if isinstance(value, str) else value
    begin, end, *_ = [
        *(_place(bound, len(items)) for bound in bounds),
        *(0, len(items))[len(bounds) :],
        0,
    ]
    if begin > end:
        raise TemplateError(f"invalid slice index: {begin} > {end}")
    part = items[begin:end]
    return _text(part) if isinstance(part, bytes) else part


def _pad(value: str, before: int, after: int) -> str:
    return " " * before + value + " " * after if value else ""


def _truncate(value: str, length: int) -> str:
    if length < 0:
        raise TemplateError(f"runtime error: slice bounds out of range [:{length}]")
    return _text(_raw(value)[:length])


def _title(value: str) -> str:
    out, before = [], " "
    for char in value:
        starts = not (before.isalnum() or before == "_") and (before.isascii() or before.isspace())
        out.append(_single(char, str.title) if starts else char)
        before = char
    return "".join(out)


def _single(char: str, change: Callable[[str], str]) -> str:
    """Go changes the case of a letter only where the result is one letter too."""
    changed = change(char)
    return changed if len(changed) == 1 else char


def _cased(value: str, change: Callable[[str], str]) -> str:
    return change(value) if value.isascii() else "".join(_single(c, change) for c in value)


def _split(value: str, separator: str) -> list[str]:
    return value.split(separator) if separator else list(value)


def _html(*values: Any) -> str:
    return "".join(_HTML.get(char, char) for char in sprint(*values))


def _js(*values: Any) -> str:
    out = []
    for char in sprint(*values):
        if char in _JS:
            out.append(_JS[char])
        elif char in _JS_HEX or not char.isprintable():
            out.append(f"\\u{ord(char):04X}")
        else:
            out.append(char)
    return "".join(out)


def _urlquery(*values: Any) -> str:
    from urllib.parse import quote_plus  # takes longer to import than most templates to fill

    return quote_plus(sprint(*values))


def _kind(value: Any) -> str:
    """What can be compared with what: bool, int, float, string; else ""."""
    match value:
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float"
        case str():
            return "string"
        case _:
            return ""


def _eq(first: Any, *others: Any) -> bool:
    if not others:
        raise TemplateError("missing argument for comparison")
    for other in others:
        if _kind(first) != _kind(other) and first is not None and other is not None:
            raise TemplateError("incompatible types for comparison")
        if not _kind(first) and first is not None and other is not None:
            raise TemplateError(f"non-comparable type {text_of(first)}: {type_name(first)}")
        if first == other:
            return True
    return False


def _ordered(first: Any, second: Any, accept: Callable[[Any, Any], bool]) -> bool:
    kinds = _kind(first), _kind(second)
    if not all(kinds):
        raise TemplateError("invalid type for comparison")
    if kinds[0] != kinds[1]:
        raise TemplateError("incompatible types for comparison")
    if kinds[0] == "bool":
        raise TemplateError("invalid type for comparison")
    return accept(first, second)


def _call(function: Any, *arguments: Any) -> Any:
    if function is None:
        raise TemplateError("call of nil")
    if not callable(function):
        raise TemplateError(f"non-function of type {type_name(function)}")
    return function(*arguments)


FUNCTIONS: Final[dict[str, Function]] = {
    "json": Function(to_json, ("any",)),
    "upper": Function(lambda v: _cased(v, str.upper), ("string",)),
    "lower": Function(lambda v: _cased(v, str.lower), ("string",)),
    "title": Function(_title, ("string",)),
    "split": Function(_split, ("string", "string")),
    "join": Function(lambda items, separator: separator.join(items), ("[]string", "string")),
    "pad": Function(_pad, ("string", "int", "int")),
    "truncate": Function(_truncate, ("string", "int")),
    "and": Function(lambda *_: None, ("any", "any...")),
    "or": Function(lambda *_: None, ("any", "any...")),
    "not": Function(lambda v: not truth(v), ("any",)),
    "len": Function(_len, ("any",)),
    "index": Function(_index, ("any", "any...")),
    "slice": Function(_slice, ("any", "any...")),
    "call": Function(_call, ("any", "any...")),
    "print": Function(sprint, ("any...",)),
    "println": Function(sprintln, ("any...",)),
    "printf": Function(sprintf, ("string", "any...")),
    "html": Function(_html, ("any...",)),
    "js": Function(_js, ("any...",)),
    "urlquery": Function(_urlquery, ("any...",)),
    "eq": Function(_eq, ("any", "any...")),
    "ne": Function(lambda a, b: not _eq(a, b), ("any", "any")),
    "lt": Function(lambda a, b: _ordered(a, b, lambda x, y: x < y), ("any", "any")),
    "le": Function(lambda a, b: _ordered(a, b, lambda x, y: x <= y), ("any", "any")),
    "gt": Function(lambda a, b: _ordered(a, b, lambda x, y: x > y), ("any", "any")),
    "ge": Function(lambda a, b: _ordered(a, b, lambda x, y: x >= y), ("any", "any")),
}
"""Name → function. ``and`` and ``or`` are the template's own, since they do not look at all arguments."""
