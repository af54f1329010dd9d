"""``# linkspan: allow LS1304 <reason>``: a warning that somebody has looked at is silent on its line."""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from linkspan.sdk.diagnostics import Diagnostic
from linkspan.workflows.parse import Document

_ALLOW: Final = re.compile(r"#\s*linkspan:\s*allow\s+(LS\d{4}(?:\s*,\s*LS\d{4})*)\s+\S")


def silenced(document: Document, diagnostics: Iterable[Diagnostic]) -> Iterator[Diagnostic]:
    """The diagnostics without the warnings that their line, or a comment above it, allows.

    Errors stay: what cannot run cannot be allowed. Without a reason nothing is allowed.
    """
    if "linkspan:" not in document.text or not _ALLOW.search(document.text):
        yield from diagnostics
        return
    lines = document.text.splitlines()
    for diagnostic in diagnostics:
        place = None if diagnostic.severity == "error" else diagnostic.primary
        if place is None or diagnostic.id not in _allowed(lines, place.span.line):
            yield diagnostic


def allowed_at(text: str, line: int) -> set[str]:
    """What a line of a file, or a comment above it, allows."""
    return _allowed(text.splitlines(), line) if "linkspan:" in text else set()


def _allowed(lines: list[str], line: int) -> set[str]:
    above = lines[line - 2] if line >= 2 and lines[line - 2].lstrip().startswith("#") else ""
    here = lines[line - 1] if line <= len(lines) else ""
    return {
        id_.strip()
        for text in (here, above)
        for match in _ALLOW.finditer(text)
        for id_ in match[1].split(",")
    }
