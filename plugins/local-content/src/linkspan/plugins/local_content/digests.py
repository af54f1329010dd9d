"""Digests as OCI writes them (image-spec descriptor.md "Digests")."""

import re
from typing import Final

from linkspan.sdk.errors import InvalidArgument

_HEX_LENGTH: Final = {"sha256": 64, "sha512": 128}
_DIGEST: Final = re.compile(r"(sha256|sha512):([0-9a-f]+)")


def split_digest(digest: str) -> tuple[str, str]:
    """Algorithm and hex digits. The result is safe to use in paths.

    Raises:
        InvalidArgument: code ``bad_digest``.
    """
    match = _DIGEST.fullmatch(digest)
    if match is None or len(match[2]) != _HEX_LENGTH[match[1]]:
        raise InvalidArgument(
            f"'{digest}' is not a digest",
            code="bad_digest",
            help="a digest is sha256: and 64 hex digits, or sha512: and 128",
        )
    return match[1], match[2]
