"""The driver: what the API asks of the cluster."""

import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Literal, Self, cast

import attrs
import trio

from linkspan.plugins.swarm.agent import Agent
from linkspan.plugins.swarm.config import SwarmConfig
from linkspan.plugins.swarm.control import Control
from linkspan.plugins.swarm.ingress import Ingress
from linkspan.plugins.swarm.networks import ServiceNetworks
from linkspan.plugins.swarm.payloads import Payloads
from linkspan.plugins.swarm.ports import PortBook
from linkspan.plugins.swarm.progress import follow, shown
from linkspan.plugins.swarm.reconcile import start_rollback, start_update, wanted_count
from linkspan.plugins.swarm.records import ServiceRecord, new_id, stamp
from linkspan.plugins.swarm.store import Change, ClusterStore
from linkspan.plugins.swarm.validation import check_change, check_spec
from linkspan.sdk.drivers.orchestrator import Orchestrator, OrchestratorCap, RolloutProgress
from linkspan.sdk.errors import Conflict, InvalidArgument, Unavailable
from linkspan.sdk.events import Event
from linkspan.sdk.generic_resources import parse_generic_resources
from linkspan.sdk.host import Host
from linkspan.sdk.model.service import (
    Cluster,
    ClusterSettings,
    Node,
    Payload,
    PayloadKind,
    PayloadSpec,
    RolloutState,
    Service,
    ServiceSpec,
    Task,
)
from linkspan.sdk.payloads import out_of_sequence
from linkspan.sdk.platform import host_platform


