"""``.dockerignore``: which paths of a build context are left out.

Patterns are anchored at the root of the context, ``*`` and ``?`` stop at ``/``, ``**`` does not, the
last pattern that matches a path or one of its parents decides. The cases in
``tests/data/dockerignore.json`` were computed with moby/patternmatcher.
"""

import posixpath

import attrs

from linkspan.sdk.glob import (
    ANY_CHARACTER,
    ANY_TEXT,
    NOT_SLASH,
    SOME_DIRECTORIES,
    STAR,
    Element,
    Glob,
    PatternError,
    character_class,
    literal,
)


@attrs.frozen
class _Rule:
    glob: Glob
    excludes: bool


class IgnorePatterns:
    """An ordered list of patterns."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        """Compile patterns that :func:`read_patterns` has cleaned.

        Raises:
            PatternError: One of them cannot be read.
        """
        self._rules: list[_Rule] = []
        for pattern in patterns:
            excludes = not pattern.startswith("!")
            body = pattern.removeprefix("!")
            if not body:
                raise PatternError(f'illegal exclusion pattern: "{pattern}"')
            self._rules.append(_Rule(path_glob(_clean(body)), excludes))
        self.has_negation = any(not rule.excludes for rule in self._rules)

    @classmethod
    def parse(cls, text: str) -> "IgnorePatterns":
        """Read the text of a ``.dockerignore``.

        Raises:
            PatternError: A pattern cannot be read.
        """
        return cls(read_patterns(text))

    def __bool__(self) -> bool:
        return bool(self._rules)

    def excludes(self, path: str) -> bool:
        """Whether a slash-separated path relative to the context's root is left out.

        A directory that is left out may still hold paths that a later ``!`` pattern brings back
        (:attr:`has_negation`); a walker must not skip it then.
        """
        excluded = False
        for rule in self._rules:
            # A rule that would change nothing need not be tried.
            if rule.excludes != excluded and rule.glob.matches_path_or_parent(path):
                excluded = rule.excludes
        return excluded


def read_patterns(text: str) -> tuple[str, ...]:
    """The patterns of a ``.dockerignore``: comments and blanks dropped, paths cleaned."""
    patterns = []
    for line in text.removeprefix("\ufeff").splitlines():
        if line.startswith("#"):
            continue
        pattern = line.strip()
        if not pattern:
            continue
        negated = pattern.startswith("!")
        if negated:
            pattern = pattern[1:].strip()
        if pattern:
            pattern = _clean(pattern)
            if len(pattern) > 1 and pattern.startswith("/"):
                pattern = pattern[1:]
        patterns.append(f"!{pattern}" if negated else pattern)
    return tuple(patterns)


def _clean(path: str) -> str:
    cleaned = posixpath.normpath(path)
    # normpath keeps two leading slashes, as POSIX allows.
    return "/" + cleaned.lstrip("/") if cleaned.startswith("/") else cleaned


def path_glob(pattern: str) -> Glob:
    """The pattern of a whole path, with ``**``.

    Raises:
        PatternError: It cannot be read.
    """
    elements: list[Element] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*" and pattern.startswith("*", at):
            at += 1
            if pattern.startswith("/", at):
                at += 1
                elements += SOME_DIRECTORIES
            else:
                # A trailing /** means what is below, not the directory itself.
                below = at == len(pattern) and pattern[:-2].endswith("/")
                elements += [ANY_CHARACTER, ANY_TEXT] if below else [ANY_TEXT]
        elif char == "*":
            elements.append(STAR)
        elif char == "?":
            elements.append(NOT_SLASH)
        elif char == "\\":
            elements += _escaped(pattern, at, bool(elements))
            at += 1
        elif char == "[":
            element, at = character_class(pattern, at)
            elements.append(element)
        else:
            elements.append(literal(char))
    return Glob(elements)


def _escaped(pattern: str, at: int, inside: bool) -> list[Element]:
    """The character behind a backslash, literally.

    moby hands the pair to a regular expression, where ``\\b`` is the boundary of a word; so
    ``a\\b`` matches ``a`` there. Its other letters are errors or classes that nobody means.
    """
    if at == len(pattern):
        raise PatternError
    if pattern[at] == "b" and inside:
        return []
    return [literal(pattern[at])]
