"""The ``oci`` runtime: crun or runc makes containers, conmon holds them.

Each container has a bundle in the run folder (``Layout``), a record and a log in the state folder, a conmon
that outlives the daemon, and, while a daemon runs, a task that waits for that conmon and takes up its exit.
"""

import contextlib
import errno
import logging
import os
import shutil
import signal as signals
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self

import attrs
import orjson
import trio

from linkspan.plugins.oci_runtime import (
    attach,
    cgroups,
    checks,
    logs,
    mount_namespace,
    programs,
    refusal,
    rotation,
    spec,
)
from linkspan.plugins.oci_runtime.config import OciConfig
from linkspan.plugins.oci_runtime.conmon import (
    CreateFailed,
    Held,
    open_running,
    read_exit,
    reap,
    resize_command,
)
from linkspan.plugins.oci_runtime.execs import Execs, identity_of
from linkspan.plugins.oci_runtime.held import HeldContainer
from linkspan.plugins.oci_runtime.leftovers import Leftovers
from linkspan.plugins.oci_runtime.making import Joined, Maker
from linkspan.plugins.oci_runtime.record import Record
from linkspan.plugins.oci_runtime.resources import make_resources
from linkspan.plugins.oci_runtime.tools import Tools
from linkspan.plugins.oci_runtime.warmth import KeepWarm
from linkspan.sdk.drivers.runtime import (
    CreateRequest,
    ExecProcess,
    ProcessSpec,
    Recovered,
    Runtime,
    RuntimeCap,
    RuntimeStats,
)
from linkspan.sdk.errors import Conflict, Internal, LinkspanError, NotFound, NotUsable, OutOfSpace
from linkspan.sdk.files import is_full
from linkspan.sdk.host import Host
from linkspan.sdk.model.container import ContainerSpec, ExitStatus, Resources
from linkspan.sdk.model.process import LogQuery, LogRecord, ProcessStreams
from linkspan.sdk.programs import run_program
from linkspan.sdk.threads import in_thread

_log: Final = logging.getLogger(__name__)


