"""The one error that a Dockerfile's author sees, and the small text helpers its wording needs."""

import json
from collections.abc import Iterable

from linkspan.sdk.diagnostics import Diagnostic, Label, Span
from linkspan.sdk.errors import InvalidArgument


class DockerfileError(InvalidArgument):
    """A fault in a Dockerfile or in what it asks for; names ``file:line``.

    Attributes:
        text: The wording that Docker's clients and tests look for, without the place.
        file: The Dockerfile's name as the user gave it.
        line: First line of the instruction, from 1; None when the fault is the whole file's.
        diagnostic_id: ``LS02xx``.
    """

    default_code = "dockerfile"

    def __init__(
        self,
        text: str,
        *,
        file: str = "Dockerfile",
        line: int | None = None,
        diagnostic_id: str = "LS0201",
        code: str | None = None,
        help: str = "",  # noqa: A002 - the field's name in every error shape of ours
    ) -> None:
        place = file if line is None else f"{file}:{line}"
        super().__init__(
            f"{place}: {text}",
            code=code,
            details={"file": file, "line": line, "diagnostic": diagnostic_id},
            help=help,
        )
        self.text = text
        self.file = file
        self.line = line
        self.diagnostic_id = diagnostic_id

    def diagnostic(self, source: str) -> Diagnostic:
        """The same fault with its line drawn from ``source``, the whole Dockerfile's text."""
        primary = None
        if self.line is not None:
            lines = source.splitlines()
            shown = lines[self.line - 1] if self.line <= len(lines) else ""
            start = len(shown) - len(shown.lstrip())
            span = Span(
                line=self.line, column=start + 1, length=max(1, len(shown.rstrip()) - start)
            )
            primary = Label(span=span)
        return Diagnostic(
            id=self.diagnostic_id,
            headline=self.text,
            file=self.file,
            primary=primary,
            helps=(self.help,) if self.help else (),
            source=source,
        )


def quote(text: str) -> str:
    """A text in double quotes, escaped the way Go's ``%q`` does it for ordinary text."""
    return json.dumps(text, ensure_ascii=False)


def suggestion(word: str, options: Iterable[str]) -> str:
    """`` (did you mean x?)`` for the first option less than three edits away, else nothing."""
    best, nearest = "", 3
    for option in options:
        if option == word:
            return ""
        distance = _edits(word, option, nearest)
        if distance < nearest:
            best, nearest = option, distance
    return f" (did you mean {best}?)" if best else ""


def _edits(a: str, b: str, limit: int) -> int:
    """Levenshtein distance; anything at or above ``limit`` may be reported as ``limit``."""
    if abs(len(a) - len(b)) >= limit:
        return limit
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            previous, row[j] = (
                row[j],
                min(row[j] + 1, row[j - 1] + 1, previous + (left != right)),
            )
    return row[-1]
