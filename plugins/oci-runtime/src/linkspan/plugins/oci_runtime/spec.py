"""Makes the OCI spec (runtime-spec 1.2, config.json) of a request, with Docker's defaults.

Pure functions: what depends on the machine comes in as ``Machine``, who the process runs as as ``Identity``.
"""

import os
import re
import resource
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from linkspan.plugins.oci_runtime import capabilities, seccomp
from linkspan.plugins.oci_runtime.cgroups import Hierarchies
from linkspan.plugins.oci_runtime.propagation import root_propagation
from linkspan.plugins.oci_runtime.security import Security, apparmor_is_on
from linkspan.plugins.oci_runtime.users import Identity
from linkspan.sdk.drivers.runtime import BundleMount, CreateRequest, OciSpec, ProcessSpec
from linkspan.sdk.errors import InvalidArgument, Unsupported
from linkspan.sdk.model.container import (
    DEFAULT_MASKED_PATHS,
    DEFAULT_READONLY_PATHS,
    Device,
    Resources,
    Ulimit,
)
from linkspan.sdk.values import frozen

INIT_PATH: Final = "/sbin/docker-init"
_CPU_PERIOD_US: Final = 100_000
_ALONE: Final = {"rprivate": "private", "rshared": "shared", "rslave": "slave", "rro": "ro"}
_SAFE: Final = ("nosuid", "noexec", "nodev")


@frozen(kw_only=True)
class Machine:
    """Facts about this machine and this daemon.

    Attributes:
        capabilities: What the daemon may hand on.
        hard_limits: Current hard limits, by name as in ``Ulimit``; -1 is no limit.
        may_raise_limits: Whether CAP_SYS_RESOURCE is held.
        oom_score_adj: The daemon's own.
        cgroup_version: 1 (also hybrid) or 2.
        swap_accounting: Whether ``memory.memsw`` (v1) or swap (v2) can be limited.
        init: Path of the program for ``--init``; None if there is none.
        block_weight: Whether the shares of block devices can be set.
        tcp_limit: Whether buffers of TCP connections can be limited.
        realtime: Whether real-time CPU can be given to groups.
        below_read_only: Whether a whole tree of mounts can be made read-only (Linux 5.12).
        soft_open_files: The soft limit of open files in containers that ask for none; None hands on the
            daemon's.
    """

    capabilities: frozenset[str]
    hard_limits: Mapping[str, int]
    may_raise_limits: bool
    oom_score_adj: int
    cgroup_version: int
    swap_accounting: bool = True
    init: str | None = None
    block_weight: bool = True
    tcp_limit: bool = True
    realtime: bool = True
    below_read_only: bool = True
    soft_open_files: int | None = None
    apparmor: bool = False

    def limits(self, asked: Sequence[Ulimit]) -> list[Ulimit]:
        """Limits of a container that asks for some, or for none."""
        if self.soft_open_files is None or any(limit.name == "nofile" for limit in asked):
            return list(asked)
        hard = self.hard_limits["nofile"]
        return [*asked, Ulimit(name="nofile", soft=self.soft_open_files, hard=hard)]

    @classmethod
    def detect(
        cls,
        groups: Hierarchies,
        *,
        swap_accounting: bool,
        init: str | None,
        soft_open_files: int | None,
    ) -> "Machine":
        """Read this process's facts and the kernel's."""
        status = Path("/proc/self/status").read_text()
        effective = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
        number = capabilities.ALL.index("CAP_SYS_RESOURCE")
        return cls(
            capabilities=capabilities.held(status),
            hard_limits={name: resource.getrlimit(kind)[1] for name, kind in _LIMITS.items()},
            may_raise_limits=bool(effective and int(effective[1], 16) >> number & 1),
            oom_score_adj=int(Path("/proc/self/oom_score_adj").read_text()),
            cgroup_version=groups.version,
            swap_accounting=swap_accounting,
            init=init,
            block_weight=groups.offers("blkio", "blkio.weight")
            or (groups.version == 2 and groups.has("io")),
            tcp_limit=groups.offers("memory", "memory.kmem.tcp.limit_in_bytes"),
            realtime=groups.offers("cpu", "cpu.rt_runtime_us"),
            below_read_only=seccomp.kernel_version() >= (5, 12),
            soft_open_files=soft_open_files,
            apparmor=apparmor_is_on(),
        )


