"""Times as the API writes them: RFC 3339, seconds, and "3 hours ago"."""

from datetime import UTC, datetime

NEVER = "0001-01-01T00:00:00Z"
"""Go's zero time: what Docker says instead of nothing."""


def or_never(text: str) -> str:
    """A time, or Go's zero time if there is none."""
    return text or NEVER


def epoch_s(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time; 0 if there is none or it cannot be read."""
    if not text or text == NEVER:
        return 0.0
    try:
        # fromisoformat takes at most six digits of a fraction; the rest is below what we show.
        head, dot, tail = text.partition(".")
        if dot:
            digits = len(tail) - len(tail.lstrip("0123456789"))
            text = f"{head}.{tail[:digits][:6]}{tail[digits:]}"
        moment = datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


def now_s() -> float:
    """Seconds since the epoch."""
    return datetime.now(UTC).timestamp()


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
