"""``linkspan workflow adopt``."""

from pathlib import Path
from typing import Any

import click

from linkspan.core.cli.command import command
from linkspan.core.cli.failure import USAGE, Failure, Rendered
from linkspan.core.cli.session import Session
from linkspan.sdk.diagnostics import render_all
from linkspan.workflows import sources
from linkspan.workflows.adopting.detect import (
    Adopted,
    Source,
    adopt as adopt_source,
    find_sources,
    kind_of,
)
from linkspan.workflows.adopting.draft import job_id
from linkspan.workflows.commands.reading import checked, installed
from linkspan.workflows.parse import ParseFailed, decode


@command(
    "adopt",
    "Make pipelines of a Dockerfile, a compose file, GitHub workflows, GitLab CI or Woodpecker files.",
    examples=[
        "linkspan workflow adopt",
        "linkspan workflow adopt .github/workflows/ci.yml",
        "linkspan workflow adopt compose.yaml --out -",
    ],
    more=["linkspan workflow lint", "linkspan workflow plan"],
)
@click.argument("path", metavar="[PATH]", default=".")
@click.option("--out", metavar="FILE", help="Where to write it; - for stdout. Only for one source")
@click.option("--force", is_flag=True, help="Write over what is there")
def adopt(session: Session, path: str, out: str | None, force: bool) -> int:
    """Adopt files of other tools."""
    given = Path(path)
    found = find_sources(given) if given.is_dir() else [_source(given)]
    if not found:
        raise Failure(
            f"there is nothing to adopt in '{path}'",
            status=USAGE,
            helps=["name a Dockerfile, or a file of Compose, GitHub, GitLab or Woodpecker"],
        )
    if out is not None and len(found) > 1:
        raise Failure("--out takes one source", id="LS0004", status=USAGE)
    verbs = installed()
    rows: list[dict[str, Any]] = []
    texts: list[tuple[Source, Path, Adopted]] = []
    # What is called is adopted, too: the list grows while it is gone through.
    for source in found:
        adopted = _adopted(source, verbs, alone=out is not None)
        known = {each.path.resolve() for each in found}
        found += [Source(path=path, kind=source.kind) for path in _new(adopted, known, force)]
        target = Path(out) if out is not None else Path(sources.FOLDER) / f"{adopted.name}.yaml"
        if out == "-":
            session.terminal.print(adopted.text.rstrip("\n"))
        else:
            _write(target, adopted.text, force=force)
        texts.append((source, target, adopted))
    for source, target, adopted in texts:
        faults = checked(target, adopted.text.encode(), verbs).errors
        rows.append(_row(source, target, adopted, len(faults)))
        if not session.format or session.format == "table":
            _tell(session, source, target, adopted, len(faults))
    if session.format and session.format != "table":
        session.document(rows)
    return 0


def _new(adopted: Adopted, known: set[Path], force: bool) -> list[Path]:
    """Called files that are not adopted yet, neither now nor before."""
    fresh = [path for path in adopted.calls if path.resolve() not in known]
    return [path for path in fresh if force or not _target(path).exists()]


def _target(path: Path) -> Path:
    return Path(sources.FOLDER) / f"{job_id(path.stem)}.yaml"


def _source(path: Path) -> Source:
    try:
        kind = kind_of(path, decode(path.read_bytes(), str(path)))
    except OSError as error:
        raise Failure(f"'{path}' cannot be read: {error.strerror}", status=USAGE) from error
    except ParseFailed as failed:
        raise Rendered(render_all(failed.diagnostics), len(failed.diagnostics)) from failed
    if kind is None:
        helps = ["it is no Dockerfile, and no file of Compose, GitHub, GitLab or Woodpecker"]
        raise Failure(f"'{path}' cannot be adopted", status=USAGE, helps=helps)
    return Source(path=path, kind=kind)


def _adopted(source: Source, verbs: Any, *, alone: bool) -> Adopted:
    try:
        return adopt_source(source, Path.cwd(), verbs, alone=alone)
    except ParseFailed as failed:
        raise Rendered(render_all(failed.diagnostics), len(failed.diagnostics)) from failed
    except OSError as error:
        raise Failure(f"'{source.path}' cannot be read: {error.strerror}", status=USAGE) from error


def _write(path: Path, text: str, *, force: bool) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        helps = ["--force writes over it", "--out FILE writes elsewhere"]
        raise Failure(f"'{path}' is there already", status=USAGE, helps=helps) from error
    except OSError as error:
        raise Failure(f"'{path}' cannot be written: {error.strerror}") from error


def _row(source: Source, target: Path, adopted: Adopted, faults: int) -> dict[str, Any]:
    losses = [{"place": loss.place, "what": loss.what, "why": loss.why} for loss in adopted.losses]
    return {
        "source": str(source.path),
        "kind": source.kind,
        "pipeline": str(target),
        "losses": losses,
        "notes": list(adopted.notes),
        "faults": faults,
    }


def _tell(session: Session, source: Source, target: Path, adopted: Adopted, faults: int) -> None:
    note = session.terminal.note
    note(f"{source.path} → {target}  {adopted.text.count(chr(10))} lines")
    for loss in adopted.losses:
        note(f"  lost  {loss.place}  {' '.join(loss.what.split())}: {loss.why}")
    for words in adopted.notes:
        note(f"  note  {words}")
    if faults:
        note(f"  {faults} things are left to mend: linkspan workflow lint {target}")
