"""Where a run stands, folded from the records of its journal.

The journal is the only truth: the daemon, ``resume``, the command line and the web page all fold the
same records with this module, so they cannot disagree. It imports nothing heavy, since the command
line uses it, too.

Kinds of records, with their fields:

=====================  =========================================================================
``run-created``        ``version run workflow file digest inputs git plugins jobs by workspace``
                       ``rerun_of only images untrusted breaks passing``
``attempt-started``    ``attempt breaks timeout`` (from 1; each resume is one more)
``run-queued``         ``group behind`` (waits for another run of its concurrency group)
``job-started``        ``job``
``job-kept``           ``job result outputs source`` (taken over from another run)
``job-waits``          ``job lock behind`` (another job holds its lock)
``step-kept``          ``job step result outputs source excluded``
``image-used``         ``job step image id`` (what a name meant; a rerun takes the same)
``step-started``       ``job step try verb provider settings undo undo_by changes secrets`` (the intent)
``step-finished``      ``job step result outputs duration error tail retry_in held reason tests``
``step-settled``       ``job step applied outputs detail`` (an intent without a result, after a crash)
``step-suspended``     ``job step question until`` (a person decides; ``until`` is a POSIX time)
``step-decided``       ``job step vote by comment`` (``approve`` or ``reject``; several may be needed)
``break-reached``      ``job step when container shell reason editable script`` (held for a debugger)
``break-left``         ``job step action script by`` (``retry``, ``skip``, ``continue``, ``abort``)
``undo-started``       ``job step for``
``undo-finished``      ``job step result detail error duration``
``job-finished``       ``job result outputs duration error reason``
``cancel-requested``   ``by``
``run-suspended``      (nothing of it is left in memory; a decision goes on with it)
``run-continued``      ``by``
``run-finished``       ``result duration``
``run-undone``         ``result by``
=====================  =========================================================================
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

Result = Literal["success", "warned", "failed", "skipped", "cancelled", "timed-out", "rejected"]

GOOD: Final = frozenset({"success", "warned"})
BAD: Final = frozenset({"failed", "timed-out", "rejected"})


_ORDER: Final = ("skipped", "success", "warned", "cancelled", "rejected", "timed-out", "failed")


def worst(results: Iterable[str]) -> str:
    """The result of several jobs together; ``skipped`` only if all were, ``success`` of none."""
    return max(results, key=_ORDER.index, default="success")


NOT_ASKED: Final = "not asked for"
"""Why a job or step is skipped in a run of some only."""


class StepState:
    """One step.

    Attributes:
        result: Empty while it has none.
        tries: How often it was begun in this attempt of the run.
        intent: The last ``step-started`` record; None if it never began.
        open: It began and has no result: only its driver can say what became of it.
        undone: What it did was taken back, or that was begun.
        undo_result: ``success`` or ``failed`` once the undo has ended.
        question: What a person is asked, with ``until``; empty if nobody is.
        votes: The ``step-decided`` records so far.
        excluded: It was not asked for (``--step``).
        reason: Why it was skipped, or kept.
        tests: Counts of its test report: ``passed failed skipped``.
        group: The step beside whose other parts it runs; empty for one that runs alone.
        background: The steps after it do not wait for it.
        held: The ``break-reached`` record while it waits at a breakpoint; empty else.
        script: Edited at a breakpoint, in place of the pipeline's; None if it was not.
    """

    __slots__ = (
        "background",
        "duration",
        "error",
        "excluded",
        "group",
        "held",
        "id",
        "intent",
        "open",
        "outputs",
        "provider",
        "question",
        "reason",
        "result",
        "script",
        "tail",
        "tests",
        "title",
        "tries",
        "undo_detail",
        "undo_result",
        "undone",
        "verb",
        "votes",
    )

    def __init__(self, step: Mapping[str, Any]) -> None:
        self.id: str = step["id"]
        self.title: str = step["title"]
        self.verb: str = step["verb"]
        self.group: str = step.get("group", "")
        self.background: bool = step.get("background", False)
        self.question: Mapping[str, Any] = {}
        self.votes: list[Mapping[str, Any]] = []
        self.held: Mapping[str, Any] = {}
        self.script: str | None = None
        self.excluded = False
        self.reason = ""
        self.tests: Mapping[str, int] = {}
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
            "question": dict(self.question),
            "votes": [dict(vote) for vote in self.votes],
            "edited": self.script is not None,
            "reason": self.reason,
            "tests": dict(self.tests),
        }

    @property
    def state(self) -> str:
        """One word: its result, ``held``, ``suspended``, ``running``, or ``waiting``."""
        if self.held:
            return "held"
        if self.result:
            return self.result
        if self.question:
            return "suspended"
        return "running" if self.open else "waiting"

    @property
    def decision(self) -> str:
        """``approve`` or ``reject`` once enough have spoken; empty before."""
        votes = [vote["vote"] for vote in self.votes]
        if "reject" in votes:
            return "reject"
        enough = len({vote["by"] for vote in self.votes}) >= self.question.get("minimum", 1)
        return "approve" if votes and enough else ""


class JobState:
    """One job, or one cell of a job's matrix, or one job of a pipeline that a job calls.

    Attributes:
        id: ``test``, ``test[3.10-sqlite]``, ``deploy.check``.
        name: Of the job as written, in its pipeline.
        cell: The key of its cell; empty without a matrix.
        cleanup: Whether it stands in ``finally``.
        waits: The lock that it waits for; empty if none.
    """

    __slots__ = (
        "cell",
        "cleanup",
        "duration",
        "error",
        "id",
        "name",
        "needs",
        "outputs",
        "reason",
        "result",
        "started",
        "steps",
        "waits",
    )

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.id: str = job["id"]
        self.name: str = job.get("name") or self.id
        self.cell: str = job.get("cell", "")
        self.needs: tuple[str, ...] = tuple(job["needs"])
        self.cleanup: bool = job["finally"]
        self.reason = ""
        self.waits = ""
        self.result = ""
        self.started = False
        self.outputs: Mapping[str, Any] = {}
        self.duration = 0.0
        self.error: Mapping[str, Any] = {}
        self.steps: dict[str, StepState] = {}

    @property
    def state(self) -> str:
        """One word: its result, ``suspended``, ``running``, or ``waiting``."""
        if self.result:
            return self.result
        if any(step.state == "suspended" for step in self.steps.values()):
            return "suspended"
        return "running" if self.started else "waiting"

    def as_json(self) -> dict[str, Any]:
        """The job as the API shows it."""
        return {
            "id": self.id,
            "name": self.name,
            "cell": self.cell,
            "waits": self.waits,
            "reason": self.reason,
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
        suspended: It waits for a person, with nothing of it in memory.
        images: Name of an image → id of what it meant when it was first used.
        undone: ``success``, ``failed`` or ``cancelled`` once the whole run was taken back, or that was tried.
        behind: The run that it waits for; empty if none.
        held: Steps that wait at a breakpoint, by ``JOB/STEP``.
        breaks: Where this attempt is held for whoever debugs it.
        timeout_s: How long this attempt may run; None for as long as it takes.
        records: How many it is folded from.
    """

    def __init__(self) -> None:
        self.records = 0
        self.created: Mapping[str, Any] = {}
        self.created_at = ""
        self.updated_at = ""
        self.attempt = 0
        self.result = ""
        self.duration = 0.0
        self.cancelling = False
        self.suspended = False
        self.undone = ""
        self.behind = ""
        self.images: dict[str, str] = {}
        self.jobs: dict[str, JobState] = {}
        self.held: dict[str, StepState] = {}
        self.breaks: tuple[str, ...] = ()
        self.timeout_s: float | None = None

    @property
    def id(self) -> str:
        """The run's id."""
        return str(self.created.get("run", ""))

    @property
    def workflow(self) -> str:
        """The pipeline's name."""
        return str(self.created.get("workflow", ""))

    def take(self, record: Mapping[str, Any]) -> None:
        """Fold one more record; unknown kinds change nothing."""
        self.records += 1
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

    @property
    def passing(self) -> bool:
        """Somebody only looks around in it, and it is forgotten when it has ended."""
        return bool(self.created.get("passing"))

    @property
    def order(self) -> tuple[int, str]:
        """Greater for a run that was made later, whatever the clock said then."""
        return int(self.created.get("serial", 0)), self.created_at

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
            "rerun_of": self.created.get("rerun_of", ""),
            "undone": self.undone,
        }

    def state(self, *, active: bool) -> str:
        """One word: the result, ``running``, ``held``, ``queued``, ``cancelling``, ``suspended``,
        ``interrupted``."""
        if self.result and not (active and self.cancelling):
            return self.result
        if not active:
            return "suspended" if self.suspended else "interrupted"
        if self.cancelling:
            return "cancelling"
        if self.held:
            return "held"
        return "queued" if self.behind else "running"

    def suspensions(self) -> list[tuple[JobState, StepState]]:
        """The steps that a person decides about."""
        return [
            (job, step)
            for job in self.jobs.values()
            for step in job.steps.values()
            if step.state == "suspended" and not job.result
        ]


