"""``linkspan workflow plan``, and the plan that ``run --plan`` follows."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from linkspan.core.cli.command import command
from linkspan.core.cli.common import key_values
from linkspan.core.cli.failure import REFUSED, USAGE, Failure, Rendered, of_error
from linkspan.core.cli.session import Session
from linkspan.core.client.errors import ApiError
from linkspan.sdk.diagnostics import Diagnostic, render_all
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.units import counted
from linkspan.workflows import sources
from linkspan.workflows.check import MAX_SHOWN
from linkspan.workflows.commands.completing import complete_pipelines
from linkspan.workflows.commands.reading import checked, find, installed, read
from linkspan.workflows.commands.shared import body_of, input_option, use_option
from linkspan.workflows.planning.document import check_document
from linkspan.workflows.reports import from_json

PLANS: Final = "/linkspan/v1/plans"
WOULD_CHANGE: Final = 10
ASKS: Final = "approve"
"""The verb that waits for a person."""
_SIGNS: Final = {"create": "+", "change": "~", "destroy": "-", "none": "·"}


@command(
    "plan",
    "Say what a run would create, change and destroy, and all that would make it fail; change nothing.",
    examples=[
        "linkspan workflow plan release",
        "linkspan workflow plan release --input replicas=4 --out release.plan",
        "linkspan workflow run --plan release.plan",
    ],
    more=["linkspan workflow run", "linkspan workflow lint", "linkspan workflow graph"],
)
@click.argument("file", metavar="FILE", shell_complete=complete_pipelines)
@input_option
@click.option("--workspace", metavar="DIR", help="Folder of the sources; else the pipeline's own")
@click.option("--all-files", is_flag=True, help="Also folders that git ignores")
@click.option("--out", metavar="FILE", help="Keep the plan, for `run --plan FILE`")
@use_option
@click.option("--exit-code", is_flag=True, help="Exit status 10 if something would change")
def plan(
    session: Session,
    file: str,
    inputs: tuple[str, ...],
    workspace: str | None,
    all_files: bool,
    out: str | None,
    use: tuple[str, ...],
    exit_code: bool,
) -> int:
    """Plan a run."""
    return planned(session, file, inputs, workspace, all_files, out, use, exit_code)


def planned(
    session: Session,
    file: str,
    inputs: Sequence[str],
    workspace: str | None,
    all_files: bool,
    out: str | None,
    use: Sequence[str],
    exit_code: bool,
) -> int:
    """Say what a run would do; ``run --dry-run`` is the same."""
    path = find(file)
    data = read(path)
    chosen = key_values(use, "--use")
    found = checked(path, data, installed(), chosen)
    if found.workflow is None:
        raise Rendered(render_all(found.diagnostics[:MAX_SHOWN]), len(found.errors))
    given = key_values(inputs, "--input")
    body = body_of(path, found.workflow, workspace, all_files=all_files)
    body |= {"inputs": given, "use": chosen}
    try:
        document = session.api.post(PLANS, body=body)
    except ApiError as error:
        failure = of_error(error)
        if error.code in ("invalid_pipeline", "invalid_input", "invalid_use"):
            failure.status = USAGE
        raise failure from error
    texts = {found.workflow.file: found.workflow.text, **found.workflow.others}
    problems = [from_json(each, texts) for each in document["problems"]]
    if out is not None and not problems:
        _keep(Path(out), document | _moving_sources(body, Path(out)))
    if not session.document(document, default="table"):
        _print(session, document, problems, out)
    if problems:
        return USAGE
    return WOULD_CHANGE if exit_code and _changes(document["steps"]) else 0


def _moving_sources(body: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """What the sources hold where no commit says it."""
    if body["git"] and not body["git"]["dirty"]:
        return {}
    return {"sources": _content(body, out)}


def _content(body: Mapping[str, Any], plan: Path) -> dict[str, str]:
    # What becomes of the pipeline's own text is told by the daemon.
    without = (plan, Path(body["file"]), *map(Path, body["others"]))
    return sources.content_of(Path(body["workspace"]), body["files"], without)


def refuse_other_sources(name: str, plan: Mapping[str, Any], body: Mapping[str, Any]) -> None:
    """Refuse (LS1409) to run a plan whose sources were others, and belonged to no commit."""
    before = plan.get("sources")
    if not isinstance(before, dict):
        return
    now = _content(body, Path(name))
    changed = sorted(path for path in {*before, *now} if before.get(path) != now.get(path))
    if not changed:
        return
    shown = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
    raise Failure(
        f"the world has moved since the plan\nsources that no commit holds are others: {shown}",
        id="LS1409",
        status=REFUSED,
        helps=["plan again: linkspan workflow plan NAME --out FILE"],
    )


def _keep(path: Path, document: Mapping[str, Any]) -> None:
    try:
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
    except OSError as error:
        raise Failure(f"'{path}' cannot be written: {error.strerror}") from error


def read_plan(name: str) -> dict[str, Any]:
    """A plan that was kept, or a failure."""
    try:
        document = json.loads(Path(name).read_bytes())
        return check_document(document)
    except OSError as error:
        raise Failure(f"'{name}' cannot be read: {error.strerror}", status=USAGE) from error
    except ValueError as error:
        helps = ["linkspan workflow plan NAME --out FILE"]
        raise Failure(f"'{name}' is not a plan", status=USAGE, helps=helps) from error
    except InvalidArgument as error:
        raise Failure(f"'{name}': {error.message}", status=USAGE, helps=[error.help]) from error


# drawing


def _print(
    session: Session, document: Mapping[str, Any], problems: Sequence[Diagnostic], out: str | None
) -> None:
    terminal = session.terminal
    steps = document["steps"]
    terminal.print(_head(document))
    for line in _lines(steps):
        terminal.print(line)
    for role, driver in document["drivers"].items():
        terminal.print(f"  {role} by {driver}")
    for lock in document["locks"]:
        terminal.print(f"  lock {lock}")
    if problems:
        terminal.print("")
        for line in render_all(problems[:MAX_SHOWN]).splitlines():
            terminal.print(line)
        count = counted(len(problems), "problem")
        terminal.note(f"{count}; nothing has been started")
        return
    terminal.print(_summary(steps))
    if out is not None:
        terminal.note(f"do exactly this, or refuse: linkspan workflow run --plan {out}")


def _head(document: Mapping[str, Any]) -> str:
    steps = document["steps"]
    jobs = len({(step["job"], step["cell"]) for step in steps})
    sha = document["git"].get("short_sha") or ""
    at = f" at {sha}" if sha else ""
    words = f"{counted(jobs, 'job')}, {counted(len(steps), 'step')}"
    return f"{document['workflow']}  {document['file']}{at}  {words}  plan {document['id']}"


def _lines(steps: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = _folded(steps)
    width = min(40, max((len(place) for place, _ in rows), default=0))
    for place, step in rows:
        yield from _step(step, place, width)


def _folded(steps: Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """One row a step; cells in which it does the same are one row: ``test[×6]/unit``."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for step in steps:
        same = {name: value for name, value in step.items() if name != "cell"}
        groups.setdefault(json.dumps(same, sort_keys=True), []).append(step)
    rows = []
    for first, *others in groups.values():
        cell = f"[{first['cell']}]" if first["cell"] else ""
        if others:
            cell = f"[×{len(others) + 1}]"
        rows.append((f"{first['job']}{cell}/{first['step']}", first))
    return rows


