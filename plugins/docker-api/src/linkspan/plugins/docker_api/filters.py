"""The ``filters`` parameter: ``{"label": ["a", "b=c"]}``, or ``{"label": {"a": true}}`` as Go's client sends."""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

from linkspan.plugins.docker_api.document import parse_parameter
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.http import Request
from linkspan.sdk.units import parse_duration

_SECONDS = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_FAR_NS = 2**63 - 1
_TRUE = ("1", "true", "t")
_FALSE = ("0", "false", "f")


class Filters:
    """Parsed filters; a value matches if any of a key's values does, for all keys."""

    def __init__(self, values: Mapping[str, tuple[str, ...]]) -> None:
        self._values = values

    def __bool__(self) -> bool:
        return bool(self._values)

    def __contains__(self, key: str) -> bool:
        return bool(self._values.get(key))

    def all(self, key: str) -> tuple[str, ...]:
        """All values of a key."""
        return self._values.get(key, ())

    def also(self, key: str, value: str) -> "Filters":
        """These filters, and one value more of a key."""
        return Filters({**self._values, key: (*self.all(key), value)})

    def flag(self, key: str) -> bool | None:
        """A boolean filter; None if it is not given. Raises InvalidArgument."""
        values = {value.lower() for value in self.all(key)}
        if not values:
            return None
        if values <= set(_TRUE):
            return True
        if values <= set(_FALSE):
            return False
        raise _invalid(key, f"[{' '.join(self.all(key))}]")

    def among(self, key: str, *candidates: str) -> bool:
        """Not given, or one of the candidates is among its values."""
        return key not in self or any(value in candidates for value in self.all(key))

    def prefix(self, key: str, *candidates: str) -> bool:
        """Not given, or a candidate begins with one of its values."""
        return key not in self or any(
            candidate.startswith(value) for value in self.all(key) for candidate in candidates
        )

    def pattern(self, key: str, *candidates: str) -> bool:
        """Not given, or one of its values is found in a candidate as a regular expression."""
        return key not in self or any(
            found(candidate) for found in self.patterns(key) for candidate in candidates
        )

    def patterns(self, key: str) -> list[Callable[[str], object]]:
        """Search functions for a key's values; what is no regular expression is taken as it is."""
        out: list[Callable[[str], object]] = []
        for value in self.all(key):
            try:
                out.append(re.compile(value).search)
            except re.error:
                out.append(re.compile(re.escape(value)).search)
        return out

    def labels(self, labels: Mapping[str, str], key: str = "label") -> bool:
        """All wanted labels are there, and none of the unwanted (``label!``)."""
        return all(has_label(labels, wanted) for wanted in self.all(key)) and not any(
            has_label(labels, unwanted) for unwanted in self.all(f"{key}!")
        )

    def until_s(self) -> float | None:
        """Seconds since the epoch of ``until`` (a time or an age); None if it is not given."""
        values = self.all("until")
        if not values:
            return None
        if len(values) > 1:
            raise InvalidArgument("more than one until filter specified")
        return parse_time(values[0])


def _invalid(key: str, value: str = "") -> InvalidArgument:
    what = f"'{key}={value}'" if value else f"'{key}'"
    return InvalidArgument(f"invalid filter {what}", code="invalid_filter")


def no_number(key: str, value: str) -> InvalidArgument:
    """The error for a filter that takes a number."""
    return InvalidArgument(
        f"invalid filter '{key}={value}': strconv.Atoi: parsing \"{value}\": invalid syntax",
        code="invalid_filter",
    )


def has_label(labels: Mapping[str, str], wanted: str) -> bool:
    """``key`` or ``key=value``."""
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def read_filters(request: Request, accepted: Iterable[str]) -> Filters:
    """The request's filters.

    Raises:
        InvalidArgument: They are malformed, or one is unknown (Docker's text).
    """
    text = request.query.get("filters")
    if not text:
        return Filters({})
    try:
        parsed = parse_parameter("filters", text)
    except InvalidArgument as error:
        raise InvalidArgument(
            "invalid filter", code="invalid_filter", help=error.message
        ) from error
    if parsed is None:
        return Filters({})
    values: dict[str, tuple[str, ...]] = {}
    if not isinstance(parsed, dict):
        raise InvalidArgument("invalid filter", code="invalid_filter")
    for key, given in parsed.items():
        if isinstance(given, dict):
            found = tuple(value for value, wanted in given.items() if wanted)
        elif isinstance(given, list) and all(isinstance(v, str) for v in given):
            found = tuple(given)
        elif isinstance(given, str | bool):
            found = (given if isinstance(given, str) else str(given).lower(),)
        else:
            raise InvalidArgument("invalid filter", code="invalid_filter")
        values[key] = found
    allowed = frozenset(accepted)
    for key in values:
        if key not in allowed:
            raise _invalid(key)
    return Filters(values)


def parse_time(text: str) -> float:
    """Seconds since the epoch of ``1700000000.5``, RFC 3339 or an age such as ``10m``.

    Raises:
        InvalidArgument: It is none of them.
    """
    if _SECONDS.fullmatch(text):
        if abs(seconds := float(text)) >= 2**63:
            raise _no_time(text)
        return seconds
    try:
        return datetime.now(UTC).timestamp() - parse_duration(text)
    except InvalidArgument:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise _no_time(text) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


def parse_nanoseconds(text: str) -> int | None:
    """Nanoseconds of a ``since`` or ``until`` parameter (``1700000000.123456789``); None for 0 or empty.

    Raises:
        InvalidArgument: It is no time.
    """
    if not text:
        return None
    about_s = parse_time(text)
    if _SECONDS.fullmatch(text):
        seconds, _, fraction = text.partition(".")
        found = int(seconds) * 10**9 + int((fraction + "0" * 9)[:9])
    else:
        found = int(about_s * 1e9)
    # What 64 bits do not hold lies beyond all that is remembered.
    return max(-_FAR_NS, min(found, _FAR_NS)) or None


def _no_time(text: str) -> InvalidArgument:
    return InvalidArgument(
        f'failed to parse value as time or duration: "{text}"', code="invalid_time"
    )