def fold(records: Iterable[Mapping[str, Any]]) -> RunState:
    """The state after all these records."""
    run = RunState()
    for record in records:
        run.take(record)
    return run


def _created(run: RunState, record: Mapping[str, Any]) -> None:
    run.created, run.created_at = record, record["t"]
    run.images = dict(record.get("images", {}))
    for job in record["jobs"]:
        state = JobState(job)
        for step in job["steps"]:
            state.steps[step["id"]] = StepState(step)
        run.jobs[state.id] = state


def _attempt(run: RunState, record: Mapping[str, Any]) -> None:
    run.attempt, run.result, run.cancelling = record["attempt"], "", False
    run.suspended, run.behind, run.timeout_s = False, "", record.get("timeout")
    run.breaks = tuple(record.get("breaks") or run.breaks or run.created.get("breaks", ()))
    for place in list(run.held):
        _let_go(run, place)
    for job in run.jobs.values():
        if (job.cleanup or job.result not in GOOD) and job.reason != NOT_ASKED:
            job.started, job.result, job.reason = False, "", ""
            for step in job.steps.values():
                if step.question and not step.decision:
                    # Its time limit has gone on; whoever is asked is asked anew.
                    step.question, step.votes = {}, []


def _queued(run: RunState, record: Mapping[str, Any]) -> None:
    run.behind = record["behind"]