def _step(step: Mapping[str, Any], place: str, width: int) -> Iterator[str]:
    if step["runs"] == "no":
        yield f"↷ {place:<{width}}  its `if` is false"
        return
    maybe = "  (if the run says so)" if step["runs"] == "maybe" else ""
    changes = step["changes"]
    if not changes:
        words = "known when it runs" if step["later"] else step["verb"]
        yield f"· {place:<{width}}  {words}{maybe}"
    for index, change in enumerate(changes):
        what = "  ".join(filter(None, (change["what"], change["detail"])))
        first = place if index == 0 else ""
        sign = "‖" if step["verb"] == ASKS else _SIGNS.get(change["action"], "·")
        yield f"{sign} {first:<{width}}  {what}{maybe if index == 0 else ''}".rstrip()
    if step["later"] and changes:
        yield f"  {'':<{width}}  known when it runs: {', '.join(step['later'])}"


def _summary(steps: Sequence[Mapping[str, Any]]) -> str:
    counts = {"create": 0, "change": 0, "destroy": 0}
    for step in steps:
        for change in step["changes"]:
            if change["action"] in counts:
                counts[change["action"]] += 1
    skipped = sum(step["runs"] == "no" for step in steps)
    parts = [f"{counted(skipped, 'step')} skipped"] if skipped else []
    parts += [f"{counts['create']} created, {counts['change']} changed"]
    parts += [f"{counts['destroy']} destroyed" if counts["destroy"] else "nothing destroyed"]
    return ", ".join(parts)


def _changes(steps: Sequence[Mapping[str, Any]]) -> bool:
    return any(
        change["action"] != "none"
        for step in steps
        if step["runs"] != "no"
        for change in step["changes"]
    )
