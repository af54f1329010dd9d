"""``linkspan workflow …``: parse, one call to the daemon, render."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import click

from linkspan.core.cli.command import command
from linkspan.core.cli.failure import (
    FAILED,
    INTERRUPTED,
    LOCKED,
    REFUSED,
    UNREACHABLE,
    USAGE,
    Failure,
    of_error,
)
from linkspan.core.cli.session import Session
from linkspan.core.client.errors import ApiError, ConnectionLost
from linkspan.core.client.short import Api, segment
from linkspan.sdk.errors import LinkspanError
from linkspan.workflows import sources
from linkspan.workflows.state import GOOD, RunState

if TYPE_CHECKING:
    from linkspan.core.cli.progress import Display

BASE: Final = "/linkspan/v1/runs"
_NO_CHOICE: Final[Mapping[str, str]] = MappingProxyType({})


def _complete_runs(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    from linkspan.core.cli.common import complete

    return complete(BASE, lambda run: [run["id"]])(ctx, _param, incomplete)


run_argument = click.argument("run_ref", metavar="RUN", shell_complete=_complete_runs)
junit_option = click.option(
    "--junit", metavar="FILE", help="Write what the steps did as a JUnit report"
)
break_option = click.option(
    "--break",
    "breaks",
    multiple=True,
    metavar="WHERE",
    help="Hold it there for you to look around: on-failure, before:STEP, after:STEP",
)
use_option = click.option(
    "--use",
    "use",
    multiple=True,
    metavar="ROLE=DRIVER",
    help="Who plays a role, whatever the pipeline says: volume=nfs",
)
detach_option = click.option(
    "-d", "--detach", is_flag=True, help="Print the id and leave it running"
)


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
@click.argument("file", metavar="[FILE]", required=False)
@click.option(
    "--plan", metavar="FILE", help="Do what was planned, or refuse if the world has moved"
)
@click.option("--input", "inputs", multiple=True, metavar="NAME=VALUE", help="A value for an input")
@click.option("--workspace", metavar="DIR", help="Folder of the sources; else the pipeline's own")
@click.option("--all-files", is_flag=True, help="Also folders that git ignores")
@click.option("--only", default="", metavar="JOB", help="This job and nothing else")
@click.option("--step", default="", metavar="JOB/STEP", help="This step and nothing else")
@break_option
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
    untrusted: bool,
    use: tuple[str, ...],
    junit: str | None,
    detach: bool,
) -> int:
    """Run a pipeline."""
    from linkspan.core.cli.common import key_values
    from linkspan.workflows.commands.plan import read_plan
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
    }
    return begin(session, lambda: session.api.post(BASE, body=body), detach=detach, junit=junit)


def body_of(path: Path, workflow: Any, workspace: str | None, *, all_files: bool) -> dict[str, Any]:
    """What the daemon is told about a pipeline and its sources."""
    folder = Path(workspace).resolve() if workspace else sources.workspace_of(path)
    return {
        "file": str(path),
        "text": workflow.text,
        "others": workflow.others,
        "workspace": str(folder),
        "files": None if all_files else sources.git_files(folder),
        "git": sources.git_facts(folder),
        "by": user_name(),
    }


def user_name() -> str:
    """Who types; empty if nobody knows."""
    import getpass

    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return ""


def refuse_faults(
    path: Path, data: bytes, given: Mapping[str, str], use: Mapping[str, str] = _NO_CHOICE
) -> Any:
    """The pipeline; faults of the file and of the inputs need no daemon to be told."""
    from linkspan.core.cli.failure import Rendered
    from linkspan.sdk.diagnostics import render_all
    from linkspan.workflows.check import MAX_SHOWN
    from linkspan.workflows.commands import reading
    from linkspan.workflows.inputs import read_inputs

    checked = reading.checked(path, data, reading.installed(), use)
    if checked.errors or checked.workflow is None:
        shown = checked.diagnostics[:MAX_SHOWN]
        raise Rendered(render_all(shown), len(checked.errors))
    try:
        read_inputs(checked.workflow, given)
    except LinkspanError as error:
        raise Failure(error.message, status=USAGE) from error
    return checked.workflow


def begin(
    session: Session, start: Callable[[], Any], *, detach: bool = False, junit: str | None = None
) -> int:
    """Start a run, or go on with one, and watch it."""
    try:
        started = start()
    except ApiError as error:
        wrong = error.code in ("invalid_pipeline", "invalid_input", "invalid_use", "breakpoint")
        failure = of_error(error)
        failure.status = USAGE if wrong else failure.status
        if error.code == "plan_stale":
            failure.id, failure.status = "LS1409", REFUSED
        raise failure from error
    if detach:
        session.terminal.print(started["id"])
        return 0
    return watch(session, started["id"], after=started["attempt"], junit=junit)


def watch(session: Session, run_id: str, *, after: int = 0, junit: str | None = None) -> int:
    """Show a run until it is not active; Ctrl-C asks it to stop, a second one kills.

    Args:
        session: Of the command.
        run_id: The run.
        after: What came in attempts up to this one is known, and not shown again.
        junit: Where a report goes.
    """
    lost = False
    with _Stopper(session, run_id) as stopper:
        # Loaded only now: it takes a while, in which Ctrl-C already means the run.
        from linkspan.workflows.view import RunView, blame, ending, summary

        view = RunView(session, run_id, after=after)
        with view.display:
            try:
                for event in _events(session, run_id, view.display.update):
                    if event is not None:
                        view.take(event)
                        if event["kind"] == "break-reached":
                            _held(session, run_id, event, view.display, stopper)
            except ConnectionLost:
                lost = True
    state = view.state
    if session.format and session.format != "table":
        session.document(state.as_json(active=False))
    elif not session.quiet and session.terminal.progress != "json":
        summary(session, state)
    if session.terminal.progress != "json":
        for line in ending(session, state, interruption=view.interruption):
            session.terminal.note(line)
        for line in () if lost else blame(session, state):
            session.terminal.note(line)
    if junit is not None:
        _write_junit(junit, state)
    if lost:
        return UNREACHABLE
    return INTERRUPTED if stopper.asked and state.result not in GOOD else status_of(state)


def _held(
    session: Session,
    run_id: str,
    record: Mapping[str, Any],
    display: "Display",
    stopper: "_Stopper",
) -> None:
    """Ask at a breakpoint what is to happen; without a terminal say how it can be told."""
    from linkspan.workflows import break_cli

    held = break_cli.still_held(session, run_id, record)
    if held is None:
        return
    if not break_cli.at_terminal(session):
        if session.terminal.progress != "json":
            for line in break_cli.words(session, run_id, held):
                session.terminal.note(line)
        return
    display.pause()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        break_cli.ask(session, run_id, held)
    except KeyboardInterrupt:
        stopper.interrupted()
    finally:
        signal.signal(signal.SIGINT, before)


def status_of(state: RunState) -> int:
    """The exit status that a run's end has."""
    if state.result in GOOD:
        return 0
    if state.suspended and not state.result:
        return LOCKED
    return REFUSED if state.result == "rejected" else FAILED


