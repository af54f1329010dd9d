"""Role ``orchestrator``: desired state of services, kept (Docker's swarm mode).

A change of a service is recorded and returns at once; controllers make it true, level-triggered:
they compare what is with what should be and act, from wherever a crash left things. ``rollout``
lets a caller watch.
"""

import abc
import enum
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager

from linkspan.sdk.drivers.base import Config, Driver
from linkspan.sdk.model.service import (
    Cluster,
    ClusterSettings,
    Node,
    Payload,
    PayloadKind,
    PayloadSpec,
    RolloutStatus,
    Service,
    ServiceSpec,
    Task,
)
from linkspan.sdk.stability import Stage, contract
from linkspan.sdk.values import frozen


class OrchestratorCap(enum.Flag):
    """What this orchestrator can."""

    NONE = 0
    ROLLING = enum.auto()
    HEALTH_GATE = enum.auto()
    ROLLBACK = enum.auto()
    MULTI_NODE = enum.auto()


@frozen(kw_only=True)
class RolloutProgress:
    """A moment of a rollout.

    Attributes:
        done: All desired tasks run the wanted spec, are healthy and were watched long enough; or the
            rollout has ended otherwise (paused, rolled back): see ``rollout``.
        failures: Errors of tasks that failed during this rollout, newest last.
    """

    service: Service
    rollout: RolloutStatus | None
    tasks: tuple[Task, ...]
    running: int
    desired: int
    updated: int
    done: bool
    failed: bool = False
    failures: tuple[str, ...] = ()


@contract(role="orchestrator", version=1, stage=Stage.BETA, since="0.1")
class Orchestrator(Driver[Config], abc.ABC):
    """Keeps services; see the module.

    Service, task and node arguments are ids, unique id prefixes, or names. Without a cluster every
    method but ``init`` and ``cluster`` raises Unavailable with code ``not_in_swarm``.
    """

    @property
    @abc.abstractmethod
    def capabilities(self) -> OrchestratorCap:
        """What this orchestrator can."""

    @abc.abstractmethod
    async def cluster(self) -> Cluster | None:
        """The cluster this daemon is in, or None."""

    @abc.abstractmethod
    async def init(self, *, advertise_address: str = "") -> Cluster:
        """Make a cluster of this one node. Raises Unavailable (code ``already_in_swarm``)."""

    @abc.abstractmethod
    async def leave(self, *, force: bool = False) -> None:
        """Leave; the last manager needs ``force``, and all services end."""

    @abc.abstractmethod
    async def update_cluster(
        self,
        *,
        labels: Mapping[str, str],
        task_history: int,
        version: int,
        settings: ClusterSettings | None = None,
    ) -> Cluster:
        """Change what the cluster keeps; None leaves the settings. Raises Conflict (code ``out_of_sequence``)."""

    @abc.abstractmethod
    async def create_payload(self, kind: PayloadKind, spec: PayloadSpec) -> Payload:
        """Keep a secret or a config, sealed.

        Raises:
            Conflict: The name is taken (code ``name_taken``).
            InvalidArgument: The name is none, or the data is empty or too large.
        """

    @abc.abstractmethod
    async def list_payloads(self, kind: PayloadKind) -> list[Payload]:
        """All secrets or all configs, by name; without their data."""

    @abc.abstractmethod
    async def get_payload(self, kind: PayloadKind, ref: str) -> Payload:
        """By id, name or unique id prefix; a config with its data.

        Raises:
            NotFound: code ``secret_not_found`` or ``config_not_found``.
        """

    @abc.abstractmethod
    async def update_payload(
        self, kind: PayloadKind, ref: str, spec: PayloadSpec, *, version: int
    ) -> Payload:
        """Change the labels.

        Raises:
            Conflict: code ``out_of_sequence``.
            InvalidArgument: Name or data are given and differ: they cannot change.
        """

    @abc.abstractmethod
    async def remove_payload(self, kind: PayloadKind, ref: str) -> None:
        """Forget one. Raises InvalidArgument (code ``payload_in_use``) while a service refers to it."""

    @abc.abstractmethod
    async def create_service(self, spec: ServiceSpec) -> Service:
        """Record a service.

        Raises:
            Conflict: The name is taken (code ``name_taken``), or a published port is: a service has it
                (``port_published``), or something else (``port_taken``).
            InvalidArgument: The spec contradicts itself.
        """

    @abc.abstractmethod
    async def update_service(
        self, service: str, spec: ServiceSpec, *, version: int | None = None
    ) -> Service:
        """Change a service; ``version`` given and not the current one is a Conflict (out of sequence).

        Raises Unsupported for another name or mode.
        """

    @abc.abstractmethod
    async def rollback_service(self, service: str, *, version: int | None = None) -> Service:
        """Go back to the spec before the last update; ``version`` as for ``update_service``.

        Raises:
            InvalidArgument: There is none (code ``no_previous_spec``).
            Conflict: code ``out_of_sequence``.
        """

    @abc.abstractmethod
    async def scale_service(self, service: str, replicas: int) -> Service:
        """Change the number of replicas and nothing else."""

    @abc.abstractmethod
    async def remove_service(self, service: str) -> None:
        """Remove a service; its tasks end."""

    @abc.abstractmethod
    async def get_service(self, service: str) -> Service:
        """Raises NotFound, or InvalidArgument (code ``ambiguous``)."""

    @abc.abstractmethod
    async def list_services(self) -> list[Service]:
        """All services by name."""

    @abc.abstractmethod
    async def list_tasks(self, *, service: str = "", node: str = "") -> list[Task]:
        """Tasks, also ended ones that are kept, newest first within a slot."""

    @abc.abstractmethod
    async def get_task(self, task: str) -> Task:
        """Raises NotFound."""

    @abc.abstractmethod
    async def list_nodes(self) -> list[Node]:
        """All nodes."""

    @abc.abstractmethod
    async def get_node(self, node: str) -> Node:
        """Raises NotFound. ``self`` is this node."""

    @abc.abstractmethod
    async def update_node(
        self, node: str, *, availability: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Node:
        """Drain or activate a node, change its labels."""

    @abc.abstractmethod
    def rollout(self, service: str) -> AbstractAsyncContextManager[AsyncIterator[RolloutProgress]]:
        """Progress of the current change: at once where it is, then whenever it moves, until done."""
