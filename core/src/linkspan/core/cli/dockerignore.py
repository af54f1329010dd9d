"""``.dockerignore``: what of a build context is not sent (Docker reference, ".dockerignore files").

The builder applies the file again; here it saves sending what nobody wants. Patterns become regular
expressions as in moby/patternmatcher, whose answers are the test's data.
"""

import posixpath
import re


class IgnoreFileError(ValueError):
    """A pattern cannot be read."""


class IgnoreFile:
    """The patterns of one file, in order: the last that matches decides."""

    def __init__(self, text: str) -> None:
        """Read a file's text.

        Raises:
            IgnoreFileError: A pattern cannot be read.
        """
        self._rules = [(_compile(p.removeprefix("!")), not p.startswith("!")) for p in _lines(text)]
        self.has_negation = not all(excludes for _, excludes in self._rules)

    def excludes(self, path: str) -> bool:
        """Whether a path relative to the context, with slashes, is left out."""
        parts = path.split("/")
        candidates = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        excluded = False
        for pattern, excludes in self._rules:
            if excludes != excluded and any(pattern.fullmatch(c) for c in candidates):
                excluded = excludes
        return excluded


def _lines(text: str) -> list[str]:
    patterns = []
    for line in text.removeprefix("\ufeff").splitlines():
        stripped = line.strip()
        if line.startswith("#") or not stripped:
            continue
        negated = stripped.startswith("!")
        body = stripped[1:].strip() if negated else stripped
        if not body:
            raise IgnoreFileError("'!' stands alone in .dockerignore")
        body = posixpath.normpath(body)
        body = "/" + body.lstrip("/") if body.startswith("//") else body
        body = body[1:] if len(body) > 1 and body.startswith("/") else body
        patterns.append(f"!{body}" if negated else body)
    return patterns


def _compile(pattern: str) -> re.Pattern[str]:
    out: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if pattern.startswith("**", at - 1):
            at += 1
            if pattern.startswith("/", at):
                at += 1
                out.append("(?:.*/)?" if at < len(pattern) else ".*")
            else:
                below = at == len(pattern) and pattern[:-2].endswith("/")
                out.append(".+" if below else ".*")
        elif char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "\\":
            if at == len(pattern):
                raise IgnoreFileError(f"'{pattern}' in .dockerignore ends with a backslash")
            # moby hands the pair to its regular expression, where \b is the boundary of a word.
            out.append("" if pattern[at] == "b" and out else re.escape(pattern[at]))
            at += 1
        elif char == "[":
            end = pattern.find("]", at + 1)
            if end < 0:
                raise IgnoreFileError(f"'{pattern}' in .dockerignore has '[' without ']'")
            out.append(f"[{pattern[at:end]}]")
            at = end + 1
        else:
            out.append(re.escape(char))
    try:
        return re.compile("".join(out), re.DOTALL)
    except re.error as exc:
        raise IgnoreFileError(f"'{pattern}' in .dockerignore: {exc}") from exc
