"""The functions of templates: Go's own, and those that Docker adds."""

import html
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote_plus

_VERB: Final = re.compile(r"%([-+# 0]*)(\d+|\*)?(?:\.(\d+))?([a-zA-Z%])")


class TemplateError(ValueError):
    """The template cannot be read, or does not fit the data."""


def truth(value: Any) -> bool:
    """Whether a value counts as true: not zero, not empty (as in Go)."""
    return callable(value) or bool(value)


def text_of(value: Any) -> str:
    """A value as Go prints it."""
    match value:
        case None:
            return "<no value>"
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case float():
            return f"{value:.0f}" if value.is_integer() and abs(value) < 1e21 else repr(value)
        case Mapping():
            return "map[" + " ".join(f"{k}:{text_of(v)}" for k, v in sorted(value.items())) + "]"
        case Sequence():
            return "[" + " ".join(text_of(v) for v in value) + "]"
        case _:
            return str(value)


def _json(value: Any) -> str:
    if isinstance(value, Mapping):  # a record of a list has functions among its fields: .Label
        value = {key: item for key, item in value.items() if not callable(item)}
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else value[key]
    return value


def _slice(value: Any, *bounds: int) -> Any:
    if len(bounds) > 2:
        raise TemplateError("slice: takes a beginning and an end")
    begin = bounds[0] if bounds else 0
    end = bounds[1] if len(bounds) > 1 else len(value)
    if not 0 <= begin <= end <= len(value):
        raise TemplateError(f"slice: {begin}:{end} is not within 0:{len(value)}")
    return value[begin:end]


def _pad(value: Any, before: int, after: int) -> str:
    text = text_of(value)
    return " " * before + text + " " * after if text else text


def _truncate(value: Any, length: int) -> str:
    return text_of(value)[: int(length)]


def _print(*values: Any) -> str:
    """Go's Sprint: a space between two neighbours of which neither is a text."""
    out = ""
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            out += " "
        out += text_of(value)
    return out


def printf(pattern: str, *values: Any) -> str:
    """Go's Sprintf, for the verbs that fit the data of an API: s v d q t x X o b c f e g and %."""
    left = list(values)

    def fill(match: re.Match[str]) -> str:
        flags, width, precision, verb = match.groups()
        if verb == "%":
            return "%"
        if width == "*":
            width = str(left.pop(0)) if left else ""
        if not left:
            return f"%!{verb}(MISSING)"
        text = _formatted(left.pop(0), verb, flags, precision)
        if not width:
            return text
        if "-" in flags:
            return text.ljust(int(width))
        if "0" in flags and verb in "dxXobfeg":
            return text.zfill(int(width))
        return text.rjust(int(width))

    out = _VERB.sub(fill, pattern)
    if left:
        out += "%!(EXTRA " + ", ".join(f"{type(v).__name__}={text_of(v)}" for v in left) + ")"
    return out


def _formatted(value: Any, verb: str, flags: str, precision: str | None) -> str:
    wrong = f"%!{verb}({type(value).__name__}={text_of(value)})"
    if verb in "sv":
        text = text_of(value)
        return text[: int(precision)] if precision and verb == "s" else text
    if verb == "q":
        return json.dumps(text_of(value), ensure_ascii=False)
    if verb == "t":
        return text_of(value) if isinstance(value, bool) else wrong
    if verb in "xX" and isinstance(value, str):
        text = value.encode().hex()
        return text.upper() if verb == "X" else text
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return wrong
    plus = "+" if "+" in flags else ""
    if verb in "feg":
        return f"{float(value):{plus}.{precision or (6 if verb != 'g' else 17)}{verb}}"
    if verb == "c":
        return chr(int(value))
    return f"{int(value):{plus}{verb}}" if verb in "dxXob" else wrong


FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "json": _json,
    "upper": lambda v: text_of(v).upper(),
    "lower": lambda v: text_of(v).lower(),
    "title": lambda v: re.sub(r"\b[a-z]", lambda m: m[0].upper(), text_of(v)),
    "split": lambda v, sep: text_of(v).split(sep) if sep else list(text_of(v)),
    "join": lambda v, sep: sep.join(text_of(item) for item in v),
    "pad": _pad,
    "truncate": _truncate,
    "len": len,
    "index": _index,
    "slice": _slice,
    "print": _print,
    "println": lambda *v: " ".join(text_of(item) for item in v) + "\n",
    "printf": printf,
    "html": lambda *v: html.escape(_print(*v)),
    "js": lambda *v: json.dumps(_print(*v))[1:-1].replace("<", "\\u003C").replace(">", "\\u003E"),
    "urlquery": lambda *v: quote_plus(_print(*v)),
    "eq": lambda a, *b: a in b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "not": lambda v: not truth(v),
}
"""Name → function; ``and`` and ``or`` are the template's own, since they do not look at all arguments."""
