"""Where a run stands, folded from the records of its journal.

The journal is the only truth: the daemon, ``resume``, the command line and the web page all fold the
same records with this module, so they cannot disagree. It imports nothing heavy, since the command
line uses it, too.

Kinds of records, with their fields:

=====================  =========================================================================
``run-created``        ``version run workflow file digest inputs git plugins jobs by``
``attempt-started``    ``attempt`` (from 1; each resume is one more)
``job-started``        ``job``
``step-started``       ``job step try verb provider settings undo changes`` (the intent)
``step-finished``      ``job step result outputs duration error tail retry_in``
``step-settled``       ``job step applied outputs detail`` (an intent without a result, after a crash)
``undo-started``       ``job step for``
``undo-finished``      ``job step result detail error duration``
``job-finished``       ``job result outputs duration error``
``cancel-requested``   ``by``
``run-finished``       ``result duration``
=====================  =========================================================================
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

Result = Literal["success", "warned", "failed", "skipped", "cancelled", "timed-out"]

GOOD: Final = frozenset({"success", "warned"})
BAD: Final = frozenset({"failed", "timed-out"})


class StepState:
    """One step.

    Attributes:
        result: Empty while it has none.
        tries: How often it was begun in this attempt of the run.
        intent: The last ``step-started`` record; None if it never began.
        open: It began and has no result: only its driver can say what became of it.
        undone: What it did was taken back, or that was begun.
        undo_result: ``success`` or ``failed`` once the undo has ended.
    """

    __slots__ = (
        "duration",
        "error",
        "id",
        "intent",
        "open",
        "outputs",
        "provider",
        "result",
        "tail",
        "title",
        "tries",
        "undo_detail",
        "undo_result",
        "undone",
        "verb",
    )

    def __init__(self, step_id: str, title: str, verb: str) -> None:
        self.id = step_id
        self.title = title
        self.verb = verb
        self.provider = ""
        self.result = ""
        self.tries = 0
        self.outputs: Mapping[str, Any] = {}
        self.duration = 0.0
        self.error: Mapping[str, Any] = {}
        self.tail: list[str] = []
        self.intent: Mapping[str, Any] | None = None
        self.open = False
        self.undone = False
        self.undo_result = ""
        self.undo_detail = ""

    def as_json(self) -> dict[str, Any]:
        """The step as the API shows it."""
        return {
            "id": self.id,
            "title": self.title,
            "verb": self.verb,
            "plugin": self.provider,
            "state": self.state,
            "result": self.result,
            "tries": self.tries,
            "outputs": dict(self.outputs),
            "duration_s": self.duration,
            "error": dict(self.error),
            "tail": list(self.tail),
            "undone": self.undone,
            "undo": {"result": self.undo_result, "detail": self.undo_detail} if self.undone else {},
        }

    @property
    def state(self) -> str:
        """One word: its result, ``running``, or ``waiting``."""
        return self.result or ("running" if self.open else "waiting")


class JobState:
    """One job; ``cleanup`` says that it stands in ``finally``."""

    __slots__ = (
        "cleanup",
        "duration",
        "error",
        "id",
        "needs",
        "outputs",
        "result",
        "started",
        "steps",
    )

    def __init__(self, job_id: str, needs: Iterable[str], *, cleanup: bool) -> None:
        self.id = job_id
        self.needs = tuple(needs)
        self.cleanup = cleanup
        self.result = ""
        self.started = False
        self.outputs: Mapping[str, Any] = {}
        self.duration = 0.0
        self.error: Mapping[str, Any] = {}
        self.steps: dict[str, StepState] = {}

    @property
    def state(self) -> str:
        """One word: its result, ``running``, or ``waiting``."""
        return self.result or ("running" if self.started else "waiting")

    def as_json(self) -> dict[str, Any]:
        """The job as the API shows it."""
        return {
            "id": self.id,
            "needs": list(self.needs),
            "finally": self.cleanup,
            "state": self.state,
            "result": self.result,
            "outputs": dict(self.outputs),
            "duration_s": self.duration,
            "error": dict(self.error),
            "steps": [step.as_json() for step in self.steps.values()],
        }


class RunState:
    """One run.

    Attributes:
        created: The ``run-created`` record.
        result: Empty while it has none.
    """

    def __init__(self) -> None:
        self.created: Mapping[str, Any] = {}
        self.created_at = ""
        self.updated_at = ""
        self.attempt = 0
        self.result = ""
        self.duration = 0.0
        self.cancelling = False
        self.jobs: dict[str, JobState] = {}

    @property
    def id(self) -> str:
        """The run's id."""
        return str(self.created.get("run", ""))

    @property
    def workflow(self) -> str:
        """The pipeline's name."""
        return str(self.created.get("workflow", ""))

    def take(self, record: Mapping[str, Any]) -> None:
        """Fold one more record (in the form of ``Record.as_json``); unknown kinds change nothing."""
        self.updated_at = record.get("t", self.updated_at)
        handler = _HANDLERS.get(record["kind"])
        if handler is not None:
            handler(self, record)

    def step(self, record: Mapping[str, Any]) -> StepState:
        """The step that a record speaks of."""
        return self.jobs[record["job"]].steps[record["step"]]

    def as_json(self, *, active: bool) -> dict[str, Any]:
        """The run as the API shows it."""
        return {
            **self.summary(active=active),
            "inputs": dict(self.created.get("inputs", {})),
            "git": dict(self.created.get("git", {})),
            "plugins": dict(self.created.get("plugins", {})),
            "jobs": [job.as_json() for job in self.jobs.values()],
        }

    def summary(self, *, active: bool) -> dict[str, Any]:
        """One row of ``workflow ls``."""
        return {
            "id": self.id,
            "workflow": self.workflow,
            "file": self.created.get("file", ""),
            "state": self.state(active=active),
            "active": active,
            "result": self.result,
            "attempt": self.attempt,
            "by": self.created.get("by", ""),
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "duration_s": self.duration,
        }

    def state(self, *, active: bool) -> str:
        """One word: the result, ``running``, ``cancelling``, or ``interrupted``."""
        if self.result:
            return self.result
        if not active:
            return "interrupted"
        return "cancelling" if self.cancelling else "running"


