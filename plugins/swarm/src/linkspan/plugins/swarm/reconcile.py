"""What a service needs now: pure decisions from what is wanted and what is.

Level-triggered: nothing here remembers what it did; the records say it all. ``Reconciler`` looks at one
service and answers with the records to write, and the time at which to look again.

A *place* is a numbered slot of a replicated service, or a node of a global one. A task is *current* if it
runs the wanted spec. A place is *dirty* while it has an active task but none that is current; a rollout
takes dirty places in hand, ``parallelism`` at a time.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable

import attrs

from linkspan.plugins.swarm.records import Place, ServiceRecord, TaskRecord, new_id
from linkspan.plugins.swarm.store import Change
from linkspan.sdk.model.service import (
    Node,
    RolloutState,
    RolloutStatus,
    Service,
    ServiceRestart,
    ServiceSpec,
    Task,
    TaskState,
    UpdatePolicy,
)
from linkspan.sdk.placement import parse_constraint
from linkspan.sdk.values import define

SHORT_RUN_S = 10.0
FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 60.0
# After so many quick failures in a row nobody should wait for the service any more.
HOPELESS_FAILURES = 3

_ROLLING = (RolloutState.UPDATING, RolloutState.ROLLBACK_STARTED)
_NEVER = float("inf")


@define
class Decisions:
    """What came out of one look.

    Attributes:
        service: The service's record, changed or not.
        tasks: Changed and new tasks by id.
        look_again_at: Seconds since the epoch; infinite if only a change can matter.
    """

    service: ServiceRecord
    tasks: dict[str, TaskRecord] = attrs.field(factory=dict)
    look_again_at: float = _NEVER

    def wake(self, at: float) -> None:
        """Look again then, or earlier."""
        self.look_again_at = min(self.look_again_at, at)


def rolling(record: ServiceRecord) -> bool:
    """Whether an update or a rollback is under way."""
    rollout = record.service.rollout
    return rollout is not None and rollout.state in _ROLLING


def paused(record: ServiceRecord) -> bool:
    """Whether a rollout was stopped and waits for somebody."""
    rollout = record.service.rollout
    return rollout is not None and rollout.state in (
        RolloutState.PAUSED,
        RolloutState.ROLLBACK_PAUSED,
    )


def policy_of(record: ServiceRecord) -> UpdatePolicy:
    """The update's policy, or the rollback's."""
    rollout = record.service.rollout
    back = rollout is not None and rollout.state in (
        RolloutState.ROLLBACK_STARTED,
        RolloutState.ROLLBACK_PAUSED,
    )
    return (record.spec.rollback if back else record.spec.update) or UpdatePolicy()


def may_carry(node: Node, spec: ServiceSpec) -> bool:
    """Whether a task of a spec may be on a node at all; room and readiness are the scheduler's matter."""
    return node.availability != "drain" and all(
        parse_constraint(text).holds(node) for text in spec.placement.constraints
    )


def _has_resources(node: Node, task: Task) -> bool:
    """Whether a node still offers what a task was given of it."""
    offered = {(one.kind, one.name): one.count for one in node.generic_resources}
    return all(offered.get((one.kind, one.name), -1) >= one.count for one in task.generic_resources)


def wanted_count(spec: ServiceSpec, nodes: Iterable[Node], tasks: Iterable[TaskRecord] = ()) -> int:
    """How many tasks a service should have; a paused node keeps those of a global one and gets none."""
    if not spec.is_global:
        return spec.replicas
    carrying = {task.task.node_id for task in tasks if task.active}
    return sum(
        may_carry(node, spec) and (node.availability == "active" or node.id in carrying)
        for node in nodes
    )


