"""Containers: what is asked (spec), what is (record and state)."""

import enum
from collections.abc import Mapping
from typing import Final, Literal

import attrs

from linkspan.sdk.model.network import Endpoint, EndpointSpec, PortBinding
from linkspan.sdk.values import frozen

DEFAULT_MASKED_PATHS: Final = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
"""What a container does not see (moby, oci/defaults.go)."""
DEFAULT_READONLY_PATHS: Final = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)
"""What a container may only read (moby, oci/defaults.go)."""


@frozen(kw_only=True)
class Healthcheck:
    """How to ask a container whether it is well (Docker API HealthConfig).

    What is 0 was not said; ``with_usual_times`` has what is meant then.

    Attributes:
        test: ``("CMD", …)``, ``("CMD-SHELL", text)``, ``("NONE",)``; empty inherits the image's.
        start_period_s: Failures in this time do not count.
        start_interval_s: Time between probes during the start period.
    """

    test: tuple[str, ...] = ()
    interval_s: float = 0.0
    timeout_s: float = 0.0
    retries: int = 0
    start_period_s: float = 0.0
    start_interval_s: float = 0.0

    @property
    def with_usual_times(self) -> "Healthcheck":
        """The same, with Docker's times and number of failures where nothing was said."""
        return attrs.evolve(
            self,
            interval_s=self.interval_s or 30.0,
            timeout_s=self.timeout_s or 30.0,
            retries=self.retries or 3,
            start_interval_s=self.start_interval_s or 5.0,
        )


@frozen(kw_only=True)
class RestartPolicy:
    """Docker API RestartPolicy."""

    name: Literal["no", "always", "unless-stopped", "on-failure"] = "no"
    maximum_retry_count: int = 0


@frozen(kw_only=True)
class Ulimit:
    """A resource limit of the process, ``nofile`` and the like."""

    name: str
    soft: int
    hard: int


@frozen(kw_only=True)
class Device:
    """A host device inside the container."""

    host_path: str
    container_path: str
    permissions: str = "rwm"


@frozen(kw_only=True)
class DeviceRequest:
    """Devices that a driver should choose and make usable, as GPUs are asked for (Docker API DeviceRequest).

    Attributes:
        count: So many of them; -1 is all.
        device_ids: Those, instead of a number of any.
        capabilities: Lists of which one is to be met whole.
    """

    driver: str = ""
    count: int = 0
    device_ids: tuple[str, ...] = ()
    capabilities: tuple[tuple[str, ...], ...] = ()
    options: Mapping[str, str] = attrs.field(factory=dict)


@frozen(kw_only=True)
class WeightDevice:
    """The share of a block device that a container gets: 10 to 1000."""

    path: str
    weight: int


@frozen(kw_only=True)
class ThrottleDevice:
    """A limit on a block device: bytes or operations a second."""

    path: str
    rate: int


