"""``linkspan workflow …``: parse, one call to the daemon, render."""

from collections.abc import Iterable, Mapping
from typing import Any

import click

from linkspan.core.cli.command import command
from linkspan.core.cli.failure import USAGE, Failure
from linkspan.core.cli.session import Session
from linkspan.core.client.short import segment
from linkspan.workflows.commands.completing import (
    BASE,
    complete_jobs,
    complete_pipelines,
    complete_steps,
)
from linkspan.workflows.commands.shared import (
    body_of,
    break_option,
    detach_option,
    dry_run_option,
    id_of,
    input_option,
    junit_option,
    limit,
    records,
    refuse_faults,
    run_argument,
    timeout_option,
    use_option,
    where_argument,
)
from linkspan.workflows.state import RunState
from linkspan.workflows.watching import begin, cancel_run, watch

# run


@command(
    "run",
    "Run a pipeline and watch it.",
    examples=[
        "linkspan workflow run release",
        "linkspan workflow run ci/release.yaml --input version=2 --input port=8080",
        "linkspan workflow run --plan release.plan",
        "linkspan workflow run release --progress plain --format json",
        "linkspan workflow run ci --break on-failure",
    ],
    more=[
        "linkspan workflow break",
        "linkspan workflow resume",
        "linkspan workflow logs",
        "linkspan workflow plan",
    ],
)
@click.argument("file", metavar="[FILE]", required=False, shell_complete=complete_pipelines)
@click.option(
    "--plan", metavar="FILE", help="Do what was planned, or refuse if the world has moved"
)
@input_option
@click.option("--workspace", metavar="DIR", help="Folder of the sources; else the pipeline's own")
@click.option("--all-files", is_flag=True, help="Also folders that git ignores")
@click.option(
    "--only",
    default="",
    metavar="JOB",
    help="This job and nothing else",
    shell_complete=complete_jobs,
)
@click.option(
    "--step",
    default="",
    metavar="JOB/STEP",
    help="This step and nothing else",
    shell_complete=complete_steps,
)
@break_option
@timeout_option
@dry_run_option
@click.option(
    "--untrusted", is_flag=True, help="Scripts only: no secrets, verbs, mounts or network"
)
@use_option
@junit_option
@detach_option
def run(
    session: Session,
    file: str | None,
    plan: str | None,
    inputs: tuple[str, ...],
    workspace: str | None,
    all_files: bool,
    only: str,
    step: str,
    breaks: tuple[str, ...],
    timeout_s: float | None,
    dry_run: bool,
    untrusted: bool,
    use: tuple[str, ...],
    junit: str | None,
    detach: bool,
) -> int:
    """Run a pipeline."""
    from linkspan.core.cli.common import key_values
    from linkspan.workflows.commands.plan import planned, read_plan, refuse_other_sources
    from linkspan.workflows.commands.reading import find, read

    if (file is None) == (plan is None) or (plan is not None and (inputs or only or step or use)):
        raise Failure(
            "a run takes a pipeline, or a plan with its inputs",
            id="LS0004",
            status=USAGE,
            helps=["linkspan workflow run FILE --input NAME=VALUE", "or  --plan FILE  alone"],
        )
    if only and step:
        raise Failure("--only and --step exclude each other", id="LS0004", status=USAGE)
    if step and "/" not in step:
        raise Failure(
            f"--step wants JOB/STEP, not '{step}'",
            id="LS0004",
            status=USAGE,
            helps=[f"a whole job: --only {step}"],
        )
    if dry_run:
        if file is None or only or step or breaks or untrusted:
            raise Failure(
                "--dry-run plans the whole of a pipeline",
                id="LS0004",
                status=USAGE,
                helps=["linkspan workflow run FILE --dry-run"],
            )
        return planned(session, file, inputs, workspace, all_files, None, use, False)
    kept = None if plan is None else read_plan(plan)
    path = find(kept["file"] if kept else str(file))
    given = kept["given"] if kept else key_values(inputs, "--input")
    chosen = kept.get("use", {}) if kept else key_values(use, "--use")
    workflow = refuse_faults(path, read(path), given, chosen)
    body = {
        **body_of(path, workflow, workspace, all_files=all_files),
        "inputs": given,
        "use": chosen,
        "only": only or step,
        "untrusted": untrusted,
        "plan": kept or {},
        "breaks": list(breaks),
        **limit(timeout_s, breaks),
    }
    if kept is not None:
        refuse_other_sources(str(plan), kept, body)
    return begin(session, lambda: session.api.post(BASE, body=body), detach=detach, junit=junit)


@command(
    "attach",
    "Watch a run that is under way, from its beginning.",
    examples=["linkspan workflow attach last", "linkspan workflow attach 7f3a --progress json"],
    more=["linkspan workflow cancel"],
)
@run_argument
@junit_option
def attach(session: Session, run_ref: str, junit: str | None) -> int:
    """Watch a run."""
    return watch(session, id_of(session, run_ref), junit=junit)


