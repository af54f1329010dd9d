"""One run: its place in a concurrency group, its jobs, then ``finally``, then the result.

All tasks of a run live in one nursery.
"""

from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack

from linkspan.workflows.expressions import Scope
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.model import Concurrency
from linkspan.workflows.running import Run
from linkspan.workflows.scheduler import Scheduler
from linkspan.workflows.state import BAD, GOOD
from linkspan.workflows.step import SUSPENDED
from linkspan.workflows.units import Unit
from linkspan.workflows.values import resolve_text


class RunRunner:
    """Runs a run, or goes on with one: what its state says is done is not done again."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.jobs = Scheduler(run, run.frame)

    async def __call__(
        self,
        *,
        continued_by: str | None = None,
        breaks: Sequence[str] = (),
        timeout_s: float | None = None,
    ) -> str:
        """Run to the end; return the result, which is in the journal then, or ``suspended``.

        Args:
            continued_by: Who has decided about a suspended run, which goes on in the same attempt; None
                for a new attempt.
            breaks: Where a new attempt is held; empty for where the run was held before.
            timeout_s: The time limit of a new attempt, for the journal.

        Raises:
            JournalFailed: The journal cannot be written; the run counts as interrupted.
        If cancelled: the daemon ends; the run counts as interrupted and can be resumed.
        """
        run = self.run
        if continued_by is None:
            others: dict[str, Json] = {"breaks": list(breaks)} if breaks else {}
            if timeout_s is not None:
                others["timeout"] = timeout_s
            attempt = run.recorder.state.attempt + 1
            await run.recorder.write("attempt-started", attempt=attempt, **others)
        else:
            await run.recorder.write("run-continued", by=continued_by)
        try:
            async with AsyncExitStack() as stack:
                return await self._all(stack)
        finally:
            await run.logs.write()

    async def _enter_group(self, stack: AsyncExitStack) -> None:
        """Wait until no other run of the group is active; a suspended one is not."""
        concurrency = self.run.workflow.concurrency
        if concurrency is None or self.run.recorder.state.passing:
            return
        group = group_of(self.run, concurrency)

        async def waits(behind: str) -> None:
            await self.run.recorder.write("run-queued", group=group, behind=behind)
            if concurrency.on_conflict == "cancel-running":
                self.run.cancel_others(group)

        await stack.enter_async_context(self.run.groups.hold(group, self.run.id, waits))

    async def _all(self, stack: AsyncExitStack) -> str:
        run = self.run
        started = run.clock()
        with run.control.main:
            await self._enter_group(stack)
            started = run.clock()
            await self.jobs.run_jobs()
        if not self._suspended():
            await self.jobs.cancel_rest()
            result = self._result()
            run.control.ending = True
            with run.control.cleanup:
                await self.jobs.run_cleanup(result, run.clock() - started)
        # Whoever is told that it has ended finds all of its logs.
        await run.logs.write()
        if self._suspended():
            await run.recorder.write("run-suspended")
            return SUSPENDED
        result = with_cleanup(result, self.jobs.result(cleanup=True))
        if run.control.killed and result in GOOD and self._cut_off(run.frame.cleanup):
            # Not a success: what cleans up is still to be done, by `resume`.
            result = "cancelled"
        await run.recorder.write("run-finished", result=result, duration=run.clock() - started)
        return result

    def _result(self) -> str:
        if self.run.control.cancelling and self._cut_off(self.run.frame.units):
            return "timed-out" if self.run.control.out_of_time else "cancelled"
        return self.jobs.result(cleanup=False)

    def _cut_off(self, units: Iterable[Unit]) -> bool:
        states = self.run.recorder.state.jobs
        return any(states[unit.id].result == "cancelled" for unit in units)

    def _suspended(self) -> bool:
        """Whether all that is left waits for a person; being told to stop is more than that."""
        return self.run.control.suspending and not self.run.control.cancelling


def group_of(run: Run, concurrency: Concurrency) -> str:
    """The name of a run's concurrency group.

    Raises:
        EvaluationFailed: It has no value.
    """
    return resolve_text(concurrency.group, Scope(contexts=run.env_contexts(run.frame)))


def with_cleanup(result: str, after: str) -> str:
    """A failure in ``finally`` is the run's failure, unless there is one already."""
    if result in GOOD and after in BAD:
        return after
    return "warned" if result == "success" and after == "warned" else result
