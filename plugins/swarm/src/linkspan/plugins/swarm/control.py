"""The control loop: looks at services that something happened to, and makes the decisions true.

``Reconciler`` decides for one service; here its decisions are written, tasks get nodes, and what is left
of removed services ends. A full pass now and then is a net: nothing depends on having seen every change.
"""

import logging
import time
from collections.abc import Callable

import attrs
import trio

from linkspan.plugins.swarm.ports import PortBook
from linkspan.plugins.swarm.reconcile import Reconciler, change_of
from linkspan.plugins.swarm.records import ServiceRecord, TaskRecord, stamp
from linkspan.plugins.swarm.store import Change, ClusterStore
from linkspan.sdk.drivers.scheduler import NodeView
from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.events import Event
from linkspan.sdk.host import Host
from linkspan.sdk.model.service import Task, TaskState

log = logging.getLogger("linkspan.swarm.control")

FULL_PASS_S = 60.0
RETRY_PORTS_S = 5.0
BUSY_S = 0.1
# While much happens at once it is looked at together: at most half of the time goes into looking.
LONGEST_REST_S = 0.1
_NEVER = float("inf")


class Control:
    """Keeps services as they are wanted."""

    def __init__(
        self,
        host: Host,
        store: ClusterStore,
        ports: PortBook,
        *,
        turn: trio.Lock,
        now: Callable[[], float],
    ) -> None:
        self._host = host
        self._store = store
        self._ports = ports
        self._turn = turn
        self._now = now

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look and act until cancelled."""
        task_status.started()
        due: dict[str, float] = {}
        full_pass_at = 0.0
        while True:
            began = time.perf_counter()
            changed = self._store.changed
            now = self._now()
            touched = self._store.take_touched()
            touched |= {service_id for service_id, at in due.items() if at <= now}
            if full_pass_at <= now:
                touched |= {*self._store.services, *self._store.services_with_tasks()}
                full_pass_at = now + FULL_PASS_S
            for service_id in touched:
                due[service_id] = await self._look(service_id)
                if due[service_id] == _NEVER:
                    del due[service_id]
            if touched:
                await self._schedule()
            rest_s = time.perf_counter() - began
            wake_at = min([full_pass_at, *due.values()])
            with trio.move_on_after(max(0.0, wake_at - self._now())):
                await changed.wait()
            await trio.sleep(min(rest_s, LONGEST_REST_S))

    async def _look(self, service_id: str) -> float:
        """Do what one service needs now; return when to look again."""
        if service_id not in self._store.services:
            await self._end_orphans(service_id)
            return _NEVER
        look_again_at = await self._reconcile(service_id)
        await self._drop_unassigned(service_id)
        return min(look_again_at, await self._fit_ports(service_id))

    async def _reconcile(self, service_id: str) -> float:
        times: list[float] = []
        moves: list[tuple[ServiceRecord, ServiceRecord]] = []

        def decide() -> Change | None:
            record = self._store.services.get(service_id)
            if record is None:
                return None
            now = self._now()
            decisions = Reconciler(
                record,
                self._store.tasks_of(service_id),
                self._store.nodes.values(),
                now=now,
                stamp=stamp(now),
                history=self._store.cluster.task_history if self._store.cluster else 5,
            ).run()
            times.append(decisions.look_again_at)
            moves.append((record, decisions.service))
            return change_of(decisions, record)

        await self._store.change(decide)
        for before, after in moves:
            self._tell_rollout(before, after)
        return times[0] if times else _NEVER

    def _tell_rollout(self, before: ServiceRecord, after: ServiceRecord) -> None:
        old, new = (r.service.rollout.state if r.service.rollout else None for r in (before, after))
        if old is new or new is None:
            return
        facts = {"name": after.spec.name, "updatestate.new": new.value}
        if old is not None:
            facts["updatestate.old"] = old.value
        self._host.engine.events.publish(
            Event(
                type="service", action="update", actor_id=after.id, attributes=facts, scope="swarm"
            )
        )

    async def _fit_ports(self, service_id: str) -> float:
        if self._ports.fits(service_id):
            return _NEVER
        if self._turn.locked():
            # Whoever has the turn may wait for this very loop.
            return self._now() + BUSY_S
        try:
            async with self._turn:
                await self._ports.fit(service_id)
        except LinkspanError as error:
            log.warning("port not taken", extra={"service": service_id, "reason": str(error)})
            return self._now() + RETRY_PORTS_S
        return _NEVER

    async def _end_orphans(self, service_id: str) -> None:
        """Tasks of a removed service end, and are removed with their containers."""

        def decide() -> Change:
            return Change(
                [
                    _wanting(t, TaskState.REMOVE)
                    for t in self._store.tasks_of(service_id)
                    if t.task.desired < TaskState.REMOVE
                ]
            )

        await self._store.change(decide)
        await self._drop_unassigned(service_id)

    async def _drop_unassigned(self, service_id: str) -> None:
        """Unwanted tasks that no node knows of: nobody else would end them."""

        def decide() -> Change:
            return Change(
                remove=[
                    t
                    for t in self._store.tasks_of(service_id)
                    if not t.assigned and t.task.desired > TaskState.RUNNING
                ]
            )

        await self._store.change(decide)

    # -- placement ----------------------------------------------------------------------------

    async def _schedule(self) -> None:
        """Give every task without a node one, or say why there is none."""

        def decide() -> Change | None:
            waiting = [t for t in self._store.tasks.values() if t.active and not t.assigned]
            if not waiting:
                return None
            decisions = self._host.driver("scheduler").place(
                [t.task for t in waiting], self._views()
            )
            changed = []
            for record, decision in zip(waiting, decisions, strict=True):
                if decision.node_id is not None:
                    task = self._moved(
                        record.task,
                        state=TaskState.ASSIGNED,
                        node_id=decision.node_id,
                        generic_resources=decision.generic_resources,
                        message="scheduler assigned task to node",
                        error="",
                    )
                else:
                    task = self._moved(
                        record.task,
                        state=TaskState.PENDING,
                        message="pending task scheduling",
                        error=decision.explain(),
                    )
                if task is not record.task:
                    changed.append(attrs.evolve(record, task=task))
            return Change(changed)

        await self._store.change(decide)

    def _views(self) -> list[NodeView]:
        return [
            NodeView(
                node=node,
                tasks=tuple(
                    t.task
                    for t in self._store.tasks.values()
                    if t.task.node_id == node.id and t.assigned and not t.ended
                ),
            )
            for node in self._store.nodes.values()
        ]

    def _moved(self, task: Task, **facts: object) -> Task:
        """With other facts and a new time; itself if nothing is different."""
        moved = attrs.evolve(task, **facts)  # type: ignore[arg-type]
        if moved == task:
            return task
        return attrs.evolve(moved, updated_at=stamp(self._now()), version=task.version + 1)


def _wanting(record: TaskRecord, desired: TaskState) -> TaskRecord:
    return attrs.evolve(record, task=attrs.evolve(record.task, desired=desired))
