"""What this machine can do of a spec."""

from pathlib import Path

import attrs
import pytest

from linkspan.plugins.oci_runtime import checks
from linkspan.plugins.oci_runtime.cgroups import Hierarchies
from linkspan.plugins.oci_runtime.machine import Machine
from linkspan.plugins.oci_runtime.resources import make_resources
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.container import Device, Resources, ThrottleDevice, Ulimit, WeightDevice

BARE = Machine(
    capabilities=frozenset(),
    hard_limits={},
    may_raise_limits=False,
    oom_score_adj=0,
    cgroup_version=2,
    swap_accounting=False,
    block_weight=False,
    tcp_limit=False,
    realtime=False,
)
GROUPS = Hierarchies(version=2, controllers={}, unified=Path("/sys/fs/cgroup"))


def warnings(machine: Machine, **limits: object) -> list[str]:
    return list(checks.check_limits(Resources(**limits), GROUPS, machine))  # type: ignore[arg-type]


def test_what_a_bare_kernel_lacks_is_left_out_with_a_warning() -> None:
    said = warnings(
        BARE,
        memory_bytes=64 << 20,
        memory_swap_bytes=64 << 20,
        memory_swappiness=3,
        oom_kill_disable=True,
        blkio_weight=100,
        blkio_weight_devices=(WeightDevice(path="/dev/null", weight=100),),
        kernel_tcp_bytes=1 << 20,
        cpu_percent=40,
        cpu_realtime_runtime_us=10,
    )
    words = (
        "swap limit",
        "swappiness",
        "OomKillDisable",
        "I/O weight or",
        "weight_device",
        "CPU percent",
        "TCP",
        "real-time",
    )
    assert len(said) == len(words)
    for word, text in zip(words, said, strict=True):
        assert word in text
    made = make_resources(
        Resources(
            memory_bytes=64 << 20, memory_swappiness=3, blkio_weight=100, kernel_tcp_bytes=1 << 20,
            cpu_realtime_runtime_us=10, oom_kill_disable=True,
        ),
        machine=BARE,
    )  # fmt: skip
    assert made["memory"] == {"limit": 64 << 20}
    assert "blockIO" not in made
    assert "cpu" not in made


def test_a_kernel_that_can_gets_all_of_it() -> None:
    machine = attrs.evolve(
        BARE,
        cgroup_version=1,
        swap_accounting=True,
        block_weight=True,
        tcp_limit=True,
        realtime=True,
    )
    limits = Resources(
        memory_bytes=64 << 20,
        memory_swappiness=0,
        blkio_weight=100,
        blkio_weight_devices=(WeightDevice(path="/dev/null", weight=200),),
        blkio_read_bps=(ThrottleDevice(path="/dev/zero", rate=5),),
        kernel_tcp_bytes=1 << 20,
        cpu_realtime_period_us=1000,
        cpu_realtime_runtime_us=10,
    )
    assert list(checks.check_limits(limits, GROUPS, machine)) == []
    made = make_resources(limits, machine=machine)
    assert made["memory"]["swappiness"] == 0
    assert made["memory"]["kernelTCP"] == 1 << 20
    assert made["blockIO"] == {
        "weight": 100,
        "weightDevice": [{"major": 1, "minor": 3, "weight": 200}],
        "throttleReadBpsDevice": [{"major": 1, "minor": 5, "rate": 5}],
    }
    assert made["cpu"] == {"realtimePeriod": 1000, "realtimeRuntime": 10}


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (Resources(nano_cpus=10**15), "range of CPUs is from 0.01"),
        (Resources(nano_cpus=-1), "range of CPUs is from 0.01"),
        (Resources(cpuset_cpus="0-9,100000000"), "invalid format"),
        (Resources(cpuset_cpus="1-0"), "invalid format"),
        (Resources(cpuset_cpus="65000"), "CPUs are not available - requested 65000"),
        (Resources(cpuset_mems="65000"), "memory nodes are not available"),
        (Resources(ulimits=(Ulimit(name="bogus", soft=1, hard=1),)), "unknown ulimit"),
        (Resources(device_cgroup_rules=("q",)), "invalid device cgroup rule"),
        (
            Resources(
                devices=(Device(host_path="/dev/null", container_path="/n", permissions="x"),)
            ),
            "invalid device mode: x",
        ),
    ],
)
def test_what_no_machine_like_this_can_do_is_refused(limits: Resources, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        list(checks.check_limits(limits, GROUPS, BARE))
