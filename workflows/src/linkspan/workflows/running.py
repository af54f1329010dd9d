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
from linkspan.workflows.breakpoints import Waits
from linkspan.workflows.calling import CallWorkers
from linkspan.workflows.containers import ensure_image
from linkspan.workflows.control import Control
from linkspan.workflows.expressions import EvaluationFailed, Scope, evaluate
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.locks import Locks
from linkspan.workflows.model import Job, Step, Workflow
from linkspan.workflows.recorder import Recorder
from linkspan.workflows.state import JobState, StepState, worst
from linkspan.workflows.steplog import LogWriter
from linkspan.workflows.units import Frame, Unit
from linkspan.workflows.values import Expression, resolve_texts
from linkspan.workflows.verbs import Verbs

OOM: Final = "oom"
"""The code and the cause of what was killed because it had no memory left."""
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
    elif error.code == OOM:
        cause = OOM
    notes = getattr(error, "__notes__", [])
    message = "\n".join([error.message, *notes])
    return Fault(message=message, code=error.code, help=error.help, cause=cause)


@attrs.frozen(kw_only=True)
class Run:
    """One run while it is active.

    Attributes:
        nursery: Outlives the run's own stopping; nothing in it may raise.
        folder: Everything of the run on disk: ``journal``, ``source/``, ``jobs/JOB/``.
        locks, groups: What the runs of this daemon share.
        cancel_others: Asks the other active runs of a concurrency group to stop.
        frame: What really runs: cells, and jobs of called pipelines.
        frame_inputs: Inputs of each pipeline in it, by prefix.
        secrets: Values that were fetched, by name.
        given: Secrets that a person has given to take something back, by name or by place in a record.
        clock: Seconds; only differences count.
        wall: POSIX time; a person's time limit counts in it.
        waits: Breakpoints at which it is held.
        reads_files: An expression may read files of the workspace.
        workers: Make the calls of its plugins.
        logs: Writes the logs of its steps.
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
    locks: Locks = attrs.field(factory=Locks)
    groups: Locks = attrs.field(factory=Locks)
    cancel_others: Callable[[str], None] = lambda group: None
    frame: Frame = attrs.field(
        init=False, default=attrs.Factory(lambda self: Frame(self.workflow), takes_self=True)
    )
    frame_inputs: dict[str, Mapping[str, Json]] = attrs.field(
        init=False, default=attrs.Factory(lambda self: {"": self.inputs}, takes_self=True)
    )
    secrets: dict[str, str] = attrs.field(factory=dict, repr=False)
    given: dict[str, str] = attrs.field(factory=dict, repr=False)
    clock: Callable[[], float] = trio.current_time
    wall: Callable[[], float] = time.time
    waits: Waits = attrs.field(factory=Waits)
    reads_files: bool = attrs.field(
        init=False,
        default=attrs.Factory(lambda self: _reads_files(self.workflow), takes_self=True),
    )
    workers: CallWorkers = attrs.field(
        init=False, default=attrs.Factory(lambda self: CallWorkers(self.nursery), takes_self=True)
    )
    logs: LogWriter = attrs.field(
        init=False, default=attrs.Factory(lambda self: LogWriter(self.nursery), takes_self=True)
    )

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

    @property
    def untrusted(self) -> bool:
        """Nobody answers for what it does: its scripts have no way out of their network."""
        return bool(self.recorder.state.created.get("untrusted", False))

    # what expressions see

    def top_contexts(self, frame: Frame) -> dict[str, Json]:
        """Contexts of the top-level ``env``."""
        state = self.recorder.state
        run: dict[str, Json] = {
            "id": self.id,
            "attempt": state.attempt,
            "name": frame.workflow.name,
        }
        return {
            "inputs": dict(self.frame_inputs.get(frame.prefix, {})),
            "git": {**EMPTY_GIT, **self.git},
            "runner": {"os": platform.system().lower(), "arch": platform.machine()},
            "run": run,
        }

    def env_contexts(self, frame: Frame) -> dict[str, Json]:
        """The same with ``env``; what a concurrency group sees."""
        contexts = self.top_contexts(frame)
        contexts["env"] = resolve_texts(frame.workflow.env, Scope(contexts=contexts))
        return contexts

    def frame_contexts(self, frame: Frame) -> dict[str, Json]:
        """What the outputs of a pipeline see."""
        contexts = self.env_contexts(frame)
        contexts["needs"] = {name: self._result_of(frame, name) for name in frame.workflow.jobs}
        return contexts

    def _result_of(self, frame: Frame, name: str) -> dict[str, Json]:
        """A job as those that need it see it: of several cells the worst result, and each of them."""
        states = [(unit, self.job_state(unit.job)) for unit in frame.cells(name)]
        found: dict[str, Json] = {
            "result": worst(state.result for _, state in states if state.result),
            "outputs": {},
        }
        if states and states[0][0].cell is None:
            found["outputs"] = dict(states[0][1].outputs)
            found["result"] = states[0][1].result
        else:
            found["cells"] = [
                {"key": state.cell, "result": state.result, "outputs": dict(state.outputs)}
                for _, state in states
            ]
        return found

    def unit_contexts(
        self, unit: Unit, *, ended: tuple[str, float] | None = None
    ) -> dict[str, Json]:
        """Contexts of a job's ``if``, ``image`` and ``env``.

        Args:
            unit: The job.
            ended: Result and duration of the pipeline's jobs, for those of ``finally``.
        """
        contexts = self.env_contexts(unit.frame)
        visible = unit.frame.workflow.jobs if ended else unit.job.needed
        contexts["needs"] = {name: self._result_of(unit.frame, name) for name in visible}
        contexts["job"] = {"id": unit.name}
        if unit.cell is not None:
            contexts["matrix"] = dict(unit.cell.values)
        if ended is not None:
            contexts["run"] |= {"result": ended[0], "duration": format_duration(ended[1])}
        return contexts


def _reads_files(workflow: Workflow) -> bool:
    return any("hash_files" in text for text in (workflow.text, *workflow.others.values()))


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
