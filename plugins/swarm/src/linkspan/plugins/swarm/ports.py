"""Which service has which published port.

A port is reserved in the kernel before the service that wants it is recorded, so that a port that is
taken is an error for who asked. After a rollback by itself nobody asks: ``fit`` takes and gives back what
the spec says then.
"""

import attrs
import trio

from linkspan.plugins.swarm.config import SwarmConfig
from linkspan.plugins.swarm.ingress import Ingress
from linkspan.plugins.swarm.records import ServiceRecord
from linkspan.plugins.swarm.store import Change, ClusterStore
from linkspan.sdk.errors import Conflict, Unavailable
from linkspan.sdk.model.service import ServicePort

Ports = tuple[ServicePort, ...]


class PortBook:
    """Takes and gives back ports; callers hold the turn of all changes of services."""

    def __init__(self, config: SwarmConfig, store: ClusterStore, ingress: Ingress) -> None:
        self._config = config
        self._store = store
        self._ingress = ingress

    async def take(self, wanted: Ports, have: Ports) -> Ports:
        """Reserve what is new; what a service has and wants still stays.

        Raises:
            Conflict: code ``port_published`` if a service has it, else ``port_taken``.
            Unavailable: code ``ports_exhausted``.
        If cancelled or failed: nothing more is taken than before.
        """
        free = list(have)
        taken: list[ServicePort] = []
        fresh: list[ServicePort] = []
        for port in wanted:
            if not any(_serves(p, port) for p in have):
                self._refuse_published(port)
        try:
            for port in wanted:
                kept = next((p for p in free if _serves(p, port)), None)
                if kept is not None:
                    free.remove(kept)
                    taken.append(kept)
                elif port.mode == "host":
                    taken.append(port)
                else:
                    others = {p.published_port for p in (*wanted, *taken) if p is not port}
                    fresh.append(await self._reserve(port, others))
                    taken.append(fresh[-1])
        except BaseException:
            await self.give_back(tuple(fresh))
            raise
        return tuple(taken)

    async def give_back(self, ports: Ports, keep: Ports = ()) -> None:
        """Let others have them; never fails and is not cancelled."""
        with trio.CancelScope(shield=True):
            for port in ports:
                if port.mode == "ingress" and port not in keep:
                    await self._ingress.release(port)

    def fits(self, service_id: str) -> bool:
        """Whether a service has the ports that its spec says."""
        record = self._store.services.get(service_id)
        return record is None or _fits(record)

    async def fit(self, service_id: str) -> None:
        """Make a service's ports what its spec says.

        Raises:
            Conflict: Somebody else has taken one meanwhile (code ``port_taken``).
        """
        record = self._store.services.get(service_id)
        if record is None or _fits(record):
            return
        before = record.service.ports
        ports = await self.take(record.spec.ports, before)

        def decide() -> Change:
            current = self._store.services[service_id]
            return Change(
                [attrs.evolve(current, service=attrs.evolve(current.service, ports=ports))]
            )

        await self._store.change(decide)
        await self.give_back(before, ports)

    async def _reserve(self, port: ServicePort, others: set[int]) -> ServicePort:
        if port.published_port:
            return await self._ingress.reserve(port)
        holders = self._holders("ingress", port.protocol)
        for number in range(self._config.first_port, self._config.last_port + 1):
            if number in holders or number in others:
                continue
            try:
                return await self._ingress.reserve(attrs.evolve(port, published_port=number))
            except Conflict:
                # Something that is no service has it.
                continue
        raise Unavailable(
            f"no port between {self._config.first_port} and {self._config.last_port} is free",
            code="ports_exhausted",
            help="choose a published port, or widen first-port and last-port in [orchestrator.swarm]",
        )

    def _refuse_published(self, port: ServicePort) -> None:
        """A port is one service's, but for those of nodes, which the scheduler keeps apart."""
        for mode in ("ingress", "host") if port.mode == "ingress" else ("ingress",):
            holder = self._holders(mode, port.protocol).get(port.published_port)
            if port.published_port and holder is not None:
                what = "an ingress" if mode == "ingress" else "a host-published"
                raise Conflict(
                    f"rpc error: code = InvalidArgument desc = port '{port.published_port}' is already in"
                    f" use by service '{holder.spec.name}' ({holder.id}) as {what} port",
                    code="port_published",
                    details={"port": port.published_port, "holder": holder.spec.name},
                )

    def _holders(self, mode: str, protocol: str) -> dict[int, ServiceRecord]:
        return {
            port.published_port: record
            for record in self._store.services.values()
            for port in record.service.ports
            if port.mode == mode and port.protocol == protocol
        }


def _fits(record: ServiceRecord) -> bool:
    have = list(record.service.ports)
    for port in record.spec.ports:
        found = next((p for p in have if _serves(p, port)), None)
        if found is None:
            return False
        have.remove(found)
    return not have


def _serves(have: ServicePort, wanted: ServicePort) -> bool:
    same = (have.target_port, have.protocol, have.mode) == (
        wanted.target_port,
        wanted.protocol,
        wanted.mode,
    )
    return same and wanted.published_port in (0, have.published_port)
