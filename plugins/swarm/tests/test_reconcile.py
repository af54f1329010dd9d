"""What the reconciler decides, on a cluster of records and a clock that the test turns."""

import itertools
from collections.abc import Callable

import attrs
import pytest

from linkspan.plugins.swarm.reconcile import (
    Reconciler,
    may_carry,
    start_rollback,
    start_update,
    wanted_count,
)
from linkspan.plugins.swarm.records import ServiceRecord, TaskRecord
from linkspan.sdk.model.container import ContainerSpec
from linkspan.sdk.model.service import (
    Node,
    Placement,
    RolloutState,
    Service,
    ServiceRestart,
    ServiceSpec,
    TaskState,
    UpdatePolicy,
)

NODE = Node(id="n", hostname="one", labels={"zone": "a"})


@attrs.define
class Bench:
    """A service, its tasks, and an agent that does what the test says."""

    record: ServiceRecord
    tasks: dict[str, TaskRecord] = attrs.field(factory=dict)
    now: float = 1000.0
    nodes: list[Node] = attrs.field(factory=lambda: [NODE])
    # Image → how its tasks end instead of running; missing ones run.
    fate: dict[str, TaskState] = attrs.field(factory=dict)
    history: int = 5
    most_running: int = 0
    least_running: int = 99

    def look(self) -> None:
        out = Reconciler(
            self.record,
            self.tasks.values(),
            self.nodes,
            now=self.now,
            stamp=str(self.now),
            history=self.history,
        ).run()
        self.record = out.service
        self.tasks.update(out.tasks)

    def work(self) -> None:
        """One step of the agent for every task."""
        for record in list(self.tasks.values()):
            if record.ended or (not record.assigned and record.task.desired > TaskState.RUNNING):
                if record.task.desired is TaskState.REMOVE:
                    del self.tasks[record.id]
                continue
            if not record.assigned:
                record = self.place(record)
            if record is None:
                continue
            if record.task.desired > TaskState.RUNNING:
                self.end(record, TaskState.SHUTDOWN)
            elif record.task.desired is TaskState.RUNNING and record.not_before <= self.now:
                ends = self.fate.get(record.task.spec.container.image)
                if ends is not None:
                    self.end(record, ends)
                elif record.task.state < TaskState.RUNNING:
                    task = attrs.evolve(record.task, state=TaskState.RUNNING)
                    self.tasks[record.id] = attrs.evolve(record, task=task, running_at=self.now)

    def place(self, record: TaskRecord) -> TaskRecord | None:
        open_nodes = [n for n in self.nodes if may_carry(n, record.task.spec)]
        wanted = [n for n in open_nodes if record.task.node_id in ("", n.id)]
        if not wanted:
            return None
        task = attrs.evolve(record.task, node_id=wanted[0].id, state=TaskState.ASSIGNED)
        self.tasks[record.id] = attrs.evolve(record, task=task)
        return self.tasks[record.id]

    def end(self, record: TaskRecord, state: TaskState) -> None:
        task = attrs.evolve(record.task, state=state, error="it broke")
        self.tasks[record.id] = attrs.evolve(record, task=task, ended_at=self.now)

    def turn(self, times: int = 1, *, step_s: float = 0.5) -> None:
        for _ in range(times):
            self.look()
            self.work()
            self.now += step_s
            count = len(self.running())
            self.most_running = max(self.most_running, count)
            self.least_running = min(self.least_running, count)

    def running(self) -> list[TaskRecord]:
        return [t for t in self.tasks.values() if t.task.state is TaskState.RUNNING and t.active]

    def images(self) -> list[str]:
        return sorted(t.task.spec.container.image for t in self.running())

    def update(self, change: Callable[[ServiceSpec], ServiceSpec]) -> None:
        spec = change(self.record.spec)
        count = wanted_count(spec, self.nodes)
        self.record = start_update(self.record, spec, count=count, stamp=str(self.now))
        self.most_running, self.least_running = 0, 99

    def image(self, image: str) -> None:
        self.update(
            lambda spec: attrs.evolve(spec, container=attrs.evolve(spec.container, image=image))
        )

    @property
    def state(self) -> RolloutState | None:
        rollout = self.record.service.rollout
        return rollout.state if rollout else None


