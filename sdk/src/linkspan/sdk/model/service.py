"""Services, tasks and nodes of a cluster (Docker's swarm mode)."""

import enum
from collections.abc import Mapping
from typing import Literal

import attrs

from linkspan.sdk.model.container import ContainerSpec
from linkspan.sdk.model.image import Platform
from linkspan.sdk.model.network import Protocol
from linkspan.sdk.values import frozen


@frozen(kw_only=True)
class ServiceRestart:
    """When a task is replaced (Docker API TaskSpec.RestartPolicy).

    Attributes:
        max_attempts: 0 means no limit.
        window_s: Attempts are counted in this time; 0 or not said means for ever.
    """

    condition: Literal["none", "on-failure", "any"] = "any"
    delay_s: float = 5.0
    max_attempts: int = 0
    window_s: float | None = None


@frozen(kw_only=True)
class UpdatePolicy:
    """How tasks are exchanged (Docker API ServiceSpec.UpdateConfig).

    Attributes:
        parallelism: Tasks at a time; 0 means all at once.
        monitor_s: How long a new task is watched before it counts as good.
        max_failure_ratio: 0 means the first failure acts.
    """

    parallelism: int = 1
    delay_s: float = 0.0
    order: Literal["stop-first", "start-first"] = "stop-first"
    failure_action: Literal["pause", "continue", "rollback"] = "pause"
    monitor_s: float = 5.0
    max_failure_ratio: float = 0.0


@frozen(kw_only=True)
class ServicePort:
    """A published port of a service; 0 means: choose one from 30000–32767."""

    target_port: int
    published_port: int = 0
    protocol: Protocol = "tcp"
    mode: Literal["ingress", "host"] = "ingress"


@frozen(kw_only=True)
class GenericResource:
    """Something of a kind that the cluster only counts: ``gpu``, ``ssd``, a licence.

    Attributes:
        count: How many; of no meaning for one with a name.
        name: Which one; empty for those that are only counted.
    """

    kind: str
    count: int = 0
    name: str = ""


@frozen(kw_only=True)
class Reservation:
    """Room a task needs on a node."""

    nano_cpus: int = 0
    memory_bytes: int = 0
    generic: tuple[GenericResource, ...] = ()


@frozen(kw_only=True)
class Placement:
    """Where tasks may run: ``node.labels.zone==a``, ``node.role!=manager``.

    Attributes:
        platforms: What the image is for, as operating system and architecture, if the client knew it.
    """

    constraints: tuple[str, ...] = ()
    preferences: tuple[str, ...] = ()
    max_replicas_per_node: int = 0
    platforms: tuple[tuple[str, str], ...] = ()


PayloadKind = Literal["secret", "config"]


@frozen(kw_only=True)
class PayloadSpec:
    """A secret or a config: bytes that tasks are given as files.

    Attributes:
        template: The data has placeholders, ``{{.Task.Slot}}``, to be filled per task.
    """

    name: str
    data: bytes = attrs.field(default=b"", repr=False)
    labels: Mapping[str, str] = attrs.field(factory=dict)
    template: bool = False


@frozen(kw_only=True)
class Payload:
    """A secret or a config as the cluster knows it; ``version`` rises with every write.

    Attributes:
        spec: A secret's has no data: nobody is told it but the tasks.
    """

    id: str
    version: int
    kind: PayloadKind
    spec: PayloadSpec
    created_at: str = ""
    updated_at: str = ""


@frozen(kw_only=True)
class FileReference:
    """A secret or config as a file of a service's tasks.

    Attributes:
        target: Absolute path in the container.
        said: The target as the client wrote it, who expects it back so; empty if it wrote none.
    """

    kind: PayloadKind
    id: str
    name: str
    target: str
    uid: int = 0
    gid: int = 0
    mode: int = 0o444
    said: str = ""


ServiceMode = Literal["replicated", "global", "replicated-job", "global-job"]


@frozen(kw_only=True)
class ServiceSpec:
    """Desired state of a service.

    A job's tasks run to their end once; ``replicas`` is how many shall have ended well.

    Attributes:
        container: What each task runs; templates as ``{{.Task.Slot}}`` in env, hostname and mounts are
            filled per task.
        force_update: A counter; raising it makes new tasks without another change.
        max_concurrent: Tasks of a replicated job at a time; 0 means all.
        restart: None if nothing was said, which means ``ServiceRestart()``.
        update: None if nothing was said, which means ``UpdatePolicy()``; so is ``rollback``.
        endpoint_mode: Names of a service lead to its tasks either way; ``dnsrr`` refuses ingress ports;
            empty if nothing was said.
        beside_template: The client named the networks beside the task's template, where it expects them back.
        files: Secrets and configs that its tasks are given.
        said: What the client expects back though it changes nothing: as the API keeps it.
    """

    name: str
    container: ContainerSpec
    mode: ServiceMode = "replicated"
    replicas: int = 1
    max_concurrent: int = 0
    labels: Mapping[str, str] = attrs.field(factory=dict)
    networks: tuple[str, ...] = ()
    beside_template: bool = False
    ports: tuple[ServicePort, ...] = ()
    restart: ServiceRestart | None = None
    update: UpdatePolicy | None = None
    rollback: UpdatePolicy | None = None
    reservation: Reservation = Reservation()
    placement: Placement = Placement()
    force_update: int = 0
    endpoint_mode: Literal["", "vip", "dnsrr"] = ""
    files: tuple[FileReference, ...] = ()
    said: Mapping[str, int | str | None] = attrs.field(factory=dict)

    @property
    def is_global(self) -> bool:
        """One task a node."""
        return self.mode in ("global", "global-job")

    @property
    def is_job(self) -> bool:
        """Its tasks are to end."""
        return self.mode in ("replicated-job", "global-job")

    @property
    def task_part(self) -> tuple[object, ...]:
        """What makes its tasks what they are: specs in which it is equal have the same tasks.

        Replicas, names, policies and ports of the whole cluster change without a task being exchanged.
        """
        return (
            self.container,
            self.networks,
            self.reservation,
            self.placement,
            self.force_update,
            self.files,
            tuple(port for port in self.ports if port.mode == "host"),
        )


