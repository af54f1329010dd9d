"""Options of ``docker run``: each is seen from inside the container, or where the kernel keeps it."""

import json
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon, until

pytestmark = pytest.mark.system

V2 = not Path("/sys/fs/cgroup/memory").exists()
GROUP = "/sys/fs/cgroup"


def inside(daemon: Daemon, options: str, script: str, *, status: int = 0) -> str:
    """What a script says in a container with some options."""
    words = options.split()
    return daemon.docker("run", "--rm", *words, "busybox", "sh", "-c", script, status=status).out


def lines(daemon: Daemon, options: str, script: str) -> list[str]:
    """The same, by lines."""
    return inside(daemon, options, script).splitlines()


def limit(daemon: Daemon, options: str, v1: str, v2: str) -> str:
    """A file of the container's own control group; v1's with its controller in front."""
    return inside(daemon, options, f"cat {GROUP}/{v2 if V2 else v1}").strip()


def test_memory_limits_are_the_groups(daemon: Daemon) -> None:
    memory = "-m 64m --memory-swap 96m --memory-reservation 32m"
    script = (
        "cd /sys/fs/cgroup; cat memory.max memory.swap.max memory.low"
        if V2
        else "cd /sys/fs/cgroup/memory; cat memory.limit_in_bytes memory.soft_limit_in_bytes"
    )
    wanted = ["67108864", "33554432", "33554432"] if V2 else ["67108864", "33554432"]
    assert lines(daemon, memory, script) == wanted


@pytest.mark.skipif(V2, reason="control groups of version 2 have none")
def test_what_is_run_inside_is_killed_as_soon_as_the_container_itself(daemon: Daemon) -> None:
    scores = "/proc/self/oom_score_adj", "/proc/1/oom_score_adj"
    for score in ("500", "-300", "0"):
        daemon.docker(
            *("run", "-d", "--name", "killed", "--oom-score-adj", score, "busybox", "sleep", "99")
        )
        for options in ((), ("-i",), ("-t",)):
            inside, first = daemon.docker("exec", *options, "killed", "cat", *scores).out.split()
            assert inside == first, (score, options)
        daemon.docker("rm", "-f", "killed")


def test_swappiness_and_the_oom_killer_are_the_groups(daemon: Daemon) -> None:
    options = "-m 64m --memory-swappiness 17 --oom-kill-disable"
    script = f"cat {GROUP}/memory/memory.swappiness; grep oom_kill_disable {GROUP}/memory/memory.oom_control"
    assert lines(daemon, options, script) == ["17", "oom_kill_disable 1"]


def test_cpu_limits_are_the_groups(daemon: Daemon) -> None:
    quota = limit(daemon, "--cpus 0.25", "cpu/cpu.cfs_quota_us", "cpu.max")
    assert quota.split()[0] == "25000"
    none = limit(daemon, "--cpu-quota=-1", "cpu/cpu.cfs_quota_us", "cpu.max")
    assert none.split()[0] == ("max" if V2 else "-1")
    period = limit(
        daemon, "--cpu-period 50000 --cpu-quota 20000", "cpu/cpu.cfs_period_us", "cpu.max"
    )
    assert period.split()[-1] == "50000"
    shares = limit(daemon, "--cpu-shares 512", "cpu/cpu.shares", "cpu.weight")
    assert shares in ("512", "20", "59")  # a weight of v2 is computed from the shares
    assert lines(
        daemon, "--cpuset-cpus 0 --cpuset-mems 0", "grep _allowed_list /proc/self/status"
    ) == [
        "Cpus_allowed_list:\t0",
        "Mems_allowed_list:\t0",
    ]


def test_a_limit_of_the_processors_is_taken_away_by_an_update(daemon: Daemon) -> None:
    file = f"{GROUP}/{'cpu.max' if V2 else 'cpu/cpu.cfs_quota_us'}"
    daemon.docker("run", "-d", "--name", "slow", "--cpu-quota", "20000", "busybox", "sleep", "600")
    quotas = []
    for asked in ("20000", "-1", "30000"):
        daemon.docker("update", f"--cpu-quota={asked}", "slow")
        quotas.append(daemon.docker("exec", "slow", "cat", file).out.split()[0])
    assert quotas == ["20000", "max" if V2 else "-1", "30000"]