_LIMIT_NAMES: Final = (
    "core cpu data fsize memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack"
)
_LIMITS: Final[Mapping[str, int]] = {
    name: getattr(resource, f"RLIMIT_{name.upper()}")
    for name in _LIMIT_NAMES.split()
    if hasattr(resource, f"RLIMIT_{name.upper()}")
}


@frozen(kw_only=True)
class Namespaces:
    """Paths of namespaces to join; "" is an own one, None is the host's."""

    pid: str | None = ""
    ipc: str | None = ""
    uts: str | None = ""
    network: str | None = None
    cgroup: str | None = None


def make_spec(
    request: CreateRequest,
    *,
    identity: Identity,
    machine: Machine,
    security: Security,
    namespaces: Namespaces,
    cgroup_path: str,
    seccomp_section: Mapping[str, Any] | None,
    shared_memory: str | None = None,
) -> OciSpec:
    """The whole config.json; ``shared_memory`` is the host path of a /dev/shm to join.

    Raises:
        InvalidArgument: The request contradicts itself or names what does not exist.
        Unsupported: ``init`` is asked and no init program is installed.
    """
    process = make_process(
        request.process,
        identity=identity,
        machine=machine,
        no_new_privileges=security.no_new_privileges,
        caps=container_capabilities(request, machine),
        ulimits=machine.limits(request.resources.ulimits),
        oom_score_adj=request.oom_score_adj,
    )
    mounts = _mounts(request, security, shared_memory, below_read_only=machine.below_read_only)
    # In another's process namespace it would not be the first process.
    if request.init and namespaces.pid == "":
        if machine.init is None:
            raise Unsupported(
                "--init needs an init program, and none is installed",
                code="init_missing",
                help="apt-get install tini",
            )
        mounts.append(_bind(machine.init, INIT_PATH, ("bind", "ro")))
        process["args"] = [INIT_PATH, "--", *process["args"]]
    linux: dict[str, Any] = {
        "cgroupsPath": cgroup_path,
        "namespaces": _namespaces(namespaces),
        "resources": make_resources(
            request.resources, machine=machine, privileged=request.privileged
        ),
        "sysctl": _sysctls(request, namespaces),
        "devices": _devices(request),
    }
    if not (request.privileged or security.system_paths_unconfined):
        masked, readonly = request.masked_paths, request.readonly_paths
        linux["maskedPaths"] = list(DEFAULT_MASKED_PATHS if masked is None else masked)
        linux["readonlyPaths"] = list(DEFAULT_READONLY_PATHS if readonly is None else readonly)
    if security.apparmor and machine.apparmor:
        process["apparmorProfile"] = security.apparmor
    root = root_propagation(request.mounts)
    if root is not None:
        linux["rootfsPropagation"] = root
    if seccomp_section is not None:
        linux["seccomp"] = dict(seccomp_section)
    spec: OciSpec = {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": str(request.rootfs), "readonly": request.read_only},
        "mounts": mounts,
        "annotations": dict(request.annotations),
        "linux": linux,
    }
    if namespaces.uts == "":
        spec["hostname"] = request.hostname
        if request.domainname:
            linux["sysctl"].setdefault("kernel.domainname", request.domainname)
    return spec


def check_capabilities(add: Sequence[str], drop: Sequence[str]) -> None:
    """Refuse names that are no capabilities. Raises InvalidArgument."""
    capabilities.check(add, drop)


def container_capabilities(request: CreateRequest, machine: Machine) -> tuple[str, ...]:
    """Its capabilities, whoever runs in it."""
    return capabilities.resolve(
        add=request.cap_add,
        drop=request.cap_drop,
        privileged=request.privileged,
        available=machine.capabilities,
    )


