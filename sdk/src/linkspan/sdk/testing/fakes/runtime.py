"""A runtime in memory: its programs are async functions, its containers live in a ``FakeMachine``."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from signal import SIGKILL
from typing import Self

import attrs
import trio

from linkspan.sdk.clock import rfc3339
from linkspan.sdk.drivers.runtime import (
    CreateRequest,
    ExecProcess,
    OciSpec,
    ProcessSpec,
    Recovered,
    Runtime,
    RuntimeCap,
    RuntimeStats,
)
from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound
from linkspan.sdk.host import Host
from linkspan.sdk.model.container import ContainerSpec, ExitStatus, Resources
from linkspan.sdk.model.process import Chunk, LogQuery, LogRecord, ProcessStreams, StreamKind
from linkspan.sdk.testing.fakes.machine import FakeContainer, FakeLog, FakeMachine, FakeProcess


@attrs.frozen(kw_only=True)
class FakeRuntimeConfig:
    """``machine``: the one to use; None makes one that ends with the host's tasks."""

    machine: FakeMachine | None = None


class _Streams(ProcessStreams):
    def __init__(self, process: FakeProcess, *, stdin_once: bool = False) -> None:
        self._process = process
        self._output = process.subscribe()
        self._stdin_once = stdin_once

    async def receive(self) -> Chunk | None:
        try:
            return await self._output.receive()
        except trio.EndOfChannel:
            return None

    async def send(self, data: bytes) -> None:
        await self._process.feed(data)

    async def close_stdin(self) -> None:
        if self._stdin_once:
            self._process.close_stdin()
        await trio.lowlevel.checkpoint()

    def leave(self) -> None:
        self._output.close()
        if self._stdin_once:
            self._process.close_stdin()


class FakeExec(_Streams, ExecProcess):
    """A further process."""

    def __init__(self, process: FakeProcess) -> None:
        super().__init__(process, stdin_once=True)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def started(self) -> None:
        """See the contract; a missing program is told before there is a session."""
        await trio.lowlevel.checkpoint()

    async def resize(self, height: int, width: int) -> None:
        self._process.size = (height, width)
        await trio.lowlevel.checkpoint()

    async def wait(self) -> int:
        await self._process.ended.wait()
        assert self._process.status is not None
        return self._process.status.exit_code


