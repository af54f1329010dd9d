"""Role ``runtime``: processes in containers (OCI runtime-spec 1.2, runtime.md "Lifecycle").

A container is made by ``create`` (its namespaces exist, its program does not run yet), set going by
``start``, ends by itself or by ``signal``, is waited for by ``wait`` and forgotten by ``delete``. It
outlives the daemon: after a restart ``recover`` finds what runs, and ``wait`` works on it as before.

The driver is thin: it does not check states (the engine does), it does not restart anything, and it
does not know images, networks or volumes; it gets a root folder, mounts and a network namespace.
"""

import abc
import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Literal

import attrs
import trio

from linkspan.sdk.drivers.base import Config, Driver
from linkspan.sdk.errors import Unsupported
from linkspan.sdk.model.container import ContainerSpec, ExitStatus, Resources
from linkspan.sdk.model.process import LogQuery, LogRecord, ProcessStreams
from linkspan.sdk.stability import Stage, contract
from linkspan.sdk.values import frozen

OciSpec = dict[str, Any]


class RuntimeCap(enum.Flag):
    """What a runtime can beyond the contract's required methods."""

    NONE = 0
    PAUSE = enum.auto()
    UPDATE = enum.auto()
    STATS = enum.auto()
    CHECKPOINT = enum.auto()


@frozen(kw_only=True)
class BundleMount:
    """A mount inside the container, in order.

    Attributes:
        type: ``bind``, ``tmpfs`` or another file system type.
        options: As for mount(8): ``rbind``, ``ro``, ``rslave``, ``size=64m``.
        read_only_below: Of a read-only bind, whether what is mounted below its source is read-only, too:
            ``try``, where the kernel can; ``must``, or the create fails; ``never``.
    """

    destination: str
    type: str
    source: str = ""
    options: tuple[str, ...] = ()
    read_only_below: Literal["try", "must", "never"] = "never"


@frozen(kw_only=True)
class ProcessSpec:
    """A process to run.

    Attributes:
        user: ``uid``, ``name``, either with ``:group``; empty means root. Names are looked up in the
            container's own ``/etc/passwd`` and ``/etc/group``.
        console_size: Rows and columns that its terminal begins with; (0, 0) says nothing.
    """

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    group_add: tuple[str, ...] = ()
    tty: bool = False
    stdin: bool = False
    privileged: bool = False
    console_size: tuple[int, int] = (0, 0)


@frozen(kw_only=True)
class CreateRequest:
    """All that a runtime needs to make a container.

    Attributes:
        rootfs: A folder on the host, mounted already.
        network_namespace: Path of the namespace; None means the host's.
        share_pid, share_ipc, share_uts: ``""`` own, ``"host"``, or the id of a container of this driver;
            ``share_ipc`` may be ``"none"``: own, without a ``/dev/shm``.
        cgroup_namespace: ``"host"``, ``"private"``, or ``""``: what is usual for the machine's cgroups.
        stdin_once: Close stdin when the first attached client goes.
        log: Keep the output, so that ``logs`` has it.
        log_max_bytes: Begin a new file of the log at about this size; 0 means never.
        log_max_files: How many files are kept: ``logs`` reads all of them, no line between them is lost.
        modify_spec: Awaited with the finished OCI spec before it is written; returns the one to use.
    """

    container_id: str
    name: str
    rootfs: Path
    process: ProcessSpec
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[BundleMount, ...] = ()
    network_namespace: str | None = None
    share_pid: str = ""
    share_ipc: str = ""
    share_uts: str = ""
    cgroup_namespace: str = ""
    resources: Resources = Resources()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    security_opt: tuple[str, ...] = ()
    read_only: bool = False
    sysctls: Mapping[str, str] = attrs.field(factory=dict)
    init: bool = False
    shm_size_bytes: int = 67108864
    oom_score_adj: int = 0
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None
    stdin_once: bool = False
    log: bool = True
    log_max_bytes: int = 0
    log_max_files: int = 1
    annotations: Mapping[str, str] = attrs.field(factory=dict)
    modify_spec: Callable[[OciSpec], Awaitable[OciSpec]] | None = None


@frozen(kw_only=True)
class Recovered:
    """A container found after a restart; ``exit`` is set when it ended meanwhile."""

    container_id: str
    pid: int = 0
    paused: bool = False
    exit: ExitStatus | None = None


@frozen(kw_only=True)
class DeviceIo:
    """What went to and from one block device, by its numbers."""

    major: int
    minor: int
    read_bytes: int = 0
    write_bytes: int = 0
    reads: int = 0
    writes: int = 0


@frozen(kw_only=True)
class RuntimeStats:
    """Counters of a container's cgroup; bytes and nanoseconds since its start.

    Attributes:
        cpu_each_ns: Of each CPU, where the kernel counts so (cgroup v1).
        memory_peak_bytes: The most that was used at once; 0 where the kernel does not tell.
        memory_failures: How often the limit was hit; 0 where the kernel does not tell.
        memory_cache_bytes: What could be let go at once.
        memory_details: The kernel's ``memory.stat``.
        io: By block device.
    """

    cpu_usage_ns: int = 0
    cpu_user_ns: int = 0
    cpu_system_ns: int = 0
    cpu_each_ns: tuple[int, ...] = ()
    cpu_periods: int = 0
    cpu_throttled_periods: int = 0
    cpu_throttled_ns: int = 0
    memory_usage_bytes: int = 0
    memory_peak_bytes: int = 0
    memory_failures: int = 0
    memory_limit_bytes: int = 0
    memory_cache_bytes: int = 0
    memory_details: Mapping[str, int] = attrs.field(factory=dict)
    pids_current: int = 0
    pids_limit: int = 0
    io: tuple[DeviceIo, ...] = ()