class Reconciler:
    """One look at one service."""

    def __init__(
        self,
        record: ServiceRecord,
        tasks: Iterable[TaskRecord],
        nodes: Iterable[Node],
        *,
        now: float,
        stamp: str,
        history: int = 5,
    ) -> None:
        self._now = now
        self._history = history
        self._stamp = stamp
        self._out = Decisions(record)
        self._tasks = {task.id: task for task in tasks}
        self._nodes = {node.id: node for node in nodes}
        self._failures_known = self._failures()

    def run(self) -> Decisions:
        """Decide."""
        if rolling(self._out.service):
            self._judge_failures()
        self._leave_nodes()
        if self._service.spec.is_job:
            self._end_earlier_runs()
        if self._service.spec.is_global:
            self._cover_nodes()
        else:
            self._scale()
        if rolling(self._out.service):
            self._step()
        self._finish_places()
        self._settle()
        self._reap()
        return self._out

    # -- helpers ------------------------------------------------------------------------------

    @property
    def _service(self) -> ServiceRecord:
        return self._out.service

    def _change(self, record: TaskRecord) -> None:
        self._tasks[record.id] = record
        self._out.tasks[record.id] = record

    def _want(self, record: TaskRecord, desired: TaskState) -> None:
        if record.task.desired < desired:
            self._change(attrs.evolve(record, task=attrs.evolve(record.task, desired=desired)))

    def _places(self) -> dict[Place, list[TaskRecord]]:
        """Place → its active tasks, oldest first."""
        found: dict[Place, list[TaskRecord]] = defaultdict(list)
        for record in sorted(self._tasks.values(), key=lambda r: r.made_at):
            if record.active:
                found[record.place].append(record)
        return found

    def _last_ended(self) -> dict[Place, TaskRecord]:
        return last_ended(self._tasks.values())

    def _given_up(self) -> dict[Place, TaskRecord]:
        return given_up(self._service, self._tasks.values())

    def _current(self, record: TaskRecord) -> bool:
        return is_current(self._service, record)

    def _make(
        self, place: Place, last: TaskRecord | None, *, desired: TaskState = TaskState.RUNNING
    ) -> None:
        """A new task; it waits if the last one was of the same spec and has failed."""
        service = self._service
        slot, node_id = place
        task = Task(
            id=new_id(),
            service_id=service.id,
            slot=slot,
            node_id=node_id,
            spec=service.spec,
            spec_version=service.service.version,
            job_iteration=service.service.job_iteration,
            state=TaskState.NEW,
            desired=desired,
            message="created",
            created_at=self._stamp,
            updated_at=self._stamp,
        )
        restarts, not_before = 0, 0.0
        if last is not None and self._current(last):
            at = self._restart_at(last)
            restarts = last.restarts + 1 if self._short(last) else 0
            not_before = last.ended_at if at is None else at
        self._change(
            TaskRecord(
                task=task,
                rollout_id=service.rollout_id if not service.settled else "",
                restarts=restarts,
                not_before=not_before,
                made_at=self._now,
            )
        )

    def _short(self, record: TaskRecord) -> bool:
        return ran_short(record, self._service.spec.restart)

    def _restart_at(self, record: TaskRecord) -> float | None:
        return restart_at(record, self._service.spec.restart)

    # -- how many -----------------------------------------------------------------------------

    def _leave_nodes(self) -> None:
        """End tasks on nodes that are drained, against their constraints, or without what they were given."""
        for record in list(self._tasks.values()):
            node = self._nodes.get(record.task.node_id)
            if (
                node is not None
                and record.active
                and record.assigned
                and not (may_carry(node, record.task.spec) and _has_resources(node, record.task))
            ):
                self._want(record, TaskState.SHUTDOWN)

    def _end_earlier_runs(self) -> None:
        """What runs of an earlier iteration of a job goes, at once."""
        for record in list(self._tasks.values()):
            if not record.ended and not self._current(record):
                self._want(record, TaskState.REMOVE)

    def _cover_nodes(self) -> None:
        """A global service: one task on every node that may carry it; on a paused one if it is there."""
        spec = self._service.spec
        wanted = {(0, node.id) for node in self._nodes.values() if may_carry(node, spec)}
        places, last, given_up = self._places(), self._last_ended(), self._given_up()
        for place, records in places.items():
            if place not in wanted:
                for record in records:
                    self._want(record, TaskState.SHUTDOWN)
        for place in sorted(wanted):
            takes_tasks = self._nodes[place[1]].availability == "active"
            if takes_tasks and place not in places and place not in given_up:
                self._make(place, last.get(place))

    def _scale(self) -> None:
        """A replicated service: the wanted number of slots."""
        places, count = self._places(), self._service.spec.replicas
        if len(places) > count:
            self._shrink(places, count)
            return
        last = self._last_ended()
        given_up = {p for p in self._given_up() if p not in places and p[0] <= count}
        missing = count - len(places) - len(given_up)
        if self._service.spec.max_concurrent:
            missing = min(missing, self._service.spec.max_concurrent - len(places))
        for slot in range(1, count + len(places) + 1):
            if missing <= 0:
                break
            place = (slot, "")
            if place not in places and place not in given_up:
                self._make(place, last.get(place))
                missing -= 1

    def _shrink(self, places: dict[Place, list[TaskRecord]], count: int) -> None:
        """Those that don't run go first, then the highest numbers."""

        def worth(place: Place) -> tuple[bool, Place]:
            runs = any(r.task.state is TaskState.RUNNING for r in places[place])
            return (not runs, place)

        for place in sorted(places, key=worth)[count:]:
            for record in places[place]:
                self._want(record, TaskState.REMOVE)

    # -- rollout ------------------------------------------------------------------------------

    def _step(self) -> None:
        """Take the next dirty places in hand."""
        service, policy = self._service, policy_of(self._service)
        places, last, failing = self._places(), self._last_ended(), self._tolerated()
        dirty = [p for p, records in sorted(places.items()) if not any(map(self._current, records))]
        in_hand = [
            place
            for place, records in places.items()
            if any(self._current(r) and r.task.state < TaskState.RUNNING for r in records)
            and place not in failing
        ]
        room = (policy.parallelism or len(places)) - len(in_hand)
        if not dirty or room <= 0:
            return
        ready_at = service.stepped_at + policy.delay_s if service.stepped_at else 0.0
        if ready_at > self._now:
            self._out.wake(ready_at)
            return
        chosen = [p for p in dirty if self._may_try(last.get(p))][:room]
        for place in chosen:
            if policy.order == "start-first":
                self._make(place, last.get(place))
            else:
                for record in places[place]:
                    self._want(record, TaskState.SHUTDOWN)
                self._make(place, last.get(place), desired=TaskState.READY)
        if chosen:
            self._out.service = attrs.evolve(service, stepped_at=self._now)

    def _may_try(self, last: TaskRecord | None) -> bool:
        """Whether a place's next try is due, after one of the wanted spec has failed there."""
        if last is None or not self._current(last):
            return True
        at = self._restart_at(last)
        if at is not None and at > self._now:
            self._out.wake(at)
        return at is not None and at <= self._now

    def _finish_places(self) -> None:
        """One current task a place; the old one goes when the new one is well."""
        stopping = {
            r.place for r in self._tasks.values() if r.assigned and not r.ended and not r.active
        }
        for place, records in self._places().items():
            well = [r for r in records if self._current(r) and r.task.state is TaskState.RUNNING]
            if well:
                for record in records:
                    if record is not well[0]:
                        self._want(record, TaskState.SHUTDOWN)
            held = [r for r in records if r.task.desired is TaskState.READY]
            if held and place not in stopping and len(records) == len(held):
                self._want(held[0], TaskState.RUNNING)

    def _failures(self) -> list[TaskRecord]:
        """Tasks of this rollout that ended before they were good."""
        monitor_s = policy_of(self._out.service).monitor_s
        found = [
            r
            for r in self._tasks.values()
            if r.rollout_id == self._out.service.rollout_id
            and r.failed
            and (r.running_at == 0 or r.ended_at - r.running_at <= monitor_s)
        ]
        return sorted(found, key=lambda r: r.ended_at)

    def _judge_failures(self) -> None:
        service, policy = self._service, policy_of(self._service)
        failures = self._failures_known
        ratio = len({r.place for r in failures}) / max(1, service.rollout_total)
        if not failures or ratio <= policy.max_failure_ratio or policy.failure_action == "continue":
            return
        rollout = service.service.rollout
        assert rollout is not None
        reason = failures[-1].reason
        back = rollout.state is RolloutState.ROLLBACK_STARTED
        if policy.failure_action == "rollback" and not back and service.service.previous_spec:
            message = f"update rolled back due to failure or early termination of task {reason}"
            back_again = start_rollback(
                service,
                message,
                count=wanted_count(
                    service.service.previous_spec, self._nodes.values(), self._tasks.values()
                ),
                stamp=self._stamp,
                asked=False,
            )
            self._out.service = attrs.evolve(back_again, rolled_back=True)
            return
        state = RolloutState.ROLLBACK_PAUSED if back else RolloutState.PAUSED
        what = "rollback" if back else "update"
        status = attrs.evolve(
            rollout,
            state=state,
            message=f"{what} paused due to failure or early termination of task {reason}",
        )
        self._out.service = attrs.evolve(
            service, service=attrs.evolve(service.service, rollout=status)
        )

    # -- done ---------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Say so when every place is as wanted and has been watched."""
        service = self._service
        if service.settled or paused(service):
            return
        given_up = self._given_up()
        places = self._places()
        records = [
            r
            for place, found in places.items()
            for r in found
            if place not in given_up or self._current(r)
        ]
        failing = self._tolerated()
        as_wanted = all(
            self._current(r) and (r.task.state is TaskState.RUNNING or r.place in failing)
            for r in records
        ) and all(len(found) == 1 for found in places.values())
        if not as_wanted:
            self._lose_hope()
            return
        monitor_s = policy_of(service).monitor_s
        seen = [failing[r.place].ended_at if r.place in failing else r.running_at for r in records]
        watched_at = max(seen, default=0.0) + monitor_s
        if watched_at > self._now:
            self._out.wake(watched_at)
            return
        broken = [
            *(r for r in given_up.values() if r.task.state is not TaskState.COMPLETE),
            *failing.values(),
        ]
        reason = max(broken, key=lambda r: r.ended_at).reason if broken else ""
        self._out.service = attrs.evolve(
            service, settled=True, gave_up=reason, service=self._completed(service)
        )

    def _tolerated(self) -> dict[Place, TaskRecord]:
        """Place → its first failure in a rollout that goes on all the same: it is tried on, but not waited for."""
        if not rolling(self._service):
            return {}
        first = {record.place: record for record in reversed(self._failures_known)}
        return {
            record.place: first[record.place]
            for record in self._tasks.values()
            if record.active and record.task.state < TaskState.RUNNING and record.place in first
        }

    def _completed(self, record: ServiceRecord) -> Service:
        rollout = record.service.rollout
        if rollout is None or rollout.state not in _ROLLING:
            return record.service
        back = rollout.state is RolloutState.ROLLBACK_STARTED
        message = "rollback completed" if back else "update completed"
        status = attrs.evolve(
            rollout,
            state=RolloutState.ROLLBACK_COMPLETED if back else RolloutState.COMPLETED,
            # Why it went back by itself is still of interest.
            message=rollout.message if record.rolled_back else message,
            completed_at=self._stamp,
        )
        # The version stays: who has read the spec meanwhile may change it.
        return attrs.evolve(record.service, rollout=status)

    def _lose_hope(self) -> None:
        """Outside a rollout: tasks fail again and again. They are tried on; who waits is told."""
        if rolling(self._service) or self._service.gave_up:
            return
        hopeless = [
            r
            for r in self._last_ended().values()
            if r.rollout_id == self._service.rollout_id
            and self._current(r)
            and self._short(r)
            and r.restarts >= HOPELESS_FAILURES - 1
        ]
        if hopeless:
            newest = max(hopeless, key=lambda r: r.ended_at)
            self._out.service = attrs.evolve(self._service, gave_up=newest.reason)

    def _reap(self) -> None:
        """Old ended tasks go, and those of slots that are none any more; the last few of a place stay."""
        ended: dict[Place, list[TaskRecord]] = defaultdict(list)
        alive = Counter(record.place for record in self._tasks.values() if not record.ended)
        for record in self._tasks.values():
            if record.ended and record.task.desired < TaskState.REMOVE:
                ended[record.place].append(record)
        for place, records in ended.items():
            records.sort(key=lambda r: (r.ended_at, r.made_at))
            # The last one tells what came out of a place, whatever else is kept.
            kept = max(1, self._history - alive[place])
            if self._is_surplus(place):
                kept = 0
            elif self._history < 0:
                kept = len(records)
            for record in records[: max(0, len(records) - kept)]:
                self._want(record, TaskState.REMOVE)

    def _is_surplus(self, place: Place) -> bool:
        """Whether a slot has gone because fewer are wanted."""
        spec = self._service.spec
        if spec.is_global or spec.is_job:
            return False
        taken = {*self._places(), *self._given_up()}
        return place not in taken and len(taken) >= spec.replicas


