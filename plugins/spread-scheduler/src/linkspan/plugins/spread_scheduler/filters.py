"""Why a node cannot take a task (swarmkit ``manager/scheduler/filter.go``); pure.

Each filter returns a reason that can be counted over nodes, or None. They run in this order, and the
first reason counts.
"""

from collections.abc import Sequence

from linkspan.plugins.spread_scheduler.load import NodeLoad
from linkspan.sdk.model.service import ServicePort, Task
from linkspan.sdk.placement import Constraint, parse_constraint
from linkspan.sdk.values import frozen


@frozen
class Requirements:
    """What a task asks of its node, read once for all nodes."""

    constraints: tuple[Constraint, ...]
    host_ports: tuple[ServicePort, ...]

    @classmethod
    def of(cls, task: Task) -> "Requirements":
        """Raises InvalidArgument for a constraint that cannot be read."""
        placement = task.spec.placement
        return cls(
            tuple(parse_constraint(text) for text in placement.constraints),
            tuple(p for p in task.spec.ports if p.mode == "host" and p.published_port),
        )


def refuse(task: Task, requirements: Requirements, load: NodeLoad) -> str | None:
    """The first reason against a node, or None."""
    return (
        _unavailable(load)
        or _lacks_room(task, load)
        or _breaks_constraint(requirements.constraints, load)
        or _port_taken(requirements.host_ports, load)
        or _has_enough_replicas(task, load)
    )


def _unavailable(load: NodeLoad) -> str | None:
    node = load.node
    if node.state != "ready":
        return f"not available ({node.state})"
    if node.availability != "active":
        return f"not available ({node.availability})"
    return None


def _lacks_room(task: Task, load: NodeLoad) -> str | None:
    asked = task.spec.reservation
    if asked.nano_cpus and load.reserved_nano_cpus + asked.nano_cpus > load.node.nano_cpus:
        return "insufficient cpu"
    if asked.memory_bytes and (
        load.reserved_memory_bytes + asked.memory_bytes > load.node.memory_bytes
    ):
        return "insufficient memory"
    if load.claimed(task) is None:
        return "insufficient resources"
    return None


def _breaks_constraint(constraints: Sequence[Constraint], load: NodeLoad) -> str | None:
    for constraint in constraints:
        if not constraint.holds(load.node):
            return f"constraint {constraint} not satisfied"
    return None


def _port_taken(ports: Sequence[ServicePort], load: NodeLoad) -> str | None:
    for port in ports:
        if (port.protocol, port.published_port) in load.host_ports:
            return f"host port {port.published_port}/{port.protocol} in use"
    return None


def _has_enough_replicas(task: Task, load: NodeLoad) -> str | None:
    limit = task.spec.placement.max_replicas_per_node
    if limit and load.of_service(task.service_id) >= limit:
        return f"limit of {limit} replicas per node reached"
    return None
