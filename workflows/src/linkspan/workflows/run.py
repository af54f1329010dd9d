"""One run: jobs as their needs allow, then ``finally``, then the result.

All tasks of a run live in one nursery. The cost of a job is constant: a job that ends counts down the
jobs that wait for it, nobody looks at the whole graph.
"""

import logging
from collections import defaultdict

import trio

from linkspan.workflows.job import SUSPENDED, JobRunner
from linkspan.workflows.journal import JournalFailed
from linkspan.workflows.model import Job
from linkspan.workflows.running import Run
from linkspan.workflows.state import BAD, GOOD

log = logging.getLogger(__name__)


class RunRunner:
    """Runs a run, or goes on with one: what its state says is done is not done again."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._fault: Exception | None = None
        self._waiting_for: dict[str, int] = {}
        self._dependents: dict[str, list[str]] = defaultdict(list)

    async def __call__(self, *, continued_by: str | None = None) -> str:
        """Run to the end; return the result, which is in the journal then, or ``suspended``.

        Args:
            continued_by: Who has decided about a suspended run, which goes on in the same attempt; None
                for a new attempt.

        Raises:
            JournalFailed: The journal cannot be written; the run counts as interrupted.
        If cancelled: the daemon ends; the run counts as interrupted and can be resumed.
        """
        run = self.run
        started = run.clock()
        if continued_by is None:
            await run.recorder.write("attempt-started", attempt=run.recorder.state.attempt + 1)
        else:
            await run.recorder.write("run-continued", by=continued_by)
        with run.control.main:
            await self._jobs()
        if not self._suspended():
            await self._cancel_rest()
            result = self._result(list(run.workflow.jobs))
            run.control.ending = True
            with run.control.cleanup:
                await self._cleanup(result, run.clock() - started)
        if self._suspended():
            await run.recorder.write("run-suspended")
            return SUSPENDED
        result = self._with_cleanup(result)
        await run.recorder.write("run-finished", result=result, duration=run.clock() - started)
        return result

    def _suspended(self) -> bool:
        """Whether all that is left waits for a person; being told to stop is more than that."""
        return self.run.control.suspending and not self.run.control.cancelling

    # jobs

    async def _jobs(self) -> None:
        jobs = self.run.workflow.jobs
        states = self.run.recorder.state.jobs
        # A new attempt has cleared the results that do not count any more.
        done = {name for name in jobs if states[name].result}
        for name, job in jobs.items():
            if name not in done:
                needed = [each for each in job.needed if each not in done]
                self._waiting_for[name] = len(needed)
                for each in needed:
                    self._dependents[each].append(name)
        ready = [jobs[name] for name, count in self._waiting_for.items() if count == 0]
        async with trio.open_nursery() as nursery:
            for job in ready:
                self._launch(job, nursery)
        self._raise_fault()

    def _launch(self, job: Job, nursery: trio.Nursery) -> None:
        self.run.control.begin()
        nursery.start_soon(self._counted, job, nursery)

    async def _counted(self, job: Job, nursery: trio.Nursery) -> None:
        try:
            await self._job(job, nursery)
        finally:
            self.run.control.end()

    async def _to_the_end(self, job: Job, ended: tuple[str, float] | None = None) -> None:
        """Run a job as often as a person is asked in it."""
        while await JobRunner(self.run, job, ended=ended)() == SUSPENDED:
            await self.run.control.hold(job.id)

    async def _job(self, job: Job, nursery: trio.Nursery) -> None:
        """Run a job, then start those that waited for it alone."""
        try:
            await self._to_the_end(job)
        except Exception as error:  # noqa: BLE001 - kept, and raised when the nursery is closed
            self._note(error, nursery)
            return
        for name in self._dependents[job.id]:
            self._waiting_for[name] -= 1
            if self._waiting_for[name] == 0:
                self._launch(self.run.workflow.jobs[name], nursery)

    def _note(self, error: Exception, nursery: trio.Nursery) -> None:
        """Keep the first fault and stop the rest: raised bare once the nursery is closed."""
        if not isinstance(error, JournalFailed):
            log.error("run failed", extra={"run": self.run.id}, exc_info=error)
        self._fault = self._fault or error
        nursery.cancel_scope.cancel()

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault

    async def _cancel_rest(self) -> None:
        """Jobs that never began, because the run was told to stop, end as cancelled."""
        if not self.run.control.cancelling:
            return
        for name in self.run.workflow.jobs:
            if not self.run.recorder.state.jobs[name].result:
                await self.run.recorder.write(
                    "job-finished", job=name, result="cancelled", outputs={}, duration=0.0, error={}
                )

    # finally

    async def _cleanup(self, result: str, duration: float) -> None:
        async with trio.open_nursery() as nursery:
            for job in self.run.workflow.cleanup.values():
                if not self.run.job_state(job).result:
                    self.run.control.begin()
                    nursery.start_soon(self._cleanup_job, job, (result, duration), nursery)
        self._raise_fault()

    async def _cleanup_job(self, job: Job, ended: tuple[str, float], nursery: trio.Nursery) -> None:
        try:
            await self._to_the_end(job, ended)
        except Exception as error:  # noqa: BLE001 - as above
            self._note(error, nursery)
        finally:
            self.run.control.end()

    def _result(self, names: list[str]) -> str:
        results = {self.run.recorder.state.jobs[name].result for name in names}
        if "cancelled" in results:
            return "cancelled"
        if results & BAD:
            return "rejected" if results & BAD == {"rejected"} else "failed"
        return "warned" if "warned" in results else "success"

    def _with_cleanup(self, result: str) -> str:
        """A failure in ``finally`` is the run's failure, unless there is one already."""
        after = self._result(list(self.run.workflow.cleanup))
        if result in GOOD and after in BAD:
            return after
        return "warned" if result == "success" and after == "warned" else result