def last_ended(tasks: Iterable[TaskRecord]) -> dict[Place, TaskRecord]:
    """Place → the last task that ended though it was wanted."""
    found: dict[Place, TaskRecord] = {}
    for record in sorted(tasks, key=lambda r: r.made_at):
        if record.ended and record.task.desired <= TaskState.RUNNING:
            found[record.place] = record
    return found


def is_current(service: ServiceRecord, record: TaskRecord) -> bool:
    """Whether a task runs the wanted spec; of a job, in its present iteration."""
    spec, task = service.spec, record.task
    if spec.is_job and task.job_iteration != service.service.job_iteration:
        return False
    return task.spec.task_part == spec.task_part


def given_up(service: ServiceRecord, tasks: Iterable[TaskRecord]) -> dict[Place, TaskRecord]:
    """Places where the wanted spec was tried and may not be tried again."""
    return {
        place: record
        for place, record in last_ended(tasks).items()
        if is_current(service, record) and restart_at(record, service.spec.restart) is None
    }


def ran_short(record: TaskRecord, restart: ServiceRestart | None) -> bool:
    """Whether an ended task ran too short to have been any good."""
    window_s = (restart.window_s if restart else 0) or SHORT_RUN_S
    return record.running_at == 0 or record.ended_at - record.running_at < window_s


