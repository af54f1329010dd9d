"""The kit for role ``step``. Subclass ``StepConformance``, give it a step and something to do.

The kit does what the runner does: it plans, puts ``undo`` into the intent by way of JSON (the journal),
applies, and after a crash observes and applies again.
"""

import json
from collections.abc import Mapping
from typing import Any

import attrs
import pytest
import trio

from linkspan.sdk.drivers.step import Step
from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.model.step import StepIntent, StepOutcome
from linkspan.sdk.testing.fakes.step import FakeStepContext


class StepConformance:
    """What every verb must do.

    A subclass overrides the fixtures ``step`` and ``intent``, and where they apply ``failing_intent`` and
    ``picture``.

    Attributes:
        undoes: Whether undoing puts the world back as it was.
        observes: Whether ``observe`` can tell that an intent was applied.
        same_outputs: Whether outputs are the same however often it is applied; not those that tell what
            was found.
        patience_s: How long it may take.
    """

    undoes = False
    observes = False
    same_outputs = True
    patience_s = 10.0

    @pytest.fixture
    def step(self) -> Step[Any]:
        """An open step."""
        raise NotImplementedError("override the fixture 'step'")

    @pytest.fixture
    def intent(self) -> StepIntent:
        """Something that succeeds and changes the world; ``undo`` is empty."""
        raise NotImplementedError("override the fixture 'intent'")

    @pytest.fixture
    def failing_intent(self) -> StepIntent | None:
        """Something that cannot succeed; None if there is nothing of the kind."""
        return None

    @pytest.fixture
    def context(self) -> FakeStepContext:
        """Lent to the step."""
        return FakeStepContext()

    async def picture(self, step: Step[Any]) -> Any:
        """What of the world the step may change, so that two moments can be compared."""
        return None

    async def planned(self, step: Step[Any], intent: StepIntent) -> StepIntent:
        """The intent as the journal has it before the step acts."""
        plan = await step.plan(intent)
        return attrs.evolve(intent, undo=json.loads(json.dumps(dict(plan.undo))))

    async def applied(
        self, step: Step[Any], intent: StepIntent, context: FakeStepContext
    ) -> Mapping[str, Any]:
        """Apply in time."""
        with trio.fail_after(self.patience_s):
            return await step.apply(intent, context)

    # -- the tests ----------------------------------------------------------------------------

    async def test_it_speaks_a_version_of_the_contract(self, step: Step[Any]) -> None:
        assert (step.contract.role, step.contract.version) == ("step", 1)

    async def test_planning_changes_nothing_and_can_be_journalled(
        self, step: Step[Any], intent: StepIntent
    ) -> None:
        before = await self.picture(step)
        plan = await step.plan(intent)
        assert await self.picture(step) == before
        assert json.loads(json.dumps(dict(plan.undo))) == dict(plan.undo)
        assert all(change.what for change in plan.changes)

    async def test_outputs_are_json_and_named_by_text(
        self, step: Step[Any], intent: StepIntent, context: FakeStepContext
    ) -> None:
        outputs = await self.applied(step, await self.planned(step, intent), context)
        assert json.loads(json.dumps(dict(outputs))) == dict(outputs)

    async def test_applying_twice_has_the_effect_of_once(
        self, step: Step[Any], intent: StepIntent, context: FakeStepContext
    ) -> None:
        wish = await self.planned(step, intent)
        first = await self.applied(step, wish, context)
        after = await self.picture(step)
        second = await self.applied(step, wish, context)
        assert await self.picture(step) == after
        if self.same_outputs:
            assert dict(second) == dict(first)

    async def test_observing_changes_nothing_and_knows_what_was_not_begun(
        self, step: Step[Any], intent: StepIntent
    ) -> None:
        wish = await self.planned(step, intent)
        before = await self.picture(step)
        outcome = await step.observe(wish)
        assert not outcome.applied
        assert outcome.detail
        assert await self.picture(step) == before

    async def test_what_is_observed_as_applied_has_the_same_outputs(
        self, step: Step[Any], intent: StepIntent, context: FakeStepContext
    ) -> None:
        wish = await self.planned(step, intent)
        outputs = await self.applied(step, wish, context)
        outcome: StepOutcome = await step.observe(wish)
        if self.observes:
            assert outcome.applied
        if outcome.applied and self.same_outputs:
            assert dict(outcome.outputs) == dict(outputs)
        assert outcome.detail

    async def test_undoing_puts_the_world_back(
        self, step: Step[Any], intent: StepIntent, context: FakeStepContext
    ) -> None:
        if not self.undoes:
            pytest.skip("it has nothing to take back")
        before = await self.picture(step)
        wish = await self.planned(step, intent)
        wish = attrs.evolve(wish, outputs=await self.applied(step, wish, context))
        assert await self.picture(step) != before
        with trio.fail_after(self.patience_s):
            await step.undo(wish, context)
        assert await self.picture(step) == before

    async def test_undoing_twice_has_the_effect_of_once(
        self, step: Step[Any], intent: StepIntent, context: FakeStepContext
    ) -> None:
        wish = await self.planned(step, intent)
        wish = attrs.evolve(wish, outputs=await self.applied(step, wish, context))
        with trio.fail_after(self.patience_s):
            await step.undo(wish, context)
            after = await self.picture(step)
            await step.undo(wish, context)
        assert await self.picture(step) == after

    async def test_undoing_what_was_never_done_changes_nothing(
        self, step: Step[Any], intent: StepIntent, context: FakeStepContext
    ) -> None:
        before = await self.picture(step)
        wish = await self.planned(step, intent)
        with trio.fail_after(self.patience_s):
            await step.undo(wish, context)
        assert await self.picture(step) == before

    async def test_what_was_cut_off_can_be_done_again(
        self, step: Step[Any], intent: StepIntent, context: FakeStepContext
    ) -> None:
        wish = await self.planned(step, intent)
        with trio.move_on_after(0):
            await step.apply(wish, context)
        await step.observe(wish)
        await self.applied(step, wish, context)
        once = await self.picture(step)
        await self.applied(step, wish, context)
        assert await self.picture(step) == once

    async def test_a_failure_is_an_error_that_can_be_read(
        self, step: Step[Any], failing_intent: StepIntent | None, context: FakeStepContext
    ) -> None:
        if failing_intent is None:
            pytest.skip("nothing is given that fails")
        with pytest.raises(LinkspanError) as caught:
            await self.applied(step, await self.planned(step, failing_intent), context)
        assert str(caught.value)
        assert caught.value.code
