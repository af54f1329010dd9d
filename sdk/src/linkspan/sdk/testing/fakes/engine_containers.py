"""Containers of the engine in memory, on a ``FakeMachine``."""

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from signal import SIGKILL, Signals
from types import TracebackType
from typing import Any

import attrs
import trio

from linkspan.sdk.clock import rfc3339
from linkspan.sdk.drivers.runtime import (
    CreateRequest,
    ExecProcess,
    ProcessSpec,
    RuntimeStats,
)
from linkspan.sdk.errors import (
    Conflict,
    InvalidArgument,
    NotFound,
    NotModified,
    Unsupported,
)
from linkspan.sdk.events import Event
from linkspan.sdk.host import CommitSpec, WaitCondition
from linkspan.sdk.links import with_renamed, without_link
from linkspan.sdk.model.container import (
    Container,
    ContainerFilter,
    ContainerSpec,
    ContainerStatus,
    Exec,
    ExecSpec,
    ExitStatus,
    MountPoint,
    Resources,
    RestartPolicy,
)
from linkspan.sdk.model.files import Change, PathStat
from linkspan.sdk.model.image import Image
from linkspan.sdk.model.network import EndpointSpec
from linkspan.sdk.model.process import LogQuery, LogRecord, ProcessStreams
from linkspan.sdk.model.volume import VolumeSpec
from linkspan.sdk.noted_exec import NotedExec
from linkspan.sdk.testing.fakes.engine_events import FakeEvents
from linkspan.sdk.testing.fakes.engine_images import FakeImages
from linkspan.sdk.testing.fakes.engine_networks import FakeNetworks
from linkspan.sdk.testing.fakes.engine_records import ContainerBook, Entry
from linkspan.sdk.testing.fakes.engine_volumes import FakeVolumes
from linkspan.sdk.testing.fakes.runtime import FakeRuntime

_ALL = ContainerFilter()
_NO_SETTINGS = EndpointSpec()
_NO_ROOT = Path("/nonexistent")
_COMMIT = CommitSpec()
_NO_FILES = "containers of the fake engine have no files"


class FakeAttachment:
    """Known from the call on, entered when the process exists; leaving without entering is allowed."""

    def __init__(self, entry: Entry, runtime: FakeRuntime) -> None:
        self._entry = entry
        self._runtime = runtime
        self._inner: Any = None
        self.created, self.entered = trio.Event(), trio.Event()
        if entry.container.state.running:
            self.created.set()
        else:
            entry.waiting.append(self)

    async def __aenter__(self) -> ProcessStreams:
        await self.created.wait()
        inner = self._runtime.attach(self._entry.container.id)
        streams = await inner.__aenter__()
        self._inner = inner
        self.entered.set()
        return streams

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.entered.set()
        if self in self._entry.waiting:
            self._entry.waiting.remove(self)
        if self._inner is not None:
            await self._inner.__aexit__(kind, error, trace)


class _Waiter:
    def __init__(self, entry: Entry, condition: WaitCondition) -> None:
        self._entry = entry
        self._now = condition == "not-running" and not entry.container.state.running
        self._event = entry.removed if condition == "removed" else entry.exited

    async def result(self) -> ExitStatus:
        if not self._now:
            await self._event.wait()
        return self._entry.last_exit


