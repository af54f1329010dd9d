from pathlib import Path

import pytest

from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.model.step import StepIntent
from linkspan.sdk.testing.conformance.step import StepConformance
from linkspan.sdk.testing.fakes.step import FakeStep, FakeStepContext


def an_intent(**settings: str) -> StepIntent:
    return StepIntent(
        run_id="r",
        job="j",
        step="s",
        attempt=1,
        verb="set",
        settings=settings,
        workspace=Path("/nowhere"),
    )


class TestFakeStepOnNothing(StepConformance):
    undoes = True
    observes = True

    @pytest.fixture
    def step(self) -> FakeStep:
        return FakeStep()

    @pytest.fixture
    def intent(self) -> StepIntent:
        return an_intent(key="a", value="1")

    @pytest.fixture
    def failing_intent(self) -> StepIntent:
        return an_intent(key="", value="1")

    async def picture(self, step: FakeStep) -> dict[str, str]:  # type: ignore[override]
        return dict(step.world)


class TestFakeStepOnSomething(TestFakeStepOnNothing):
    @pytest.fixture
    def step(self) -> FakeStep:
        return FakeStep(world={"a": "0", "b": "2"})


async def test_it_fails_once_when_it_is_told_so():
    step, context = FakeStep(failure=LinkspanError("no")), FakeStepContext()
    with pytest.raises(LinkspanError, match="no"):
        await step.apply(an_intent(key="a", value="1"), context)
    await step.apply(an_intent(key="a", value="1"), context)
    assert (step.world, context.lines) == ({"a": "1"}, ["a is 1"])
    assert step.calls == ["apply", "apply"]
