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
