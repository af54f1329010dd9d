"""``lint --fix``: the edits of diagnostics, applied to the text so that everything else stays as it is."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import attrs

from linkspan.sdk.diagnostics import Diagnostic, Edit

MAX_ROUNDS: Final = 10
"""A mended fault may uncover another; more rounds than this are no progress."""


@attrs.frozen(kw_only=True)
class Mended:
    """A text after its safe faults were mended.

    Attributes:
        text: Without a byte order mark.
        done: What was mended, in the order in which it was.
        left: What is still wrong.
    """

    text: str
    done: tuple[Diagnostic, ...]
    left: tuple[Diagnostic, ...]


def mend(text: str, file: str, look: Callable[[str], Sequence[Diagnostic]]) -> Mended:
    """Apply edits until none is left.

    Args:
        text: What the file holds.
        file: Its path, as diagnostics name it; those of other files are left alone.
        look: Checks a text.
    """
    done: list[Diagnostic] = []
    found = look(text)
    for _ in range(MAX_ROUNDS):
        chosen = _without_overlaps(d for d in found if d.edits and d.file == file)
        if not chosen:
            break
        changed = apply(text, [edit for diagnostic in chosen for edit in diagnostic.edits])
        after = look(changed)
        if changed == text:
            break
        done += chosen
        text, found = changed, after
    return Mended(text=text, done=tuple(done), left=tuple(found))


def _without_overlaps(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Those whose edits do not touch each other; the others have their turn in the next round."""
    taken: list[tuple[int, int]] = []
    chosen = []
    for diagnostic in diagnostics:
        spans = [(edit.start, edit.end) for edit in diagnostic.edits]
        if all(end < start_ or end_ < start for start, end in spans for start_, end_ in taken):
            taken += spans
            chosen.append(diagnostic)
    return chosen


def apply(text: str, edits: Iterable[Edit]) -> str:
    """The text with edits that do not overlap."""
    parts: list[str] = []
    at = 0
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.end)):
        parts += [text[at : edit.start], edit.text]
        at = edit.end
    return "".join([*parts, text[at:]])
