"""Makes the OCI spec (runtime-spec 1.2, config.json) of a request, with Docker's defaults.

Pure functions: what depends on the machine comes in as ``Machine``, who the process runs as as ``Identity``.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from linkspan.plugins.oci_runtime import capabilities
from linkspan.plugins.oci_runtime.machine import Machine, check_ulimit
from linkspan.plugins.oci_runtime.propagation import root_propagation
from linkspan.plugins.oci_runtime.resources import make_devices, make_resources
from linkspan.plugins.oci_runtime.security import Security
from linkspan.plugins.oci_runtime.users import Identity
from linkspan.sdk.drivers.runtime import BundleMount, CreateRequest, OciSpec, ProcessSpec
from linkspan.sdk.errors import InvalidArgument, Unsupported
from linkspan.sdk.model.container import (
    DEFAULT_MASKED_PATHS,
    DEFAULT_READONLY_PATHS,
    Ulimit,
)
from linkspan.sdk.values import frozen

INIT_PATH: Final = "/sbin/docker-init"
_ALONE: Final = {"rprivate": "private", "rshared": "shared", "rslave": "slave", "rro": "ro"}
_OF_IPC: Final = ("fs.mqueue.", "kernel.shm", "kernel.msg", "kernel.sem")
_SAFE: Final = ("nosuid", "noexec", "nodev")


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
        _put_init_first(process, mounts, machine)
    linux = _linux(request, machine, security, namespaces)
    linux["cgroupsPath"] = cgroup_path
    if security.apparmor and machine.apparmor:
        process["apparmorProfile"] = security.apparmor
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


def _put_init_first(
    process: dict[str, Any], mounts: list[dict[str, Any]], machine: Machine
) -> None:
    if machine.init is None:
        raise Unsupported(
            "--init needs an init program, and none is installed",
            code="init_missing",
            help="apt-get install tini",
        )
    mounts.append(_bind(machine.init, INIT_PATH, ("bind", "ro")))
    process["args"] = [INIT_PATH, "--", *process["args"]]


def _linux(
    request: CreateRequest, machine: Machine, security: Security, namespaces: Namespaces
) -> dict[str, Any]:
    """What only Linux has: namespaces, limits, devices, what of the kernel's files is hidden."""
    linux: dict[str, Any] = {
        "namespaces": _namespaces(namespaces),
        "resources": make_resources(
            request.resources, machine=machine, privileged=request.privileged
        ),
        "sysctl": _sysctls(request, namespaces),
        "devices": make_devices(request),
    }
    if not (request.privileged or security.system_paths_unconfined):
        masked, readonly = request.masked_paths, request.readonly_paths
        linux["maskedPaths"] = list(DEFAULT_MASKED_PATHS if masked is None else masked)
        linux["readonlyPaths"] = list(DEFAULT_READONLY_PATHS if readonly is None else readonly)
    root = root_propagation(request.mounts)
    if root is not None:
        linux["rootfsPropagation"] = root
    return linux


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
    check_sysctls(
        request.sysctls, host_network=not own_network, host_ipc=request.share_ipc == "host"
    )
    return {**sysctls, **request.sysctls}


def check_sysctls(sysctls: Mapping[str, str], *, host_network: bool, host_ipc: bool) -> None:
    """Refuse what is not the container's own. Raises InvalidArgument."""
    for name in sysctls:
        if name.startswith("net.") and host_network:
            raise InvalidArgument(
                f'sysctl "{name}" not allowed in host network namespace', code="sysctl_not_allowed"
            )
        if name.startswith(_OF_IPC) and host_ipc:
            raise InvalidArgument(
                f'sysctl "{name}" is not allowed in the hosts ipc namespace',
                code="sysctl_not_allowed",
            )
        if not name.startswith(("net.", "kernel.domainname", *_OF_IPC)):
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
