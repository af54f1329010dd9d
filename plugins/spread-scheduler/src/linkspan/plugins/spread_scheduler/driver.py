"""The driver ``spread``: the node with the fewest tasks of the service, then the fewest tasks."""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Self

import attrs

from linkspan.plugins.spread_scheduler.filters import Requirements, refuse
from linkspan.plugins.spread_scheduler.load import NodeLoad
from linkspan.sdk.drivers.base import NoConfig
from linkspan.sdk.drivers.scheduler import Decision, NodeView, Scheduler, SchedulerCap
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.host import Host
from linkspan.sdk.model.service import Task
from linkspan.sdk.placement import node_fact, parse_preference, spreads


class SpreadScheduler(Scheduler[NoConfig]):
    """Spreads. Ties are decided by the order in which the nodes are given."""

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, config: NoConfig, host: Host) -> AsyncIterator[Self]:
        """Nothing to acquire."""
        yield cls()

    @property
    def capabilities(self) -> SchedulerCap:
        """Preferences are honoured."""
        return SchedulerCap.PREFERENCES

    def place(self, tasks: Sequence[Task], nodes: Sequence[NodeView]) -> list[Decision]:
        """See ``Scheduler.place``. A task whose ``node_id`` is set (global services) goes there or nowhere."""
        loads = [NodeLoad(view) for view in nodes]
        return [_place_one(task, loads) for task in tasks]


def _place_one(task: Task, loads: Sequence[NodeLoad]) -> Decision:
    if task.node_id:
        loads = [load for load in loads if load.node.id == task.node_id]
        if not loads:
            return _nowhere(task, {f"node {task.node_id} unknown": 1})
    try:
        requirements = Requirements.of(task)
        keys = [parse_preference(text) for text in task.spec.placement.preferences]
    except InvalidArgument as error:
        return _nowhere(task, {error.message: max(1, len(loads))})
    reasons: Counter[str] = Counter()
    fitting = []
    for load in loads:
        reason = refuse(task, requirements, load)
        if reason is None:
            fitting.append(load)
        else:
            reasons[reason] += 1
    if not fitting:
        return _nowhere(task, dict(reasons))
    branch: Sequence[NodeLoad] = loads
    for key in filter(spreads, keys):
        branch = _emptiest_branch(task.service_id, key, branch, fitting)
        fitting = [load for load in fitting if load in branch]
    chosen = min(fitting, key=lambda load: (load.of_service(task.service_id), load.tasks))
    got = chosen.claimed(task) or ()
    chosen.add(attrs.evolve(task, generic_resources=got))
    return Decision(task_id=task.id, node_id=chosen.node.id, generic_resources=got)


def _nowhere(task: Task, reasons: dict[str, int]) -> Decision:
    return Decision(task_id=task.id, node_id=None, reasons=reasons)


def _emptiest_branch(
    service_id: str, key: str, loads: Sequence[NodeLoad], fitting: Sequence[NodeLoad]
) -> list[NodeLoad]:
    """Nodes of the label's value under which the service has the fewest tasks.

    Nodes without the label are a branch of their own (swarmkit ``manager/scheduler/decision_tree.go``).
    Nodes that take nothing any more count with what they carry.
    """
    branches: dict[str, list[NodeLoad]] = {}
    for load in loads:
        branches.setdefault(node_fact(load.node, key), []).append(load)
    open_branches = {node_fact(load.node, key) for load in fitting}
    return min(
        (branch for value, branch in branches.items() if value in open_branches),
        key=lambda branch: sum(load.of_service(service_id) for load in branch),
    )
