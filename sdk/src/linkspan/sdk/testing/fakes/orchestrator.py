"""An orchestrator in memory: its tasks run because it says so.

A task takes one step of ``step_s`` to run. Images in ``broken`` never do. Updates start the new task of a
slot before the old one ends, one slot at a time, and obey the failure action.
"""

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from itertools import count
from typing import Any, Literal, Self, TypeVar, cast

import attrs
import trio

from linkspan.sdk.clock import rfc3339
from linkspan.sdk.drivers.orchestrator import Orchestrator, OrchestratorCap, RolloutProgress
from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound, Unavailable, Unsupported
from linkspan.sdk.host import Host
from linkspan.sdk.model.service import (
    Cluster,
    ClusterSettings,
    Node,
    Payload,
    PayloadKind,
    PayloadSpec,
    RolloutState,
    RolloutStatus,
    Service,
    ServicePort,
    ServiceSpec,
    Task,
    TaskState,
    UpdatePolicy,
)
from linkspan.sdk.payloads import check_references, out_of_sequence
from linkspan.sdk.placement import parse_constraint
from linkspan.sdk.testing.fakes.payloads import FakePayloads

T = TypeVar("T")

_HOPELESS_FAILURES = 3
_FIRST_PORT = 30000


@attrs.frozen(kw_only=True)
class FakeOrchestratorConfig:
    """How the fake behaves.

    Attributes:
        step_s: How long each step of a change takes.
        broken: Images whose tasks fail.
    """

    step_s: float = 0.0
    broken: Collection[str] = ()


@attrs.define
class _Entry:
    service: Service
    tasks: list[Task] = attrs.field(factory=list)
    failures: tuple[str, ...] = ()
    gave_up: bool = False
    rolled_back: bool = False

    @property
    def spec(self) -> ServiceSpec:
        return self.service.spec

    def active(self) -> list[Task]:
        return [t for t in self.tasks if t.desired is TaskState.RUNNING and not _ended(t)]

    def change(self, task: Task, **facts: Any) -> None:
        changed = attrs.evolve(task, version=task.version + 1, updated_at=rfc3339(), **facts)
        self.tasks[self.tasks.index(task)] = changed

    def rollout(self, state: RolloutState, message: str = "") -> None:
        self.service = attrs.evolve(
            self.service,
            rollout=RolloutStatus(state=state, message=message, started_at=rfc3339()),
            version=self.service.version + 1,
        )


