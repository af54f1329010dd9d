"""Published ports: connections are spread over the tasks that run, in the kernel.

A task gets connections while it is RUNNING and meant to run. Before an old task is stopped it is taken
out here first; ``left`` tells when that is done.
"""

import logging
from collections.abc import Callable
from typing import Any

import trio

from linkspan.plugins.swarm.records import ServiceRecord
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
        self._serving: set[str] = set()
        self._left: dict[str, trio.Event] = {}

    def left(self, task_id: str) -> trio.Event | None:
        """Set when no new connection goes to a task; None if none ever did."""
        if task_id not in self._serving:
            return None
        return self._left.setdefault(task_id, trio.Event())

    async def reserve(self, port: ServicePort) -> ServicePort:
        """Take a host port before the service exists. Raises Conflict (code ``port_taken``)."""
        taken = await self._network().balance(binding(port), ())
        self._applied[taken] = ()
        return ServicePort(
            target_port=port.target_port,
            published_port=taken.host_port,
            protocol=port.protocol,
            mode=port.mode,
        )

    async def release(self, port: ServicePort) -> None:
        """Give a host port back."""
        self._applied.pop(binding(port), None)
        await self._network().unbalance(binding(port))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the tasks until cancelled."""
        task_status.started()
        while True:
            changed = self._store.changed
            good = await self._apply()
            with trio.move_on_after(float("inf") if good else RETRY_S):
                await changed.wait()

    async def _apply(self) -> bool:
        good = True
        serving: set[str] = set()
        for record in list(self._store.services.values()):
            running = [
                t
                for t in self._store.tasks_of(record.id)
                if t.active and t.task.state is TaskState.RUNNING and t.task.addresses
            ]
            ports = [p for p in record.service.ports if p.mode == "ingress"]
            if ports:
                serving.update(t.id for t in running)
            for port in ports:
                backends = tuple(
                    Backend(address=t.task.addresses[0], port=port.target_port)
                    for t in sorted(running, key=lambda t: t.task.slot)
                )
                good = await self._balance(record, port, backends) and good
        if not good:
            # Some may get connections still: nobody is told yet that they have left.
            self._serving |= serving
            return False
        for task_id in self._serving - serving:
            gate = self._left.pop(task_id, None)
            if gate is not None:
                gate.set()
        self._serving = serving
        return True

    async def _balance(
        self, record: ServiceRecord, port: ServicePort, backends: tuple[Backend, ...]
    ) -> bool:
        where = binding(port)
        if self._applied.get(where) == backends:
            return True
        try:
            await self._network().balance(where, backends)
        except LinkspanError as error:
            log.warning(
                "port not balanced; tried again",
                extra={
                    "service": record.spec.name,
                    "port": port.published_port,
                    "reason": str(error),
                },
            )
            return False
        self._applied[where] = backends
        return True
