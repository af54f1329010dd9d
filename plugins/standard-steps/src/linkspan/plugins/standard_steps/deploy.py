"""``deploy``: a service as wanted, up and healthy, or back as it was."""

from collections.abc import Mapping
from typing import Any

from linkspan.plugins.standard_steps.base import StandardStep
from linkspan.plugins.standard_steps.rollout import running_image
from linkspan.plugins.standard_steps.service_secrets import (
    forget_old,
    kept_by_cluster,
    wanted_files,
)
from linkspan.plugins.standard_steps.service_spec import (
    same_wish,
    spec_from_json,
    spec_to_json,
    wanted_spec,
)
from linkspan.sdk.drivers.step import MISSING, StepContext
from linkspan.sdk.errors import NotFound, Unavailable
from linkspan.sdk.model.service import RolloutState, RolloutStatus, Service, ServiceSpec
from linkspan.sdk.model.step import StepChange, StepIntent, StepOutcome, StepPlan


class DeployStep(StandardStep):
    """Creates or updates a service and waits for the end of the rollout.

    What it records to undo itself is the whole spec that the service had before, so that undoing
    does not depend on what the orchestrator remembers.
    """

    async def _find(self, intent: StepIntent) -> Service | None:
        try:
            return await self.orchestrator(intent).get_service(intent.settings["service"])
        except NotFound:
            return None
        except Unavailable as error:
            if error.code == "not_in_swarm":
                return None
            raise

    async def plan(self, intent: StepIntent) -> StepPlan:
        """What would change, and the service as it is now.

        Raises:
            NotFound: It names a network that is not here; code ``network_not_found``.
        """
        name = intent.settings["service"]
        before = await self._find(intent)
        wanted = await _wanted(intent, before.spec if before else None)
        self._check_networks(wanted)
        if before is None:
            change = StepChange(
                action="create",
                what=f"service {name}",
                detail=f"{wanted.container.image}, {wanted.replicas} replicas",
            )
            return StepPlan(changes=(change,), undo={"spec": None})
        undo = {"spec": spec_to_json(before.spec)}
        if same_wish(before.spec, wanted):
            return StepPlan(changes=(StepChange(action="none", what=f"service {name}"),), undo=undo)
        detail = (
            f"{running_image(before)} → {wanted.container.image}, "
            f"replicas {before.spec.replicas} → {wanted.replicas}"
        )
        change = StepChange(action="change", what=f"service {name}", detail=detail)
        return StepPlan(changes=(change,), undo=undo)

    def _check_networks(self, wanted: ServiceSpec) -> None:
        for name in wanted.networks:
            try:
                self.host.engine.networks.inspect(name)
            except NotFound as error:
                raise NotFound(
                    f"service {wanted.name}: network {name} not found",
                    code="network_not_found",
                    help=f"linkspan network create {name}",
                    details={MISSING: f"network {name}"},
                ) from error

    async def apply(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Create or update, and wait.

        Raises:
            RolloutFailed: New tasks fail; the orchestrator has rolled the update back, or the step's
                undo does it.
            Timeout: It was not done within ``timeout``.
            Conflict: A published port is taken.
        If cancelled: the orchestrator goes on with the change.
        """
        await self._ensure_cluster(intent, context)
        name = intent.settings["service"]
        before = await self._find(intent)
        wanted = await kept_by_cluster(
            self.orchestrator(intent),
            await _wanted(intent, before.spec if before else None),
            intent.settings.get("secrets", {}),
        )
        if before is None:
            context.log(f"creating service {name}: {wanted.container.image}")
            service = await self.orchestrator(intent).create_service(wanted)
        elif same_wish(before.spec, wanted):
            context.log(f"service {name} is wanted so already")
            service = before
        else:
            context.log(
                f"updating service {name}: {running_image(before)} → {wanted.container.image}"
            )
            service = await self.orchestrator(intent).update_service(
                name, wanted, version=before.version
            )
        done = await self.settled(
            intent,
            service,
            context,
            before=_ended(before),
        )
        context.log(f"{name}: {done.spec.replicas}/{done.spec.replicas} up")
        # The old ones are needed to go back to what was before this step, and no further.
        await forget_old(self.orchestrator(intent), name, wanted, _previous(intent))
        return self._outputs(done, intent)

    async def _ensure_cluster(self, intent: StepIntent, context: StepContext) -> None:
        """One machine is a cluster of one: nobody should have to set up a laptop."""
        if await self.orchestrator(intent).cluster() is None:
            await self.orchestrator(intent).init()
            context.log("this machine is a cluster of one now")

    def _outputs(self, service: Service, intent: StepIntent) -> dict[str, Any]:
        before = _previous(intent)
        return {
            "service": service.id,
            "name": service.spec.name,
            "image": running_image(service),
            "replicas": service.spec.replicas,
            "previous_image": before.container.image if before else None,
            "previous_replicas": before.replicas if before else 0,
        }

    async def observe(self, intent: StepIntent) -> StepOutcome:
        """Ask the orchestrator whether the service is wanted so, and whether it has got there."""
        service = await self._find(intent)
        if service is None:
            return StepOutcome(applied=False, detail="there is no such service yet")
        before = _previous(intent)
        wanted = await _wanted(intent, before)
        if not same_wish(service.spec, wanted):
            return StepOutcome(applied=False, detail="the service was not changed yet")
        if service.running_tasks < service.spec.replicas or _is_moving(service):
            return StepOutcome(applied=False, detail="the change is under way; waited for again")
        return StepOutcome(
            applied=True, outputs=self._outputs(service, intent), detail="the service is up"
        )

    async def undo(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Put the service back as it was before the step; remove it if there was none."""
        name = intent.settings["service"]
        before, service = _previous(intent), await self._find(intent)
        if before is None:
            if service is not None:
                await self.orchestrator(intent).remove_service(name)
                await forget_old(self.orchestrator(intent), name)
            return {"detail": f"service {name} is removed: there was none before"}
        if service is None:
            service = await self.orchestrator(intent).create_service(before)
        elif not same_wish(service.spec, before):
            service = await self.orchestrator(intent).update_service(name, before)
        done = await self.settled(
            intent,
            service,
            context,
            rolling_back=True,
        )
        await forget_old(self.orchestrator(intent), name, before)
        count = done.spec.replicas
        return {"detail": f"{name} is back on {running_image(done)}, {count}/{count} up"}


async def _wanted(intent: StepIntent, before: ServiceSpec | None) -> ServiceSpec:
    name: str = intent.settings["service"]
    return wanted_spec(
        intent.settings,
        files=await wanted_files(name, intent.settings.get("secrets", {})),
        replicas=before.replicas if before else 1,
        volume_driver=intent.use.get("volume", ""),
    )


def _previous(intent: StepIntent) -> ServiceSpec | None:
    document = intent.undo.get("spec")
    return None if document is None else spec_from_json(document)


def _ended(service: Service | None) -> RolloutStatus | None:
    """How the last rollout ended; None if it goes on, or there was none."""
    return None if service is None or _is_moving(service) else service.rollout


def _is_moving(service: Service) -> bool:
    moving = (RolloutState.UPDATING, RolloutState.ROLLBACK_STARTED)
    return service.rollout is not None and service.rollout.state in moving
