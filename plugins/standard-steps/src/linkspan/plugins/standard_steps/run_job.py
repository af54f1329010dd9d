"""``run-job``: a container that does one thing and ends, such as a migration."""

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import trio

from linkspan.plugins.standard_steps.base import StandardStep
from linkspan.plugins.standard_steps.execute import CommandFailed
from linkspan.plugins.standard_steps.output import OutputLines
from linkspan.sdk.drivers.step import StepContext
from linkspan.sdk.errors import NotFound, NotModified, Timeout
from linkspan.sdk.model.container import (
    Container,
    ContainerSpec,
    ContainerStatus,
    ExitStatus,
    Resources,
)
from linkspan.sdk.model.network import EndpointSpec
from linkspan.sdk.model.process import LogQuery, StreamKind
from linkspan.sdk.model.step import StepChange, StepIntent, StepOutcome, StepPlan

JOB_OF_RUN_LABEL: Final = "linkspan.run-job"
"""Not the label of what goes when a run breaks off: a migration that has begun is waited for by ``resume``."""


class RunJobStep(StandardStep):
    """One container for each attempt; after a crash the one that was begun is waited for, not begun again."""

    def _found(self, intent: StepIntent) -> Container | None:
        try:
            return self.host.engine.containers.inspect(_name(intent))
        except NotFound:
            return None

    async def plan(self, intent: StepIntent) -> StepPlan:
        """A container that is gone at the end; what it changes is its own affair."""
        image = intent.settings["image"]
        what = f"container {_name(intent)} of {image}, until it ends"
        return StepPlan(changes=(StepChange(action="create", what=what),))

    async def apply(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Run it to its end and remove it.

        Raises:
            NotFound: Neither this machine nor the registry has the image.
            InvalidArgument: The settings contradict themselves.
            CommandFailed: It ended with another code than 0.
            Timeout: It did not end within ``timeout``; it was stopped.
        If cancelled: it is stopped and removed.
        """
        container = self._found(intent)
        if container is None:
            await self._ensure_image(intent, context)
            containers = self.host.engine.containers
            container = await containers.create(_spec(intent), name=_name(intent))
        else:
            context.log(f"container {container.name} was begun before; waiting for it")
        try:
            return await self._to_its_end(container, intent, context)
        finally:
            with trio.CancelScope(shield=True):
                await self._remove(container.id)

    async def _ensure_image(self, intent: StepIntent, context: StepContext) -> None:
        image = intent.settings["image"]
        try:
            self.host.engine.images.inspect(image)
        except NotFound:
            await self.host.engine.images.pull(image, progress=context.progress)

    async def _to_its_end(
        self, container: Container, intent: StepIntent, context: StepContext
    ) -> Mapping[str, Any]:
        containers = self.host.engine.containers
        settings = intent.settings
        waiter = containers.waiter(container.id)
        if container.state.status is ContainerStatus.CREATED:
            # Made before it starts: how it ends cannot be missed.
            waiter = containers.waiter(container.id, "next-exit")
            await containers.start(container.id)
        streams = {kind: OutputLines(context.log) for kind in StreamKind}
        end: ExitStatus | None = None
        with trio.move_on_after(settings["timeout"]):
            async with containers.logs(container.id, LogQuery(follow=True)) as records:
                async for record in records:
                    streams[record.stream].feed(record.data)
            end = await waiter.result()
        for stream in streams.values():
            stream.end()
        if end is None:
            raise Timeout(f"{settings['image']} did not end within {settings['timeout']:g}s")
        if end.oom_killed:
            raise CommandFailed(
                f"{settings['image']} was killed: out of memory",
                code="oom",
                details={"exit_code": end.exit_code},
                help="give it more: memory: 512Mi",
            )
        if end.exit_code != 0:
            code = end.exit_code
            raise CommandFailed(
                f"{settings['image']} ended with code {code}", details={"exit_code": code}
            )
        return {"exit_code": end.exit_code, "output": streams[StreamKind.STDOUT].text}

    async def _remove(self, ref: str) -> None:
        containers = self.host.engine.containers
        with suppress(NotFound, NotModified):
            if containers.inspect(ref).state.running:
                await containers.stop(ref)
        with suppress(NotFound):
            await containers.remove(ref, force=True, volumes=True)

    async def observe(self, intent: StepIntent) -> StepOutcome:
        """Look at its container; what has run on unchanged sources need not run again."""
        if intent.outputs:
            return StepOutcome(applied=True, outputs=intent.outputs, detail="it has run")
        container = self._found(intent)
        if container is None:
            return StepOutcome(applied=False, detail="it was not begun, or it has ended; run again")
        if container.state.running:
            return StepOutcome(applied=False, detail="it still runs; waited for")
        return StepOutcome(applied=False, detail="it has ended; its result is read")

    async def undo(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Only the container can be taken back, not what it has done."""
        container = self._found(intent)
        if container is None:
            return {"detail": "its container is gone; what it did stays"}
        await self._remove(container.id)
        return {"detail": f"container {container.name} is gone; what it did stays"}


def _name(intent: StepIntent) -> str:
    text = f"linkspan-{intent.run_id}-{intent.job}-{intent.step}-{intent.attempt}"
    return re.sub(r"[^a-zA-Z0-9_.-]", "-", text)


def _spec(intent: StepIntent) -> ContainerSpec:
    settings = intent.settings

    def words(key: str) -> tuple[str, ...] | None:
        return tuple(settings[key]) if key in settings else None

    networks = settings.get("networks", [])
    return ContainerSpec(
        image=settings["image"],
        command=words("command"),
        entrypoint=words("entrypoint"),
        env=tuple(f"{name}={value}" for name, value in settings.get("env", {}).items()),
        user=settings.get("user", ""),
        working_dir=settings.get("working-dir", ""),
        binds=tuple(settings.get("volumes", ())),
        volume_driver=intent.use.get("volume", ""),
        network_mode=networks[0] if networks else "default",
        networks={name: EndpointSpec() for name in networks},
        resources=Resources(
            memory_bytes=settings.get("memory", 0), nano_cpus=int(settings.get("cpus", 0) * 1e9)
        ),
        labels={JOB_OF_RUN_LABEL: intent.run_id, **settings.get("labels", {})},
    )
