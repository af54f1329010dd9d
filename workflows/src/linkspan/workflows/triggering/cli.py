"""``linkspan workflow serve|watch|hook``: runs that begin without being asked for."""

import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click

from linkspan.core.cli.command import command
from linkspan.core.cli.failure import FAILED, INTERRUPTED, USAGE, Failure, of_error
from linkspan.core.cli.session import Session
from linkspan.core.client.short import segment
from linkspan.sdk.errors import LinkspanError
from linkspan.workflows import sources, watching
from linkspan.workflows.commands import reading, shared
from linkspan.workflows.commands.completing import (
    BASE as RUNS,
    complete_pipelines,
    complete_served,
)
from linkspan.workflows.model import Workflow

BASE: Final = "/linkspan/v1/served"


@command(
    "serve",
    "Let the daemon start a folder's pipelines by itself: at their times, and by webhooks.",
    examples=[
        "linkspan workflow serve",
        "linkspan workflow serve /srv/shop --name shop",
        "linkspan workflow serve --ls",
        "linkspan workflow serve --rm shop",
    ],
    more=["linkspan workflow watch", "linkspan workflow hook install"],
)
@click.argument("folder", metavar="[DIR]", default=".")
@click.option("--name", default="", help="In hooks' addresses; else the folder's own")
@click.option("--ls", "show", is_flag=True, help="Say what is served, and when it starts next")
@click.option(
    "--rm",
    "remove",
    metavar="NAME",
    help="Serve it no more",
    shell_complete=complete_served,
)
def serve(session: Session, folder: str, name: str, show: bool, remove: str | None) -> int:
    """Serve a folder."""
    if remove:
        session.api.delete(f"{BASE}/{segment(remove)}")
        session.terminal.print(remove)
        return 0
    if show:
        _show(session, session.api.get(BASE))
        return 0
    path = Path(folder).resolve()
    if not path.is_dir():
        raise Failure(f"there is no folder {folder}", status=USAGE)
    _show(session, session.api.post(BASE, body={"folder": str(path), "name": name}))
    return 0


def _show(session: Session, document: Mapping[str, Any]) -> None:
    def columns(row: Mapping[str, Any]) -> list[str]:
        state = "; ".join(row["errors"]) or ", ".join(row["triggers"])
        return [row["name"], state, _local(row["next"]), row["file"]]

    def fields(row: Mapping[str, Any]) -> dict[str, Any]:
        return {"Name": row["name"], "Triggers": row["triggers"], "Next": row["next"]}

    session.rows(
        document["pipelines"],
        fields,
        columns,
        ["PIPELINE", "STARTED BY", "NEXT", "FILE"],
        ids="Name",
        drop=["FILE"],
        keep=["PIPELINE", "NEXT"],
    )


def _local(moment: str) -> str:
    """``2026-11-30 02:30 +01:00``: a time of the API where one is."""
    if not moment:
        return ""
    from datetime import datetime

    here = datetime.fromisoformat(moment.replace("Z", "+00:00")).astimezone()
    text = here.isoformat(sep=" ", timespec="minutes")
    return f"{text[:-6]} {text[-6:]}"


# watch


@command(
    "watch",
    "Run a pipeline now, and again whenever its files change, until Ctrl-C.",
    examples=[
        "linkspan workflow watch test",
        "linkspan workflow watch ci/test.yaml --input fast=true",
    ],
    more=["linkspan workflow run"],
)
@click.argument("file", metavar="FILE", shell_complete=complete_pipelines)
@shared.input_option
def watch(session: Session, file: str, inputs: tuple[str, ...]) -> int:
    """Watch files."""
    from linkspan.core.cli.common import key_values

    given = key_values(inputs, "--input")
    path = reading.find(file)
    workspace = sources.workspace_of(path)
    status = 0
    for reason in _changes(path, workspace):
        session.terminal.note(reason)
        try:
            workflow = shared.refuse_faults(path, reading.read(path), given)
            body = shared.body_of(path, workflow, str(workspace), all_files=False)
            body |= {"inputs": given, "trigger": "watch"}
            status = _begin(session, body)
        except Failure as failure:
            # Half-written files are wrong for a moment; the next change may mend them.
            session.terminal.error(failure.render())
            status = failure.status
        if status == INTERRUPTED:
            break
    return status


def _begin(session: Session, body: Mapping[str, Any]) -> int:
    return watching.begin(session, lambda: session.api.post(RUNS, body=body))


def _until_interrupted(changes: Iterable[Any]) -> Iterator[Any]:
    try:
        yield from changes
    except KeyboardInterrupt:
        return


