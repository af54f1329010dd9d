"""Times as the API and our records write them."""

import re
import time
from datetime import UTC, datetime

_FRACTION = re.compile(r"\.(\d+)")


def rfc3339(time_ns: int | None = None) -> str:
    """``2026-11-24T08:00:00.123456789Z`` of now, or of nanoseconds since the epoch."""
    seconds, nanoseconds = divmod(time.time_ns() if time_ns is None else time_ns, 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z"


def epoch_ns(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time; 0 for an empty text."""
    if not text:
        return 0
    fraction = _FRACTION.search(text)
    whole = datetime.fromisoformat(_FRACTION.sub("", text)).astimezone(UTC)
    digits = fraction[1][:9].ljust(9, "0") if fraction else "0"
    return int(whole.timestamp()) * 10**9 + int(digits)
