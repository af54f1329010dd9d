"""What the cluster remembers, and how it is written into the state store."""

import secrets
import string
from typing import TypeVar

import attrs
from cattrs.preconf.orjson import make_converter

from linkspan.sdk.clock import rfc3339
from linkspan.sdk.model.service import (
    Cluster,
    Node,
    Payload,
    Service,
    ServiceSpec,
    Task,
    TaskState,
)
from linkspan.sdk.values import frozen

T = TypeVar("T")

CLUSTER_KEY = "swarm/cluster"
NODES = "swarm/nodes/"
SERVICES = "swarm/services/"
TASKS = "swarm/tasks/"
PAYLOADS = "swarm/payloads/"

_ALPHABET = string.ascii_lowercase + string.digits
_converter = make_converter(omit_if_default=True)


@frozen(kw_only=True)
class ServiceRecord:
    """A service and where its last change stands.

    Attributes:
        rollout_id: The last change of the service, whatever it was; the tasks made for it carry it.
        rollout_total: Slots that it has to exchange: the base of the failure ratio.
        stepped_at: When the last slot was taken in hand, seconds since the epoch.
        settled: Every slot runs the wanted spec and was watched long enough.
        gave_up: Why nothing is tried any more, or empty.
        rolled_back: The last update failed, and went back by itself.
    """

    service: Service
    rollout_id: str = ""
    rollout_total: int = 0
    stepped_at: float = 0.0
    settled: bool = False
    gave_up: str = ""
    rolled_back: bool = False

    @property
    def id(self) -> str:
        """The service's id."""
        return self.service.id

    @property
    def spec(self) -> ServiceSpec:
        """What is wanted."""
        return self.service.spec


@frozen(kw_only=True)
class TaskRecord:
    """A task and its history. Times are seconds since the epoch; 0 means never.

    Attributes:
        rollout_id: The change of the service that made it; empty if it replaces one of a settled service.
        restarts: How often this slot was restarted in a row.
        not_before: It may not start earlier.
    """

    task: Task
    rollout_id: str = ""
    restarts: int = 0
    not_before: float = 0.0
    made_at: float = 0.0
    running_at: float = 0.0
    ended_at: float = 0.0

    @property
    def id(self) -> str:
        """The task's id."""
        return self.task.id

    @property
    def ended(self) -> bool:
        """Nothing of it runs any more."""
        return self.task.state >= TaskState.COMPLETE

    @property
    def assigned(self) -> bool:
        """It has a node; before that nothing of it exists anywhere."""
        return self.task.state >= TaskState.ASSIGNED

    @property
    def active(self) -> bool:
        """It is meant to run."""
        return self.task.desired <= TaskState.RUNNING and not self.ended

    @property
    def failed(self) -> bool:
        """It ended, though nobody wanted it to."""
        if self.task.state is TaskState.COMPLETE:
            return not self.task.spec.is_job
        return self.task.state in (TaskState.FAILED, TaskState.REJECTED)

    @property
    def shown(self) -> Task:
        """The task as clients see it: of what has ended nobody wants more (Docker's restarts say so, too)."""
        if self.ended and self.task.desired <= TaskState.RUNNING:
            return attrs.evolve(self.task, desired=TaskState.SHUTDOWN)
        return self.task

    @property
    def place(self) -> "Place":
        """What it is one of: a slot, or a node of a global service."""
        return (self.task.slot, "" if self.task.slot else self.task.node_id)

    @property
    def reason(self) -> str:
        """``web.1: task: non-zero exit (3)``."""
        name = f"{self.task.spec.name}.{self.task.slot or self.task.node_id}"
        return f"{name}: {self.task.error or 'task: ended (exit code 0)'}"


@frozen(kw_only=True)
class PayloadRecord:
    """A secret or config; its data is in ``sealed`` alone."""

    payload: Payload
    sealed: bytes = attrs.field(repr=False)

    @property
    def id(self) -> str:
        """The payload's id."""
        return self.payload.id


Place = tuple[int, str]
"""A slot from 1 with an empty text, or 0 with a node's id."""


Record = Cluster | Node | ServiceRecord | TaskRecord | PayloadRecord


def new_id() -> str:
    """25 letters and digits, as swarm's ids."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(25))


def stamp(seconds: float) -> str:
    """A time as the API writes it."""
    return rfc3339(round(seconds * 10**9))


def dump(record: Record) -> bytes:
    """A record as JSON."""
    return _converter.dumps(record)


def load(data: bytes, kind: type[T]) -> T:
    """Back from ``dump``; unknown keys are ignored."""
    return _converter.loads(data, kind)
