"""What the kernel shows of a container: needs root, cgroups, namespaces, crun or runc, conmon, busybox."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from left_behind import mark

from linkspan.plugins.oci_runtime import mount_namespace
from linkspan.plugins.oci_runtime.config import OciConfig
from linkspan.plugins.oci_runtime.driver import OciRuntime
from linkspan.sdk.drivers.runtime import BundleMount, ProcessSpec
from linkspan.sdk.errors import Internal, InvalidArgument, NotUsable, OutOfSpace, Unsupported
from linkspan.sdk.model.container import Resources, Ulimit
from linkspan.sdk.model.process import LogQuery, StreamKind
from linkspan.sdk.testing.conformance.runtime import PATH, RuntimeBench, drain, shell
from linkspan.sdk.testing.host import FakeHost

pytestmark = pytest.mark.system
PARENT = f"/linkspan-{mark()}"
MIB = 1 << 20


async def output(bench: RuntimeBench, script: str, **changes: Any) -> str:
    """What a script prints."""
    process = shell(script, **changes.pop("process", {}))
    container_id = await bench.start(process, **changes)
    status = await bench.runtime.wait(container_id)
    text = b"".join(data for _, data in await bench.log(container_id)).decode()
    assert status.exit_code == 0, text
    return text.strip()


# --- what a container is


async def test_its_init_is_filtered_and_has_the_default_capabilities(bench: RuntimeBench) -> None:
    text = await output(bench, "grep -E 'Seccomp:|CapEff|CapBnd|NoNewPrivs' /proc/self/status")
    found = dict(line.split(":\t") for line in text.splitlines())
    assert found["Seccomp"] == "2"
    assert found["CapEff"] == found["CapBnd"] == "00000000a80425fb"
    assert found["NoNewPrivs"] == "0"


async def test_the_second_container_has_the_kept_filter_and_the_same_protection(
    bench: RuntimeBench, fake_host: FakeHost, config: OciConfig
) -> None:
    script = "grep Seccomp: /proc/self/status; unshare -U true 2>&1 || echo denied"
    first = await output(bench, script)
    kept = list((fake_host.state_dir / "seccomp").glob("*")) if config.runtime == "crun" else []
    assert len(kept) == (1 if config.runtime == "crun" else 0)
    second = await output(bench, script)
    assert first == second
    assert "Seccomp:\t2" in second
    assert "denied" in second


async def test_an_exec_is_as_protected_as_its_container(bench: RuntimeBench) -> None:
    await output(bench, "true")
    container_id = await bench.start("sleep 30", cap_drop=("ALL",))
    code, text = await bench.exec(container_id, "grep -E 'Seccomp:|CapEff' /proc/self/status")
    assert code == 0
    assert text == b"CapEff:\t0000000000000000\nSeccomp:\t2\n"


async def test_unconfined_and_privileged_containers_are_not_filtered(bench: RuntimeBench) -> None:
    script = "grep Seccomp: /proc/self/status"
    assert "0" in await output(bench, script, security_opt=("seccomp=unconfined",))
    assert "0" in await output(bench, script, privileged=True)
    assert await output(bench, "ls /dev/vda /dev/mem | wc -l", privileged=True)


async def test_a_profile_of_its_own_is_used(bench: RuntimeBench) -> None:
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
    profile = json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    option = (f"seccomp={profile}",)
    for _ in range(2):
        text = await output(bench, "mkdir /tmp/x 2>&1 || true", security_opt=option)
        assert "Operation not permitted" in text


async def test_no_new_privileges_is_set(bench: RuntimeBench) -> None:
    text = await output(
        bench, "grep NoNewPrivs /proc/self/status", security_opt=("no-new-privileges",)
    )
    assert text.endswith("1")


async def test_it_runs_as_the_user_asked_for(bench: RuntimeBench) -> None:
    text = await output(bench, "id; echo $HOME", process={"user": "app", "group_add": ("log",)})
    assert text == ("uid=1000(app) gid=1001(app) groups=10(wheel),40(log),1001(app)\n/home/app")
    assert (await output(bench, "id -u; id -g", process={"user": "7:8"})) == "7\n8"
    container_id = await bench.start("sleep 30")
    code, said = await bench.exec(container_id, shell("id -un", user="app"))
    assert (code, said) == (0, b"app\n")


async def test_a_missing_working_directory_is_made(bench: RuntimeBench) -> None:
    assert await output(bench, "pwd", process={"cwd": "/srv/new/place"}) == "/srv/new/place"


async def test_hostname_namespaces_and_masked_paths(bench: RuntimeBench) -> None:
    text = await output(bench, "hostname; echo $$; ls /sys/firmware | wc -l", hostname="box")
    assert text == "box\n1\n0"


async def test_a_read_only_root_is_read_only(bench: RuntimeBench) -> None:
    text = await output(
        bench,
        "touch /x 2>&1; touch /scratch/x && echo fine",
        read_only=True,
        mounts=(BundleMount(destination="/scratch", type="tmpfs", options=("size=1m",)),),
    )
    assert "Read-only" in text
    assert text.endswith("fine")


async def test_binds_are_mounted_with_their_options(bench: RuntimeBench, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("from the host")
    bind = BundleMount(
        destination="/data", type="bind", source=str(tmp_path / "data"), options=("rbind", "ro")
    )
    text = await output(bench, "cat /data/file; touch /data/x 2>&1 || true", mounts=(bind,))
    assert text.startswith("from the host")
    assert "Read-only" in text


async def test_sysctls_shm_and_ulimits_are_set(bench: RuntimeBench) -> None:
    text = await output(
        bench,
        "cat /proc/sys/kernel/msgmax; df -k /dev/shm | tail -1 | awk '{print $2}'; ulimit -n",
        sysctls={"kernel.msgmax": "1234"},
        shm_size_bytes=8 * MIB,
        resources=Resources(ulimits=(Ulimit(name="nofile", soft=99, hard=100),)),
    )
    assert text == "1234\n8192\n99"


async def test_a_namespace_can_be_shared_with_another_container(bench: RuntimeBench) -> None:
    first = await bench.start("sleep 31")
    text = await output(bench, "ps | grep -c 'sleep 3[1]'", share_pid=first)
    assert text == "1"
    second = await bench.start("sleep 32", share_pid=first)
    await bench.runtime.delete(second)
    assert await bench.runtime.pids(first)


async def test_an_init_is_refused_when_there_is_none(
    busybox_rootfs: Path, fake_host: FakeHost
) -> None:
    config = OciConfig(init="/no/init", cgroup_parent=PARENT)
    async with OciRuntime.open(config, fake_host) as runtime:
        with pytest.raises(Unsupported, match="init"):
            await RuntimeBench(runtime, busybox_rootfs).create("true", init=True)


async def test_an_init_runs_the_command_as_its_child(
    busybox_rootfs: Path, fake_host: FakeHost, tmp_path: Path
) -> None:
    # busybox has no init for containers; a shell that keeps its child shows the same.
    init = tmp_path / "init"
    init.write_text('#!/bin/sh\nshift\n"$@"\nexit $?\n')
    init.chmod(0o755)
    config = OciConfig(init=str(init), cgroup_parent=PARENT)
    async with OciRuntime.open(config, fake_host) as runtime:
        bench = RuntimeBench(runtime, busybox_rootfs)
        assert await output(bench, "[ $$ != 1 ] && echo child", init=True) == "child"
        for container_id in bench.made:
            await runtime.delete(container_id)


# --- limits


async def test_a_container_that_uses_too_much_memory_is_oom_killed(bench: RuntimeBench) -> None:
    script = "x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done"
    status = await bench.run(
        script, resources=Resources(memory_bytes=16 * MIB, memory_swap_bytes=16 * MIB)
    )
    assert status.exit_code == 137
    assert status.oom_killed


async def test_limits_arrive_in_the_cgroup(bench: RuntimeBench) -> None:
    limits = Resources(memory_bytes=64 * MIB, nano_cpus=500_000_000, pids_limit=33, cpu_shares=512)
    container_id = await bench.start("sleep 30", resources=limits)
    stats = await bench.runtime.stats(container_id)
    assert (stats.memory_limit_bytes, stats.pids_limit) == (64 * MIB, 33)
    (pid, *_) = await bench.runtime.pids(container_id)
    groups = Path(f"/proc/{pid}/cgroup").read_text()
    assert f"{PARENT}/{container_id}" in groups
    await bench.runtime.update(container_id, Resources(memory_bytes=32 * MIB, pids_limit=20))
    stats = await bench.runtime.stats(container_id)
    assert (stats.memory_limit_bytes, stats.pids_limit) == (32 * MIB, 20)


async def test_a_paused_container_does_nothing_and_can_be_killed(bench: RuntimeBench) -> None:
    container_id = await bench.start("while true; do echo tick; sleep 0.02; done")
    await bench.until_logged(container_id, b"tick")
    await bench.runtime.pause(container_id)
    with trio.fail_after(30):  # what it had said before may still be on its way to the log
        before, now = -1, len(await bench.log(container_id))
        while now > before:
            await trio.sleep(0.2)
            before, now = now, len(await bench.log(container_id))
    await bench.runtime.signal(container_id, signal.SIGKILL)
    with trio.fail_after(30):
        assert (await bench.runtime.wait(container_id)).exit_code == 137


# --- streams


async def test_much_output_arrives_whole(bench: RuntimeBench) -> None:
    script = "dd if=/dev/zero bs=65536 count=64 2>/dev/null"
    container_id = await bench.create(script, log=False)
    async with bench.runtime.attach(container_id) as streams:
        await bench.runtime.start(container_id)
        assert len((await drain(streams))[StreamKind.STDOUT]) == 4 * MIB
    container_id = await bench.start("sleep 30")
    async with bench.runtime.exec(container_id, shell(script)) as session:
        assert len((await drain(session))[StreamKind.STDOUT]) == 4 * MIB


async def test_much_input_arrives_whole(bench: RuntimeBench) -> None:
    container_id = await bench.create(shell("wc -c", stdin=True), stdin_once=True)
    async with bench.runtime.attach(container_id) as streams:
        await bench.runtime.start(container_id)
        await streams.send(b"x" * (2 * MIB))
        await streams.close_stdin()
        assert await drain(streams) == {StreamKind.STDOUT: b"2097152\n"}
    held = await bench.start("sleep 30")
    async with bench.runtime.exec(held, shell("wc -c", stdin=True)) as session:
        await session.send(b"x" * (2 * MIB))
        await session.close_stdin()
        assert await drain(session) == {StreamKind.STDOUT: b"2097152\n"}


async def test_terminals_have_the_size_they_are_told(bench: RuntimeBench) -> None:
    script = "trap 'stty size; exit' WINCH; echo up; while true; do sleep 0.05; done"
    container_id = await bench.create(shell(script, tty=True))
    async with bench.runtime.attach(container_id) as streams:
        await bench.runtime.start(container_id)
        await streams.receive()
        await bench.runtime.resize(container_id, 40, 120)
        assert b"40 120" in b"".join((await drain(streams)).values())
    held = await bench.start("sleep 30")
    async with bench.runtime.exec(held, shell(script, tty=True)) as session:
        await session.receive()
        await session.resize(33, 99)
        with trio.fail_after(5):
            assert b"33 99" in b"".join((await drain(session)).values())


async def test_a_terminal_begins_with_the_size_that_was_asked(bench: RuntimeBench) -> None:
    process = shell("stty size", tty=True, console_size=(33, 99))
    container_id = await bench.start(process)
    await bench.runtime.wait(container_id)
    assert await bench.log(container_id) == [(StreamKind.STDOUT, b"33 99\r\n")]
    held = await bench.start("sleep 30")
    # In a session the program may look before its terminal has been told.
    # busybox's stty says nothing of a size that is not set, and ends well.
    session = shell("until stty size | grep .; do usleep 5000; done 2>/dev/null", tty=True,
                    stdin=True, console_size=(33, 99))  # fmt: skip
    code, said = await bench.exec(held, session)
    assert (code, said) == (0, b"33 99\r\n")


async def test_without_shared_memory_there_is_none_and_the_namespace_is_own(
    bench: RuntimeBench,
) -> None:
    script = "grep -c ' /dev/shm ' /proc/mounts; readlink /proc/self/ns/ipc"
    container_id = await bench.start(script, share_ipc="none")
    await bench.runtime.wait(container_id)
    first, second = [data.decode().strip() for _, data in await bench.log(container_id)]
    assert first == "0"
    assert second != str(Path("/proc/self/ns/ipc").readlink())


COUNT_TO_400 = "i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); usleep 2000; done"
COUNTED = [b"line %d\n" % n for n in range(400)]


async def test_a_log_keeps_its_last_files_and_no_line_between_them_is_lost(
    bench: RuntimeBench,
) -> None:
    container_id = await bench.start(COUNT_TO_400, log_max_bytes=2048, log_max_files=3)
    await bench.runtime.wait(container_id)
    kept = [data for _, data in await bench.log(container_id)]
    assert 0 < len(kept) < 400
    assert kept == COUNTED[-len(kept) :]
    assert [data for _, data in await bench.log(container_id, tail=20)] == COUNTED[-20:]


async def test_a_follower_misses_nothing_when_files_change(bench: RuntimeBench) -> None:
    container_id = await bench.start(COUNT_TO_400, log_max_bytes=1024, log_max_files=100)
    followed = [data async for data in lines(bench, container_id)]
    assert followed == COUNTED
    assert [data for _, data in await bench.log(container_id)] == COUNTED
    assert [data for _, data in await bench.log(container_id, tail=300)] == COUNTED[-300:]


async def test_a_log_stays_small_and_whole_when_the_daemon_is_another_one(
    config: OciConfig, busybox_rootfs: Path, fake_host: FakeHost
) -> None:
    async with OciRuntime.open(config, fake_host) as first:
        await first.recover()
        bench = RuntimeBench(first, busybox_rootfs)
        container_id = await bench.start(COUNT_TO_400, log_max_bytes=1024, log_max_files=100)
    async with OciRuntime.open(config, fake_host) as second:
        await second.recover()
        bench = RuntimeBench(second, busybox_rootfs)
        await second.wait(container_id)
        assert [data for _, data in await bench.log(container_id)] == COUNTED
        await second.delete(container_id)


async def lines(bench: RuntimeBench, container_id: str) -> AsyncIterator[bytes]:
    async with bench.runtime.logs(container_id, LogQuery(follow=True)) as records:
        async for record in records:
            yield record.data


async def test_a_log_of_one_file_begins_anew_at_its_size(bench: RuntimeBench) -> None:
    # The old file stays beside the new: lines are lost when it has grown full twice, and been looked at.
    script = "i=0; while [ $i -lt 1500 ]; do echo line $i; i=$((i+1)); usleep 2000; done"
    container_id = await bench.start(script, log_max_bytes=4096)
    await bench.runtime.wait(container_id)
    records = await bench.log(container_id)
    assert 0 < len(records) < 1500
    assert records[-1] == (StreamKind.STDOUT, b"line 1499\n")


async def test_a_long_line_is_told_in_parts_without_a_newline_between(bench: RuntimeBench) -> None:
    container_id = await bench.start("head -c 100000 /dev/zero | tr '\\0' x; echo end")
    await bench.runtime.wait(container_id)
    records = await bench.log(container_id)
    assert len(records) > 1
    assert b"".join(data for _, data in records) == b"x" * 100000 + b"end\n"


async def test_exec_of_a_file_that_cannot_be_executed_is_126(bench: RuntimeBench) -> None:
    container_id = await bench.start("sleep 30")
    code, said = await bench.exec(container_id, ProcessSpec(args=("/etc/passwd",), env=(PATH,)))
    assert code == 126
    assert said
    with pytest.raises(InvalidArgument) as caught:
        await bench.start(ProcessSpec(args=("/etc/passwd",), env=(PATH,)))
    assert caught.value.code == "command_not_executable"


async def test_a_missing_program_is_127_with_a_terminal_too(bench: RuntimeBench) -> None:
    container_id = await bench.start("sleep 30")
    process = ProcessSpec(args=("nope",), env=(PATH,), tty=True)
    async with bench.runtime.exec(container_id, process) as session:
        said = b"".join((await drain(session)).values())
        assert await session.wait() == 127
    assert b"nope" in said


# --- faults


async def test_a_missing_root_folder_is_told_and_leaves_nothing(
    bench: RuntimeBench, fake_host: FakeHost
) -> None:
    bench.rootfs = bench.rootfs / "missing"
    with pytest.raises(Internal, match="missing"):
        await bench.create("true")
    assert list((fake_host.run_dir / "c").iterdir()) == []
    assert list((fake_host.state_dir / "containers").iterdir()) == []


async def test_a_mount_that_cannot_be_made_is_told(bench: RuntimeBench) -> None:
    bind = BundleMount(destination="/data", type="bind", source="/no/such/source")
    with pytest.raises(InvalidArgument, match=r"(n|N)o such"):
        await bench.create("true", mounts=(bind,))


async def test_a_container_whose_conmon_was_killed_is_ended_and_told(
    bench: RuntimeBench, fake_host: FakeHost
) -> None:
    container_id = await bench.start("sleep 30")
    (pid,) = await bench.runtime.pids(container_id)
    record = json.loads(
        (fake_host.state_dir / "containers" / container_id / "container.json").read_text()
    )
    os.kill(record["conmon_pid"], signal.SIGKILL)
    with trio.fail_after(5):
        status = await bench.runtime.wait(container_id)
    assert status.exit_code == 137
    assert "conmon" in status.error
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            break
        await trio.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists()


async def test_output_of_a_container_that_is_over_before_conmon_looks_reaches_who_was_attached(
    bench: RuntimeBench, fake_host: FakeHost
) -> None:
    for tty in (False, True):
        container_id = await bench.create(shell("echo said", tty=tty))
        folder = fake_host.state_dir / "containers" / container_id
        record = json.loads((folder / "container.json").read_text())
        conmon = os.pidfd_open(record["conmon_pid"])
        signal.pidfd_send_signal(conmon, signal.SIGSTOP)
        try:
            async with bench.runtime.attach(container_id) as streams:
                await bench.runtime.start(container_id)
                with trio.fail_after(30):
                    while not _is_over(record["pid"]):  # noqa: ASYNC110 - conmon, who is told, is stopped
                        await trio.sleep(0.01)
                signal.pidfd_send_signal(conmon, signal.SIGCONT)
                assert b"".join((await drain(streams)).values()).rstrip() == b"said"
        finally:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(conmon, signal.SIGCONT)
            os.close(conmon)


def _is_over(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


async def test_a_create_that_is_cancelled_leaves_nothing(
    bench: RuntimeBench, fake_host: FakeHost
) -> None:
    for pause_s in (0.001, 0.003, 0.006, 0.01):
        with trio.move_on_after(pause_s):
            await bench.create("sleep 30")
    for container_id in bench.made:
        await bench.runtime.delete(container_id)
    for _ in range(250):
        if not list((fake_host.run_dir / "c").iterdir()):
            break
        await trio.sleep(0.02)
    assert list((fake_host.run_dir / "c").iterdir()) == []
    # Newer versions of crun keep a cache of compiled filters in `.cache` beside the containers.
    assert [p.name for p in (fake_host.run_dir / "s").iterdir() if p.name != ".cache"] == []
    assert list((fake_host.state_dir / "containers").iterdir()) == []


async def test_a_full_disk_is_told(
    tmp_path: Path, busybox_rootfs: Path, nursery: trio.Nursery, config: OciConfig
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True)
    try:
        host = FakeHost(root=disk, nursery=nursery)
        async with OciRuntime.open(config, host) as runtime:
            (disk / "filler").write_bytes(b"x" * 30_000)
            with pytest.raises(OSError, match="No space"):
                (disk / "more").write_bytes(b"x" * 60_000)
            bench = RuntimeBench(runtime, busybox_rootfs)
            with pytest.raises(OutOfSpace):
                await bench.create("true")
            assert list((disk / "run/c").iterdir()) == []
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


async def test_missing_programs_make_the_driver_not_usable(fake_host: FakeHost) -> None:
    for config in (OciConfig(runtime="/no/crun"), OciConfig(conmon="/no/conmon")):
        with pytest.raises(NotUsable, match="/no/"):
            async with OciRuntime.open(config, fake_host):
                pass


async def test_files_of_a_create_that_a_crash_cut_off_are_collected(
    bench: RuntimeBench, fake_host: FakeHost
) -> None:
    half = fake_host.run_dir / "c" / ("e" * 64)
    half.mkdir()
    kept = await bench.start("sleep 30")
    removed = await bench.runtime.gc([kept])
    assert set(removed) == {"e" * 64}
    assert not half.exists()
    assert await bench.runtime.pids(kept)


# --- a daemon that is killed


@pytest.fixture
def daemon_root(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for name in ("run/mnt/ns", "run/mnt", "run/runtime"):
        subprocess.run(["umount", "-l", tmp_path / name], capture_output=True, check=False)


def spawn(verb: str, root: Path, rootfs: Path) -> "subprocess.Popen[str]":
    program = Path(__file__).with_name("daemon_process.py")
    return subprocess.Popen(
        [sys.executable, program, verb, root, rootfs], stdout=subprocess.PIPE, text=True
    )


def gone(pid: int) -> bool:
    """Whether a process ended, waiting a little for it."""
    for _ in range(200):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def test_containers_outlive_a_killed_daemon_and_are_found_by_the_next(
    daemon_root: Path, busybox_rootfs: Path
) -> None:
    with spawn("run", daemon_root, busybox_rootfs) as first:
        assert first.stdout is not None
        told = json.loads(first.stdout.readline())
        children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
        first.kill()
    parked = [pid for pid in children if _name(pid) == "cat"]
    assert all(gone(int(pid)) for pid in parked)
    init = told["pids"][0]
    assert Path(f"/proc/{init}").exists()
    cut_off = _forget_two_creates(daemon_root)
    if mount_namespace.is_hybrid():
        assert mount_namespace.is_pinned(daemon_root / "run")
    with spawn("recover", daemon_root, busybox_rootfs) as second:
        assert second.stdout is not None
        answer = json.loads(second.stdout.read())
    assert second.returncode == 0
    assert answer["found"] == {
        "0": {"pid": init, "code": None},
        "1": {"pid": 0, "code": 5},
        "4": {"pid": 0, "code": 7},
    }
    assert all(gone(pid) for pid in cut_off)
    assert answer["exec"] == ["inside\n", 0]
    assert answer["log"] == ["tick\n"]
    assert told["exec"] not in answer["pids"]
    assert gone(told["exec"])
    assert gone(init)
    assert not mount_namespace.is_pinned(daemon_root / "run")
    assert str(daemon_root) not in Path("/proc/self/mountinfo").read_text()


def _forget_two_creates(root: Path) -> list[int]:
    """As if the daemon had died between the making of two containers and the writing of their records.

    The second one had lived before. Returns the pids of both, and of their conmons.
    """
    containers = next(root.glob("**/containers"))
    pids = []
    for container_id in ("3" * 64, "4" * 64):
        file = containers / container_id / "container.json"
        record = json.loads(file.read_text())
        pids += [record["pid"], record["conmon_pid"]]
        file.unlink()
        if container_id[0] == "4":
            ended = {"exit_code": 7, "finished_at": "2026-01-01T00:00:00Z"}
            file.write_text(json.dumps({**record, "pid": 1, "conmon_pid": 1, "exit": ended}))
    return pids


def _name(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


async def test_after_a_reboot_the_log_is_there_and_the_container_is_ended(
    bench: RuntimeBench, fake_host: FakeHost, config: OciConfig
) -> None:
    container_id = await bench.start("echo words; exit 3")
    await bench.runtime.wait(container_id)
    file = fake_host.state_dir / "containers" / container_id / "container.json"
    await trio.sleep(0.1)
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "boot": "another", "exit": None, "conmon_pid": 1}))
    async with OciRuntime.open(config, fake_host) as second:
        await second.recover()
        (found,) = await second.recovered()
        assert found.exit is not None
        assert found.exit.exit_code == 137
        assert "restarted" in found.exit.error
        async with second.logs(container_id, LogQuery()) as records:
            assert [record.data async for record in records] == [b"words\n"]


async def test_who_joins_an_ipc_namespace_sees_its_shared_memory(
    bench: RuntimeBench, fake_host: FakeHost
) -> None:
    first = await bench.start("echo shared > /dev/shm/note; echo up; sleep 30")
    await bench.until_logged(first, b"up")
    text = await output(bench, "cat /dev/shm/note; echo back > /dev/shm/answer", share_ipc=first)
    assert text == "shared"
    assert await bench.exec(first, "cat /dev/shm/answer") == (0, b"back\n")
    assert list((fake_host.run_dir / "m").iterdir()) == []
    assert str(fake_host.run_dir / "m") not in Path("/proc/self/mountinfo").read_text()
