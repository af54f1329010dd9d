"""Versions and ranges of them: ``^2``, ``~1.4``, ``>=1.2,<2``, ``1.4``."""

import re
from typing import Final

_VERSION = re.compile(r"v?(\d{1,9}(?:\.\d{1,9}){0,3})((?:[-.+]?[A-Za-z][\w.+-]*)?)")
_TERM = re.compile(r"(\^|~|>=|<=|>|<|==|=|!=)?\s*(v?\d[\w.+-]*|\*)")
_PLACES: Final = 4

Version = tuple[tuple[int, ...], int]
"""Numbers, and 1 for a release or 0 for what comes before it (``2.0rc1``)."""


class RangeInvalid(ValueError):
    """The text is not a range of versions."""


def parse_version(text: str) -> Version:
    """A version that can be compared.

    Raises:
        RangeInvalid: It is none.
    """
    match = _VERSION.fullmatch(text.strip())
    if match is None:
        raise RangeInvalid(f"is not a version: '{text}'")
    numbers = tuple(int(part) for part in match[1].split("."))
    early = bool(match[2]) and not match[2].startswith(("+", ".post"))
    return _padded(numbers), 0 if early else 1


def _padded(numbers: tuple[int, ...]) -> tuple[int, ...]:
    return numbers + (0,) * (_PLACES - len(numbers))


class Range:
    """A range; all its terms, which commas join, must hold."""

    def __init__(self, text: str) -> None:
        """Read a range.

        Raises:
            RangeInvalid: In words that go on from "the version".
        """
        self.bounds: list[tuple[str, str]] = []
        for term in text.split(","):
            match = _TERM.fullmatch(term.strip())
            if match is None:
                raise RangeInvalid(f"is not a range: '{text}'")
            self.bounds += _bounds(match[1] or "", match[2].removeprefix("v"))

    def holds(self, version: str) -> bool:
        """Whether a version lies in it; a version that cannot be read lies in none."""
        try:
            have = parse_version(version)
        except RangeInvalid:
            return False
        return all(_compare(have, sign, parse_version(bound)) for sign, bound in self.bounds)

    def as_specifier(self) -> str:
        """As pip writes it: ``>=2,<3``."""
        return ",".join(f"{sign}{bound}" for sign, bound in self.bounds)


def _bounds(sign: str, text: str) -> list[tuple[str, str]]:
    if text == "*":
        if sign:
            raise RangeInvalid(f"is not a range: '{sign}*'")
        return []
    parse_version(text)
    numbers = [int(part) for part in re.match(r"[\d.]+", text)[0].strip(".").split(".")]  # type: ignore[index]
    match sign:
        case "^":
            # The first number that is not 0 may not change.
            place = next((i for i, number in enumerate(numbers) if number), len(numbers) - 1)
            return [(">=", text), ("<", _next(numbers[: place + 1]))]
        case "~":
            return [(">=", text), ("<", _next(numbers[:2]))]
        case "":
            # `1.4` is every 1.4.x.
            return [(">=", text), ("<", _next(numbers))]
        case "=":
            return [("==", text)]
        case _:
            return [(sign, text)]


def _next(numbers: list[int]) -> str:
    return ".".join(str(number) for number in [*numbers[:-1], numbers[-1] + 1])


def _compare(have: Version, sign: str, bound: Version) -> bool:
    match sign:
        case ">=":
            return have >= bound
        case "<=":
            return have <= bound
        case ">":
            return have > bound
        case "<":
            # 3.0rc1 is not a 2.x: what comes before a bound's release is left out with it.
            return have < bound and have[0] != bound[0]
        case "!=":
            return have != bound
        case _:
            return have == bound
