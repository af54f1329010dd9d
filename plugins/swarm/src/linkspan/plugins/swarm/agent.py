"""The agent: moves the tasks of this node through their states, one coroutine a task.

``desired`` says how far a task should get; the agent never goes back and never guesses: what it finds
(a container by the task's label, running, ended or missing) decides the next state, so that it can
begin again after a crash at any point. It alone makes and removes containers of tasks.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio

from linkspan.plugins.swarm.first import first_of
from linkspan.plugins.swarm.networks import ServiceNetworks
from linkspan.plugins.swarm.payloads import Payloads
from linkspan.plugins.swarm.records import TaskRecord, stamp
from linkspan.plugins.swarm.store import Change, ClusterStore
from linkspan.plugins.swarm.templates import TASK_LABEL, container_spec, task_name
from linkspan.sdk.errors import Conflict, LinkspanError, NotFound, NotModified
from linkspan.sdk.host import Host
from linkspan.sdk.model.container import (
    Container,
    ContainerFilter,
    ContainerStatus,
    HealthStatus,
)
from linkspan.sdk.model.service import Task, TaskState

log = logging.getLogger("linkspan.swarm.agent")

RETRY_S = 1.0
# Stopping is not put off for longer by a network driver that does not do as it is told.
LONGEST_UNBALANCING_S = 5.0

Outcome = tuple[TaskState, str, int | None]


class Agent:
    """Runs the tasks that are assigned to this node."""

    def __init__(
        self,
        host: Host,
        store: ClusterStore,
        payloads: Payloads,
        networks: ServiceNetworks,
        *,
        drain_s: float,
        left: Callable[[str], Awaitable[float | None]],
        now: Callable[[], float],
    ) -> None:
        self._host = host
        self._store = store
        self._payloads = payloads
        self._networks = networks
        self._drain_s = drain_s
        self._left = left
        self._now = now
        self._at_work: set[str] = set()
        self._pulling: dict[str, trio.Lock] = {}
        self._stirred: dict[str, trio.Event] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take tasks in hand until cancelled."""
        self._at_work.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen)
            nursery.start_soon(self._clear_leftovers)
            task_status.started()
            touched = {*self._store.take_touched_tasks(), *self._store.tasks}
            while True:
                changed = self._store.changed
                for task_id in touched - self._at_work:
                    record = self._record(task_id)
                    if record is not None and self._has_work(record):
                        self._at_work.add(task_id)
                        nursery.start_soon(self._carry, task_id)
                await changed.wait()
                touched = self._store.take_touched_tasks()

    async def _listen(self) -> None:
        """Wake those who watch a container when something happened to it."""
        while True:
            while self._store.cluster is None:
                await self._store.changed.wait()
            async with self._host.engine.events.subscribe() as events:
                async for event in events:
                    if event.type == "container":
                        self._stir([event.actor_id])
                    elif event.type == "daemon":
                        # Some were lost: look everywhere.
                        self._stir(list(self._stirred))
            await trio.sleep(RETRY_S)
            self._stir(list(self._stirred))

    def _stir(self, container_ids: list[str]) -> None:
        for container_id in container_ids:
            event = self._stirred.pop(container_id, None)
            if event is not None:
                event.set()

    async def _clear_leftovers(self) -> None:
        """What a crash left: containers of forgotten tasks, and of ended ones that run."""
        if self._store.cluster is None:
            return
        query = ContainerFilter(all=True, labels=(TASK_LABEL,))
        async with trio.open_nursery() as nursery:
            for container in list(self._host.engine.containers.list(query)):
                record = self._store.tasks.get(container.labels[TASK_LABEL])
                if record is None:
                    nursery.start_soon(self._remove_leftover, container.id)
                elif record.ended and container.state.running:
                    nursery.start_soon(self._stop, container.id)
        alive = [task_id for task_id, record in self._store.tasks.items() if not record.ended]
        await self._payloads.forget_others(alive)

    async def _remove_leftover(self, container_id: str) -> None:
        try:
            await self._remove(container_id)
        except LinkspanError as error:
            log.warning("leftover stays", extra={"container": container_id, "reason": str(error)})

    def _has_work(self, record: TaskRecord) -> bool:
        cluster = self._store.cluster
        return (
            cluster is not None
            and record.assigned
            and record.task.node_id == cluster.node_id
            and (not record.ended or record.task.desired is TaskState.REMOVE)
        )

    async def _carry(self, task_id: str) -> None:
        """Carry one task to its end, and out of the books if it is to be removed."""
        try:
            while (record := self._record(task_id)) is not None and self._has_work(record):
                try:
                    await self._next(record)
                except LinkspanError as error:
                    log.warning("tried again", extra={"task": task_id, "reason": str(error)})
                    await trio.sleep(RETRY_S)
                except Exception as error:
                    log.exception("task failed inside the agent", extra={"task": task_id})
                    await self._end(task_id, TaskState.FAILED, f"internal error: {error}")
                    await self._remove_container(task_id)
        finally:
            self._at_work.discard(task_id)

    async def _next(self, record: TaskRecord) -> None:
        if record.ended:
            await self._remove_container(record.id)
            await self._store.change(lambda: Change(remove=[record]))
        elif record.task.desired > TaskState.RUNNING:
            await self._shut_down(record.id)
        else:
            await self._live(record.id)

    # -- records ------------------------------------------------------------------------------

    def _record(self, task_id: str) -> TaskRecord | None:
        return self._store.tasks.get(task_id)

    def _wanted(self, task_id: str) -> TaskRecord | None:
        """The record while the task is wanted."""
        record = self._record(task_id)
        return record if record is not None and record.task.desired <= TaskState.RUNNING else None

    async def _until_unwanted(self, task_id: str) -> None:
        while True:
            changed = self._store.task_changed(task_id)
            if self._wanted(task_id) is None:
                return
            await changed.wait()

    async def _set(self, task_id: str, state: TaskState, message: str, **facts: Any) -> None:
        """Go forward to a state. What lies before RUNNING is seen again after a crash."""

        def move(record: TaskRecord) -> TaskRecord | None:
            if record.task.state >= state:
                return None
            running_at = self._now() if state is TaskState.RUNNING else record.running_at
            task = self._moved(record.task, state, message=message, **facts)
            return attrs.evolve(record, task=task, running_at=running_at)

        await self._move(task_id, move, durable=state >= TaskState.RUNNING)

    async def _end(self, task_id: str, state: TaskState, error: str, **facts: Any) -> None:
        def move(record: TaskRecord) -> TaskRecord | None:
            if record.ended:
                return None
            words = {"message": state.name.lower(), "error": error}
            task = self._moved(record.task, state, **words, pid=0, **facts)
            return attrs.evolve(record, task=task, ended_at=self._now())

        await self._move(task_id, move, durable=True)
        record = self._record(task_id)
        if record is not None and record.task.spec.files:
            await self._payloads.forget(task_id)

    def _moved(self, task: Task, state: TaskState, **facts: Any) -> Task:
        updated_at = stamp(self._now())
        return attrs.evolve(
            task, state=state, version=task.version + 1, updated_at=updated_at, **facts
        )

    async def _move(
        self, task_id: str, move: Callable[[TaskRecord], TaskRecord | None], *, durable: bool
    ) -> None:
        """Change a record, then tell listeners."""
        moved: list[tuple[TaskRecord, TaskRecord]] = []

        def decide() -> Change | None:
            record = self._record(task_id)
            changed = None if record is None else move(record)
            if record is None or changed is None:
                return None
            moved.append((record, changed))
            return Change([changed])

        await self._store.change(decide, durable=durable)
        for before, after in moved:
            old, new = before.task.state.name.lower(), after.task.state.name.lower()
            self._host.hooks.tell("linkspan_task_state_changed", task=after.task, old=old, new=new)

    # -- a wanted task ------------------------------------------------------------------------

    async def _live(self, task_id: str) -> None:
        """From wherever it is to its end, or until it is not wanted any more."""
        try:
            container = await self._prepared(task_id)
            if container is None or not await self._held(task_id, until=TaskState.RUNNING):
                return
            await self._start(task_id, container)
            outcome = await self._watch(task_id, container.id)
        except LinkspanError as error:
            record = self._record(task_id)
            early = record is None or record.task.state < TaskState.STARTING
            state = TaskState.REJECTED if early else TaskState.FAILED
            outcome = (state, _words(error), None)
        if outcome is not None:
            await self._conclude(task_id, *outcome)

    async def _conclude(self, task_id: str, state: TaskState, error: str, code: int | None) -> None:
        await self._end(task_id, state, error, exit_code=code)
        container = self._find_container(task_id)
        if container is not None and container.state.running:
            await self._stop(container.id)
        elif container is not None and not container.state.started_at:
            # There is no log to keep.
            await self._remove(container.id)

    async def _prepared(self, task_id: str) -> Container | None:
        """Image here and container made; None if the task is not wanted any more.

        A restart that is not due yet does not even pull: an image that cannot be had is asked for as
        rarely as a container that ends at once is started.
        """
        if not await self._held(task_id, until=TaskState.READY):
            return None
        record = self._wanted(task_id)
        if record is None:
            return None
        container = self._find_container(task_id)
        if container is None and (record.task.container_id or record.task.state > TaskState.READY):
            await self._set(task_id, TaskState.STARTING, "lost")
            raise NotFound("task: the container was removed", code="container_not_found")
        if container is None:
            await self._set(task_id, TaskState.ACCEPTED, "accepted")
            await self._set(task_id, TaskState.PREPARING, "preparing")
            container = await first_of(
                lambda: self._make(record), lambda: self._until_unwanted(task_id)
            )
        if container is not None:
            await self._set(task_id, TaskState.READY, "prepared", container_id=container.id)
        return container

    async def _held(self, task_id: str, *, until: TaskState) -> bool:
        """Wait until the task is due and may get so far; False if it is not wanted any more."""
        while True:
            changed = self._store.task_changed(task_id)
            record = self._wanted(task_id)
            if record is None:
                return False
            wait_s = record.not_before - self._now()
            if wait_s <= 0 and record.task.desired >= until:
                return True
            with trio.move_on_after(wait_s if wait_s > 0 else float("inf")):
                await changed.wait()

    async def _make(self, record: TaskRecord) -> Container:
        task = record.task
        node = self._store.nodes[task.node_id]
        joined = attrs.evolve(task, spec=self._networks.joined(task.spec))
        spec = container_spec(joined, node)
        files = await self._payloads.place(task, node)
        spec = attrs.evolve(spec, mounts=(*spec.mounts, *files))
        await self._image(spec.image)
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
        try:
            async with lock:
                try:
                    self._host.engine.images.inspect(image)
                except NotFound:
                    await self._host.engine.images.pull(image)
        finally:
            if not lock.locked():
                self._pulling.pop(image, None)

    def _find_container(self, task_id: str) -> Container | None:
        """By what the record says or by its name; never somebody else's."""
        record = self._record(task_id)
        if record is None:
            return None
        for ref in (record.task.container_id, task_name(record.task)):
            if not ref:
                continue
            try:
                container = self._host.engine.containers.inspect(ref)
            except NotFound:
                continue
            if container.labels.get(TASK_LABEL) == task_id:
                return container
        return None

    async def _start(self, task_id: str, container: Container) -> None:
        """Start it; the task is RUNNING once the container is (and is healthy, if it can say so)."""
        await self._set(task_id, TaskState.STARTING, "starting")
        if container.state.status is ContainerStatus.CREATED:
            record = self._record(task_id)
            if record is not None:  # its files are gone if the machine was started anew since
                await self._payloads.place(record.task, self._store.nodes[record.task.node_id])
            try:
                await self._host.engine.containers.start(container.id)
            except NotModified:
                log.debug("container runs already", extra={"task": task_id})

    async def _watch(self, task_id: str, container_id: str) -> Outcome | None:
        """Until it ends or is unhealthy; None if it is not wanted any more."""
        waiter = self._host.engine.containers.waiter(container_id, "not-running")

        async def exited() -> Outcome:
            status = await waiter.result()
            if status.exit_code == 0 and not status.error:
                return TaskState.COMPLETE, "", 0
            why = "out of memory" if status.oom_killed else status.error
            error = f"task: non-zero exit ({status.exit_code})" + (f": {why}" if why else "")
            return TaskState.FAILED, error, status.exit_code

        return await first_of(
            exited,
            lambda: self._until_unwell(task_id, container_id),
            lambda: self._until_unwanted(task_id),
        )

    async def _until_unwell(self, task_id: str, container_id: str) -> Outcome:
        """Say RUNNING when it is well; return when it is not any more, with the last probe's words."""
        while True:
            stirred = self._stirred.setdefault(container_id, trio.Event())
            try:
                container = self._host.engine.containers.inspect(container_id)
            except NotFound:
                return TaskState.FAILED, "task: the container was removed", None
            if container.state.running:
                health = container.state.health
                if health is not None and health.status is HealthStatus.UNHEALTHY:
                    said = health.log[-1].output.strip() if health.log else ""
                    error = "task: unhealthy container" + (f": {said[:300]}" if said else "")
                    return TaskState.FAILED, error, None
                if health is None or health.status in (HealthStatus.HEALTHY, HealthStatus.NONE):
                    await self._running(task_id, container)
            await stirred.wait()

    async def _running(self, task_id: str, container: Container) -> None:
        await self._set(
            task_id,
            TaskState.RUNNING,
            "started",
            pid=container.state.pid,
            addresses=tuple(e.ipv4_address for e in container.endpoints if e.ipv4_address),
        )

    # -- the end ------------------------------------------------------------------------------

    async def _shut_down(self, task_id: str) -> None:
        """First no new connections, then a moment for those in flight, then stop."""
        container = self._find_container(task_id)
        if container is not None and container.state.running:
            left_at = None
            with trio.move_on_after(LONGEST_UNBALANCING_S):
                left_at = await self._left(task_id)
            if left_at is not None:
                await trio.sleep_until(left_at + self._drain_s)
            await self._stop(container.id)
        await self._end(task_id, TaskState.SHUTDOWN, "")

    async def _stop(self, container_id: str) -> None:
        """Stop a container, however often it takes: what runs unwanted would be in nobody's books."""
        while True:
            try:
                await self._host.engine.containers.stop(container_id)
            except (NotModified, NotFound):
                return
            except LinkspanError as error:
                log.warning(
                    "not stopped; tried again",
                    extra={"container": container_id, "reason": str(error)},
                )
                await trio.sleep(RETRY_S)
            else:
                return

    async def _remove_container(self, task_id: str) -> None:
        container = self._find_container(task_id)
        if container is not None:
            await self._remove(container.id)

    async def _remove(self, container_id: str) -> None:
        """Remove a container; silent if it is gone."""
        try:
            await self._host.engine.containers.remove(container_id, force=True, volumes=True)
        except NotFound:
            return


def _words(error: LinkspanError) -> str:
    return str(error).replace("\n", " ")[:500]