def make_process(
    process: ProcessSpec,
    *,
    identity: Identity,
    machine: Machine,
    no_new_privileges: bool,
    caps: Sequence[str],
    ulimits: Sequence[Ulimit] = (),
    oom_score_adj: int | None = None,
) -> dict[str, Any]:
    """The ``process`` of config.json; also the whole document for ``exec --process``.

    Raises:
        InvalidArgument: No command, or an unknown limit.
    """
    if not process.args:
        raise InvalidArgument("no command is given", code="no_command")
    # Only root keeps capabilities over its exec; the bounding set still limits set-user-id programs.
    active = list(caps) if identity.uid == 0 else []
    made: dict[str, Any] = {
        "terminal": process.tty,
        "user": {
            "uid": identity.uid,
            "gid": identity.gid,
            "additionalGids": list(identity.groups),
        },
        "args": list(process.args),
        "env": _environment(process, identity),
        "cwd": process.cwd or "/",
        "capabilities": {
            "bounding": list(caps),
            "effective": active,
            "permitted": active,
            "inheritable": [],
            "ambient": [],
        },
        "noNewPrivileges": no_new_privileges,
    }
    if process.tty and any(process.console_size):
        height, width = process.console_size
        made["consoleSize"] = {"height": height, "width": width}
    limits = [_limit(limit, machine) for limit in ulimits]
    if limits:
        made["rlimits"] = limits
    if oom_score_adj is not None:
        lowest = -1000 if machine.may_raise_limits else machine.oom_score_adj
        made["oomScoreAdj"] = max(oom_score_adj, lowest)
    return made


def _environment(process: ProcessSpec, identity: Identity) -> list[str]:
    environment = list(process.env)
    names = {item.partition("=")[0] for item in environment}
    if "HOME" not in names:
        environment.append(f"HOME={identity.home}")
    if process.tty and "TERM" not in names:
        environment.append("TERM=xterm")
    return environment


def check_ulimit(limit: Ulimit) -> None:
    """Refuse a limit that Linux does not know. Raises InvalidArgument."""
    if limit.name not in _LIMITS:
        raise InvalidArgument(
            f"unknown ulimit '{limit.name}'",
            code="unknown_ulimit",
            details={"ulimit": limit.name},
            help=f"known: {', '.join(sorted(_LIMITS))}",
        )


def _limit(limit: Ulimit, machine: Machine) -> dict[str, Any]:
    """A limit, lowered to what this daemon may set: else the runtime would refuse the container."""
    check_ulimit(limit)
    ceiling = machine.hard_limits.get(limit.name, -1)
    soft, hard = limit.soft, limit.hard
    if ceiling != -1 and not machine.may_raise_limits:
        hard = ceiling if hard == -1 else min(hard, ceiling)
        soft = hard if soft == -1 else min(soft, hard)
    unlimited = 2**64 - 1
    return {
        "type": f"RLIMIT_{limit.name.upper()}",
        "soft": unlimited if soft == -1 else soft,
        "hard": unlimited if hard == -1 else hard,
    }


def _namespaces(wanted: Namespaces) -> list[dict[str, str]]:
    found: list[dict[str, str]] = [{"type": "mount"}]
    for kind in ("pid", "ipc", "uts", "network", "cgroup"):
        path = getattr(wanted, kind)
        if path is not None:
            found.append({"type": kind, "path": path} if path else {"type": kind})
    return found


def _sysctls(request: CreateRequest, namespaces: Namespaces) -> dict[str, str]:
    own_network = namespaces.network is not None
    sysctls: dict[str, str] = {}
    if own_network:
        # Docker's default since 20.10: everybody may use low ports and ping.
        sysctls["net.ipv4.ip_unprivileged_port_start"] = "0"
        sysctls["net.ipv4.ping_group_range"] = "0 2147483647"
    check_sysctls(request.sysctls, host_network=not own_network)
    return {**sysctls, **request.sysctls}


