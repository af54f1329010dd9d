"""Cron's five fields: ``0 3 * * 1-5``, and the names ``@daily`` and so on."""

import re
from collections.abc import Mapping
from typing import Final

import attrs

_MONTHS: Final = [
    "jan",
    "feb",
    "mar",
    "apr",
    "may",
    "jun",
    "jul",
    "aug",
    "sep",
    "oct",
    "nov",
    "dec",
]
_DAYS: Final = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_NAMED: Final[Mapping[str, str]] = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS: Final = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, tuple(_MONTHS)),
    ("day of the week", 0, 7, tuple(_DAYS)),
)
_PART = re.compile(r"(\*|[A-Za-z0-9]+)(?:-([A-Za-z0-9]+))?(?:/([0-9]+))?")
_LONGEST_MONTH: Final = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}


class CronInvalid(ValueError):
    """The text is not a schedule."""


@attrs.frozen(kw_only=True)
class Cron:
    """When a schedule is due; every set holds the numbers that match.

    Attributes:
        weekdays: 0 is Sunday.
        any_day, any_weekday: Whether that field begins with ``*``. If neither does, a day matches when
            either matches, as in every cron.
    """

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool
    any_weekday: bool

    def on_day(self, month: int, day: int, weekday: int) -> bool:
        """Whether it is due on a day; ``weekday`` 0 is Sunday."""
        if month not in self.months:
            return False
        by_day, by_weekday = day in self.days, weekday in self.weekdays
        if self.any_day or self.any_weekday:
            return by_day and by_weekday
        return by_day or by_weekday


def parse_cron(text: str) -> Cron:
    """Read a schedule.

    Raises:
        CronInvalid: With what is wrong, in words that go on from "the schedule".
    """
    words = _NAMED.get(text.strip().lower(), text).split()
    if text.strip().startswith("@") and len(words) == 1:
        raise CronInvalid(f"has no name '{text.strip()}'; there are {', '.join(_NAMED)}")
    if len(words) != len(_FIELDS):
        raise CronInvalid(
            f"has {len(words)} fields; there are 5: minute, hour, day, month, day of the week"
        )
    minutes, hours, days, months, weekdays = (
        _field(word, *spec) for word, spec in zip(words, _FIELDS, strict=True)
    )
    cron = Cron(
        minutes=minutes,
        hours=hours,
        days=days,
        months=months,
        weekdays=frozenset(day % 7 for day in weekdays),
        any_day=words[2].startswith("*"),
        any_weekday=words[4].startswith("*"),
    )
    longest = max(_LONGEST_MONTH.get(month, 31) for month in months)
    if cron.any_weekday and min(days) > longest:
        raise CronInvalid(f"is never due: none of its months has a day {min(days)}")
    return cron


def _field(text: str, what: str, low: int, high: int, names: tuple[str, ...]) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise CronInvalid(f"has '{part}' as its {what}")
        begin, end, step = match.groups()
        if begin == "*":
            if end is not None:
                raise CronInvalid(f"has '{part}' as its {what}")
            first, last = low, high
        else:
            first = _number(begin, what, low, high, names)
            last = _number(end, what, low, high, names) if end else (high if step else first)
        if step is not None and (len(step) > 3 or int(step) == 0):
            raise CronInvalid(f"has a step of {step} in its {what}")
        if last < first:
            raise CronInvalid(f"has a range in its {what} that ends before it begins: '{part}'")
        found.update(range(first, last + 1, int(step or 1)))
    return frozenset(found)


def _number(text: str, what: str, low: int, high: int, names: tuple[str, ...]) -> int:
    if text.lower() in names:
        return names.index(text.lower()) + (1 if low == 1 else 0)
    if not text.isdecimal() or len(text) > 3 or not low <= int(text) <= high:
        raise CronInvalid(f"has {text} as its {what}; that is {low} to {high}")
    return int(text)