@frozen(kw_only=True)
class Resources:
    """Limits; None and 0 mean no limit (Docker API Resources).

    Attributes:
        memory_swappiness: 0 to 100; None is the machine's.
        cpu_quota_us: Below zero is no limit, and in an update takes the limit away.
        pids_limit: None is no limit; in an update -1 takes the limit away.
        kernel_tcp_bytes: Buffers of TCP connections, where the kernel counts them (cgroup v1).
        cpu_count, cpu_percent: Limits of Windows, kept for who asks.
    """

    memory_bytes: int = 0
    memory_swap_bytes: int = 0
    memory_reservation_bytes: int = 0
    nano_cpus: int = 0
    cpu_shares: int = 0
    cpu_period_us: int = 0
    cpu_quota_us: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    cpu_realtime_period_us: int = 0
    cpu_realtime_runtime_us: int = 0
    memory_swappiness: int | None = None
    kernel_tcp_bytes: int = 0
    cpu_count: int = 0
    cpu_percent: int = 0
    pids_limit: int | None = None
    blkio_weight: int = 0
    blkio_weight_devices: tuple[WeightDevice, ...] = ()
    blkio_read_bps: tuple[ThrottleDevice, ...] = ()
    blkio_write_bps: tuple[ThrottleDevice, ...] = ()
    blkio_read_iops: tuple[ThrottleDevice, ...] = ()
    blkio_write_iops: tuple[ThrottleDevice, ...] = ()
    oom_kill_disable: bool = False
    ulimits: tuple[Ulimit, ...] = ()
    devices: tuple[Device, ...] = ()
    device_requests: tuple[DeviceRequest, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()
    cgroup_parent: str = ""

    @property
    def swap_with_memory_bytes(self) -> int:
        """The limit of both together: twice the memory, unless something else was asked for."""
        return self.memory_swap_bytes or min(2 * self.memory_bytes, 2**63 - 1)


@frozen(kw_only=True)
class Mount:
    """A mount asked for: ``-v``, ``--mount``, ``--tmpfs`` (Docker API Mount).

    Attributes:
        source: Host path, volume name, image, or empty (anonymous volume, tmpfs).
        no_copy: Do not copy the image's content into a new volume.
        volume_subpath, image_subpath: A folder or file in the volume or image to mount instead of the whole.
        size_bytes: tmpfs only; 0 means no limit.
        options: tmpfs options as the user wrote them.
        create_source: Make a missing bind source (``-v`` does, ``--mount`` does not).
        recursive: Binds what is mounted below the source, too.
        read_only_recursive: A read-only bind also makes what is mounted below it read-only: ``try``, as
            far as the kernel can; ``must``, or the start fails; ``never``.
        mode_text: What stood behind the target in ``-v``, as the user wrote it.
    """

    type: Literal["bind", "volume", "tmpfs", "image"]
    target: str
    source: str = ""
    read_only: bool = False
    propagation: str = ""
    no_copy: bool = False
    volume_subpath: str = ""
    image_subpath: str = ""
    volume_driver: str = ""
    volume_labels: Mapping[str, str] = attrs.field(factory=dict)
    volume_options: Mapping[str, str] = attrs.field(factory=dict)
    size_bytes: int = 0
    mode: int | None = None
    options: tuple[str, ...] = ()
    create_source: bool = False
    recursive: bool = True
    read_only_recursive: Literal["try", "must", "never"] = "try"
    mode_text: str = ""


@frozen(kw_only=True)
class ContainerSpec:
    """What a client asks for (Docker API ContainerConfig, HostConfig and NetworkingConfig in one).

    ``None`` in ``command``, ``entrypoint``, ``healthcheck``, ``stop_signal`` means the image's.

    Attributes:
        image: As the user wrote it.
        network_mode: ``default``, ``bridge``, ``none``, ``host``, ``container:<id>`` or a network's name.
        networks: Network name → endpoint settings; the ``network_mode`` network may be missing here.
        link_ids: Alias → id of the container that a link on the default network leads to, where it is known.
        left_network: It has left the network of its mode, and does not come back to it when it starts.
        volume_driver: Of the volumes that ``binds`` name; empty is the usual one.
        log_driver: ``json-file`` (kept as the runtime's own file), ``local`` or ``none``.
        console_size: Rows and columns that a terminal begins with; (0, 0) leaves it to the client.
        read_only_below: Whether read-only mounts that do not say it make what is mounted below them read-only.
        id_file: Where its maker has written its id; only told.
        left_out: Lists of HostConfig that the client did not send, not even as empty ones.
    """

    image: str
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    hostname: str = ""
    domainname: str = ""
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    labels: Mapping[str, str] = attrs.field(factory=dict)
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    stop_signal: str | None = None
    stop_timeout_s: int | None = None
    healthcheck: Healthcheck | None = None
    platform: str = ""
    # the host's side
    mounts: tuple[Mount, ...] = ()
    binds: tuple[str, ...] = ()
    volumes_from: tuple[str, ...] = ()
    volume_driver: str = ""
    ports: tuple[PortBinding, ...] = ()
    publish_all: bool = False
    network_mode: str = "default"
    networks: Mapping[str, EndpointSpec] = attrs.field(factory=dict)
    link_ids: Mapping[str, str] = attrs.field(factory=dict)
    left_network: bool = False
    restart: RestartPolicy = RestartPolicy()
    auto_remove: bool = False
    resources: Resources = Resources()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    security_opt: tuple[str, ...] = ()
    read_only: bool = False
    tmpfs: Mapping[str, str] = attrs.field(factory=dict)
    sysctls: Mapping[str, str] = attrs.field(factory=dict)
    init: bool | None = None
    pid_mode: str = ""
    ipc_mode: str = ""
    uts_mode: str = ""
    cgroupns_mode: str = ""
    userns_mode: str = ""
    group_add: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    log_driver: str = ""
    log_options: Mapping[str, str] = attrs.field(factory=dict)
    shm_size_bytes: int = 67108864
    oom_score_adj: int = 0
    runtime: str = ""
    isolation: str = ""
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None
    annotations: Mapping[str, str] = attrs.field(factory=dict)
    console_size: tuple[int, int] = (0, 0)
    id_file: str = ""
    left_out: tuple[str, ...] = ()
    read_only_below: bool = True

    @property
    def wanted_networks(self) -> tuple[str, ...]:
        """Names (or ids) of the networks it is in when it runs, the one of its mode first."""
        if self.network_mode.startswith("container:"):
            return ()
        own = "bridge" if self.network_mode in ("", "default") else self.network_mode
        mode = () if self.left_network else (own,)
        return tuple(dict.fromkeys((*mode, *self.networks)))


class ContainerStatus(enum.Enum):
    """Docker API ContainerState.Status."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


class HealthStatus(enum.Enum):
    """Docker API Health.Status."""

    NONE = "none"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@frozen(kw_only=True)
class HealthProbe:
    """One finished probe; times are RFC 3339."""

    start: str
    end: str
    exit_code: int
    output: str


@frozen(kw_only=True)
class Health:
    """State of the health check; ``log`` holds the last five probes."""

    status: HealthStatus = HealthStatus.STARTING
    failing_streak: int = 0
    log: tuple[HealthProbe, ...] = ()


@frozen(kw_only=True)
class ContainerState:
    """Docker API ContainerState. Times are RFC 3339; empty means never."""

    status: ContainerStatus = ContainerStatus.CREATED
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: str = ""
    finished_at: str = ""
    restart_count: int = 0
    health: Health | None = None

    @property
    def running(self) -> bool:
        """A process exists (running or paused)."""
        return self.status in (ContainerStatus.RUNNING, ContainerStatus.PAUSED)


@frozen(kw_only=True)
class MountPoint:
    """A mount as it is (Docker API MountPoint).

    Attributes:
        name: Of the volume, or the image as it was asked for.
        image_id: ``sha256:…`` of the image that is mounted.
        subpath: The part of the volume or image that is mounted; empty is the whole.
    """

    type: Literal["bind", "volume", "tmpfs", "image"]
    source: str
    destination: str
    name: str = ""
    driver: str = ""
    mode: str = ""
    read_only: bool = False
    propagation: str = ""
    anonymous: bool = False
    image_id: str = ""
    subpath: str = ""


@frozen(kw_only=True)
class Container:
    """A container as the engine knows it.

    Attributes:
        name: Without the leading slash.
        created_at: RFC 3339.
        image_id: ``sha256:…`` of the image's config.
        args: The resolved command line: entrypoint and command in one.
        env, working_dir, user, stop_signal, healthcheck: Resolved with the image's values.
        warnings: What was asked for and cannot be had on this machine.
        sandbox_driver: The network driver that has its sandbox, where its endpoints do not tell.
    """

    id: str
    name: str
    created_at: str
    spec: ContainerSpec
    image_id: str
    state: ContainerState = ContainerState()
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    stop_signal: str = "SIGTERM"
    healthcheck: Healthcheck | None = None
    hostname: str = ""
    labels: Mapping[str, str] = attrs.field(factory=dict)
    exposed_ports: tuple[str, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[PortBinding, ...] = ()
    sandbox_key: str = ""
    sandbox_driver: str = ""
    files: Mapping[str, str] = attrs.field(factory=dict)
    mounts: tuple[MountPoint, ...] = ()
    log_path: str = ""
    runtime: str = ""
    manually_stopped: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def short_id(self) -> str:
        """The first 12 hex digits."""
        return self.id[:12]


@frozen(kw_only=True)
class ExecSpec:
    """A further process in a running container (Docker API ExecConfig)."""

    command: tuple[str, ...]
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    tty: bool = False
    privileged: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = True
    attach_stderr: bool = True
    detach_keys: str = ""
    console_size: tuple[int, int] = (0, 0)


@frozen(kw_only=True)
class Exec:
    """An exec session; ``exit_code`` is None until it ended."""

    id: str
    container_id: str
    spec: ExecSpec
    running: bool = False
    exit_code: int | None = None
    pid: int = 0


@frozen(kw_only=True)
class ExitStatus:
    """How a process ended: 0–255, 128+n for a signal.

    Attributes:
        finished_at: RFC 3339.
        error: Why it could not be waited for, or empty.
    """

    exit_code: int
    oom_killed: bool = False
    finished_at: str = ""
    error: str = ""


@frozen(kw_only=True)
class ContainerFilter:
    """Which containers to list; every given part must match.

    Attributes:
        all: Also those that do not run.
        labels: ``key`` or ``key=value``.
        names, ids: Regular expressions, as in Docker.
    """

    all: bool = False
    limit: int = 0
    labels: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    ancestors: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    health: tuple[str, ...] = ()
    exited: tuple[int, ...] = ()
