"""The spreading scheduler passes the kit and spreads."""

import attrs
import pytest

from linkspan.plugins.spread_scheduler.driver import SpreadScheduler
from linkspan.sdk.drivers.scheduler import NodeView
from linkspan.sdk.model.service import Placement, Reservation, TaskState
from linkspan.sdk.testing.conformance.scheduler import (
    WEB,
    SchedulerConformance,
    node,
    placed,
    running,
    task,
)


class TestSpreadConformance(SchedulerConformance):
    driver = SpreadScheduler


def place(tasks, views):  # type: ignore[no-untyped-def]
    return placed(SpreadScheduler().place(tasks, views))


def test_a_service_spreads_over_all_nodes() -> None:
    views = [NodeView(node=node(name)) for name in "abc"]
    assert place([task(f"t{n}") for n in range(6)], views) == ["a", "b", "c", "a", "b", "c"]


def test_the_fewest_tasks_of_the_service_come_before_the_fewest_tasks() -> None:
    others = tuple(running(f"o{n}", service_id="other") for n in range(5))
    views = [
        NodeView(node=node("a"), tasks=(running("r1"),)),
        NodeView(node=node("b"), tasks=others),
    ]
    assert place([task("t1"), task("t2")], views) == ["b", "a"]


def test_tasks_that_are_to_end_do_not_count_as_replicas() -> None:
    leaving = running("r1", desired=TaskState.SHUTDOWN)
    views = [NodeView(node=node("a"), tasks=(leaving,)), NodeView(node=node("b"))]
    assert place([task("t1"), task("t2"), task("t3")], views) == ["a", "b", "a"]


def test_reasons_are_counted_over_nodes() -> None:
    spec = attrs.evolve(
        WEB,
        reservation=Reservation(memory_bytes=9 << 30),
        placement=Placement(constraints=("node.labels.disk==ssd",)),
    )
    views = [
        NodeView(node=node("a", state="down")),
        NodeView(node=node("b")),
        NodeView(node=node("c")),
        NodeView(node=node("d", memory_bytes=16 << 30)),
    ]
    (decision,) = SpreadScheduler().place([task("t1", spec)], views)
    assert decision.node_id is None
    assert decision.reasons == {
        "not available (down)": 1,
        "insufficient memory": 2,
        "constraint node.labels.disk==ssd not satisfied": 1,
    }
    assert decision.explain() == (
        "no suitable node (not available (down) on 1 node, insufficient memory on 2 nodes, "
        "constraint node.labels.disk==ssd not satisfied on 1 node)"
    )


@pytest.mark.parametrize(
    "placement",
    [Placement(constraints=("node.colour==red",)), Placement(preferences=("binpack=node.id",))],
)
def test_what_cannot_be_read_is_a_reason_not_a_crash(placement: Placement) -> None:
    spec = attrs.evolve(WEB, placement=placement)
    (decision,) = SpreadScheduler().place([task("t1", spec)], [NodeView(node=node("a"))])
    assert decision.node_id is None
    assert "invalid" in decision.explain()


def test_preferences_nest() -> None:
    spec = attrs.evolve(
        WEB,
        placement=Placement(preferences=("spread=node.labels.zone", "spread=node.labels.rack")),
    )
    views = [
        NodeView(node=node("a1", labels={"zone": "a", "rack": "1"})),
        NodeView(node=node("a2", labels={"zone": "a", "rack": "1"})),
        NodeView(node=node("a3", labels={"zone": "a", "rack": "2"})),
        NodeView(node=node("b1", labels={"zone": "b", "rack": "1"})),
    ]
    where = place([task(f"t{n}", spec) for n in range(8)], views)
    assert {name: where.count(name) for name in ("a1", "a2", "a3", "b1")} == {
        "a1": 1,
        "a2": 1,
        "a3": 2,
        "b1": 4,
    }


def test_a_full_node_counts_for_its_branch() -> None:
    spec = attrs.evolve(
        WEB,
        placement=Placement(preferences=("spread=node.labels.zone",), max_replicas_per_node=3),
    )
    full = tuple(running(f"r{n}", spec) for n in range(3))
    views = [
        NodeView(node=node("a1", labels={"zone": "a"}), tasks=full),
        NodeView(node=node("a2", labels={"zone": "a"})),
        NodeView(node=node("b1", labels={"zone": "b"})),
    ]
    assert place([task("t1", spec)], views) == ["b1"]


def test_nodes_without_the_label_are_a_branch_of_their_own() -> None:
    spec = attrs.evolve(WEB, placement=Placement(preferences=("spread=node.labels.zone",)))
    views = [NodeView(node=node("a", labels={"zone": "a"})), NodeView(node=node("b"))]
    assert place([task("t1", spec), task("t2", spec)], views) == ["a", "b"]