class ExecProcess(ProcessStreams):
    """A further process; it ends with the daemon."""

    @property
    @abc.abstractmethod
    def pid(self) -> int:
        """Its pid on the host; 0 if unknown."""

    @abc.abstractmethod
    async def started(self) -> None:
        """Wait until its program runs, or has ended, while somebody receives its output.

        Raises:
            InvalidArgument: code ``command_not_found`` or ``command_not_executable``; a runtime that knows at
                once raises it from ``exec``.
        """

    @abc.abstractmethod
    async def resize(self, height: int, width: int) -> None:
        """Tell its terminal the size in characters; ignored without a tty."""

    @abc.abstractmethod
    async def wait(self) -> int:
        """Its exit code: 126 cannot be executed, 127 not found, 128+n by a signal."""


@contract(role="runtime", version=1, stage=Stage.BETA, since="0.1")
class Runtime(Driver[Config], abc.ABC):
    """Creates and runs containers; see the module."""

    @property
    @abc.abstractmethod
    def capabilities(self) -> RuntimeCap:
        """What this runtime can on this machine."""

    @property
    @abc.abstractmethod
    def version(self) -> str:
        """Name and version of the program behind it, ``crun 1.8.1``."""

    def check(self, spec: ContainerSpec) -> Sequence[str]:
        """Before a container is made: refuse what can never run on this machine; never blocks.

        Returns:
            Warnings: what is asked for and will be left out.

        Raises:
            InvalidArgument: A limit, a capability, a security option or the runtime's name is wrong.
        """
        return ()

    @abc.abstractmethod
    async def create(self, request: CreateRequest) -> None:
        """Make the container; its program does not run yet.

        An id that has ended may be created again: its log goes on.

        Raises:
            Conflict: A container with this id exists and has not ended.
            InvalidArgument: code ``command_not_found`` or ``command_not_executable`` when the runtime
                says so; ``user_not_found``; otherwise what the runtime refused.
            NotFound: A container to share a namespace with does not run.
        If cancelled: nothing is left.
        """

    @abc.abstractmethod
    async def start(self, container_id: str) -> int:
        """Start a created container; return its init's pid on the host.

        Raises:
            NotFound: No container has this id.
            InvalidArgument: As ``create`` (some runtimes find a missing program only now).
        If cancelled: it is either still created or running, nothing between.
        """

    @abc.abstractmethod
    async def wait(self, container_id: str) -> ExitStatus:
        """Wait until it ended; at once if it has. Any number of waiters.

        Raises:
            NotFound: No container has this id (never created, or deleted).
        If cancelled: nothing happened.
        """

    @abc.abstractmethod
    async def signal(self, container_id: str, signal: int) -> None:
        """Send a signal to its init.

        Raises:
            NotFound: It does not exist or does not run.
        """

    @abc.abstractmethod
    async def delete(self, container_id: str) -> None:
        """Kill what runs and forget it, its bundle and its log. Never raises on a second call.

        If cancelled: gone from listing; files are removed by the next ``gc``.
        """

    @abc.abstractmethod
    def attach(self, container_id: str) -> AbstractAsyncContextManager[ProcessStreams]:
        """Join its streams from now on; possible from ``create`` on, so that nothing is missed.

        Raises:
            NotFound: It does not exist or has ended.
        """

    @abc.abstractmethod
    async def resize(self, container_id: str, height: int, width: int) -> None:
        """Tell its terminal the size in characters; ignored without a tty."""

    @abc.abstractmethod
    def exec(
        self, container_id: str, process: ProcessSpec
    ) -> AbstractAsyncContextManager[ExecProcess]:
        """Run a further process inside. Leaving the context before its end kills it.

        Raises:
            NotFound: The container does not run.
            InvalidArgument: As ``create``.
        """

    @abc.abstractmethod
    def logs(
        self, container_id: str, query: LogQuery
    ) -> AbstractAsyncContextManager[AsyncIterator[LogRecord]]:
        """Read what it wrote, oldest first; with ``follow`` until it ended.

        Raises:
            NotFound: It does not exist, or keeps no log.
        """

    @abc.abstractmethod
    async def pids(self, container_id: str) -> list[int]:
        """Host pids of all its processes."""

    @abc.abstractmethod
    async def recovered(self) -> list[Recovered]:
        """What ``recover`` found: running and ended containers of this driver."""

    async def pause(self, container_id: str) -> None:
        """Freeze all its processes (cap PAUSE)."""
        raise Unsupported("this runtime cannot pause")

    async def resume(self, container_id: str) -> None:
        """Thaw them (cap PAUSE)."""
        raise Unsupported("this runtime cannot resume")

    async def update(self, container_id: str, resources: Resources) -> None:
        """Change its limits (cap UPDATE)."""
        raise Unsupported("this runtime cannot change limits")

    async def stats(self, container_id: str) -> RuntimeStats:
        """Read its counters (cap STATS)."""
        raise Unsupported("this runtime has no counters")

    def stir(self) -> None:
        """Work is about to arrive: warm up what has cooled. Cheap, never blocks, may do nothing."""

    async def check_exec(self, container_id: str, process: ProcessSpec) -> None:
        """Refuse a process whose user or group the container does not know.

        Raises:
            InvalidArgument: code ``user_not_found``.
        """
        await trio.lowlevel.checkpoint()

    def expect_exec(self, container_id: str, process: ProcessSpec) -> None:
        """``exec`` of such a process is likely to be called at once: begin what can be begun.

        It may not come, and another may come first. Never fails, never waits, may do nothing; what was
        begun in vain is ended soon.
        """