def fold(records: Iterable[Mapping[str, Any]]) -> RunState:
    """The state after all these records."""
    run = RunState()
    for record in records:
        run.take(record)
    return run


def _created(run: RunState, record: Mapping[str, Any]) -> None:
    run.created, run.created_at = record, record["t"]
    for job in record["jobs"]:
        state = JobState(job["id"], job["needs"], cleanup=job["finally"])
        for step in job["steps"]:
            state.steps[step["id"]] = StepState(step["id"], step["title"], step["verb"])
        run.jobs[state.id] = state


def _attempt(run: RunState, record: Mapping[str, Any]) -> None:
    run.attempt, run.result, run.cancelling = record["attempt"], "", False
    for job in run.jobs.values():
        if job.cleanup or job.result not in GOOD:
            job.started, job.result = False, ""


def _job_started(run: RunState, record: Mapping[str, Any]) -> None:
    """A job that is begun again keeps the steps that are finished, and nothing after them."""
    job = run.jobs[record["job"]]
    job.started, job.result, job.error = True, "", {}
    for step in unfinished(job):
        step.result, step.error, step.tail, step.tries = "", {}, [], 0


def _step_started(run: RunState, record: Mapping[str, Any]) -> None:
    step = run.step(record)
    step.intent, step.open, step.tries = record, True, record["try"]
    step.provider = record["provider"]
    step.result, step.error, step.tail = "", {}, []
    step.undone, step.undo_result, step.undo_detail = False, "", ""


def _step_finished(run: RunState, record: Mapping[str, Any]) -> None:
    step = run.step(record)
    step.open = False
    if record.get("retry_in") is None:
        step.result = record["result"]
    step.outputs, step.error = record.get("outputs", {}), record.get("error", {})
    step.duration, step.tail = record.get("duration", 0.0), record.get("tail", [])


def _step_settled(run: RunState, record: Mapping[str, Any]) -> None:
    step = run.step(record)
    step.open = False
    if record["applied"]:
        step.result, step.outputs = "success", record["outputs"]


def _undo_started(run: RunState, record: Mapping[str, Any]) -> None:
    step = run.step(record)
    step.undone, step.undo_result = True, ""


def _undo_finished(run: RunState, record: Mapping[str, Any]) -> None:
    step = run.step(record)
    step.undo_result, step.undo_detail = record["result"], record.get("detail", "")


def _job_finished(run: RunState, record: Mapping[str, Any]) -> None:
    job = run.jobs[record["job"]]
    job.result, job.outputs = record["result"], record["outputs"]
    job.duration, job.error = record["duration"], record.get("error", {})


def _cancel(run: RunState, _: Mapping[str, Any]) -> None:
    run.cancelling = True


def _finished(run: RunState, record: Mapping[str, Any]) -> None:
    run.result, run.duration = record["result"], record["duration"]


_HANDLERS: Final = {
    "run-created": _created,
    "attempt-started": _attempt,
    "job-started": _job_started,
    "step-started": _step_started,
    "step-finished": _step_finished,
    "step-settled": _step_settled,
    "undo-started": _undo_started,
    "undo-finished": _undo_finished,
    "job-finished": _job_finished,
    "cancel-requested": _cancel,
    "run-finished": _finished,
}


def kept(job: JobState) -> list[StepState]:
    """The steps that need not run again: those before the first that failed, or was undone.

    A step after that one may have run only because of the failure (``if: failure()``), or upon
    something that is no longer so; it runs again. Jobs of ``finally`` clean up after each attempt.
    """
    if job.cleanup:
        return []
    found: list[StepState] = []
    for step in job.steps.values():
        if step.undone or step.open or step.result not in GOOD | {"skipped"}:
            break
        found.append(step)
    return found


def unfinished(job: JobState) -> list[StepState]:
    """The steps that are not ``kept``."""
    return list(job.steps.values())[len(kept(job)) :]
