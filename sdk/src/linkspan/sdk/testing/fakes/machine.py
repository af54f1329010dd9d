"""A machine in memory: its processes are async functions, with as much of a shell as tests need."""

import re
import shlex
import time
from collections.abc import Awaitable, Callable, Mapping
from signal import SIGCHLD, SIGCONT, SIGKILL, SIGSTOP, SIGWINCH, Signals
from typing import Final

import attrs
import trio

from linkspan.sdk.clock import rfc3339
from linkspan.sdk.drivers.runtime import (
    CreateRequest,
    OciSpec,
    ProcessSpec,
)
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.container import ExitStatus, Resources
from linkspan.sdk.model.process import Chunk, LogRecord, StreamKind

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
