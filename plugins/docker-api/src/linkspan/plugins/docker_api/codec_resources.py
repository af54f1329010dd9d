"""Limits and restart policies between JSON (Resources, RestartPolicy) and the model."""

import os
from typing import Any, Literal

from linkspan.plugins.docker_api.document import Document
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.container import (
    Device,
    DeviceRequest,
    Resources,
    RestartPolicy,
    ThrottleDevice,
    Ulimit,
    WeightDevice,
)

_POLICIES: dict[str, Literal["no", "always", "unless-stopped", "on-failure"]] = {
    "": "no",
    "no": "no",
    "always": "always",
    "unless-stopped": "unless-stopped",
    "on-failure": "on-failure",
}


def decode_restart(body: Document) -> RestartPolicy:
    """RestartPolicy. Raises InvalidArgument with Docker's texts."""
    name, count = body.text("Name"), body.number("MaximumRetryCount")
    policy = _POLICIES.get(name)
    if policy is None:
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', "
            "'on-failure', or 'unless-stopped'"
        )
    if policy != "on-failure" and count:
        raise InvalidArgument(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
            f"{' and cannot be negative' if count < 0 else ''}"
        )
    if count < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    return RestartPolicy(name=policy, maximum_retry_count=count)


def encode_restart(policy: RestartPolicy) -> dict[str, Any]:
    """RestartPolicy."""
    return {"Name": policy.name, "MaximumRetryCount": policy.maximum_retry_count}