def _changes(path: Path, workspace: Path) -> Iterator[str]:
    """First at once, then for each set of changes that counts, also those of a run's time; ends at Ctrl-C."""
    import watchfiles

    from linkspan.workflows.triggering.matching import Selection

    usual = watchfiles.DefaultFilter()
    selection = Selection(_paths_of(path))

    def counts(change: Any, name: str) -> bool:
        found = Path(name)
        if found == path.resolve():
            return True
        if not usual(change, name) or not found.is_relative_to(workspace):
            return False
        return selection.takes(found.relative_to(workspace).as_posix())

    trigger = _trigger_of(path)
    quiet_ms = max(50, int((trigger.debounce_s if trigger else 0.3) * 1000))
    # It watches from its first answer on, which comes when nothing happens for so long.
    all_changes = watchfiles.watch(
        workspace,
        watch_filter=counts,
        debounce=max(quiet_ms, 1600),
        step=quiet_ms,
        rust_timeout=200,
        yield_on_timeout=True,
        raise_interrupt=True,
    )
    next(all_changes, None)
    yield f"watching {workspace}"
    for changes in _until_interrupted(all_changes):
        if not changes:
            continue
        names = sorted({Path(name).name for _, name in changes})
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        selection = Selection(_paths_of(path))
        yield f"{names[0]}{more} changed"


def _paths_of(path: Path) -> tuple[str, ...]:
    trigger = _trigger_of(path)
    return trigger.paths if trigger else ("**",)


def _trigger_of(path: Path) -> Any:
    """What the file says about watching; nothing while it is wrong."""
    try:
        workflow = reading.checked(path, path.read_bytes(), reading.installed()).workflow
    except OSError:
        return None
    return workflow.triggers.watch if workflow is not None else None


# git hooks


@command(
    "hook install",
    "Let git pushes start pipelines that say `on: push` or `on: tag`.",
    examples=["linkspan workflow hook install", "linkspan workflow hook install /srv/git/shop.git"],
    more=["linkspan workflow serve"],
)
@click.argument("folder", metavar="[DIR]", default=".")
def install_hook(session: Session, folder: str) -> int:
    """Install a hook."""
    from linkspan.workflows.triggering import git_hooks

    call = [str(Path(sys.argv[0]).resolve()) if Path(sys.argv[0]).exists() else "linkspan"]
    if session.host:
        call += ["--host", session.host]
    path = git_hooks.install(Path(folder), [*call, "workflow", "hook", "run"])
    session.terminal.print(str(path))
    return 0


@command(
    "hook run",
    "What an installed git hook calls; it reads from git what was pushed.",
    examples=["linkspan workflow hook run post-receive < pushed"],
    more=["linkspan workflow hook install"],
)
@click.argument("kind", type=click.Choice(["post-receive", "pre-push"]))
@click.argument("rest", nargs=-1)
def run_hook(session: Session, kind: str, rest: tuple[str, ...]) -> int:
    """Start what a push starts."""
    from linkspan.workflows.triggering import git_hooks

    status = 0
    folder = Path.cwd()
    for pushed in git_hooks.read_pushes(kind, sys.stdin.read()):
        if not git_hooks.has_pipelines(folder, pushed.new):
            continue
        parent = Path(tempfile.mkdtemp(prefix="linkspan-push-"))
        try:
            tree = parent / "tree"
            tree.mkdir()
            git_hooks.export(folder, pushed.new, tree)
            status = _run_pushed(session, folder, pushed, tree, kind) or status
        finally:
            # The daemon has a copy of its own once a run exists.
            shutil.rmtree(parent, ignore_errors=True)
    # What has been received cannot be refused any more.
    return status if kind == "pre-push" else 0


def _run_pushed(session: Session, folder: Path, pushed: Any, tree: Path, kind: str) -> int:
    """Run what waits for the push; one that cannot begin does not keep the next from it."""
    status = 0
    for file in sources.files_of(tree):
        try:
            workflow = shared.refuse_faults(file, reading.read(file), {})
            if not _starts(workflow, folder, pushed):
                continue
            body = shared.body_of(file.relative_to(tree), workflow, str(tree), all_files=True)
            body |= {
                "git": pushed.git,
                "by": f"push {pushed.name}",
                "trigger": "tag" if pushed.tag else "push",
            }
            if kind == "pre-push":
                status = _begin(session, body) or status
                continue
            run = session.api.post(RUNS, body=body)["id"]
            session.terminal.note(f"{file.stem}: run {run}    linkspan workflow attach {run}")
        except LinkspanError as error:
            session.terminal.error(of_error(error).render())
            status = FAILED
        except Failure as failure:
            session.terminal.error(failure.render())
            status = failure.status
    return status


def _starts(workflow: Workflow, folder: Path, pushed: Any) -> bool:
    from linkspan.workflows.triggering import git_hooks, matching

    if pushed.tag:
        return matching.tag_starts(workflow.triggers.tag, pushed.tag)
    push = workflow.triggers.push
    changed = git_hooks.changed_paths(folder, pushed) if push and push.paths else None
    return matching.push_starts(push, pushed.branch, changed)