def check_sysctls(sysctls: Mapping[str, str], *, host_network: bool) -> None:
    """Refuse what is not the container's own. Raises InvalidArgument."""
    for name in sysctls:
        if name.startswith("net.") and host_network:
            raise InvalidArgument(
                f"sysctl '{name}' cannot be set in the host's network", code="sysctl_not_allowed"
            )
        if not name.startswith(
            ("net.", "fs.mqueue.", "kernel.shm", "kernel.msg", "kernel.sem", "kernel.domainname")
        ):
            raise InvalidArgument(
                f"sysctl '{name}' is not separate for each container",
                code="sysctl_not_allowed",
                details={"sysctl": name},
                help="only net.*, fs.mqueue.*, kernel.msg*, kernel.shm*, kernel.sem are",
            )


# --- mounts


def _mount(destination: str, fstype: str, source: str, options: Sequence[str]) -> dict[str, Any]:
    return {
        "destination": destination,
        "type": fstype,
        "source": source,
        "options": list(options),
    }


def _bind(source: str, destination: str, options: Sequence[str]) -> dict[str, Any]:
    return _mount(destination, "bind", source, options)


def _default_mounts(
    request: CreateRequest, security: Security, shared_memory: str | None
) -> list[dict[str, Any]]:
    """moby oci/defaults.go DefaultLinuxSpec."""
    write = request.privileged or security.writable_cgroups
    host_ipc = request.share_ipc == "host"
    if host_ipc:
        shared_memory = "/dev/shm"  # noqa: S108 - the kernel's own path
    shm = f"size={request.shm_size_bytes}"
    return [
        _mount("/proc", "proc", "proc", _SAFE),
        _mount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
        _mount(
            "/dev/pts",
            "devpts",
            "devpts",
            ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        ),
        _mount("/sys", "sysfs", "sysfs", (*_SAFE, "rw" if request.privileged else "ro")),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", ("rw" if write else "ro", *_SAFE)),
        _mount("/dev/mqueue", "mqueue", "mqueue", _SAFE),
        _bind(shared_memory, "/dev/shm", ("rbind", *_SAFE))  # noqa: S108
        if shared_memory
        else _mount("/dev/shm", "tmpfs", "shm", (*_SAFE, "mode=1777", shm)),  # noqa: S108
    ]


def _mounts(
    request: CreateRequest,
    security: Security,
    shared_memory: str | None,
    *,
    below_read_only: bool,
) -> list[dict[str, Any]]:
    asked = sorted(request.mounts, key=lambda mount: mount.destination.rstrip("/").count("/"))
    taken = {os.path.normpath(mount.destination) for mount in asked}
    defaults = [
        mount
        for mount in _default_mounts(request, security, shared_memory)
        if mount["destination"] not in taken
        and not ("/dev" in taken and mount["destination"].startswith("/dev/"))
    ]
    if request.share_ipc == "none":
        defaults = [m for m in defaults if m["destination"] != "/dev/shm"]  # noqa: S108
    return [*defaults, *(_asked_mount(mount, below_read_only) for mount in asked)]


def _asked_mount(mount: BundleMount, below_read_only: bool) -> dict[str, Any]:
    if not mount.destination.startswith("/"):
        raise InvalidArgument(
            f"mount destination '{mount.destination}' is not absolute", code="bad_mount"
        )
    options = list(mount.options)
    if mount.type == "bind" and not {"bind", "rbind"} & set(options):
        options.insert(0, "rbind")
    if mount.read_only_below == "must" and not below_read_only:
        raise InvalidArgument(
            f"{mount.destination}: a tree of mounts cannot be made read-only by this kernel",
            code="bad_mount",
            help="Linux 5.12 or newer can",
        )
    if "bind" in options:
        # Of one mount alone both words mean the same, but to crun the r of either makes a tree of it.
        options = [_ALONE.get(option, option) for option in options]
    # Nothing is mounted below a file, and crun fails at one.
    if mount.read_only_below != "never" and below_read_only and Path(mount.source).is_dir():
        options = ["rro" if option == "ro" else option for option in options]
    return _mount(mount.destination, mount.type, mount.source or mount.type, options)


