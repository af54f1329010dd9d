"""What several commands about pipelines and runs take, and what they send."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import click

from linkspan.core.cli.command import Seconds
from linkspan.core.cli.failure import USAGE, Failure
from linkspan.core.cli.session import Session
from linkspan.core.client.short import segment
from linkspan.sdk.errors import LinkspanError
from linkspan.workflows import sources
from linkspan.workflows.commands.completing import (
    BASE,
    complete_breaks,
    complete_inputs,
    complete_places_of_run,
    complete_runs,
)

_NO_CHOICE: Final[Mapping[str, str]] = MappingProxyType({})


run_argument = click.argument("run_ref", metavar="RUN", shell_complete=complete_runs)
where_argument = click.argument(
    "where",
    required=False,
    default="",
    metavar="[JOB[/STEP]]",
    shell_complete=complete_places_of_run,
)
input_option = click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=VALUE",
    help="A value for an input",
    shell_complete=complete_inputs,
)
junit_option = click.option(
    "--junit", metavar="FILE", help="Write what the steps did as a JUnit report"
)
break_option = click.option(
    "--break",
    "breaks",
    multiple=True,
    metavar="WHERE",
    help="Hold it there for you to look around: on-failure, before:STEP, after:STEP",
    shell_complete=complete_breaks,
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Say what would be done, and do nothing"
)
timeout_option = click.option(
    "--timeout",
    "timeout_s",
    type=Seconds(),
    metavar="TIME",
    help="Ask the run to stop after 30s, 10m, 1h; exit status 124",
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


def limit(timeout_s: float | None, breaks: Sequence[str]) -> dict[str, Any]:
    """What the daemon is told about ``--timeout``."""
    if timeout_s is None:
        return {}
    if breaks:
        raise Failure("--timeout and --break exclude each other", id="LS0004", status=USAGE)
    if not 0 < timeout_s < 1e9:
        raise Failure("--timeout must be more than 0", id="LS0004", status=USAGE)
    return {"timeout_s": timeout_s}


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


def id_of(session: Session, run_ref: str) -> str:
    """The whole id of a run."""
    found = session.api.get(f"{BASE}/{segment(run_ref)}")
    return str(found["id"])


def records(session: Session, run_id: str) -> Iterable[Mapping[str, Any]]:
    """The records so far, without waiting for more."""
    with session.api.open("GET", f"{BASE}/{segment(run_id)}/events", {"follow": False}) as answer:
        yield from (event for event in answer.json_lines() if "n" in event)
