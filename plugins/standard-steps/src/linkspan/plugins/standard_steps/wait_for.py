"""``wait-for``: until a container, a service, an address or a file is as wanted, or never will be."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import trio

from linkspan.plugins.standard_steps.base import StandardStep
from linkspan.plugins.standard_steps.lookup import job_service
from linkspan.plugins.standard_steps.places import inside
from linkspan.sdk.drivers.step import StepContext
from linkspan.sdk.errors import InvalidArgument, LinkspanError, NotFound, Timeout
from linkspan.sdk.model.container import Container, ContainerStatus, HealthStatus
from linkspan.sdk.model.step import StepIntent, StepOutcome

_TARGETS: Final = ("service", "container", "address", "path")
_CONNECT_S: Final = 2.0


class NeverWill(LinkspanError):
    """What is waited for cannot come true any more."""

    default_code = "never_will"


Look = Callable[[], Awaitable[str]]
"""Says what is missing; empty when all is as wanted. Raises NeverWill."""


class WaitForStep(StandardStep):
    """Changes nothing. It ends at once when what is waited for has died."""

    async def apply(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Look until it is so.

        Raises:
            InvalidArgument: Not exactly one thing to wait for, or an address that is none.
            NeverWill: It has died, or has no health check to become healthy by.
            Timeout: Not within ``timeout``; the message says what was missing last.
        If cancelled: nothing is left.
        """
        settings = intent.settings
        look, what = self._look(intent)
        missing, shown = "it was never looked at", ""
        began = trio.current_time()
        with trio.move_on_after(settings["timeout"]):
            while missing := await look():
                if missing != shown:
                    context.log(f"waiting for {what}: {missing}")
                    shown = missing
                await trio.sleep(settings["interval"])
        if missing:
            raise Timeout(f"{what}: {missing} after {settings['timeout']:g}s")
        waited = trio.current_time() - began
        context.log(f"{what} is there after {waited:.1f}s")
        return {"waited": round(waited, 3)}

    def _look(self, intent: StepIntent) -> tuple[Look, str]:
        settings = intent.settings
        given = [target for target in _TARGETS if settings.get(target)]
        if len(given) != 1:
            raise InvalidArgument(
                f"wait-for takes exactly one of {', '.join(_TARGETS)}",
                help="with: {service: db, condition: healthy}",
            )
        wanted = settings.get("condition", "running")
        match given[0]:
            case "service":
                name = settings["service"]
                return lambda: self._service(intent, name, wanted), f"service {name}"
            case "container":
                name = settings["container"]
                return lambda: self._container(name, wanted), f"container {name}"
            case "address":
                host, port = _address(settings["address"])
                return lambda: _connect(host, port), f"address {host}:{port}"
            case _:
                path = inside(intent.workspace, settings["path"], "the path")
                return lambda: _exists(path), f"file {settings['path']}"

    async def _container(self, name: str, wanted: str) -> str:
        try:
            container = self.host.engine.containers.inspect(name)
        except NotFound:
            return "" if wanted == "gone" else "there is none yet"
        return missing_in(container, wanted)

    async def _service(self, intent: StepIntent, name: str, wanted: str) -> str:
        own = job_service(self.host, intent, name)
        if own is not None:
            return missing_in(own, wanted)
        try:
            service = await self.orchestrator(intent).get_service(name)
        except NotFound:
            return "" if wanted == "gone" else "there is none yet"
        if wanted not in ("running", "healthy"):
            if wanted == "gone":
                return "it is still there"
            raise InvalidArgument(f"a service of the cluster is never '{wanted}'")
        # The orchestrator counts a task with a health check only when it is healthy.
        running, replicas = service.running_tasks, service.desired_tasks
        return "" if running >= replicas else f"{running} of {replicas} tasks are up"

    async def observe(self, intent: StepIntent) -> StepOutcome:
        """Waiting that was cut off begins anew."""
        return StepOutcome(applied=False, detail="it changes nothing; looked at again")


def missing_in(container: Container, wanted: str) -> str:
    """What a container lacks to be as wanted; empty if nothing.

    Raises:
        NeverWill: It cannot become so any more.
    """
    state = container.state
    if wanted == "gone":
        return f"it is {state.status.value}"
    if wanted == "exited":
        if state.status is not ContainerStatus.EXITED:
            return f"it is {state.status.value}"
        if state.exit_code != 0:
            raise NeverWill(f"container {container.name} ended with code {state.exit_code}")
        return ""
    ended = state.status in (ContainerStatus.EXITED, ContainerStatus.DEAD)
    if ended and container.spec.restart.name in ("", "no"):
        raise NeverWill(
            f"container {container.name} has ended with code {state.exit_code}",
            help=f"linkspan logs {container.name}",
        )
    if state.status is not ContainerStatus.RUNNING:
        return f"it is {state.status.value}"
    if wanted == "running":
        return ""
    if state.health is None or state.health.status is HealthStatus.NONE:
        raise NeverWill(
            f"container {container.name} can never become healthy: it has no healthcheck",
            help="healthcheck: {test: [CMD, true], interval: 2s, retries: 15}",
        )
    return (
        "" if state.health.status is HealthStatus.HEALTHY else f"it is {state.health.status.value}"
    )


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.removeprefix("tcp://").rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidArgument(f"'{text}' is not an address", help="address: 127.0.0.1:5432")
    return host.strip("[]"), int(port)


async def _connect(host: str, port: int) -> str:
    with trio.move_on_after(_CONNECT_S):
        try:
            stream = await trio.open_tcp_stream(host, port)
        except OSError as error:
            return f"no connection ({error.strerror or error})"
        await stream.aclose()
        return ""
    return f"no connection within {_CONNECT_S:g}s"


async def _exists(path: Path) -> str:
    return "" if await trio.Path(path).exists() else "it is not there"
