"""When a schedule is due next, across days that have 23 or 25 hours."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from linkspan.workflows.cron import Cron

_MINUTE: Final = timedelta(minutes=1)
_DAYS: Final = 366 * 8 + 1
"""A 29th of February may be eight years away."""


def next_due(cron: Cron, timezone: str, after: datetime) -> datetime | None:
    """The first moment after ``after`` at which a schedule is due; in UTC, to the minute.

    A time of day that a day does not have is due right after the gap. One that a day has twice is due the
    first time only, unless every hour is named: then it is due in both hours.

    Args:
        cron: The schedule.
        timezone: IANA name.
        after: With a time zone.

    Returns:
        None if there is none in the next eight years.
    """
    zone = ZoneInfo(timezone)
    start = after.astimezone(zone)
    day = datetime(start.year, start.month, start.day)
    for _ in range(_DAYS):
        if cron.on_day(day.month, day.day, (day.weekday() + 1) % 7):
            for moment in _moments(cron, zone, day):
                if moment > after:
                    return moment
        day += timedelta(days=1)
    return None


def _moments(cron: Cron, zone: ZoneInfo, day: datetime) -> Iterator[datetime]:
    """The moments of one day, in order."""
    if len(cron.hours) == 24:
        yield from _by_the_minute(cron, zone, day)
        return
    for hour in sorted(cron.hours):
        for minute in sorted(cron.minutes):
            local = day.replace(hour=hour, minute=minute)
            yield _real(local, zone)


def _by_the_minute(cron: Cron, zone: ZoneInfo, day: datetime) -> Iterator[datetime]:
    """Each minute that the day really has."""
    moment = day.replace(tzinfo=zone).astimezone(UTC)
    end = (day + timedelta(days=1)).replace(tzinfo=zone).astimezone(UTC)
    while moment < end:
        if moment.astimezone(zone).minute in cron.minutes:
            yield moment
        moment += _MINUTE


def _real(local: datetime, zone: ZoneInfo) -> datetime:
    """The moment of a local time; the first of two, the end of the gap if there is none."""
    moment = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None) == local:
        return moment
    # The clock jumps over it. Before the jump the offset is that of fold 0; the jump is where it changes.
    low, high = moment - timedelta(hours=4), moment + timedelta(hours=4)
    before = low.astimezone(zone).utcoffset()
    while high - low > _MINUTE:
        middle = low + timedelta(minutes=(high - low) // _MINUTE // 2)
        if middle.astimezone(zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high