def restart_at(record: TaskRecord, restart: ServiceRestart | None) -> float | None:
    """When a place whose last task ended may start again; None: never.

    The delay doubles with every quick failure.
    """
    restart = restart or ServiceRestart()
    short = ran_short(record, restart)
    if record.task.spec.is_job and record.task.state is TaskState.COMPLETE:
        return None
    if restart.condition == "none":
        return None
    if restart.condition == "on-failure" and record.task.state is TaskState.COMPLETE:
        return None
    if restart.max_attempts and short and record.restarts >= restart.max_attempts:
        return None
    if not short or record.restarts == 0:
        return record.ended_at + restart.delay_s
    delay_s: float = max(restart.delay_s, FIRST_BACKOFF_S) * 2.0 ** min(record.restarts, 10)
    return record.ended_at + min(delay_s, max(LONGEST_BACKOFF_S, restart.delay_s))


def start_update(
    record: ServiceRecord, spec: ServiceSpec, *, count: int, stamp: str
) -> ServiceRecord:
    """The record after somebody wants another spec.

    A rollout begins if it makes other tasks, or if the last one was paused: asking again goes on with it.
    A job runs anew with every change.

    Args:
        record: As it is.
        spec: What is wanted now.
        count: How many tasks the service should have.
        stamp: RFC 3339 time.
    """
    before = record.service
    same = before.spec.task_part == spec.task_part and not spec.is_job
    service = attrs.evolve(
        _run_anew(before, stamp),
        spec=spec,
        version=before.version + 1,
        updated_at=stamp,
        previous_spec=_previous(record, spec) if same else before.spec,
    )
    if same and rolling(record):
        # Only the number, a name or a policy: the rollout goes on.
        return attrs.evolve(record, service=service)
    if same and not paused(record):
        service = attrs.evolve(service, rollout=None)
    else:
        status = RolloutStatus(
            state=RolloutState.UPDATING, message="update in progress", started_at=stamp
        )
        service = attrs.evolve(service, rollout=status)
    return _begin(record, service, count)