def test_process_limits_are_the_kernels(daemon: Daemon) -> None:
    assert limit(daemon, "--pids-limit 17", "pids/pids.max", "pids.max") == "17"
    options = "--ulimit nofile=321:654 --ulimit core=0 --oom-score-adj 500"
    script = "ulimit -Sn; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj"
    assert lines(daemon, options, script) == ["321", "654", "0", "500"]


def test_a_container_that_runs_out_of_memory_says_so(daemon: Daemon) -> None:
    daemon.docker("run", "--name", "hog", "-m", "16m", "--memory-swap", "16m", "busybox", "sh", "-c",
                  "x=a; while :; do x=$x$x; done", status=137)  # fmt: skip
    state = daemon.state("hog")
    assert (state["OOMKilled"], state["ExitCode"]) == (True, 137)


def test_limits_of_a_block_device_are_the_groups(daemon: Daemon) -> None:
    disk = sorted(d for d in Path("/sys/block").iterdir() if (d / "dev").exists())
    name = next(f"/dev/{d.name}" for d in disk if Path(f"/dev/{d.name}").is_block_device())
    options = f"--device-read-bps {name}:1mb --device-write-iops {name}:30"
    script = (
        f"cat {GROUP}/io.max"
        if V2
        else f"cd {GROUP}/blkio; cat blkio.throttle.read_bps_device blkio.throttle.write_iops_device"
    )
    said = inside(daemon, options, script)
    assert "1048576" in said
    assert "30" in said


def test_devices_are_there_and_may_be_used_as_stated(daemon: Daemon) -> None:
    script = "head -c 3 /dev/nothing | wc -c; stat -c %t:%T /dev/nothing"
    assert lines(daemon, "--device /dev/zero:/dev/nothing", script) == ["3", "1:5"]
    # Nobody drives this device: who may open it gets as far as being told so.
    reading = "(: < /dev/m) 2>&1 | grep -o 'No such device'"
    writing = "(: > /dev/m) 2>&1 | grep -o 'not permitted'"
    daemon.docker("run", "-d", "--name", "ruled", "--cap-add", "MKNOD", "--device-cgroup-rule",
                  "c 240:3 r", "busybox", "sleep", "1000")  # fmt: skip
    daemon.docker("exec", "ruled", "mknod", "/dev/m", "c", "240", "3")
    assert daemon.docker("exec", "ruled", "sh", "-c", reading).out == "No such device\n"
    assert daemon.docker("exec", "ruled", "sh", "-c", writing).out == "not permitted\n"


def capabilities(daemon: Daemon, options: str) -> int:
    text = inside(daemon, options, "grep CapEff /proc/self/status")
    return int(text.split()[1], 16)


def test_capabilities_are_added_dropped_and_all(daemon: Daemon) -> None:
    usual = capabilities(daemon, "")
    net_admin, chown = 1 << 12, 1 << 0
    assert usual & chown
    assert not usual & net_admin
    assert capabilities(daemon, "--cap-add NET_ADMIN") == usual | net_admin
    assert capabilities(daemon, "--cap-drop cap_chown") == usual & ~chown
    assert capabilities(daemon, "--cap-drop ALL") == 0
    assert capabilities(daemon, "--cap-drop ALL --cap-add CHOWN") == chown
    everything = capabilities(daemon, "--privileged")
    assert everything & net_admin
    assert capabilities(daemon, "--cap-add ALL") == everything


def test_seccomp_is_the_default_one_none_or_the_users(daemon: Daemon) -> None:
    script = "grep Seccomp: /proc/self/status; mkdir /made; echo $?"
    assert lines(daemon, "", script) == ["Seccomp:\t2", "0"]
    assert lines(daemon, "--security-opt seccomp=unconfined", script) == ["Seccomp:\t0", "0"]
    profile = daemon.folder / "no-mkdir.json"
    profile.write_text(
        json.dumps(
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
            }
        )
    )
    said = daemon.docker(
        "run", "--rm", "--security-opt", f"seccomp={profile}", "busybox", "mkdir", "/made", status=1
    )
    assert "Operation not permitted" in said.err