# --- resources and devices


def make_resources(
    resources: Resources, *, machine: Machine, privileged: bool = False, update: bool = False
) -> dict[str, Any]:
    """``linux.resources``; with ``update`` only limits, as for ``update --resources``.

    Raises:
        InvalidArgument: Limits that contradict each other, or a malformed device rule.
    """
    made: dict[str, Any] = {}
    memory = _memory(resources, machine)
    if memory:
        made["memory"] = memory
    cpu = _cpu(resources, machine)
    if cpu:
        made["cpu"] = cpu
    if resources.pids_limit is not None:
        made["pids"] = {"limit": resources.pids_limit if resources.pids_limit > 0 else -1}
    block = _block(resources, machine)
    if block:
        made["blockIO"] = block
    if not update:
        made["devices"] = _device_rules(resources, privileged)
    return made


def _memory(resources: Resources, machine: Machine) -> dict[str, Any]:
    limit, swap = resources.memory_bytes, resources.memory_swap_bytes
    if swap > 0 and not limit:
        raise InvalidArgument(
            "a swap limit needs a memory limit", code="bad_memory_limit", help="set --memory, too"
        )
    if limit and 0 < swap < limit:
        raise InvalidArgument(
            "the limit of memory and swap together is below the memory limit",
            code="bad_memory_limit",
            details={"memory_bytes": limit, "memory_swap_bytes": swap},
            help="--memory-swap counts both; leave it out for twice the memory",
        )
    made: dict[str, Any] = {}
    if limit:
        made["limit"] = limit
        if machine.swap_accounting:
            made["swap"] = swap or 2 * limit  # Docker's default
    if resources.memory_reservation_bytes:
        made["reservation"] = resources.memory_reservation_bytes
    if resources.memory_swappiness is not None and has_swappiness(machine):
        made["swappiness"] = resources.memory_swappiness
    if resources.kernel_tcp_bytes and machine.tcp_limit:
        made["kernelTCP"] = resources.kernel_tcp_bytes
    if resources.oom_kill_disable and machine.cgroup_version == 1:
        made["disableOOMKiller"] = True
    return made


def has_swappiness(machine: Machine) -> bool:
    """Whether a group has a swappiness of its own: cgroup v2 has none."""
    return machine.cgroup_version == 1


def _block(resources: Resources, machine: Machine) -> dict[str, Any]:
    """Shares and limits of block devices."""
    made: dict[str, Any] = {}
    if machine.block_weight:
        if resources.blkio_weight:
            made["weight"] = resources.blkio_weight
        if resources.blkio_weight_devices:
            made["weightDevice"] = [
                {**_numbers(device.path), "weight": device.weight}
                for device in resources.blkio_weight_devices
            ]
    for key, devices in (
        ("throttleReadBpsDevice", resources.blkio_read_bps),
        ("throttleWriteBpsDevice", resources.blkio_write_bps),
        ("throttleReadIOPSDevice", resources.blkio_read_iops),
        ("throttleWriteIOPSDevice", resources.blkio_write_iops),
    ):
        if devices:
            made[key] = [{**_numbers(device.path), "rate": device.rate} for device in devices]
    return made


def _numbers(path: str) -> dict[str, int]:
    """A device's numbers, as the kernel takes them."""
    found = _device(Device(host_path=path, container_path=path))
    return {"major": found["major"], "minor": found["minor"]}


