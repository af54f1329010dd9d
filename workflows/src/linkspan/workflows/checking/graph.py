"""Who waits for whom: needs that are not there, and circles."""

from collections.abc import Callable

from linkspan.sdk.diagnostics import Label, did_you_mean
from linkspan.workflows.graph import find_circle
from linkspan.workflows.model import Job, Need, Workflow
from linkspan.workflows.reader import Reader

_COUNT_WORDS = ("", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
MAX_LISTED = 12
"""Names that one help line lists."""


def listed(names: list[str]) -> str:
    """Names with commas, not too many of them."""
    rest = len(names) - MAX_LISTED
    shown = ", ".join(names[:MAX_LISTED])
    return f"{shown} and {rest} more" if rest > 0 else shown


def check_graph(workflow: Workflow, reader_of: Callable[[Job], Reader]) -> None:
    """LS1101 and LS1102."""
    jobs = workflow.jobs
    for job in jobs.values():
        for need in job.needs:
            if need.job not in jobs:
                _unknown_need(workflow, job, need, reader_of(job))
    circle = find_circle({name: job.needed for name, job in jobs.items()})
    if circle:
        _circle(workflow, circle, reader_of(jobs[circle[0]]))


def _unknown_need(workflow: Workflow, job: Job, need: Need, reader: Reader) -> None:
    names = list(workflow.jobs)
    near = did_you_mean(need.job, (name for name in names if name != job.id))
    known = "jobs: " + listed(names)
    if need.job in workflow.cleanup:
        known = f"'{need.job}' stands in `finally`, which begins after all jobs"
    reader.fault(
        "LS1101",
        f"job '{job.id}' needs '{need.job}', which does not exist",
        need.span,
        helps=[f"did you mean '{near}'?  {known}" if near else known],
        fix=near,
        edits=reader.span_edits(need.span, need.job, near),
    )


def _circle(workflow: Workflow, circle: list[str], reader: Reader) -> None:
    """Each job of the circle needs the next one; told in the order in which they would run."""
    jobs = workflow.jobs
    edges = [
        next(need for need in jobs[name].needs if need.job == following)
        for name, following in zip(circle, [*circle[1:], circle[0]], strict=True)
    ]
    order = [circle[0], *reversed(circle[1:]), circle[0]]
    # The edges in the middle are implied by the headline; two places are enough to look at.
    secondary = []
    if len(circle) > 1:
        text = f"{circle[1]} waits for {edges[1].job}"
        span = jobs[circle[1]].needs_span or edges[1].span
        secondary = [Label(span=span, text=text)]
    count = len(circle)
    number = _COUNT_WORDS[count] if count < len(_COUNT_WORDS) else str(count)
    shown = order if len(order) <= MAX_LISTED else [*order[:5], "...", *order[-5:]]
    mend = "a job cannot need itself" if count == 1 else f"remove one of the {number} `needs`"
    reader.fault(
        "LS1102",
        f"jobs wait for each other: {' -> '.join(shown)}",
        edges[0].span,
        "closes the circle",
        secondary=secondary,
        helps=[f"{mend}; `linkspan workflow graph {workflow.name}` draws them"],
    )
