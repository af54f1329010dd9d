"""The cluster in memory, written through to the state store.

There is one writer, this process; a commit that another has overtaken fails with Conflict, and the
model is read again. Whoever waits for a change gets an event.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs
import trio

from linkspan.plugins.swarm.records import (
    CLUSTER_KEY,
    NODES,
    SERVICES,
    TASKS,
    Record,
    ServiceRecord,
    TaskRecord,
    dump,
    load,
)
from linkspan.sdk.drivers.state import Delete, Operation, Put, State
from linkspan.sdk.errors import InvalidArgument, NotFound, Unavailable
from linkspan.sdk.model.service import Cluster, Node


@attrs.frozen
class Change:
    """Records to write and records to remove, in one transaction."""

    write: Sequence[Record] = ()
    remove: Sequence[Record] = ()


class ClusterStore:
    """Services, tasks and nodes by id."""

    def __init__(self, state: Callable[[], State[Any]]) -> None:
        self._state = state
        self.cluster: Cluster | None = None
        self.nodes: dict[str, Node] = {}
        self.services: dict[str, ServiceRecord] = {}
        self.tasks: dict[str, TaskRecord] = {}
        self._revisions: dict[str, int] = {}
        self._changed = trio.Event()
        self._turn = trio.Lock()

    async def load(self) -> None:
        """Read everything."""
        entries, _ = await self._state().list("swarm/")
        self.nodes, self.services, self.tasks, self.cluster = {}, {}, {}, None
        self._revisions = {entry.key: entry.revision for entry in entries}
        for entry in entries:
            if entry.key == CLUSTER_KEY:
                self.cluster = load(entry.value, Cluster)
            elif entry.key.startswith(NODES):
                node = load(entry.value, Node)
                self.nodes[node.id] = node
            elif entry.key.startswith(SERVICES):
                service = load(entry.value, ServiceRecord)
                self.services[service.id] = service
            elif entry.key.startswith(TASKS):
                task = load(entry.value, TaskRecord)
                self.tasks[task.id] = task

    @property
    def changed(self) -> trio.Event:
        """Set at the next change; take it before looking at what you wait for."""
        return self._changed

    def tell(self) -> None:
        """Wake those who wait for a change."""
        event, self._changed = self._changed, trio.Event()
        event.set()

    async def change(self, decide: Callable[[], Change | None], *, durable: bool = True) -> None:
        """Decide on a change and make it, with nobody else in between.

        Args:
            decide: Called with the turn held; returns what to write and what to remove, or None.
            durable: Write it to the state store; False for what is observed again after a crash.

        Raises:
            Conflict: Somebody outside this process wrote meanwhile.
            OutOfSpace: Nothing was written.
        """
        async with self._turn:
            change = decide()
            if change is None or not (change.write or change.remove):
                return
            if durable:
                # The commit is not torn apart from the memory by a cancellation.
                with trio.CancelScope(shield=True):
                    revision = await self._state().commit(*self._operations(change))
                for record in change.write:
                    self._revisions[_key(record)] = revision
            for record in change.write:
                self._remember(record)
            for record in change.remove:
                self._revisions.pop(_key(record), None)
                self._drop(record)
        self.tell()

    def _operations(self, change: Change) -> list[Operation]:
        puts = [
            Put(key=_key(r), value=dump(r), if_revision=self._revisions.get(_key(r), 0))
            for r in change.write
        ]
        return [*puts, *(Delete(key=_key(r)) for r in change.remove)]

    def _remember(self, record: Record) -> None:
        if isinstance(record, Cluster):
            self.cluster = record
        elif isinstance(record, Node):
            self.nodes[record.id] = record
        elif isinstance(record, ServiceRecord):
            self.services[record.id] = record
        else:
            self.tasks[record.id] = record

    def _drop(self, record: Record) -> None:
        if isinstance(record, Cluster):
            self.cluster = None
        elif isinstance(record, Node):
            self.nodes.pop(record.id, None)
        elif isinstance(record, ServiceRecord):
            self.services.pop(record.id, None)
        else:
            self.tasks.pop(record.id, None)

    def joined(self) -> Cluster:
        """The cluster.

        Raises:
            Unavailable: code ``not_in_swarm``.
        """
        if self.cluster is None:
            raise Unavailable(
                'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to '
                "connect this node to swarm and try again.",
                code="not_in_swarm",
                help="linkspan swarm init",
            )
        return self.cluster

    def tasks_of(self, service_id: str) -> list[TaskRecord]:
        """All tasks of a service, also ended ones."""
        return [record for record in self.tasks.values() if record.task.service_id == service_id]

    def find_service(self, ref: str) -> ServiceRecord:
        """By id, name, or unique id prefix.

        Raises:
            NotFound: There is none.
            InvalidArgument: code ``ambiguous``.
        """
        self.joined()
        if ref in self.services:
            return self.services[ref]
        for record in self.services.values():
            if record.spec.name == ref:
                return record
        return self.services[_one(ref, self.services, "service")]

    def find_task(self, ref: str) -> TaskRecord:
        """By id or unique id prefix, or by ``service.slot`` (the newest)."""
        self.joined()
        if ref in self.tasks:
            return self.tasks[ref]
        named = [r for r in self.tasks.values() if f"{r.task.spec.name}.{r.task.slot}" == ref]
        if named:
            return max(named, key=lambda r: r.made_at)
        return self.tasks[_one(ref, self.tasks, "task")]

    def find_node(self, ref: str) -> Node:
        """By id, hostname or unique id prefix; ``self`` is this node."""
        cluster = self.joined()
        if ref == "self":
            return self.nodes[cluster.node_id]
        for node in self.nodes.values():
            if ref in (node.id, node.hostname):
                return node
        return self.nodes[_one(ref, self.nodes, "node")]


def _one(ref: str, among: Iterable[str], what: str) -> str:
    found = [key for key in among if ref and key.startswith(ref)]
    if len(found) > 1:
        raise InvalidArgument(
            f"{what} {ref} is ambiguous ({len(found)} matches found)", code="ambiguous"
        )
    if not found:
        raise NotFound(f"{what} {ref} not found", code=f"{what}_not_found")
    return found[0]


def _key(record: Record) -> str:
    if isinstance(record, Cluster):
        return CLUSTER_KEY
    if isinstance(record, Node):
        return NODES + record.id
    if isinstance(record, ServiceRecord):
        return SERVICES + record.id
    return TASKS + record.id
