"""The steps of a job: one after the other, side by side, or in the background."""

import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

import attrs
import trio

from linkspan.workflows.expressions import EvaluationFailed
from linkspan.workflows.journal import JournalFailed
from linkspan.workflows.model import Step
from linkspan.workflows.place import Place
from linkspan.workflows.running import Run, fault_of
from linkspan.workflows.state import BAD, kept, worst
from linkspan.workflows.step import SUSPENDED, StepRunner

_TURN_S: Final = 0.005
"""For which steps that wait for nothing keep the event loop to themselves: a turn costs a third of a step."""


@attrs.define(kw_only=True)
class _Background:
    """A step that others do not wait for."""

    runner: StepRunner
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    ended: trio.Event = attrs.field(factory=trio.Event)
    why: str = ""


class StepSequence:
    """Runs the steps of one job.

    Attributes:
        running: Steps that were begun and have not ended.
    """

    def __init__(self, run: Run, place: Place) -> None:
        self.run = run
        self.place = place
        self.running: set[StepRunner] = set()
        self._done = {step.id for step in kept(run.job_state(place.job))}
        self._background: dict[str, _Background] = {}
        self._fault: JournalFailed | None = None
        self._suspended = False

    async def __call__(self) -> bool:
        """Run what is not done yet; whether a person must decide before the job goes on.

        Raises:
            JournalFailed: The journal cannot be written.
        """
        if not any(step.background for step in self.place.job.steps):
            await self.place.guard(partial(self._all, None))
            return self._suspended
        async with trio.open_nursery() as nursery:
            try:
                await self._all(nursery)
            except JournalFailed as fault:
                # Raised again outside of the nursery, bare.
                self._fail(fault, nursery)
        if self._fault is not None:
            raise self._fault
        return self._suspended

    def _fail(self, fault: JournalFailed, nursery: trio.Nursery) -> None:
        self._fault = self._fault or fault
        nursery.cancel_scope.cancel()

    async def _all(self, nursery: trio.Nursery | None) -> None:
        until = time.monotonic() + _TURN_S
        for step in self.place.job.steps:
            if step.id in self._done:
                continue
            if step.background:
                assert nursery is not None
                self._begin(step, nursery)
            elif step.parallel:
                await self._side_by_side(step)
            elif step.wait or step.cancel:
                await self._settle(step)
            else:
                result = await self._one(step)
                self._suspended = self._suspended or result == SUSPENDED
            if self._suspended:
                break
            # What has waited for nothing has not given the others their turn.
            if time.monotonic() > until:
                await trio.lowlevel.checkpoint()
                until = time.monotonic() + _TURN_S
        if self.place.failed:
            # What serves the other steps would never end by itself.
            self._stop(self._background, "a step of the job failed")
        await self._wait(self._background)

    async def _one(self, step: Step) -> str:
        runner = StepRunner(self.run, self.place, step)
        self.running.add(runner)
        result = await runner()
        # Not in a `finally`: a step that is cut off stays, so that its end can be told.
        self.running.discard(runner)
        return result

    # side by side

    async def _side_by_side(self, step: Step) -> None:
        head = StepRunner(self.run, self.place, step)
        try:
            wanted = head.wanted()
        except EvaluationFailed as error:
            await head.finish_alone("failed", fault=fault_of(error))
            return
        if not wanted:
            for each in (step, *step.parallel):
                await StepRunner(self.run, self.place, each).finish_alone("skipped")
            return
        started = self.run.clock()
        results: list[str] = []
        async with trio.open_nursery() as nursery:
            for each in step.parallel:
                if each.id not in self._done:
                    nursery.start_soon(self._part, each, results, nursery)
        if self._fault is not None:
            raise self._fault
        if SUSPENDED in results:
            self._suspended = True
            return
        states = self.run.job_state(self.place.job).steps
        result = worst(states[each.id].result for each in step.parallel)
        await head.finish_alone(result, duration=self.run.clock() - started)

    async def _part(self, step: Step, results: list[str], nursery: trio.Nursery) -> None:
        try:
            results.append(await self._one(step))
        except JournalFailed as fault:
            self._fail(fault, nursery)

    # background

    def _begin(self, step: Step, nursery: trio.Nursery) -> None:
        entry = _Background(runner=StepRunner(self.run, self.place, step))
        self._background[step.id] = entry
        nursery.start_soon(self._behind, entry, nursery)

    async def _behind(self, entry: _Background, nursery: trio.Nursery) -> None:
        runner = entry.runner
        self.running.add(runner)
        try:
            with entry.scope:
                if await runner() == SUSPENDED:
                    self._suspended = True
            if entry.scope.cancelled_caught:
                await runner.stopped("cancelled", entry.why)
            self.running.discard(runner)
        except JournalFailed as fault:
            self._fail(fault, nursery)
        finally:
            entry.ended.set()

    async def _settle(self, step: Step) -> None:
        """A step that waits for others, or stops them."""
        runner = StepRunner(self.run, self.place, step)
        try:
            if not runner.wanted(whatever_happened=True):
                await runner.finish_alone("skipped")
                return
        except EvaluationFailed as error:
            await runner.finish_alone("failed", fault=fault_of(error))
            return
        started = self.run.clock()
        self._stop(step.cancel, f"stopped by step '{step.id}'")
        await self._wait((*step.wait, *step.cancel))
        await runner.finish_alone("success", duration=self.run.clock() - started)

    def _stop(self, names: Iterable[str], why: str) -> None:
        for name in names:
            entry = self._background.get(name)
            if entry is not None and not entry.ended.is_set():
                entry.why = why
                entry.scope.cancel()

    async def _wait(self, names: Iterable[str]) -> None:
        for name in list(names):
            if name in self._background:
                await self._background[name].ended.wait()


def result_of(results: Sequence[str]) -> str:
    """A job's result from those of its steps."""
    bad = set(results) & BAD
    if bad:
        return "rejected" if bad == {"rejected"} else "failed"
    return "warned" if "warned" in results else "success"