def bench(replicas: int = 3, restart: ServiceRestart | None = None, **update: object) -> Bench:
    spec = ServiceSpec(
        name="web",
        container=ContainerSpec(image="v1"),
        replicas=replicas,
        restart=restart or ServiceRestart(delay_s=0),
        update=UpdatePolicy(monitor_s=1, **update),  # type: ignore[arg-type]
        rollback=UpdatePolicy(monitor_s=1),
    )
    return Bench(ServiceRecord(service=Service(id="s", version=1, spec=spec), rollout_id="first"))


def test_a_new_service_gets_its_tasks_in_slots_from_one() -> None:
    b = bench(3)
    b.turn()
    assert sorted(t.task.slot for t in b.running()) == [1, 2, 3]
    assert not b.record.settled
    b.turn(4)
    assert b.record.settled


def test_looking_again_changes_nothing() -> None:
    b = bench(3)
    b.turn(5)
    before = (b.record, dict(b.tasks))
    b.look()
    assert (b.record, b.tasks) == before


def test_scaling_up_fills_slots_and_scaling_down_takes_the_highest() -> None:
    b = bench(2)
    b.turn(5)
    b.update(lambda spec: attrs.evolve(spec, replicas=4))
    b.turn(5)
    assert sorted(t.task.slot for t in b.running()) == [1, 2, 3, 4]
    assert b.record.settled
    b.update(lambda spec: attrs.evolve(spec, replicas=1))
    b.turn(5)
    assert [t.task.slot for t in b.running()] == [1]
    assert len(b.tasks) == 1


def test_start_first_never_has_fewer_tasks_than_wanted() -> None:
    b = bench(3, order="start-first")
    b.turn(5)
    b.image("v2")
    b.turn(20)
    assert b.images() == ["v2"] * 3
    assert b.state is RolloutState.COMPLETED
    assert b.least_running >= 3
    assert b.most_running == 4


def test_stop_first_never_has_more_tasks_than_wanted() -> None:
    b = bench(3)
    b.turn(5)
    b.image("v2")
    b.turn(25)
    assert b.images() == ["v2"] * 3
    assert b.state is RolloutState.COMPLETED
    assert b.most_running <= 3
    assert b.least_running == 2


def test_parallelism_zero_exchanges_all_at_once() -> None:
    b = bench(4, order="start-first", parallelism=0)
    b.turn(5)
    b.image("v2")
    b.turn(2)
    assert b.images() == ["v2"] * 4


def test_delay_is_kept_between_slots() -> None:
    b = bench(2, order="start-first", delay_s=10)
    b.turn(5)
    b.image("v2")
    b.turn(8)
    assert b.images() == ["v1", "v2"]
    b.turn(20)
    assert b.images() == ["v2", "v2"]


def test_a_failing_update_pauses_and_says_why() -> None:
    b = bench(3, order="start-first")
    b.turn(5)
    b.fate["bad"] = TaskState.FAILED
    b.image("bad")
    b.turn(5)
    assert b.state is RolloutState.PAUSED
    assert b.images() == ["v1"] * 3
    assert b.record.service.rollout is not None
    assert "it broke" in b.record.service.rollout.message


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
def test_a_failing_update_rolls_back_and_keeps_the_others_running(order: str) -> None:
    b = bench(3, order=order, failure_action="rollback")
    b.turn(5)
    b.fate["bad"] = TaskState.FAILED
    b.image("bad")
    b.turn(30)
    assert b.state is RolloutState.ROLLBACK_COMPLETED
    assert b.images() == ["v1"] * 3
    assert b.record.rolled_back
    assert b.least_running >= (3 if order == "start-first" else 2)
    assert b.record.spec.container.image == "v1"


def test_some_failures_are_allowed_by_the_ratio() -> None:
    b = bench(4, order="start-first", max_failure_ratio=0.3, failure_action="rollback")
    b.turn(5)
    b.image("v2")
    b.look()
    fresh = next(t for t in b.tasks.values() if t.task.spec.container.image == "v2")
    b.end(fresh, TaskState.FAILED)
    b.turn(30)
    assert b.state is RolloutState.COMPLETED
    assert b.images() == ["v2"] * 4