def _cpu(resources: Resources, machine: Machine) -> dict[str, Any]:
    quota, period = resources.cpu_quota_us, resources.cpu_period_us
    if resources.nano_cpus:
        if quota or period:
            raise InvalidArgument(
                "CPUs and a CPU quota are given both", code="bad_cpu_limit", help="give one of them"
            )
        period = _CPU_PERIOD_US
        quota = max(resources.nano_cpus * period // 10**9, 1000)  # the kernel's least
    values = {
        "shares": resources.cpu_shares,
        "quota": quota,
        "period": period,
        "cpus": resources.cpuset_cpus,
        "mems": resources.cpuset_mems,
        "realtimePeriod": resources.cpu_realtime_period_us if machine.realtime else 0,
        "realtimeRuntime": resources.cpu_realtime_runtime_us if machine.realtime else 0,
    }
    return {key: value for key, value in values.items() if value}


def _rule(
    allow: bool, kind: str, major: int | None, minor: int | None, access: str
) -> dict[str, Any]:
    rule: dict[str, Any] = {"allow": allow, "access": access}
    if kind != "a":
        rule["type"] = kind
    if major is not None:
        rule["major"] = major
    if minor is not None:
        rule["minor"] = minor
    return rule


def _device_rules(resources: Resources, privileged: bool) -> list[dict[str, Any]]:
    """Which devices may be used: moby oci/defaults.go, then what was asked."""
    if privileged:
        return [_rule(True, "a", None, None, "rwm")]
    rules = [
        _rule(False, "a", None, None, "rwm"),
        _rule(True, "c", None, None, "m"),
        _rule(True, "b", None, None, "m"),
        *(_rule(True, "c", 1, minor, "rwm") for minor in (3, 5, 7, 8, 9)),  # null … urandom
        *(_rule(True, "c", 5, minor, "rwm") for minor in (0, 1, 2)),  # tty, console, ptmx
        _rule(True, "c", 136, None, "rwm"),  # pts
    ]
    for device in resources.devices:
        found = _device(device)
        rules.append(
            _rule(True, found["type"], found["major"], found["minor"], device.permissions or "rwm")
        )
    rules += [_parsed_rule(text) for text in resources.device_cgroup_rules]
    return rules


def check_device_rule(text: str) -> None:
    """Refuse what is no rule. Raises InvalidArgument."""
    _parsed_rule(text)


def _parsed_rule(text: str) -> dict[str, Any]:
    """``c 42:* rmw`` (Docker's --device-cgroup-rule)."""
    match = re.fullmatch(r"([acb]) (\d+|\*):(\d+|\*) ([rwm]{1,3})", text)
    if match is None:
        raise InvalidArgument(
            f"invalid device cgroup rule format: '{text}'",
            code="bad_device_rule",
            help="for example: c 42:* rmw",
        )
    major, minor = (None if part == "*" else int(part) for part in (match[2], match[3]))
    return _rule(True, match[1], major, minor, match[4])


def _devices(request: CreateRequest) -> list[dict[str, Any]]:
    made = {}
    if request.privileged:
        made = {found["path"]: found for found in _host_devices()}
    for device in request.resources.devices:
        found = _device(device)
        made[found["path"]] = found
    return list(made.values())


def _device(device: Device) -> dict[str, Any]:
    try:
        info = Path(device.host_path).stat()
    except OSError as exc:
        raise InvalidArgument(
            "error gathering device information while adding custom device "
            f'"{device.host_path}": {str(exc.strerror).lower()}',
            code="no_such_device",
            details={"device": device.host_path},
        ) from exc
    if not (stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)):
        raise InvalidArgument(
            f"'{device.host_path}' is not a device",
            code="no_such_device",
            details={"device": device.host_path},
        )
    return _device_of(device.container_path or device.host_path, info)


def _device_of(path: str, info: os.stat_result) -> dict[str, Any]:
    return {
        "path": path,
        "type": "c" if stat.S_ISCHR(info.st_mode) else "b",
        "major": os.major(info.st_rdev),
        "minor": os.minor(info.st_rdev),
        "fileMode": stat.S_IMODE(info.st_mode),
        "uid": info.st_uid,
        "gid": info.st_gid,
    }


def _host_devices() -> list[dict[str, Any]]:
    """All devices of the host, for privileged containers; not the mounts below /dev."""
    found = []
    for folder, names, files in os.walk("/dev"):
        names[:] = [
            n for n in names if n not in ("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts")
        ]
        for name in files:
            path = f"{folder}/{name}"
            info = os.lstat(path)
            is_device = stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)
            if is_device and path != "/dev/console":
                found.append(_device_of(path, info))
    return found
