"""What a node carries while tasks are being placed."""

from collections import Counter

from linkspan.sdk.drivers.scheduler import NodeView
from linkspan.sdk.generic_resources import claim_resources, free_resources
from linkspan.sdk.model.service import GenericResource, Node, Task, TaskState


class NodeLoad:
    """A node and what runs there, with the tasks that this round has put on it.

    A task holds its reservation and its host ports until it has stopped; it counts as a replica while
    it is wanted.
    """

    def __init__(self, view: NodeView) -> None:
        self.node: Node = view.node
        self.tasks = 0
        self.reserved_nano_cpus = 0
        self.reserved_memory_bytes = 0
        self.free_resources = self.node.generic_resources
        self.host_ports: set[tuple[str, int]] = set()
        self._services: Counter[str] = Counter()
        for task in view.tasks:
            self.add(task)

    def add(self, task: Task) -> None:
        """Count a task, unless it has ended."""
        if task.state > TaskState.RUNNING:
            return
        self.reserved_nano_cpus += task.spec.reservation.nano_cpus
        self.reserved_memory_bytes += task.spec.reservation.memory_bytes
        self.free_resources = free_resources(self.free_resources, task.generic_resources)
        self.host_ports.update(
            (p.protocol, p.published_port) for p in task.spec.ports if p.mode == "host"
        )
        if task.desired <= TaskState.COMPLETE:
            self.tasks += 1
            self._services[task.service_id] += 1

    def claimed(self, task: Task) -> tuple[GenericResource, ...] | None:
        """What a task gets of the node's generic resources; None if too few are free."""
        return claim_resources(self.free_resources, task.spec.reservation.generic)

    def of_service(self, service_id: str) -> int:
        """Wanted tasks of a service."""
        return self._services[service_id]
