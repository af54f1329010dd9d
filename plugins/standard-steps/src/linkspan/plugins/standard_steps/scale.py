"""``scale``: a service in another number."""

from collections.abc import Mapping
from typing import Any

from linkspan.plugins.standard_steps.base import StandardStep
from linkspan.sdk.drivers.step import StepContext
from linkspan.sdk.model.step import StepChange, StepIntent, StepOutcome, StepPlan


class ScaleStep(StandardStep):
    """Changes the number of replicas and nothing else, and waits until all are up."""

    async def plan(self, intent: StepIntent) -> StepPlan:
        """From how many to how many."""
        name, wanted = intent.settings["service"], intent.settings["replicas"]
        before = (await self.planned_service(intent, name)).spec.replicas
        change = StepChange(
            action="none" if before == wanted else "change",
            what=f"service {name}",
            detail=f"replicas {before} → {wanted}",
        )
        return StepPlan(changes=(change,), undo={"replicas": before})

    async def apply(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Scale and wait.

        Raises:
            NotFound: There is no such service.
            RolloutFailed: New tasks fail.
            Timeout: Not all were up within ``timeout``.
        If cancelled: the orchestrator goes on with the change.
        """
        await self._scale(intent, context, intent.settings["replicas"])
        return self._outputs(intent)

    async def _scale(self, intent: StepIntent, context: StepContext, replicas: int) -> None:
        name = intent.settings["service"]
        service = await self.orchestrator(intent).get_service(name)
        if service.spec.replicas != replicas:
            context.log(f"scaling service {name}: {service.spec.replicas} → {replicas}")
            service = await self.orchestrator(intent).scale_service(name, replicas)
        # An update that was rolled back before is no fault of this change.
        await self.settled(intent, service, context, rolling_back=True)

    def _outputs(self, intent: StepIntent) -> dict[str, Any]:
        return {
            "replicas": intent.settings["replicas"],
            "previous_replicas": intent.undo.get("replicas"),
        }

    async def observe(self, intent: StepIntent) -> StepOutcome:
        """Ask the orchestrator how many there are."""
        service = await self.orchestrator(intent).get_service(intent.settings["service"])
        wanted = intent.settings["replicas"]
        if service.spec.replicas != wanted:
            return StepOutcome(applied=False, detail=f"{service.spec.replicas} are wanted still")
        if service.running_tasks != wanted:
            return StepOutcome(applied=False, detail=f"{service.running_tasks} of {wanted} are up")
        return StepOutcome(applied=True, outputs=self._outputs(intent), detail=f"{wanted} are up")

    async def undo(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Scale back."""
        before: int = intent.undo["replicas"]
        await self._scale(intent, context, before)
        return {"detail": f"{intent.settings['service']} is back at {before} replicas"}
