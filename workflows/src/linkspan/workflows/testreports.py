"""Counts of a JUnit report that a step wrote."""

from pathlib import Path
from typing import Final
from xml.parsers import expat

from linkspan.sdk.errors import InvalidArgument, NotFound

_MAX_BYTES: Final = 64 * 1024 * 1024


def count_tests(workspace: Path, name: str) -> dict[str, int]:
    """``passed``, ``failed`` and ``skipped`` of a report. Blocks.

    Args:
        workspace: The job's files.
        name: The report's path in it; a file, or a folder with ``.xml`` files.

    Raises:
        NotFound: It is not there; code ``report_not_found``.
        InvalidArgument: It is no JUnit report, or leads out of the workspace; code ``report``.
    """
    root = workspace.resolve()
    path = (workspace / name).resolve()
    if not path.is_relative_to(root):
        raise InvalidArgument(f"the report '{name}' leads out of the workspace", code="report")
    files = sorted(path.rglob("*.xml")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise NotFound(f"the step wrote no report '{name}'", code="report_not_found")
    total = {"passed": 0, "failed": 0, "skipped": 0}
    for file in files:
        _count(file, name, total)
    return total


def _count(file: Path, name: str, total: dict[str, int]) -> None:
    """Add the cases of one file; nothing is kept of it, and no entity is ever expanded."""
    outcome = ""

    def start(tag: str, _: dict[str, str]) -> None:
        nonlocal outcome
        if tag == "testcase":
            outcome = "passed"
        elif tag in ("failure", "error") and outcome:
            outcome = "failed"
        elif tag == "skipped" and outcome == "passed":
            outcome = "skipped"

    def end(tag: str) -> None:
        nonlocal outcome
        if tag == "testcase":
            total[outcome] += 1
            outcome = ""

    def refuse(*_: object) -> None:
        raise InvalidArgument(f"the report '{name}' declares a document type", code="report")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.StartDoctypeDeclHandler = refuse
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise InvalidArgument(f"the report '{name}' is too large", code="report")
        with file.open("rb") as stream:
            parser.ParseFile(stream)
    except expat.ExpatError as fault:
        raise InvalidArgument(f"the report '{name}' is no XML: {fault}", code="report") from fault
    except OSError as fault:
        raise InvalidArgument(
            f"the report '{name}' cannot be read: {fault}", code="report"
        ) from fault