def test_a_task_that_breaks_within_monitor_counts_as_a_failure() -> None:
    b = bench(1, order="start-first", failure_action="rollback")
    b.turn(5)
    b.image("v2")
    b.turn(1)
    fresh = next(t for t in b.running() if t.task.spec.container.image == "v2")
    b.end(fresh, TaskState.FAILED)
    b.turn(20)
    assert b.state is RolloutState.ROLLBACK_COMPLETED
    assert b.images() == ["v1"]


def test_a_failing_rollback_pauses() -> None:
    b = bench(2, order="stop-first", failure_action="rollback")
    b.turn(5)
    b.fate.update(bad=TaskState.FAILED, v1=TaskState.FAILED)
    b.image("bad")
    for record in b.running():
        b.end(record, TaskState.FAILED)
    b.turn(30)
    assert b.state is RolloutState.ROLLBACK_PAUSED


def test_a_manual_rollback_goes_to_the_spec_before() -> None:
    b = bench(2, order="start-first")
    b.turn(5)
    b.image("v2")
    b.turn(20)
    b.record = start_rollback(
        b.record, "manually requested rollback", count=2, stamp="x", asked=True
    )
    b.turn(20)
    assert b.images() == ["v1", "v1"]
    assert b.state is RolloutState.ROLLBACK_COMPLETED
    assert not b.record.rolled_back


def test_a_task_that_ends_is_replaced_in_its_slot() -> None:
    b = bench(2)
    b.turn(5)
    broken = b.running()[0]
    b.end(broken, TaskState.FAILED)
    b.turn(2)
    assert len(b.running()) == 2
    assert sorted(t.task.slot for t in b.running()) == [1, 2]


def test_quick_failures_wait_longer_each_time() -> None:
    b = bench(1)
    b.fate["v1"] = TaskState.FAILED
    b.turn(40, step_s=0.1)
    starts = sorted(t.not_before for t in b.tasks.values() if t.not_before)
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert gaps == sorted(gaps)
    assert gaps[-1] >= 0.8


def test_condition_none_and_on_failure_are_respected() -> None:
    b = bench(1, ServiceRestart(condition="none"))
    b.turn(5)
    b.end(b.running()[0], TaskState.FAILED)
    b.turn(5)
    assert b.running() == []
    b = bench(1, ServiceRestart(condition="on-failure", delay_s=0))
    b.turn(5)
    b.end(b.running()[0], TaskState.COMPLETE)
    b.turn(5)
    assert b.running() == []


def test_max_attempts_ends_the_trying() -> None:
    b = bench(1, ServiceRestart(delay_s=0, max_attempts=2))
    b.fate["v1"] = TaskState.FAILED
    b.turn(60)
    assert sum(t.failed for t in b.tasks.values()) == 3


def test_the_last_five_tasks_of_a_slot_are_kept_with_the_one_that_runs() -> None:
    b = bench(1)
    for _ in range(9):
        b.turn(30)
        b.end(b.running()[0], TaskState.FAILED)
    b.turn(3)
    assert len(b.running()) == 1
    assert sum(t.ended for t in b.tasks.values()) == 4


def test_a_slot_that_is_not_wanted_any_more_leaves_no_history() -> None:
    b = bench(3)
    b.turn(30)
    for record in b.running():
        b.end(record, TaskState.FAILED)
    b.turn(30)
    assert sum(t.ended for t in b.tasks.values()) == 3
    b.update(lambda spec: attrs.evolve(spec, replicas=1))
    b.turn(30)
    (running,) = b.running()
    assert [t.place for t in b.tasks.values() if t.ended] == [running.place]


def test_a_negative_history_keeps_all() -> None:
    b = bench(1)
    b.history = -1
    for _ in range(9):
        b.turn(30)
        b.end(b.running()[0], TaskState.FAILED)
    b.turn(3)
    assert sum(t.ended for t in b.tasks.values()) == 9


def test_a_new_service_that_never_runs_is_told_so() -> None:
    b = bench(1)
    b.fate["v1"] = TaskState.REJECTED
    b.turn(5)
    assert b.record.gave_up == "web.1: it broke"
    assert not b.record.settled
    del b.fate["v1"]
    b.turn(10)
    assert b.record.settled
    assert b.record.gave_up == ""


