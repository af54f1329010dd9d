"""The jobs of one pipeline, as their needs allow.

The cost of a job is constant: a job that ends counts down those that wait for it, nobody looks at the
whole graph.
"""

import logging
from collections import defaultdict
from typing import Final

import attrs
import trio

from linkspan.workflows.control import Activity
from linkspan.workflows.expressions import EvaluationFailed, Scope
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.inputs import typed_inputs
from linkspan.workflows.job import JobRunner
from linkspan.workflows.journal import JournalFailed
from linkspan.workflows.running import Run, fault_of
from linkspan.workflows.state import BAD, worst
from linkspan.workflows.step import SUSPENDED
from linkspan.workflows.units import Frame, Unit
from linkspan.workflows.values import resolve, resolve_texts

log = logging.getLogger(__name__)

_AT_ONCE: Final = 8
"""Jobs that are started in one turn of the loop."""


@attrs.define
class _Group:
    """The cells of one job.

    Attributes:
        failed: One of them has, and the others need not go on.
    """

    limiter: trio.CapacityLimiter | None
    fail_fast: bool
    failed: bool = False
    scopes: list[trio.CancelScope] = attrs.field(factory=list)


_ALONE: Final = _Group(limiter=None, fail_fast=False)
"""Jobs without cells."""


class Scheduler:
    """Runs the jobs of one frame; those of a called pipeline have a scheduler of their own."""

    def __init__(self, run: Run, frame: Frame, parent: Activity | None = None) -> None:
        """Make one.

        Args:
            run: The run.
            frame: One of its pipelines.
            parent: Where the job that calls it is counted; None for the run's own.
        """
        self.run = run
        self.frame = frame
        self.activity = Activity(run.control, parent)
        self._fault: Exception | None = None
        self._waiting_for: dict[str, int] = {}
        self._dependents: dict[str, list[Unit]] = defaultdict(list)
        self._groups: dict[str, _Group] = {}

    # jobs

    async def run_jobs(self) -> None:
        """Run all jobs that have no result yet.

        Raises:
            JournalFailed: The journal cannot be written.
        If cancelled: what ran was stopped, and what it was told is in the journal.
        """
        states = self.run.recorder.state.jobs
        # A new attempt has cleared the results that do not count any more.
        todo = [unit for unit in self.frame.units if not states[unit.id].result]
        waits = {unit.id for unit in todo}
        for unit in todo:
            needed = [each for each in unit.needs if each in waits]
            self._waiting_for[unit.id] = len(needed)
            for each in needed:
                self._dependents[each].append(unit)
        async with trio.open_nursery() as nursery:
            self._launch([unit for unit in todo if not self._waiting_for[unit.id]], nursery)
        self._raise_fault()

    def _launch(self, units: list[Unit], nursery: trio.Nursery) -> None:
        """Start jobs for which nothing is waited for any more."""
        self.activity.begin(len(units))
        if len(units) <= _AT_ONCE:
            for unit in units:
                nursery.start_soon(self._counted, unit, nursery)
        else:
            nursery.start_soon(self._launch_in_turn, units, nursery)

    async def _launch_in_turn(self, units: list[Unit], nursery: trio.Nursery) -> None:
        """Start very many jobs, a few in each turn of the loop.

        However many take their time, all of them run side by side. Of those that have little to do the
        first have ended before the last begin: thousands of living tasks, with all that they hold,
        cost more than their work.
        """
        for first in range(0, len(units), _AT_ONCE):
            for unit in units[first : first + _AT_ONCE]:
                nursery.start_soon(self._counted, unit, nursery)
            await trio.lowlevel.checkpoint()

    async def _counted(self, unit: Unit, nursery: trio.Nursery) -> None:
        """Run a job, then start those that waited for it alone."""
        try:
            await self._one(unit)
            ready: list[Unit] = []
            for waiting in self._dependents[unit.id]:
                self._waiting_for[waiting.id] -= 1
                if not self._waiting_for[waiting.id]:
                    ready.append(waiting)
            self._launch(ready, nursery)
        except Exception as error:  # noqa: BLE001 - kept, and raised when the nursery is closed
            self._note(error, nursery)
        finally:
            self.activity.end()

    async def _one(self, unit: Unit) -> None:
        group = self._group(unit)
        if not group.fail_fast:
            await self._to_the_end(unit, group)
            return
        with trio.CancelScope() as scope:
            group.scopes.append(scope)
            if group.failed:
                scope.cancel()
            result = await self._to_the_end(unit, group)
            if result in BAD:
                group.failed = True
                for other in group.scopes:
                    if other is not scope:
                        other.cancel()
        group.scopes.remove(scope)
        if scope.cancelled_caught and not self.run.job_state(unit.job).result:
            await self._write_cancelled(unit, "another cell failed")

    def _group(self, unit: Unit) -> _Group:
        strategy = unit.job.strategy
        if strategy is None:
            return _ALONE
        if unit.name not in self._groups:
            limit = strategy.max_parallel
            self._groups[unit.name] = _Group(
                limiter=None if limit is None else trio.CapacityLimiter(limit),
                fail_fast=strategy.fail_fast,
            )
        return self._groups[unit.name]

    async def _to_the_end(
        self, unit: Unit, group: _Group, ended: tuple[str, float] | None = None
    ) -> str:
        """Run a job, as often as a person is asked in it."""
        while True:
            if group.limiter is None:
                result = await self._job(unit, group, ended)
            else:
                async with group.limiter:
                    result = await self._job(unit, group, ended)
            if result != SUSPENDED:
                return result
            await self.activity.hold(unit.id)

    async def _job(self, unit: Unit, group: _Group, ended: tuple[str, float] | None) -> str:
        if unit.inner is not None:
            return await _Call(self, unit, group, ended)()
        return await JobRunner(self.run, unit, ended=ended, stopping=lambda: group.failed)()

    def _note(self, error: Exception, nursery: trio.Nursery) -> None:
        """Keep the first fault and stop the rest: raised bare once the nursery is closed."""
        if not isinstance(error, JournalFailed):
            log.error("run failed", extra={"run": self.run.id}, exc_info=error)
        self._fault = self._fault or error
        nursery.cancel_scope.cancel()

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault

    async def cancel_rest(self) -> None:
        """Jobs that never began, because the run was told to stop, end as cancelled."""
        if not self.run.control.cancelling:
            return
        for unit in self.frame.units:
            if not self.run.job_state(unit.job).result:
                if unit.inner is not None:
                    await Scheduler(self.run, unit.inner).cancel_rest()
                await self._write_cancelled(unit, self.run.control.reason)

    async def _write_cancelled(self, unit: Unit, reason: str) -> None:
        await self.run.recorder.write(
            "job-finished",
            job=unit.id,
            result="cancelled",
            outputs={},
            duration=0.0,
            error={},
            reason=reason,
        )

    # finally

    async def run_cleanup(self, result: str, duration: float) -> None:
        """Run the jobs of ``finally``, also those of called pipelines that were cut off.

        Raises:
            JournalFailed: The journal cannot be written.
        """
        async with trio.open_nursery() as nursery:
            for unit in self._all_cleanup():
                if not self.run.job_state(unit.job).result:
                    self.activity.begin()
                    nursery.start_soon(self._cleanup_unit, unit, (result, duration), nursery)
        self._raise_fault()

    def _all_cleanup(self) -> list[Unit]:
        units = list(self.frame.cleanup)
        if self.run.control.cancelling:
            for unit in self.frame.by_id.values():
                if unit.inner is not None and self.run.job_state(unit.job).started:
                    units += unit.inner.cleanup
        return units

    async def _cleanup_unit(
        self, unit: Unit, ended: tuple[str, float], nursery: trio.Nursery
    ) -> None:
        try:
            await self._to_the_end(unit, _ALONE, ended)
        except Exception as error:  # noqa: BLE001 - as above
            self._note(error, nursery)
        finally:
            self.activity.end()

    def result(self, *, cleanup: bool) -> str:
        """The worst result of the jobs, or of those of ``finally``; those without one do not count."""
        units = self.frame.cleanup if cleanup else self.frame.units
        results = (self.run.job_state(unit.job).result for unit in units)
        found = worst(result for result in results if result)
        return {"timed-out": "failed", "skipped": "success"}.get(found, found)