def test_no_new_privileges_and_masked_paths(daemon: Daemon) -> None:
    script = "grep NoNewPrivs /proc/self/status"
    assert lines(daemon, "--security-opt no-new-privileges", script) == ["NoNewPrivs:\t1"]
    assert lines(daemon, "", script) == ["NoNewPrivs:\t0"]
    hidden = "wc -c < /proc/keys; (echo 1 > /proc/sys/kernel/domainname) 2>&1 | grep -c Read-only"
    assert lines(daemon, "", hidden) == ["0", "1"]
    shown = "(echo here > /proc/sys/kernel/domainname) && cat /proc/sys/kernel/domainname"
    assert lines(daemon, "--security-opt systempaths=unconfined --cap-add SYS_ADMIN", shown) == [
        "here"
    ]


def test_a_read_only_root_has_its_writable_places(daemon: Daemon) -> None:
    script = (
        "touch /x 2>&1; touch /scratch/x /dev/shm/x && echo written; grep ' /scratch ' /proc/mounts"
    )
    said = lines(daemon, "--read-only --tmpfs /scratch:size=1m,mode=700,exec", script)
    assert "Read-only file system" in said[0]
    assert said[1] == "written"
    assert "size=1024k,mode=700" in said[2]
    assert "noexec" not in said[2]
    assert "nosuid,nodev" in said[2]


def test_mounts_of_all_types_with_their_options(daemon: Daemon) -> None:
    host = daemon.folder / "shared"
    (host / "sub").mkdir(parents=True)
    (host / "file").write_text("from the host\n")
    said = daemon.docker(
        "run", "--rm", "--mount", f"type=bind,src={host},dst=/bound,ro",
        "--mount", "type=volume,src=files,dst=/vol,volume-label=a=b",
        "--mount", "type=tmpfs,dst=/mem,tmpfs-size=2m,tmpfs-mode=1770",
        "-v", f"{host}/file:/etc/one-file:ro", "-v", f"{host}/new:/made-by-v",
        "busybox", "sh", "-c",
        "cat /bound/file /etc/one-file; touch /bound/x 2>&1; touch /vol/x /made-by-v/x; "
        "grep ^tmpfs./mem /proc/mounts",
    ).out.splitlines()  # fmt: skip
    assert said[:2] == ["from the host", "from the host"]
    assert "Read-only file system" in said[2]
    assert "size=2048k,mode=1770" in said[3]
    assert (host / "new/x").exists()
    assert json.loads(daemon.docker("volume", "inspect", "files").out)[0]["Labels"] == {"a": "b"}
    missing = daemon.docker(
        "run", "--rm", "--mount", "type=bind,src=/nowhere/at/all,dst=/x", "busybox", status=125
    )
    assert "bind source path does not exist: /nowhere/at/all" in missing.err


@pytest.mark.parametrize(("version", "below"), [("1.43", "rw"), ("1.44", "ro")])
def test_what_is_below_a_read_only_mount_can_be_written_in_old_versions(
    daemon: Daemon, version: str, below: str
) -> None:
    script = "grep ' /x/fs/cgroup ' /proc/self/mountinfo | cut -d' ' -f6 | cut -d, -f1"
    body = {
        "Image": "busybox",
        "Cmd": ["sh", "-c", script],
        "HostConfig": {"Binds": ["/sys:/x:ro"]},
    }
    path = f"/v{version}/containers/create?name=old"
    status, said = daemon.request("POST", path, json.dumps(body).encode())
    assert status == 201, said
    assert daemon.docker("start", "-a", "old").out.split() == [below]


