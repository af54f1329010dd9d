"""cgroup v1, hybrid and v2 on trees as recorded from machines of each kind."""

from pathlib import Path

import pytest

from linkspan.plugins.oci_runtime import cgroups
from linkspan.sdk.drivers.runtime import DeviceIo, RuntimeStats
from linkspan.sdk.errors import Timeout
from linkspan.sdk.mountinfo import parse

V1 = """\
30 25 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755
33 30 0:29 / /sys/fs/cgroup/systemd rw,nosuid shared:11 - cgroup cgroup rw,xattr,release_agent=/a,name=systemd
36 30 0:33 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:15 - cgroup cgroup rw,cpu,cpuacct
37 30 0:34 / /sys/fs/cgroup/memory rw,nosuid shared:16 - cgroup cgroup rw,memory
38 30 0:35 / /sys/fs/cgroup/pids rw,nosuid shared:17 - cgroup cgroup rw,pids
39 30 0:36 / /sys/fs/cgroup/freezer rw,nosuid shared:18 - cgroup cgroup rw,freezer
"""
HYBRID = V1 + "31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw\n"
V2 = "30 25 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"


def test_v1_is_recognised() -> None:
    groups = cgroups.detect(parse(V1))
    assert groups.version == 1
    assert groups.unified is None
    assert groups.folder("cpuacct", "/a/b") == Path("/sys/fs/cgroup/cpu,cpuacct/a/b")
    assert groups.folder("name=systemd", "a") == Path("/sys/fs/cgroup/systemd/a")
    assert groups.folder("blkio", "a") is None
    assert groups.has("memory")
    assert not groups.has("blkio")
    assert len(groups.mounts) == 5


def test_hybrid_has_its_controllers_in_v1() -> None:
    groups = cgroups.detect(parse(HYBRID))
    assert groups.version == 1
    assert groups.unified == Path("/sys/fs/cgroup/unified")
    assert Path("/sys/fs/cgroup/unified") in groups.mounts


def test_v2_is_recognised_also_beside_a_named_v1_hierarchy() -> None:
    assert cgroups.detect(parse(V2)) == cgroups.Hierarchies(
        version=2, controllers={}, unified=Path("/sys/fs/cgroup")
    )
    named = "33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
    assert cgroups.detect(parse(V2 + named)).version == 2


def write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


@pytest.fixture
def v1(tmp_path: Path) -> cgroups.Hierarchies:
    names = ("cpu", "cpuacct", "memory", "pids", "freezer", "blkio")
    for name in names:
        (tmp_path / name).mkdir()
    return cgroups.Hierarchies(version=1, controllers={name: tmp_path / name for name in names})


@pytest.fixture
def v2(tmp_path: Path) -> cgroups.Hierarchies:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    return cgroups.Hierarchies(version=2, controllers={}, unified=tmp_path)