class FakeOrchestrator(Orchestrator[FakeOrchestratorConfig]):
    """Implements the role ``orchestrator``.

    Attributes:
        broken: Images whose tasks fail; a test may change it.
        calls: What was changed, in order: ``create web``, ``scale web 3``.
    """

    config_type = FakeOrchestratorConfig

    def __init__(self, config: FakeOrchestratorConfig) -> None:
        self.broken: set[str] = set(config.broken)
        self.calls: list[str] = []
        self._step_s = config.step_s
        self._cluster: Cluster | None = None
        self._node: Node | None = None
        self._entries: dict[str, _Entry] = {}
        self._payloads = FakePayloads(lambda: [entry.spec for entry in self._entries.values()])
        self._changed = trio.Event()

    @classmethod
    @asynccontextmanager
    async def open(cls, config: FakeOrchestratorConfig, host: Host) -> AsyncIterator[Self]:
        self = cls(config)
        await host.start_task(self._work, name="fake orchestrator")
        yield self

    @property
    def capabilities(self) -> OrchestratorCap:
        return OrchestratorCap.ROLLING | OrchestratorCap.HEALTH_GATE | OrchestratorCap.ROLLBACK

    # -- what happens by itself ---------------------------------------------------------------

    async def _work(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while True:
            changed = self._changed
            await trio.sleep(self._step_s)
            moved = [self._step(entry) for entry in self._entries.values()]
            if any(moved):
                self._tell()
            else:
                await changed.wait()

    def _tell(self) -> None:
        event, self._changed = self._changed, trio.Event()
        event.set()

    def _step(self, entry: _Entry) -> bool:
        """Bring a service one step nearer to what is wanted; whether there was one."""
        return (
            self._leave_node(entry)
            or self._start_one(entry)
            or self._end_surplus(entry)
            or self._make_missing(entry)
            or self._finish(entry)
        )

    def _leave_node(self, entry: _Entry) -> bool:
        gone = [t for t in entry.active() if t.node_id and not self._may_carry(entry)]
        for task in gone:
            entry.change(task, desired=TaskState.SHUTDOWN, state=TaskState.SHUTDOWN)
        return bool(gone)

    def _may_carry(self, entry: _Entry) -> bool:
        node = self._node
        return (
            node is not None
            and node.availability == "active"
            and all(parse_constraint(t).holds(node) for t in entry.spec.placement.constraints)
        )

    def _start_one(self, entry: _Entry) -> bool:
        waiting = next((t for t in entry.active() if t.state is TaskState.PENDING), None)
        if waiting is None or not self._may_carry(entry):
            return False
        assert self._node is not None
        if waiting.spec.container.image in self.broken:
            reason = f"the fake runs no {waiting.spec.container.image}"
            entry.change(waiting, state=TaskState.FAILED, error=reason, node_id=self._node.id)
            self._failed(entry, f"{entry.spec.name}.{waiting.slot}: {reason}")
            return True
        for old in entry.active():
            if old.slot == waiting.slot and old is not waiting:
                entry.change(old, desired=TaskState.SHUTDOWN, state=TaskState.SHUTDOWN)
        entry.change(waiting, state=TaskState.RUNNING, node_id=self._node.id, error="")
        return True

    def _failed(self, entry: _Entry, reason: str) -> None:
        entry.failures = (*entry.failures, reason)
        rollout = entry.service.rollout
        action = (entry.spec.update or UpdatePolicy()).failure_action
        if rollout is not None and rollout.state is RolloutState.UPDATING and action != "continue":
            if action == "rollback" and entry.service.previous_spec is not None:
                self._go_back(entry, f"update rolled back due to failure of {reason}")
                entry.rolled_back = True
            else:
                entry.rollout(RolloutState.PAUSED, f"update paused due to failure of {reason}")
        elif rollout is not None and rollout.state is RolloutState.ROLLBACK_STARTED:
            entry.rollout(RolloutState.ROLLBACK_PAUSED, f"rollback paused due to {reason}")
        elif len(entry.failures) >= _HOPELESS_FAILURES:
            entry.gave_up = True

    def _end_surplus(self, entry: _Entry) -> bool:
        slots = sorted({t.slot for t in entry.active()})
        wanted = self._wanted(entry)
        for task in entry.active():
            if task.slot in slots[wanted:]:
                entry.tasks.remove(task)
        return len(slots) > wanted

    def _wanted(self, entry: _Entry) -> int:
        return int(self._may_carry(entry)) if entry.spec.is_global else entry.spec.replicas

    def _make_missing(self, entry: _Entry) -> bool:
        if entry.gave_up or _paused(entry):
            return False
        active = entry.active()
        waiting = [t for t in active if t.state is TaskState.PENDING]
        slots = {t.slot for t in active}
        if len(slots) < self._wanted(entry):
            first = 0 if entry.spec.is_global else 1
            self._make(entry, next(slot for slot in count(first) if slot not in slots))
            return True
        old = next((t for t in active if t.spec.container != entry.spec.container), None)
        if old is None or waiting:
            return False
        self._make(entry, old.slot)
        return True

    def _make(self, entry: _Entry, slot: int) -> None:
        task = Task(
            id=_new_id(),
            service_id=entry.service.id,
            slot=slot,
            spec=entry.spec,
            spec_version=entry.service.version,
            state=TaskState.PENDING,
            error="" if self._may_carry(entry) else "no suitable node (not available on 1 node)",
            created_at=rfc3339(),
            updated_at=rfc3339(),
        )
        entry.tasks.append(task)

    def _finish(self, entry: _Entry) -> bool:
        rollout = entry.service.rollout
        if not self._as_wanted(entry) or rollout is None or rollout.completed_at:
            return False
        ends = {
            RolloutState.UPDATING: RolloutState.COMPLETED,
            RolloutState.ROLLBACK_STARTED: RolloutState.ROLLBACK_COMPLETED,
        }
        if rollout.state not in ends:
            return False
        done = attrs.evolve(rollout, state=ends[rollout.state], completed_at=rfc3339())
        entry.service = attrs.evolve(entry.service, rollout=done, version=entry.service.version + 1)
        return True

    def _as_wanted(self, entry: _Entry) -> bool:
        active = entry.active()
        return len(active) == self._wanted(entry) and all(
            t.state is TaskState.RUNNING and t.spec.container == entry.spec.container
            for t in active
        )

    # -- cluster and nodes --------------------------------------------------------------------

    def _joined(self) -> Cluster:
        if self._cluster is None:
            raise Unavailable(
                "this node is in no swarm", code="not_in_swarm", help="linkspan swarm init"
            )
        return self._cluster

    async def cluster(self) -> Cluster | None:
        await trio.lowlevel.checkpoint()
        return self._cluster

    async def init(self, *, advertise_address: str = "") -> Cluster:
        await trio.lowlevel.checkpoint()
        if self._cluster is not None:
            raise Unavailable("this node is in a swarm already", code="already_in_swarm")
        self._node = Node(id=_new_id(), hostname="fake", address=advertise_address or "127.0.0.1")
        self._cluster = Cluster(id=_new_id(), created_at=rfc3339(), node_id=self._node.id)
        self.calls.append("init")
        return self._cluster

    async def leave(self, *, force: bool = False) -> None:
        await trio.lowlevel.checkpoint()
        self._joined()
        if not force:
            raise Unavailable("this is the last manager", code="last_manager")
        self._entries.clear()
        self._payloads.known.clear()
        self._cluster = self._node = None
        self._tell()

    async def list_nodes(self) -> list[Node]:
        await trio.lowlevel.checkpoint()
        self._joined()
        return [self._node] if self._node else []

    async def get_node(self, node: str) -> Node:
        nodes = {n.id: n for n in await self.list_nodes()}
        names = {"self": nodes, **{n.hostname: nodes for n in nodes.values()}}
        return next(iter(names[node].values())) if node in names else _find(nodes, node, "node")

    async def update_node(
        self, node: str, *, availability: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Node:
        found = await self.get_node(node)
        if availability not in (None, "active", "pause", "drain"):
            raise InvalidArgument(f"invalid availability '{availability}'")
        self._node = attrs.evolve(
            found,
            availability=cast(
                'Literal["active", "pause", "drain"]', availability or found.availability
            ),
            labels=found.labels if labels is None else dict(labels),
            version=found.version + 1,
        )
        self._tell()
        return self._node

    async def update_cluster(
        self,
        *,
        labels: Mapping[str, str],
        task_history: int,
        version: int,
        settings: ClusterSettings | None = None,
    ) -> Cluster:
        await trio.lowlevel.checkpoint()
        cluster = self._joined()
        if version != cluster.version:
            raise out_of_sequence()
        self._cluster = attrs.evolve(
            cluster,
            labels=dict(labels),
            task_history=task_history,
            version=version + 1,
            settings=settings or cluster.settings,
        )
        return self._cluster

    # -- secrets and configs ------------------------------------------------------------------

    async def create_payload(self, kind: PayloadKind, spec: PayloadSpec) -> Payload:
        await trio.lowlevel.checkpoint()
        self._joined()
        return self._payloads.create(kind, spec)

    async def list_payloads(self, kind: PayloadKind) -> list[Payload]:
        await trio.lowlevel.checkpoint()
        self._joined()
        return self._payloads.list(kind)

    async def get_payload(self, kind: PayloadKind, ref: str) -> Payload:
        await trio.lowlevel.checkpoint()
        self._joined()
        return self._payloads.get(kind, ref)

    async def update_payload(
        self, kind: PayloadKind, ref: str, spec: PayloadSpec, *, version: int
    ) -> Payload:
        await trio.lowlevel.checkpoint()
        self._joined()
        return self._payloads.update(kind, ref, spec, version)

    async def remove_payload(self, kind: PayloadKind, ref: str) -> None:
        await trio.lowlevel.checkpoint()
        self._joined()
        self._payloads.remove(kind, ref)

    # -- services -----------------------------------------------------------------------------

    def _entry(self, ref: str) -> _Entry:
        self._joined()
        for entry in self._entries.values():
            if entry.spec.name == ref:
                return entry
        return _find(self._entries, ref, "service")

    async def create_service(self, spec: ServiceSpec) -> Service:
        await trio.lowlevel.checkpoint()
        self._joined()
        _check(spec)
        check_references(spec, list(self._payloads.known.values()))
        if any(e.spec.name == spec.name for e in self._entries.values()):
            raise Conflict(f"service {spec.name} already exists", code="name_taken")
        now = rfc3339()
        service = Service(
            id=_new_id(),
            version=1,
            spec=spec,
            created_at=now,
            updated_at=now,
            ports=self._ports(spec, None),
        )
        entry = self._entries[service.id] = _Entry(service)
        self._note(f"create {spec.name}")
        return self._shown(entry)

    def _ports(self, spec: ServiceSpec, entry: _Entry | None) -> tuple[ServicePort, ...]:
        taken = {
            (port.protocol, port.published_port): other
            for other in self._entries.values()
            if other is not entry
            for port in other.service.ports
        }
        chosen: list[ServicePort] = []
        for port in spec.ports:
            key = (port.protocol, port.published_port)
            if key in taken and port.mode == "ingress":
                raise Conflict(
                    f"port '{port.published_port}' is already in use by service "
                    f"'{taken[key].spec.name}'",
                    code="port_published",
                )
            if not port.published_port:
                used = {*taken, *((p.protocol, p.published_port) for p in (*chosen, *spec.ports))}
                number = next(n for n in count(_FIRST_PORT) if (port.protocol, n) not in used)
                port = attrs.evolve(port, published_port=number)
            chosen.append(port)
        return tuple(chosen)

    def _note(self, call: str) -> None:
        self.calls.append(call)
        self._tell()

    async def update_service(
        self, service: str, spec: ServiceSpec, *, version: int | None = None
    ) -> Service:
        await trio.lowlevel.checkpoint()
        entry = self._entry(service)
        _check(spec)
        if (spec.name, spec.mode) != (entry.spec.name, entry.spec.mode):
            raise Unsupported("name and mode of a service cannot be changed")
        if version is not None and version != entry.service.version:
            raise Conflict("update out of sequence", code="out_of_sequence")
        self._update(entry, spec)
        self._note(f"update {spec.name} {spec.container.image} {spec.replicas}")
        return self._shown(entry)

    def _update(self, entry: _Entry, spec: ServiceSpec) -> None:
        before, ports = entry.service, self._ports(spec, entry)
        exchanged = spec.container != before.spec.container or _paused(entry)
        entry.service = attrs.evolve(
            before,
            spec=spec,
            previous_spec=before.spec,
            ports=ports,
            version=before.version + 1,
            updated_at=rfc3339(),
            rollout=RolloutStatus(state=RolloutState.UPDATING, started_at=rfc3339())
            if exchanged
            else None,
        )
        self._begin(entry)

    def _begin(self, entry: _Entry) -> None:
        entry.failures, entry.gave_up, entry.rolled_back = (), False, False
        for task in entry.active():
            if task.state is TaskState.PENDING and task.spec.container != entry.spec.container:
                entry.tasks.remove(task)

    async def rollback_service(self, service: str, *, version: int | None = None) -> Service:
        await trio.lowlevel.checkpoint()
        entry = self._entry(service)
        if entry.service.previous_spec is None:
            raise InvalidArgument(
                f"service {entry.spec.name} does not have a previous spec", code="no_previous_spec"
            )
        if version is not None and version != entry.service.version:
            raise Conflict("update out of sequence", code="out_of_sequence")
        self._go_back(entry, "manually requested rollback", asked=True)
        self._note(f"rollback {entry.spec.name}")
        return self._shown(entry)

    def _go_back(self, entry: _Entry, message: str, *, asked: bool = False) -> None:
        previous, failures = entry.service.previous_spec, entry.failures
        assert previous is not None
        entry.service = attrs.evolve(
            entry.service,
            spec=previous,
            previous_spec=entry.spec if asked else None,
            ports=self._ports(previous, entry),
        )
        entry.rollout(RolloutState.ROLLBACK_STARTED, message)
        self._begin(entry)
        entry.failures = failures

    async def scale_service(self, service: str, replicas: int) -> Service:
        await trio.lowlevel.checkpoint()
        entry = self._entry(service)
        if entry.spec.mode != "replicated":
            raise InvalidArgument("scale can only be used with replicated mode")
        spec = attrs.evolve(entry.spec, replicas=replicas)
        _check(spec)
        self._update(entry, spec)
        self._note(f"scale {spec.name} {replicas}")
        return self._shown(entry)

    async def remove_service(self, service: str) -> None:
        await trio.lowlevel.checkpoint()
        entry = self._entry(service)
        del self._entries[entry.service.id]
        self._note(f"remove {entry.spec.name}")

    def _shown(self, entry: _Entry) -> Service:
        return attrs.evolve(
            entry.service,
            running_tasks=sum(t.state is TaskState.RUNNING for t in entry.active()),
            desired_tasks=self._wanted(entry),
        )

    async def get_service(self, service: str) -> Service:
        await trio.lowlevel.checkpoint()
        return self._shown(self._entry(service))

    async def list_services(self) -> list[Service]:
        await trio.lowlevel.checkpoint()
        self._joined()
        return sorted((self._shown(e) for e in self._entries.values()), key=lambda s: s.spec.name)

    async def list_tasks(self, *, service: str = "", node: str = "") -> list[Task]:
        await trio.lowlevel.checkpoint()
        self._joined()
        entries = [self._entry(service)] if service else list(self._entries.values())
        place = (await self.get_node(node)).id if node else ""
        # Later tasks stand later in each list; a stable sort keeps the newest first.
        found = [t for e in entries for t in reversed(e.tasks) if not place or t.node_id == place]
        return sorted(found, key=lambda t: (t.spec.name, t.slot))

    async def get_task(self, task: str) -> Task:
        tasks = {t.id: t for t in await self.list_tasks()}
        return _find(tasks, task, "task")

    @asynccontextmanager
    async def rollout(self, service: str) -> AsyncIterator[AsyncIterator[RolloutProgress]]:
        await trio.lowlevel.checkpoint()
        entry = self._entry(service)
        async with aclosing(self._follow(entry)) as moments:
            yield moments

    async def _follow(self, entry: _Entry) -> AsyncGenerator[RolloutProgress, None]:
        last = None
        while True:
            changed = self._changed
            if entry.service.id not in self._entries:
                raise NotFound(f"service {entry.spec.name} was removed", code="service_not_found")
            moment = self._moment(entry)
            if moment != last:
                last = moment
                yield moment
                if moment.done:
                    return
            await changed.wait()

    def _moment(self, entry: _Entry) -> RolloutProgress:
        service, active = self._shown(entry), entry.active()
        rollout = entry.service.rollout
        moving = rollout is not None and rollout.state in (
            RolloutState.UPDATING,
            RolloutState.ROLLBACK_STARTED,
        )
        stopped = entry.gave_up or _paused(entry)
        done = stopped or (self._as_wanted(entry) and not moving)
        return RolloutProgress(
            service=service,
            rollout=rollout,
            tasks=tuple(entry.tasks),
            running=service.running_tasks,
            desired=service.desired_tasks,
            updated=sum(
                t.state is TaskState.RUNNING and t.spec.container == entry.spec.container
                for t in active
            ),
            done=done,
            failed=done and (stopped or entry.rolled_back),
            failures=entry.failures,
        )


def _ended(task: Task) -> bool:
    return task.state >= TaskState.COMPLETE


def _paused(entry: _Entry) -> bool:
    rollout = entry.service.rollout
    return rollout is not None and rollout.state in (
        RolloutState.PAUSED,
        RolloutState.ROLLBACK_PAUSED,
    )


def _check(spec: ServiceSpec) -> None:
    if not spec.name or not spec.container.image:
        raise InvalidArgument("a service has a name and an image")
    if spec.replicas < 0:
        raise InvalidArgument(f"a service cannot have {spec.replicas} replicas")
    for text in spec.placement.constraints:
        parse_constraint(text)


def _new_id() -> str:
    return secrets.token_hex(12)


def _find(among: Mapping[str, T], ref: str, what: str) -> T:
    found: Sequence[str] = (
        [ref] if ref in among else [k for k in among if ref and k.startswith(ref)]
    )
    if len(found) > 1:
        raise InvalidArgument(f"{what} {ref} is ambiguous", code="ambiguous")
    if not found:
        raise NotFound(f"{what} {ref} not found", code=f"{what}_not_found")
    return among[found[0]]