def _suspended(run: RunState, _: Mapping[str, Any]) -> None:
    run.suspended = True


def _continued(run: RunState, _: Mapping[str, Any]) -> None:
    run.suspended = False


def _job_started(run: RunState, record: Mapping[str, Any]) -> None:
    """A job that is begun again keeps the steps that are finished, and nothing after them."""
    run.behind = ""
    job = run.jobs[record["job"]]
    job.started, job.result, job.error, job.waits = True, "", {}, ""
    for step in unfinished(job):
        if step.question and not step.result:
            # What was asked, and why, stays until it is answered.
            continue
        # Rejected before: whoever resumes asks again.
        step.question, step.votes = {}, []
        step.result, step.error, step.tail, step.tries = "", {}, [], 0


def _job_kept(run: RunState, record: Mapping[str, Any]) -> None:
    job = run.jobs[record["job"]]
    job.result, job.outputs, job.reason = record["result"], record["outputs"], record["reason"]


def _job_waits(run: RunState, record: Mapping[str, Any]) -> None:
    run.jobs[record["job"]].waits = record["lock"]


def _step_kept(run: RunState, record: Mapping[str, Any]) -> None:
    step = run.step(record)
    step.result, step.outputs, step.reason = record["result"], record["outputs"], record["reason"]
    step.excluded = record.get("excluded", False)


def _image_used(run: RunState, record: Mapping[str, Any]) -> None:
    run.images[record["image"]] = record["id"]


