"""Running a run again: what of the old one is good enough to be kept."""

from collections.abc import Iterable, Mapping, Sequence

import attrs

from linkspan.sdk.errors import InvalidArgument, NotFound
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.state import GOOD, NOT_ASKED, JobState, RunState


@attrs.frozen(kw_only=True)
class Again:
    """Which part of a run is wanted again.

    Attributes:
        failed: Jobs that did not succeed, and those that need them.
        start: ``JOB``, ``JOB/STEP`` or ``STEP``: that one and everything after it.
    """

    failed: bool = False
    start: str = ""


@attrs.define(kw_only=True)
class Kept:
    """What is taken over.

    Attributes:
        records: Kind and fields of the records that say so.
        workspaces: Jobs whose files are taken over.
    """

    records: list[tuple[str, dict[str, Json]]] = attrs.field(factory=list)
    workspaces: list[str] = attrs.field(factory=list)


def keep(old: RunState, again: Again, jobs: Sequence[Mapping[str, Json]]) -> Kept:
    """What a new run takes over from an old one.

    Args:
        old: The old run, ended.
        again: What is wanted.
        jobs: The new run's jobs, as its ``run-created`` record has them.

    Raises:
        NotFound: There is no such job or step.
        InvalidArgument: Several steps have that name; code ``ambiguous``.
    """
    kept = Kept()
    if not again.failed and not again.start:
        return kept
    first, step = _place(old, again.start) if again.start else ("", "")
    again_jobs = {first} if first else set()
    if again.failed:
        again_jobs |= {job.id for job in old.jobs.values() if job.result not in GOOD}
    dropped = _with_dependents(again_jobs, jobs)
    source = f"run {old.id}"
    for job in jobs:
        before = old.jobs.get(job["id"])
        if before is None or before.cleanup:
            continue
        if before.id not in dropped:
            if before.result in GOOD:
                kept.records.append(_job_record(before, source))
        elif before.id == first and step:
            _keep_steps(kept, before, step, source, [each["id"] for each in job["steps"]])
    return kept


def _job_record(job: JobState, source: str) -> tuple[str, dict[str, Json]]:
    return "job-kept", {
        "job": job.id,
        "result": job.result,
        "outputs": dict(job.outputs),
        "reason": f"kept from {source}",
    }


def _keep_steps(kept: Kept, job: JobState, until: str, source: str, known: Iterable[str]) -> None:
    names = set(known)
    for step in job.steps.values():
        if step.id == until or step.id not in names:
            break
        if step.result not in GOOD | {"skipped"} or step.undone:
            # What comes before did not work then: it is the real beginning.
            break
        fields = {
            "job": job.id,
            "step": step.id,
            "result": step.result,
            "outputs": dict(step.outputs),
            "reason": f"kept from {source}",
        }
        kept.records.append(("step-kept", fields))
    kept.workspaces.append(job.id)


def _place(run: RunState, name: str) -> tuple[str, str]:
    """The job and step that a name means; the step is empty for a whole job."""
    job, _, step = name.partition("/")
    if job in run.jobs:
        if step and step not in run.jobs[job].steps:
            known = ", ".join(run.jobs[job].steps)
            raise NotFound(f"job '{job}' has no step '{step}'; steps: {known}")
        return job, step
    found = [each.id for each in run.jobs.values() if name in each.steps]
    if len(found) > 1:
        places = ", ".join(f"{each}/{name}" for each in found)
        raise InvalidArgument(f"several jobs have a step '{name}': {places}", code="ambiguous")
    if not found:
        raise NotFound(f"run {run.id} has no job or step '{name}'; jobs: {', '.join(run.jobs)}")
    return found[0], name


def step_of(old: RunState, name: str) -> str:
    """``JOB/STEP`` of the one step that a name means.

    Raises:
        NotFound: There is no such step.
        InvalidArgument: It is a whole job, or several steps have that name; code ``ambiguous``.
    """
    job, step = _place(old, name)
    if not step:
        raise InvalidArgument(
            f"'{name}' is a job; which step of it: {', '.join(old.jobs[job].steps)}?"
        )
    return f"{job}/{step}"


def _with_dependents(first: set[str], jobs: Sequence[Mapping[str, Json]]) -> set[str]:
    """These jobs and all that need them, directly or not; linear in the edges."""
    waiting: dict[str, list[str]] = {}
    for job in jobs:
        for need in job["needs"]:
            waiting.setdefault(need, []).append(job["id"])
    found: set[str] = set()
    todo = list(first)
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += waiting.get(name, ())
    return found


def only(
    place: str, jobs: Sequence[Mapping[str, Json]], green: RunState | None
) -> list[tuple[str, dict[str, Json]]]:
    """The records that leave out all but one job, or one step of it.

    What the job needs counts as done, with the outputs of the last run that succeeded, as far as there is
    one.

    Args:
        place: ``JOB`` or ``JOB/STEP``.
        jobs: As the ``run-created`` record has them.
        green: The last run of this pipeline that succeeded.

    Raises:
        NotFound: There is no such job or step.
    """
    name, _, step = place.partition("/")
    known = {job["id"]: job for job in jobs}
    if name not in known:
        raise NotFound(f"there is no job '{name}'; jobs: {', '.join(known)}")
    wanted = known[name]
    steps = [each["id"] for each in wanted["steps"]]
    if step and step not in steps:
        raise NotFound(f"job '{name}' has no step '{step}'; steps: {', '.join(steps)}")
    records: list[tuple[str, dict[str, Json]]] = []
    for job in jobs:
        if job["id"] == name:
            continue
        before = green.jobs.get(job["id"]) if green is not None else None
        outputs = dict(before.outputs) if before is not None else {}
        result = "success" if job["id"] in wanted["needs"] else "skipped"
        fields = {"job": job["id"], "result": result, "outputs": outputs, "reason": NOT_ASKED}
        records.append(("job-kept", fields))
    for each in steps if step else ():
        if each == step:
            continue
        state = None
        if green is not None and name in green.jobs:
            state = green.jobs[name].steps.get(each)
        fields = {"job": name, "step": each, "result": "skipped", "reason": NOT_ASKED}
        outputs = dict(state.outputs) if state is not None else {}
        records.append(("step-kept", {**fields, "outputs": outputs, "excluded": True}))
    return records
