"""A step in memory, and a context that remembers what it was told."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

import attrs
import trio

from linkspan.sdk.drivers.base import NoConfig
from linkspan.sdk.drivers.step import Step, StepContext
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.host import Host
from linkspan.sdk.model.step import Outputs, StepChange, StepIntent, StepOutcome, StepPlan
from linkspan.sdk.progress import Progress


@attrs.define
class FakeStepContext:
    """Implements ``linkspan.sdk.drivers.step.StepContext``.

    Attributes:
        lines: What was logged.
        shown: How far it said it was.
    """

    secrets: dict[str, str] = attrs.field(factory=dict)
    lines: list[str] = attrs.field(factory=list)
    shown: list[Progress] = attrs.field(factory=list)

    def log(self, line: str) -> None:
        self.lines.append(line)

    def progress(self, progress: Progress) -> None:
        self.shown.append(progress)


@attrs.define
class FakeStep(Step[NoConfig]):
    """The verb ``set``: gives ``key`` the ``value`` of its settings, in a world of its own.

    Attributes:
        world: What there is; a test may look and change.
        failure: Raised by the next ``apply``, before anything is done.
        calls: Method names, in order.
    """

    config_type = NoConfig

    world: dict[str, str] = attrs.field(factory=dict)
    failure: Exception | None = None
    calls: list[str] = attrs.field(factory=list)

    @classmethod
    @asynccontextmanager
    async def open(cls, config: NoConfig, host: Host) -> AsyncIterator[Self]:
        await trio.lowlevel.checkpoint()
        yield cls()

    async def plan(self, intent: StepIntent) -> StepPlan:
        await self._called("plan")
        key, value = intent.settings["key"], intent.settings["value"]
        before = self.world.get(key)
        action: Any = "none" if before == value else "create" if before is None else "change"
        change = StepChange(action=action, what=key, detail=f"{before} → {value}")
        return StepPlan(changes=(change,), undo={"before": before})

    async def apply(self, intent: StepIntent, context: StepContext) -> Outputs:
        await self._called("apply")
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        if not intent.settings["key"]:
            raise InvalidArgument("a key is not empty")
        context.log(f"{intent.settings['key']} is {intent.settings['value']}")
        self.world[intent.settings["key"]] = intent.settings["value"]
        return self._outputs(intent)

    def _outputs(self, intent: StepIntent) -> Outputs:
        return {"value": intent.settings["value"], "before": intent.undo.get("before")}

    async def observe(self, intent: StepIntent) -> StepOutcome:
        await self._called("observe")
        found = self.world.get(intent.settings["key"])
        if found != intent.settings["value"]:
            return StepOutcome(applied=False, detail=f"it is {found} still")
        return StepOutcome(applied=True, outputs=self._outputs(intent), detail=f"it is {found}")

    async def undo(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        await self._called("undo")
        key, before = intent.settings["key"], intent.undo["before"]
        if before is None:
            self.world.pop(key, None)
        else:
            self.world[key] = before
        return {"detail": f"{key} is {before} again"}

    async def _called(self, name: str) -> None:
        self.calls.append(name)
        await trio.lowlevel.checkpoint()
