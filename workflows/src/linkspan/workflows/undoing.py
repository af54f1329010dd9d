"""Taking back what a step did: after its failure, or a whole run later."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs
import trio

from linkspan.sdk.drivers.step import Step as StepDriver, StepContext
from linkspan.sdk.errors import Conflict, LinkspanError
from linkspan.sdk.model.step import StepIntent
from linkspan.workflows.calling import PluginCalls
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.restoring import granted_again, restored
from linkspan.workflows.running import Fault, Run, fault_of
from linkspan.workflows.state import GOOD, JobState, RunState, StepState
from linkspan.workflows.steplog import StepLog

log = logging.getLogger(__name__)

_NO_WAY_BACK: Final = {
    "impossible": "cannot be taken back",
    "needless": "nothing to take back",
}


def intent_of(run: Run, record: Mapping[str, Json], workspace: Path | None = None) -> StepIntent:
    """A ``step-started`` record as the step's driver sees it.

    Args:
        run: Its run.
        record: The record.
        workspace: The job's; None if that is not at hand.
    """
    job = str(record["job"])
    return StepIntent(
        run_id=run.id,
        job=job,
        step=str(record["step"]),
        attempt=int(record["try"]),
        verb=str(record["verb"]),
        settings=record["settings"],
        workspace=workspace or run.folder_of(job) / "workspace",
        undo=record["undo"],
        use=run.frame.by_id[job].frame.use,
        git=run.git,
    )


async def undo_step(
    run: Run, job: str, state: StepState, context: StepContext, *, because_of: str
) -> bool:
    """Take back what a step recorded before it acted; whether that went well is in the journal.

    Args:
        run: The run.
        job: The step's job.
        state: The step; it has an intent with something to undo.
        context: Gets what the driver says.
        because_of: The step whose failure is the reason, or empty.

    Raises:
        JournalFailed: The journal cannot be written; nothing was taken back.
    """
    record = state.intent
    assert record is not None
    started = run.clock()
    where = {"job": job, "step": state.id}
    await run.recorder.write("undo-started", **where, **{"for": because_of})
    fault: Fault | None = None
    detail = ""
    try:
        # A try that was cut off has those of an earlier one still.
        outputs = state.outputs if state.result in GOOD else {}
        detail = await _take_back(run, record, outputs, context)
    except Exception as error:
        if not isinstance(error, LinkspanError):
            log.exception("undo failed", extra={"run": run.id, "step": state.id})
        fault = fault_of(error)
    if fault is not None:
        detail = "; ".join(filter(None, (fault.message, fault.help)))
    context.log(f"rolled back: {detail}" if fault is None else f"rollback failed: {detail}")
    await run.recorder.write(
        "undo-finished",
        **where,
        result="success" if fault is None else "failed",
        detail=detail,
        error={} if fault is None else fault.as_json(),
        duration=run.clock() - started,
    )
    return fault is None


async def _take_back(
    run: Run, record: Mapping[str, Json], outputs: Mapping[str, Json], context: StepContext
) -> str:
    """Do what an intent says about the way back; what the driver says to that."""
    record = await restored(run, record)
    calls = PluginCalls(workers=run.workers, say=context.log, on_stop=run.control.add_grace)
    if record.get("undo_by") != "step":
        driver: StepDriver[object] = run.host.driver("step", record["verb"])
        wish = attrs.evolve(intent_of(run, record), outputs=outputs)
        done = await calls(lambda: driver.undo(wish, context))
        return str(done.get("detail", ""))
    verb = record["undo"]["uses"]
    own: StepDriver[object] = run.host.driver("step", verb)
    fields = {**record, "verb": verb, "settings": record["undo"]["with"], "undo": {}}
    intent = intent_of(run, fields)
    planned = await calls(lambda: own.plan(intent))
    ready = intent_of(run, {**fields, "undo": dict(planned.undo)})
    await calls(lambda: own.apply(ready, context))
    changes = ", ".join(f"{change.what} {change.detail}" for change in planned.changes)
    return f"{verb}: {changes}" if changes else verb


def undoable(state: RunState) -> list[tuple[JobState, StepState]]:
    """What can be taken back of a run, the last change first."""
    found = [
        (job, step)
        for job in state.jobs.values()
        for step in job.steps.values()
        if step.intent is not None
        and step.intent["undo"]
        and not (step.undone and step.undo_result == "success")
    ]
    return sorted(found, key=lambda pair: _number(pair[1]), reverse=True)


def not_undoable(state: RunState) -> dict[str, list[str]]:
    """The steps that began and have no way back, by the reason: ``PLACE (VERB)`` each."""
    found: dict[str, list[str]] = {}
    for job in state.jobs.values():
        for step in job.steps.values():
            if step.intent is not None and not step.intent["undo"]:
                why = _NO_WAY_BACK.get(step.intent.get("undo_by", ""), "nothing recorded")
                found.setdefault(why, []).append(f"{job.id}/{step.id} ({step.intent['verb']})")
    return found


def _number(step: StepState) -> int:
    assert step.intent is not None
    return int(step.intent["n"])


@attrs.define
class _LogContext:
    """Implements ``StepContext`` for an undo long after the step."""

    _log: StepLog
    secrets: Mapping[str, str]

    def log(self, line: str) -> None:
        self._log.add(line)

    def progress(self, _: object) -> None:
        """Nobody watches."""


async def undo_run(run: Run, by: str) -> str:
    """Walk back through everything a run has changed; what is taken back already stays so.

    The first failure ends it: what came before is the ground that it stands on. Asked to stop, it ends after the
    step that is being taken back, and asked again at once.

    Returns:
        ``success``, ``failed`` or ``cancelled``, which is in the journal then.

    Raises:
        Conflict: Nothing is left to take back; code ``nothing_to_undo``.
        JournalFailed: The journal cannot be written.
    """
    todo = undoable(run.recorder.state)
    if not todo:
        raise Conflict(
            f"nothing of run {run.id} is left to take back",
            code="nothing_to_undo",
            help="only changes of verbs that know their way back can be undone",
        )
    result = "cancelled"
    with run.control.cleanup:
        result = await _walk_back(run, todo)
    await run.recorder.write("run-undone", result=result, by=by)
    return result


async def _walk_back(run: Run, todo: Sequence[tuple[JobState, StepState]]) -> str:
    for job, step in todo:
        if run.control.cancelling:
            return "cancelled"
        path = run.folder_of(job.id) / f"{step.id}.log"
        told = StepLog(path, lambda stream, line: None, run.recorder.masks, run.logs)
        try:
            granted = await granted_again(run, job.id, step.id)
            for line in granted.missing:
                told.add(line)
            context = _LogContext(told, granted.values)
            well = await undo_step(run, job.id, step, context, because_of="")
        finally:
            with trio.CancelScope(shield=True):
                await told.flush()
        if not well:
            return "failed"
    return "success"
