"""The driver: what the API asks of the cluster, and the loop that keeps it so."""

import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Literal, Self, cast

import attrs
import trio

from linkspan.plugins.swarm.agent import Agent
from linkspan.plugins.swarm.config import SwarmConfig
from linkspan.plugins.swarm.ingress import Ingress, binding
from linkspan.plugins.swarm.reconcile import (
    Reconciler,
    change_of,
    paused,
    rolling,
    start_rollback,
    start_update,
)
from linkspan.plugins.swarm.records import ServiceRecord, TaskRecord, new_id, same_tasks
from linkspan.plugins.swarm.store import Change, ClusterStore
from linkspan.plugins.swarm.validation import check_spec
from linkspan.sdk.drivers.orchestrator import Orchestrator, OrchestratorCap, RolloutProgress
from linkspan.sdk.drivers.scheduler import NodeView
from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound, Unavailable
from linkspan.sdk.events import Event
from linkspan.sdk.host import Host
from linkspan.sdk.model.service import (
    Cluster,
    Node,
    Service,
    ServicePort,
    ServiceSpec,
    Task,
    TaskState,
)

log = logging.getLogger("linkspan.swarm")

FULL_PASS_S = 60.0


class SwarmOrchestrator(Orchestrator[SwarmConfig]):
    """Docker's swarm mode on one node; see ``linkspan.sdk.drivers.orchestrator``."""

    config_type = SwarmConfig

    def __init__(self, config: SwarmConfig, host: Host) -> None:
        self._config = config
        self._host = host
        self._store = ClusterStore(lambda: host.driver("state"))
        self._ingress = Ingress(lambda: host.driver("network"), self._store)
        self._agent = Agent(
            host, self._store, drain_s=config.drain_s, unbalanced=self._ingress.left
        )

    @classmethod
    @asynccontextmanager
    async def open(cls, config: SwarmConfig, host: Host) -> AsyncIterator[Self]:
        """Read the cluster's records and go on keeping them true."""
        self = cls(config, host)
        await self._store.load()
        await host.start_task(self._ingress.run, name="swarm ingress")
        await host.start_task(self._agent.run, name="swarm agent")
        await host.start_task(self._control, name="swarm control")
        yield self

    @property
    def capabilities(self) -> OrchestratorCap:
        """What it can on one node."""
        return OrchestratorCap.ROLLING | OrchestratorCap.HEALTH_GATE | OrchestratorCap.ROLLBACK

    # -- the control loop ---------------------------------------------------------------------

    async def _control(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        task_status.started()
        while True:
            changed = self._store.changed
            look_again_at = time.time() + FULL_PASS_S
            for service_id in list(self._store.services):
                look_again_at = min(look_again_at, await self._reconcile(service_id))
            await self._end_orphans()
            await self._schedule()
            with trio.move_on_after(max(0.0, look_again_at - time.time())):
                await changed.wait()

    async def _reconcile(self, service_id: str) -> float:
        found: list[float] = []
        gone: list[TaskRecord] = []

        def decide() -> Change | None:
            record = self._store.services.get(service_id)
            if record is None:
                return None
            decisions = Reconciler(
                record, self._store.tasks_of(service_id), now=time.time(), stamp=_stamp()
            ).run()
            found.append(decisions.look_again_at)
            gone.extend(decisions.gone)
            return change_of(decisions, record)

        await self._store.change(decide)
        await self._forget_containers(gone)
        return found[0] if found else float("inf")

    async def _forget_containers(self, gone: list[TaskRecord]) -> None:
        for record in gone:
            if record.task.container_id:
                await self._agent.remove(record.task.container_id)

    async def _end_orphans(self) -> None:
        """Tasks of removed services end; ended ones are forgotten."""
        gone: list[TaskRecord] = []

        def decide() -> Change | None:
            orphans = [
                t
                for t in self._store.tasks.values()
                if t.task.service_id not in self._store.services
            ]
            gone.extend(t for t in orphans if t.ended)
            ending = [
                attrs.evolve(t, task=attrs.evolve(t.task, desired=TaskState.REMOVE))
                for t in orphans
                if not t.ended and t.task.desired < TaskState.REMOVE
            ]
            return Change(ending, gone)

        await self._store.change(decide)
        await self._forget_containers(gone)

    async def _schedule(self) -> None:
        """Give every task without a node one, or say why there is none."""

        def decide() -> Change | None:
            waiting = [t for t in self._store.tasks.values() if t.active and not t.task.node_id]
            if not waiting:
                return None
            views = [
                NodeView(
                    node=node,
                    tasks=tuple(
                        t.task
                        for t in self._store.tasks.values()
                        if t.task.node_id == node.id and not t.ended
                    ),
                )
                for node in self._store.nodes.values()
            ]
            decisions = self._host.driver("scheduler").place([t.task for t in waiting], views)
            changed = []
            for record, decision in zip(waiting, decisions, strict=True):
                if decision.node_id is not None:
                    task = attrs.evolve(
                        record.task,
                        node_id=decision.node_id,
                        state=TaskState.ASSIGNED,
                        message="scheduler assigned task to node",
                        error="",
                    )
                else:
                    task = attrs.evolve(
                        record.task, state=TaskState.PENDING, error=decision.explain()
                    )
                if task != record.task:
                    changed.append(attrs.evolve(record, task=task))
            return Change(changed)

        await self._store.change(decide)

    # -- cluster and nodes --------------------------------------------------------------------

    async def cluster(self) -> Cluster | None:
        """The cluster, or None."""
        return self._store.cluster

    async def init(self, *, advertise_address: str = "") -> Cluster:
        """Make a cluster of this node."""
        if self._store.cluster is not None:
            raise Unavailable(
                'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and '
                "join another one.",
                code="already_in_swarm",
            )
        stamp = _stamp()
        node = Node(
            id=new_id(),
            hostname=socket.gethostname(),
            address=advertise_address or "127.0.0.1",
            nano_cpus=(os.cpu_count() or 1) * 10**9,
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            engine_version=self._host.daemon.version,
            created_at=stamp,
            version=1,
        )
        cluster = Cluster(id=new_id(), created_at=stamp, node_id=node.id, version=1)
        await self._store.change(lambda: Change([cluster, node]))
        self._tell("node", "create", node.id, name=node.hostname)
        return cluster

    async def leave(self, *, force: bool = False) -> None:
        """End all services and the cluster."""
        cluster = self._store.joined()
        if not force:
            raise Unavailable(
                "You are attempting to leave the swarm on a node that is participating as a manager. "
                "Removing the last manager erases all current state of the swarm. Use `--force` to ignore "
                "this message.",
                code="last_manager",
                help="linkspan swarm leave --force",
            )
        for record in list(self._store.services.values()):
            await self.remove_service(record.id)
        while self._store.tasks:
            changed = self._store.changed
            if self._store.tasks:
                await changed.wait()
        nodes = list(self._store.nodes.values())
        await self._store.change(lambda: Change(remove=[cluster, *nodes]))

    async def list_nodes(self) -> list[Node]:
        """All nodes."""
        self._store.joined()
        return list(self._store.nodes.values())

    async def get_node(self, node: str) -> Node:
        """One node."""
        return self._store.find_node(node)

    async def update_node(
        self, node: str, *, availability: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Node:
        """Change availability or labels; draining ends the node's tasks."""
        found = self._store.find_node(node)
        if availability not in (None, "active", "pause", "drain"):
            raise InvalidArgument(f"invalid availability '{availability}': active, pause or drain")
        chosen = cast('Literal["active", "pause", "drain"]', availability or found.availability)

        def decide() -> Change:
            current = self._store.nodes[found.id]
            changed = attrs.evolve(
                current,
                availability=chosen,
                labels=current.labels if labels is None else dict(labels),
                version=current.version + 1,
            )
            ending = []
            if chosen == "drain":
                ending = [
                    attrs.evolve(t, task=attrs.evolve(t.task, desired=TaskState.SHUTDOWN))
                    for t in self._store.tasks.values()
                    if t.task.node_id == found.id and t.active
                ]
            return Change([changed, *ending])

        await self._store.change(decide)
        self._tell("node", "update", found.id, name=found.hostname)
        return self._store.nodes[found.id]

    # -- services -----------------------------------------------------------------------------

    async def create_service(self, spec: ServiceSpec) -> Service:
        """Record a service; its ports are taken at once."""
        self._store.joined()
        check_spec(spec)
        self._refuse_taken_name(spec.name)
        ports = await self._take_ports(spec.ports, ())
        stamp = _stamp()
        service = Service(
            id=new_id(), version=1, spec=spec, created_at=stamp, updated_at=stamp, ports=ports
        )

        def decide() -> Change:
            self._refuse_taken_name(spec.name)
            return Change([ServiceRecord(service=service)])

        try:
            await self._store.change(decide)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._give_back(ports, ())
            raise
        self._tell("service", "create", service.id, name=spec.name)
        return service

    def _refuse_taken_name(self, name: str) -> None:
        if any(r.spec.name == name for r in self._store.services.values()):
            raise Conflict(
                f"rpc error: code = AlreadyExists desc = name conflicts with an existing object: service "
                f"{name} already exists",
                code="name_taken",
                help=f"linkspan service update {name}, or service rm {name}",
            )

    async def _take_ports(
        self, wanted: tuple[ServicePort, ...], have: tuple[ServicePort, ...]
    ) -> tuple[ServicePort, ...]:
        """Reserve what is new; on failure give it back."""
        free = list(have)
        taken: list[ServicePort] = []
        fresh: list[ServicePort] = []
        try:
            for port in wanted:
                kept = next((p for p in free if _serves(p, port)), None)
                if kept is not None:
                    free.remove(kept)
                    taken.append(kept)
                elif port.mode == "host":
                    taken.append(port)
                else:
                    fresh.append(await self._reserve(port))
                    taken.append(fresh[-1])
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._give_back(tuple(fresh), ())
            raise
        return tuple(taken)

    async def _reserve(self, port: ServicePort) -> ServicePort:
        for other in self._store.services.values():
            for taken in other.service.ports:
                if (
                    taken.mode == "ingress"
                    and port.published_port
                    and binding(taken).host_port == port.published_port
                    and taken.protocol == port.protocol
                ):
                    raise Conflict(
                        f"port '{port.published_port}' is already in use by service '{other.spec.name}' "
                        f"({other.id}) as an ingress port",
                        code="port_taken",
                        details={"port": port.published_port, "holder": other.spec.name},
                    )
        if port.published_port:
            return await self._ingress.reserve(port)
        for number in range(self._config.first_port, self._config.last_port + 1):
            if any(
                p.published_port == number
                for r in self._store.services.values()
                for p in r.service.ports
            ):
                continue
            try:
                return await self._ingress.reserve(attrs.evolve(port, published_port=number))
            except Conflict:
                continue
        raise Unavailable("no dynamic port is free", code="ports_exhausted")

    async def _give_back(
        self, ports: tuple[ServicePort, ...], keep: tuple[ServicePort, ...]
    ) -> None:
        for port in ports:
            if port.mode == "ingress" and port not in keep:
                await self._ingress.release(port)

    async def update_service(
        self, service: str, spec: ServiceSpec, *, version: int | None = None
    ) -> Service:
        """Record another spec; a rollout begins if it makes other tasks."""
        record = self._store.find_service(service)
        check_spec(spec)
        if spec.name != record.spec.name:
            raise InvalidArgument("renaming services is not supported")
        _check_version(record, version)
        before = record.service.ports
        ports = await self._take_ports(spec.ports, before)

        def decide() -> Change:
            current = self._store.services[record.id]
            _check_version(current, version)
            changed = start_update(current, spec, stamp=_stamp())
            return Change(
                [attrs.evolve(changed, service=attrs.evolve(changed.service, ports=ports))]
            )

        try:
            await self._store.change(decide)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._give_back(ports, before)
            raise
        await self._give_back(before, ports)
        self._tell("service", "update", record.id, name=spec.name)
        return self._shown(self._store.services[record.id])

    async def rollback_service(self, service: str) -> Service:
        """Want the spec before the last update again."""
        record = self._store.find_service(service)
        if record.service.previous_spec is None:
            raise InvalidArgument(
                f"rpc error: code = FailedPrecondition desc = service {record.spec.name} does not have a "
                "previous spec",
                code="no_previous_spec",
            )
        ports = await self._take_ports(record.service.previous_spec.ports, record.service.ports)

        def decide() -> Change:
            current = self._store.services[record.id]
            changed = start_rollback(current, "manually requested rollback", stamp=_stamp())
            return Change(
                [attrs.evolve(changed, service=attrs.evolve(changed.service, ports=ports))]
            )

        await self._store.change(decide)
        await self._give_back(record.service.ports, ports)
        self._tell("service", "update", record.id, name=record.spec.name)
        return self._shown(self._store.services[record.id])

    async def scale_service(self, service: str, replicas: int) -> Service:
        """Want another number of replicas."""
        record = self._store.find_service(service)
        if record.spec.mode != "replicated":
            raise InvalidArgument("scale can only be used with replicated mode")
        return await self.update_service(service, attrs.evolve(record.spec, replicas=replicas))

    async def remove_service(self, service: str) -> None:
        """Forget a service; its tasks end."""
        record = self._store.find_service(service)
        await self._store.change(lambda: Change(remove=[record]))
        await self._give_back(record.service.ports, ())
        self._tell("service", "remove", record.id, name=record.spec.name)

    async def get_service(self, service: str) -> Service:
        """One service, with its task counts."""
        return self._shown(self._store.find_service(service))

    def _shown(self, record: ServiceRecord) -> Service:
        tasks = self._store.tasks_of(record.id)
        running = sum(t.active and t.task.state is TaskState.RUNNING for t in tasks)
        desired = record.spec.replicas if record.spec.mode == "replicated" else 1
        return attrs.evolve(record.service, running_tasks=running, desired_tasks=desired)

    async def list_services(self) -> list[Service]:
        """All services by name."""
        self._store.joined()
        shown = [self._shown(record) for record in self._store.services.values()]
        return sorted(shown, key=lambda service: service.spec.name)

    async def list_tasks(self, *, service: str = "", node: str = "") -> list[Task]:
        """Tasks, newest first within a slot."""
        self._store.joined()
        records = list(self._store.tasks.values())
        if service:
            wanted = self._store.find_service(service).id
            records = [r for r in records if r.task.service_id == wanted]
        if node:
            place = self._store.find_node(node).id
            records = [r for r in records if r.task.node_id == place]
        records.sort(key=lambda r: (r.task.spec.name, r.task.slot, -r.made_at))
        return [record.task for record in records]

    async def get_task(self, task: str) -> Task:
        """One task."""
        return self._store.find_task(task).task

    # -- watching -----------------------------------------------------------------------------

    @asynccontextmanager
    async def rollout(self, service: str) -> AsyncIterator[AsyncIterator[RolloutProgress]]:
        """Progress of the current change."""
        record = self._store.find_service(service)
        yield self._progress(record.id)

    async def _progress(self, service_id: str) -> AsyncIterator[RolloutProgress]:
        last: RolloutProgress | None = None
        while True:
            changed = self._store.changed
            record = self._store.services.get(service_id)
            if record is None:
                raise NotFound(f"service {service_id} was removed", code="service_not_found")
            moment = self._moment(record)
            if moment != last:
                last = moment
                yield moment
                if moment.done:
                    return
            await changed.wait()

    def _moment(self, record: ServiceRecord) -> RolloutProgress:
        tasks = self._store.tasks_of(record.id)
        running = [t for t in tasks if t.active and t.task.state is TaskState.RUNNING]
        current = [t for t in running if same_tasks(t.task.spec, record.spec)]
        failed = sorted((t for t in tasks if t.failed), key=lambda t: t.ended_at)
        rollout = record.service.rollout
        stopped = paused(record) or bool(record.gave_up)
        done = stopped or (record.settled and not rolling(record))
        return RolloutProgress(
            service=self._shown(record),
            rollout=rollout,
            tasks=tuple(t.task for t in sorted(tasks, key=lambda t: (t.task.slot, t.made_at))),
            running=len(running),
            desired=record.spec.replicas if record.spec.mode == "replicated" else 1,
            updated=len(current),
            done=done,
            failed=done and (stopped or record.rolled_back),
            failures=tuple(f"{t.task.spec.name}.{t.task.slot}: {t.task.error}" for t in failed),
        )

    def _tell(self, kind: str, action: str, actor: str, **facts: str) -> None:
        self._host.engine.events.publish(
            Event(type=kind, action=action, actor_id=actor, attributes=facts, scope="swarm")
        )


def _serves(have: ServicePort, wanted: ServicePort) -> bool:
    if (have.target_port, have.protocol, have.mode) != (
        wanted.target_port,
        wanted.protocol,
        wanted.mode,
    ):
        return False
    return wanted.published_port in (0, have.published_port)


def _check_version(record: ServiceRecord, version: int | None) -> None:
    if version is not None and version != record.service.version:
        raise Conflict(
            "rpc error: code = Unknown desc = update out of sequence",
            code="out_of_sequence",
            details={"current": record.service.version, "given": version},
        )


def _stamp() -> str:
    now = time.time_ns()
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9))
    return f"{whole}.{now % 10**9:09d}Z"