def test_what_is_mounted_below_a_read_only_bind_is_read_only_unless_told_otherwise(
    daemon: Daemon,
) -> None:
    group = "/host/fs/cgroup" if V2 else "/host/fs/cgroup/pids"
    name = f"{group}/test-{daemon.folder.name}"
    script = f"mkdir {name} 2>&1 && rmdir {name} && echo made"
    refused = daemon.docker(
        "run", "--rm", "-v", "/sys:/host:ro", "busybox", "sh", "-c", script, status=1
    )
    assert "Read-only file system" in refused.out
    tree = "type=bind,src=/sys,dst=/host,ro,bind-recursive="
    said = daemon.docker("run", "--rm", "--mount", f"{tree}writable", "busybox", "sh", "-c", script)
    assert said.out == "made\n"
    alone = daemon.docker(
        "run", "--rm", "--mount", f"{tree}disabled", "busybox", "ls", "/host/fs/cgroup"
    )
    assert alone.out == ""


def test_volumes_from_another_container(daemon: Daemon) -> None:
    daemon.docker(
        "run", "--name", "first", "-v", "/data", "busybox", "sh", "-c", "echo kept > /data/x"
    )
    assert inside(daemon, "--volumes-from first", "cat /data/x") == "kept\n"
    said = daemon.docker(
        "run", "--rm", "--volumes-from", "first:ro", "busybox", "touch", "/data/y", status=1
    )
    assert "Read-only file system" in said.err


def test_sysctls_and_shared_memory(daemon: Daemon) -> None:
    options = "--sysctl net.ipv4.ip_forward=0 --sysctl kernel.msgmax=4096 --shm-size 3m"
    script = (
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax; grep ' /dev/shm ' /proc/mounts"
    )
    said = lines(daemon, options, script)
    assert said[:2] == ["0", "4096"]
    assert "size=3072k" in said[2]
    assert lines(daemon, "--ipc none", "grep -c ' /dev/shm ' /proc/mounts; true") == ["0"]


def test_init_is_the_first_process(daemon: Daemon) -> None:
    script = "read name < /proc/1/comm; echo $name; echo $$"
    assert lines(daemon, "--init", script) == ["docker-init", "2"]
    assert lines(daemon, "", script) == ["sh", "1"]
    assert lines(daemon, "--init --pid host", "ls /sbin/docker-init 2>&1; true") == [
        "ls: /sbin/docker-init: No such file or directory"
    ]
    done = daemon.docker("run", "--rm", "--init", "busybox", "sh", "-c", "exit 9", status=9)
    assert done.said == ""


def namespace(kind: str) -> str:
    return str(Path(f"/proc/self/ns/{kind}").readlink())


@pytest.mark.parametrize("kind", ["pid", "ipc", "uts", "cgroup"])
def test_namespaces_are_own_the_hosts_or_anothers(daemon: Daemon, kind: str) -> None:
    option = {"cgroup": "cgroupns"}.get(kind, kind)
    script = f"readlink /proc/self/ns/{kind}"
    assert inside(daemon, f"--{option} host", script).strip() == namespace(kind)
    if kind == "cgroup":
        assert inside(daemon, "--cgroupns private", script).strip() != namespace(kind)
        return
    assert inside(daemon, "", script).strip() != namespace(kind)
    if kind == "uts":
        return
    daemon.docker("run", "-d", "--name", "other", "--ipc", "shareable", "busybox", "sleep", "1000")
    own = daemon.docker("exec", "other", "readlink", f"/proc/self/ns/{kind}").out
    assert inside(daemon, f"--{option} container:other", script) == own


def test_names_of_the_machine_hosts_and_servers(daemon: Daemon) -> None:
    options = "--hostname ship --domainname sea.example --add-host db:10.1.2.3 --dns 10.9.9.9 "
    options += "--dns-search sea.example --dns-option ndots:3"
    script = (
        "hostname; cat /proc/sys/kernel/domainname; grep 10.1.2.3 /etc/hosts; cat /etc/resolv.conf"
    )
    said = inside(daemon, options, script)
    assert said.startswith("ship\nsea.example\n")
    for text in ("10.1.2.3\tdb", "10.9.9.9", "search sea.example", "ndots:3"):
        assert text in said


