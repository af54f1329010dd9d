"""What the verbs in the box have in common: no settings in the config, and the host's engine."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from linkspan.plugins.standard_steps.rollout import wait_until_done
from linkspan.sdk.drivers.base import NoConfig
from linkspan.sdk.drivers.orchestrator import Orchestrator
from linkspan.sdk.drivers.step import MISSING, Step, StepContext
from linkspan.sdk.errors import LinkspanError, NotFound
from linkspan.sdk.host import Host
from linkspan.sdk.model.service import RolloutStatus, Service
from linkspan.sdk.model.step import StepIntent


class StandardStep(Step[NoConfig]):
    """A verb that uses nothing but ``Host.engine`` and ``Host.driver``."""

    config_type = NoConfig

    def __init__(self, host: Host) -> None:
        self.host = host

    def driver(self, role: str, intent: StepIntent) -> Any:
        """The driver of a role that the pipeline has chosen, else the daemon's."""
        return self.host.driver(role, intent.use.get(role))

    def orchestrator(self, intent: StepIntent) -> Orchestrator[Any]:
        """Who keeps the services that the pipeline means."""
        found: Orchestrator[Any] = self.driver("orchestrator", intent)
        return found

    async def planned_service(self, intent: StepIntent, name: str) -> Service:
        """A service that a step changes, for its plan.

        Raises:
            NotFound, Unavailable: There is none, or no cluster; details say that an earlier step may make it.
        """
        try:
            return await self.orchestrator(intent).get_service(name)
        except LinkspanError as error:
            if not isinstance(error, NotFound) and error.code != "not_in_swarm":
                raise
            raise type(error)(
                error.message,
                code=error.code,
                help=error.help,
                details={**error.details, MISSING: f"service {name}"},
            ) from error

    async def settled(
        self,
        intent: StepIntent,
        service: Service,
        context: StepContext,
        *,
        rolling_back: bool = False,
        before: RolloutStatus | None = None,
    ) -> Service:
        """Wait until a change of a service is done, no longer than the step's ``timeout``.

        Raises:
            RolloutFailed, Timeout: See ``wait_until_done``.
        """
        return await wait_until_done(
            self.orchestrator(intent),
            service,
            context,
            timeout_s=intent.settings["timeout"],
            rolling_back=rolling_back,
            before=before,
        )

    @classmethod
    @asynccontextmanager
    async def open(cls, config: NoConfig, host: Host) -> AsyncIterator[Self]:
        """Nothing is acquired."""
        yield cls(host)
