"""The agent: moves the tasks of this node through their states, one coroutine a task.

``desired`` says how far a task should get; the agent never goes back and never guesses: what it finds
(a container by the task's label, running, ended or missing) decides the next state, so that it can
begin again after a crash at any point.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

import attrs
import trio

from linkspan.plugins.swarm.records import TaskRecord
from linkspan.plugins.swarm.store import Change, ClusterStore
from linkspan.plugins.swarm.templates import container_spec, task_name
from linkspan.sdk.errors import Conflict, LinkspanError, NotFound, NotModified
from linkspan.sdk.host import Host
from linkspan.sdk.model.container import Container, ContainerStatus, HealthStatus
from linkspan.sdk.model.network import EndpointSpec, PortBinding
from linkspan.sdk.model.service import Task, TaskState

log = logging.getLogger("linkspan.swarm.agent")


class Agent:
    """Runs the tasks that are assigned to this node."""

    def __init__(
        self,
        host: Host,
        store: ClusterStore,
        *,
        drain_s: float,
        unbalanced: Callable[[str], trio.Event | None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._host = host
        self._store = store
        self._drain_s = drain_s
        self._unbalanced = unbalanced
        self._now = now
        self._at_work: dict[str, trio.CancelScope] = {}
        self._pulling: dict[str, trio.Lock] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take tasks in hand until cancelled."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                changed = self._store.changed
                mine = self._store.cluster.node_id if self._store.cluster else ""
                for record in list(self._store.tasks.values()):
                    if (
                        record.task.node_id == mine
                        and record.id not in self._at_work
                        and not record.ended
                    ):
                        self._at_work[record.id] = trio.CancelScope()
                        nursery.start_soon(self._carry, record.id)
                await changed.wait()

    def drop_all(self) -> None:
        """Let go of every task; used when the node leaves."""
        for scope in self._at_work.values():
            scope.cancel()

    async def _carry(self, task_id: str) -> None:
        """Carry one task to its end."""
        with self._at_work[task_id]:
            try:
                await self._steps(task_id)
            except Exception as error:
                log.exception("task failed inside the agent", extra={"task": task_id})
                await self._end(task_id, TaskState.FAILED, f"internal error: {error}")
        del self._at_work[task_id]

    def _record(self, task_id: str) -> TaskRecord | None:
        return self._store.tasks.get(task_id)

    async def _set(self, task_id: str, state: TaskState, message: str, **facts: Any) -> None:
        """Go forward to a state. What lies before RUNNING is seen again after a crash."""

        def decide() -> Change | None:
            record = self._record(task_id)
            if record is None or record.task.state > state:
                return None
            version = record.task.version + 1
            task = attrs.evolve(record.task, state=state, message=message, version=version, **facts)
            running_at = self._now() if state is TaskState.RUNNING else record.running_at
            self._tell(record, task)
            return Change([attrs.evolve(record, task=task, running_at=running_at)])

        await self._store.change(decide, durable=state >= TaskState.RUNNING)

    async def _end(self, task_id: str, state: TaskState, error: str, **facts: Any) -> None:
        def decide() -> Change | None:
            record = self._record(task_id)
            if record is None or record.ended:
                return None
            task = attrs.evolve(
                record.task,
                state=state,
                message=state.name.lower(),
                error=error,
                pid=0,
                version=record.task.version + 1,
                **facts,
            )
            self._tell(record, task)
            return Change([attrs.evolve(record, task=task, ended_at=self._now())])

        await self._store.change(decide)

    def _tell(self, record: TaskRecord, task: Task) -> None:
        old, new = record.task.state.name.lower(), task.state.name.lower()
        self._host.hooks.tell("linkspan_task_state_changed", task=task, old=old, new=new)

    async def _steps(self, task_id: str) -> None:
        """From wherever it is to its end."""
        try:
            container = await self._prepared(task_id)
            if container is None:
                await self._shut_down(task_id)
                return
            await self._started(task_id, container)
        except LinkspanError as error:
            record = self._record(task_id)
            early = record is None or record.task.state < TaskState.STARTING
            await self._end(
                task_id, TaskState.REJECTED if early else TaskState.FAILED, _words(error)
            )
            await self._remove_container(task_id)
            return
        await self._watch(task_id, container.id)

    async def _prepared(self, task_id: str) -> Container | None:
        """Image here, container made, and the task wanted to run; None if it should end instead."""
        record = self._record(task_id)
        if record is None or record.task.desired > TaskState.RUNNING:
            return None
        container = self._find_container(task_id)
        if container is None:
            await self._set(task_id, TaskState.ACCEPTED, "accepted")
            await self._set(task_id, TaskState.PREPARING, "preparing")
            container = await self._or_wanted_down(task_id, record)
            if container is None:
                return None
        await self._set(task_id, TaskState.READY, "prepared", container_id=container.id)
        while True:
            changed = self._store.changed
            record = self._record(task_id)
            if record is None or record.task.desired > TaskState.RUNNING:
                return None
            wait_s = record.not_before - self._now()
            if record.task.desired is TaskState.RUNNING and wait_s <= 0:
                return container
            with trio.move_on_after(wait_s if wait_s > 0 else float("inf")):
                await changed.wait()

    async def _or_wanted_down(self, task_id: str, record: TaskRecord) -> Container | None:
        """Make the container, unless the task is given up meanwhile (a pull may take long)."""
        made: list[Container] = []

        async def make(scope: trio.CancelScope) -> None:
            made.append(await self._make(record))
            scope.cancel()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(make, nursery.cancel_scope)
                await self._wanted_down(task_id)
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            found = next((e for e in group.exceptions if isinstance(e, LinkspanError)), None)
            raise (found or group) from None
        return made[0] if made else None

    async def _make(self, record: TaskRecord) -> Container:
        task = record.task
        spec = container_spec(task, self._store.find_node(task.node_id))
        await self._image(spec.image)
        if task.spec.networks:
            first, *others = task.spec.networks
            networks = {n: spec.networks.get(n, EndpointSpec()) for n in others}
            if first in spec.networks:
                networks = {first: spec.networks[first], **networks}
            spec = attrs.evolve(spec, network_mode=first, networks=networks)
        host_ports = tuple(
            PortBinding(
                container_port=p.target_port, host_port=p.published_port, protocol=p.protocol
            )
            for p in task.spec.ports
            if p.mode == "host"
        )
        spec = attrs.evolve(spec, ports=(*spec.ports, *host_ports))
        try:
            return await self._host.engine.containers.create(spec, name=task_name(task))
        except Conflict:
            # The daemon died between the container's record and ours: it is the same one.
            found = self._find_container(task.id)
            if found is None:
                raise
            return found

    async def _image(self, image: str) -> None:
        lock = self._pulling.setdefault(image, trio.Lock())
        async with lock:
            try:
                self._host.engine.images.inspect(image)
            except NotFound:
                await self._host.engine.images.pull(image)
        if not lock.statistics().tasks_waiting:
            self._pulling.pop(image, None)

    def _find_container(self, task_id: str) -> Container | None:
        record = self._record(task_id)
        if record is None:
            return None
        containers = self._host.engine.containers
        for ref in (record.task.container_id, task_name(record.task)):
            if ref:
                try:
                    return containers.inspect(ref)
                except NotFound:
                    continue
        return None

    async def _started(self, task_id: str, container: Container) -> None:
        """Start it; the task is RUNNING once the container is (and is healthy, if it can say so)."""
        record = self._record(task_id)
        if record is not None and record.task.state >= TaskState.RUNNING:
            return
        await self._set(task_id, TaskState.STARTING, "starting", container_id=container.id)
        if container.state.status is ContainerStatus.CREATED:
            try:
                await self._host.engine.containers.start(container.id)
            except NotModified:
                log.debug("container runs already", extra={"task": task_id})

    async def _watch(self, task_id: str, container_id: str) -> None:
        """Until it ends, is unhealthy, or is not wanted any more."""
        waiter = self._host.engine.containers.waiter(container_id, "not-running")
        outcome: list[tuple[TaskState, str, int | None]] = []

        async def exited(scope: trio.CancelScope) -> None:
            status = await waiter.result()
            outcome.append(_of_exit(status.exit_code, status.error, oom=status.oom_killed))
            scope.cancel()

        async def unhealthy(scope: trio.CancelScope) -> None:
            why = await self._until_unhealthy(task_id, container_id)
            outcome.append((TaskState.FAILED, why, None))
            scope.cancel()

        async def unwanted(scope: trio.CancelScope) -> None:
            await self._wanted_down(task_id)
            scope.cancel()

        async with trio.open_nursery() as nursery:
            for wait in (exited, unhealthy, unwanted):
                nursery.start_soon(wait, nursery.cancel_scope)
        if not outcome:
            await self._shut_down(task_id)
            return
        state, error, code = outcome[0]
        await self._end(task_id, state, error, exit_code=code)
        if code is None:
            await self._stop(container_id)

    async def _until_unhealthy(self, task_id: str, container_id: str) -> str:
        """Say RUNNING when it is well; return when it is not any more, with the last probe's words."""
        containers = self._host.engine.containers
        async with self._host.engine.events.subscribe() as events:
            while True:
                container = containers.inspect(container_id)
                if container.state.running:
                    health = container.state.health
                    if health is not None and health.status is HealthStatus.UNHEALTHY:
                        said = health.log[-1].output.strip() if health.log else ""
                        return "task: unhealthy container" + (f": {said[:300]}" if said else "")
                    if health is None or health.status is HealthStatus.HEALTHY:
                        await self._running(task_id, container)
                async for event in events:
                    if event.actor_id == container_id:
                        break

    async def _running(self, task_id: str, container: Container) -> None:
        record = self._record(task_id)
        if record is not None and record.task.state < TaskState.RUNNING:
            addresses = tuple(e.ipv4_address for e in container.endpoints if e.ipv4_address)
            await self._set(
                task_id,
                TaskState.RUNNING,
                "started",
                pid=container.state.pid,
                addresses=addresses,
                container_id=container.id,
            )

    async def _wanted_down(self, task_id: str) -> None:
        while True:
            changed = self._store.changed
            record = self._record(task_id)
            if record is None or record.task.desired > TaskState.RUNNING:
                return
            await changed.wait()

    async def _shut_down(self, task_id: str) -> None:
        """First no new connections, then a moment for those in flight, then stop."""
        container = self._find_container(task_id)
        if container is not None and container.state.running:
            gate = self._unbalanced(task_id)
            if gate is not None:
                await gate.wait()
                await trio.sleep(self._drain_s)
            await self._stop(container.id)
        await self._end(task_id, TaskState.SHUTDOWN, "")

    async def _stop(self, container_id: str) -> None:
        try:
            await self._host.engine.containers.stop(container_id)
        except (NotModified, NotFound):
            return

    async def _remove_container(self, task_id: str) -> None:
        container = self._find_container(task_id)
        if container is not None:
            await self.remove(container.id)

    async def remove(self, container_id: str) -> None:
        """Remove an ended task's container; silent if it is gone."""
        try:
            await self._host.engine.containers.remove(container_id, force=True, volumes=True)
        except (NotFound, Conflict):
            return


def _of_exit(code: int, error: str, *, oom: bool) -> tuple[TaskState, str, int | None]:
    if code == 0 and not error:
        return TaskState.COMPLETE, "", 0
    why = "out of memory" if oom else error
    return TaskState.FAILED, f"task: non-zero exit ({code})" + (f": {why}" if why else ""), code


def _words(error: LinkspanError) -> str:
    return str(error).replace("\n", " ")[:500]