def test_v1_counters(v1: cgroups.Hierarchies, tmp_path: Path) -> None:
    write(
        tmp_path / "cpuacct/p/c",
        {"cpuacct.usage": "123456789\n", "cpuacct.stat": "user 7\nsystem 5\n"},
    )
    write(tmp_path / "cpu/p/c", {"cpu.stat": "nr_periods 10\nnr_throttled 3\nthrottled_time 9\n"})
    write(
        tmp_path / "memory/p/c",
        {
            "memory.usage_in_bytes": "4096000\n",
            "memory.limit_in_bytes": "67108864\n",
            "memory.stat": "cache 1\ntotal_inactive_file 8192\n",
            "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        },
    )
    write(tmp_path / "pids/p/c", {"pids.current": "4\n", "pids.max": "100\n"})
    write(
        tmp_path / "blkio/p/c",
        {
            "blkio.throttle.io_service_bytes_recursive": "8:0 Read 100\n8:0 Write 50\n"
            "8:16 Read 1\n8:0 Total 151\nTotal 151\n",
            "blkio.throttle.io_serviced": "8:0 Read 7\nTotal 7\n",
        },
    )
    assert cgroups.stats(v1, "/p/c") == RuntimeStats(
        cpu_usage_ns=123456789,
        cpu_user_ns=70_000_000,
        cpu_system_ns=50_000_000,
        cpu_periods=10,
        cpu_throttled_periods=3,
        cpu_throttled_ns=9,
        memory_usage_bytes=4096000,
        memory_limit_bytes=67108864,
        memory_cache_bytes=8192,
        memory_details={"cache": 1, "total_inactive_file": 8192},
        pids_current=4,
        pids_limit=100,
        io=(
            DeviceIo(major=8, minor=0, read_bytes=100, write_bytes=50, reads=7),
            DeviceIo(major=8, minor=16, read_bytes=1),
        ),
    )
    assert sum(device.read_bytes for device in cgroups.stats(v1, "/p/c").io) == 101
    assert cgroups.oom_kills(v1, "/p/c") == 2


def test_no_limit_is_zero(v1: cgroups.Hierarchies, tmp_path: Path) -> None:
    write(tmp_path / "memory/c", {"memory.limit_in_bytes": "9223372036854771712\n"})
    write(tmp_path / "pids/c", {"pids.max": "max\n"})
    found = cgroups.stats(v1, "/c")
    assert (found.memory_limit_bytes, found.pids_limit) == (0, 0)
    assert cgroups.stats(v1, "/gone") == RuntimeStats()


def test_v2_counters(v2: cgroups.Hierarchies, tmp_path: Path) -> None:
    write(
        tmp_path / "p/c",
        {
            "cpu.stat": "usage_usec 500\nuser_usec 300\nsystem_usec 200\nnr_periods 4\n"
            "nr_throttled 1\nthrottled_usec 7\n",
            "memory.current": "1048576\n",
            "memory.max": "max\n",
            "memory.stat": "anon 5\ninactive_file 4096\n",
            "memory.events": "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\noom_group_kill 0\n",
            "pids.current": "2\n",
            "pids.max": "64\n",
            "io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2\n",
        },
    )
    assert cgroups.stats(v2, "/p/c") == RuntimeStats(
        cpu_usage_ns=500_000,
        cpu_user_ns=300_000,
        cpu_system_ns=200_000,
        cpu_periods=4,
        cpu_throttled_periods=1,
        cpu_throttled_ns=7000,
        memory_usage_bytes=1048576,
        memory_failures=3,
        memory_limit_bytes=0,
        memory_cache_bytes=4096,
        memory_details={"anon": 5, "inactive_file": 4096},
        pids_current=2,
        pids_limit=64,
        io=(
            DeviceIo(major=8, minor=0, read_bytes=10, write_bytes=20, reads=1, writes=1),
            DeviceIo(major=8, minor=16, read_bytes=1, write_bytes=2),
        ),
    )
    assert cgroups.oom_kills(v2, "/p/c") == 1
    assert v2.has("memory")
    assert not v2.has("freezer")


def test_processes_of_groups_below_are_found_too(v2: cgroups.Hierarchies, tmp_path: Path) -> None:
    write(tmp_path / "c", {"cgroup.procs": "10\n11\n"})
    write(tmp_path / "c/nested", {"cgroup.procs": "12\n0\n"})
    assert sorted(cgroups.processes(v2, "/c")) == [10, 11, 12]
    assert cgroups.processes(v2, "/gone") == []


def test_freezing_on_v2(v2: cgroups.Hierarchies, tmp_path: Path) -> None:
    write(tmp_path / "c", {"cgroup.freeze": "0\n", "cgroup.events": "populated 1\nfrozen 1\n"})
    cgroups.set_frozen(v2, "/c", True)
    assert (tmp_path / "c/cgroup.freeze").read_text() == "1"
    assert cgroups.is_frozen(v2, "/c")
    write(tmp_path / "c", {"cgroup.events": "populated 1\nfrozen 0\n"})
    cgroups.set_frozen(v2, "/c", False)
    assert not cgroups.is_frozen(v2, "/c")


def test_what_cannot_be_frozen_is_let_go(
    v1: cgroups.Hierarchies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "freezer/c", {"freezer.state": "THAWED\n"})
    monkeypatch.setattr(cgroups, "_FREEZE_TIMEOUT_S", 0.0)
    monkeypatch.setattr(cgroups, "_await_frozen", _never)
    with pytest.raises(Timeout):
        cgroups.set_frozen(v1, "/c", True)
    assert (tmp_path / "freezer/c/freezer.state").read_text() == "THAWED"


def _never(file: Path, wanted: str) -> None:
    raise Timeout(f"{file} never becomes {wanted}")


def test_groups_are_removed_from_the_inside_out(v1: cgroups.Hierarchies, tmp_path: Path) -> None:
    for name in ("cpu", "memory"):
        (tmp_path / name / "p/c/nested/deeper").mkdir(parents=True)
    assert cgroups.remove(v1, "/p/c")
    assert (tmp_path / "cpu/p").exists()
    assert not (tmp_path / "cpu/p/c").exists()
    assert cgroups.remove(v1, "/p/c")
    (tmp_path / "pids/p/busy").mkdir(parents=True)
    (tmp_path / "pids/p/busy/cgroup.procs").write_text("1")
    assert not cgroups.remove(v1, "/p/busy")
    cgroups.remove_parent(v1, "/p")
    assert (tmp_path / "cpu/p").exists(), "another daemon is there"
    (tmp_path / "pids/p/busy/cgroup.procs").unlink()
    (tmp_path / "pids/p/busy").rmdir()
    cgroups.remove_parent(v1, "/p")
    assert not (tmp_path / "cpu/p").exists()
    assert not (tmp_path / "pids/p").exists()


def test_files_under_a_detached_unified_hierarchy_are_removed(
    v1: cgroups.Hierarchies, tmp_path: Path
) -> None:
    write(tmp_path / "unified/p/c", {"cgroup.procs": "12"})
    assert cgroups.remove(v1, "/p/c")
    assert not (tmp_path / "unified/p/c").exists()