def test_user_groups_environment_and_working_folder(daemon: Daemon) -> None:
    options = "-u 1000:1001 --group-add 777 -e A=b -e PATH=/bin:/sbin -w /made/by/run"
    script = "id -u; id -g; id -G; echo $A $PATH; pwd; stat -c %u /made/by"
    assert lines(daemon, options, script) == [
        "1000", "1001", "1001 777", "b /bin:/sbin", "/made/by/run", "0",
    ]  # fmt: skip


def test_entrypoint_and_command_may_be_taken_away(daemon: Daemon) -> None:
    context = daemon.write_context('FROM busybox\nENTRYPOINT ["echo", "entry"]\nCMD ["command"]\n')
    daemon.cli("build", "-t", "both", context)
    try:
        assert daemon.docker("run", "--rm", "both").out == "entry command\n"
        assert daemon.docker("run", "--rm", "both", "mine").out == "entry mine\n"
        assert (
            daemon.docker("run", "--rm", "--entrypoint", "/bin/ls", "both", "-d", "/").out == "/\n"
        )
        assert "no command specified" in daemon.docker(
            "run", "--rm", "--entrypoint", "", "both", status=125
        ).err  # fmt: skip
        assert daemon.docker("run", "--rm", "--entrypoint", "", "both", "pwd").out == "/\n"
    finally:
        daemon.docker("rmi", "both")


def test_a_terminal_begins_with_the_clients_size(daemon: Daemon) -> None:
    made = daemon.docker("create", "-t", "--name", "term", "busybox", "stty", "size").out.strip()
    seen = json.loads(daemon.docker("inspect", made).out)[0]
    assert seen["HostConfig"]["ConsoleSize"] == [0, 0]


def test_health_is_asked_more_often_in_the_beginning(daemon: Daemon) -> None:
    daemon.docker(
        "run", "-d", "--name", "slow", "--health-cmd", "test -e /ready", "--health-interval", "1h",
        "--health-start-period", "1h", "--health-start-interval", "100ms", "busybox", "sleep", "1000",
    )  # fmt: skip
    until("a probe has failed", lambda: daemon.state("slow")["Health"]["Log"])
    assert daemon.state("slow")["Health"]["Status"] == "starting"
    assert daemon.state("slow")["Health"]["FailingStreak"] == 0
    daemon.docker("exec", "slow", "touch", "/ready")
    until("it is well", lambda: daemon.state("slow")["Health"]["Status"] == "healthy")


def test_restart_policies_count_and_end(daemon: Daemon) -> None:
    daemon.docker("run", "-d", "--name", "again", "--restart", "on-failure:2", "busybox", "false")

    def over() -> bool:
        seen = json.loads(daemon.docker("inspect", "again").out)[0]
        return (seen["RestartCount"], seen["State"]["Status"]) == (2, "exited")

    until("it was started twice more", over)
    daemon.docker("run", "-d", "--name", "ever", "--restart", "always", "busybox", "sleep", "0.01")
    until("it has begun anew", lambda: _restarts(daemon, "ever") > 1)
    daemon.docker("update", "--restart", "no", "ever")
    until("it stays", lambda: daemon.state("ever")["Status"] == "exited")


def _restarts(daemon: Daemon, name: str) -> int:
    return int(json.loads(daemon.docker("inspect", name).out)[0]["RestartCount"])


def test_stop_signal_and_timeout_are_used(daemon: Daemon) -> None:
    script = "trap 'exit 42' USR1; while :; do sleep 0.05; done"
    daemon.docker(
        "run", "-d", "--name", "polite", "--stop-signal", "USR1", "busybox", "sh", "-c", script
    )
    daemon.docker("stop", "polite")
    assert daemon.state("polite")["ExitCode"] == 42
    daemon.docker(
        "run", "-d", "--name", "deaf", "--stop-timeout", "0", "busybox", "sh", "-c",
        "trap '' TERM; while :; do sleep 0.05; done",
    )  # fmt: skip
    daemon.docker("stop", "deaf")
    assert daemon.state("deaf")["ExitCode"] == 137


