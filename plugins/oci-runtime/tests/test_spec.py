from pathlib import Path
from typing import Any

import attrs
import pytest

from linkspan.plugins.oci_runtime import capabilities, security, spec
from linkspan.plugins.oci_runtime.cgroups import Hierarchies
from linkspan.plugins.oci_runtime.machine import Machine
from linkspan.plugins.oci_runtime.resources import make_resources
from linkspan.plugins.oci_runtime.users import Identity
from linkspan.sdk.drivers.runtime import BundleMount, CreateRequest, ProcessSpec
from linkspan.sdk.errors import InvalidArgument, Unsupported
from linkspan.sdk.model.container import Device, Resources, Ulimit

MACHINE = Machine(
    capabilities=frozenset(capabilities.ALL),
    hard_limits={"nofile": 20000, "core": -1},
    may_raise_limits=False,
    oom_score_adj=0,
    cgroup_version=1,
)
ROOT = Identity(uid=0, gid=0, groups=(0,), home="/root")
OWN = spec.Namespaces(network="/run/ns/1")
GIB = 1 << 30


def request(**changes: Any) -> CreateRequest:
    process = changes.pop("process", ProcessSpec(args=("sh",), env=("PATH=/bin",)))
    return CreateRequest(
        container_id="a" * 64, name="n", rootfs=Path("/rootfs"), process=process, **changes
    )


def make(
    wanted: CreateRequest,
    *,
    identity: Identity = ROOT,
    machine: Machine = MACHINE,
    namespaces: spec.Namespaces = OWN,
) -> dict[str, Any]:
    return spec.make_spec(
        wanted,
        identity=identity,
        machine=machine,
        security=security.parse_security(wanted.security_opt),
        namespaces=namespaces,
        cgroup_path="/linkspan/x",
        seccomp_section=None,
    )


def mounts(made: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {mount["destination"]: mount for mount in made["mounts"]}


# --- the defaults


def test_a_plain_container_has_dockers_defaults() -> None:
    made = make(request(hostname="box"))
    assert made["root"] == {"path": "/rootfs", "readonly": False}
    assert made["hostname"] == "box"
    process = made["process"]
    assert set(process["capabilities"]["bounding"]) == capabilities.DEFAULT
    assert process["capabilities"]["effective"] == process["capabilities"]["bounding"]
    assert process["capabilities"]["ambient"] == []
    assert process["env"] == ["PATH=/bin", "HOME=/root"]
    assert not process["noNewPrivileges"]
    assert process["oomScoreAdj"] == 0
    assert "/proc/kcore" in made["linux"]["maskedPaths"]
    assert "/proc/sys" in made["linux"]["readonlyPaths"]
    assert list(mounts(made)) == [
        "/proc",
        "/dev",
        "/dev/pts",
        "/sys",
        "/sys/fs/cgroup",
        "/dev/mqueue",
        "/dev/shm",
    ]
    assert "size=67108864" in mounts(made)["/dev/shm"]["options"]
    assert "ro" in mounts(made)["/sys"]["options"]
    assert made["linux"]["resources"]["devices"][0] == {"allow": False, "access": "rwm"}
    assert made["linux"]["sysctl"]["net.ipv4.ip_unprivileged_port_start"] == "0"
    kinds = {entry["type"]: entry.get("path") for entry in made["linux"]["namespaces"]}
    assert kinds == {"mount": None, "pid": None, "ipc": None, "uts": None, "network": "/run/ns/1"}


def test_a_privileged_container_may_do_everything() -> None:
    made = make(request(privileged=True))
    assert made["process"]["capabilities"]["bounding"] == list(capabilities.ALL)
    assert "maskedPaths" not in made["linux"]
    assert "readonlyPaths" not in made["linux"]
    assert "rw" in mounts(made)["/sys"]["options"]
    assert "rw" in mounts(made)["/sys/fs/cgroup"]["options"]
    assert made["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert "/dev/null" in {device["path"] for device in made["linux"]["devices"]}


def test_another_user_keeps_no_capabilities_but_the_bounding_set() -> None:
    made = make(request(), identity=Identity(uid=1000, gid=10, groups=(10, 40), home="/home/app"))
    caps = made["process"]["capabilities"]
    assert caps["effective"] == caps["permitted"] == []
    assert set(caps["bounding"]) == capabilities.DEFAULT
    assert made["process"]["user"] == {"uid": 1000, "gid": 10, "additionalGids": [10, 40]}
    assert "HOME=/home/app" in made["process"]["env"]


def test_the_hosts_namespaces_are_left_out() -> None:
    namespaces = spec.Namespaces(pid=None, ipc=None, uts=None, network=None)
    made = make(request(share_ipc="host", hostname="box"), namespaces=namespaces)
    assert [entry["type"] for entry in made["linux"]["namespaces"]] == ["mount"]
    assert made["linux"]["sysctl"] == {}
    assert "hostname" not in made
    assert mounts(made)["/dev/shm"]["type"] == "bind"


def test_with_a_tty_the_terminal_is_named() -> None:
    made = make(request(process=ProcessSpec(args=("sh",), tty=True)))
    assert made["process"]["terminal"]
    assert "TERM=xterm" in made["process"]["env"]
    made = make(request(process=ProcessSpec(args=("sh",), tty=True, env=("TERM=vt100",))))
    assert "TERM=xterm" not in made["process"]["env"]


def test_an_empty_command_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="no command"):
        make(request(process=ProcessSpec(args=())))


# --- capabilities


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        (("NET_ADMIN",), (), capabilities.DEFAULT | {"CAP_NET_ADMIN"}),
        (
            ("cap_net_admin",),
            ("NET_RAW",),
            (capabilities.DEFAULT | {"CAP_NET_ADMIN"}) - {"CAP_NET_RAW"},
        ),
        (("ALL",), ("SYS_ADMIN",), set(capabilities.ALL) - {"CAP_SYS_ADMIN"}),
        (("CHOWN",), ("ALL",), {"CAP_CHOWN"}),
        ((), ("all",), set()),
    ],
)
def test_capabilities_are_added_and_dropped_as_in_docker(
    add: tuple[str, ...], drop: tuple[str, ...], expected: set[str]
) -> None:
    found = capabilities.resolve(
        add=add, drop=drop, privileged=False, available=frozenset(capabilities.ALL)
    )
    assert set(found) == set(expected)


