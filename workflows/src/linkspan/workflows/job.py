"""One job: its workspace, its services, its steps one after the other, its outputs."""

import logging
from collections.abc import Mapping
from typing import Final

import trio

from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.progress import Progress
from linkspan.workflows.expressions import EvaluationFailed, Scope, decides_about_failure
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.journal import JournalFailed
from linkspan.workflows.model import Job
from linkspan.workflows.running import Fault, Run, fault_of, truth
from linkspan.workflows.sidecars import Sidecars
from linkspan.workflows.state import BAD, GOOD, kept
from linkspan.workflows.step import Place, StepRunner
from linkspan.workflows.steplog import StepLog
from linkspan.workflows.values import resolve, resolve_texts
from linkspan.workflows.workspace import copy_tree

log = logging.getLogger(__name__)

SUSPENDED: Final = "suspended"
"""What a job or step says instead of a result while a person decides."""


class JobRunner:
    """Runs one job."""

    def __init__(self, run: Run, job: Job, *, ended: tuple[str, float] | None = None) -> None:
        """Make a runner.

        Args:
            run: The run.
            job: One of its jobs.
            ended: Result and duration of the other jobs, if this one stands in ``finally``.
        """
        self.run = run
        self.job = job
        self.ended = ended
        self.started = run.clock()
        self._runner: StepRunner | None = None

    async def __call__(self) -> str:
        """Run it; return its result, which is in the journal then, or ``suspended``.

        Raises:
            JournalFailed: The journal cannot be written.
        If cancelled: what ran was stopped and, if the run was told to stop, that is in the journal. If
        the daemon ends, nothing is written: the job goes on from there when the run is resumed.
        """
        try:
            contexts = self.run.job_contexts(self.job, ended=self.ended)
            if not self._wanted(contexts):
                return await self._finish("skipped")
        except EvaluationFailed as error:
            return await self._finish("failed", fault=fault_of(error))
        await self.run.recorder.write("job-started", job=self.job.id)
        # Not `except Cancelled`: nurseries hand several of them on as a group.
        ended = False
        try:
            with trio.move_on_after(self.job.timeout_s or float("inf")):
                result = await self._limited(contexts)
                ended = True
                return result
            ended = True
            fault = Fault(message=self._limit_words(), code="timeout")
            if self._runner is not None:
                await self._runner.stopped("timed-out", fault.message)
            return await self._finish("timed-out", fault=fault)
        finally:
            if not ended and self._told_to_stop():
                with trio.CancelScope(shield=True):
                    if self._runner is not None:
                        await self._runner.stopped("cancelled", "the run was cancelled")
                    await self._finish("cancelled")

    async def _limited(self, contexts: dict[str, Json]) -> str:
        try:
            return await self._work(contexts)
        except JournalFailed:
            raise
        except (LinkspanError, EvaluationFailed) as error:
            return await self._finish("failed", fault=fault_of(error))

    def _told_to_stop(self) -> bool:
        control = self.run.control
        return control.killed if self.ended else control.cancelling

    def _limit_words(self) -> str:
        return f"job '{self.job.id}' took longer than its timeout of {self.job.timeout_s:g}s"

    def _wanted(self, contexts: Mapping[str, Json]) -> bool:
        condition = self.job.condition
        if condition is None:
            return self._status("success")
        if not decides_about_failure(condition.tree) and not self._status("success"):
            return False
        return truth(condition, Scope(contexts=contexts, status=self._status))

    def _status(self, name: str) -> bool:
        """How the jobs before this one went; failures count through jobs that were skipped."""
        if self.ended is not None:
            good = self.ended[0] in GOOD
            cancelled = self.ended[0] == "cancelled"
            if name == "success":
                # Jobs of `finally` run whatever happened: without a condition nothing is asked.
                return good or self.job.condition is None
            return {"failure": not good and not cancelled, "always": True, "cancelled": cancelled}[
                name
            ]
        states = self.run.recorder.state.jobs
        if name == "success":
            return all(states[needed].result in GOOD for needed in self.job.needed)
        if name == "failure":
            return any(states[needed].result in BAD for needed in self._ancestors())
        return name == "always"

    def _ancestors(self) -> set[str]:
        found: set[str] = set()
        todo = list(self.job.needed)
        while todo:
            name = todo.pop()
            if name not in found:
                found.add(name)
                todo += self.run.workflow.jobs[name].needed
        return found

    async def _work(self, contexts: dict[str, Json]) -> str:
        folder = self.run.job_folder(self.job)
        await trio.to_thread.run_sync(self._prepare)
        scope = Scope(contexts=contexts, status=self._status)
        env = {**contexts["env"], **resolve_texts(self.job.env, scope)}
        job_log = StepLog(folder / "job.log", self._on_line, self.run.recorder.masks)
        sidecars = Sidecars(
            run=self.run,
            job=self.job,
            progress=self._progress,
            say=job_log.add,
        )
        try:
            await sidecars.start(scope)
            place = Place(
                job=self.job,
                contexts=contexts,
                env=env,
                workspace=folder / "workspace",
                network=sidecars.network or "default",
                services=sidecars.contexts,
            )
            suspended = await self._steps(place)
        finally:
            await sidecars.stop()
            await job_log.flush()
        return SUSPENDED if suspended else await self._conclude(place)

    def _on_line(self, stream: str, line: str) -> None:
        self.run.recorder.tell("log", job=self.job.id, step="", stream=stream, line=line)

    def _progress(self, progress: Progress) -> None:
        self.run.recorder.tell(
            "progress",
            job=self.job.id,
            step="",
            status=progress.status,
            id=progress.id,
            current=progress.current,
            total=progress.total,
        )

    def _prepare(self) -> None:
        folder = self.run.job_folder(self.job)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "workspace").exists():
            copy_tree(self.run.folder / "source", folder / "workspace")

    async def _steps(self, place: Place) -> bool:
        """Run the steps; whether a person must decide before the job goes on."""
        done = {step.id for step in kept(self.run.job_state(self.job))}
        for step in self.job.steps:
            if step.id not in done:
                self._runner = StepRunner(self.run, place, step)
                if await self._runner() == SUSPENDED:
                    return True
        return False

    async def _conclude(self, place: Place) -> str:
        results = {step.result for step in self.run.job_state(self.job).steps.values()}
        if results & BAD:
            return await self._finish("rejected" if results & BAD == {"rejected"} else "failed")
        last = StepRunner(self.run, place, self.job.steps[-1])
        scope = last.scope_after()
        outputs = resolve(dict(self.job.outputs), scope)
        return await self._finish("warned" if "warned" in results else "success", outputs=outputs)

    async def _finish(
        self, result: str, *, outputs: Mapping[str, Json] | None = None, fault: Fault | None = None
    ) -> str:
        if result in BAD and self._soft():
            result = "warned"
        await self.run.recorder.write(
            "job-finished",
            job=self.job.id,
            result=result,
            outputs=dict(outputs or {}),
            duration=self.run.clock() - self.started,
            error={} if fault is None else fault.as_json(),
        )
        return result

    def _soft(self) -> bool:
        flag = self.job.continue_on_error
        if isinstance(flag, bool):
            return flag
        contexts = self.run.job_contexts(self.job, ended=self.ended)
        try:
            return truth(flag, Scope(contexts=contexts, status=self._status))
        except EvaluationFailed:
            return False
