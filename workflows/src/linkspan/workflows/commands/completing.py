"""What a shell offers where a pipeline, a run, a job, a step or an input may stand.

Everything here is quick, silent when something is wrong, and starts no daemon.
"""

from collections.abc import Iterable
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from linkspan.core.cli.common import asked, complete
from linkspan.core.client.short import segment

BASE: Final = "/linkspan/v1/runs"

complete_runs = complete(BASE, lambda run: [run["id"]])
"""Ids of runs, newest first."""


def complete_served(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Names of folders that the daemon serves."""
    said = asked(ctx, "/linkspan/v1/served") or {"pipelines": ()}
    folders = dict.fromkeys(each["name"].partition("/")[0] for each in said["pipelines"])
    return _beginning(incomplete, folders)


def complete_pipelines(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of the folder's pipelines; a path where none begins so."""
    from linkspan.workflows import sources

    names = _beginning(incomplete, [path.stem for path in sources.all_files()])
    return [CompletionItem(name) for name in names] or [CompletionItem(incomplete, type="file")]


def complete_inputs(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """``NAME=`` of the pipeline's inputs, then what a choice or a boolean may be."""
    workflow = _workflow(ctx)
    name, sign, _ = incomplete.partition("=")
    if workflow is None:
        return []
    if not sign:
        return _beginning(incomplete, [f"{each}=" for each in workflow.inputs])
    spec = workflow.inputs.get(name)
    values = () if spec is None else spec.options or (("true", "false") * (spec.type == "bool"))
    return _beginning(incomplete, [f"{name}={value}" for value in values])


def complete_jobs(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Jobs of the pipeline."""
    workflow = _workflow(ctx)
    return [] if workflow is None else _beginning(incomplete, workflow.jobs)


def complete_steps(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """``JOB/STEP`` of the pipeline."""
    return _beginning(incomplete, _steps(ctx))


def complete_breaks(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """``on-failure``, ``before:JOB/STEP``, ``after:JOB/STEP``; of a run, where one is named."""
    run = _argument(ctx, "run_ref")
    steps = _places(ctx, jobs=False) if run else _steps(ctx)
    wheres = [f"{when}:{step}" for step in steps for when in ("before", "after")]
    return _beginning(incomplete, ["on-failure", *wheres])


def complete_places_of_run(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[str]:
    """``JOB`` and ``JOB/STEP`` of the run."""
    return _beginning(incomplete, _places(ctx, jobs=True))


def complete_steps_of_run(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[str]:
    """``JOB/STEP`` of the run."""
    return _beginning(incomplete, _places(ctx, jobs=False))


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _argument(ctx: click.Context, name: str) -> str:
    """The command's one argument; empty if it is not written yet.

    While an option waits for its value click has not told arguments apart: they are what is left.
    """
    if not any(param.name == name for param in ctx.command.params):
        return ""
    found = ctx.params.get(name) or next(iter(ctx.args), "")
    return found if isinstance(found, str) else ""


def _workflow(ctx: click.Context) -> Any:
    """The pipeline that the command line names already; None if it cannot be read."""
    from linkspan.core.cli.failure import Failure, Rendered
    from linkspan.workflows.commands.reading import checked, find, installed, read

    name = _argument(ctx, "file")
    if not name:
        return None
    try:
        path = find(name)
        return checked(path, read(path), installed()).workflow
    except (Failure, Rendered):
        return None


def _steps(ctx: click.Context) -> list[str]:
    workflow = _workflow(ctx)
    if workflow is None:
        return []
    return [
        f"{job.id}/{step.id}"
        for job in workflow.jobs.values()
        for outer in job.steps
        for step in (outer.parallel or (outer,))
    ]


def _places(ctx: click.Context, *, jobs: bool) -> list[str]:
    run_ref = _argument(ctx, "run_ref")
    run = asked(ctx, f"{BASE}/{segment(run_ref)}") if run_ref else None
    found: list[str] = []
    for job in () if run is None else run["jobs"]:
        found += [job["id"]] if jobs else []
        found += [f"{job['id']}/{step['id']}" for step in job["steps"]]
    return found
