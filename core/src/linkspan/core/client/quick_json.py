"""JSON for commands that have no time to import json, which brings regular expressions."""

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


def loads(body: bytes | str) -> Any:
    """Parse a document (``json.loads``).

    The scanner that does json's work is CPython's and stands in no documentation, so whatever it does not
    take is given to json, which says also what is wrong. The scanner itself cannot while json is not
    imported: what CPython makes of its silence is a SystemError.

    Raises:
        ValueError: It is none.
    """
    try:
        text = (body if isinstance(body, str) else body.decode()).strip(" \t\r\n")
        found, end = _scan(text)
        if end == len(text):
            return found
    except (ImportError, AttributeError, TypeError, ValueError, StopIteration, SystemError):
        pass
    import json

    return json.loads(body)


def first(text: str) -> tuple[Any, int]:
    """The document that a text begins with, and where it ends.

    Raises:
        ValueError: It begins with none, or with half of one.
    """
    try:
        return _scan(text)
    except (ImportError, AttributeError, TypeError, StopIteration, SystemError):
        import json

        found, end = json.JSONDecoder().raw_decode(text)
        return found, end


def _scan(text: str) -> tuple[Any, int]:
    from _json import make_scanner

    options: Any = _Options
    found, end = make_scanner(options)(text, 0)
    return found, end


def dumps(value: object) -> str:
    """Write a document (``json.dumps``), on one line.

    Raises:
        TypeError: JSON has no such value.
    """
    if isinstance(value, (dict, list)):
        try:
            from _json import encode_basestring_ascii, make_encoder

            write = make_encoder(
                None, _refuse, encode_basestring_ascii, None, ": ", ", ", False, False, True
            )
            return "".join(write(value, 0))
        except (ImportError, AttributeError, TypeError):
            pass
    import json

    return json.dumps(value)


def _refuse(value: object) -> object:
    raise TypeError(type(value).__name__)
