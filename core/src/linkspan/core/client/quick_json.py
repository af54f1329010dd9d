"""``json.loads`` for commands that have no time to import json, whose decoder brings regular expressions."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Options:
    """What the scanner asks of a decoder: all as ``json.loads`` has it."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float
    memo: dict[str, str] = {}  # noqa: RUF012 - the scanner has its own; this one is for the other kind


def loads(body: bytes) -> Any:
    """Parse a document in UTF-8.

    The scanner that does json's work is CPython's and stands in no documentation, so whatever it does not
    take is given to json, which says also what is wrong.

    Raises:
        ValueError: It is none.
    """
    try:
        from _json import make_scanner

        options: Any = _Options
        text = body.decode().strip(" \t\r\n")
        found, end = make_scanner(options)(text, 0)
        if end == len(text):
            return found
    except (ImportError, AttributeError, TypeError, ValueError, StopIteration):
        pass
    import json

    return json.loads(body)
