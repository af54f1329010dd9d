"""Scripts in containers: the container, its output, its end, and what remains when it is stopped."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import attrs
import trio

from linkspan.sdk.errors import LinkspanError, NotFound
from linkspan.sdk.host import Engine
from linkspan.sdk.model.container import (
    Container,
    ContainerFilter,
    ContainerSpec,
    ExitStatus,
    Healthcheck,
    Mount,
)
from linkspan.sdk.model.step import RUN_LABEL
from linkspan.sdk.progress import ProgressSink
from linkspan.workflows.steplog import StepLog

log = logging.getLogger(__name__)

WORKSPACE: Final = "/workspace"
CONTROL: Final = "/run/linkspan-step"
"""Where a script's own files are inside its container."""

_LAST_WORDS_S: Final = 1.0
"""How long the rest of the output of a stopped script is waited for."""

_SHELLS: Final = {
    "": ("/bin/sh", "-e"),
    "sh": ("/bin/sh", "-e"),
    "bash": ("/bin/bash", "-eo", "pipefail"),
}

OnStop = Callable[[trio.CancelScope], None]


@attrs.frozen(kw_only=True)
class Script:
    """A script and where it runs.

    Attributes:
        workspace: Host folder, mounted at ``/workspace``.
        control: Host folder for the script and its outputs, mounted beside it.
        folder: Working directory, relative to the workspace.
        network: A network's name, or ``default``.
        grace_s: Between SIGTERM and SIGKILL when the step is stopped.
        mounts: Beside these two.
    """

    text: str
    image: str
    shell: str
    env: Mapping[str, str]
    workspace: Path
    control: Path
    folder: str
    network: str
    labels: Mapping[str, str]
    grace_s: float
    mounts: tuple[Mount, ...] = ()


async def ensure_image(engine: Engine, image: str, progress: ProgressSink) -> str:
    """Pull an image if it is not here; return its id."""
    try:
        return engine.images.inspect(image).id
    except NotFound:
        return (await engine.images.pull(image, progress=progress)).id


def shell_of(name: str) -> str:
    """The program that reads a script, by what the step calls its shell."""
    return _SHELLS[name][0]


def write_script(script: Script) -> None:
    """Put a script and an empty output file into its control folder. Blocks."""
    script.control.mkdir(parents=True, exist_ok=True)
    script.control.chmod(0o755)
    (script.control / "script").write_text(script.text, encoding="utf-8")
    (script.control / "script").chmod(0o644)
    output = script.control / "output"
    output.write_bytes(b"")
    # The image's user need not be root.
    output.chmod(0o666)


def container_spec(script: Script) -> ContainerSpec:
    """The container of a script."""
    env = {**script.env, "LINKSPAN_OUTPUT": f"{CONTROL}/output"}
    return ContainerSpec(
        image=script.image,
        entrypoint=(*_SHELLS[script.shell], f"{CONTROL}/script"),
        command=(),
        env=tuple(f"{name}={value}" for name, value in env.items()),
        working_dir=f"{WORKSPACE}/{script.folder}".rstrip("/"),
        attach_stdout=True,
        attach_stderr=True,
        labels=dict(script.labels),
        # A script ends by itself; the image's check is for what serves.
        healthcheck=Healthcheck(test=("NONE",)),
        mounts=(
            Mount(type="bind", source=str(script.workspace), target=WORKSPACE),
            Mount(type="bind", source=str(script.control), target=CONTROL),
            *script.mounts,
        ),
        # A shell that is the first process has no default for SIGTERM: it would use up the grace.
        init=True,
        network_mode=script.network,
    )


async def create_container(engine: Engine, spec: ContainerSpec) -> Container:
    """Make a container. Cancelled only before or after that: what is made is known to the caller."""
    await trio.lowlevel.checkpoint_if_cancelled()
    with trio.CancelScope(shield=True):
        made = await engine.containers.create(spec)
    return made


