"""The cluster in memory, written through to the state store.

There is one writer, this process. If another has written all the same, the commit fails with Conflict
and the model is read again. Whoever waits for a change gets an event.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import trio

from linkspan.plugins.swarm.records import (
    CLUSTER_KEY,
    NODES,
    PAYLOADS,
    SERVICES,
    TASKS,
    PayloadRecord,
    Record,
    ServiceRecord,
    TaskRecord,
    dump,
    load,
)
from linkspan.sdk.drivers.state import Delete, Operation, Put, State
from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound, Unavailable
from linkspan.sdk.model.service import Cluster, Node
from linkspan.sdk.values import frozen

# A transaction of the role ``state`` has at most 1,000.
MOST_OPERATIONS = 500


@frozen
class Change:
    """Records to write and records to remove.

    Up to ``MOST_OPERATIONS`` records are one transaction; more are several, in this order, which is
    enough for controllers that look again.
    """

    write: Sequence[Record] = ()
    remove: Sequence[Record] = ()

    def parts(self) -> "Iterator[Change]":
        """Itself, in pieces that fit into a transaction."""
        steps = iter([*((r, True) for r in self.write), *((r, False) for r in self.remove)])
        while part := list(islice(steps, MOST_OPERATIONS)):
            yield Change([r for r, put in part if put], [r for r, put in part if not put])


class ClusterStore:
    """Services, tasks and nodes by id."""

    def __init__(self, state: Callable[[], State[Any]]) -> None:
        self._state = state
        self.cluster: Cluster | None = None
        self.nodes: dict[str, Node] = {}
        self.services: dict[str, ServiceRecord] = {}
        self.tasks: dict[str, TaskRecord] = {}
        self.payloads: dict[str, PayloadRecord] = {}
        self._of_service: dict[str, dict[str, TaskRecord]] = defaultdict(dict)
        self._revisions: dict[str, int] = {}
        self._changed = trio.Event()
        self._task_changed: dict[str, trio.Event] = {}
        self._touched: set[str] = set()
        self._touched_tasks: set[str] = set()
        self._turn = trio.Lock()

    async def load(self) -> None:
        """Read everything."""
        entries, _ = await self._state().list("swarm/")
        self.nodes, self.services, self.tasks, self.cluster = {}, {}, {}, None
        self.payloads = {}
        self._of_service.clear()
        self._revisions = {entry.key: entry.revision for entry in entries}
        for entry in entries:
            if entry.key == CLUSTER_KEY:
                self._remember(load(entry.value, Cluster))
            elif entry.key.startswith(NODES):
                self._remember(load(entry.value, Node))
            elif entry.key.startswith(SERVICES):
                self._remember(load(entry.value, ServiceRecord))
            elif entry.key.startswith(TASKS):
                self._remember(load(entry.value, TaskRecord))
            elif entry.key.startswith(PAYLOADS):
                self._remember(load(entry.value, PayloadRecord))

    # -- waiting ------------------------------------------------------------------------------

    @property
    def changed(self) -> trio.Event:
        """Set at the next change; take it before looking at what you wait for."""
        return self._changed

    def task_changed(self, task_id: str) -> trio.Event:
        """Set at the next change of one task."""
        return self._task_changed.setdefault(task_id, trio.Event())

    def take_touched(self) -> set[str]:
        """Ids of services that need a look since the last call; also removed ones."""
        touched, self._touched = self._touched, set()
        return touched

    def take_touched_tasks(self) -> set[str]:
        """Ids of tasks that changed since the last call."""
        touched, self._touched_tasks = self._touched_tasks, set()
        return touched

    def _tell(self) -> None:
        event, self._changed = self._changed, trio.Event()
        event.set()

    def _touch(self, record: Record) -> None:
        if isinstance(record, TaskRecord):
            self._touched.add(record.task.service_id)
            self._touched_tasks.add(record.id)
            event = self._task_changed.pop(record.id, None)
            if event is not None:
                event.set()
        elif isinstance(record, ServiceRecord):
            self._touched.add(record.id)
        elif not isinstance(record, PayloadRecord):
            self._touched.update(self.services)

    # -- changing -----------------------------------------------------------------------------

    async def change(self, decide: Callable[[], Change | None], *, durable: bool = True) -> None:
        """Decide on a change and make it, with nobody else in between.

        Args:
            decide: Called with the turn held; returns what to write and what to remove, or None.
            durable: Write it to the state store; False for what is observed again after a crash.

        Raises:
            Conflict: Somebody outside this process wrote meanwhile; everything was read again.
            OutOfSpace: Nothing was written.
        If cancelled: made or not, never half.
        """
        async with self._turn:
            change = decide()
            if change is None:
                return
            for part in change.parts():
                if durable:
                    await self._commit(part)
                for record in part.write:
                    self._remember(record)
                    self._touch(record)
                for record in part.remove:
                    self._revisions.pop(_key(record), None)
                    self._drop(record)
                    self._touch(record)
                self._tell()

    async def _commit(self, change: Change) -> None:
        # The commit is not torn apart from the memory by a cancellation.
        with trio.CancelScope(shield=True):
            try:
                revision = await self._state().commit(*self._operations(change))
            except Conflict:
                await self.load()
                self._touched.update(self.services)
                self._touched_tasks.update(self.tasks)
                self._tell()
                raise
        for record in change.write:
            self._revisions[_key(record)] = revision

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
        elif isinstance(record, PayloadRecord):
            self.payloads[record.id] = record
        else:
            self.tasks[record.id] = record
            self._of_service[record.task.service_id][record.id] = record

    def _drop(self, record: Record) -> None:
        if isinstance(record, Cluster):
            self.cluster = None
        elif isinstance(record, Node):
            self.nodes.pop(record.id, None)
        elif isinstance(record, ServiceRecord):
            self.services.pop(record.id, None)
        elif isinstance(record, PayloadRecord):
            self.payloads.pop(record.id, None)
        else:
            self.tasks.pop(record.id, None)
            siblings = self._of_service[record.task.service_id]
            siblings.pop(record.id, None)
            if not siblings:
                del self._of_service[record.task.service_id]

    # -- looking ------------------------------------------------------------------------------

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
        """All tasks of a service, also ended ones and those of a service that was removed."""
        return list(self._of_service.get(service_id, {}).values())

    def services_with_tasks(self) -> list[str]:
        """Ids of services that tasks are left of, also removed services."""
        return list(self._of_service)

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
            if record.spec.name.lower() == ref.lower():
                return record
        return self.services[_one(ref, self.services, "service")]

    def find_task(self, ref: str) -> TaskRecord:
        """By id, by name or by ``service.slot`` (the newest), or by unique id prefix."""
        self.joined()
        if ref in self.tasks:
            return self.tasks[ref]
        slot, _, task_id = ref.rpartition(".")
        if task_id in self.tasks and slot:
            return self.tasks[task_id]
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
    if isinstance(record, PayloadRecord):
        return PAYLOADS + record.id
    return TASKS + record.id
