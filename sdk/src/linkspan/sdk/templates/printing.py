"""Values as Go's ``fmt`` writes them: ``print``, ``printf`` and what an action leaves."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from linkspan.sdk.templates.lexing import quoted

NIL: Final = "<nil>"
NO_VALUE: Final = "<no value>"
_VERB: Final = re.compile(
    r"%(?P<flags>[-+# 0]*)(?:\[(?P<of_width>\d+)\])?(?P<width>\d+|\*)?"
    r"(?:\.(?:\[(?P<of_precision>\d+)\])?(?P<precision>\d+|\*)?)?(?:\[(?P<of>\d+)\])?(?P<verb>.)?",
    re.DOTALL,
)
_BASES: Final = {"b": "b", "o": "o", "O": "o", "x": "x", "X": "X", "d": "d"}
_PREFIXES: Final = {"b": "0b", "o": "0", "O": "0o", "x": "0x", "X": "0X"}


class NilPointer:
    """A pointer of Go's that points to nothing: false, ``<nil>``, null in JSON, and without fields."""

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return NIL

    def as_json(self) -> str:
        """As Go writes it."""
        return "null"


def type_name(value: Any) -> str:
    """Go's name of a value's type."""
    match value:
        case None | NilPointer():
            return "nil"
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float64"
        case str():
            return "string"
        case Mapping():
            return "map[string]interface {}"
        case Sequence():
            return "[]interface {}"
        case _:
            return type(value).__name__


def float_text(value: float, letter: str = "e") -> str:
    """A float as ``%v``: as short as it stays itself, with an exponent below 1e-4 and from 1e6 on."""
    from decimal import Decimal  # few templates have a fraction to show

    if value != value or value in (float("inf"), float("-inf")):
        return {"inf": "+Inf", "-inf": "-Inf"}.get(str(value), "NaN")
    sign, figures, exponent = Decimal(repr(value)).as_tuple()
    digits = "".join(map(str, figures)).lstrip("0")
    power = len(digits) - 1 + int(exponent)
    digits = digits.rstrip("0")
    minus = "-" if sign else ""
    if not digits:
        return f"{minus}0"
    if not -4 <= power < 6:
        return f"{minus}{_scientific(digits, power, letter)}"
    if power < 0:
        return f"{minus}0.{'0' * (-power - 1)}{digits}"
    if len(digits) <= power + 1:
        return f"{minus}{digits.ljust(power + 1, '0')}"
    return f"{minus}{digits[: power + 1]}.{digits[power + 1 :]}"


def _scientific(digits: str, power: int, letter: str) -> str:
    rest = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{rest}{letter}{'-' if power < 0 else '+'}{abs(power):02d}"


def text_of(value: Any) -> str:
    """A value as Go prints it with ``%v``."""
    match value:
        case str():
            return value
        case None:
            return NIL
        case bool():
            return "true" if value else "false"
        case float():
            return float_text(value)
        case Mapping() | Sequence():
            return _joined(value, text_of)
        case _:
            return str(value)


def has_fields(value: Mapping[str, Any]) -> bool:
    """Whether a mapping stands for a Go struct, not for a map: by its keys."""
    return bool(value) and all(key[:1].isupper() for key in value)


def _joined(value: Mapping[str, Any] | Sequence[Any], write: Callable[[Any], str]) -> str:
    """``map[a:1 b:2]``, ``{1 2}`` of a struct, ``[1 2]``."""
    if not isinstance(value, Mapping):
        return f"[{' '.join(map(write, value))}]"
    if has_fields(value):
        return f"{{{' '.join(write(item) for item in value.values() if not callable(item))}}}"
    return f"map[{' '.join(f'{write(k)}:{write(v)}' for k, v in sorted(value.items()))}]"


def sprint(*values: Any) -> str:
    """Go's Sprint: a space between two neighbours of which neither is a text."""
    out = ""
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            out += " "
        out += text_of(value)
    return out


def sprintln(*values: Any) -> str:
    """Go's Sprintln."""
    return " ".join(map(text_of, values)) + "\n"


def sprintf(pattern: str, *values: Any) -> str:
    """Go's Sprintf."""
    return _Printf(values).run(pattern)


