"""``linkspan workflow rerun|approve|reject|undo|why|prune``: what is done about a run later."""

import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from linkspan.core.cli.command import command
from linkspan.core.cli.failure import FAILED, INTERRUPTED, USAGE, Failure
from linkspan.core.cli.session import Session
from linkspan.core.client.short import segment
from linkspan.workflows.commands.completing import BASE, complete_steps_of_run
from linkspan.workflows.commands.shared import (
    body_of,
    break_option,
    detach_option,
    dry_run_option,
    id_of,
    junit_option,
    limit,
    records,
    run_argument,
    timeout_option,
    use_option,
    user_name,
    where_argument,
)
from linkspan.workflows.watching import Stopper, begin

_DIGEST = re.compile(r"\b(sha256:[0-9a-f]{12})[0-9a-f]{52}\b")
"""People compare its first digits; ``--format json`` has all of them."""


@command(
    "rerun",
    "Do a run again, with its recorded text, inputs, sources and images.",
    examples=[
        "linkspan workflow rerun 7f3a",
        "linkspan workflow rerun last --failed",
        "linkspan workflow rerun 7f3a --from deploy/rollout",
        "linkspan workflow rerun last --failed --break on-failure",
        "linkspan workflow rerun 7f3a --fresh --input version=3",
    ],
    more=["linkspan workflow resume", "linkspan workflow why"],
)
@run_argument
@click.option("--failed", is_flag=True, help="Only jobs that did not succeed, and what needs them")
@click.option(
    "--from",
    "start",
    default="",
    metavar="STEP",
    help="JOB/STEP and what comes after it",
    shell_complete=complete_steps_of_run,
)
@click.option("--fresh", is_flag=True, help="With the pipeline and the sources as they are now")
@click.option("--input", "inputs", multiple=True, metavar="NAME=VALUE", help="Another value")
@break_option
@timeout_option
@use_option
@junit_option
@detach_option
def rerun(
    session: Session,
    run_ref: str,
    failed: bool,
    start: str,
    fresh: bool,
    inputs: tuple[str, ...],
    breaks: tuple[str, ...],
    timeout_s: float | None,
    use: tuple[str, ...],
    junit: str | None,
    detach: bool,
) -> int:
    """Do a run again."""
    from linkspan.core.cli.common import key_values

    body: dict[str, Any] = {
        "failed": failed,
        "from": start,
        "inputs": key_values(inputs, "--input"),
        "use": key_values(use, "--use"),
        "by": user_name(),
        "breaks": list(breaks),
        **limit(timeout_s, breaks),
    }
    if fresh:
        body["fresh"] = _fresh(session, run_ref)
    path = f"{BASE}/{segment(run_ref)}/rerun"
    return begin(session, lambda: session.api.post(path, body=body), detach=detach, junit=junit)


def _fresh(session: Session, run_ref: str) -> dict[str, Any]:
    """The pipeline and the sources that a run was made from, as they are now."""
    from linkspan.core.cli.failure import Rendered
    from linkspan.sdk.diagnostics import render_all
    from linkspan.workflows.commands import reading

    for record in records(session, id_of(session, run_ref)):
        file, workspace = Path(record["file"]), str(record["workspace"])
        path = file if file.is_absolute() or file.is_file() else Path(workspace) / file
        if not path.is_file():
            raise Failure(
                f"the pipeline '{file}' is not here any more",
                status=USAGE,
                helps=["call this in the folder from which it was run"],
            )
        found = reading.checked(path, reading.read(path), reading.installed())
        if found.workflow is None:
            raise Rendered(render_all(found.diagnostics), len(found.errors))
        return body_of(path, found.workflow, workspace, all_files=False)
    raise Failure(f"run '{run_ref}' has no record", status=FAILED)


# a person decides