def test_an_unknown_capability_is_named() -> None:
    with pytest.raises(InvalidArgument, match="FLY"):
        make(request(cap_add=("FLY",)))


def test_what_the_daemon_lacks_is_not_given() -> None:
    machine = attrs.evolve(MACHINE, capabilities=frozenset({"CAP_CHOWN"}))
    made = make(request(privileged=True), machine=machine)
    assert made["process"]["capabilities"]["bounding"] == ["CAP_CHOWN"]


def test_the_bounding_set_is_read_from_the_kernels_mask() -> None:
    assert capabilities.held("CapBnd:\t0000000000000003\n") == {"CAP_CHOWN", "CAP_DAC_OVERRIDE"}


# --- security options


def test_security_options_in_both_spellings() -> None:
    assert security.parse_security(("no-new-privileges",)).no_new_privileges
    assert security.parse_security(("no-new-privileges:true",)).no_new_privileges
    assert not security.parse_security(
        ("no-new-privileges=false",), no_new_privileges=True
    ).no_new_privileges
    assert not security.parse_security(("no-new-privileges=F",)).no_new_privileges
    assert security.parse_security(("seccomp=unconfined",)).seccomp == "unconfined"
    assert security.parse_security(("seccomp=",)).seccomp == "builtin"
    profile = '{"defaultAction": "SCMP_ACT_ALLOW", "x": "a=b"}'
    assert security.parse_security((f"seccomp={profile}",)).seccomp == profile
    assert (
        security.parse_security(("label=disable", "label:type:x", "disable")) == security.Security()
    )


def test_unconfined_system_paths_are_not_masked() -> None:
    made = make(request(security_opt=("systempaths=unconfined",)))
    assert "maskedPaths" not in made["linux"]
    assert make(request(masked_paths=("/x",)))["linux"]["maskedPaths"] == ["/x"]


@pytest.mark.parametrize(
    "option",
    ["colour=blue", "no-new-privileges=maybe", "apparmor", "mask=/x", "systempaths=on", ""],
)
def test_an_unknown_security_option_is_named_in_dockers_words(option: str) -> None:
    number = 2 if "=" in option else 1
    with pytest.raises(InvalidArgument, match=f'^invalid --security-opt {number}: "{option}"'):
        security.parse_security((option,))


def test_a_profile_of_apparmor_is_set_where_the_kernel_has_it() -> None:
    wanted = request(security_opt=("apparmor=strict",))
    with_it = attrs.evolve(MACHINE, apparmor=True)
    assert make(wanted, machine=with_it)["process"]["apparmorProfile"] == "strict"
    assert "apparmorProfile" not in make(wanted)["process"]
    assert "apparmorProfile" not in make(request(), machine=with_it)["process"]