def _check_cpus(body: Document) -> None:
    nano = body.number("NanoCpus")
    for field, words in (("CpuPeriod", "CPU Period"), ("CpuQuota", "CPU Quota")):
        if nano and body.number(field):
            raise InvalidArgument(f"Conflicting options: Nano CPUs and {words} cannot both be set")
    most = os.cpu_count() or 1
    if nano and not 0 < nano <= most * 10**9:
        raise InvalidArgument(
            f"range of CPUs is from 0.01 to {most}.00, as there are only {most} CPUs available"
        )
    period, quota = body.number("CpuPeriod"), body.number("CpuQuota")
    if period and not 1000 <= period <= 1_000_000:
        raise InvalidArgument(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < quota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")


def decode_resources(body: Document) -> Resources:
    """Resources, which are part of HostConfig and the body of an update.

    Raises:
        InvalidArgument: A limit is out of its range.
    """
    _check_cpus(body)
    for field, words in (("IOMaximumIOps", "IOPs"), ("IOMaximumBandwidth", "bandwidth")):
        if body.unsigned(field, 63):
            raise InvalidArgument(
                f"invalid option: QoS maximum {words} configuration is not supported on linux"
            )
    return Resources(
        memory_bytes=body.number("Memory"),
        memory_swap_bytes=body.number("MemorySwap"),
        memory_reservation_bytes=body.number("MemoryReservation"),
        nano_cpus=body.number("NanoCpus"),
        cpu_shares=body.number("CpuShares"),
        cpu_period_us=body.number("CpuPeriod"),
        cpu_quota_us=body.number("CpuQuota"),
        cpuset_cpus=body.text("CpusetCpus"),
        cpuset_mems=body.text("CpusetMems"),
        cpu_realtime_period_us=body.number("CpuRealtimePeriod"),
        cpu_realtime_runtime_us=body.number("CpuRealtimeRuntime"),
        # -1 is how Docker's clients say "the machine's".
        memory_swappiness=s if (s := body.number("MemorySwappiness", -1)) != -1 else None,
        kernel_tcp_bytes=body.number("KernelMemoryTCP"),
        cpu_count=body.number("CpuCount"),
        cpu_percent=body.number("CpuPercent"),
        # -1 and 0 mean no limit, too (moby daemon/daemon_unix.go).
        pids_limit=limit if (limit := body.number("PidsLimit")) > 0 else None,
        blkio_weight=body.unsigned("BlkioWeight", 16),
        blkio_weight_devices=tuple(
            WeightDevice(path=device.text("Path"), weight=device.unsigned("Weight", 16))
            for device in body.documents("BlkioWeightDevice")
        ),
        blkio_read_bps=_decode_throttles(body, "BlkioDeviceReadBps"),
        blkio_write_bps=_decode_throttles(body, "BlkioDeviceWriteBps"),
        blkio_read_iops=_decode_throttles(body, "BlkioDeviceReadIOps"),
        blkio_write_iops=_decode_throttles(body, "BlkioDeviceWriteIOps"),
        oom_kill_disable=body.flag("OomKillDisable"),
        ulimits=decode_ulimits(body),
        devices=tuple(
            Device(
                host_path=device.text("PathOnHost"),
                container_path=device.text("PathInContainer") or device.text("PathOnHost"),
                permissions=device.text("CgroupPermissions") or "rwm",
            )
            for device in body.documents("Devices")
        ),
        device_requests=tuple(
            _decode_request(request) for request in body.documents("DeviceRequests")
        ),
        device_cgroup_rules=body.texts("DeviceCgroupRules"),
        cgroup_parent=body.text("CgroupParent"),
    )


def _decode_throttles(body: Document, key: str) -> tuple[ThrottleDevice, ...]:
    return tuple(
        ThrottleDevice(path=device.text("Path"), rate=device.unsigned("Rate", 63))
        for device in body.documents(key)
    )


def _encode_throttles(devices: tuple[ThrottleDevice, ...]) -> list[dict[str, Any]]:
    return [{"Path": device.path, "Rate": device.rate} for device in devices]


def decode_ulimits(body: Document) -> tuple[Ulimit, ...]:
    """``Ulimits``; also in a service's ContainerSpec."""
    found = []
    for limit in body.documents("Ulimits"):
        soft, hard = limit.number("Soft"), limit.number("Hard")
        if hard != -1 and (soft == -1 or soft > hard):
            raise InvalidArgument(
                f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
            )
        found.append(Ulimit(name=limit.text("Name"), soft=soft, hard=hard))
    return tuple(found)


def encode_ulimits(limits: tuple[Ulimit, ...]) -> list[dict[str, Any]]:
    """``Ulimits``."""
    return [{"Name": u.name, "Soft": u.soft, "Hard": u.hard} for u in limits]


def encode_resources(resources: Resources) -> dict[str, Any]:
    """Resources."""
    tcp = {"KernelMemoryTCP": resources.kernel_tcp_bytes} if resources.kernel_tcp_bytes else {}
    return {
        **tcp,
        "CpuShares": resources.cpu_shares,
        "Memory": resources.memory_bytes,
        "NanoCpus": resources.nano_cpus,
        "CgroupParent": resources.cgroup_parent,
        "BlkioWeight": resources.blkio_weight,
        "BlkioWeightDevice": [
            {"Path": device.path, "Weight": device.weight}
            for device in resources.blkio_weight_devices
        ],
        "BlkioDeviceReadBps": _encode_throttles(resources.blkio_read_bps),
        "BlkioDeviceWriteBps": _encode_throttles(resources.blkio_write_bps),
        "BlkioDeviceReadIOps": _encode_throttles(resources.blkio_read_iops),
        "BlkioDeviceWriteIOps": _encode_throttles(resources.blkio_write_iops),
        "CpuPeriod": resources.cpu_period_us,
        "CpuQuota": resources.cpu_quota_us,
        "CpuRealtimePeriod": resources.cpu_realtime_period_us,
        "CpuRealtimeRuntime": resources.cpu_realtime_runtime_us,
        "CpusetCpus": resources.cpuset_cpus,
        "CpusetMems": resources.cpuset_mems,
        "Devices": [
            {
                "PathOnHost": d.host_path,
                "PathInContainer": d.container_path,
                "CgroupPermissions": d.permissions,
            }
            for d in resources.devices
        ],
        "DeviceCgroupRules": list(resources.device_cgroup_rules) or None,
        "DeviceRequests": [_encode_request(r) for r in resources.device_requests] or None,
        "MemoryReservation": resources.memory_reservation_bytes,
        "MemorySwap": resources.swap_with_memory_bytes,
        "MemorySwappiness": resources.memory_swappiness,
        "OomKillDisable": resources.oom_kill_disable,
        "PidsLimit": 0 if resources.pids_limit == -1 else resources.pids_limit,
        "Ulimits": encode_ulimits(resources.ulimits),
        "CpuCount": resources.cpu_count,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
    }


def _decode_request(body: Document) -> DeviceRequest:
    kinds = (
        kind if isinstance(kind, list) and all(isinstance(word, str) for word in kind) else None
        for kind in body.items("Capabilities")
    )
    capabilities = []
    for at, kind in enumerate(kinds):
        if kind is None:
            raise InvalidArgument(f"{body.at('Capabilities')}[{at}] is no list of texts")
        capabilities.append(tuple(kind))
    return DeviceRequest(
        driver=body.text("Driver"),
        count=body.number("Count"),
        device_ids=body.texts("DeviceIDs"),
        capabilities=tuple(capabilities),
        options=body.text_map("Options"),
    )


def _encode_request(request: DeviceRequest) -> dict[str, Any]:
    return {
        "Driver": request.driver,
        "Count": request.count,
        "DeviceIDs": list(request.device_ids) or None,
        "Capabilities": [list(kind) for kind in request.capabilities],
        "Options": dict(request.options),
    }
