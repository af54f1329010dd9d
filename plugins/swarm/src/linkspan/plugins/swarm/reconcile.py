"""What a service needs now: pure decisions from what is wanted and what is.

Level-triggered: nothing here remembers what it did; the records say it all. ``reconcile`` looks at one
service and answers with the records to write, and the time at which to look again.

A *slot* is a numbered place of a service. A task is *current* if it runs the wanted spec. A slot is
*dirty* while it has an active task but none that is current; a rollout takes dirty slots in hand,
``parallelism`` at a time (SWARM: updater).
"""

from collections import defaultdict
from collections.abc import Iterable

import attrs

from linkspan.plugins.swarm.records import ServiceRecord, TaskRecord, new_id, same_tasks
from linkspan.plugins.swarm.store import Change
from linkspan.sdk.model.service import (
    RolloutState,
    RolloutStatus,
    Service,
    ServiceRestart,
    ServiceSpec,
    Task,
    TaskState,
    UpdatePolicy,
)

KEPT_ENDED_TASKS = 5
SHORT_RUN_S = 10.0
FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 60.0
# Docker: a new service whose tasks keep failing is not waited for for ever.
MOST_FIRST_FAILURES = 3

_ROLLING = (RolloutState.UPDATING, RolloutState.ROLLBACK_STARTED)
_NEVER = float("inf")


@attrs.define
class Decisions:
    """What came out of one look.

    Attributes:
        service: The service's record, changed or not.
        tasks: Changed and new tasks by id.
        gone: Ended tasks to forget, with their containers.
        look_again_at: Seconds since the epoch; infinite if only a change can matter.
    """

    service: ServiceRecord
    tasks: dict[str, TaskRecord] = attrs.field(factory=dict)
    gone: list[TaskRecord] = attrs.field(factory=list)
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
    return record.spec.rollback if back else record.spec.update