class FakeContainers:
    """Containers of a machine.

    Attributes:
        stats_now: What ``stats`` returns.
    """

    def __init__(
        self,
        book: ContainerBook,
        runtime: FakeRuntime,
        events: FakeEvents,
        *,
        images: FakeImages,
        networks: FakeNetworks,
        volumes: FakeVolumes,
    ) -> None:
        self._book = book
        self._runtime = runtime
        self._events = events
        self._images, self._networks, self._volumes = images, networks, volumes
        self._execs: dict[str, Exec] = {}
        self._running_execs: dict[str, ExecProcess] = {}
        self.stats_now = RuntimeStats(
            cpu_usage_ns=10**9, memory_usage_bytes=1 << 20, pids_current=1
        )

    def put(self, container: Container) -> None:
        """Replace a record."""
        self._book.entry(container.id).container = container

    def _tell(self, action: str, container: Container, **facts: str) -> None:
        attributes = {"name": container.name, "image": container.spec.image, **container.labels}
        self._events.publish(
            Event(
                type="container",
                action=action,
                actor_id=container.id,
                attributes={**attributes, **facts},
            )
        )

    async def create(self, spec: ContainerSpec, *, name: str = "") -> Container:
        image = self._images.inspect(spec.image)
        await trio.lowlevel.checkpoint()
        chosen = name.removeprefix("/") or f"fake_{secrets.token_hex(4)}"
        if other := self._book.named(chosen):
            raise Conflict(
                f'Conflict. The container name "/{chosen}" is already in use by container '
                f'"{other.id}". You have to remove (or rename) that container to be able '
                "to reuse that name.",
                code="name_taken",
            )
        command = spec.command if spec.command is not None else image.config.command
        if spec.entrypoint is not None:
            command = spec.command or ()
        entrypoint = image.config.entrypoint if spec.entrypoint is None else spec.entrypoint
        container_id = secrets.token_hex(32)
        container = Container(
            id=container_id,
            name=chosen,
            created_at=rfc3339(),
            spec=spec,
            image_id=image.id,
            args=tuple(part for part in (*entrypoint, *command) if part),
            env=(*image.config.env, *spec.env),
            working_dir=spec.working_dir or image.config.working_dir or "/",
            user=spec.user or image.config.user,
            stop_signal=spec.stop_signal or image.config.stop_signal or "SIGTERM",
            healthcheck=spec.healthcheck or image.config.healthcheck,
            hostname=spec.hostname or container_id[:12],
            labels={**image.config.labels, **spec.labels},
            exposed_ports=tuple(dict.fromkeys((*spec.exposed_ports, *image.config.exposed_ports))),
            mounts=await self._mounts(spec),
            runtime="fake",
        )
        if not container.args:
            raise InvalidArgument("no command specified")
        self._book.add(container)
        self._tell("create", container)
        return container

    async def _mounts(self, spec: ContainerSpec) -> tuple[MountPoint, ...]:
        points = []
        for mount in spec.mounts:
            if mount.type != "volume":
                points.append(
                    MountPoint(type=mount.type, source=mount.source, destination=mount.target)
                )
                continue
            volume = await self._volumes.create(VolumeSpec(name=mount.source))
            points.append(
                MountPoint(
                    type="volume",
                    name=volume.name,
                    source=volume.mountpoint,
                    destination=mount.target,
                    driver=volume.driver,
                )
            )
        return tuple(points)

    async def start(self, ref: str) -> None:
        entry = self._book.entry(ref)
        container, spec = entry.container, entry.container.spec
        if container.state.running:
            raise NotModified(f"container {container.name} is running")
        request = CreateRequest(
            container_id=container.id,
            name=container.name,
            rootfs=_NO_ROOT,
            process=ProcessSpec(
                args=container.args, env=container.env, tty=spec.tty, stdin=spec.open_stdin
            ),
            stdin_once=spec.stdin_once,
            log=spec.log_driver != "none",
        )
        await self._runtime.create(request)
        for attachment in list(entry.waiting):
            attachment.created.set()
            await attachment.entered.wait()
        entry.waiting.clear()
        pid = await self._runtime.start(container.id)
        endpoints = [
            self._networks.endpoint(
                self._networks.inspect(name), spec.networks.get(name, _NO_SETTINGS)
            )
            for name in spec.wanted_networks
            if name not in ("none", "host")
        ]
        entry.change(endpoints=tuple(endpoints), ports=spec.ports, sandbox_key="/run/netns/fake")
        entry.change_state(
            status=ContainerStatus.RUNNING, pid=pid, started_at=rfc3339(), exit_code=0
        )
        self._tell("start", entry.container)
        self._runtime.machine.nursery.start_soon(self._watch, entry)

    async def _watch(self, entry: Entry) -> None:
        status = await self._runtime.wait(entry.container.id)
        entry.change(endpoints=(), ports=(), sandbox_key="")
        entry.change_state(
            status=ContainerStatus.EXITED,
            pid=0,
            exit_code=status.exit_code,
            oom_killed=status.oom_killed,
            finished_at=rfc3339(),
        )
        entry.last_exit = status
        exited, entry.exited = entry.exited, trio.Event()
        self._tell("die", entry.container, exitCode=str(status.exit_code))
        exited.set()
        if entry.container.spec.auto_remove:
            await self.remove(entry.container.id)

    async def stop(self, ref: str, *, timeout_s: float | None = None, signal: str = "") -> None:
        entry = self._book.entry(ref)
        if not entry.container.state.running:
            raise NotModified(f"container {entry.container.name} is not running")
        exited = entry.exited
        await self.kill(ref, signal or entry.container.stop_signal)
        with trio.move_on_after(10.0 if timeout_s is None else timeout_s):
            await exited.wait()
        if not exited.is_set():
            with suppress(NotFound):
                # It may end just before the signal.
                await self._runtime.signal(entry.container.id, SIGKILL)
            await exited.wait()
        self._tell("stop", entry.container)

    async def restart(self, ref: str, *, timeout_s: float | None = None, signal: str = "") -> None:
        if self.inspect(ref).state.running:
            await self.stop(ref, timeout_s=timeout_s, signal=signal)
        await self.start(ref)

    async def kill(self, ref: str, signal: str = "SIGKILL") -> None:
        container = self.inspect(ref)
        if not container.state.running:
            raise Conflict(
                f"container {container.id} is not running",
                code="not_running",
            )
        word = signal.upper().removeprefix("SIG")
        if word.isdecimal():
            number = int(word)
        else:
            try:
                number = Signals[f"SIG{word}"]
            except KeyError:
                raise InvalidArgument(f"invalid signal: {signal}", code="invalid_signal") from None
        await self._runtime.signal(container.id, number)
        self._tell("kill", container, signal=str(int(number)))

    async def pause(self, ref: str) -> None:
        entry = self._book.entry(ref)
        if entry.container.state.status is not ContainerStatus.RUNNING:
            raise Conflict(f"container {entry.container.id} is not running", code="not_running")
        await self._runtime.pause(entry.container.id)
        entry.change_state(status=ContainerStatus.PAUSED)

    async def unpause(self, ref: str) -> None:
        entry = self._book.entry(ref)
        if entry.container.state.status is not ContainerStatus.PAUSED:
            raise Conflict(f"Container {entry.container.id} is not paused")
        await self._runtime.resume(entry.container.id)
        entry.change_state(status=ContainerStatus.RUNNING)

    async def rename(self, ref: str, name: str) -> None:
        entry = self._book.entry(ref)
        await trio.lowlevel.checkpoint()
        old, new = entry.container.name, name.removeprefix("/")
        entry.change(name=new)
        for other in map(self._book.entry, (each.id for each in self._book.all())):
            other.change(spec=with_renamed(other.container.spec, old, new))

    async def update(
        self, ref: str, *, resources: Resources | None = None, restart: RestartPolicy | None = None
    ) -> list[str]:
        entry = self._book.entry(ref)
        await trio.lowlevel.checkpoint()
        spec = entry.container.spec
        changes: dict[str, Any] = {}
        if resources is not None:
            changes["resources"] = resources
        if restart is not None:
            changes["restart"] = restart
        entry.change(spec=attrs.evolve(spec, **changes))
        return []

    async def unlink(self, ref: str, alias: str) -> None:
        entry = self._book.entry(ref)
        await trio.lowlevel.checkpoint()
        entry.change(spec=without_link(entry.container.spec, alias))

    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        entry = self._book.entry(ref)
        container = entry.container
        if container.state.running:
            if not force:
                raise Conflict(
                    f'cannot remove container "{container.name}": container is '
                    f"{container.state.status.value}: stop the container before removing or force remove",
                    code="container_running",
                )
            exited = entry.exited
            await self._runtime.signal(container.id, SIGKILL)
            await exited.wait()
        await self._runtime.delete(container.id)
        self._book.forget(container.id)
        self._tell("destroy", container)

    def waiter(self, ref: str, condition: WaitCondition = "not-running") -> _Waiter:
        return _Waiter(self._book.entry(ref), condition)

    def inspect(self, ref: str) -> Container:
        return self._book.entry(ref).container

    def list(self, query: ContainerFilter = _ALL) -> Sequence[Container]:
        return self._book.listed(query)

    def attach(self, ref: str) -> FakeAttachment:
        return FakeAttachment(self._book.entry(ref), self._runtime)

    async def resize(self, ref: str, height: int, width: int) -> None:
        container = self.inspect(ref)
        if not container.state.running:
            raise Conflict(f"container {container.id} is not running", code="not_running")
        await self._runtime.resize(container.id, height, width)

    @asynccontextmanager
    async def logs(self, ref: str, query: LogQuery) -> AsyncIterator[AsyncIterator[LogRecord]]:
        container = self.inspect(ref)
        if not container.state.started_at:
            yield _nothing()
            return
        async with self._runtime.logs(container.id, query) as records:
            yield records

    async def pids(self, ref: str) -> Sequence[int]:
        container = self.inspect(ref)
        if not container.state.running:
            raise Conflict(f"container {container.id} is not running", code="not_running")
        return await self._runtime.pids(container.id)

    async def stats(self, ref: str) -> RuntimeStats:
        self.inspect(ref)
        await trio.lowlevel.checkpoint()
        return self.stats_now

    async def exec_create(self, ref: str, spec: ExecSpec) -> Exec:
        container = self.inspect(ref)
        await trio.lowlevel.checkpoint()
        if container.state.status is not ContainerStatus.RUNNING:
            raise Conflict(f"container {container.id} is not running", code="not_running")
        made = Exec(id=secrets.token_hex(32), container_id=container.id, spec=spec)
        self._execs[made.id] = made
        return made

    @asynccontextmanager
    async def exec_start(self, exec_id: str) -> AsyncIterator[ExecProcess]:
        session = self.exec_inspect(exec_id)
        if session.running or session.exit_code is not None:
            raise Conflict(f"Error: Exec command {exec_id} is already running")
        spec = session.spec
        process = ProcessSpec(
            args=spec.command, env=spec.env, tty=spec.tty, stdin=spec.attach_stdin
        )
        code = 127
        try:
            async with self._runtime.exec(session.container_id, process) as running:
                code = 137
                self._running_execs[exec_id] = running
                self._execs[exec_id] = attrs.evolve(session, running=True, pid=running.pid)
                noted = NotedExec(running)
                try:
                    yield noted
                finally:
                    code = noted.exit_code
        finally:
            self._running_execs.pop(exec_id, None)
            self._execs[exec_id] = attrs.evolve(session, running=False, exit_code=code)

    def exec_ids(self, ref: str) -> Sequence[str]:
        container_id = self.inspect(ref).id
        return [
            session.id
            for session in self._execs.values()
            if session.container_id == container_id and session.exit_code is None
        ]

    def exec_inspect(self, exec_id: str) -> Exec:
        if exec_id not in self._execs:
            raise NotFound(f"No such exec instance: {exec_id}", code="exec_not_found")
        return self._execs[exec_id]

    async def exec_resize(self, exec_id: str, height: int, width: int) -> None:
        self.exec_inspect(exec_id)
        running = self._running_execs.get(exec_id)
        if running is not None:
            await running.resize(height, width)

    async def size(self, ref: str) -> tuple[int, int]:
        container = self.inspect(ref)
        await trio.lowlevel.checkpoint()
        return 100, 100 + self._images.inspect(container.image_id).size_bytes

    async def stat_path(self, ref: str, path: str) -> PathStat:
        raise Unsupported(_NO_FILES)

    def read_path(
        self, ref: str, path: str
    ) -> AbstractAsyncContextManager[tuple[PathStat, AsyncIterator[bytes]]]:
        raise Unsupported(_NO_FILES)

    async def write_path(
        self,
        ref: str,
        path: str,
        source: AsyncIterator[bytes],
        *,
        keep_kind: bool = False,
        copy_owner: bool = False,
    ) -> None:
        raise Unsupported(_NO_FILES)

    async def remove_paths(self, ref: str, path: str, names: Sequence[str]) -> Sequence[str]:
        raise Unsupported(_NO_FILES)

    def export(self, ref: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        raise Unsupported(_NO_FILES)

    async def changes(self, ref: str) -> Sequence[Change]:
        raise Unsupported(_NO_FILES)

    async def commit(self, ref: str, spec: CommitSpec = _COMMIT) -> Image:
        raise Unsupported(_NO_FILES)


async def _nothing() -> AsyncIterator[LogRecord]:
    for _ in ():
        yield _