class SwarmOrchestrator(Orchestrator[SwarmConfig]):
    """Docker's swarm mode on one node; see ``linkspan.sdk.drivers.orchestrator``."""

    config_type = SwarmConfig

    def __init__(
        self, config: SwarmConfig, host: Host, *, now: Callable[[], float] = time.time
    ) -> None:
        self._host = host
        self._now = now
        self._store = ClusterStore(lambda: host.driver("state"))
        # One change of services at a time: names, ports and leaving don't mix.
        self._turn = trio.Lock()
        self._ingress = Ingress(lambda: host.driver("network"), self._store)
        self._ports = PortBook(config, self._store, self._ingress)
        self._payloads = Payloads(host, self._store, now=now)
        self._networks = ServiceNetworks(host)
        self._agent = Agent(
            host,
            self._store,
            self._payloads,
            self._networks,
            drain_s=config.drain_s,
            left=self._ingress.left,
            now=now,
        )
        self._control = Control(host, self._store, self._ports, turn=self._turn, now=now)

    @classmethod
    @asynccontextmanager
    async def open(cls, config: SwarmConfig, host: Host) -> AsyncIterator[Self]:
        """Read the cluster's records and go on keeping them true."""
        if config.first_port > config.last_port:
            raise InvalidArgument("[orchestrator.swarm]: first-port is larger than last-port")
        self = cls(config, host)
        await self.start()
        yield self

    async def start(self) -> None:
        """Read the records and begin the work in the background."""
        await self._store.load()
        await self._refresh_node()
        await self._host.start_task(self._ingress.run, name="swarm ingress")
        await self._host.start_task(self._agent.run, name="swarm agent")
        await self._host.start_task(self._control.run, name="swarm control")

    @property
    def capabilities(self) -> OrchestratorCap:
        """What it can on one node."""
        return OrchestratorCap.ROLLING | OrchestratorCap.HEALTH_GATE | OrchestratorCap.ROLLBACK

    # -- cluster and nodes --------------------------------------------------------------------

    async def cluster(self) -> Cluster | None:
        """The cluster, or None."""
        return self._store.cluster

    async def init(self, *, advertise_address: str = "") -> Cluster:
        """Make a cluster of this node."""
        now = stamp(self._now())
        node = self._described(
            Node(
                id=new_id(),
                hostname=socket.gethostname(),
                address=advertise_address or "127.0.0.1",
                created_at=now,
                version=1,
            )
        )
        cluster = Cluster(id=new_id(), created_at=now, node_id=node.id, version=1)

        def decide() -> Change:
            if self._store.cluster is not None:
                raise Unavailable(
                    'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm '
                    "and join another one.",
                    code="already_in_swarm",
                )
            return Change([cluster, node])

        await self._store.change(decide)
        states = {"state.old": "unknown", "state.new": "ready"}
        self._tell("node", "update", node.id, name=node.hostname, **states)
        return cluster

    def _described(self, node: Node) -> Node:
        """With what this machine is now."""
        daemon = self._host.daemon
        return attrs.evolve(
            node,
            hostname=socket.gethostname(),
            nano_cpus=(os.cpu_count() or 1) * 10**9,
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            generic_resources=parse_generic_resources(daemon.generic_resources),
            engine_version=daemon.version,
            engine_labels=dict(label.split("=", 1) for label in daemon.labels),
            platform=host_platform(),
        )

    async def _refresh_node(self) -> None:
        def decide() -> Change | None:
            cluster = self._store.cluster
            node = self._store.nodes.get(cluster.node_id) if cluster else None
            if node is None or node == self._described(node):
                return None
            return Change([attrs.evolve(self._described(node), version=node.version + 1)])

        await self._store.change(decide)

    async def leave(self, *, force: bool = False) -> None:
        """End all services, the cluster, and its networks.

        If cancelled: services are gone, and perhaps the cluster is not; leave again.
        """
        self._store.joined()
        if not force:
            raise Unavailable(
                "You are attempting to leave the swarm on a node that is participating as a manager. "
                "Removing the last manager erases all current state of the swarm. Use `--force` to ignore "
                "this message.",
                code="last_manager",
                help="linkspan swarm leave --force",
            )
        async with self._turn:
            cluster = self._store.joined()
            for record in list(self._store.services.values()):
                await self._remove(record)
            while True:
                changed = self._store.changed
                if not self._store.tasks:
                    break
                await changed.wait()
            nodes = list(self._store.nodes.values())
            payloads = list(self._store.payloads.values())
            await self._store.change(lambda: Change(remove=[*nodes, *payloads, cluster]))
        await self._networks.remove_all()

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
        """Change availability or labels; tasks that may not be there any more end."""
        found = self._store.find_node(node)
        if availability not in (None, "active", "pause", "drain"):
            raise InvalidArgument(f"invalid availability '{availability}': active, pause or drain")
        chosen = cast('Literal["active", "pause", "drain"]', availability or found.availability)

        def decide() -> Change:
            current = self._store.nodes[found.id]
            return Change(
                [
                    attrs.evolve(
                        current,
                        availability=chosen,
                        labels=current.labels if labels is None else dict(labels),
                        version=current.version + 1,
                    )
                ]
            )

        await self._store.change(decide)
        facts = _differing("availability", found.availability, chosen)
        self._tell("node", "update", found.id, name=found.hostname, **facts)
        return self._store.nodes[found.id]

    async def update_cluster(
        self,
        *,
        labels: Mapping[str, str],
        task_history: int,
        version: int,
        settings: ClusterSettings | None = None,
    ) -> Cluster:
        """Change what the cluster keeps."""

        def decide() -> Change:
            cluster = self._store.joined()
            if cluster.version != version:
                raise out_of_sequence()
            changed = attrs.evolve(
                cluster,
                labels=dict(labels),
                task_history=task_history,
                version=version + 1,
                updated_at=stamp(self._now()),
                settings=settings or cluster.settings,
            )
            return Change([changed])

        await self._store.change(decide)
        return self._store.joined()

    # -- secrets and configs ------------------------------------------------------------------

    async def create_payload(self, kind: PayloadKind, spec: PayloadSpec) -> Payload:
        """Keep a secret or config, sealed."""
        made = await self._payloads.create(kind, spec)
        self._tell(kind, "create", made.id, name=spec.name)
        return made

    async def list_payloads(self, kind: PayloadKind) -> list[Payload]:
        """All of a kind."""
        return self._payloads.list(kind)

    async def get_payload(self, kind: PayloadKind, ref: str) -> Payload:
        """One of a kind."""
        return await self._payloads.get(kind, ref)

    async def update_payload(
        self, kind: PayloadKind, ref: str, spec: PayloadSpec, *, version: int
    ) -> Payload:
        """Change the labels of one."""
        changed = await self._payloads.update(kind, ref, spec, version)
        self._tell(kind, "update", changed.id, name=changed.spec.name)
        return changed

    async def remove_payload(self, kind: PayloadKind, ref: str) -> None:
        """Forget one that no service refers to."""
        async with self._turn:  # no service may begin to refer to it meanwhile
            gone = await self._payloads.remove(kind, ref)
        self._tell(kind, "remove", gone.id, name=gone.spec.name)

    # -- services -----------------------------------------------------------------------------

    async def create_service(self, spec: ServiceSpec) -> Service:
        """Record a service; its ports are taken at once.

        Raises:
            NotFound: It names a network that is not here; code ``network_not_found``.
        If cancelled: there is no such service, and its ports are free.
        """
        check_spec(spec)
        async with self._turn:
            self._store.joined()
            self._refuse_taken_name(spec.name)
            spec = self._networks.recorded(spec)
            self._payloads.check(spec)
            ports = await self._ports.take(spec.ports, ())
            now = stamp(self._now())
            service = Service(
                id=new_id(),
                version=1,
                spec=spec,
                created_at=now,
                updated_at=now,
                ports=ports,
                job_started_at=now if spec.is_job else "",
            )
            record = ServiceRecord(service=service, rollout_id=new_id())
            try:
                await self._store.change(lambda: Change([record]))
            except BaseException:
                await self._ports.give_back(ports)
                raise
        self._tell("service", "create", service.id, name=spec.name)
        return self._shown(record)

    def _refuse_taken_name(self, name: str) -> None:
        # As the names of hosts, which they are in networks, names differ by more than their case.
        if any(r.spec.name.lower() == name.lower() for r in self._store.services.values()):
            raise Conflict(
                f"rpc error: code = AlreadyExists desc = name conflicts with an existing object: service "
                f"{name} already exists",
                code="name_taken",
                help=f"linkspan service update {name}, or service rm {name}",
            )

    async def update_service(
        self, service: str, spec: ServiceSpec, *, version: int | None = None
    ) -> Service:
        """Record another spec; a rollout begins if it makes other tasks, or if the last one was paused.

        Raises:
            NotFound: There is no such service, or it names a network that is not here.
            InvalidArgument: The spec contradicts itself.
            Unsupported: The change needs another service.
            Conflict: code ``out_of_sequence``, or ``port_taken``.
        If cancelled: changed or not, never half.
        """
        async with self._turn:
            record = self._store.find_service(service)
            check_change(record.spec, spec)
            check_spec(spec)
            spec = self._networks.recorded(spec, record.spec)
            _check_version(record, version)
            self._payloads.check(spec)
            return await self._update(record, spec, version)

    async def _update(
        self, record: ServiceRecord, spec: ServiceSpec, version: int | None = None
    ) -> Service:
        def change(current: ServiceRecord) -> ServiceRecord:
            _check_version(current, version)
            count = self._count(current, spec)
            return start_update(current, spec, count=count, stamp=stamp(self._now()))

        return await self._change_service(record, spec, change)

    async def _change_service(
        self,
        record: ServiceRecord,
        spec: ServiceSpec,
        change: Callable[[ServiceRecord], ServiceRecord],
    ) -> Service:
        """With the ports of the spec that comes."""
        before = record.service.ports
        ports = await self._ports.take(spec.ports, before)

        def decide() -> Change:
            changed = change(self._store.services[record.id])
            return Change(
                [attrs.evolve(changed, service=attrs.evolve(changed.service, ports=ports))]
            )

        try:
            await self._store.change(decide)
        except BaseException:
            await self._ports.give_back(ports, before)
            raise
        await self._ports.give_back(before, ports)
        facts = {
            **_differing("image", record.spec.container.image, spec.container.image),
            **_differing("replicas", _replicas(record.spec), _replicas(spec)),
        }
        self._tell_update(record, self._store.services[record.id], facts)
        return self._shown(self._store.services[record.id])

    def _tell_update(
        self, old: ServiceRecord, new: ServiceRecord, facts: Mapping[str, str]
    ) -> None:
        """As Docker does: an update's rollout is told after it, a rollback's with it."""
        before, after = old.service.rollout, new.service.rollout
        begins = after is not None and after != before
        told = dict(facts)
        if begins and after and after.state is RolloutState.ROLLBACK_STARTED:
            told["updatestate.new"] = after.state.value
            if before is not None:
                told["updatestate.old"] = before.state.value
        self._tell("service", "update", new.id, name=new.spec.name, **told)
        if begins and after and after.state is RolloutState.UPDATING:
            begun = {"updatestate.new": after.state.value}
            self._tell("service", "update", new.id, name=new.spec.name, **begun)

    async def rollback_service(self, service: str, *, version: int | None = None) -> Service:
        """Want the spec before the last update again.

        Raises:
            InvalidArgument: There is none; code ``no_previous_spec``.
            Conflict: code ``out_of_sequence``.
        If cancelled: begun or not, never half.
        """
        async with self._turn:
            record = self._store.find_service(service)

            def change(current: ServiceRecord) -> ServiceRecord:
                spec = _previous(current)
                _check_version(current, version)
                message, count = "manually requested rollback", self._count(current, spec)
                return start_rollback(
                    current, message, count=count, stamp=stamp(self._now()), asked=True
                )

            return await self._change_service(record, _previous(record), change)

    async def scale_service(self, service: str, replicas: int) -> Service:
        """Want another number of replicas.

        If cancelled: changed or not, never half.
        """
        async with self._turn:
            record = self._store.find_service(service)
            if record.spec.is_global:
                raise InvalidArgument(
                    "scale can only be used with replicated or replicated-job mode"
                )
            spec = attrs.evolve(record.spec, replicas=replicas)
            check_spec(spec)
            return await self._update(record, spec)

    async def remove_service(self, service: str) -> None:
        """Forget a service; its tasks end.

        If cancelled: removed or not, never half.
        """
        async with self._turn:
            await self._remove(self._store.find_service(service))

    async def _remove(self, record: ServiceRecord) -> None:
        await self._store.change(lambda: Change(remove=[record]))
        await self._ports.give_back(record.service.ports)
        self._tell("service", "remove", record.id, name=record.spec.name)

    def _count(self, record: ServiceRecord, spec: ServiceSpec) -> int:
        return wanted_count(spec, self._store.nodes.values(), self._store.tasks_of(record.id))

    # -- looking ------------------------------------------------------------------------------

    def _shown(self, record: ServiceRecord) -> Service:
        return shown(record, self._store.tasks_of(record.id), self._store.nodes.values())

    async def get_service(self, service: str) -> Service:
        """One service, with its task counts."""
        return self._shown(self._store.find_service(service))

    async def list_services(self) -> list[Service]:
        """All services by name."""
        self._store.joined()
        found = [self._shown(record) for record in self._store.services.values()]
        return sorted(found, key=lambda service: service.spec.name)

    async def list_tasks(self, *, service: str = "", node: str = "") -> list[Task]:
        """Tasks, newest first within a slot."""
        self._store.joined()
        if service:
            records = self._store.tasks_of(self._store.find_service(service).id)
        else:
            records = list(self._store.tasks.values())
        if node:
            place = self._store.find_node(node).id
            records = [r for r in records if r.task.node_id == place]
        records.sort(key=lambda r: (r.task.spec.name, r.place, -r.made_at))
        return [record.shown for record in records]

    async def get_task(self, task: str) -> Task:
        """One task."""
        return self._store.find_task(task).shown

    @asynccontextmanager
    async def rollout(self, service: str) -> AsyncIterator[AsyncIterator[RolloutProgress]]:
        """Progress of the current change."""
        record = self._store.find_service(service)
        async with aclosing(follow(self._store, record.id)) as moments:
            yield moments

    def _tell(self, kind: str, action: str, actor: str, **facts: str) -> None:
        self._host.engine.events.publish(
            Event(type=kind, action=action, actor_id=actor, attributes=facts, scope="swarm")
        )


def _differing(what: str, old: str, new: str) -> dict[str, str]:
    """What an update tells of one fact: before and after, if it has changed and was there."""
    return {f"{what}.old": old, f"{what}.new": new} if old and new and old != new else {}


def _replicas(spec: ServiceSpec) -> str:
    return str(spec.replicas) if spec.mode == "replicated" else ""


def _previous(record: ServiceRecord) -> ServiceSpec:
    previous = record.service.previous_spec
    if previous is None:
        raise InvalidArgument(
            f"rpc error: code = FailedPrecondition desc = service {record.id} does not have a previous"
            " spec",
            code="no_previous_spec",
        )
    return previous


def _check_version(record: ServiceRecord, version: int | None) -> None:
    if version is not None and version != record.service.version:
        raise Conflict(
            "rpc error: code = Unknown desc = update out of sequence",
            code="out_of_sequence",
            details={"current": record.service.version, "given": version},
        )