def test_a_new_update_takes_over_from_a_running_one() -> None:
    b = bench(3, order="start-first", delay_s=60)
    b.turn(5)
    b.image("v2")
    b.turn(3)
    b.update(
        lambda spec: attrs.evolve(
            spec,
            container=attrs.evolve(spec.container, image="v3"),
            update=attrs.evolve(spec.update, delay_s=0),
        )
    )
    b.turn(30)
    assert b.images() == ["v3"] * 3
    assert b.state is RolloutState.COMPLETED


def test_no_replicas_are_a_settled_service() -> None:
    b = bench(0)
    b.turn(2)
    assert b.record.settled
    assert b.tasks == {}
    b.image("v2")
    b.turn(2)
    assert b.state is RolloutState.COMPLETED
    b.update(lambda spec: attrs.evolve(spec, replicas=2))
    b.turn(3)
    assert b.images() == ["v2", "v2"]


def test_scaling_to_nothing_and_back() -> None:
    b = bench(3)
    b.turn(5)
    b.update(lambda spec: attrs.evolve(spec, replicas=0))
    b.turn(5)
    assert b.tasks == {}
    assert b.record.settled
    b.update(lambda spec: attrs.evolve(spec, replicas=1))
    b.turn(5)
    assert [t.task.slot for t in b.running()] == [1]


def paused_bench() -> Bench:
    b = bench(3, order="start-first")
    b.turn(5)
    b.fate["bad"] = TaskState.FAILED
    b.image("bad")
    b.turn(5)
    assert b.state is RolloutState.PAUSED
    return b


def test_asking_again_goes_on_with_a_paused_update() -> None:
    b = paused_bench()
    del b.fate["bad"]
    b.turn(5)
    assert b.state is RolloutState.PAUSED
    b.update(lambda spec: spec)
    assert b.state is RolloutState.UPDATING
    b.turn(20)
    assert b.state is RolloutState.COMPLETED
    assert b.images() == ["bad"] * 3
    assert b.record.service.previous_spec is not None
    assert b.record.service.previous_spec.container.image == "v1"


def test_a_paused_update_that_is_scaled_goes_back_to_the_good_image_in_that_number() -> None:
    b = paused_bench()
    b.update(
        lambda spec: attrs.evolve(
            spec, replicas=4, update=attrs.evolve(spec.update, failure_action="rollback")
        )
    )
    b.turn(40)
    assert b.state is RolloutState.ROLLBACK_COMPLETED
    assert b.images() == ["v1"] * 4


def test_scaling_during_an_update_does_not_end_it() -> None:
    b = bench(3, order="start-first", delay_s=2)
    b.turn(5)
    b.image("v2")
    b.turn(2)
    b.update(lambda spec: attrs.evolve(spec, replicas=5))
    assert b.state is RolloutState.UPDATING
    b.turn(40)
    assert b.state is RolloutState.COMPLETED
    assert b.images() == ["v2"] * 5


def test_scaling_afterwards_forgets_how_the_last_rollout_ended() -> None:
    b = bench(2, failure_action="rollback")
    b.turn(5)
    b.fate["bad"] = TaskState.FAILED
    b.image("bad")
    b.turn(30)
    assert b.record.rolled_back
    b.update(lambda spec: attrs.evolve(spec, replicas=3))
    assert b.state is None
    assert not b.record.rolled_back


def test_continue_tries_again_ever_more_slowly() -> None:
    b = bench(2, order="start-first", failure_action="continue")
    b.turn(5)
    b.fate["bad"] = TaskState.FAILED
    b.image("bad")
    b.turn(100, step_s=0.1)
    tried = [t for t in b.tasks.values() if t.failed]
    assert max(t.restarts for t in tried) >= 3
    assert len(tried) < 20
    assert b.images() == ["v1"] * 2


def test_an_update_that_goes_on_ends_though_its_tasks_fail_and_they_are_tried_on() -> None:
    b = bench(2, ServiceRestart(delay_s=3), failure_action="continue")
    b.turn(10)
    b.fate["bad"] = TaskState.FAILED
    b.image("bad")
    b.turn(30)
    assert b.state is RolloutState.COMPLETED
    assert b.record.gave_up.endswith("it broke")
    ended = sum(t.failed for t in b.tasks.values())
    b.turn(60)
    assert sum(t.failed for t in b.tasks.values()) > ended
    del b.fate["bad"]
    b.turn(120)
    assert b.images() == ["bad"] * 2