def _run_anew(service: Service, stamp: str) -> Service:
    """A job in its next iteration; any other service as it is."""
    if not service.spec.is_job:
        return service
    return attrs.evolve(service, job_iteration=service.job_iteration + 1, job_started_at=stamp)


def _previous(record: ServiceRecord, spec: ServiceSpec) -> ServiceSpec | None:
    """Where a rollback goes after a change that makes the same tasks."""
    before = record.service
    if not (rolling(record) or paused(record)):
        return before.spec
    # A rollout that is not done is taken back as a whole; the number that is wanted now stays.
    previous = before.previous_spec
    return None if previous is None else attrs.evolve(previous, replicas=spec.replicas)


def start_rollback(
    record: ServiceRecord, message: str, *, count: int, stamp: str, asked: bool
) -> ServiceRecord:
    """The record after the spec before the last update is wanted again.

    As in Docker, a rollback that was asked for can itself be taken back; one after a failure cannot.
    """
    before = record.service
    assert before.previous_spec is not None
    status = RolloutStatus(state=RolloutState.ROLLBACK_STARTED, message=message, started_at=stamp)
    service = attrs.evolve(
        _run_anew(before, stamp),
        spec=before.previous_spec,
        previous_spec=before.spec if asked else None,
        version=before.version + 1,
        updated_at=stamp,
        rollout=status,
    )
    return _begin(record, service, count)


def _begin(record: ServiceRecord, service: Service, count: int) -> ServiceRecord:
    return attrs.evolve(
        record,
        service=service,
        rollout_id=new_id(),
        rollout_total=max(1, count),
        stepped_at=0.0,
        settled=False,
        gave_up="",
        rolled_back=False,
    )


def change_of(decisions: Decisions, before: ServiceRecord) -> Change | None:
    """The transaction that makes the decisions true."""
    write = [*decisions.tasks.values()]
    service = [decisions.service] if decisions.service != before else []
    return Change([*service, *write]) if write or service else None