class OciRuntime(Runtime[OciConfig]):
    """See the module."""

    config_type = OciConfig

    def __init__(self, config: OciConfig, tools: Tools) -> None:
        self._config = config
        self._tools = tools
        self._layout = tools.layout
        self._containers: dict[str, HeldContainer] = {}
        self._creating: set[str] = set()
        self._discarding: dict[str, trio.Event] = {}
        self._recovered: list[Recovered] = []
        self._background: trio.Nursery | None = None
        self._stop = trio.Event()
        self._stopped = trio.Event()
        self._warm: KeepWarm | None = None
        self._rotation = rotation.Rotation()
        self._execs = Execs(tools)
        self._maker = Maker(config, tools)
        self._leftovers = Leftovers(config, tools, self._maker)

    @classmethod
    def prepare_process(cls, config: OciConfig, run_dir: Path) -> None:
        """Move the daemon into its own mount namespace where crun needs that; see ``mount_namespace``."""
        if not (mount_namespace.is_pinned(run_dir) or cls._needs_namespace(config)):
            return
        try:
            mount_namespace.enter(run_dir)
        except OSError as exc:
            raise NotUsable(
                f"cannot make a mount namespace for crun: {exc}",
                code="no_mount_namespace",
                help='run the daemon as root, or set runtime = "/usr/sbin/runc" in [runtime.oci]',
            ) from exc

    @staticmethod
    def _needs_namespace(config: OciConfig) -> bool:
        try:
            runtime = programs.find_runtime(config.runtime)
        except NotUsable:
            return False  # `open` says so
        return mount_namespace.is_hybrid() and "crun" in Path(runtime).name

    @classmethod
    @asynccontextmanager
    async def open(cls, config: OciConfig, host: Host) -> AsyncIterator[Self]:
        """Find the programs, start the task that watches containers."""
        tools = await trio.to_thread.run_sync(
            Tools.make, config, host.run_dir, host.state_dir, host.daemon.soft_open_files
        )
        driver = cls(config, tools)
        try:
            await host.start_task(driver._run_background, name="watch containers")
            if config.keep_warm:
                async with KeepWarm.open(
                    tools.groups, config.cgroup_parent, tools.token, host
                ) as warm:
                    driver._warm = warm
                    yield driver
            else:
                yield driver
        finally:
            with trio.CancelScope(shield=True):
                await driver._close()

    async def _close(self) -> None:
        self._stop.set()
        if self._background is not None:
            await self._stopped.wait()
        for container in self._containers.values():
            if container.init >= 0:
                os.close(container.init)
        alive = any(container.status is None for container in self._containers.values())
        await trio.to_thread.run_sync(self._tools.close, alive)

    async def _run_background(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Hold the tasks that wait for containers; when restarted, wait again for those that run."""
        self._stopped = trio.Event()
        try:
            async with trio.open_nursery() as nursery:
                self._background = nursery
                nursery.start_soon(self._rotation.run)
                for container in self._containers.values():
                    if container.status is None:
                        nursery.start_soon(self._watch, container)
                task_status.started()
                await self._stop.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._stopped.set()

    @property
    def _nursery(self) -> trio.Nursery:
        assert self._background is not None
        return self._background

    @property
    def capabilities(self) -> RuntimeCap:
        """PAUSE where there is a freezer."""
        able = RuntimeCap.UPDATE | RuntimeCap.STATS
        groups = self._tools.groups
        if groups.version == 2 or groups.has("freezer"):
            able |= RuntimeCap.PAUSE
        return able

    @property
    def version(self) -> str:
        """``crun 1.8.1``."""
        return f"{self._tools.runtime.name} {self._tools.runtime.version}"

    def _get(self, container_id: str) -> HeldContainer:
        container = self._containers.get(container_id)
        if container is None:
            raise NotFound(
                f"the runtime knows no container {container_id[:12]}", code="container_not_found"
            )
        return container

    def _get_running(self, container_id: str) -> HeldContainer:
        container = self._get(container_id)
        if not container.running:
            raise NotFound(f"container {container_id[:12]} does not run", code="not_running")
        return container

    # --- create

    def check(self, spec: ContainerSpec) -> Sequence[str]:
        """See the contract."""
        return checks.check(spec, self._tools)

    async def create(self, request: CreateRequest) -> None:
        """See the contract."""
        container_id = request.container_id
        old = self._containers.get(container_id)
        if container_id in self._creating or (old is not None and old.status is None):
            raise Conflict(f"container {container_id[:12]} exists", code="container_exists")
        self._creating.add(container_id)
        try:
            leaving = self._discarding.get(container_id)
            if leaving is not None:
                await leaving.wait()
            if old is not None:
                await old.scrubbed.wait()
            await self._create(request, old)
        finally:
            self._creating.discard(container_id)

    async def _create(self, request: CreateRequest, old: HeldContainer | None) -> None:
        joined = self._join(request)
        planned = None
        try:
            if request.modify_spec is not None:
                planned = await trio.to_thread.run_sync(self._maker.plan, request, joined)
                planned = await request.modify_spec(planned)
            begun = await in_thread(self._maker.begin, request, joined, planned)
            held = await begun.making.made()
        except BaseException as exc:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(
                    lambda: self._maker.undo(request, keep_folder=old is not None)
                )
            if isinstance(exc, CreateFailed):
                raise refusal.error_of(str(exc), request.process.args[0]) from exc
            if isinstance(exc, OSError):
                raise _disk_error(exc, self._layout.containers) from exc
            raise
        container = self._hold(request, held)
        with trio.CancelScope(shield=True):
            try:
                await in_thread(self._record_created, container, begun.filter_key)
            except OSError as exc:
                await self.delete(container.id)
                raise _disk_error(exc, self._layout.containers) from exc

    def _join(self, request: CreateRequest) -> Joined:
        """What it shares with others."""

        def path(shared: str, kind: str) -> str | None:
            if shared == "host":
                return None
            if shared in ("", "none"):
                return ""
            return f"/proc/{self._get_running(shared).record.pid}/ns/{kind}"

        usual = "private" if self._tools.groups.version == 2 else "host"
        own_cgroup = (request.cgroup_namespace or usual) == "private"
        own_memory = request.share_ipc in ("", "host", "none")
        return Joined(
            namespaces=spec.Namespaces(
                pid=path(request.share_pid, "pid"),
                ipc=path(request.share_ipc, "ipc"),
                uts=path(request.share_uts, "uts"),
                network=request.network_namespace,
                cgroup="" if own_cgroup else None,
            ),
            memory_of=0 if own_memory else self._get_running(request.share_ipc).record.pid,
        )

    def _hold(self, request: CreateRequest, held: Held) -> HeldContainer:
        record = Record(
            container_id=request.container_id,
            cgroup_path=self._maker.cgroup_path(request),
            boot=self._tools.boot,
            tty=request.process.tty,
            log=request.log,
            log_max_bytes=request.log_max_bytes,
            log_max_files=request.log_max_files,
            stdin_once=request.stdin_once,
            own_pid_namespace=request.share_pid == "",
            conmon_pid=held.conmon_pid,
            conmon_started=held.conmon_started,
            pid=held.pid,
        )
        bundle = self._layout.bundle(request.container_id)
        container = HeldContainer(record=record, bundle=bundle, init=_pidfd(held.pid))
        self._containers[request.container_id] = container
        self._keep_log_small(container)
        self._nursery.start_soon(self._watch, container, held.conmon_pidfd)
        return container

    def _keep_log_small(self, container: HeldContainer) -> None:
        record = container.record
        if record.log and record.log_max_bytes > 0:
            self._rotation.add(
                container.id,
                rotation.Rotated(
                    path=self._layout.log(container.id),
                    ctl=container.bundle / "ctl",
                    conmon=record.conmon_pid,
                    max_bytes=record.log_max_bytes,
                    max_files=record.log_max_files,
                ),
            )

    def _record_created(self, container: HeldContainer, filter_key: str | None) -> None:
        self._maker.return_memory(container.id)
        container.record.write(self._layout.folder(container.id))
        if filter_key is not None:
            self._maker.keep_filter(container.id, filter_key)

    # --- life

    async def start(self, container_id: str) -> int:
        """See the contract."""
        container = self._get(container_id)
        await trio.lowlevel.checkpoint_if_cancelled()
        if not container.started and container.status is None:
            with trio.CancelScope(shield=True):
                async with container.state_in_use:
                    if not (self._tools.is_crun and self._open_gate(container)):
                        await self._call_runtime("start", container_id)
                    container.started = True
        return container.record.pid

    def _open_gate(self, container: HeldContainer) -> bool:
        """Do what ``crun start`` does: write into the pipe that init waits at. It never blocks."""
        fifo = self._layout.state(container.id) / "exec.fifo"
        for _ in range(3):
            try:
                fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as exc:
                if exc.errno == errno.ENXIO:  # init is not there yet
                    time.sleep(0.0005)
                    continue
                return False
            try:
                fifo.unlink()
                os.write(fd, b"0")
            finally:
                os.close(fd)
            return True
        return False

    async def _call_runtime(self, *words: str) -> None:
        """Run a verb of the runtime to its end."""
        ended = await run_program([*self._tools.runtime_words, *words])
        if ended.status:
            raise refusal.error_of(ended.errors.decode(errors="replace"), words[-1])

    async def wait(self, container_id: str) -> ExitStatus:
        """See the contract."""
        container = self._get(container_id)
        await container.ended.wait()
        assert container.status is not None
        return container.status

    async def signal(self, container_id: str, signal: int) -> None:
        """See the contract. SIGKILL also thaws, as frozen processes do not die."""
        container = self._get_running(container_id)
        await trio.lowlevel.checkpoint()
        try:
            signals.pidfd_send_signal(container.init, signal)
        except (ProcessLookupError, OSError) as exc:
            raise NotFound(
                f"container {container_id[:12]} does not run", code="not_running"
            ) from exc
        if signal == signals.SIGKILL and container.paused:
            await self._freeze(container, False)

    async def delete(self, container_id: str) -> None:
        """See the contract; files are removed after the return."""
        container = self._containers.pop(container_id, None)
        if container is None:
            await trio.lowlevel.checkpoint()
            return
        gone = self._discarding[container_id] = trio.Event()
        if container.status is None:
            await self._kill(container)
        self._nursery.start_soon(self._discard, container, gone)
        await container.ended.wait()

    async def _kill(self, container: HeldContainer) -> None:
        with contextlib.suppress(ProcessLookupError, OSError):
            signals.pidfd_send_signal(container.init, signals.SIGKILL)
        if container.paused or not container.record.own_pid_namespace:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(
                    cgroups.kill, self._tools.groups, container.record.cgroup_path
                )

    async def _discard(self, container: HeldContainer, gone: trio.Event) -> None:
        await container.scrubbed.wait()
        with trio.CancelScope(shield=True):
            await in_thread(self._leftovers.remove_files, container.id)
        if self._discarding.get(container.id) is gone:
            del self._discarding[container.id]
        gone.set()

    async def _watch(self, container: HeldContainer, conmon: int | None = None) -> None:
        """Wait for conmon's end, take up the exit status, clean up."""
        if conmon is None:
            conmon = open_running(container.record.conmon_pid, container.record.conmon_started)
        if conmon is not None:
            try:
                await trio.lowlevel.wait_readable(conmon)
            finally:
                reap(conmon)
        self._rotation.remove(container.id)
        with trio.CancelScope(shield=True):
            container.status = await in_thread(self._read_status, container)
            container.ended.set()
            if container.init >= 0:
                os.close(container.init)
                container.init = -1
            async with container.state_in_use:
                await in_thread(self._scrub, container)
            container.scrubbed.set()

    def _read_status(self, container: HeldContainer) -> ExitStatus:
        """What conmon wrote; if it wrote nothing, it was killed, and the container must not go on."""
        path = container.record.cgroup_path
        found = read_exit(self._layout.exit_file(container.id))
        oom = (container.bundle / "oom").exists() or cgroups.oom_kills(self._tools.groups, path) > 0
        if found is None:
            cgroups.kill(self._tools.groups, path)
            return ExitStatus(
                exit_code=137,
                oom_killed=oom,
                finished_at=_rfc3339(time.time_ns()),
                error="conmon, which held the container, ended without telling its exit status",
            )
        code, written_ns = found
        return ExitStatus(exit_code=code, oom_killed=oom, finished_at=_rfc3339(written_ns))

    def _scrub(self, container: HeldContainer) -> None:
        """Remove what the runtime would have removed by ``delete``, without running it."""
        record = attrs.evolve(container.record, exit=container.status)
        try:
            record.write(self._layout.folder(container.id))
        except FileNotFoundError:
            pass  # its folder was removed from outside; nothing is left to remember
        except OSError:
            # A full disk, say: the exit file still tells the code, as long as the machine is up.
            _log.exception("exit status not recorded", extra={"container": container.id})
        container.record = record
        shutil.rmtree(self._layout.state(container.id), ignore_errors=True)
        if not cgroups.remove_in_time(self._tools.groups, record.cgroup_path):
            _log.warning("cgroup stays behind", extra={"cgroup": record.cgroup_path})

    # --- streams

    @asynccontextmanager
    async def attach(self, container_id: str) -> AsyncIterator[ProcessStreams]:
        """See the contract."""
        container = self._get(container_id)
        if container.status is not None:
            raise NotFound(f"container {container_id[:12]} has ended", code="not_running")
        async with contextlib.AsyncExitStack() as stack:
            try:
                streams = await stack.enter_async_context(attach.attach(container.bundle))
            except OSError as exc:
                raise NotFound(
                    f"container {container_id[:12]} has ended", code="not_running"
                ) from exc
            yield streams

    async def resize(self, container_id: str, height: int, width: int) -> None:
        """See the contract."""
        container = self._get(container_id)
        await trio.lowlevel.checkpoint()
        if not container.record.tty or container.status is not None:
            return
        with contextlib.suppress(OSError):
            fd = os.open(container.bundle / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(fd, resize_command(height, width))
            finally:
                os.close(fd)

    async def check_exec(self, container_id: str, process: ProcessSpec) -> None:
        """See the contract."""
        container = self._get_running(container_id)
        await in_thread(identity_of, container, process)

    def expect_exec(self, container_id: str, process: ProcessSpec) -> None:
        """See the contract."""
        container = self._containers.get(container_id)
        if container is not None and container.running and not container.paused:
            self._execs.expect(container, process, self._nursery)

    @asynccontextmanager
    async def exec(self, container_id: str, process: ProcessSpec) -> AsyncIterator[ExecProcess]:
        """See the contract. A missing program is told by its exit code, 127."""
        async with self._execs.run(self._get_running(container_id), process) as session:
            yield session

    @asynccontextmanager
    async def logs(
        self, container_id: str, query: LogQuery
    ) -> AsyncIterator[AsyncIterator[LogRecord]]:
        """See the contract."""
        container = self._get(container_id)
        path = self._layout.log(container_id)
        if not container.record.log or not await trio.to_thread.run_sync(rotation.ages, path):
            raise NotFound(f"container {container_id[:12]} keeps no log", code="no_log")
        async with contextlib.aclosing(
            logs.read_log(
                path,
                query,
                ended=lambda: container.status is not None,
                wait_end=container.ended.wait,
            )
        ) as records:
            yield records

    # --- cgroups

    async def pids(self, container_id: str) -> list[int]:
        """See the contract."""
        container = self._get_running(container_id)
        return await trio.to_thread.run_sync(
            cgroups.processes, self._tools.groups, container.record.cgroup_path
        )

    async def pause(self, container_id: str) -> None:
        """See the contract."""
        await self._freeze(self._get_running(container_id), True)

    async def resume(self, container_id: str) -> None:
        """See the contract."""
        await self._freeze(self._get_running(container_id), False)

    async def _freeze(self, container: HeldContainer, frozen: bool) -> None:
        try:
            await trio.to_thread.run_sync(
                cgroups.set_frozen, self._tools.groups, container.record.cgroup_path, frozen
            )
        except OSError as exc:
            if container.status is not None or exc.errno == errno.ENOENT:
                return  # it ended meanwhile
            raise Internal(f"cannot freeze or thaw: {exc}", code="freezer_failed") from exc
        container.paused = frozen

    async def update(self, container_id: str, resources: Resources) -> None:
        """See the contract."""
        container = self._get_running(container_id)
        made = make_resources(resources, machine=self._tools.machine, update=True)
        file = container.bundle / "resources.json"
        await trio.to_thread.run_sync(file.write_bytes, orjson.dumps(made))
        await self._call_runtime("update", "--resources", str(file), container_id)
        if resources.pids_limit == -1:
            await trio.to_thread.run_sync(
                cgroups.lift_pids, self._tools.groups, container.record.cgroup_path
            )
        if resources.cpu_quota_us < 0:
            await trio.to_thread.run_sync(
                cgroups.lift_quota, self._tools.groups, container.record.cgroup_path
            )

    async def stats(self, container_id: str) -> RuntimeStats:
        """See the contract."""
        container = self._get_running(container_id)
        return await trio.to_thread.run_sync(
            cgroups.stats, self._tools.groups, container.record.cgroup_path
        )

    def stir(self) -> None:
        """Keep moves between cgroups fast for a while (``keep-warm``)."""
        if self._warm is not None:
            self._warm.stir()

    # --- after a restart

    async def recover(self) -> None:
        """Find containers of earlier daemons: take up running ones, tell how the others ended."""
        self._recovered = []
        records = await trio.to_thread.run_sync(self._leftovers.end_cut_off)
        for record in records:
            if record.container_id not in self._containers:
                await self._take_up(record)

    async def _take_up(self, record: Record) -> None:
        container = HeldContainer(record=record, bundle=self._layout.bundle(record.container_id))
        self._containers[record.container_id] = container
        conmon = None
        if record.boot == self._tools.boot and record.exit is None:
            conmon = open_running(record.conmon_pid, record.conmon_started)
        if conmon is None:
            await trio.to_thread.run_sync(self._take_up_ended, container)
        else:
            container.started = not (self._layout.state(container.id) / "exec.fifo").exists()
            container.init = _pidfd(record.pid)
            container.paused = cgroups.is_frozen(self._tools.groups, record.cgroup_path)
            self._keep_log_small(container)
            self._nursery.start_soon(self._watch, container, conmon)
            if not container.started:  # nobody will start it any more
                await self.delete(container.id)
                return
            await trio.to_thread.run_sync(self._execs.end_old, container)
        self._recovered.append(
            Recovered(
                container_id=container.id,
                pid=record.pid if container.running else 0,
                paused=container.paused and container.running,
                exit=container.status,
            )
        )

    def _take_up_ended(self, container: HeldContainer) -> None:
        """It ended while no daemon ran, or before."""
        container.started = True
        if container.record.exit is not None:
            container.status = container.record.exit
        elif container.record.boot != self._tools.boot:
            container.status = ExitStatus(
                exit_code=137, finished_at="", error="the machine was restarted"
            )
        else:
            container.status = self._read_status(container)
        container.ended.set()
        self._scrub(container)
        container.scrubbed.set()

    async def recovered(self) -> list[Recovered]:
        """See the contract."""
        await trio.lowlevel.checkpoint()
        return list(self._recovered)

    async def gc(self, known: Iterable[str]) -> Mapping[str, str]:
        """Delete containers that nobody knows, and folders without a container."""
        keep = set(known) | self._creating | set(self._discarding)
        removed = {}
        for container_id in [name for name in self._containers if name not in keep]:
            await self.delete(container_id)
            removed[container_id] = "nobody knows this container"
        keep |= set(self._containers) | set(self._discarding)
        orphans = await trio.to_thread.run_sync(self._leftovers.remove_orphans, keep)
        return {**removed, **dict.fromkeys(orphans, "files without a container")}


def _disk_error(exc: OSError, folder: Path) -> LinkspanError:
    """A write does not say which file it was; the folder tells which disk."""
    if is_full(exc):
        return OutOfSpace(f"no space for the container's files in {folder}: {exc}")
    return Internal(f"cannot write the container's files in {folder}: {exc}", code="bundle_failed")


def _pidfd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return -1


def _rfc3339(time_ns: int) -> str:
    return logs.time_text(time_ns).decode() + "Z"
