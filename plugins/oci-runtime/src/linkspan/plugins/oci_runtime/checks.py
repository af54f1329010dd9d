"""What of a container's spec this machine can do: refused, or left out with a warning, in Docker's words."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from linkspan.plugins.oci_runtime import capabilities, cgroups, seccomp, spec
from linkspan.plugins.oci_runtime.machine import Machine, check_ulimit
from linkspan.plugins.oci_runtime.resources import check_device_rule, has_swappiness
from linkspan.plugins.oci_runtime.security import parse_security
from linkspan.plugins.oci_runtime.tools import Tools
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.container import ContainerSpec, Resources

_NODES: Final = Path("/sys/devices/system/node/online")
_CPUS: Final = Path("/sys/devices/system/cpu/online")
# Names that clients send who have copied a HostConfig from Docker.
_RUNTIMES: Final = ("", "oci", "runc", "crun", "io.containerd.runc.v2")


def check(asked: ContainerSpec, tools: Tools) -> Sequence[str]:
    """See ``Runtime.check``."""
    if asked.runtime not in (*_RUNTIMES, tools.runtime.name):
        raise InvalidArgument(f"unknown or invalid runtime name: {asked.runtime}")
    capabilities.check(asked.cap_add, asked.cap_drop)
    security = parse_security(asked.security_opt)
    if security.seccomp not in ("builtin", "unconfined"):
        try:
            seccomp.resolve(seccomp.parse_profile(security.seccomp), ())
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidArgument(
                f"the seccomp profile is malformed: {error!r}", code="bad_seccomp_profile"
            ) from error
    spec.check_sysctls(
        asked.sysctls,
        host_network=asked.network_mode == "host",
        host_ipc=asked.ipc_mode == "host",
    )
    return list(check_limits(asked.resources, tools.groups, tools.machine))


def _check_count(nano: int) -> None:
    count = os.cpu_count() or 1
    if nano < 0 or nano > count * 10**9:
        raise InvalidArgument(
            f"range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"
        )


def check_limits(limits: Resources, groups: cgroups.Hierarchies, machine: Machine) -> Iterator[str]:
    """Refuse limits that can never be set here; yield a warning for each that is left out."""
    if limits.nano_cpus:
        _check_count(limits.nano_cpus)
    _check_set(limits.cpuset_cpus, _CPUS, "cpus", "Requested CPUs are not available")
    _check_set(limits.cpuset_mems, _NODES, "mems", "Requested memory nodes are not available")
    for limit in limits.ulimits:
        check_ulimit(limit)
    for rule in limits.device_cgroup_rules:
        check_device_rule(rule)
    for device in limits.devices:
        if not set(device.permissions) <= set("rwm"):
            raise InvalidArgument(f"invalid device mode: {device.permissions}")
    if limits.memory_bytes and not machine.swap_accounting and limits.memory_swap_bytes > 0:
        yield (
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory "
            "limited without swap."
        )
    if limits.memory_swappiness is not None and not has_swappiness(machine):
        yield (
            "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. "
            "Memory swappiness discarded."
        )
    if limits.oom_kill_disable:
        if machine.cgroup_version == 2:
            yield ("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
        elif not limits.memory_bytes:
            yield (
                "OOM killer is disabled for the container, but no memory limit is set, this can result in "
                "the system running out of resources."
            )
    if limits.blkio_weight and not machine.block_weight:
        yield (
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
        )
    if limits.blkio_weight_devices and not machine.block_weight:
        yield (
            "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. "
            "Weight-device discarded."
        )
    if limits.cpu_percent:
        yield "linux does not support CPU percent. Percent discarded."
    if limits.kernel_tcp_bytes and not machine.tcp_limit:
        yield (
            "Your kernel does not support kernel memory TCP limit or the cgroup is not mounted. Limit "
            "discarded."
        )
    if (limits.cpu_realtime_period_us or limits.cpu_realtime_runtime_us) and not machine.realtime:
        yield (
            "Your kernel does not support CPU real-time scheduler or the cgroup is not mounted. Real-time "
            "limits discarded."
        )


def _check_set(text: str, online: Path, what: str, refusal: str) -> None:
    if not text:
        return
    try:
        wanted = parse_set(text)
    except ValueError:
        raise InvalidArgument(
            f"Invalid value {text} for cpuset {what}: invalid format: {text}"
        ) from None
    try:
        available = online.read_text().strip()
        there = parse_set(available)
    except (OSError, ValueError):
        available, there = "0", {0}
    if not wanted <= there:
        raise InvalidArgument(f"{refusal} - requested {text}, available: {available}")


def parse_set(text: str) -> set[int]:
    """``0-3,7`` as numbers (cpuset(7), list format).

    Raises:
        ValueError: It is none, or has an absurd number of members.
    """
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(part)
        low, high = int(first), int(last or first)
        if low > high or high > 1 << 16:
            raise ValueError(part)
        found.update(range(low, high + 1))
    return found
