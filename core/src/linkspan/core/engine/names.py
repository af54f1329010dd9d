"""Names and ids: rules, prefixes, and names for those who gave none."""

import re
import secrets
from collections.abc import Iterable

from linkspan.sdk.errors import InvalidArgument, NotFound

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_HEX = re.compile(r"[0-9a-f]{1,64}")
_ID = re.compile(r"[0-9a-f]{64}")


def new_id() -> str:
    """64 hex digits, not all decimal in the first twelve (a hostname of digits alone misleads tools)."""
    while True:
        found = secrets.token_hex(32)
        if not found[:12].isdecimal():
            return found


def is_id(text: str) -> bool:
    """Whether a text looks as ``new_id`` makes them."""
    return _ID.fullmatch(text) is not None


def check_name(name: str, what: str) -> str:
    """The name without a leading slash.

    Raises:
        InvalidArgument: It is not a valid name.
    """
    bare = name.removeprefix("/")
    if NAME.fullmatch(bare) is None:
        raise InvalidArgument(
            f"Invalid {what} name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )
    return bare


def by_prefix(prefix: str, ids: Iterable[str]) -> str | None:
    """The one id that begins with a prefix, or None.

    Raises:
        InvalidArgument: code ``ambiguous``.
    """
    if _HEX.fullmatch(prefix) is None:
        return None
    found = [one for one in ids if one.startswith(prefix)]
    if len(found) > 1:
        raise InvalidArgument(
            f"Multiple IDs found with provided prefix: {prefix}",
            code="ambiguous",
            details={"candidates": found[:20]},
        )
    return found[0] if found else None


def not_found(what: str, ref: str) -> NotFound:
    """``No such container: web``."""
    return NotFound(f"No such {what}: {ref}", details={"kind": what, "name": ref})
