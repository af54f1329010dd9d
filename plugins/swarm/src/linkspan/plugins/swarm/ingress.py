"""Published ports: connections are spread over the tasks that run, in the kernel.

A task gets connections while it is RUNNING and meant to run. Before an old task is stopped it is taken
out here first; ``left`` tells when that is done.
"""

import logging
from collections.abc import Callable
from typing import Any

import trio

from linkspan.plugins.swarm.records import TaskRecord
from linkspan.plugins.swarm.store import ClusterStore
from linkspan.sdk.drivers.network import NetworkDriver
from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.model.network import Backend, PortBinding
from linkspan.sdk.model.service import ServicePort, TaskState

log = logging.getLogger("linkspan.swarm.ingress")

RETRY_S = 1.0


def binding(port: ServicePort) -> PortBinding:
    """The host port of a published port."""
    return PortBinding(
        container_port=port.target_port, protocol=port.protocol, host_port=port.published_port
    )


class Ingress:
    """Keeps the kernel's view of published ports as the tasks are."""

    def __init__(self, network: Callable[[], NetworkDriver[Any]], store: ClusterStore) -> None:
        self._network = network
        self._store = store
        self._applied: dict[PortBinding, tuple[Backend, ...]] = {}
        self._unreleased: set[PortBinding] = set()
        self._serving: set[str] = set()
        self._left_at: dict[str, float] = {}
        self._some_left = trio.Event()
        # One change of the kernel's view at a time: a port that is given back is not balanced again.
        self._turn = trio.Lock()

    async def left(self, task_id: str) -> float | None:
        """Wait until no new connection goes to a task that is not wanted any more.

        Returns:
            When that was, in trio's time; None if none ever did.
        """
        while task_id in self._serving:
            await self._some_left.wait()
        return self._left_at.pop(task_id, None)

    async def reserve(self, port: ServicePort) -> ServicePort:
        """Take a host port before the service exists. Raises Conflict (code ``port_taken``)."""
        async with self._turn:
            taken = await self._network().balance(binding(port), ())
            chosen = ServicePort(
                target_port=port.target_port,
                published_port=taken.host_port,
                protocol=port.protocol,
                mode=port.mode,
            )
            self._applied[binding(chosen)] = ()
            self._unreleased.discard(binding(chosen))
        return chosen

    async def release(self, port: ServicePort) -> None:
        """Give a host port back; if the driver fails, it is tried again later."""
        async with self._turn:
            self._applied.pop(binding(port), None)
            self._unreleased.add(binding(port))
            await self._release_all()

    async def _release_all(self) -> bool:
        for port in list(self._unreleased):
            try:
                await self._network().unbalance(port)
            except LinkspanError as error:
                log.warning(
                    "port not given back; tried again",
                    extra={"port": port.host_port, "reason": str(error)},
                )
            else:
                self._unreleased.discard(port)
        return not self._unreleased

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the tasks until cancelled."""
        # What ran before a restart of the daemon may be in the kernel still.
        for service_id in self._store.services_with_tasks():
            self._serving.update(t.id for t in self._running(service_id))
        task_status.started()
        while True:
            changed = self._store.changed
            good = await self._apply()
            with trio.move_on_after(float("inf") if good else RETRY_S):
                await changed.wait()

    def _running(self, service_id: str) -> list[TaskRecord]:
        found = [
            t
            for t in self._store.tasks_of(service_id)
            if t.task.state is TaskState.RUNNING and t.task.addresses
        ]
        return sorted(found, key=lambda t: (t.place, t.made_at))

    async def _apply(self) -> bool:
        """Make the kernel's view true; whether all of it worked."""
        async with self._turn:
            released = await self._release_all()
            good = True
            serving: set[str] = set()
            for record in list(self._store.services.values()):
                ports = [p for p in record.service.ports if p.mode == "ingress"]
                tasks = [t for t in self._running(record.id) if t.active] if ports else []
                # From now on they may get connections, whatever fails below.
                self._serving.update(t.id for t in tasks)
                for port in ports:
                    good = await self._balance(record.id, port, tasks) and good
                serving.update(t.id for t in tasks)
        if not good:
            # Some may get connections still: nobody is told yet that they have left.
            return False
        now = trio.current_time()
        self._left_at = {t: at for t, at in self._left_at.items() if self._is_living(t)}
        self._left_at.update((t, now) for t in self._serving - serving if self._is_living(t))
        self._serving = serving
        self._some_left.set()
        self._some_left = trio.Event()
        return released

    def _is_living(self, task_id: str) -> bool:
        record = self._store.tasks.get(task_id)
        return record is not None and not record.ended

    async def _balance(self, service_id: str, port: ServicePort, tasks: list[TaskRecord]) -> bool:
        record = self._store.services.get(service_id)
        if record is None or port not in record.service.ports:
            # It was given up while other ports were balanced.
            return True
        where = binding(port)
        backends = tuple(Backend(address=t.task.addresses[0], port=port.target_port) for t in tasks)
        if self._applied.get(where) == backends:
            return True
        try:
            await self._network().balance(where, backends)
        except LinkspanError as error:
            log.warning(
                "port not balanced; tried again",
                extra={"service": record.spec.name, "port": port.published_port, "why": str(error)},
            )
            return False
        self._applied[where] = backends
        return True