class Reconciler:
    """One look at one service."""

    def __init__(
        self, record: ServiceRecord, tasks: Iterable[TaskRecord], *, now: float, stamp: str
    ) -> None:
        self._now = now
        self._stamp = stamp
        self._out = Decisions(record)
        self._tasks = {task.id: task for task in tasks}
        self._failures_known = self._failures()

    def run(self) -> Decisions:
        """Decide."""
        if rolling(self._out.service):
            self._judge_failures()
        self._scale()
        if rolling(self._out.service):
            self._step()
        self._finish_slots()
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

    def _slots(self) -> dict[int, list[TaskRecord]]:
        """Slot → its active tasks, oldest first."""
        found: dict[int, list[TaskRecord]] = defaultdict(list)
        for record in sorted(self._tasks.values(), key=lambda r: r.made_at):
            if record.active:
                found[record.task.slot].append(record)
        return found

    def _current(self, record: TaskRecord) -> bool:
        return same_tasks(record.task.spec, self._service.spec)

    def _make(
        self,
        slot: int,
        *,
        desired: TaskState = TaskState.RUNNING,
        restarts: int = 0,
        not_before: float = 0.0,
    ) -> None:
        service = self._service
        task = Task(
            id=new_id(),
            service_id=service.id,
            slot=slot,
            spec=service.spec,
            spec_version=service.service.version,
            state=TaskState.NEW,
            desired=desired,
            message="created",
            created_at=self._stamp,
            updated_at=self._stamp,
        )
        self._change(
            TaskRecord(
                task=task,
                rollout_id=service.rollout_id if not service.settled else "",
                restarts=restarts,
                not_before=not_before,
                made_at=self._now,
            )
        )

    # -- how many -----------------------------------------------------------------------------

    def _wanted_count(self) -> int:
        spec = self._service.spec
        return 1 if spec.mode == "global" else spec.replicas

    def _scale(self) -> None:
        slots = self._slots()
        count = self._wanted_count()
        if len(slots) > count:
            self._shrink(slots, count)
            return
        last = self._last_ended()
        given_up = {
            slot
            for slot, record in last.items()
            if slot not in slots and record.failed and self._restart_at(record) is None
        }
        given_up = {slot for slot in given_up if self._current(last[slot])}
        missing = count - len(slots) - len(given_up)
        candidates = [s for s in range(1, count + len(slots) + 1) if s not in slots]
        for slot in candidates:
            if missing <= 0:
                break
            if slot in given_up:
                continue
            self._fill(slot, last.get(slot))
            missing -= 1

    def _shrink(self, slots: dict[int, list[TaskRecord]], count: int) -> None:
        """Those that don't run go first, then the highest numbers."""

        def worth(slot: int) -> tuple[bool, int]:
            runs = any(r.task.state is TaskState.RUNNING for r in slots[slot])
            return (not runs, slot)

        for slot in sorted(slots, key=worth)[count:]:
            for record in slots[slot]:
                self._want(record, TaskState.REMOVE)

    def _last_ended(self) -> dict[int, TaskRecord]:
        found: dict[int, TaskRecord] = {}
        for record in sorted(self._tasks.values(), key=lambda r: r.made_at):
            if record.ended and record.task.desired <= TaskState.RUNNING:
                found[record.task.slot] = record
        return found

    def _fill(self, slot: int, last: TaskRecord | None) -> None:
        if last is None or not self._current(last):
            self._make(slot)
            return
        at = self._restart_at(last)
        self._make(
            slot,
            restarts=last.restarts + 1 if self._short(last) else 0,
            not_before=last.ended_at if at is None else at,
        )

    def _short(self, record: TaskRecord) -> bool:
        window_s = self._service.spec.restart.window_s or SHORT_RUN_S
        return record.running_at == 0 or record.ended_at - record.running_at < window_s

    def _restart_at(self, record: TaskRecord) -> float | None:
        """When a slot whose last task ended may start again; None: never."""
        return restart_at(record, self._service.spec.restart, short=self._short(record))

    # -- rollout ------------------------------------------------------------------------------

    def _step(self) -> None:
        """Take the next dirty slots in hand."""
        service, policy = self._service, policy_of(self._service)
        slots = self._slots()
        dirty = [s for s, records in sorted(slots.items()) if not any(map(self._current, records))]
        if not dirty:
            return
        in_hand = [
            slot
            for slot, records in slots.items()
            if any(self._current(r) and r.task.state < TaskState.RUNNING for r in records)
        ]
        room = (policy.parallelism or len(slots)) - len(in_hand)
        ready_at = service.stepped_at + policy.delay_s if service.stepped_at else 0.0
        if room <= 0:
            return
        if ready_at > self._now:
            self._out.wake(ready_at)
            return
        last = self._last_ended()
        for slot in [s for s in dirty if self._may_try(last.get(s))][:room]:
            if policy.order == "start-first":
                self._make(slot)
            else:
                for record in slots[slot]:
                    self._want(record, TaskState.SHUTDOWN)
                self._make(slot, desired=TaskState.READY)
        self._out.service = attrs.evolve(service, stepped_at=self._now)

    def _may_try(self, last: TaskRecord | None) -> bool:
        """Whether a slot's next try is due, after one of the wanted spec has failed there."""
        if last is None or not self._current(last):
            return True
        at = self._restart_at(last)
        if at is not None and at > self._now:
            self._out.wake(at)
        return at is not None and at <= self._now

    def _finish_slots(self) -> None:
        """One current task a slot; the old one goes when the new one is well."""
        stopping = {r.task.slot for r in self._tasks.values() if not r.ended and not r.active}
        for slot, records in self._slots().items():
            well = [r for r in records if self._current(r) and r.task.state is TaskState.RUNNING]
            if well:
                for record in records:
                    if record is not well[0]:
                        self._want(record, TaskState.SHUTDOWN)
            held = [r for r in records if r.task.desired is TaskState.READY]
            if held and slot not in stopping and len(records) == len(held):
                self._want(held[0], TaskState.RUNNING)

    def _failures(self) -> list[TaskRecord]:
        """Tasks of this rollout that ended before they were good."""
        monitor_s = policy_of(self._out.service).monitor_s
        mine = self._out.service.rollout_id
        found = [
            r
            for r in self._tasks.values()
            if mine
            and r.rollout_id == mine
            and r.failed
            and (r.running_at == 0 or r.ended_at - r.running_at <= monitor_s)
        ]
        return sorted(found, key=lambda r: r.ended_at)

    def _judge_failures(self) -> None:
        service, policy = self._service, policy_of(self._service)
        failures = self._failures_known
        ratio = len({r.task.slot for r in failures}) / max(1, service.rollout_total)
        if not failures or ratio <= policy.max_failure_ratio or policy.failure_action == "continue":
            return
        rollout = service.service.rollout
        assert rollout is not None
        reason = (
            f"{failures[-1].task.spec.name}.{failures[-1].task.slot}: {failures[-1].task.error}"
        )
        back = rollout.state is RolloutState.ROLLBACK_STARTED
        if policy.failure_action == "rollback" and not back and service.service.previous_spec:
            message = f"update rolled back due to failure or early termination of task {reason}"
            back_again = start_rollback(service, message, stamp=self._stamp)
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
        """Say so when every slot is as wanted and has been watched."""
        service = self._service
        if service.settled or paused(service):
            return
        slots = self._slots()
        count = self._wanted_count()
        records = [r for found in slots.values() for r in found]
        given_up = count - len(slots)
        as_wanted = all(
            self._current(r) and r.task.state is TaskState.RUNNING for r in records
        ) and all(len(found) == 1 for found in slots.values())
        if not as_wanted or given_up < 0:
            self._give_up(count, slots)
            return
        monitor_s = policy_of(service).monitor_s
        watched_at = max((r.running_at for r in records), default=0.0) + monitor_s
        if watched_at > self._now:
            self._out.wake(watched_at)
            return
        self._out.service = attrs.evolve(service, settled=True, service=self._completed(service))

    def _completed(self, record: ServiceRecord) -> Service:
        rollout = record.service.rollout
        if rollout is None or rollout.state not in _ROLLING:
            return record.service
        back = rollout.state is RolloutState.ROLLBACK_STARTED
        status = attrs.evolve(
            rollout,
            state=RolloutState.ROLLBACK_COMPLETED if back else RolloutState.COMPLETED,
            message=rollout.message if back else "update completed",
            completed_at=self._stamp,
        )
        return attrs.evolve(record.service, rollout=status, version=record.service.version + 1)

    def _give_up(self, count: int, slots: dict[int, list[TaskRecord]]) -> None:
        """A new service whose first tasks keep failing: tell those who wait."""
        if rolling(self._service) or self._service.gave_up:
            return
        failed = [r for r in self._tasks.values() if r.failed and self._current(r)]
        never_ran = [r for r in failed if r.running_at == 0]
        if len(never_ran) >= MOST_FIRST_FAILURES and len(slots) <= count:
            newest = max(never_ran, key=lambda r: r.ended_at)
            self._out.service = attrs.evolve(self._service, gave_up=newest.task.error)

    def _reap(self) -> None:
        """Forget removed tasks, and old ended ones."""
        ended: dict[int, list[TaskRecord]] = defaultdict(list)
        for record in self._tasks.values():
            if not record.ended:
                continue
            if record.task.desired is TaskState.REMOVE:
                self._out.gone.append(record)
            else:
                ended[record.task.slot].append(record)
        for records in ended.values():
            records.sort(key=lambda r: r.ended_at)
            self._out.gone += records[:-KEPT_ENDED_TASKS]
        for record in self._out.gone:
            self._out.tasks.pop(record.id, None)


