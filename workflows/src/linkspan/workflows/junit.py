"""JUnit reports: what the steps of a run did, for tools that read such files."""

import re
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from linkspan.workflows.state import BAD, JobState, RunState, StepState

_UNFIT: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML cannot hold, not even escaped."""


def report(run: RunState) -> str:
    """A run as JUnit XML: a suite for each job, a case for each step."""
    suites = [_suite(job) for job in run.jobs.values()]
    body = "\n".join(suites)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<testsuites name={attribute(run.workflow)} id={attribute(run.id)}"
        f' time="{run.duration:.3f}">\n{body}\n</testsuites>\n'
    )


def _suite(job: JobState) -> str:
    steps = list(job.steps.values())
    cases = [_case(job, step) for step in steps]
    errors = 0
    if job.result in BAD and not any(step.result in BAD for step in steps):
        errors = 1
        message = job.error.get("message", job.result)
        cases.append(
            f"    <testcase classname={attribute(job.id)} name={attribute('job')}>"
            f"<error message={attribute(message)}/></testcase>"
        )
    failures = sum(step.result in BAD for step in steps)
    skipped = sum(_left_out(step) for step in steps)
    head = (
        f'  <testsuite name={attribute(job.id)} tests="{len(cases)}" failures="{failures}"'
        f' errors="{errors}" skipped="{skipped}" time="{job.duration:.3f}">'
    )
    return "\n".join((head, *cases, "  </testsuite>"))


def _case(job: JobState, step: StepState) -> str:
    head = (
        f"    <testcase classname={attribute(job.id)} name={attribute(step.title)}"
        f' time="{step.duration:.3f}"'
    )
    if step.result in BAD:
        message = step.error.get("message", step.result)
        kind = step.error.get("code") or step.result
        text = fit("\n".join(step.tail))
        failure = f"<failure message={attribute(message)} type={attribute(kind)}>"
        return f"{head}>{failure}{escape(text)}</failure></testcase>"
    if _left_out(step):
        return f"{head}><skipped message={attribute(step.reason or step.state)}/></testcase>"
    if step.result == "warned":
        warning = f"warned: {step.error.get('message', '')}"
        return f"{head}><system-out>{escape(fit(warning))}</system-out></testcase>"
    return f"{head}/>"


def _left_out(step: StepState) -> bool:
    return step.result in ("skipped", "cancelled", "")


def attribute(text: str) -> str:
    """A text as the value of an XML attribute, with its quotes."""
    return quoteattr(fit(text))


def fit(text: str) -> str:
    """A text without what XML cannot hold; ``escape`` does the rest."""
    return _UNFIT.sub("\ufffd", text)