def _write_junit(path: str, state: RunState) -> None:
    from linkspan.workflows.junit import report

    try:
        Path(path).write_text(report(state), encoding="utf-8")
    except OSError as error:
        raise Failure(f"'{path}' cannot be written: {error.strerror}") from error


def _events(
    session: Session, run_id: str, idle: Callable[[], None]
) -> Iterator[Mapping[str, Any] | None]:
    """A run's events; ``idle`` is called four times a second while nothing happens."""
    import json
    import select

    with session.api.open("GET", f"{BASE}/{segment(run_id)}/events") as answer:
        pieces = answer.pieces()
        rest = b""
        while True:
            # What may be left of a chunk is its line end; the next chunk is not here then.
            if bytes(answer.reader.buffer) in (b"", b"\r\n"):
                ready, _, _ = select.select([answer.sock], [], [], 0.25)
                if not ready:
                    idle()
                    continue
            piece = next(pieces, None)
            if piece is None:
                return
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if line:
                    yield json.loads(line)


class _Stopper:
    """Turns Ctrl-C into a request to the daemon: once to stop, twice to kill, then to leave."""

    def __init__(self, session: Session, run_id: str) -> None:
        self.asked = 0
        self._session = session
        self._run_id = run_id
        self._before: Any = None

    def __enter__(self) -> "_Stopper":
        self._before = signal.signal(signal.SIGINT, self.interrupted)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def interrupted(self, *_: object) -> None:
        """Ctrl-C was typed."""
        self.asked += 1
        if self.asked > 2:
            raise KeyboardInterrupt
        kill = self.asked == 2
        words = (
            "killing what runs"
            if kill
            else "asked the run to stop; Ctrl-C again kills, and skips `finally`"
        )
        # A terminal shows ^C where the cursor is; the words begin on a line of their own.
        self._session.terminal.note(f"\n{words}")
        try:
            _cancel(self._session.api, self._run_id, kill=kill)
        except LinkspanError as error:
            self._session.terminal.error(of_error(error).render())


def _cancel(api: Api, run_ref: str, *, kill: bool) -> Any:
    return api.post(f"{BASE}/{segment(run_ref)}/cancel", {"kill": kill})


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


def id_of(session: Session, run_ref: str) -> str:
    """The whole id of a run."""
    found = session.api.get(f"{BASE}/{segment(run_ref)}")
    return str(found["id"])


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
@junit_option
@detach_option
def resume(
    session: Session, run_ref: str, breaks: tuple[str, ...], junit: str | None, detach: bool
) -> int:
    """Go on with a run."""
    path = f"{BASE}/{segment(run_ref)}/resume"
    body = {"breaks": list(breaks)}
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
    said = _cancel(session.api, run_ref, kill=kill)
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


def records(session: Session, run_id: str) -> Iterable[Mapping[str, Any]]:
    """The records so far, without waiting for more."""
    with session.api.open("GET", f"{BASE}/{segment(run_id)}/events", {"follow": False}) as answer:
        yield from (event for event in answer.json_lines() if "n" in event)


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
@click.argument("where", required=False, default="", metavar="[JOB[/STEP]]")
@click.option("--tail", type=int, metavar="N", help="The last N lines of each step")
@click.option("-t", "--timestamps", is_flag=True, help="The time before each line")
def logs(session: Session, run_ref: str, where: str, tail: int | None, timestamps: bool) -> int:
    """Show logs."""
    job, _, step = where.partition("/")
    query = {"job": job or None, "step": step or None, "tail": tail}
    several = not step
    with session.api.open("GET", f"{BASE}/{segment(run_ref)}/logs", query) as answer:
        for line in answer.json_lines():
            if session.format in ("json", "jsonl"):
                session.document(line, default="jsonl")
                continue
            place = "/".join(filter(None, (line["job"], line["step"])))
            prefix = f"{place} | " if several else ""
            time = f"{line['time']} " if timestamps else ""
            session.terminal.print(f"{prefix}{time}{line['line']}")
    return 0