class RolloutState(enum.Enum):
    """Docker API Service.UpdateStatus.State."""

    UPDATING = "updating"
    PAUSED = "paused"
    COMPLETED = "completed"
    ROLLBACK_STARTED = "rollback_started"
    ROLLBACK_PAUSED = "rollback_paused"
    ROLLBACK_COMPLETED = "rollback_completed"


@frozen(kw_only=True)
class RolloutStatus:
    """How far the last change of a service is; times RFC 3339."""

    state: RolloutState
    message: str = ""
    started_at: str = ""
    completed_at: str = ""


@frozen(kw_only=True)
class Service:
    """A service as the cluster knows it; ``version`` rises with every change of what is wanted."""

    id: str
    version: int
    spec: ServiceSpec
    previous_spec: ServiceSpec | None = None
    created_at: str = ""
    updated_at: str = ""
    rollout: RolloutStatus | None = None
    ports: tuple[ServicePort, ...] = ()
    running_tasks: int = 0
    desired_tasks: int = 0
    completed_tasks: int = 0
    job_iteration: int = 0
    job_started_at: str = ""


class TaskState(enum.IntEnum):
    """A Lamport clock: the actual state never goes back (swarmkit api/types.proto TaskState)."""

    NEW = 0
    PENDING = 64
    ASSIGNED = 192
    ACCEPTED = 256
    PREPARING = 320
    READY = 384
    STARTING = 448
    RUNNING = 512
    COMPLETE = 576
    SHUTDOWN = 640
    FAILED = 704
    REJECTED = 768
    REMOVE = 800
    ORPHANED = 832


@frozen(kw_only=True)
class Task:
    """One slot's container at one time.

    Attributes:
        slot: From 1; 0 for global services.
        state: What is.
        desired: What should be.
        error: Why it failed, for a person; empty if it did not.
        spec_version: The service version whose spec it runs.
        generic_resources: What it was given of its node's.
    """

    id: str
    service_id: str
    slot: int
    spec: ServiceSpec
    spec_version: int = 0
    node_id: str = ""
    state: TaskState = TaskState.NEW
    desired: TaskState = TaskState.RUNNING
    message: str = ""
    error: str = ""
    container_id: str = ""
    exit_code: int | None = None
    pid: int = 0
    created_at: str = ""
    updated_at: str = ""
    addresses: tuple[str, ...] = ()
    generic_resources: tuple[GenericResource, ...] = ()
    version: int = 0
    job_iteration: int = 0


@frozen(kw_only=True)
class Node:
    """A machine of the cluster.

    Attributes:
        generic_resources: What it offers.
        engine_labels: Of its daemon; ``labels`` are given to the node in the cluster.
    """

    id: str
    hostname: str
    role: Literal["manager", "worker"] = "manager"
    availability: Literal["active", "pause", "drain"] = "active"
    state: Literal["ready", "down", "unknown", "disconnected"] = "ready"
    leader: bool = True
    address: str = ""
    nano_cpus: int = 0
    memory_bytes: int = 0
    generic_resources: tuple[GenericResource, ...] = ()
    labels: Mapping[str, str] = attrs.field(factory=dict)
    engine_version: str = ""
    engine_labels: Mapping[str, str] = attrs.field(factory=dict)
    platform: Platform = Platform()
    created_at: str = ""
    version: int = 0


@frozen(kw_only=True)
class ClusterSettings:
    """How the nodes of a cluster are to agree and trust each other; 0: not said.

    Attributes:
        certificate_expiry_s: How long the certificate of a node is valid.
        heartbeat_s: How often a node says that it is there.
        kept_snapshots: Old snapshots of the log that are kept.
        snapshot_interval: Entries of the log between two snapshots.
        address_pools: Ranges that the subnets of its networks are cut from; empty: as the network driver's
            config says.
        subnet_size: Prefix length of these subnets.
        data_path_port: Where nodes would exchange the packets of containers.
        slow_follower_entries: Entries of the log that are kept for a node that is behind.
        election_tick: Ticks without a leader until another one is chosen.
        heartbeat_tick: Ticks between two signs of a leader.
    """

    certificate_expiry_s: float = 90 * 86400.0
    heartbeat_s: float = 5.0
    kept_snapshots: int = 0
    snapshot_interval: int = 10_000
    address_pools: tuple[str, ...] = ()
    subnet_size: int = 24
    data_path_port: int = 4789
    slow_follower_entries: int = 500
    election_tick: int = 10
    heartbeat_tick: int = 1


@frozen(kw_only=True)
class Cluster:
    """The swarm this daemon is in.

    Attributes:
        task_history: How many tasks of a place are kept, with those that run; negative: all.
        settings: Kept for who asks; a cluster of one node has no use for them.
    """

    id: str
    created_at: str
    node_id: str
    version: int = 0
    labels: Mapping[str, str] = attrs.field(factory=dict)
    task_history: int = 5
    updated_at: str = ""
    settings: ClusterSettings = ClusterSettings()
