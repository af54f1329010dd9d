"""``linkspan workflow test``."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from linkspan.core.cli.command import command
from linkspan.core.cli.failure import FAILED, USAGE, Failure
from linkspan.core.cli.session import Session
from linkspan.sdk.diagnostics import Diagnostic, render_all
from linkspan.sdk.units import format_duration
from linkspan.workflows import sources
from linkspan.workflows.check import MAX_SHOWN
from linkspan.workflows.commands.reading import installed, read
from linkspan.workflows.reports import as_json
from linkspan.workflows.scenarios.at_once import play_all
from linkspan.workflows.scenarios.loading import load_scenarios
from linkspan.workflows.scenarios.model import ScenarioFile
from linkspan.workflows.scenarios.playing import Played, playground
from linkspan.workflows.scenarios.reporting import as_document, failures, junit
from linkspan.workflows.verbs import Verbs

_FOLDER = Path(sources.FOLDER) / "tests"

Results = list[tuple[ScenarioFile, list[Played]]]


@command(
    "test",
    "Run pipelines on fakes, as scenario files say, and compare what happened.",
    examples=[
        "linkspan workflow test",
        "linkspan workflow test .linkspan/tests/release.yaml --name rollback",
        "linkspan workflow test --junit scenarios.xml",
    ],
    more=["linkspan workflow lint", "linkspan workflow plan"],
)
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--name", default="", metavar="TEXT", help="Only scenarios whose name holds this")
@click.option("--junit", "report", metavar="FILE", help="Write a JUnit report")
def test(session: Session, files: tuple[str, ...], name: str, report: str | None) -> int:
    """Run scenarios; no daemon is asked."""
    began = time.monotonic()
    verbs = installed()
    loaded = [load_scenarios(path, read(path), verbs) for path in _find(files)]
    faults = [diagnostic for each in loaded for diagnostic in each.diagnostics]
    if any(each.found is None for each in loaded):
        _print_faults(session, faults)
        return USAGE
    found = [each.found for each in loaded if each.found is not None]
    if name and not any(name in scenario.name for file in found for scenario in file.scenarios):
        raise Failure(f"no scenario has '{name}' in its name", status=USAGE)
    results = _play_all(session, found, verbs, name)
    session.document(as_document(results), default="table")
    if report is not None:
        _write(report, junit(results))
    played = [each for _, several in results for each in several]
    failed = sum(bool(each.mismatches) for each in played)
    if session.format in ("", "table"):
        took = format_duration(time.monotonic() - began)
        words = f"{len(played) - failed} passed" + (f", {failed} failed" if failed else "")
        session.terminal.note(f"{words}  {took}")
    return FAILED if failed else 0


def _find(names: Sequence[str]) -> list[Path]:
    """The files that were named, those of folders that were named, or those of ``.linkspan/tests``."""
    paths: list[Path] = []
    for path in map(Path, names or [str(_FOLDER)]):
        if path.is_dir():
            paths += sorted(each for each in path.iterdir() if each.suffix in sources.SUFFIXES)
        elif names:
            paths.append(path)
    if not paths:
        raise Failure(
            "there is no scenario to run",
            status=USAGE,
            helps=["linkspan workflow test FILE", f"scenarios live in {_FOLDER}/*.yaml"],
        )
    return paths


def _print_faults(session: Session, faults: Sequence[Diagnostic]) -> None:
    if not session.document([as_json(each) for each in faults], default="table"):
        for line in render_all(faults[:MAX_SHOWN]).splitlines():
            session.terminal.print(line)


def _play_all(session: Session, files: Sequence[ScenarioFile], verbs: Verbs, name: str) -> Results:
    """Run scenarios; on a terminal each is told when it, and those before it, have ended."""
    told = session.format in ("", "table")
    chosen = [(file, each) for file in files for each in file.scenarios if name in each.name]
    results: Results = [(file, []) for file in files]
    of_file = {id(file): played for file, played in results}
    with playground() as folder:
        for (file, _), played in zip(chosen, play_all(chosen, verbs, folder), strict=True):
            mine = of_file[id(file)]
            if told and not mine:
                session.terminal.print(file.file)
            mine.append(played)
            for line in _lines(session, file, played) if told else ():
                session.terminal.print(line)
    return results


def _lines(session: Session, file: ScenarioFile, played: Played) -> Iterator[str]:
    word = "failed" if played.mismatches else "done"
    sign = session.terminal.painted_sign(word, on_err=False)
    yield f"  {sign} {played.scenario.name}"
    for line in failures(file, played):
        yield f"      {line}"


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(f"'{path}' cannot be written: {error.strerror}") from error
