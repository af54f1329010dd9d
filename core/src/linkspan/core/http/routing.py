"""Which handler answers: a table of method and pattern, with API versions in front of paths.

``/containers/{id}/json`` matches ``/containers/web/json`` and ``/v1.43/containers/web/json``.
Routes whose path is all literal win over those with parameters; among the others, the one with more
literal segments wins, so that ``DELETE /images/{name:path}`` does not take ``/images/{name:path}/json``.
"""

import re
from collections.abc import Mapping

import attrs

from linkspan.sdk.errors import InvalidArgument, NotFound
from linkspan.sdk.http import AnswerError, Handler
from linkspan.sdk.values import define, frozen

API_VERSION = (1, 50)
MIN_API_VERSION = (1, 24)
"""What we announce; what we answer begins a little earlier, since skopeo of Debian 12 asks for 1.22."""
_OLDEST_ANSWERED = (1, 22)

_VERSION_PREFIX = re.compile(r"/v(\d+(?:\.\d+)*)(/.*)", re.DOTALL)
_PARAMETER = re.compile(r"\{([a-z_][a-z0-9_]*)(:path)?\}")


def version_text(version: tuple[int, int]) -> str:
    """``1.50``."""
    return f"{version[0]}.{version[1]}"


def split_version(path: str) -> tuple[tuple[int, int], str]:
    """Take ``/v1.43`` off a path.

    Returns:
        The version asked for (the newest one if none is written) and the rest of the path.

    Raises:
        InvalidArgument: The version is older or newer than we speak; Docker's texts.
    """
    match = _VERSION_PREFIX.fullmatch(path)
    if match is None:
        return API_VERSION, path
    text = match[1]
    # Digits of any length are text until here: int() of a very long one would be slow.
    numbers = [int(part[:6]) for part in text.split(".")[:2]]
    version = (numbers[0], numbers[1] if len(numbers) > 1 else 0)
    if version < _OLDEST_ANSWERED:
        raise InvalidArgument(
            f"client version {text} is too old. Minimum supported API version is "
            f"{version_text(MIN_API_VERSION)}, please upgrade your client to a newer version",
            code="api_version_too_old",
        )
    if version > API_VERSION:
        raise InvalidArgument(
            f"client version {text} is too new. Maximum supported API version is "
            f"{version_text(API_VERSION)}",
            code="api_version_too_new",
        )
    return version, match[2]


@define
class _Route:
    method: str
    pattern: str
    handler: Handler
    weight: tuple[int, int]
    _regex: re.Pattern[str] | None = attrs.field(default=None, init=False)

    def match(self, path: str) -> re.Match[str] | None:
        """The pattern is compiled at the first look: there are many, and a daemon is asked a few."""
        if self._regex is None:
            self._regex = _compile(self.pattern)
        return self._regex.fullmatch(path)


@frozen
class Match:
    """A route that was found; ``pattern`` names it in logs."""

    handler: Handler
    params: Mapping[str, str]
    pattern: str


def _weight(pattern: str) -> tuple[int, int]:
    """Of two routes that match, the lighter one wins."""
    literal = sum(1 for segment in pattern.split("/") if segment and "{" not in segment)
    return -literal, pattern.count(":path}")


def _compile(pattern: str) -> re.Pattern[str]:
    out, at = [], 0
    for found in _PARAMETER.finditer(pattern):
        out.append(re.escape(pattern[at : found.start()]))
        out.append(f"(?P<{found[1]}>.+)" if found[2] else f"(?P<{found[1]}>[^/]+)")
        at = found.end()
    out.append(re.escape(pattern[at:]))
    return re.compile("".join(out), re.DOTALL)


class RouteTable:
    """Implements ``linkspan.sdk.http.Router``."""

    def __init__(self) -> None:
        self._literal: dict[str, dict[str, _Route]] = {}
        # Grouped by the first segment: a request looks at a few patterns, not at all.
        self._patterns: dict[str, list[_Route]] = {}

    def add(self, method: str, pattern: str, handler: Handler) -> None:
        """Add a route; see ``Router.add``.

        Raises:
            ValueError: The route is there already, or the pattern does not begin with ``/``.
        """
        if not pattern.startswith("/"):
            raise ValueError(f"a route's pattern begins with '/': {pattern}")
        route = _Route(method.upper(), pattern, handler, _weight(pattern))
        if "{" not in pattern:
            methods = self._literal.setdefault(pattern, {})
            if route.method in methods:
                raise ValueError(f"route {route.method} {pattern} is registered twice")
            methods[route.method] = route
            return
        group = self._patterns.setdefault(pattern.split("/")[1], [])
        if any(r.method == route.method and r.pattern == pattern for r in group):
            raise ValueError(f"route {route.method} {pattern} is registered twice")
        group.append(route)
        group.sort(key=lambda r: r.weight)

    @property
    def routes(self) -> list[tuple[str, str]]:
        """All routes as (method, pattern), sorted by pattern."""
        literal = [r for methods in self._literal.values() for r in methods.values()]
        patterns = [r for group in self._patterns.values() for r in group]
        return sorted(((r.method, r.pattern) for r in literal + patterns), key=lambda r: r[::-1])

    def find(self, method: str, path: str) -> Match:
        """The route for a decoded path without version; HEAD falls back to GET.

        Raises:
            NotFound: No route has this path (Docker's text).
            AnswerError: 405; routes have this path, but none this method.
        """
        methods = self._literal.get(path)
        if methods is not None:
            route = methods.get(method) or (methods.get("GET") if method == "HEAD" else None)
            if route is not None:
                return Match(route.handler, {}, route.pattern)
        allowed = set(methods or ())
        fallback: Match | None = None
        for route in self._patterns.get(path.split("/", 2)[1] if path else "", ()):
            found = route.match(path)
            if found is None:
                continue
            if route.method == method:
                return Match(route.handler, found.groupdict(), route.pattern)
            if method == "HEAD" and route.method == "GET" and fallback is None:
                fallback = Match(route.handler, found.groupdict(), route.pattern)
            allowed.add(route.method)
        if fallback is not None:
            return fallback
        if not allowed:
            raise NotFound("page not found", code="no_route")
        raise AnswerError(
            f"method {method} is not allowed for {path}; allowed: {', '.join(sorted(allowed))}",
            status=405,
            code="method_not_allowed",
        )
