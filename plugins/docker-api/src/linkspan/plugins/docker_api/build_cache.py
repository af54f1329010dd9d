"""The build cache in Docker's words: rows of ``system df``, and what ``builder prune`` asks for."""

from typing import Any

from linkspan.plugins.docker_api.filters import Filters, parse_time, read_filters
from linkspan.sdk.clock import rfc3339
from linkspan.sdk.drivers.builder import CacheEntry, PruneRequest
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.http import Request

_FILTERS = (
    *("until", "unused-for", "id", "parent", "type", "description", "inuse", "shared", "private"),
)


def encode_entry(entry: CacheEntry) -> dict[str, Any]:
    """API ``BuildCache``."""
    return {
        "ID": entry.id,
        "Parents": [entry.parent] if entry.parent else None,
        "Type": entry.kind,
        "Description": entry.description,
        "InUse": entry.in_use,
        "Shared": entry.shared,
        "Size": entry.size_bytes,
        "CreatedAt": rfc3339(int(entry.created_at * 1e9)),
        "LastUsedAt": rfc3339(int(entry.used_at * 1e9)) if entry.used_at else None,
        "UsageCount": entry.uses,
    }


def decode_prune(request: Request) -> PruneRequest:
    """The parameters of ``POST /build/prune``.

    Without ``all``, what images have, too, is kept: forgetting it frees nothing and costs time later.

    Raises:
        InvalidArgument: A filter is unknown or malformed, a limit is no number.
    """
    try:
        # `docker system prune` sends labels, too; Docker takes them here and heeds them no more than this.
        filters = read_filters(request, (*_FILTERS, "label", "label!"))
        newest = _newest(filters)
    except InvalidArgument as error:
        raise error.within("failed to prune build cache") from error
    everything = request.flag("all") or "shared" in filters

    def wants(entry: CacheEntry) -> bool:
        if entry.shared and not everything:
            return False
        return entry.used_at < newest and _matches(filters, entry)

    return PruneRequest(
        wants=wants,
        keep_bytes=request.number("reserved-space", 0) or request.number("keep-storage", 0),
        max_used_bytes=request.number("max-used-space", 0) or None,
        min_free_bytes=request.number("min-free-space", 0) or None,
    )


def _newest(filters: Filters) -> float:
    """Seconds since the epoch: what was used since then stays. The two filters say the same."""
    given = [(key, value) for key in ("until", "unused-for") for value in filters.all(key)]
    if not given:
        return float("inf")
    if len(given) > 1:
        raise InvalidArgument("filters expect only one value", code="invalid_filter")
    ((key, value),) = given
    try:
        return parse_time(value)
    except InvalidArgument as error:
        raise error.within(
            f"\"{key}\" filter expects a duration (e.g., '24h') or a timestamp"
        ) from error


def _matches(filters: Filters, entry: CacheEntry) -> bool:
    flags = (("inuse", entry.in_use), ("shared", entry.shared), ("private", not entry.shared))
    if any(filters.flag(name) not in (None, value) for name, value in flags):
        return False
    return (
        filters.prefix("id", entry.id)
        and filters.prefix("parent", entry.parent)
        and filters.among("type", entry.kind)
        and filters.pattern("description", entry.description)
    )