def restart_at(record: TaskRecord, restart: ServiceRestart, *, short: bool) -> float | None:
    """When a slot may start again after its last task: a delay that doubles with every quick failure."""
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


def start_update(record: ServiceRecord, spec: ServiceSpec, *, stamp: str) -> ServiceRecord:
    """The record after somebody wants another spec."""
    before = record.service
    service = attrs.evolve(
        before, spec=spec, version=before.version + 1, updated_at=stamp, previous_spec=before.spec
    )
    if same_tasks(before.spec, spec):
        # Only the number, a name or a policy: no task is exchanged.
        return attrs.evolve(record, service=service, settled=False, gave_up="")
    status = RolloutStatus(
        state=RolloutState.UPDATING, message="update in progress", started_at=stamp
    )
    return attrs.evolve(
        record,
        service=attrs.evolve(service, rollout=status),
        rollout_id=new_id(),
        rollout_total=max(1, spec.replicas if spec.mode == "replicated" else 1),
        stepped_at=0.0,
        settled=False,
        gave_up="",
        rolled_back=False,
    )


def start_rollback(record: ServiceRecord, message: str, *, stamp: str) -> ServiceRecord:
    """The record after the spec before the last update is wanted again."""
    before = record.service
    assert before.previous_spec is not None
    status = RolloutStatus(state=RolloutState.ROLLBACK_STARTED, message=message, started_at=stamp)
    service = attrs.evolve(
        before,
        spec=before.previous_spec,
        previous_spec=None,
        version=before.version + 1,
        updated_at=stamp,
        rollout=status,
    )
    return attrs.evolve(
        record,
        service=service,
        rollout_id=new_id(),
        stepped_at=0.0,
        settled=False,
        gave_up="",
        rolled_back=False,
    )


def change_of(decisions: Decisions, before: ServiceRecord) -> Change | None:
    """The transaction that makes the decisions true."""
    write = [*decisions.tasks.values()]
    service = [decisions.service] if decisions.service != before else []
    if not (write or service or decisions.gone):
        return None
    return Change([*service, *write], decisions.gone)
