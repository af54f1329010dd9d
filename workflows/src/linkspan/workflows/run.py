"""One run: jobs as their needs allow, then ``finally``, then the result.

All tasks of a run live in one nursery. The cost of a job is constant: a job that ends counts down the
jobs that wait for it, nobody looks at the whole graph.
"""

import logging
from collections import defaultdict

import trio

from linkspan.workflows.job import JobRunner
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

    async def __call__(self) -> str:
        """Run to the end; return the result, which is in the journal then.

        Raises:
            JournalFailed: The journal cannot be written; the run counts as interrupted.
        If cancelled: the daemon ends; the run counts as interrupted and can be resumed.
        """
        run = self.run
        started = run.clock()
        await run.recorder.write("attempt-started", attempt=run.recorder.state.attempt + 1)
        with run.control.main:
            await self._jobs()
        await self._cancel_rest()
        result = self._result(list(run.workflow.jobs))
        with run.control.cleanup:
            await self._cleanup(result, run.clock() - started)
        result = self._with_cleanup(result)
        await run.recorder.write("run-finished", result=result, duration=run.clock() - started)
        return result

    # jobs

    async def _jobs(self) -> None:
        jobs = self.run.workflow.jobs
        states = self.run.recorder.state.jobs
        done = {name for name in jobs if states[name].result in GOOD}
        for name, job in jobs.items():
            if name not in done:
                needed = [each for each in job.needed if each not in done]
                self._waiting_for[name] = len(needed)
                for each in needed:
                    self._dependents[each].append(name)
        ready = [jobs[name] for name, count in self._waiting_for.items() if count == 0]
        async with trio.open_nursery() as nursery:
            for job in ready:
                nursery.start_soon(self._job, job, nursery)
        self._raise_fault()

    async def _job(self, job: Job, nursery: trio.Nursery) -> None:
        """Run a job, then start those that waited for it alone."""
        try:
            await JobRunner(self.run, job)()
        except Exception as error:  # noqa: BLE001 - kept, and raised when the nursery is closed
            self._note(error, nursery)
            return
        for name in self._dependents[job.id]:
            self._waiting_for[name] -= 1
            if self._waiting_for[name] == 0:
                nursery.start_soon(self._job, self.run.workflow.jobs[name], nursery)

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
                nursery.start_soon(self._cleanup_job, job, (result, duration), nursery)
        self._raise_fault()

    async def _cleanup_job(self, job: Job, ended: tuple[str, float], nursery: trio.Nursery) -> None:
        try:
            await JobRunner(self.run, job, ended=ended)()
        except Exception as error:  # noqa: BLE001 - as above
            self._note(error, nursery)

    def _result(self, names: list[str]) -> str:
        results = {self.run.recorder.state.jobs[name].result for name in names}
        if "cancelled" in results:
            return "cancelled"
        if results & BAD:
            return "failed"
        return "warned" if "warned" in results else "success"

    def _with_cleanup(self, result: str) -> str:
        """A failure in ``finally`` is the run's failure, unless there is one already."""
        after = self._result(list(self.run.workflow.cleanup))
        if result in GOOD and after in BAD:
            return "failed"
        return "warned" if result == "success" and after == "warned" else result
