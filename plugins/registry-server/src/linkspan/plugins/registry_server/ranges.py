"""``Range`` and ``Content-Range``; pure."""

import re

from linkspan.plugins.registry_server.refusal import RefusalError

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_CONTENT_RANGE = re.compile(r"(?:bytes )?(\d{1,18})-(\d{1,18})(?:/(?:\d+|\*))?")


def parse_range(text: str | None, size: int) -> tuple[int, int] | None:
    """Start and end (exclusive) of a ``Range``; None means the whole (RFC 9110 section 14.2).

    Several ranges, and other units, are answered with the whole, as the RFC allows.

    Raises:
        RefusalError: 416: it begins behind the end, or ends before its beginning.
    """
    match = _RANGE.fullmatch(text.strip()) if text else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start = int(first)
        end = min(int(last) + 1, size) if last else size
    if start >= size or end <= start:
        raise RefusalError(
            416,
            "SIZE_INVALID",
            "the range is not inside the blob",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, end


def parse_content_range(text: str) -> tuple[int, int]:
    """Start and length of a chunk: ``0-499`` (spec.md) or ``bytes 0-499/*``. 400 otherwise."""
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match is None or int(match[2]) < int(match[1]):
        raise RefusalError(400, "BLOB_UPLOAD_INVALID", f"invalid Content-Range: {text[:100]}")
    return int(match[1]), int(match[2]) - int(match[1]) + 1
