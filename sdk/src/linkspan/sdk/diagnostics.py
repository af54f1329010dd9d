"""Faults in text that people write (YAML, TOML, Dockerfile, command line), in one shape.

::

    error[LS1101]: job 'deploy' needs 'tset', which does not exist
     --> release.yaml:5:20
      |
    5 |     needs: [build, tset]
      |                    ^^^^
      = help: did you mean 'test'?

Lines and columns count from 1; columns count characters, not bytes.
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import attrs

from linkspan.sdk.values import frozen

_MANY: Final = 100
_SLIPS: Final = 2
Severity = Literal["error", "warning"]


@frozen(kw_only=True)
class Span:
    """A stretch of one line of a text.

    Attributes:
        line: From 1.
        column: From 1, in characters.
        length: Characters to underline; at least 1 when drawn.
    """

    line: int
    column: int
    length: int = 1


@frozen(kw_only=True)
class Label:
    """A span with a remark; secondary ones are underlined with dashes."""

    span: Span
    text: str = ""


@frozen(kw_only=True)
class Edit:
    """A mechanical change of a text: what stands from ``start`` to ``end`` becomes ``text``.

    Places are character indexes in the whole text.
    """

    start: int
    end: int
    text: str


@frozen(kw_only=True)
class Diagnostic:
    """One fault.

    Attributes:
        id: Stable, ``LS1101``; registered in ``linkspan.sdk.diagnostic_ids``.
        headline: Lower case, stands alone.
        file: The path as the user wrote it; empty where there is no file.
        primary: The place; None where there is none (a file that cannot be read).
        secondary: Other places of the same file that explain it.
        notes: Facts.
        helps: What to do; can be pasted.
        source: The whole text of the file, for drawing lines.
        fix: What the primary span becomes, in short; None if there is no such thing.
        edits: What ``--fix`` does: safe, and all of it or nothing. Empty if a person must decide.
    """

    id: str
    headline: str
    file: str = ""
    primary: Label | None = None
    secondary: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    helps: tuple[str, ...] = ()
    source: str = attrs.field(default="", repr=False, eq=False)
    severity: Severity = "error"
    fix: str | None = None
    edits: tuple[Edit, ...] = ()

    @property
    def place(self) -> str:
        """``file:line:column``, as editors and terminals link it."""
        if self.primary is None:
            return self.file
        return f"{self.file}:{self.primary.span.line}:{self.primary.span.column}"


def did_you_mean(word: str, choices: Iterable[str]) -> str | None:
    """The choice nearest to a misspelt word, or None if none is near.

    Of very many choices only those are looked at that are about as long and begin or end alike.
    """
    names = list(choices)
    if len(names) > _MANY:
        near = [name for name in names if abs(len(name) - len(word)) <= _SLIPS]
        names = [name for name in near if name[:1] == word[:1] or name[-1:] == word[-1:]][:_MANY]
    found = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return found[0] if found else None


def render(diagnostic: Diagnostic) -> str:
    """Draw one diagnostic as plain text, without a final newline."""
    head = f"{diagnostic.severity}[{diagnostic.id}]: {diagnostic.headline}"
    labels = sorted(
        [
            *([(diagnostic.primary, "^")] if diagnostic.primary else []),
            *((label, "-") for label in diagnostic.secondary),
        ],
        key=lambda pair: (pair[0].span.line, pair[0].span.column),
    )
    width = max((len(str(label.span.line)) for label, _ in labels), default=1)
    gutter = " " * width
    out = [head]
    if diagnostic.file:
        out.append(f"{gutter}--> {diagnostic.place}")
    lines = diagnostic.source.splitlines()
    drawn = [(label, mark) for label, mark in labels if label.span.line <= len(lines)]
    if drawn:
        out.append(f"{gutter} |")
    last_line = 0
    for label, mark in drawn:
        span = label.span
        if span.line != last_line:
            # A tab is drawn as one arrow, so that carets stay below what they mean.
            text = lines[span.line - 1].replace("\t", "→")
            out.append(f"{span.line:>{width}} | {text}".rstrip())
            last_line = span.line
        remark = f" {label.text}" if label.text else ""
        out.append(f"{gutter} | {' ' * (span.column - 1)}{mark * max(1, span.length)}{remark}")
    out.extend(f"{gutter} = note: {note}" for note in diagnostic.notes)
    out.extend(f"{gutter} = help: {text}" for text in diagnostic.helps)
    return "\n".join(out)


def render_all(diagnostics: Sequence[Diagnostic]) -> str:
    """Draw diagnostics one below the other, with a blank line between."""
    return "\n\n".join(render(d) for d in diagnostics)