def test_labels_annotations_and_the_rest_come_back(daemon: Daemon) -> None:
    daemon.docker(
        "create", "--name", "made", "-l", "a=b", "--annotation", "org.example=1", "--log-driver", "local",
        "--log-opt", "max-size=1m", "--runtime", "runc", "--platform", "linux/amd64", "-m", "64m",
        "--memory-swappiness", "10", "--mount", "type=tmpfs,dst=/t", "-v", "data:/data:ro", "busybox",
    )  # fmt: skip
    seen = json.loads(daemon.docker("inspect", "made").out)[0]
    host = seen["HostConfig"]
    assert seen["Config"]["Labels"]["a"] == "b"
    assert host["Annotations"] == {"org.example": "1"}
    assert host["LogConfig"] == {"Type": "local", "Config": {"max-size": "1m"}}
    assert (host["Runtime"], host["MemorySwappiness"]) == ("runc", 10)
    assert host["Binds"] == ["data:/data:ro"]
    assert sorted((m["Type"], m["Mode"], m["RW"]) for m in seen["Mounts"]) == [
        ("tmpfs", "", True),
        ("volume", "ro", False),
    ]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("-m 1m", "Minimum memory limit allowed is 6MB"),
        ("--memory-swap 64m", "You should always set the Memory limit when using Memoryswap limit"),
        ("--cpus 9999", "range of CPUs is from 0.01 to"),
        ("--cpuset-cpus 9998", "Requested CPUs are not available - requested 9998"),
        ("--cap-add BOGUS", 'invalid CapAdd: unknown capability: "CAP_BOGUS"'),
        ("--security-opt bogus=1", "invalid --security-opt"),
        ("--log-driver bogus", 'error looking up logging plugin bogus: plugin "bogus" not found'),
        ("--log-opt bogus=1", "unknown log opt 'bogus' for json-file log driver"),
        ("--runtime bogus", "unknown or invalid runtime name: bogus"),
        ("--stop-signal BOGUS", "invalid signal: BOGUS"),
        ("--oom-score-adj 2000", "range for oom score adj is [-1000, 1000]"),
        ("--tmpfs /x:bogus", 'invalid tmpfs option "bogus"'),
        ("-v data:/x:bogus", "invalid mode: bogus"),
        ("-v /tmp:/x -v /var:/x", "Duplicate mount point: /x"),
        ("--volumes-from nobody", "No such container: nobody"),
        ("--sysctl foo.bar=1", "foo.bar"),
        ("--uts host -h name", "conflicting options: hostname and the UTS mode"),
        ("--network container:x -p 80:80", "port publishing and the container type network mode"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_dockers_words(daemon: Daemon, words: str, text: str) -> None:
    done = daemon.docker("run", "--rm", *words.split(), "busybox", "true", status=125)
    assert text in done.err
    assert daemon.containers() == []


def test_a_limit_of_the_root_is_refused_as_a_disk_without_quotas_refuses_it(daemon: Daemon) -> None:
    for option, said in (
        (
            "size=1G",
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
        ),
        ("colour=red", "Unknown option colour"),
    ):
        name, _, value = option.partition("=")
        done = daemon.docker("create", "--storage-opt", option, "busybox", status=1)
        assert said in done.err
        body = json.dumps({"Image": "busybox", "HostConfig": {"StorageOpt": {name: value}}})
        status, _ = daemon.request("POST", "/containers/create", body.encode())
        assert status == 400
    assert daemon.containers() == []


def test_an_execs_terminal_has_the_size_that_its_start_says(daemon: Daemon) -> None:
    daemon.docker("run", "-d", "--name", "one", "busybox", "sleep", "1000")
    script = 'until [ "$(stty size)" = "33 77" ]; do sleep 0.1; done; touch /sized'
    body = json.dumps({"Cmd": ["sh", "-c", script], "Tty": True})
    _, text = daemon.request("POST", "/containers/one/exec", body.encode())
    start = json.dumps({"Detach": True, "Tty": True, "ConsoleSize": [33, 77]})
    made = json.loads(text)["Id"]
    assert daemon.request("POST", f"/exec/{made}/start", start.encode())[0] == 200
    until("it is sized", lambda: daemon.docker("exec", "one", "ls", "/").out.count("sized"))
