"""A runtime in memory: its programs are async functions, its containers live in a ``FakeMachine``."""

import re
import shlex
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from signal import SIGCHLD, SIGCONT, SIGKILL, SIGSTOP, SIGWINCH, Signals
from typing import Final, Self

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

Program = Callable[["FakeProcess"], Awaitable[int]]

_IGNORED: Final = frozenset({SIGCHLD, SIGCONT, SIGWINCH})


@attrs.define(eq=False)
class FakeLog:
    """What a container wrote, as far as its limits keep it.

    Attributes:
        limit_bytes: Of all files together; 0 is no limit.
        records: Times in nanoseconds and records.
        dropped: How many records came before the first one.
    """

    limit_bytes: int = 0
    records: list[tuple[int, LogRecord]] = attrs.field(factory=list)
    dropped: int = 0

    def add(self, time_ns: int, record: LogRecord) -> None:
        """Keep a record, and let old ones go."""
        self.records.append((time_ns, record))
        size = sum(len(kept.data) for _, kept in self.records)
        while self.limit_bytes and size > self.limit_bytes and len(self.records) > 1:
            size -= len(self.records.pop(0)[1].data)
            self.dropped += 1


class FakeProcess:
    """What a program sees of itself.

    Attributes:
        trapped: Signals that do not end it; a program adds to it and may read ``received``.
        received: All signals it got, in order.
        size: Height and width of its terminal.
    """

    def __init__(self, pid: int, spec: ProcessSpec) -> None:
        self.pid = pid
        self.spec = spec
        self.trapped: set[int] = set()
        self.received: list[int] = []
        self.size: tuple[int, int] | None = None
        self.status: ExitStatus | None = None
        self.ended = trio.Event()
        self.log: FakeLog | None = None
        self.changed = trio.Event()
        self._readers: list[trio.MemorySendChannel[Chunk]] = []
        self._stdin_writer, self._stdin = trio.open_memory_channel[bytes](1000)
        self._scope = trio.CancelScope()
        self._killed_by = 0
        self._signalled = trio.Event()
        self._thawed = trio.Event()
        self._thawed.set()
        if not spec.stdin:
            self._stdin_writer.close()

    @property
    def args(self) -> tuple[str, ...]:
        """Its command line."""
        return self.spec.args

    @property
    def env(self) -> Mapping[str, str]:
        """Its environment."""
        return dict(item.partition("=")[::2] for item in self.spec.env)

    @property
    def paused(self) -> bool:
        """Whether it is frozen."""
        return not self._thawed.is_set()

    async def write(self, data: bytes, stream: StreamKind = StreamKind.STDOUT) -> None:
        """Write to stdout or stderr; with a tty both are stdout."""
        await self._thawed.wait()
        if self.spec.tty:
            stream = StreamKind.STDOUT
            data = data.replace(b"\n", b"\r\n")
        if self.log is not None:
            now = time.time_ns()
            for line in data.splitlines(keepends=True):
                self.log.add(now, LogRecord(stream=stream, time=rfc3339(now), data=line))
        for reader in list(self._readers):
            try:
                await reader.send(Chunk(stream, data))
            except trio.BrokenResourceError:
                self._readers.remove(reader)
        self._wake()
        await trio.lowlevel.checkpoint()

    async def read(self) -> bytes:
        """Next input; empty at its end."""
        try:
            return await self._stdin.receive()
        except trio.EndOfChannel:
            return b""

    async def next_signal(self) -> int:
        """Wait for a trapped signal that has not been taken yet."""
        taken = getattr(self, "_taken", 0)
        while len(self.received) <= taken:
            self._signalled = trio.Event()
            await self._signalled.wait()
        self._taken = taken + 1
        return self.received[taken]

    def signal(self, number: int) -> None:
        """Get a signal: untrapped ones end it with 128+n, as in a shell."""
        self.received.append(number)
        self._signalled.set()
        if number in (SIGSTOP, *_IGNORED) or (number in self.trapped and number != SIGKILL):
            return
        self._killed_by = number
        self._scope.cancel()

    def freeze(self, frozen: bool) -> None:
        """Stop or let go its writes and its end."""
        if frozen and not self.paused:
            self._thawed = trio.Event()
        elif not frozen:
            self._thawed.set()

    def subscribe(self) -> trio.MemoryReceiveChannel[Chunk]:
        """Output from now on."""
        send, receive = trio.open_memory_channel[Chunk](10000)
        if self.ended.is_set():
            send.close()
        else:
            self._readers.append(send)
        return receive

    async def feed(self, data: bytes) -> None:
        """Put data into its stdin."""
        try:
            await self._stdin_writer.send(data)
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            await trio.lowlevel.checkpoint()

    def close_stdin(self) -> None:
        """End its input."""
        self._stdin_writer.close()

    async def run(self, program: Program) -> None:
        """Run to the end, whatever the program does."""
        code, error = 0, ""
        with self._scope:
            try:
                code = await program(self)
                await self._thawed.wait()
            except Exception as exc:  # noqa: BLE001 - a program's fault is its exit code
                code, error = 1, repr(exc)
        if self._scope.cancelled_caught:
            code = 128 + (self._killed_by or SIGKILL)
        self.end(ExitStatus(exit_code=code & 0xFF, finished_at=rfc3339(), error=error))

    def end(self, status: ExitStatus) -> None:
        """Become ended."""
        if self.status is not None:
            return
        self.status = status
        for reader in self._readers:
            reader.close()
        self._readers.clear()
        self._stdin.close()
        self.ended.set()
        self._wake()

    def _wake(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


@attrs.define
class FakeContainer:
    """A container of the machine.

    Attributes:
        oci_spec: What ``modify_spec`` returned.
    """

    request: CreateRequest
    init: FakeProcess
    program: Program
    oci_spec: OciSpec
    log: FakeLog | None
    started: bool = False
    resources: Resources = Resources()
    execs: list[FakeProcess] = attrs.field(factory=list)

    @property
    def running(self) -> bool:
        """Started and not ended."""
        return self.started and self.init.status is None


class FakeMachine:
    """Where the processes live. It outlives drivers, so a test can end a daemon and start the next.

    Attributes:
        programs: Base name of ``args[0]`` → what it does. ``true false echo printf cat sleep env sh``
            are there; tests add their own.
        failures: Operation (``create start exec signal delete``) → error to raise next time, once.
        calls: Operations with their container, in order.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.programs: dict[str, Program] = dict(_PROGRAMS)
        self.containers: dict[str, FakeContainer] = {}
        self.failures: dict[str, Exception] = {}
        self.calls: list[tuple[str, str]] = []
        self._last_pid = 1000

    def next_pid(self) -> int:
        """A pid that nobody had."""
        self._last_pid += 1
        return self._last_pid

    def program(self, args: tuple[str, ...]) -> Program:
        """The program of a command line, or the errors of a missing one."""
        name = args[0] if args else ""
        found = self.programs.get(name.rpartition("/")[2])
        if name.startswith("/") and name.endswith("/"):
            raise InvalidArgument(f"exec {name}: permission denied", code="command_not_executable")
        if found is None:
            raise InvalidArgument(
                f'exec: "{name}": executable file not found in $PATH', code="command_not_found"
            )
        return found

    def called(self, operation: str, container_id: str) -> None:
        """Note a call and raise what a test has planted."""
        self.calls.append((operation, container_id))
        failure = self.failures.pop(operation, None)
        if failure is not None:
            raise failure

    def crash(self, container_id: str, exit_code: int = 137, *, oom_killed: bool = False) -> None:
        """End a container from outside."""
        self.containers[container_id].init.end(
            ExitStatus(exit_code=exit_code, oom_killed=oom_killed, finished_at=rfc3339())
        )
        self.containers[container_id].init.signal(SIGKILL)


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
        user = request.process.user.partition(":")[0]
        if user and not user.isdecimal() and user != "root":
            raise InvalidArgument(f"no user '{user}' in the container", code="user_not_found")
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
            pids_limit=container.resources.pids_limit or 0,
        )

    def stir(self) -> None:
        self.stirred += 1


async def _run_machine(
    *, task_status: trio.TaskStatus[FakeMachine] = trio.TASK_STATUS_IGNORED
) -> None:
    async with trio.open_nursery() as nursery:
        task_status.started(FakeMachine(nursery))
        await trio.sleep_forever()


# --- the programs in the box: as much of a shell as tests need


async def _true(process: FakeProcess) -> int:
    await trio.lowlevel.checkpoint()
    return 0


async def _false(process: FakeProcess) -> int:
    await trio.lowlevel.checkpoint()
    return 1


async def _cat(process: FakeProcess) -> int:
    while data := await process.read():
        await process.write(data)
    return 0


async def _command(process: FakeProcess, words: list[str]) -> int | None:
    """Run one command of a script; the exit code, or None to go on."""
    stream = StreamKind.STDOUT
    if words and words[-1] == ">&2":
        stream, words = StreamKind.STDERR, words[:-1]
    words = [
        re.sub(r"\$(\w+)", lambda match: process.env.get(match[1], ""), word) for word in words
    ]
    match words:
        case ["echo", *rest]:
            await process.write(" ".join(rest).encode() + b"\n", stream)
        case ["printf", text]:
            await process.write(text.encode().decode("unicode_escape").encode(), stream)
        case ["cat"]:
            await _cat(process)
        case ["sleep", seconds]:
            await trio.sleep(float(seconds))
        case ["env"]:
            await process.write("".join(f"{item}\n" for item in process.spec.env).encode(), stream)
        case ["trap", "", *names]:
            process.trapped |= {Signals[f"SIG{name}"] for name in names}
        case ["kill", "-9", "$$"]:
            process.signal(SIGKILL)
            await trio.lowlevel.checkpoint()
        case ["exit", code]:
            return int(code)
        case [unknown, *_]:
            await process.write(f"sh: {unknown}: not found\n".encode(), StreamKind.STDERR)
            return 127
        case _:
            await trio.lowlevel.checkpoint()
    return None


async def _shell(process: FakeProcess) -> int:
    for line in process.args[-1].split(";"):
        words = shlex.split(line)
        if words and (code := await _command(process, words)) is not None:
            return code
    await trio.lowlevel.checkpoint()
    return 0


async def _direct(process: FakeProcess) -> int:
    name = process.args[0].rpartition("/")[2]
    return await _command(process, [name, *process.args[1:]]) or 0


_PROGRAMS: Final[Mapping[str, Program]] = {
    "true": _true,
    "false": _false,
    "cat": _cat,
    "sh": _shell,
    **dict.fromkeys(("echo", "printf", "sleep", "env"), _direct),
}
