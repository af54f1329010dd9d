"""When a request is tried again, and after how long; pure but for the dice."""

import random
import time
from email.utils import parsedate_to_datetime

import attrs

RETRYABLE_STATUSES = frozenset({408, 429, 500, 502, 503, 504})

_random = random.SystemRandom()


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How patient the client is; see ``DistributionConfig``."""

    attempts: int
    delay_s: float
    retry_after_limit_s: float

    def wait_s(self, attempt: int) -> float:
        """Seconds after the failed attempt (from 1): exponential, with jitter between half and whole.

        Without jitter all clients of a registry that comes back would knock at the same moment.
        """
        longest = min(self.delay_s * 2.0 ** (attempt - 1), 30.0)
        return float(longest * _random.uniform(0.5, 1.0))


def retry_after_s(value: str | None, *, now: float | None = None) -> float | None:
    """``Retry-After`` in seconds from now: a number or an HTTP date (RFC 9110 section 10.2.3)."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit() and len(text) <= 9:
        return float(text)
    try:
        moment = parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, moment - (time.time() if now is None else now))
