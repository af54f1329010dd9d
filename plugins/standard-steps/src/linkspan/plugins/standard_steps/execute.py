"""``exec``: a command in a container that runs already."""

from collections.abc import Mapping
from typing import Any

import trio

from linkspan.plugins.standard_steps.base import StandardStep
from linkspan.plugins.standard_steps.lookup import service_container
from linkspan.plugins.standard_steps.output import OutputLines
from linkspan.sdk.drivers.step import StepContext
from linkspan.sdk.errors import InvalidArgument, LinkspanError, Timeout
from linkspan.sdk.model.container import Container, ExecSpec
from linkspan.sdk.model.process import StreamKind
from linkspan.sdk.model.step import StepChange, StepIntent, StepOutcome, StepPlan


class CommandFailed(LinkspanError):
    """A command ended with another code than 0; ``details`` has ``exit_code``."""

    default_code = "command_failed"


class ExecStep(StandardStep):
    """What a command changes is not known, so it is not undone, and after a crash it runs again."""

    async def _container(self, intent: StepIntent) -> Container:
        settings = intent.settings
        name, service = settings.get("container", ""), settings.get("service", "")
        if bool(name) == bool(service):
            raise InvalidArgument(
                "exec takes either 'container' or 'service'",
                help="with: {service: db, command: [ls]}",
            )
        if name:
            return self.host.engine.containers.inspect(name)
        return await service_container(self.host, intent, service)

    async def plan(self, intent: StepIntent) -> StepPlan:
        """The command, and where."""
        where = intent.settings.get("container") or f"service {intent.settings.get('service', '')}"
        what = f"whatever {' '.join(intent.settings['command'])!r} does in {where}"
        return StepPlan(changes=(StepChange(action="change", what=what),))

    async def apply(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Run it and wait for its end.

        Raises:
            NotFound: There is no such container.
            Conflict: It does not run.
            CommandFailed: It ended with another code than 0.
            Timeout: It did not end within ``timeout``.
        If cancelled: the command may go on in its container.
        """
        settings = intent.settings
        container = await self._container(intent)
        containers = self.host.engine.containers
        spec = ExecSpec(
            command=tuple(settings["command"]),
            env=tuple(f"{name}={value}" for name, value in settings.get("env", {}).items()),
            user=settings.get("user", ""),
            working_dir=settings.get("working-dir", ""),
        )
        session = await containers.exec_create(container.id, spec)
        streams = {kind: OutputLines(context.log) for kind in StreamKind}
        code: int | None = None
        with trio.move_on_after(settings["timeout"]):
            async with containers.exec_start(session.id) as process:
                while (chunk := await process.receive()) is not None:
                    streams[chunk.stream].feed(chunk.data)
                code = await process.wait()
        for stream in streams.values():
            stream.end()
        command = " ".join(settings["command"])
        if code is None:
            raise Timeout(f"'{command}' did not end within {settings['timeout']:g}s")
        if code != 0:
            raise CommandFailed(
                f"'{command}' ended with code {code} in container {container.name}",
                details={"exit_code": code},
                help=f"linkspan exec -it {container.name} sh",
            )
        return {"exit_code": code, "output": streams[StreamKind.STDOUT].text}

    async def observe(self, intent: StepIntent) -> StepOutcome:
        """Nobody knows how far it came, unless it came to its end on unchanged sources."""
        if intent.outputs:
            return StepOutcome(applied=True, outputs=intent.outputs, detail="it has run")
        return StepOutcome(applied=False, detail="nobody knows how far it came; run again")
