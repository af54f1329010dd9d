"""The jobs of a run that is watched: a line each, the cells of a matrix folded into one."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from linkspan.sdk.units import format_duration
from linkspan.workflows.state import JobState, RunState, worst

WHEN: Final = {
    "before": "before it runs",
    "after": "after it has run",
    "on-failure": "because it failed",
}
"""Where a step is held."""
_ORDER: Final = ("success", "warned", "failed", "timed-out", "rejected", "cancelled", "skipped")


class Row(NamedTuple):
    """One line: ``state`` says which sign; it is empty for what belongs to the line above."""

    state: str
    label: str
    words: str


def job_rows(state: RunState, doing: Mapping[str, str]) -> Iterator[Row]:
    """What is shown of each job.

    Args:
        state: Of the run.
        doing: Job → what it does at the moment.
    """
    for name, jobs in _folded(state).items():
        if len(jobs) == 1:
            (job,) = jobs
            yield Row(job.state, job.id, _words(job, doing))
            continue
        yield Row(_state_of(jobs), name, _counts(jobs))
        for job in jobs:
            if job.started and not job.result:
                yield Row("", f"  {job.cell}", _words(job, doing))


def _folded(state: RunState) -> dict[str, list[JobState]]:
    found: dict[str, list[JobState]] = {}
    for job in state.jobs.values():
        if not job.cleanup or job.started:
            name = job.id.removesuffix(f"[{job.cell}]") if job.cell else job.id
            found.setdefault(name, []).append(job)
    return found


def _state_of(jobs: list[JobState]) -> str:
    """The worst result when all have ended; else what goes on."""
    if all(job.result for job in jobs):
        return worst(job.result for job in jobs)
    states = {job.state for job in jobs}
    return next((each for each in ("suspended", "running") if each in states), "waiting")


def _counts(jobs: list[JobState]) -> str:
    """``2 success  1 running  1 waiting``; how long the longest took when all is well."""
    counts = Counter(job.state for job in jobs)
    if set(counts) == {"success"}:
        return f"{format_duration(max(job.duration for job in jobs))}  {len(jobs)} cells"
    known = [*_ORDER, "suspended", "running", "waiting"]
    return "  ".join(f"{counts[each]} {each}" for each in known if counts[each])


def _words(job: JobState, doing: Mapping[str, str]) -> str:
    if job.result:
        words = format_duration(job.duration) if job.result != "skipped" else "skipped"
        return f"{words}  {job.reason}" if job.reason else words
    if job.waits:
        return f"waits for the lock '{job.waits}'"
    held = next((step for step in job.steps.values() if step.held), None)
    if held is not None:
        return f"{held.title}  held {WHEN[held.held['when']]}"
    asked = next((step for step in job.steps.values() if step.state == "suspended"), None)
    if asked is not None:
        return f"asks: {asked.question['message']}"
    running = next((step for step in job.steps.values() if step.open), None)
    if running is None:
        return "starting" if job.started else ""
    return f"{running.title}  {doing.get(job.id, '')}"
