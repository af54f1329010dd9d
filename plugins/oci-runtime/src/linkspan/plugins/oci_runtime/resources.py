"""``linux.resources`` and ``linux.devices`` of an OCI spec: limits of the control group, and device nodes."""

import os
import re
import stat
from pathlib import Path
from typing import Any, Final

from linkspan.plugins.oci_runtime.machine import Machine
from linkspan.sdk.drivers.runtime import CreateRequest
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.container import (
    Device,
    DeviceRequest,
    Resources,
)

_CPU_PERIOD_US: Final = 100_000


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
    # A group begins without a limit, and crun takes none away where control groups are of version 1.
    if resources.pids_limit is not None and resources.pids_limit > 0:
        made["pids"] = {"limit": resources.pids_limit}
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
            made["swap"] = resources.swap_with_memory_bytes
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
    try:
        found = Path(path).stat()
    except OSError as exc:
        raise InvalidArgument(
            f"stat {path}: {str(exc.strerror).lower()}",
            code="no_such_device",
            details={"device": path},
        ) from exc
    return {"major": os.major(found.st_rdev), "minor": os.minor(found.st_rdev)}


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
        # A group begins without a limit, and crun cannot write that where control groups are of version 1.
        "quota": max(quota, 0),
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


def make_devices(request: CreateRequest) -> list[dict[str, Any]]:
    """``linux.devices``: those asked for; of a privileged container all of the host's.

    Raises:
        InvalidArgument: There is no such device, or a driver is asked to choose: there are none.
    """
    if request.resources.device_requests:
        raise _no_driver(request.resources.device_requests[0])
    made = {}
    if request.privileged:
        made = {found["path"]: found for found in _host_devices()}
    for device in request.resources.devices:
        found = _device(device)
        made[found["path"]] = found
    return list(made.values())


def _no_driver(request: DeviceRequest) -> InvalidArgument:
    """Docker's words, and Go's way to print a list of lists."""
    kinds = " ".join(f"[{' '.join(kind)}]" for kind in request.capabilities)
    return InvalidArgument(
        f'could not select device driver "{request.driver}" with capabilities: [{kinds}]',
        code="no_device_driver",
        help="name devices with --device",
    )


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
