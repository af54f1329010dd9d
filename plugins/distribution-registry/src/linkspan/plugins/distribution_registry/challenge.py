"""``WWW-Authenticate`` (RFC 9110 section 11.6.1), as registries send it; pure."""

import re
from collections.abc import Iterable, Mapping

import attrs

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's word for a word
_SCHEME = re.compile(rf"\s*({_TOKEN})(?=\s|,|$)")
_PARAMETER = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))\s*')
_ESCAPE = re.compile(r"\\(.)")


@attrs.frozen(kw_only=True)
class Challenge:
    """One way to authenticate; scheme and parameter names are in lower case."""

    scheme: str
    parameters: Mapping[str, str] = attrs.field(factory=dict)


def parse_challenges(values: Iterable[str]) -> list[Challenge]:
    """All challenges of all header lines, in order.

    One line may hold several challenges, and a quoted value may hold commas. What cannot be read
    ends the reading of its line; the challenges before it count.
    """
    found = []
    for value in values:
        found += _parse_line(value)
    return found


def _parse_line(text: str) -> list[Challenge]:
    found: list[Challenge] = []
    at = 0
    while at < len(text):
        scheme = _SCHEME.match(text, at)
        if scheme is None:
            break
        at = scheme.end()
        parameters: dict[str, str] = {}
        while (pair := _PARAMETER.match(text, at)) is not None:
            name, quoted, plain = pair.groups()
            parameters[name.lower()] = _ESCAPE.sub(r"\1", quoted) if plain is None else plain
            at = pair.end()
            if text[at : at + 1] != ",":
                break
            at += 1
        found.append(Challenge(scheme=scheme[1].lower(), parameters=parameters))
        while text[at : at + 1] in (",", " ", "\t"):
            at += 1
    return found


def choose_challenge(challenges: Iterable[Challenge]) -> Challenge | None:
    """Bearer before Basic; None if neither is offered or a Bearer names no realm."""
    offered = {c.scheme: c for c in reversed(list(challenges))}
    bearer = offered.get("bearer")
    if bearer is not None and bearer.parameters.get("realm"):
        return bearer
    return offered.get("basic")