def _step_started(run: RunState, record: Mapping[str, Any]) -> None:
    step = run.step(record)
    step.intent, step.open, step.tries = record, True, record["try"]
    step.question, step.votes = {}, []
    step.provider = record["provider"]
    step.result, step.error, step.tail = "", {}, []
    step.undone, step.undo_result, step.undo_detail = False, "", ""
    step.reason = ""


def _step_finished(run: RunState, record: Mapping[str, Any]) -> None:
    step = run.step(record)
    step.open = False
    if step.held:
        _let_go(run, _place(record))
    if record.get("retry_in") is None:
        step.result = record["result"]
    step.outputs, step.error = record.get("outputs", {}), record.get("error", {})
    step.duration, step.tail = record.get("duration", 0.0), record.get("tail", [])
    step.reason, step.tests = record.get("reason", ""), record.get("tests", {})


def _step_settled(run: RunState, record: Mapping[str, Any]) -> None:
    step = run.step(record)
    step.open = False
    if record["applied"]:
        step.result, step.outputs = "success", record["outputs"]


def _step_suspended(run: RunState, record: Mapping[str, Any]) -> None:
    step = run.step(record)
    step.open = False
    step.question, step.votes = {**record["question"], "until": record["until"]}, []


def _step_decided(run: RunState, record: Mapping[str, Any]) -> None:
    run.step(record).votes.append(record)


def _place(record: Mapping[str, Any]) -> str:
    return f"{record['job']}/{record['step']}"


def _let_go(run: RunState, place: str) -> None:
    step = run.held.pop(place, None)
    if step is not None:
        step.held = {}


def _break_reached(run: RunState, record: Mapping[str, Any]) -> None:
    step = run.held[_place(record)] = run.step(record)
    step.held = record


def _break_left(run: RunState, record: Mapping[str, Any]) -> None:
    _let_go(run, _place(record))
    if record.get("script") is not None:
        run.step(record).script = record["script"]


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
    job.reason, job.waits = record.get("reason", ""), ""
    for step in job.steps.values():
        if step.held:
            # The job was stopped while it waited.
            _let_go(run, f"{job.id}/{step.id}")


def _cancel(run: RunState, _: Mapping[str, Any]) -> None:
    run.cancelling = True


def _finished(run: RunState, record: Mapping[str, Any]) -> None:
    run.result, run.duration = record["result"], record["duration"]


def _undone(run: RunState, record: Mapping[str, Any]) -> None:
    run.undone, run.cancelling = record["result"], False


_HANDLERS: Final = {
    "run-created": _created,
    "attempt-started": _attempt,
    "run-queued": _queued,
    "run-suspended": _suspended,
    "run-continued": _continued,
    "run-undone": _undone,
    "job-started": _job_started,
    "job-kept": _job_kept,
    "job-waits": _job_waits,
    "step-kept": _step_kept,
    "image-used": _image_used,
    "step-suspended": _step_suspended,
    "step-decided": _step_decided,
    "break-reached": _break_reached,
    "break-left": _break_left,
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
    something that is no longer so; it runs again. What ran side by side with it is kept. Jobs of
    ``finally`` clean up after each attempt.
    """
    if job.cleanup:
        return []
    found: list[StepState] = []
    stopped_by: StepState | None = None
    for step in job.steps.values():
        done = not (step.undone or step.open or step.result not in GOOD | {"skipped"})
        if step.excluded or (done and (stopped_by is None or _beside(step, stopped_by))):
            found.append(step)
        elif not step.background:
            stopped_by = stopped_by or step
    return found


def _beside(step: StepState, other: StepState) -> bool:
    """Whether two steps run side by side: a step of steps is beside its own parts."""
    group = other.group or other.id
    return step.group == group


def unfinished(job: JobState) -> list[StepState]:
    """The steps that are not ``kept``."""
    keep = {step.id for step in kept(job)}
    return [step for step in job.steps.values() if step.id not in keep]
