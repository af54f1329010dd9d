"""``linkspan workflow break`` and ``shell``, and what is asked at the terminal of a run that is held."""

import os
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

import click

from linkspan.core.cli.command import command
from linkspan.core.cli.failure import USAGE, Failure, of_error
from linkspan.core.cli.session import Session
from linkspan.core.client.short import segment
from linkspan.sdk.errors import LinkspanError
from linkspan.workflows.commands.completing import BASE
from linkspan.workflows.commands.shared import run_argument, user_name, where_argument
from linkspan.workflows.live_jobs import WHEN
from linkspan.workflows.view import sign

_KEYS: Final = {"r": "retry", "k": "skip", "c": "continue", "a": "abort"}
_PROMPT: Final = "  s shell   r retry   e edit and retry   k skip   c continue   a abort: "


def at_terminal(session: Session) -> bool:
    """Whether somebody can be asked."""
    return (
        sys.stdin.isatty()
        and sys.stderr.isatty()
        and not os.environ.get("CI")
        and session.terminal.progress != "json"
    )


def still_held(
    session: Session, run_id: str, record: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    """The breakpoint that a ``break-reached`` record tells of; None if it was left already."""
    return next((each for each in _all_held(session, run_id) if each["n"] == record["n"]), None)


def _all_held(session: Session, run_ref: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = session.api.get(f"{BASE}/{segment(run_ref)}/break")["held"]
    return found


def _head(session: Session, held: Mapping[str, Any]) -> Iterator[str]:
    yield f"{sign(session, 'held')} {held['place']}  held {WHEN[held['when']]}"
    for line in str(held["error"].get("message", "")).splitlines():
        yield f"  {line}"
    if held["reason"]:
        yield f"  no shell: {held['reason']}"


def words(session: Session, run_id: str, held: Mapping[str, Any]) -> Iterator[str]:
    """Where a run is held, and how it is told to go on."""
    yield from _head(session, held)
    call = f"linkspan workflow break {run_id} {held['place']}"
    if held["container"]:
        yield f"  look    {call} --shell    container {held['container'][:12]}"
    edit = ", --edit FILE" if held["editable"] else ""
    skip = "" if held["when"] == "after" else ", --skip"
    yield f"  next    {call} --retry    or --continue{skip}{edit}, --abort"


def ask(session: Session, run_id: str, held: Mapping[str, Any]) -> None:
    """Ask until something is decided, or nobody is there any more.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    for line in _head(session, held):
        session.terminal.note(line)
    while True:
        sys.stderr.write(_PROMPT)
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            session.terminal.note("")
            for each in words(session, run_id, held):
                session.terminal.note(each)
            return
        try:
            if _answer(session, run_id, held, line.strip().lower()[:1]):
                return
        except LinkspanError as error:
            session.terminal.error(of_error(error).render())
            if getattr(error, "code", "") == "not_held":
                return


def _answer(session: Session, run_id: str, held: Mapping[str, Any], key: str) -> bool:
    """Do what a key says; whether that decides."""
    if key == "s":
        if held["container"]:
            _shell(session, held)
        else:
            session.terminal.note(f"  no shell: {held['reason']}")
        return False
    if key == "e":
        script = click.edit(held["script"], extension=".sh") if held["editable"] else None
        if script is None:
            why = "nothing was changed" if held["editable"] else "the step has no script"
            session.terminal.note(f"  {why}")
            return False
        _decide(session, run_id, held["place"], "retry", script)
        return True
    if key in _KEYS:
        _decide(session, run_id, held["place"], _KEYS[key])
        return True
    return False


def _shell(session: Session, held: Mapping[str, Any]) -> int:
    """A shell where the step runs; off a terminal it reads its commands from our stdin."""
    from linkspan.core.cli.run import exec_joined

    body = {
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": sys.stdin.isatty(),
        "Cmd": [held["shell"]],
    }
    return exec_joined(session, held["container"], body)


def _decide(
    session: Session, run_ref: str, place: str, action: str, script: str | None = None
) -> dict[str, Any]:
    body = {"action": action, "script": script, "place": place, "by": user_name()}
    path = f"{BASE}/{segment(run_ref)}/break"
    said: dict[str, Any] = session.api.post(path, body=body)
    return said


@command(
    "break",
    "Look around where a run is held at a breakpoint, and let it go on.",
    examples=[
        "linkspan workflow break last",
        "linkspan workflow break last --shell",
        "linkspan workflow break 7f3a test/unit --edit fixed.sh",
        "linkspan workflow break last --continue",
    ],
    more=["linkspan workflow run", "linkspan workflow resume"],
)
@run_argument
@where_argument
@click.option("--shell", is_flag=True, help="A shell in a container like the step's own")
@click.option("--retry", is_flag=True, help="Run the step (again)")
@click.option("--edit", metavar="FILE", help="Run it with this script; - reads it from stdin")
@click.option("--skip", is_flag=True, help="Go on as if the step had been skipped")
@click.option("--continue", "go_on", is_flag=True, help="Go on as without a breakpoint")
@click.option("--abort", is_flag=True, help="Stop the run; its `finally` runs")
def break_(
    session: Session,
    run_ref: str,
    where: str,
    shell: bool,
    retry: bool,
    edit: str | None,
    skip: bool,
    go_on: bool,
    abort: bool,
) -> int:
    """Look around, and let a run go on."""
    flags = {"retry": retry, "skip": skip, "continue": go_on, "abort": abort}
    actions = [name for name, given in flags.items() if given]
    if len(actions) + shell + (edit is not None) > 1:
        raise Failure("one thing at a time", id="LS0004", status=USAGE)
    if shell:
        return _shell(session, _only(session, run_ref, where))
    if edit is not None:
        said = _decide(session, run_ref, where, "retry", _read(edit))
    elif actions:
        said = _decide(session, run_ref, where, actions[0])
    else:
        return _show(session, run_ref, where)
    if not session.document(said, default="table"):
        session.terminal.print(said["id"])
        session.terminal.note(
            f"{said['job']}/{said['step']}  {said['action']}; linkspan workflow attach {said['id']}"
        )
    return 0


def _read(file: str) -> str:
    try:
        with click.open_file(file, encoding="utf-8") as opened:
            return str(opened.read())
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"'{file}' cannot be read: {error}", status=USAGE) from error


def _matching(session: Session, run_ref: str, where: str) -> list[dict[str, Any]]:
    return [
        each
        for each in _all_held(session, run_ref)
        if where in ("", each["place"], each["place"].rpartition("/")[0])
    ]


def _only(session: Session, run_ref: str, where: str) -> dict[str, Any]:
    """The one breakpoint with a container."""
    found = _matching(session, run_ref, where)
    if len(found) != 1:
        places = ", ".join(each["place"] for each in found)
        raise Failure(
            f"run '{run_ref}' is held at {places}"
            if found
            else f"run '{run_ref}' is not held there",
            helps=["linkspan workflow break RUN JOB/STEP --shell"] if found else [],
        )
    if not found[0]["container"]:
        raise Failure(f"{found[0]['place']} has no container: {found[0]['reason']}")
    return found[0]


def _show(session: Session, run_ref: str, where: str) -> int:
    """Where the run is held; at a terminal, ask."""
    found = _matching(session, run_ref, where)
    if session.document({"held": found}, default="table"):
        return 0
    if not found:
        session.terminal.note(f"run '{run_ref}' is not held at a breakpoint")
    for each in found:
        if at_terminal(session):
            ask(session, run_ref, each)
        else:
            for line in words(session, run_ref, each):
                session.terminal.print(line)
    return 0


@command(
    "shell",
    "Look around where a step of a run ran: a new container like its own, with the files as the run left them.",
    examples=[
        "linkspan workflow shell last",
        "linkspan workflow shell 7f3a test/unit",
        "linkspan workflow shell 7f3a test/unit < commands.sh",
    ],
    more=["linkspan workflow break", "linkspan workflow rerun"],
)
@run_argument
@where_argument
def shell(session: Session, run_ref: str, where: str) -> int:
    """A shell where a step ran; the container goes with it."""
    run = session.api.get(f"{BASE}/{segment(run_ref)}")
    if run["active"]:
        return _shell(session, _only(session, run["id"], where))
    place = _where_to_look(run, where)
    body = {"look": True, "from": place, "by": user_name()}
    look = session.api.post(f"{BASE}/{segment(run['id'])}/rerun", body=body)["id"]
    with session.api.open("GET", f"{BASE}/{segment(look)}/events") as answer:
        events = answer.json_lines()
        try:
            held = next((each for each in events if each["kind"] == "break-reached"), None)
            if held is None:
                raise Failure(
                    f"{place} cannot be looked at: its job does not come to it any more",
                    helps=[f"linkspan workflow show {run['id']}"],
                )
            if not held["container"]:
                raise Failure(f"{place} has no container: {held['reason']}")
            session.terminal.note(f"like {place} of run {run['id']}; it goes when you leave it")
            return _shell(session, held)
        finally:
            with suppress(LinkspanError):
                session.api.post(f"{BASE}/{segment(look)}/cancel", {"kill": True})
            # Nothing of it is left when its events end.
            deque(events, maxlen=0)


def _where_to_look(run: Mapping[str, Any], where: str) -> str:
    """The step that is meant, else the first one that went wrong."""
    if "/" in where:
        return where
    steps = [
        (f"{job['id']}/{step['id']}", step["state"])
        for job in run["jobs"]
        if where in ("", job["id"])
        for step in job["steps"]
    ]
    wrong = [place for place, state in steps if state in ("failed", "timed-out", "cancelled")]
    if wrong:
        return wrong[0]
    if where and not steps:
        return where  # a step's name, or none: the daemon knows
    raise Failure(
        f"no step of run {run['id']} went wrong: say which one",
        status=USAGE,
        helps=[f"linkspan workflow shell {run['id']} {place}" for place, _ in steps[:3]],
    )
