"""The state machine of containers: start, exit, restart, stop, removal.

States are Docker's: created → running ⇄ paused → exited, with restarting between two runs, and
removing at the end. Every change of state happens under the entry's lock, is written before it is
told, and begins from what the record says, so that a daemon killed anywhere can go on.
"""

import logging
import signal as signals
from collections.abc import Callable
from typing import Any

import attrs
import trio

from linkspan.core.engine.container_mounts import ContainerMounts, owner_of, remove_folder
from linkspan.core.engine.creation import wanted_ports
from linkspan.core.engine.drivers import Drivers
from linkspan.core.engine.entry import Entry, open_attachments, refuse_if_removing
from linkspan.core.engine.groups import first_error
from linkspan.core.engine.health import monitor
from linkspan.core.engine.joining import joined_sandbox
from linkspan.core.engine.linking import Links, link_environment, living_links
from linkspan.core.engine.networks import NetworkStore
from linkspan.core.engine.root_marks import mark_root
from linkspan.core.engine.run_request import create_request
from linkspan.core.engine.signal_names import signal_number
from linkspan.core.engine.supervisor import Supervisor
from linkspan.core.engine.volumes import VolumeStore
from linkspan.core.plugins.hooks import HookRunner
from linkspan.core.store.records import Records
from linkspan.sdk.clock import epoch_ns, rfc3339
from linkspan.sdk.drivers.network import Sandbox
from linkspan.sdk.drivers.runtime import BundleMount, Recovered
from linkspan.sdk.errors import (
    Conflict,
    LinkspanError,
    NotFound,
    NotModified,
    OutOfSpace,
    Timeout,
)
from linkspan.sdk.events import Event, container_event
from linkspan.sdk.model.container import (
    Container,
    ContainerState,
    ContainerStatus,
    ExitStatus,
    Health,
    HealthStatus,
    RestartPolicy,
)
from linkspan.sdk.model.image import Image
from linkspan.sdk.threads import in_thread

log = logging.getLogger("linkspan.containers")

KIND = "container"
FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 60.0
GOOD_RUN_S = 10.0
KILL_TIMEOUT_S = 10.0
DEFAULT_STOP_TIMEOUT_S = 10.0
# How the runtime's refusals show as exit codes (docker run: 126, 127; 128 for the rest).
_EXIT_OF_CODE = {"command_not_found": 127, "command_not_executable": 126}


