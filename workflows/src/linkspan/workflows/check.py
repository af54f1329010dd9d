"""Everything that is wrong with a pipeline, before anything runs: one list, in the order written."""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final

import attrs

from linkspan.sdk.diagnostics import Diagnostic
from linkspan.workflows.allowances import silenced
from linkspan.workflows.checking import Checker
from linkspan.workflows.loading import Fetch, load
from linkspan.workflows.model import Workflow
from linkspan.workflows.parse import ParseFailed, decode, parse
from linkspan.workflows.reader import Reader
from linkspan.workflows.verbs import Verbs

_NO_CHOICE: Final[Mapping[str, str]] = MappingProxyType({})
MAX_SHOWN = 20
"""Faults listed at once; more of them are mostly echoes of the first ones."""


@attrs.frozen(kw_only=True)
class Checked:
    """A pipeline and what is wrong with it.

    Attributes:
        workflow: None if the text could not be read at all.
        diagnostics: In the order written, file by file; errors and warnings.
    """

    workflow: Workflow | None
    diagnostics: tuple[Diagnostic, ...]

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """The faults that keep it from running."""
        return tuple(d for d in self.diagnostics if d.severity == "error")


def check(
    data: bytes | str,
    file: str,
    verbs: Verbs,
    *,
    fetch: Fetch | None = None,
    use: Mapping[str, str] = _NO_CHOICE,
) -> Checked:
    """Read and check a pipeline; nothing is run and no plugin is imported.

    Args:
        data: What the file holds.
        file: Its path, for messages.
        verbs: What the installed plugins answer.
        fetch: Gets other files that it names; without it, naming one is a fault.
        use: Role → driver, as whoever starts it has chosen; it goes before the pipeline's own `use`.
    """
    try:
        text = data if isinstance(data, str) else decode(data, file)
        document = parse(text, file)
    except ParseFailed as failed:
        return Checked(workflow=None, diagnostics=tuple(map(_helped, failed.diagnostics)))
    workflow, readers = load(document, verbs, fetch=fetch, use=use)
    if workflow is not None:
        by_file = {reader.document.file: reader for reader in readers}
        Checker(workflow, by_file, verbs).check()
    return Checked(workflow=workflow, diagnostics=_gathered(readers))


def _gathered(readers: Collection[Reader]) -> tuple[Diagnostic, ...]:
    """Of all files, each fault once: a file that is called twice is read twice."""
    found: dict[object, Diagnostic] = {}
    for reader in readers:
        for diagnostic in sorted(silenced(reader.document, reader.diagnostics), key=_place):
            span = diagnostic.primary.span if diagnostic.primary else None
            found.setdefault(
                (diagnostic.file, diagnostic.id, span, diagnostic.headline), diagnostic
            )
    return tuple(map(_helped, found.values()))


def _helped(diagnostic: Diagnostic) -> Diagnostic:
    """Nobody is left without a next step."""
    if diagnostic.helps:
        return diagnostic
    return attrs.evolve(diagnostic, helps=(f"linkspan explain {diagnostic.id}",))


def _place(diagnostic: Diagnostic) -> tuple[int, int]:
    primary = diagnostic.primary
    return (primary.span.line, primary.span.column) if primary else (0, 0)