class _Reader:
    """Reads a container's output to its end, also what it says while it is being stopped.

    Attributes:
        joined: The container runs, or is about to, and its output is being read.
    """

    def __init__(self, engine: Engine, container: str, log: StepLog) -> None:
        # Made before the start, so that the first byte is not missed.
        self._attachment = engine.containers.attach(container)
        self._log = log
        self._ended = trio.Event()
        self.joined = False

    async def run(self) -> None:
        """Read; whatever goes wrong is said in the log."""
        try:
            async with self._attachment as streams:
                self.joined = True
                while (chunk := await streams.receive()) is not None:
                    await self._log.feed(chunk.stream, chunk.data)
        except LinkspanError as error:
            self._log.add(f"the output cannot be read any more: {error.message}")
        finally:
            self._ended.set()

    async def ended(self) -> None:
        """Wait until all is read."""
        await self._ended.wait()


async def run_script(
    engine: Engine, script: Script, log: StepLog, on_stop: OnStop, nursery: trio.Nursery
) -> ExitStatus:
    """Run a script to its end and remove its container.

    Args:
        engine: Makes the container.
        script: What to run.
        log: Gets the output.
        on_stop: Gets the scope of the orderly stop when it begins; cancelling it ends the grace.
        nursery: Carries the reading, which goes on while the script is stopped.

    Raises:
        LinkspanError: It could not be started.
    If cancelled: the process has got SIGTERM, after ``grace_s`` SIGKILL, and the container is gone.
    """
    await trio.to_thread.run_sync(write_script, script)
    container = await create_container(engine, container_spec(script))
    waiter = engine.containers.waiter(container.id, "next-exit")
    reader = _Reader(engine, container.id, log)
    ended = False
    scope = trio.CancelScope()
    try:
        nursery.start_soon(_within, scope, reader.run)
        await engine.containers.start(container.id)
        status = await waiter.result()
        await reader.ended()
        ended = True
        return status
    finally:
        if not ended:
            await _stop(engine, container.id, script.grace_s, on_stop)
            if reader.joined:
                with trio.CancelScope(shield=True), trio.move_on_after(_LAST_WORDS_S):
                    await reader.ended()
        scope.cancel()
        log.end()
        await remove_container(engine, container.id)


async def _within(scope: trio.CancelScope, run: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await run()


async def _stop(engine: Engine, container: str, grace_s: float, on_stop: OnStop) -> None:
    with trio.CancelScope(shield=True) as scope:
        on_stop(scope)
        try:
            await engine.containers.stop(container, timeout_s=grace_s)
        except LinkspanError:
            # Stopped already, or never started; what is left is removed in any case.
            return


async def remove_container(engine: Engine, container: str) -> None:
    """Remove a container whatever it does; nothing happens if it is gone. Cannot be cancelled."""
    with trio.CancelScope(shield=True):
        try:
            await engine.containers.remove(container, force=True, volumes=True)
        except NotFound:
            return


async def remove_leftovers(engine: Engine, run_id: str) -> list[str]:
    """Remove containers and networks that a crash left of a run; return their names."""
    removed: list[str] = []
    label = f"{RUN_LABEL}={run_id}"
    for container in engine.containers.list(ContainerFilter(all=True, labels=(label,))):
        await remove_container(engine, container.id)
        removed.append(container.name)
    for network in engine.networks.list():
        if network.spec.labels.get(RUN_LABEL) == run_id:
            await engine.networks.remove(network.id)
            removed.append(network.name)
    return removed


async def remove_all_leftovers(engine: Engine) -> None:
    """Remove the containers and networks of all runs: none is active when a daemon starts."""
    for container in engine.containers.list(ContainerFilter(all=True, labels=(RUN_LABEL,))):
        log.info("removing what a run left", extra={"container": container.name})
        try:
            await remove_container(engine, container.id)
        except LinkspanError as error:
            # One that cannot be removed is no reason to have no pipelines.
            log.warning("leftover stays", extra={"container": container.name, "why": str(error)})
    for network in engine.networks.list():
        if RUN_LABEL in network.spec.labels:
            try:
                await engine.networks.remove(network.id)
            except LinkspanError as error:
                log.warning("leftover stays", extra={"network": network.name, "why": str(error)})