def _decide(
    session: Session, run_ref: str, vote: str, where: str, comment: str, *, yes: bool
) -> int:
    from linkspan.workflows.view import questions

    document = session.api.get(f"{BASE}/{segment(run_ref)}")
    asked = list(questions(session, document, where))
    # Where nothing is asked, the daemon says why.
    if asked and not yes:
        for line in asked:
            session.terminal.note(line)
        _confirm(f"{vote.capitalize()} as {user_name() or 'nobody'}?")
    body = {"vote": vote, "place": where, "comment": comment, "by": user_name()}
    said = session.api.post(f"{BASE}/{segment(run_ref)}/decide", body=body)
    if session.document(said, default="table"):
        return 0
    run_id = said["id"]
    if not said["decision"]:
        session.terminal.note(f"run {run_id} waits for others to approve, too")
        return 0
    session.terminal.print(run_id)
    word = "approved" if said["decision"] == "approve" else "rejected"
    session.terminal.note(f"{said['job']}/{said['step']} {word}; linkspan workflow attach {run_id}")
    return 0


def _confirm(question: str) -> None:
    if not (sys.stdin.isatty() and sys.stderr.isatty()) or os.environ.get("CI"):
        raise Failure("this has to be confirmed", status=USAGE, helps=["add --yes"])
    if not click.confirm(question, default=False, err=True):
        raise Failure("nothing was decided", status=FAILED)


_comment_option = click.option("-m", "--comment", default="", help="Why; it is recorded")
_yes_option = click.option("-y", "--yes", is_flag=True, help="Ask nothing")


@command(
    "approve",
    "Show what a run asks, with its plan and tests, and let it go on.",
    examples=["linkspan workflow approve 7f3a", "linkspan workflow approve last --yes -m checked"],
    more=["linkspan workflow reject", "linkspan workflow show"],
)
@run_argument
@where_argument
@_comment_option
@_yes_option
def approve(session: Session, run_ref: str, where: str, comment: str, yes: bool) -> int:
    """Let a run go on."""
    return _decide(session, run_ref, "approve", where, comment, yes=yes)


@command(
    "reject",
    "Show what a run asks, and do not let it go on.",
    examples=["linkspan workflow reject 7f3a -m 'not before the weekend'"],
    more=["linkspan workflow approve"],
)
@run_argument
@where_argument
@_comment_option
@_yes_option
def reject(session: Session, run_ref: str, where: str, comment: str, yes: bool) -> int:
    """Do not let a run go on."""
    return _decide(session, run_ref, "reject", where, comment, yes=yes)


# later


@command(
    "undo",
    "Take back everything that a run has changed, the last change first.",
    examples=[
        "linkspan workflow undo 7f3a",
        "linkspan workflow undo last --yes",
        "linkspan workflow undo last --dry-run",
        "linkspan workflow undo last --secret TOKEN < token.txt",
    ],
    more=["linkspan workflow show", "linkspan workflow logs"],
)
@run_argument
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="One that cannot be read any more; without a value it is asked for, or read from stdin",
)
@_yes_option
@dry_run_option
def undo(session: Session, run_ref: str, secrets: tuple[str, ...], yes: bool, dry_run: bool) -> int:
    """Take back what a run has changed."""
    from linkspan.workflows.state import fold
    from linkspan.workflows.undoing import not_undoable, undoable

    given = {"secrets": _given(secrets)} if secrets else None
    state = fold(records(session, id_of(session, run_ref)))
    changes = [
        (f"{job.id}/{step.id}", step.intent["verb"] if step.intent else "")
        for job, step in undoable(state)
    ]
    for why, places in not_undoable(state).items():
        session.terminal.note(f"  {why}: {', '.join(places)}")
    if dry_run:
        _show_changes(session, changes)
        return 0
    # Where nothing can be taken back, the daemon says why.
    if changes and not yes:
        for place, verb in changes:
            session.terminal.note(f"  {place}  {verb}")
        _confirm(f"Take back these changes of run {state.id}?")
    stopper = Stopper(
        session,
        state.id,
        once="asked to stop after the step that is being taken back; Ctrl-C again stops at once",
        twice="stopping at once",
    )
    with stopper:
        said = session.api.post(f"{BASE}/{segment(state.id)}/undo", body=given)
    failed = INTERRUPTED if said["undone"] == "cancelled" else FAILED
    if session.document(said, default="table"):
        return 0 if said["undone"] == "success" else failed
    after = fold(records(session, said["id"]))
    for job, step in _undone(after, state):
        back = session.terminal.painted_sign(
            "rolled-back" if step.undo_result == "success" else "failed"
        )
        session.terminal.note(f"{back} {job.id}/{step.id}  {step.undo_detail}")
    session.terminal.print(said["id"])
    if said["undone"] == "cancelled":
        session.terminal.note(f"the rest stays: linkspan workflow undo {said['id']} goes on")
    return 0 if said["undone"] == "success" else failed


