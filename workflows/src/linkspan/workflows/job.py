"""One job: its workspace, its services, its steps one after the other, its outputs."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager

import trio

from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.progress import Progress
from linkspan.workflows.calling import Guard
from linkspan.workflows.concealing import conceal_env
from linkspan.workflows.expressions import EvaluationFailed, Scope, decides_about_failure
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.granting import grant
from linkspan.workflows.jobfiles import JobFiles
from linkspan.workflows.journal import JournalFailed
from linkspan.workflows.place import Place
from linkspan.workflows.run_functions import RunFunctions
from linkspan.workflows.running import Fault, Run, fault_of, truth
from linkspan.workflows.sequence import StepSequence, result_of
from linkspan.workflows.sidecars import Sidecars
from linkspan.workflows.state import BAD, GOOD
from linkspan.workflows.step import SUSPENDED, StepRunner
from linkspan.workflows.steplog import StepLog
from linkspan.workflows.units import Unit
from linkspan.workflows.values import resolve, resolve_text, resolve_texts

log = logging.getLogger(__name__)


class JobRunner:
    """Runs one job."""

    def __init__(
        self,
        run: Run,
        unit: Unit,
        *,
        ended: tuple[str, float] | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """Make a runner.

        Args:
            run: The run.
            unit: One of its jobs.
            ended: Result and duration of the other jobs, if this one stands in ``finally``.
            stopping: Whether this job alone is to stop.
        """
        self.run = run
        self.unit = unit
        self.job = unit.job
        self.ended = ended
        self.started = run.clock()
        self._stopping = stopping
        self._sequence: StepSequence | None = None
        self._limit = trio.CancelScope()

    async def __call__(self) -> str:
        """Run it; return its result, which is in the journal then, or ``suspended``.

        Raises:
            JournalFailed: The journal cannot be written.
        If cancelled: what ran was stopped and, if the run was told to stop, that is in the journal. If
        the daemon ends, nothing is written: the job goes on from there when the run is resumed.
        """
        return await self.framed(self._work)

    async def framed(self, work: Callable[[dict[str, Json]], Awaitable[str]]) -> str:
        """Do the work of a job within its condition, its lock and its time limit.

        Args:
            work: Gets the contexts of the job; returns its result, which is in the journal then.
        """
        try:
            contexts = self.run.unit_contexts(self.unit, ended=self.ended)
            if not self._wanted(contexts):
                return await self.finish("skipped")
            lock = None
            if self.job.lock is not None and not self.run.recorder.state.passing:
                lock = resolve_text(self.job.lock, Scope(contexts=contexts))
        except EvaluationFailed as error:
            return await self.finish("failed", fault=fault_of(error))
        # Not `except Cancelled`: nurseries hand several of them on as a group.
        ended = False
        try:
            if lock is None:
                result = await self._in_time(work, contexts)
            else:
                async with self._locked(lock):
                    result = await self._in_time(work, contexts)
            ended = True
            return result
        finally:
            told = self.run.job_state(self.job).result
            if not ended and not told and self._told_to_stop():
                with trio.CancelScope(shield=True):
                    await self._stopped("cancelled", self.run.control.reason)
                    await self.finish("cancelled")

    async def _in_time(
        self, work: Callable[[dict[str, Json]], Awaitable[str]], contexts: dict[str, Json]
    ) -> str:
        await self.run.recorder.write("job-started", job=self.job.id)
        if not self.job.timeout_s:
            return await self._limited(work, contexts)
        with trio.move_on_after(self.job.timeout_s) as self._limit:
            return await self._limited(work, contexts)
        fault = Fault(message=self._limit_words(), code="timeout")
        await self._stopped("timed-out", fault.message)
        return await self.finish("timed-out", fault=fault)

    async def _stopped(self, result: str, why: str) -> None:
        """Tell of the steps that were cut off."""
        for runner in () if self._sequence is None else list(self._sequence.running):
            await runner.stopped(result, why)

    def _locked(self, name: str) -> AbstractAsyncContextManager[None]:
        async def waits(behind: str) -> None:
            await self.run.recorder.write("job-waits", job=self.job.id, lock=name, behind=behind)

        return self.run.locks.hold(name, f"{self.run.id}/{self.job.id}", waits)

    async def _limited(
        self, work: Callable[[dict[str, Json]], Awaitable[str]], contexts: dict[str, Json]
    ) -> str:
        try:
            return await work(contexts)
        except JournalFailed:
            raise
        except (LinkspanError, EvaluationFailed) as error:
            return await self.finish("failed", fault=fault_of(error))

    def _told_to_stop(self) -> bool:
        control = self.run.control
        return self._stopping() or (control.killed if self.ended else control.cancelling)

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
            return all(states[needed].result in GOOD for needed in self.unit.needs)
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
                todo += self.unit.frame.workflow.jobs[name].needed
        return {unit.id for name in found for unit in self.unit.frame.cells(name)}

    async def _work(self, contexts: dict[str, Json]) -> str:
        run = self.run
        folder = run.job_folder(self.job)
        secrets = await grant(run, self.unit.frame, self.job.secrets)
        job_log = StepLog(folder / "job.log", self._on_line, run.recorder.masks, run.logs)
        files = JobFiles(run, self.unit, job_log.add)
        call = RunFunctions(files.workspace, run.host.engine)
        scope = Scope(contexts={**contexts, "secrets": secrets}, status=self._status, call=call)
        sidecars = Sidecars(
            run=self.run,
            job=self.job,
            use=self.unit.frame.use,
            progress=self._progress,
            say=job_log.add,
        )
        kept_files = False
        try:
            await files.prepare(scope)
            env = {**contexts["env"], **resolve_texts(self.job.env, scope)}
            masks, top = self.run.recorder.masks, self.unit.frame.workflow.env
            conceal_env(masks, top, contexts["env"], scope)
            secret_env = conceal_env(masks, self.job.env, env, scope)
            await sidecars.start(scope)
            place = Place(
                unit=self.unit,
                contexts=contexts,
                env=env,
                folder=folder,
                workspace=files.workspace,
                network=sidecars.network or "default",
                services=sidecars.contexts,
                guard=Guard(run.workers),
                secrets=secrets,
                secret_env=secret_env,
                mounts=files.mounts,
                limit=self._limit,
            )
            self._sequence = StepSequence(self.run, place)
            suspended = await self._sequence()
            kept_files = True
            if not suspended:
                states = self.run.job_state(self.job).steps.values()
                good = result_of([step.result for step in states]) not in BAD
                await files.finish(good=good, scope=scope)
        finally:
            if not kept_files and self._sequence is not None:
                await files.finish_quietly(scope)
            await sidecars.stop()
        return SUSPENDED if suspended else await self._conclude(place)

    def _on_line(self, stream: str, line: str) -> None:
        self.run.recorder.tell("log", job=self.job.id, step="", stream=stream, line=line)

    def _progress(self, progress: Progress) -> None:
        self.run.recorder.tell_progress(self.job.id, "", progress)

    async def _conclude(self, place: Place) -> str:
        states = self.run.job_state(self.job).steps.values()
        result = result_of([step.result for step in states])
        if result in BAD:
            return await self.finish(result)
        outputs: Mapping[str, Json] = {}
        if self.job.outputs:
            last = StepRunner(self.run, place, self.job.steps[-1])
            outputs = resolve(dict(self.job.outputs), last.scope_after())
        return await self.finish(result, outputs=outputs)

    async def finish(
        self, result: str, *, outputs: Mapping[str, Json] | None = None, fault: Fault | None = None
    ) -> str:
        """Put the job's end into the journal; return its result, softened by ``continue-on-error``."""
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
        contexts = self.run.unit_contexts(self.unit, ended=self.ended)
        try:
            return truth(flag, Scope(contexts=contexts, status=self._status))
        except EvaluationFailed:
            return False