def test_failures_that_an_update_tolerates_do_not_keep_it_from_its_end() -> None:
    b = bench(4, failure_action="rollback", max_failure_ratio=0.3)
    b.turn(10)
    b.fate["new"] = TaskState.FAILED
    b.image("new")
    b.turn(1)
    while not any(t.failed for t in b.tasks.values()):
        b.turn(1)
    del b.fate["new"]
    b.turn(40)
    assert b.state is RolloutState.COMPLETED
    assert b.images() == ["new"] * 4


def test_continue_ends_when_no_attempt_is_left() -> None:
    restart = ServiceRestart(delay_s=0, max_attempts=1)
    b = bench(2, restart, order="start-first", failure_action="continue")
    b.turn(5)
    b.fate["bad"] = TaskState.FAILED
    b.image("bad")
    b.turn(30)
    assert b.record.settled
    assert "it broke" in b.record.gave_up
    assert b.images() == ["v1"] * 2


def test_a_service_whose_attempts_are_used_up_says_why() -> None:
    b = bench(1, ServiceRestart(delay_s=0, max_attempts=1))
    b.fate["v1"] = TaskState.FAILED
    b.turn(20)
    assert b.record.settled
    assert b.record.gave_up == "web.1: it broke"


def test_a_task_that_is_done_is_no_failure() -> None:
    b = bench(1, ServiceRestart(condition="on-failure", delay_s=0))
    b.fate["v1"] = TaskState.COMPLETE
    b.turn(20)
    assert b.record.settled
    assert b.record.gave_up == ""
    assert len(b.tasks) == 1


def test_a_slot_that_is_given_up_does_not_take_the_place_of_another() -> None:
    b = bench(5, ServiceRestart(condition="on-failure", delay_s=0))
    b.turn(5)
    b.end(next(t for t in b.running() if t.task.slot == 5), TaskState.COMPLETE)
    b.turn(2)
    b.update(lambda spec: attrs.evolve(spec, replicas=3))
    b.turn(3)
    b.end(next(t for t in b.running() if t.task.slot == 2), TaskState.FAILED)
    b.turn(3)
    assert sorted(t.task.slot for t in b.running()) == [1, 2, 3]


def test_draining_ends_tasks_and_activating_brings_them_back() -> None:
    b = bench(2)
    b.turn(5)
    b.nodes = [attrs.evolve(NODE, availability="drain")]
    b.turn(5)
    assert b.running() == []
    assert sum(t.active and not t.assigned for t in b.tasks.values()) == 2
    b.nodes = [NODE]
    b.turn(5)
    assert len(b.running()) == 2


def test_a_node_whose_label_changes_loses_tasks_that_may_not_be_there() -> None:
    b = bench(1)
    b.update(
        lambda spec: attrs.evolve(spec, placement=Placement(constraints=("node.labels.zone==a",)))
    )
    b.turn(10)
    assert len(b.running()) == 1
    b.nodes = [attrs.evolve(NODE, labels={"zone": "b"})]
    b.look()
    b.work()
    assert b.running() == []


def global_bench() -> Bench:
    b = bench(1)
    spec = attrs.evolve(b.record.spec, mode="global")
    b.record = attrs.evolve(b.record, service=attrs.evolve(b.record.service, spec=spec))
    return b


def test_a_global_service_has_one_task_on_every_node_that_may_carry_it() -> None:
    b = global_bench()
    b.nodes = [NODE, attrs.evolve(NODE, id="m"), attrs.evolve(NODE, id="d", availability="drain")]
    b.turn(5)
    assert sorted((t.task.slot, t.task.node_id) for t in b.running()) == [(0, "m"), (0, "n")]
    assert b.record.settled


def test_a_global_service_leaves_a_drained_node_and_comes_back() -> None:
    b = global_bench()
    b.turn(5)
    b.nodes = [attrs.evolve(NODE, availability="drain")]
    b.turn(5)
    assert not any(t.active for t in b.tasks.values())
    b.nodes = [NODE]
    b.turn(5)
    assert len(b.running()) == 1


def test_a_global_service_is_updated_and_healed_in_place() -> None:
    b = global_bench()
    b.turn(5)
    b.image("v2")
    b.turn(10)
    assert b.images() == ["v2"]
    assert b.state is RolloutState.COMPLETED
    b.end(b.running()[0], TaskState.FAILED)
    b.turn(3)
    assert b.images() == ["v2"]