class _Printf:
    def __init__(self, values: Sequence[Any]) -> None:
        self._values = values
        self._next = 0
        self._jumped = False

    def run(self, pattern: str) -> str:
        """Fill the pattern; what is left over is told at its end, as in Go."""
        out = _VERB.sub(self._one, pattern)
        rest = self._values[self._next :]
        if rest and not self._jumped:
            told = (NIL if v is None else f"{type_name(v)}={text_of(v)}" for v in rest)
            out += f"%!(EXTRA {', '.join(told)})"
        return out

    def _one(self, match: re.Match[str]) -> str:
        flags, verb = match["flags"], match["verb"]
        self._go_to(match["of_width"])
        width = self._number(match["width"])
        self._go_to(match["of_precision"])
        precision = self._number(match["precision"])
        if precision is None and "." in match[0]:
            precision = 0
        self._go_to(match["of"])
        if verb is None:
            return "%!(NOVERB)"
        if verb == "%":
            return "%"
        if self._next >= len(self._values):
            return f"%!{verb}({'BADINDEX' if self._jumped else 'MISSING'})"
        value = self._values[self._next]
        self._next += 1
        if width is not None and width < 0:
            flags, width = flags + "-", -width
        return formatted(value, verb, flags, width or 0, precision)

    def _go_to(self, place: str | None) -> None:
        if place:
            self._jumped = True
            self._next = int(place) - 1 if int(place) else len(self._values)

    def _number(self, text: str | None) -> int | None:
        if text != "*":
            return int(text) if text else None
        found = self._values[self._next] if self._next < len(self._values) else None
        self._next += 1
        return found if isinstance(found, int) and abs(found) <= 1_000_000 else None


def formatted(value: Any, verb: str, flags: str, width: int, precision: int | None) -> str:
    """One value by one verb, as wide as it should be."""
    if isinstance(value, (Mapping, Sequence)) and not isinstance(value, str) and verb != "T":
        return _joined(value, lambda item: formatted(item, verb, flags, width, precision))
    text = _plain(value, verb, flags, precision)
    if "-" in flags:
        return text.ljust(width)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if "0" in flags and number and verb in "vdxXobOfFeEgG":
        return text.zfill(width)
    return text.rjust(width)


def _plain(value: Any, verb: str, flags: str, precision: int | None) -> str:
    if verb == "T":
        return NIL if value is None else type_name(value)
    if verb == "v" and not ("#" in flags and isinstance(value, str)):
        shown = text_of(value)
        positive = isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
        return f"+{shown}" if "+" in flags and positive else shown
    wrong = NIL if value is None else f"{type_name(value)}={text_of(value)}"
    text = _of_kind(value, verb, flags, precision)
    return f"%!{verb}({wrong})" if text is None else text


def _of_kind(value: Any, verb: str, flags: str, precision: int | None) -> str | None:
    """By a verb that is for this kind of value; None for any other."""
    match value:
        case bool():
            return text_of(value) if verb == "t" else None
        case str():
            return _of_text(value, verb, flags, precision)
        case int():
            return _of_int(value, verb, flags, precision)
        case float():
            return _of_float(value, verb, flags, precision)
        case _:
            return None


def _of_text(value: str, verb: str, flags: str, precision: int | None) -> str | None:
    cut = value if precision is None else value[:precision]
    if verb == "s":
        return cut
    if verb in "qv":
        return f"`{cut}`" if "#" in flags and verb == "q" and "`" not in cut else quoted(cut)
    if verb in "xX":
        raw = value.encode("utf-8", "surrogatepass")[:precision]
        text = raw.hex(" ") if " " in flags else raw.hex()
        text = ("0x" if "#" in flags and value else "") + text
        return text.upper() if verb == "X" else text
    return None


def _of_int(value: int, verb: str, flags: str, precision: int | None) -> str | None:
    if verb in _BASES:
        digits = f"{abs(value):{_BASES[verb]}}".rjust(precision or 0, "0")
        prefix = _PREFIXES.get(verb, "") if "#" in flags or verb == "O" else ""
        return f"{_sign(value, flags)}{prefix}{digits}"
    if verb == "U":
        return f"U+{value:04X}"
    if verb in "cq":
        char = chr(value) if 0 <= value < 0x110000 else "\ufffd"
        return char if verb == "c" else f"'{quoted(char)[1:-1]}'"
    return None


def _sign(value: float, flags: str) -> str:
    if value < 0:
        return "-"
    return "+" if "+" in flags else " " if " " in flags else ""


def _of_float(value: float, verb: str, flags: str, precision: int | None) -> str | None:
    if verb in "fFeE":
        text = f"{abs(value):.{6 if precision is None else precision}{verb}}"
    elif verb in "gG":
        letter = "e" if verb == "g" else "E"
        text = f"{abs(value):.{precision or 1}{verb}}"
        if precision is None:
            text = float_text(abs(value), letter)
    elif verb in "xX":
        text = _hexadecimal(abs(value), upper=verb == "X")
    else:
        return None
    return f"{_sign(value, flags)}{text}"


def _hexadecimal(value: float, *, upper: bool) -> str:
    mantissa, _, power = value.hex().partition("p")
    whole, _, fraction = mantissa.partition(".")
    fraction = fraction.rstrip("0")
    text = f"{whole}{'.' + fraction if fraction else ''}p{power[0]}{power[1:]:0>2}"
    return text.upper() if upper else text
