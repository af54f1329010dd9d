"""Passwords that stand in a pipeline's text. The journal does not have them, and finds them again there."""

from collections.abc import Iterator, Mapping

from linkspan.workflows.concealing import called_secret
from linkspan.workflows.model import Job, Step, Text, Workflow
from linkspan.workflows.values import Template, Value


def written_passwords(workflow: Workflow) -> Iterator[tuple[str, Text]]:
    """What is called a password in a pipeline, with its place: ``jobs.a.steps.s.with.password``.

    Places are the same as long as the text is, which a run keeps.
    """
    yield from _called("env", workflow.env)
    for job in (*workflow.jobs.values(), *workflow.cleanup.values()):
        yield from _of_job(f"jobs.{job.id}", job)


def _of_job(place: str, job: Job) -> Iterator[tuple[str, Text]]:
    yield from _called(f"{place}.env", job.env)
    for name, service in job.services.items():
        yield from _called(f"{place}.services.{name}.environment", service.environment)
    for step in job.all_steps():
        yield from _of_step(f"{place}.steps.{step.id}", step)


def _of_step(place: str, step: Step) -> Iterator[tuple[str, Text]]:
    yield from _called(f"{place}.env", step.env)
    yield from _called(f"{place}.with", step.settings)
    if step.undo is not None:
        yield from _called(f"{place}.undo.with", step.undo.settings)


def _called(
    place: str, values: Mapping[str, Value] | Mapping[str, Text]
) -> Iterator[tuple[str, Text]]:
    for name, value in values.items():
        where = f"{place}.{name}"
        if isinstance(value, Mapping):
            yield from _called(where, value)
        elif isinstance(value, (str, Template)) and called_secret(name):
            yield where, value