@pytest.mark.parametrize(("said", "there"), [("Y\n", True), ("N\n", False), (None, False)])
def test_the_kernel_says_whether_it_has_apparmor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, there: bool
) -> None:
    if said is not None:
        (tmp_path / "enabled").write_text(said)
    monkeypatch.setattr(security, "_APPARMOR", tmp_path / "enabled")
    assert security.apparmor_is_on() is there


# --- limits


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (Ulimit(name="nofile", soft=1024, hard=2048), (1024, 2048)),
        (Ulimit(name="nofile", soft=100000, hard=100000), (20000, 20000)),
        (Ulimit(name="nofile", soft=-1, hard=-1), (20000, 20000)),
        (Ulimit(name="core", soft=-1, hard=-1), (2**64 - 1, 2**64 - 1)),
    ],
)
def test_ulimits_are_lowered_to_what_may_be_set(limit: Ulimit, expected: tuple[int, int]) -> None:
    made = make(request(resources=Resources(ulimits=(limit,))))
    (found,) = made["process"]["rlimits"]
    assert found["type"] == f"RLIMIT_{limit.name.upper()}"
    assert (found["soft"], found["hard"]) == expected


def test_who_may_raise_limits_raises_them() -> None:
    machine = attrs.evolve(MACHINE, may_raise_limits=True)
    limit = Ulimit(name="nofile", soft=100000, hard=100000)
    made = make(request(resources=Resources(ulimits=(limit,))), machine=machine)
    assert made["process"]["rlimits"][0]["hard"] == 100000


def test_who_asks_for_no_limit_of_open_files_gets_the_one_the_daemon_was_started_with() -> None:
    machine = attrs.evolve(MACHINE, soft_open_files=1024)
    core = Ulimit(name="core", soft=0, hard=0)
    made = make(request(resources=Resources(ulimits=(core,))), machine=machine)
    found = {limit["type"]: (limit["soft"], limit["hard"]) for limit in made["process"]["rlimits"]}
    assert found == {"RLIMIT_CORE": (0, 0), "RLIMIT_NOFILE": (1024, 20000)}
    asked = Ulimit(name="nofile", soft=5, hard=6)
    made = make(request(resources=Resources(ulimits=(asked,))), machine=machine)
    assert [limit["soft"] for limit in made["process"]["rlimits"]] == [5]


def test_an_unknown_ulimit_is_named() -> None:
    with pytest.raises(InvalidArgument, match="speed"):
        make(request(resources=Resources(ulimits=(Ulimit(name="speed", soft=1, hard=1),))))


def test_the_oom_score_goes_no_lower_than_it_may() -> None:
    assert make(request(oom_score_adj=-500))["process"]["oomScoreAdj"] == 0
    assert make(request(oom_score_adj=500))["process"]["oomScoreAdj"] == 500
    machine = attrs.evolve(MACHINE, may_raise_limits=True)
    assert make(request(oom_score_adj=-500), machine=machine)["process"]["oomScoreAdj"] == -500


def resources(machine: Machine = MACHINE, **limits: Any) -> dict[str, Any]:
    return make_resources(Resources(**limits), machine=machine, update=True)


def test_memory_limits() -> None:
    assert resources() == {}
    assert resources(memory_bytes=GIB)["memory"] == {"limit": GIB, "swap": 2 * GIB}
    assert resources(memory_bytes=GIB, memory_swap_bytes=-1)["memory"]["swap"] == -1
    assert resources(memory_bytes=GIB, memory_swap_bytes=GIB)["memory"]["swap"] == GIB
    assert resources(memory_reservation_bytes=GIB)["memory"] == {"reservation": GIB}
    without = attrs.evolve(MACHINE, swap_accounting=False)
    assert resources(without, memory_bytes=GIB)["memory"] == {"limit": GIB}
    assert resources(memory_bytes=GIB, oom_kill_disable=True)["memory"]["disableOOMKiller"]
    v2 = attrs.evolve(MACHINE, cgroup_version=2)
    assert (
        "disableOOMKiller" not in resources(v2, memory_bytes=GIB, oom_kill_disable=True)["memory"]
    )


@pytest.mark.parametrize(
    "limits",
    [
        {"memory_swap_bytes": GIB},
        {"memory_bytes": GIB, "memory_swap_bytes": GIB - 1},
        {"nano_cpus": 10**9, "cpu_quota_us": 1000},
    ],
)
def test_limits_that_contradict_each_other_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(InvalidArgument):
        resources(**limits)


