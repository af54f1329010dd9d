"""The kit for role ``scheduler``. Subclass ``SchedulerConformance`` and set ``driver``."""

from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest

from linkspan.sdk.drivers.scheduler import Decision, NodeView, Scheduler, SchedulerCap
from linkspan.sdk.model.container import ContainerSpec
from linkspan.sdk.model.service import (
    GenericResource,
    Node,
    Placement,
    Reservation,
    ServicePort,
    ServiceSpec,
    Task,
    TaskState,
)
from linkspan.sdk.testing.host import FakeHost

WEB = ServiceSpec(name="web", container=ContainerSpec(image="app:1"))


def node(name: str, **facts: Any) -> Node:
    """A ready node with 4 CPUs and 8 GiB."""
    defaults: dict[str, Any] = {"nano_cpus": 4_000_000_000, "memory_bytes": 8 << 30}
    return Node(id=name, hostname=name, **{**defaults, **facts})


def task(name: str, spec: ServiceSpec = WEB, **facts: Any) -> Task:
    """A task of service ``web``, slot 1, unless told otherwise."""
    return Task(id=name, **{"service_id": "web", "slot": 1, "spec": spec, **facts})


def running(name: str, spec: ServiceSpec = WEB, **facts: Any) -> Task:
    """A task that runs."""
    return task(name, spec, **{"state": TaskState.RUNNING, **facts})


def placed(decisions: list[Decision]) -> list[str | None]:
    """Where they went."""
    return [decision.node_id for decision in decisions]


