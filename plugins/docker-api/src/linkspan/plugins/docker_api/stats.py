"""A container's counters in the shape of Docker's /stats (cgroup v1's names, which all clients know)."""

import os
from pathlib import Path
from typing import Any

import attrs
import trio

from linkspan.plugins.docker_api.timestamps import NEVER
from linkspan.sdk.clock import rfc3339
from linkspan.sdk.drivers.runtime import RuntimeStats
from linkspan.sdk.model.container import Container

_NS_PER_TICK = 10**9 // os.sysconf("SC_CLK_TCK")


@attrs.frozen
class Sample:
    """Counters at one moment.

    Attributes:
        counters: None if the container does not run.
        system_ns: CPU time of the whole machine since its start.
        interfaces: Counters of each network interface, by name, in the order of /proc/net/dev.
    """

    container: Container
    read_at: str
    counters: RuntimeStats | None
    system_ns: int
    interfaces: dict[str, dict[str, int]]


async def take_sample(container: Container, counters: RuntimeStats | None) -> Sample:
    """Complete the runtime's counters with the machine's and the network's."""
    own_network = bool(container.endpoints) and container.state.running
    system_ns, interfaces = await trio.to_thread.run_sync(
        _read_proc, container.state.pid if own_network else 0
    )
    read_at = rfc3339()
    return Sample(container, read_at, counters, system_ns, interfaces)


def _read_proc(pid: int) -> tuple[int, dict[str, dict[str, int]]]:
    first = Path("/proc/stat").read_text().split("\n", 1)[0]
    # user nice system idle iowait irq softirq steal: what dockerd sums up, too.
    system_ns = sum(int(word) for word in first.split()[1:9]) * _NS_PER_TICK
    if not pid:
        return system_ns, {}
    try:
        return system_ns, parse_interfaces(Path(f"/proc/{pid}/net/dev").read_text())
    except OSError:
        return system_ns, {}


def parse_interfaces(text: str) -> dict[str, dict[str, int]]:
    """/proc/net/dev without the loopback."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, numbers = line.partition(":")
        values = [int(word) for word in numbers.split()]
        if name.strip() == "lo" or len(values) < 16:
            continue
        found[name.strip()] = {
            "rx_bytes": values[0],
            "rx_packets": values[1],
            "rx_errors": values[2],
            "rx_dropped": values[3],
            "tx_bytes": values[8],
            "tx_packets": values[9],
            "tx_errors": values[10],
            "tx_dropped": values[11],
        }
    return found


def _encode_cpu(sample: Sample | None) -> dict[str, Any]:
    if sample is None or sample.counters is None:
        return {
            "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
            "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
        }
    counters = sample.counters
    usage: dict[str, Any] = {
        "total_usage": counters.cpu_usage_ns,
        "usage_in_kernelmode": counters.cpu_system_ns,
        "usage_in_usermode": counters.cpu_user_ns,
    }
    if counters.cpu_each_ns:
        usage["percpu_usage"] = list(counters.cpu_each_ns)
    return {
        "cpu_usage": usage,
        "system_cpu_usage": sample.system_ns,
        "online_cpus": os.cpu_count() or 1,
        "throttling_data": {
            "periods": counters.cpu_periods,
            "throttled_periods": counters.cpu_throttled_periods,
            "throttled_time": counters.cpu_throttled_ns,
        },
    }


def encode_stats(now: Sample, before: Sample | None) -> dict[str, Any]:
    """An object of /stats; ``before`` is the sample that rates are computed from."""
    counters = now.counters
    out: dict[str, Any] = {
        "name": f"/{now.container.name}",
        "id": now.container.id,
        "read": now.read_at if counters is not None else NEVER,
        "preread": before.read_at if before is not None else NEVER,
        "num_procs": 0,
        "pids_stats": {},
        "storage_stats": {},
        "cpu_stats": _encode_cpu(now),
        "precpu_stats": _encode_cpu(before),
        "memory_stats": {},
        "blkio_stats": _encode_io(counters),
    }
    if counters is not None:
        out["pids_stats"] = {"current": counters.pids_current}
        if counters.pids_limit:
            out["pids_stats"]["limit"] = counters.pids_limit
        out["memory_stats"] = _encode_memory(counters)
    if now.interfaces:
        out["networks"] = now.interfaces
    return out


def _encode_memory(counters: RuntimeStats) -> dict[str, Any]:
    out: dict[str, Any] = {
        "usage": counters.memory_usage_bytes,
        "limit": counters.memory_limit_bytes or _memory_bytes(),
        # The CLI subtracts either, depending on the cgroup version it believes in.
        "stats": {
            "total_inactive_file": counters.memory_cache_bytes,
            "inactive_file": counters.memory_cache_bytes,
            **counters.memory_details,
        },
    }
    if counters.memory_peak_bytes:
        out["max_usage"] = counters.memory_peak_bytes
    if counters.memory_failures:
        out["failcnt"] = counters.memory_failures
    return out


def _encode_io(counters: RuntimeStats | None) -> dict[str, Any]:
    # Docker has these as well, but for the kernel's old CFQ scheduler only.
    empty = (
        "io_queue_recursive io_service_time_recursive io_wait_time_recursive "
        "io_merged_recursive io_time_recursive sectors_recursive"
    )
    sizes = counts = None
    if counters is not None:
        sizes = [
            {"major": device.major, "minor": device.minor, "op": op, "value": value}
            for device in counters.io
            for op, value in (("read", device.read_bytes), ("write", device.write_bytes))
        ]
        counts = [
            {"major": device.major, "minor": device.minor, "op": op, "value": value}
            for device in counters.io
            for op, value in (("read", device.reads), ("write", device.writes))
        ]
    first_version = counters is not None and bool(counters.cpu_each_ns)
    return {
        "io_service_bytes_recursive": sizes,
        "io_serviced_recursive": counts,
        **dict.fromkeys(empty.split(), [] if first_version else None),
    }


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