class _Call:
    """A job that is another pipeline: its inputs, its jobs, its ``finally``, its outputs."""

    def __init__(
        self, caller: Scheduler, unit: Unit, group: _Group, ended: tuple[str, float] | None
    ) -> None:
        self.run = caller.run
        self.caller = caller
        self.unit = unit
        self.job = JobRunner(self.run, unit, ended=ended, stopping=lambda: group.failed)

    async def __call__(self) -> str:
        """Run it; return its result, which is in the journal then."""
        return await self.job.framed(self._work)

    async def _work(self, contexts: dict[str, Json]) -> str:
        inner = self.unit.inner
        call = self.unit.job.call
        assert inner is not None
        assert call is not None
        given = resolve(dict(call.inputs), Scope(contexts=contexts))
        self.run.frame_inputs[inner.prefix] = typed_inputs(inner.workflow, given)
        jobs = Scheduler(self.run, inner, self.caller.activity)
        started = self.run.clock()
        await jobs.run_jobs()
        result = jobs.result(cleanup=False)
        await jobs.run_cleanup(result, self.run.clock() - started)
        after = jobs.result(cleanup=True)
        if after in BAD and result not in BAD:
            result = after
        outputs: dict[str, str] = {}
        if result not in BAD:
            try:
                scope = Scope(contexts=self.run.frame_contexts(inner))
                outputs = resolve_texts(inner.workflow.outputs, scope)
            except EvaluationFailed as error:
                return await self.job.finish("failed", fault=fault_of(error))
        return await self.job.finish(result, outputs=outputs)
