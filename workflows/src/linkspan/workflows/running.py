"""What the parts of one run share, and what expressions see while it runs."""

import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import attrs
import trio

from linkspan.sdk.errors import LinkspanError, NotFound, Timeout, Unavailable
from linkspan.sdk.host import Engine, Host
from linkspan.sdk.progress import ProgressSink
from linkspan.sdk.units import format_duration
from linkspan.workflows.archive import folder_name
from linkspan.workflows.containers import ensure_image
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
        wall: POSIX time; a person's time limit counts in it.
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
    clock: Callable[[], float] = trio.current_time
    wall: Callable[[], float] = time.time

    def job_state(self, job: Job) -> JobState:
        """Where a job stands."""
        return self.recorder.state.jobs[job.id]

    def step_state(self, job: Job, step: Step) -> StepState:
        """Where a step stands."""
        return self.job_state(job).steps[step.id]

    def job_folder(self, job: Job) -> Path:
        """A job's own files: ``workspace/``, ``steps/STEP/``, ``STEP.log``."""
        return self.folder_of(job.id)

    def folder_of(self, job: str) -> Path:
        """The same by the job's id."""
        return self.folder / "jobs" / folder_name(job)

    async def image(self, name: str, progress: ProgressSink, **where: str) -> str:
        """What a container is made from: the image that the name meant when it was first used.

        A rerun takes the same; if that is not here any more, what the name means now.

        Args:
            name: As the pipeline has it.
            progress: Gets how far a pull is.
            **where: ``job`` and ``step``, for the journal.
        """
        engine = self.host.engine
        known = self.recorder.state.images.get(name)
        if known is not None and _is_here(engine, known):
            return known
        found = await ensure_image(engine, name, progress)
        if found != known:
            await self.recorder.write("image-used", image=name, id=found, **where)
        return found

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


def _is_here(engine: Engine, image: str) -> bool:
    try:
        engine.images.inspect(image)
    except NotFound:
        return False
    return True


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