class SchedulerConformance:
    """What every scheduler must do, whatever its taste among nodes that fit."""

    driver: type[Scheduler[Any]]

    @pytest.fixture
    def config(self) -> Any:
        return self.driver.config_type()

    @pytest.fixture
    async def scheduler(self, config: Any, fake_host: FakeHost) -> AsyncIterator[Scheduler[Any]]:
        async with self.driver.open(config, fake_host) as scheduler:
            yield scheduler

    async def test_decisions_answer_the_tasks_in_order(self, scheduler: Scheduler[Any]) -> None:
        decisions = scheduler.place([task("t1"), task("t2")], [NodeView(node=node("a"))])
        assert [(d.task_id, d.node_id) for d in decisions] == [("t1", "a"), ("t2", "a")]
        assert scheduler.place([], [NodeView(node=node("a"))]) == []

    async def test_without_nodes_nothing_is_placed(self, scheduler: Scheduler[Any]) -> None:
        (decision,) = scheduler.place([task("t1")], [])
        assert decision.node_id is None
        assert decision.explain() == "no suitable node"

    @pytest.mark.parametrize(
        "facts",
        [
            {"state": "down"},
            {"state": "unknown"},
            {"availability": "pause"},
            {"availability": "drain"},
        ],
    )
    async def test_only_ready_and_active_nodes_take_tasks(
        self, scheduler: Scheduler[Any], facts: dict[str, Any]
    ) -> None:
        views = [NodeView(node=node("a", **facts)), NodeView(node=node("b"))]
        assert placed(scheduler.place([task("t1")], views)) == ["b"]
        (decision,) = scheduler.place([task("t1")], views[:1])
        assert decision.node_id is None
        assert sum(decision.reasons.values()) == 1
        assert decision.explain().startswith("no suitable node (")

    async def test_reservations_are_kept(self, scheduler: Scheduler[Any]) -> None:
        large = attrs.evolve(WEB, reservation=Reservation(memory_bytes=5 << 30))
        views = [NodeView(node=node("a")), NodeView(node=node("b"), tasks=(running("r", large),))]
        decisions = scheduler.place([task("t1", large), task("t2", large)], views)
        assert placed(decisions) == ["a", None]
        assert decisions[1].reasons == {"insufficient memory": 2}

    async def test_cpus_are_reserved_too(self, scheduler: Scheduler[Any]) -> None:
        large = attrs.evolve(WEB, reservation=Reservation(nano_cpus=3_000_000_000))
        views = [NodeView(node=node("a"))]
        assert placed(scheduler.place([task("t1", large), task("t2", large)], views)) == ["a", None]

    async def test_generic_resources_are_given_to_one_task_each(
        self, scheduler: Scheduler[Any]
    ) -> None:
        first, second = (GenericResource(kind="gpu", name=name) for name in ("first", "second"))
        wanting = attrs.evolve(
            WEB, reservation=Reservation(generic=(GenericResource(kind="gpu", count=1),))
        )
        carried = running("r", wanting, generic_resources=(first,))
        views = [
            NodeView(node=node("a")),
            NodeView(node=node("b", generic_resources=(first, second)), tasks=(carried,)),
        ]
        got, none = scheduler.place([task("t1", wanting), task("t2", wanting)], views)
        assert (got.node_id, got.generic_resources) == ("b", (second,))
        assert (none.node_id, none.reasons) == (None, {"insufficient resources": 2})

    async def test_ended_tasks_reserve_nothing(self, scheduler: Scheduler[Any]) -> None:
        large = attrs.evolve(WEB, reservation=Reservation(memory_bytes=5 << 30))
        ended = task("r", large, state=TaskState.FAILED, desired=TaskState.SHUTDOWN)
        views = [NodeView(node=node("a"), tasks=(ended,))]
        assert placed(scheduler.place([task("t1", large)], views)) == ["a"]

    async def test_a_stopping_task_holds_its_room_until_it_has_stopped(
        self, scheduler: Scheduler[Any]
    ) -> None:
        large = attrs.evolve(WEB, reservation=Reservation(memory_bytes=5 << 30))
        stopping = running("r", large, desired=TaskState.SHUTDOWN)
        views = [NodeView(node=node("a"), tasks=(stopping,))]
        assert placed(scheduler.place([task("t1", large)], views)) == [None]

    @pytest.mark.parametrize(
        ("constraint", "expected"),
        [
            ("node.id==b", "b"),
            ("node.hostname != a", "b"),
            ("node.role==worker", "b"),
            ("node.labels.zone==East", "b"),
            ("node.labels.zone!=east", "a"),
            ("node.labels.disk==ssd", None),
            ("node.platform.arch==amd64", "a"),
            ("node.platform.arch==x86_64", "a"),
            ("node.platform.arch!=x86_64", None),
        ],
    )
    async def test_constraints_are_kept(
        self, scheduler: Scheduler[Any], constraint: str, expected: str | None
    ) -> None:
        spec = attrs.evolve(WEB, placement=Placement(constraints=(constraint,)))
        views = [
            NodeView(node=node("a")),
            NodeView(node=node("b", role="worker", labels={"zone": "east"})),
        ]
        assert placed(scheduler.place([task("t1", spec)], views)) == [expected]

    async def test_the_limit_of_replicas_per_node_is_kept(self, scheduler: Scheduler[Any]) -> None:
        spec = attrs.evolve(WEB, placement=Placement(max_replicas_per_node=1))
        views = [NodeView(node=node("a"), tasks=(running("r", spec),)), NodeView(node=node("b"))]
        assert placed(scheduler.place([task("t1", spec), task("t2", spec)], views)) == ["b", None]

    async def test_a_host_port_is_given_once(self, scheduler: Scheduler[Any]) -> None:
        port = ServicePort(target_port=80, published_port=8080, mode="host")
        spec = attrs.evolve(WEB, ports=(port,))
        views = [NodeView(node=node("a"))]
        decisions = scheduler.place([task("t1", spec), task("t2", spec)], views)
        assert placed(decisions) == ["a", None]

    async def test_a_task_bound_to_a_node_goes_nowhere_else(
        self, scheduler: Scheduler[Any]
    ) -> None:
        views = [NodeView(node=node("a")), NodeView(node=node("b"))]
        assert placed(scheduler.place([task("t1", node_id="b")], views)) == ["b"]
        assert placed(scheduler.place([task("t1", node_id="gone")], views)) == [None]

    async def test_the_same_input_gives_the_same_output(self, scheduler: Scheduler[Any]) -> None:
        tasks = [task(f"t{n}") for n in range(10)]
        views = [NodeView(node=node(name)) for name in "cab"]
        assert scheduler.place(tasks, views) == scheduler.place(tasks, views)

    async def test_preferences_spread_over_label_values(self, scheduler: Scheduler[Any]) -> None:
        if SchedulerCap.PREFERENCES not in scheduler.capabilities:
            pytest.skip("no capability PREFERENCES")
        spec = attrs.evolve(WEB, placement=Placement(preferences=("spread=node.labels.zone",)))
        views = [
            NodeView(node=node("a1", labels={"zone": "a"})),
            NodeView(node=node("a2", labels={"zone": "a"})),
            NodeView(node=node("a3", labels={"zone": "a"})),
            NodeView(node=node("b1", labels={"zone": "b"})),
        ]
        decisions = scheduler.place([task(f"t{n}", spec) for n in range(6)], views)
        where = placed(decisions)
        assert where.count("b1") == 3
        assert sorted(set(where) - {"b1"}) == ["a1", "a2", "a3"]  # type: ignore[type-var]

    async def test_a_preference_that_names_no_label_changes_nothing(
        self, scheduler: Scheduler[Any]
    ) -> None:
        views = [NodeView(node=node("a", labels={"zone": "a"})), NodeView(node=node("b"))]
        odd = attrs.evolve(WEB, placement=Placement(preferences=("spread=zone", "spread=")))
        tasks = [f"t{n}" for n in range(4)]
        plain = placed(scheduler.place([task(name, WEB) for name in tasks], views))
        assert placed(scheduler.place([task(name, odd) for name in tasks], views)) == plain