@command(
    "resume",
    "Go on with a run that failed, was cancelled or interrupted; what is done is not done again.",
    examples=[
        "linkspan workflow resume 7f3a",
        "linkspan workflow resume last --break on-failure",
    ],
    more=["linkspan workflow ls", "linkspan workflow show", "linkspan workflow break"],
)
@run_argument
@break_option
@timeout_option
@junit_option
@detach_option
def resume(
    session: Session,
    run_ref: str,
    breaks: tuple[str, ...],
    timeout_s: float | None,
    junit: str | None,
    detach: bool,
) -> int:
    """Go on with a run."""
    path = f"{BASE}/{segment(run_ref)}/resume"
    body = {"breaks": list(breaks), **limit(timeout_s, breaks)}
    return begin(session, lambda: session.api.post(path, body=body), detach=detach, junit=junit)


@command(
    "cancel",
    "Ask a run to stop: its steps get SIGTERM and their grace, then `finally` runs.",
    examples=["linkspan workflow cancel 7f3a", "linkspan workflow cancel 7f3a --kill"],
)
@run_argument
@click.option("--kill", is_flag=True, help="At once, without grace and without `finally`")
def cancel(session: Session, run_ref: str, kill: bool) -> int:
    """Ask a run to stop."""
    said = cancel_run(session.api, run_ref, kill=kill)
    if not session.document(said, default="table"):
        session.terminal.print(said["id"])
    return 0


# looking


@command(
    "ls",
    "List runs, newest first.",
    examples=[
        "linkspan workflow ls",
        "linkspan workflow ls -q",
        "linkspan workflow ls --format json",
    ],
    more=["linkspan workflow show"],
)
def ls(session: Session) -> int:
    """List runs."""
    from linkspan.core.cli.words import age_of
    from linkspan.sdk.units import format_duration
    from linkspan.workflows.view import sign

    def columns(row: Mapping[str, Any]) -> list[str]:
        state = f"{sign(session, row['state'], on_err=False)} {row['state']}"
        took = format_duration(row["duration_s"]) if row["result"] else ""
        age = age_of(row["created_at"], session.now)
        return [row["id"], row["workflow"], state, str(row["attempt"]), took, age, row["by"]]

    def fields(row: Mapping[str, Any]) -> dict[str, Any]:
        return {"ID": row["id"], "Workflow": row["workflow"], "State": row["state"]}

    session.rows(
        session.api.get(BASE),
        fields,
        columns,
        ["RUN", "WORKFLOW", "STATE", "ATTEMPT", "DURATION", "AGE", "BY"],
        drop=["BY", "ATTEMPT", "AGE"],
        keep=["RUN", "STATE"],
    )
    return 0


@command(
    "show",
    "Show a run with its jobs and steps, and what it says to do next.",
    examples=["linkspan workflow show last", "linkspan workflow show 7f3a --format json"],
    more=["linkspan workflow logs"],
)
@run_argument
def show(session: Session, run_ref: str) -> int:
    """Show a run."""
    document = session.api.get(f"{BASE}/{segment(run_ref)}")
    if session.document(document, default="table"):
        return 0
    from linkspan.workflows.view import ending, summary

    state = RunState()
    active = document["active"]
    for event in records(session, document["id"]):
        state.take(event)
    summary(session, state)
    if active:
        session.terminal.note(f"{document['state']}: linkspan workflow attach {document['id']}")
        return 0
    for line in ending(session, state):
        session.terminal.note(line)
    return 0


@command(
    "logs",
    "Show what the steps of a run wrote.",
    examples=[
        "linkspan workflow logs last",
        "linkspan workflow logs 7f3a deploy/rollout",
        "linkspan workflow logs 7f3a test --tail 50",
    ],
    more=["linkspan workflow attach --verbose"],
)
@run_argument
@where_argument
@click.option("--tail", type=int, metavar="N", help="The last N lines of each step")
@click.option("-t", "--timestamps", is_flag=True, help="The time before each line")
def logs(session: Session, run_ref: str, where: str, tail: int | None, timestamps: bool) -> int:
    """Show logs."""
    job, _, step = where.partition("/")
    query = {"job": job or None, "step": step or None, "tail": tail}
    several = not step
    with session.api.open("GET", f"{BASE}/{segment(run_ref)}/logs", query) as answer:
        if session.format == "json":
            _as_list(session, answer.json_lines())
            return 0
        for line in answer.json_lines():
            if session.format not in ("", "table"):
                # Entries of a list, one after the other, are a list.
                session.document([line] if session.format == "yaml" else line)
                continue
            place = "/".join(filter(None, (line["job"], line["step"])))
            prefix = f"{place} | " if several else ""
            time = f"{line['time']} " if timestamps else ""
            session.terminal.print(f"{prefix}{time}{line['line']}")
    return 0


def _as_list(session: Session, records: Iterable[Mapping[str, Any]]) -> None:
    """One JSON document, written as it comes: a log may be larger than the memory."""
    import json

    before = "["
    for record in records:
        session.terminal.print(f"{before}{json.dumps(record, ensure_ascii=False)}")
        before = ","
    session.terminal.print("]" if before == "," else "[]")
