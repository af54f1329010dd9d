"""Quantities as people write them: ``64m``, ``512Mi``, ``1.5s``, ``1h30m``.

Disk and network are decimal where shown, memory is binary, as in Docker.
"""

from __future__ import annotations

from linkspan.sdk.errors import InvalidArgument

_SIZE = r"([0-9]+(?:\.[0-9]+)?)\s*([kmgtp]?)(i?b?)"
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_DURATION = r"([0-9]+(?:\.[0-9]+)?)(ns|us|µs|ms|s|m|h|d)"
_SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}


def parse_size(text: str) -> int:
    """Bytes of ``64m``, ``512Mi``, ``2GB`` or ``1024``; every unit is a power of 1024, as in Docker.

    Raises:
        InvalidArgument: The text is not a size.
    """
    import re  # takes longer than a command that only shows sizes may

    match = re.fullmatch(_SIZE, text.strip(), re.IGNORECASE)
    if match is None:
        raise InvalidArgument(f"invalid size: '{text}'", help="write 512m, 2g or a number of bytes")
    number, unit, _ = match.groups()
    return int(float(number) * 1024 ** _POWER[unit.lower()])


def parse_duration(text: str) -> float:
    """Seconds of ``300ms``, ``1.5s``, ``1h30m``; ``0`` is allowed bare, other bare numbers are not.

    Raises:
        InvalidArgument: The text is not a duration.
    """
    stripped = text.strip()
    if stripped == "0":
        return 0.0
    import re

    part = re.compile(_DURATION)
    total, at = 0.0, 0
    while at < len(stripped):
        match = part.match(stripped, at)
        if match is None:
            raise InvalidArgument(f"invalid duration: '{text}'", help="write 300ms, 10s or 1h30m")
        total += float(match[1]) * _SECONDS[match[2]]
        at = match.end()
    if at == 0:
        raise InvalidArgument("invalid duration: ''", help="write 300ms, 10s or 1h30m")
    return total


def format_duration(seconds: float) -> str:
    """``38ms``, ``3.1s``, ``1m04s``, ``2h05m``, ``3d``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}s"
    if seconds < 3600:
        return f"{int(seconds // 60)}m{int(seconds % 60):02d}s"
    if seconds < 86400:
        return f"{int(seconds // 3600)}h{int(seconds % 3600 // 60):02d}m"
    return f"{int(seconds // 86400)}d"


def go_duration(seconds: float) -> str:
    """As Go prints a duration: ``200ms``, ``1.5s``, ``1m30s``, ``1h0m0s``."""
    if seconds < 1:
        for name, unit in (("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)):
            if seconds >= unit:
                return f"{round(seconds / unit, 6):.15g}{name}"
        return "0s"
    minutes, rest = divmod(round(seconds, 9), 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{round(rest, 9):.15g}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def human_duration(seconds: float) -> str:
    """``About an hour``, ``3 days``: the words of go-units' HumanDuration, which clients parse."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{hours // 24 // 365} years"


def format_size(count: float, digits: int = 3) -> str:
    """Decimal, three digits as in Docker: ``141MB``, ``1.02kB``, ``0B``."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if value < 1000 or unit == "PB":
            whole = value >= 1000 - 5 * 10.0 ** (2 - digits)
            return f"{value:.0f}{unit}" if whole else f"{value:.{digits}g}{unit}"
        value /= 1000
    raise AssertionError


def counted(number: int, noun: str, *, none: str = "0") -> str:
    """``1 file``, ``3 files``; for none of them what is said instead of the number, like ``no``."""
    return f"1 {noun}" if number == 1 else f"{number or none} {noun}s"
