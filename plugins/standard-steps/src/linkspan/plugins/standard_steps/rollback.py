"""``rollback``: a service back to what it was before its last update."""

from collections.abc import Mapping
from typing import Any

from linkspan.plugins.standard_steps.base import StandardStep
from linkspan.plugins.standard_steps.rollout import running_image
from linkspan.plugins.standard_steps.service_spec import (
    same_wish,
    spec_from_json,
    spec_to_json,
)
from linkspan.sdk.drivers.step import StepContext
from linkspan.sdk.model.step import StepChange, StepIntent, StepOutcome, StepPlan


class RollbackStep(StandardStep):
    """Asks the orchestrator for the spec before the last update.

    Going back twice would go forward again; so the step records what the service was and looks
    whether it is still so before it acts.
    """

    async def plan(self, intent: StepIntent) -> StepPlan:
        """From which image to which."""
        service = await self.planned_service(intent, intent.settings["service"])
        before = service.previous_spec
        detail = f"{running_image(service)} → {before.container.image}" if before else "no update"
        change = StepChange(action="change", what=f"service {service.spec.name}", detail=detail)
        return StepPlan(changes=(change,), undo={"spec": spec_to_json(service.spec)})

    async def apply(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Roll back and wait.

        Raises:
            NotFound: There is no such service.
            InvalidArgument: It was never updated.
            RolloutFailed: The old version does not come up any more.
            Timeout: It was not done within ``timeout``.
        If cancelled: the orchestrator goes on with the rollback.
        """
        name = intent.settings["service"]
        service = await self.orchestrator(intent).get_service(name)
        if same_wish(service.spec, spec_from_json(intent.undo["spec"])):
            service = await self.orchestrator(intent).rollback_service(name)
            context.log(f"rolling service {name} back to {running_image(service)}")
        done = await self.settled(
            intent,
            service,
            context,
            rolling_back=True,
        )
        return {"image": running_image(done), "replicas": done.spec.replicas}

    async def observe(self, intent: StepIntent) -> StepOutcome:
        """Look whether the service is still what it was."""
        service = await self.orchestrator(intent).get_service(intent.settings["service"])
        if same_wish(service.spec, spec_from_json(intent.undo["spec"])):
            return StepOutcome(applied=False, detail="the service was not rolled back yet")
        return StepOutcome(applied=False, detail="it is on its way back; waited for again")

    async def undo(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Go forward again."""
        name, before = intent.settings["service"], spec_from_json(intent.undo["spec"])
        service = await self.orchestrator(intent).get_service(name)
        if not same_wish(service.spec, before):
            service = await self.orchestrator(intent).update_service(name, before)
        await self.settled(
            intent,
            service,
            context,
            rolling_back=True,
        )
        return {"detail": f"{name} is on {before.container.image} again"}
