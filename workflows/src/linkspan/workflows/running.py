"""What the parts of one run share, and what expressions see while it runs."""

import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import attrs
import trio

from linkspan.sdk.errors import LinkspanError, Timeout, Unavailable
from linkspan.sdk.host import Host
from linkspan.sdk.units import format_duration
from linkspan.workflows.control import Control
from linkspan.workflows.expressions import EvaluationFailed, Scope, evaluate
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.model import Job, Step, Workflow
from linkspan.workflows.recorder import Recorder
from linkspan.workflows.state import JobState, StepState
from linkspan.workflows.values import Expression, resolve_texts
from linkspan.workflows.verbs import Verbs

EMPTY_GIT: Final[Mapping[str, Json]] = {
    "sha": "",
    "short_sha": "",
    "branch": "",
    "tag": "",
    "dirty": False,
}


@attrs.frozen(kw_only=True)
class Fault:
    """Why a step or job failed.

    Attributes:
        code: For programs.
        cause: What ``retry.on`` compares: ``network``, ``timeout``, ``oom``, ``exit:N`` or empty.
    """

    message: str
    code: str = ""
    help: str = ""
    cause: str = ""

    def as_json(self) -> dict[str, str]:
        """For the journal."""
        return {"message": self.message, "code": self.code, "help": self.help, "cause": self.cause}


def fault_of(error: Exception) -> Fault:
    """What an exception says to the user."""
    if isinstance(error, EvaluationFailed):
        return Fault(message=f"an expression has no value: {error.message}", code="expression")
    if not isinstance(error, LinkspanError):
        # The daemon's log has the traceback; here the kind is all that helps.
        return Fault(message=f"{type(error).__name__}: {error}", code="internal")
    cause = ""
    if isinstance(error, Timeout):
        cause = "timeout"
    elif isinstance(error, Unavailable):
        cause = "network"
    notes = getattr(error, "__notes__", [])
    message = "\n".join([error.message, *notes])
    return Fault(message=message, code=error.code, help=error.help, cause=cause)


@attrs.frozen(kw_only=True)
class Run:
    """One run while it is active.

    Attributes:
        nursery: Outlives the run's own stopping; nothing in it may raise.
        folder: Everything of the run on disk: ``journal``, ``source/``, ``jobs/JOB/``.
        clock: Seconds; only differences count.
    """

    id: str
    workflow: Workflow
    inputs: Mapping[str, Json]
    git: Mapping[str, Json]
    folder: Path
    host: Host
    verbs: Verbs
    recorder: Recorder
    nursery: trio.Nursery
    control: Control = attrs.field(factory=Control)
    clock: Callable[[], float] = time.monotonic

    def job_state(self, job: Job) -> JobState:
        """Where a job stands."""
        return self.recorder.state.jobs[job.id]

    def step_state(self, job: Job, step: Step) -> StepState:
        """Where a step stands."""
        return self.job_state(job).steps[step.id]

    def job_folder(self, job: Job) -> Path:
        """A job's own files: ``workspace/``, ``steps/STEP/``, ``STEP.log``."""
        return self.folder / "jobs" / job.id

    def top_contexts(self) -> dict[str, Json]:
        """Contexts of the top-level ``env``."""
        state = self.recorder.state
        run: dict[str, Json] = {
            "id": self.id,
            "attempt": state.attempt,
            "name": self.workflow.name,
        }
        return {
            "inputs": dict(self.inputs),
            "git": {**EMPTY_GIT, **self.git},
            "runner": {"os": platform.system().lower(), "arch": platform.machine()},
            "run": run,
        }

    def job_contexts(self, job: Job, *, ended: tuple[str, float] | None = None) -> dict[str, Json]:
        """Contexts of a job's ``if``, ``image`` and ``env``.

        Args:
            job: The job.
            ended: Result and duration of the run's jobs, for those of ``finally``.
        """
        contexts = self.top_contexts()
        visible = self.workflow.jobs if ended else dict.fromkeys(job.needed)
        jobs = self.recorder.state.jobs
        contexts["needs"] = {
            name: {"result": jobs[name].result, "outputs": dict(jobs[name].outputs)}
            for name in visible
        }
        contexts["job"] = {"id": job.id}
        if ended is not None:
            contexts["run"] |= {"result": ended[0], "duration": format_duration(ended[1])}
        contexts["env"] = resolve_texts(self.workflow.env, Scope(contexts=contexts))
        return contexts


def truth(expression: Expression, scope: Scope) -> bool:
    """The value of a condition.

    Raises:
        EvaluationFailed: It is not true or false.
    """
    value = evaluate(expression.tree, scope)
    if not isinstance(value, bool):
        raise EvaluationFailed(
            f"'{expression.source}' must be true or false, it is {value!r}",
            0,
            len(expression.source),
        )
    return value
