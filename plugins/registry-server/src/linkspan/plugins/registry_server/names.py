"""Repository names, tags, digests: what may become part of a path; pure."""

import re

from linkspan.plugins.registry_server.refusal import RefusalError, digest_invalid

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"[A-Za-z0-9_+.-]+:[A-Za-z0-9=_-]+")
_HEX = {"sha256": re.compile(r"[0-9a-f]{64}"), "sha512": re.compile(r"[0-9a-f]{128}")}
MAX_NAME = 255
ALGORITHMS = tuple(_HEX)


def check_name(name: str) -> str:
    """A repository's name, or NAME_INVALID."""
    if len(name) > MAX_NAME or _NAME.fullmatch(name) is None:
        raise RefusalError(400, "NAME_INVALID", "invalid repository name", detail={"name": name})
    return name


def check_tag(tag: str) -> str:
    """A tag, or TAG_INVALID."""
    if _TAG.fullmatch(tag) is None:
        raise RefusalError(400, "TAG_INVALID", "invalid tag", detail={"tag": tag})
    return tag


def is_digest(text: str) -> bool:
    """Whether a manifest's reference is meant as a digest."""
    return ":" in text


def check_digest(text: str) -> tuple[str, str]:
    """Algorithm and hex digits of a digest, or DIGEST_INVALID."""
    if _DIGEST.fullmatch(text) is None:
        raise digest_invalid("invalid digest format", text)
    algorithm, _, digits = text.partition(":")
    if algorithm not in _HEX:
        raise digest_invalid(f"digest algorithm '{algorithm}' is not supported", text)
    if _HEX[algorithm].fullmatch(digits) is None:
        raise digest_invalid("invalid digest format", text)
    return algorithm, digits
