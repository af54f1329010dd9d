"""How far the last change of a service is."""

from collections.abc import AsyncGenerator, Iterable

import attrs

from linkspan.plugins.swarm.reconcile import given_up, is_current, paused, rolling, wanted_count
from linkspan.plugins.swarm.records import ServiceRecord, TaskRecord
from linkspan.plugins.swarm.store import ClusterStore
from linkspan.sdk.drivers.orchestrator import RolloutProgress
from linkspan.sdk.errors import NotFound
from linkspan.sdk.model.service import Node, Service, TaskState


def shown(record: ServiceRecord, tasks: Iterable[TaskRecord], nodes: Iterable[Node]) -> Service:
    """A service with its task counts."""
    tasks = list(tasks)
    ended = given_up(record, tasks).values()
    return attrs.evolve(
        record.service,
        completed_tasks=sum(t.task.state is TaskState.COMPLETE for t in ended),
        running_tasks=sum(t.active and t.task.state is TaskState.RUNNING for t in tasks),
        desired_tasks=wanted_count(record.spec, nodes, tasks),
    )


def moment_of(
    record: ServiceRecord, tasks: list[TaskRecord], nodes: Iterable[Node]
) -> RolloutProgress:
    """Where a service is now."""
    service = shown(record, tasks, nodes)
    running = [t for t in tasks if t.active and t.task.state is TaskState.RUNNING]
    current = [t for t in running if is_current(record, t)]
    failed = sorted(
        (t for t in tasks if t.failed and t.rollout_id == record.rollout_id),
        key=lambda t: t.ended_at,
    )
    stopped = paused(record) or bool(record.gave_up)
    missing = service.desired_tasks - len(current) - len(given_up(record, tasks))
    done = stopped or (record.settled and not rolling(record) and missing <= 0)
    return RolloutProgress(
        service=service,
        rollout=record.service.rollout,
        tasks=tuple(t.shown for t in sorted(tasks, key=lambda t: (t.place, t.made_at))),
        running=len(running),
        desired=service.desired_tasks,
        updated=len(current),
        done=done,
        failed=done and (stopped or record.rolled_back),
        failures=tuple(t.reason for t in failed),
    )


async def follow(store: ClusterStore, service_id: str) -> AsyncGenerator[RolloutProgress, None]:
    """Moments, from now until the change is done.

    Raises:
        NotFound: The service was removed meanwhile.
    """
    last: RolloutProgress | None = None
    while True:
        changed = store.changed
        record = store.services.get(service_id)
        if record is None:
            raise NotFound(f"service {service_id} was removed", code="service_not_found")
        moment = moment_of(record, store.tasks_of(service_id), store.nodes.values())
        if moment != last:
            last = moment
            yield moment
            if moment.done:
                return
        await changed.wait()