def test_cpu_and_other_limits() -> None:
    assert resources(nano_cpus=1_500_000_000)["cpu"] == {"quota": 150000, "period": 100000}
    assert resources(nano_cpus=1)["cpu"]["quota"] == 1000
    assert resources(cpu_shares=512, cpuset_cpus="0-1", cpuset_mems="0")["cpu"] == {
        "shares": 512,
        "cpus": "0-1",
        "mems": "0",
    }
    assert resources(pids_limit=10)["pids"] == {"limit": 10}
    assert "pids" not in resources(pids_limit=0)
    assert "pids" not in resources(pids_limit=-1)
    assert "cpu" not in resources(cpu_quota_us=-1)
    assert resources(blkio_weight=300)["blockIO"] == {"weight": 300}


def test_devices_are_made_and_allowed() -> None:
    device = Device(host_path="/dev/null", container_path="/dev/nothing", permissions="r")
    made = make(request(resources=Resources(devices=(device,), device_cgroup_rules=("c 42:* rw",))))
    (found,) = made["linux"]["devices"]
    assert (found["path"], found["type"], found["major"], found["minor"]) == (
        "/dev/nothing",
        "c",
        1,
        3,
    )
    rules = made["linux"]["resources"]["devices"]
    assert {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"} in rules
    assert rules[-1] == {"allow": True, "type": "c", "major": 42, "access": "rw"}


@pytest.mark.parametrize(
    "limits",
    [
        {"devices": (Device(host_path="/dev/no-such", container_path="/dev/x"),)},
        {"devices": (Device(host_path="/etc/passwd", container_path="/dev/x"),)},
        {"device_cgroup_rules": ("c 42 rw",)},
    ],
)
def test_wrong_devices_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        make(request(resources=Resources(**limits)))


# --- mounts, sysctls, init


def test_asked_mounts_come_after_the_defaults_parents_first() -> None:
    made = make(
        request(
            mounts=(
                BundleMount(destination="/data/deep", type="bind", source="/b"),
                BundleMount(destination="/data", type="bind", source="/a", options=("ro", "rbind")),
                BundleMount(destination="/scratch", type="tmpfs", options=("size=1m",)),
            )
        )
    )
    assert [mount["destination"] for mount in made["mounts"]][-3:] == [
        "/data",
        "/scratch",
        "/data/deep",
    ]
    assert mounts(made)["/data/deep"]["options"] == ["rbind"]
    assert mounts(made)["/data"]["options"] == ["ro", "rbind"]
    assert mounts(made)["/scratch"]["source"] == "tmpfs"


def test_an_asked_mount_takes_the_place_of_a_default_one() -> None:
    made = make(request(mounts=(BundleMount(destination="/dev/shm/", type="bind", source="/s"),)))
    assert [m["source"] for m in made["mounts"] if m["destination"].rstrip("/") == "/dev/shm"] == [
        "/s"
    ]
    made = make(request(mounts=(BundleMount(destination="/dev", type="bind", source="/dev"),)))
    assert [d for d in mounts(made) if d.startswith("/dev")] == ["/dev"]


def test_a_relative_destination_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="absolute"):
        make(request(mounts=(BundleMount(destination="data", type="tmpfs"),)))


def test_sysctls_of_the_container_are_set_and_others_refused() -> None:
    made = make(request(sysctls={"net.core.somaxconn": "10", "kernel.shmmax": "1"}))
    assert made["linux"]["sysctl"]["net.core.somaxconn"] == "10"
    with pytest.raises(InvalidArgument, match=r"vm\.swappiness"):
        make(request(sysctls={"vm.swappiness": "10"}))
    with pytest.raises(InvalidArgument, match="host network"):
        make(request(sysctls={"net.core.somaxconn": "10"}), namespaces=spec.Namespaces())


def test_init_is_put_before_the_command_or_refused_clearly() -> None:
    with pytest.raises(Unsupported, match="init"):
        make(request(init=True))
    machine = attrs.evolve(MACHINE, init="/usr/bin/tini")
    made = make(request(init=True), machine=machine)
    assert made["process"]["args"] == ["/sbin/docker-init", "--", "sh"]
    assert mounts(made)["/sbin/docker-init"]["source"] == "/usr/bin/tini"


def test_facts_of_this_machine_are_read() -> None:
    groups = Hierarchies(version=2, controllers={}, unified=Path("/sys/fs/cgroup"))
    machine = Machine.detect(groups, swap_accounting=False, init=None, soft_open_files=None)
    assert machine.hard_limits["nofile"] != 0
    assert machine.cgroup_version == 2