class Lifecycle:
    """Moves containers from state to state."""

    def __init__(
        self,
        *,
        records: Records,
        drivers: Drivers,
        networks: NetworkStore,
        volumes: VolumeStore,
        hooks: HookRunner,
        supervisor: Supervisor,
        publish: Callable[[Event], None],
        mounts: ContainerMounts,
    ) -> None:
        self._records = records
        self._drivers = drivers
        self._networks = networks
        self._volumes = volumes
        self._hooks = hooks
        self._supervisor = supervisor
        self._publish = publish
        self.mounts = mounts
        self.entry_of: Callable[[str], Entry | None] = lambda _: None
        self.image_of: Callable[[str], Image | None] = lambda _: None
        self.forget: Callable[[Entry], None] = lambda _: None
        self.links = Links(lambda ref: self.entry_of(ref))

    # -- the record ---------------------------------------------------------------------------

    async def save(self, entry: Entry, container: Container) -> None:
        """Write a container's record, then show it."""
        await self._records.put(KIND, container.id, container)
        entry.container = container

    async def _set_state(self, entry: Entry, **changes: Any) -> None:
        state = attrs.evolve(entry.container.state, **changes)
        await self.save(entry, attrs.evolve(entry.container, state=state))

    def tell(self, action: str, container: Container, **facts: str) -> None:
        """Publish an event about a container, as Docker words it."""
        self._publish(container_event(action, container, **facts))

    async def tell_linkers(self, container: Container) -> None:
        """Let those that run and have links to a container see which address it has now, if any."""
        self.links.note(container)
        for other in self.links.linkers(container.id):
            if other.container.state.running:
                links = living_links(self.entry_of, other.container.spec)
                try:
                    await self._networks.relink(other.container, links)
                except LinkspanError:
                    log.exception("links not updated", extra={"container": other.container.id})

    def _tell_left(self, container: Container) -> None:
        self._networks.tell("disconnect", container)
        self._volumes.tell_unmounted(container)

    async def remove_old_folders(self) -> None:
        """Remove the folders at which roots were mounted that are no container's now."""
        found = await trio.to_thread.run_sync(self.mounts.folders)
        # A folder is made after its container, so what is nobody's now is an old one.
        for folder in found:
            if self.entry_of(owner_of(folder.name)) is None:
                await trio.to_thread.run_sync(remove_folder, folder)

    # -- start --------------------------------------------------------------------------------

    async def start(self, entry: Entry) -> None:
        """Start a container that does not run."""
        async with entry.lock:
            refuse_if_removing(entry)
            status = entry.status
            if status is ContainerStatus.PAUSED:
                raise Conflict("cannot start a paused container, try unpause instead")
            if status is ContainerStatus.DEAD:
                raise Conflict("container is marked for removal and cannot be started")
            if status is ContainerStatus.RUNNING:
                raise NotModified(f"container {entry.container.name} is running")
            if entry.pause_scope is not None:
                entry.pause_scope.cancel()
            entry.backoff_s = 0.0
            if entry.container.manually_stopped:
                entry.container = attrs.evolve(entry.container, manually_stopped=False)
            await self._run(entry)

    async def _run(self, entry: Entry) -> None:
        """Make its world and set its process going; on failure all of it is taken back."""
        container = entry.container
        inside = container
        try:
            await self._hooks.intercept("linkspan_before_container_start", container)
            sandbox, mounts = await self._prepare(container)
            inside = attrs.evolve(container, endpoints=sandbox.endpoints)
            self._volumes.tell_mounted(inside)
            self._networks.tell("connect", inside)
            rootfs = self.mounts.rootfs(container.id)
            request = create_request(
                container, sandbox, mounts, rootfs, entry_of=self.entry_of, hooks=self._hooks
            )
            await self._drivers.runtime.create(request)
            await open_attachments(entry)
            pid = await self._drivers.runtime.start(container.id)
        except BaseException as error:
            with trio.CancelScope(shield=True):
                await self._take_back(entry, error, inside)
            raise
        entry.started_at = trio.current_time()
        state = ContainerState(
            status=ContainerStatus.RUNNING,
            pid=pid,
            started_at=rfc3339(),
            finished_at=container.state.finished_at,
            restart_count=container.state.restart_count,
            health=Health() if container.healthcheck else None,
        )
        running = attrs.evolve(
            entry.container,
            state=state,
            endpoints=sandbox.endpoints,
            ports=sandbox.ports,
            sandbox_key=sandbox.namespace or "",
            files=dict(sandbox.files),
        )
        entry.container = running
        self.watch(entry)
        await self.save(entry, running)
        await self.tell_linkers(running)
        self.tell("start", running)
        self.notify("linkspan_container_started", container=running)

    async def _prepare(self, container: Container) -> tuple[Sandbox, tuple[BundleMount, ...]]:
        """Root, volumes and network, side by side."""
        found: dict[str, object] = {}

        async def network() -> None:
            found["sandbox"] = await self._sandbox(container)

        async def disk() -> None:
            root = self.mounts.rootfs(container.id)
            volatile = container.spec.auto_remove
            marking = None if container.state.started_at else mark_root
            await self._drivers.snapshots.mount(container.id, root, volatile=volatile, then=marking)
            found["mounts"] = await self.mounts.mount(container)

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(disk)
                await network()
        except BaseExceptionGroup as group:
            raise first_error(group) from None
        sandbox, mounts = found["sandbox"], found["mounts"]
        assert isinstance(sandbox, Sandbox)
        assert isinstance(mounts, tuple)
        return sandbox, mounts

    async def _sandbox(self, container: Container) -> Sandbox:
        mode = container.spec.network_mode
        if mode.startswith("container:"):
            return joined_sandbox(self.entry_of, container.id, mode)
        try:
            return await self._networks.attach(container, wanted_ports(container))
        except LinkspanError as error:
            raise error.within("failed to set up container networking") from error

    async def _take_back(self, entry: Entry, error: BaseException, inside: Container) -> None:
        container = entry.container
        for attachment in list(entry.attachments):
            attachment.done()
        await self._networks_detach(container)
        await self._drivers.snapshots.unmount(container.id)
        await self.mounts.unmount(container)
        if inside is not container:
            self._tell_left(inside)
        code = _EXIT_OF_CODE.get(getattr(error, "code", ""), 128)
        text = str(error) if isinstance(error, LinkspanError) else "the start was interrupted"
        await self._set_state(
            entry,
            status=ContainerStatus.EXITED
            if container.state.started_at
            else ContainerStatus.CREATED,
            pid=0,
            exit_code=code,
            error=text,
        )
        # The error is told to who started it, and kept in the state; waiting itself did not fail.
        status = ExitStatus(exit_code=code)
        if container.spec.auto_remove and not entry.removing:
            # `docker run --rm` waits for the removal also when the start has failed.
            entry.removing = True
            entry.last_exit = status
            await self.finish_removal(entry, volumes=True)
        entry.tell_exit(status)

    async def _networks_detach(self, container: Container) -> None:
        try:
            await self._networks.detach(container)
        except LinkspanError:
            log.exception("network not released", extra={"container": container.id})

    # -- exit ---------------------------------------------------------------------------------

    def watch(self, entry: Entry) -> None:
        """From now on, notice when it ends, and check its health."""
        scope = trio.CancelScope()
        self._supervisor.spawn(self._watch, entry, scope, name=f"watch {entry.container.short_id}")
        if entry.container.healthcheck is not None:
            self._supervisor.spawn(
                self._monitor, entry, scope, name=f"health {entry.container.short_id}"
            )

    async def _watch(self, entry: Entry, scope: trio.CancelScope) -> None:
        try:
            status = await self._drivers.runtime.wait(entry.container.id)
        except LinkspanError as error:
            status = ExitStatus(exit_code=255, error=f"lost: {error}")
        scope.cancel()
        async with entry.lock:
            if not entry.removed.is_set():
                await self._exited(entry, status)

    async def _exited(self, entry: Entry, status: ExitStatus) -> None:
        container = entry.container
        again = not entry.removing and should_restart(
            container.spec.restart,
            status.exit_code,
            manually_stopped=container.manually_stopped,
            restarts=container.state.restart_count,
        )
        await self._networks_detach(container)
        state = attrs.evolve(
            container.state,
            status=ContainerStatus.RESTARTING if again else ContainerStatus.EXITED,
            pid=0,
            exit_code=status.exit_code,
            oom_killed=status.oom_killed,
            error=status.error,
            finished_at=status.finished_at or rfc3339(),
            # Nobody is well who does not run (as in Docker).
            health=attrs.evolve(container.state.health, status=HealthStatus.UNHEALTHY)
            if container.state.health is not None
            else None,
        )
        ended = attrs.evolve(
            container, state=state, endpoints=(), ports=(), sandbox_key="", sandbox_driver=""
        )
        auto_remove = container.spec.auto_remove and not again and not entry.removing
        if auto_remove or entry.removing:
            # Nobody needs the record of a container that goes at once. If it does not, after all, the
            # next daemon finds out that it has ended.
            entry.container = ended
        else:
            await self.save(entry, ended)
        await self.tell_linkers(ended)
        if status.oom_killed:
            self.tell("oom", ended)
        self._tell_left(container)
        ran_ns = epoch_ns(state.finished_at) - epoch_ns(state.started_at)
        self.tell(
            "die", ended, exitCode=str(status.exit_code), execDuration=str(max(0, ran_ns) // 10**9)
        )
        self.notify("linkspan_container_exited", container=ended)
        if again:
            self._schedule_restart(entry)
        elif auto_remove:
            entry.removing = True
            entry.last_exit = status
            await self.finish_removal(entry, volumes=True)
        elif not entry.removing:
            self._supervisor.spawn(self._release, ended, name=f"release {ended.short_id}")
        entry.tell_exit(status)

    async def _release(self, container: Container) -> None:
        """Unmount what a stopped container does not need."""
        entry = self.entry_of(container.id)
        if entry is None:
            return
        async with entry.lock:
            await self.release(entry)

    async def release(self, entry: Entry) -> None:
        """Unmount the root and the volumes of a container that neither runs nor is looked into.

        The caller holds the entry's lock.
        """
        container = entry.container
        if entry.readers or container.state.status not in (
            ContainerStatus.CREATED,
            ContainerStatus.EXITED,
        ):
            return
        await self._drivers.snapshots.unmount(container.id)
        await self.mounts.unmount(container)

    # -- restart ------------------------------------------------------------------------------

    def _schedule_restart(self, entry: Entry) -> None:
        ran_s = trio.current_time() - entry.started_at
        if ran_s > GOOD_RUN_S or not entry.backoff_s:
            entry.backoff_s = FIRST_BACKOFF_S
        else:
            entry.backoff_s = min(entry.backoff_s * 2, LONGEST_BACKOFF_S)
        entry.pause_scope = trio.CancelScope()
        self._supervisor.spawn(
            self._restart_later,
            entry,
            entry.pause_scope,
            name=f"restart {entry.container.short_id}",
        )

    async def _restart_later(self, entry: Entry, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(entry.backoff_s)
        if scope.cancelled_caught:
            return
        async with entry.lock:
            if entry.status is not ContainerStatus.RESTARTING or entry.removing:
                return
            entry.pause_scope = None
            count = entry.container.state.restart_count + 1
            state = attrs.evolve(entry.container.state, restart_count=count)
            entry.container = attrs.evolve(entry.container, state=state)
            try:
                await self._run(entry)
            except LinkspanError as error:
                log.warning(
                    "restart failed",
                    extra={"container": entry.container.id, "error": str(error)},
                )
                failed = entry.container.state.exit_code
                if should_restart(
                    entry.container.spec.restart, failed, manually_stopped=False, restarts=count
                ):
                    await self._set_state(
                        entry, status=ContainerStatus.RESTARTING, restart_count=count
                    )
                    self._schedule_restart(entry)

    # -- stop ---------------------------------------------------------------------------------

    async def stop(self, entry: Entry, timeout_s: float | None, signal: str) -> None:
        """Stop signal, wait, SIGKILL."""
        number = signal_number(signal or entry.container.stop_signal)
        exited = await self._begin_stop(entry)
        if exited is None:
            return
        container = entry.container
        if timeout_s is None:
            own = container.spec.stop_timeout_s
            timeout_s = DEFAULT_STOP_TIMEOUT_S if own is None else float(own)
        if await self._signal(entry, number) and entry.status is ContainerStatus.PAUSED:
            await self._drivers.runtime.resume(container.id)
        self.tell("kill", container, signal=str(int(number)))
        with trio.move_on_after(timeout_s if timeout_s >= 0 else float("inf")):
            await exited.wait()
        if not exited.is_set():
            await self._kill_and_wait(entry, exited)
        self.tell("stop", entry.container)

    async def _begin_stop(self, entry: Entry) -> trio.Event | None:
        """Write that it was stopped by hand; the end to wait for, None if it was between two runs."""
        async with entry.lock:
            # Only now: a run may have ended or begun since the request came.
            stopped = attrs.evolve(entry.container, manually_stopped=True)
            if entry.status is ContainerStatus.RESTARTING:
                if entry.pause_scope is not None:
                    entry.pause_scope.cancel()
                    entry.pause_scope = None
                state = attrs.evolve(stopped.state, status=ContainerStatus.EXITED)
                await self.save(entry, attrs.evolve(stopped, state=state))
                self._supervisor.spawn(
                    self._release, entry.container, name=f"release {stopped.short_id}"
                )
                return None
            if not entry.container.state.running:
                raise NotModified(f"container {stopped.name} does not run")
            await self.save(entry, stopped)
            return entry.exited

    async def _kill_and_wait(self, entry: Entry, exited: trio.Event) -> None:
        self.tell("kill", entry.container, signal=str(int(signals.SIGKILL)))
        await self._signal(entry, signals.SIGKILL)
        if entry.status is ContainerStatus.PAUSED:
            await self._drivers.runtime.resume(entry.container.id)
        with trio.move_on_after(KILL_TIMEOUT_S):
            await exited.wait()
        if not exited.is_set():
            raise Timeout(
                f"container {entry.container.name} did not end {KILL_TIMEOUT_S:.0f} s after SIGKILL",
                help="a process in it waits for the kernel (disk, network file system)",
            )

    async def _signal(self, entry: Entry, number: int) -> bool:
        try:
            await self._drivers.runtime.signal(entry.container.id, number)
        except NotFound:
            # It ended by itself meanwhile; the watcher says so in a moment.
            return False
        return True

    async def kill(self, entry: Entry, signal: str) -> None:
        """Send a signal; SIGKILL waits for the end."""
        container = entry.container
        number = signal_number(signal)
        if not container.state.running:
            raise Conflict(f"container {container.id} is not running", code="not_running")
        if number in (signals.SIGKILL, signal_number(container.stop_signal)):
            async with entry.lock:
                if entry.container.state.running:
                    await self.save(entry, attrs.evolve(entry.container, manually_stopped=True))
        exited = entry.exited
        if number == signals.SIGKILL:
            await self._kill_and_wait(entry, exited)
            return
        self.tell("kill", container, signal=str(int(number)))
        if await self._signal(entry, number) and number == signal_number(container.stop_signal):
            await self._let_go(entry)

    async def _let_go(self, entry: Entry) -> None:
        """A paused container that is told to stop goes on, so that it can."""
        async with entry.lock:
            if entry.status is not ContainerStatus.PAUSED:
                return
            try:
                await self._drivers.runtime.resume(entry.container.id)
            except NotFound:
                return  # it has ended; the watcher says so in a moment
            await self._set_state(entry, status=ContainerStatus.RUNNING)
            self.tell("unpause", entry.container)

    async def pause(self, entry: Entry, *, freeze: bool) -> None:
        """Freeze or thaw."""
        async with entry.lock:
            container, status = entry.container, entry.status
            if freeze:
                if status is ContainerStatus.PAUSED:
                    raise Conflict(f"Container {container.id} is already paused")
                if status is not ContainerStatus.RUNNING:
                    raise Conflict(f"container {container.id} is not running", code="not_running")
                await self._drivers.runtime.pause(container.id)
                await self._set_state(entry, status=ContainerStatus.PAUSED)
            else:
                if status is not ContainerStatus.PAUSED:
                    raise Conflict(f"Container {container.id} is not paused")
                await self._drivers.runtime.resume(container.id)
                await self._set_state(entry, status=ContainerStatus.RUNNING)
            self.tell("pause" if freeze else "unpause", container)

    # -- removal ------------------------------------------------------------------------------

    async def remove(self, entry: Entry, *, force: bool, volumes: bool) -> None:
        """Remove a container; a running one only by force."""
        self._refuse_if_busy(entry, force=force)
        refuse_if_removing(entry)
        entry.removing = True
        try:
            if entry.pause_scope is not None:
                entry.pause_scope.cancel()
            await self._end_and_forget(entry, force=force, volumes=volumes)
        except BaseException as error:
            entry.removing = entry.removed.is_set()
            refused = isinstance(error, Conflict) or entry.container.state.running
            if isinstance(error, LinkspanError) and not refused:
                self._mark_dead(entry, error)
            raise

    def _mark_dead(self, entry: Entry, error: LinkspanError) -> None:
        """It could not be removed: it is seen as dead, cannot be started, and may be removed again.

        The record stays as it was: what kept it from going (a full disk) would keep it from changing.
        """
        state = attrs.evolve(entry.container.state, status=ContainerStatus.DEAD, error=str(error))
        entry.container = attrs.evolve(entry.container, state=state)

    def _refuse_if_busy(self, entry: Entry, *, force: bool) -> None:
        container, status = entry.container, entry.status
        if force or not (container.state.running or status is ContainerStatus.RESTARTING):
            return
        advice = "unpause and then " if status is ContainerStatus.PAUSED else ""
        raise Conflict(
            f'cannot remove container "{container.name}": container is {status.value}: '
            f"{advice}stop the container before removing or force remove",
            code="container_running",
        )

    async def _end_and_forget(self, entry: Entry, *, force: bool, volumes: bool) -> None:
        while True:
            if entry.container.state.running:
                await self._kill_and_wait(entry, entry.exited)
            async with entry.lock:
                # A start that was under way when the removal began has finished by now.
                self._refuse_if_busy(entry, force=force)
                if not entry.container.state.running:
                    await self.finish_removal(entry, volumes=volumes)
                    return

    async def finish_removal(self, entry: Entry, *, volumes: bool) -> None:
        """The record goes first; files follow in the background, or at the next start."""
        container = entry.container
        try:
            await self._records.delete(KIND, container.id)
        except OutOfSpace:
            # Its files take the space that it needs to be forgotten.
            await self._scrub(container, volumes)
            await self._records.delete(KIND, container.id)
        # Who hears that it is gone may remove its volumes.
        await self.mounts.unmount(container)
        self.forget(entry)
        entry.tell_removed()
        self.tell("destroy", container)
        self.notify("linkspan_container_removed", container=container)
        self._supervisor.spawn(self._scrub, container, volumes, name=f"scrub {container.short_id}")

    async def _scrub(self, container: Container, volumes: bool) -> None:
        await self._drivers.runtime.delete(container.id)
        await self._drivers.snapshots.remove(container.id)
        await in_thread(remove_folder, self.mounts.rootfs(container.id))
        await self.mounts.remove(container)
        await self.mounts.unmount(container)
        if not volumes:
            return
        for point in container.mounts:
            if point.anonymous and not self._volumes.users(point.name):
                await self._volumes.remove(point.name, force=True)

    # -- health, hooks, recovery --------------------------------------------------------------

    async def _monitor(self, entry: Entry, scope: trio.CancelScope) -> None:
        async def changed(health: Health) -> None:
            before = entry.container.state.health or Health()
            state = attrs.evolve(entry.container.state, health=health)
            if health.status is before.status:
                # Single probes are not worth a write: after a crash they begin anew.
                entry.container = attrs.evolve(entry.container, state=state)
                return
            await self.save(entry, attrs.evolve(entry.container, state=state))
            self.tell(f"health_status: {health.status.value}", entry.container)
            self.notify(
                "linkspan_container_health_changed",
                container=entry.container,
                old=before.status.value,
                new=health.status.value,
            )

        def environment(container: Container) -> tuple[str, ...]:
            return (*link_environment(self.entry_of, container), *container.env)

        with scope:
            await monitor(
                self._drivers.runtime, lambda: entry.container, changed, self.tell, environment
            )

    def notify(self, hook: str, **kwargs: object) -> None:
        """Tell listeners in the background."""
        if self._hooks.has(hook):
            self._supervisor.spawn(lambda: self._hooks.notify(hook, **kwargs), name=f"hook {hook}")

    async def recover(self, entry: Entry, found: Recovered | None) -> str:
        """After a start of the daemon: go on from what is there; say what was repaired."""
        container = entry.container
        if container.state.running:
            if found is not None and found.exit is None:
                if container.healthcheck and container.state.health is None:
                    await self._set_state(entry, health=Health())
                self.watch(entry)
                return ""
            status = (
                found.exit
                if found is not None and found.exit is not None
                else ExitStatus(exit_code=255, error="it was lost while the daemon was down")
            )
            async with entry.lock:
                await self._exited(entry, status)
            return f"container {container.name} ended while the daemon was down"
        if container.state.status is ContainerStatus.RESTARTING:
            self._schedule_restart(entry)
        elif container.spec.auto_remove and container.state.status is ContainerStatus.EXITED:
            entry.removing = True
            await self.finish_removal(entry, volumes=True)
        elif found is not None and found.exit is None:
            # It was started, but the daemon died before it could write so: nobody was told.
            await self._drivers.runtime.delete(container.id)
            await self._networks_detach(container)
            return f"a half-started container {container.name} was stopped"
        return ""

    async def restart_after_boot(self, entry: Entry) -> None:
        """Start what its policy wants to run, if it does not."""
        policy = entry.container.spec.restart.name
        wants = policy == "always" or (
            policy == "unless-stopped" and not entry.container.manually_stopped
        )
        if wants and entry.status is ContainerStatus.EXITED:
            try:
                await self.start(entry)
            except LinkspanError as error:
                log.warning(
                    "not started",
                    extra={"container": entry.container.id, "error": str(error)},
                )


def should_restart(
    policy: RestartPolicy, exit_code: int, *, manually_stopped: bool, restarts: int
) -> bool:
    """Whether a container that ended is started again (Docker's restart manager)."""
    if manually_stopped or policy.name == "no":
        return False
    if policy.name == "on-failure":
        most = policy.maximum_retry_count
        return exit_code != 0 and (most == 0 or restarts < most)
    return True