def _show_changes(session: Session, changes: Iterable[tuple[str, str]]) -> None:
    session.rows(
        [{"step": place, "verb": verb} for place, verb in changes],
        lambda row: {"Step": row["step"], "Verb": row["verb"]},
        lambda row: [row["step"], row["verb"]],
        ["STEP", "VERB"],
        ids="Step",
    )


def _given(secrets: Iterable[str]) -> dict[str, str]:
    """Secrets as they were given; a line of stdin for each that is only named."""
    found = {}
    for word in secrets:
        name, written, value = word.partition("=")
        if not name:
            raise Failure(f"'{word}' names no secret", status=USAGE, helps=["--secret NAME=VALUE"])
        if not written and sys.stdin.isatty():
            value = click.prompt(name, hide_input=True, err=True)
        elif not written:
            value = sys.stdin.readline().rstrip("\n")
        if not value:
            raise Failure(
                f"secret '{name}' is empty", status=USAGE, helps=[f"--secret {name}=VALUE"]
            )
        found[name] = value
    return found


def _undone(after: Any, before: Any) -> Iterable[tuple[Any, Any]]:
    for job in after.jobs.values():
        for step in job.steps.values():
            if step.undo_result and before.jobs[job.id].steps[step.id].undo_result != "success":
                yield job, step


@command(
    "why",
    "Say what is different from the last run that succeeded.",
    examples=["linkspan workflow why last", "linkspan workflow why 7f3a --format json"],
    more=["linkspan workflow logs"],
)
@run_argument
def why(session: Session, run_ref: str) -> int:
    """Compare a run with the last green one."""
    said = session.api.get(f"{BASE}/{segment(run_ref)}/why")
    if session.document(said, default="table"):
        return 0
    session.terminal.note(f"against run {said['against']}, the last one that succeeded before")
    rows = [_difference(each) for each in said["differences"]]
    if rows:
        session.terminal.table(["SUBJECT", "WHAT", "CHANGE"], rows, keep=["SUBJECT"])
    same = ", ".join(said["same"])
    session.terminal.note(f"same: {same}" if rows else f"nothing is different: {same}")
    for each in said["differences"]:
        if each["likely"]:
            session.terminal.note(f"likely: {each['subject']} {each['what']}; the log names it")
    return 0


def _difference(each: Mapping[str, Any]) -> list[str]:
    before, after = each["before"], each["after"]
    if each["subject"] == "sources":
        return [each["subject"], each["what"], after]
    change = f"{before or '(nothing)'} → {after or '(nothing)'}"
    return [each["subject"], each["what"], _DIGEST.sub(r"\1", change)]


@command(
    "prune",
    "Remove runs that have ended, with their logs and files.",
    examples=[
        "linkspan workflow prune --keep 20",
        "linkspan workflow prune --older-than 30d --yes",
    ],
    more=["linkspan workflow ls"],
)
@click.option("--keep", type=click.IntRange(min=0), default=0, help="The newest so many stay")
@click.option(
    "--older-than", metavar="TIME", help="Only those that have been still so long: 12h, 30d"
)
@_yes_option
@dry_run_option
def prune(session: Session, keep: int, older_than: str | None, yes: bool, dry_run: bool) -> int:
    """Remove runs."""
    from linkspan.core.cli.common import bad_value
    from linkspan.sdk.errors import InvalidArgument
    from linkspan.sdk.units import parse_duration

    age = 0.0
    if older_than is not None:
        days = older_than.removesuffix("d")
        try:
            age = float(int(days) * 86400 if days != older_than else parse_duration(older_than))
        except (InvalidArgument, ValueError) as error:
            raise bad_value(str(error), "--older-than") from error
    if not yes and not dry_run:
        _confirm("Remove the logs and records of these runs?")
    body = {"keep": keep, "older_than_s": age, "dry_run": dry_run}
    said = session.api.post(f"{BASE}/prune", body=body)
    if not session.document(said, default="table"):
        for run_id in said["removed"]:
            session.terminal.print(run_id)
    return 0