class FakeRuntime(Runtime[FakeRuntimeConfig]):
    """See the module."""

    config_type = FakeRuntimeConfig

    def __init__(self, machine: FakeMachine) -> None:
        self.machine = machine
        self.stirred = 0
        self._recovered: list[Recovered] = []

    @classmethod
    @asynccontextmanager
    async def open(cls, config: FakeRuntimeConfig, host: Host) -> AsyncIterator[Self]:
        machine = config.machine
        if machine is None:
            found = await host.start_task(_run_machine, name="fake machine")
            assert isinstance(found, FakeMachine)
            machine = found
        yield cls(machine)

    @property
    def capabilities(self) -> RuntimeCap:
        return RuntimeCap.PAUSE | RuntimeCap.UPDATE | RuntimeCap.STATS

    @property
    def version(self) -> str:
        return "fake 1"

    def container(self, container_id: str) -> FakeContainer:
        """A container, for tests and for every method here."""
        try:
            return self.machine.containers[container_id]
        except KeyError:
            raise NotFound(f"no container {container_id}", code="container_not_found") from None

    def _running(self, container_id: str) -> FakeContainer:
        container = self.container(container_id)
        if not container.running:
            raise NotFound(f"container {container_id} does not run", code="not_running")
        return container

    def check(self, spec: ContainerSpec) -> Sequence[str]:
        if spec.runtime not in ("", "fake"):
            raise InvalidArgument(f"unknown or invalid runtime name: {spec.runtime}")
        return ()

    async def create(self, request: CreateRequest) -> None:
        self.machine.called("create", request.container_id)
        old = self.machine.containers.get(request.container_id)
        if old is not None and old.init.status is None:
            raise Conflict(f"container {request.container_id} exists", code="container_exists")
        for shared in (request.share_pid, request.share_ipc, request.share_uts):
            if shared not in ("", "host", "none"):
                self._running(shared)
        _check_user(request.process)
        program = self.machine.program(request.process.args)
        spec: OciSpec = {
            "process": {"args": list(request.process.args), "env": list(request.process.env)},
            "annotations": dict(request.annotations),
        }
        await trio.lowlevel.checkpoint()
        if request.modify_spec is not None:
            spec = await request.modify_spec(spec)
        init = FakeProcess(self.machine.next_pid(), request.process)
        log = None
        if request.log:
            log = old.log if old is not None and old.log is not None else FakeLog()
            log.limit_bytes = request.log_max_bytes * request.log_max_files
        init.log = log
        self.machine.containers[request.container_id] = FakeContainer(
            request=request,
            init=init,
            program=program,
            oci_spec=spec,
            log=log,
            resources=request.resources,
        )

    async def start(self, container_id: str) -> int:
        self.machine.called("start", container_id)
        container = self.container(container_id)
        await trio.lowlevel.checkpoint()
        if not container.started and container.init.status is None:
            container.started = True
            self.machine.nursery.start_soon(container.init.run, container.program)
        return container.init.pid

    async def wait(self, container_id: str) -> ExitStatus:
        init = self.container(container_id).init
        await init.ended.wait()
        assert init.status is not None
        return init.status

    async def signal(self, container_id: str, signal: int) -> None:
        self.machine.called("signal", container_id)
        self._running(container_id).init.signal(signal)
        await trio.lowlevel.checkpoint()

    async def delete(self, container_id: str) -> None:
        self.machine.called("delete", container_id)
        container = self.machine.containers.pop(container_id, None)
        if container is None:
            await trio.lowlevel.checkpoint()
            return
        for process in (*container.execs, container.init):
            process.signal(SIGKILL)
        if container.started:
            with trio.CancelScope(shield=True):
                await container.init.ended.wait()
        else:
            container.init.end(ExitStatus(exit_code=137, finished_at=rfc3339()))
            await trio.lowlevel.checkpoint()

    @asynccontextmanager
    async def attach(self, container_id: str) -> AsyncIterator[ProcessStreams]:
        container = self.container(container_id)
        if container.init.status is not None:
            raise NotFound(f"container {container_id} has ended", code="not_running")
        streams = _Streams(container.init, stdin_once=container.request.stdin_once)
        try:
            yield streams
        finally:
            streams.leave()

    async def resize(self, container_id: str, height: int, width: int) -> None:
        self.container(container_id).init.size = (height, width)
        await trio.lowlevel.checkpoint()

    @asynccontextmanager
    async def exec(self, container_id: str, process: ProcessSpec) -> AsyncIterator[ExecProcess]:
        self.machine.called("exec", container_id)
        container = self._running(container_id)
        program = self.machine.program(process.args)
        child = FakeProcess(self.machine.next_pid(), process)
        session = FakeExec(child)
        container.execs.append(child)
        self.machine.nursery.start_soon(child.run, program)
        try:
            await trio.lowlevel.checkpoint()
            yield session
        finally:
            child.signal(SIGKILL)
            session.leave()
            container.execs.remove(child)

    @asynccontextmanager
    async def logs(
        self, container_id: str, query: LogQuery
    ) -> AsyncIterator[AsyncIterator[LogRecord]]:
        container = self.container(container_id)
        if container.log is None:
            raise NotFound(f"container {container_id} keeps no log", code="no_log")
        yield self._records(container, container.log, query)

    async def _records(
        self, container: FakeContainer, log: FakeLog, query: LogQuery
    ) -> AsyncIterator[LogRecord]:
        def wanted(time_ns: int, record: LogRecord) -> bool:
            streams = {StreamKind.STDOUT: query.stdout, StreamKind.STDERR: query.stderr}
            return (
                streams[record.stream]
                and (query.since_ns is None or time_ns >= query.since_ns)
                and (query.until_ns is None or time_ns <= query.until_ns)
            )

        position = log.dropped + len(log.records)
        first = [record for time_ns, record in log.records if wanted(time_ns, record)]
        if query.tail is not None:
            first = first[len(first) - min(query.tail, len(first)) :]
        for record in first:
            await trio.lowlevel.checkpoint()
            yield record
        while query.follow:
            changed = container.init.changed
            while (at := max(position - log.dropped, 0)) < len(log.records):
                time_ns, record = log.records[at]
                position = log.dropped + at + 1
                if wanted(time_ns, record):
                    yield record
            if container.init.status is not None:
                break
            await changed.wait()
        await trio.lowlevel.checkpoint()

    async def pids(self, container_id: str) -> list[int]:
        container = self._running(container_id)
        await trio.lowlevel.checkpoint()
        running = [p.pid for p in container.execs if p.status is None]
        return [container.init.pid, *running]

    async def recover(self) -> None:
        self._recovered = []
        for container_id, container in list(self.machine.containers.items()):
            if container.init.status is None and not container.started:
                del self.machine.containers[container_id]
                continue
            self._recovered.append(
                Recovered(
                    container_id=container_id,
                    pid=container.init.pid if container.running else 0,
                    paused=container.running and container.init.paused,
                    exit=container.init.status,
                )
            )
            for process in container.execs:
                process.signal(SIGKILL)
        await trio.lowlevel.checkpoint()

    async def recovered(self) -> list[Recovered]:
        await trio.lowlevel.checkpoint()
        return list(self._recovered)

    async def gc(self, known: Iterable[str]) -> Mapping[str, str]:
        keep = set(known)
        leaked = [name for name in self.machine.containers if name not in keep]
        for container_id in leaked:
            await self.delete(container_id)
        await trio.lowlevel.checkpoint()
        return dict.fromkeys(leaked, "nobody knows this container")

    async def pause(self, container_id: str) -> None:
        self._running(container_id).init.freeze(True)
        await trio.lowlevel.checkpoint()

    async def resume(self, container_id: str) -> None:
        self._running(container_id).init.freeze(False)
        await trio.lowlevel.checkpoint()

    async def check_exec(self, container_id: str, process: ProcessSpec) -> None:
        self._running(container_id)
        await trio.lowlevel.checkpoint()
        _check_user(process)

    async def update(self, container_id: str, resources: Resources) -> None:
        self._running(container_id).resources = resources
        await trio.lowlevel.checkpoint()

    async def stats(self, container_id: str) -> RuntimeStats:
        container = self._running(container_id)
        await trio.lowlevel.checkpoint()
        return RuntimeStats(
            cpu_usage_ns=1000,
            memory_usage_bytes=4096,
            memory_limit_bytes=container.resources.memory_bytes,
            pids_current=len(await self.pids(container_id)),
            pids_limit=max(container.resources.pids_limit or 0, 0),
        )

    def stir(self) -> None:
        self.stirred += 1


def _check_user(process: ProcessSpec) -> None:
    user = process.user.partition(":")[0]
    if user and not user.isdecimal() and user != "root":
        raise InvalidArgument(f"no user '{user}' in the container", code="user_not_found")


async def _run_machine(
    *, task_status: trio.TaskStatus[FakeMachine] = trio.TASK_STATUS_IGNORED
) -> None:
    async with trio.open_nursery() as nursery:
        task_status.started(FakeMachine(nursery))
        await trio.sleep_forever()
