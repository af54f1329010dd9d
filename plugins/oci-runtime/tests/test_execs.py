"""Execs whose runtime was started before it was told what to run."""

import time
from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL

import pytest
import trio
import trio.testing

from linkspan.plugins.oci_runtime.config import OciConfig
from linkspan.plugins.oci_runtime.driver import OciRuntime
from linkspan.sdk.drivers.runtime import ProcessSpec
from linkspan.sdk.errors import InvalidArgument, NotFound
from linkspan.sdk.testing.conformance.runtime import PATH, RuntimeBench, shell
from linkspan.sdk.testing.host import FakeHost

pytestmark = pytest.mark.system


def waiting_runtimes(container_id: str) -> list[int]:
    """Pids of runtimes that are to run an exec in a container."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"exec" in words and container_id.encode() in words:
            found.append(int(process.name))
    return found


def one_waits(container_id: str) -> bool:
    """Whether one runtime waits. Not a task's wait: meanwhile nobody could end it."""
    deadline = time.monotonic() + 30
    while not (found := waiting_runtimes(container_id)):
        assert time.monotonic() < deadline
        time.sleep(0.001)  # it has just replaced its parent's image and has no words yet
    return len(found) == 1


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110 - of other processes
            await trio.sleep(0.01)


async def test_a_runtime_that_nobody_comes_for_ends_and_leaves_no_file(
    bench: RuntimeBench, fake_host: FakeHost
) -> None:
    container_id = await bench.start("sleep 60")
    bench.runtime.expect_exec(container_id, shell("true"))
    bench.runtime.expect_exec(container_id, shell("true"))
    await trio.testing.wait_all_tasks_blocked()
    assert one_waits(container_id)
    await until(lambda: not waiting_runtimes(container_id))
    await until(lambda: not list(fake_host.run_dir.rglob("exec/*")))
    assert await bench.exec(container_id, "echo later") == (0, b"later\n")


async def test_a_runtime_that_waits_ends_with_its_daemon(
    config: OciConfig, busybox_rootfs: Path, fake_host: FakeHost
) -> None:
    async with OciRuntime.open(config, fake_host) as runtime:
        await runtime.recover()
        bench = RuntimeBench(runtime, busybox_rootfs)
        container_id = await bench.start("sleep 60")
        runtime.expect_exec(container_id, shell("true"))
        await trio.testing.wait_all_tasks_blocked()
        assert one_waits(container_id)
        descriptors = open_files()
        assert await bench.exec(container_id, "true") == (0, b"")
        assert open_files() < descriptors
        runtime.expect_exec(container_id, shell("true"))
        await trio.testing.wait_all_tasks_blocked()
        await runtime.delete(container_id)
    assert waiting_runtimes(container_id) == []


async def test_a_process_larger_than_a_pipe_is_told_whole(bench: RuntimeBench) -> None:
    container_id = await bench.start("sleep 60")
    large = tuple(f"LARGE_{number}={'x' * 10_000}" for number in range(60))
    script = "env | grep -c ^LARGE_"
    process = ProcessSpec(args=("/bin/sh", "-c", script), env=(PATH, *large))
    assert await bench.exec(container_id, process) == (0, b"60\n")
    bench.runtime.expect_exec(container_id, process)
    await trio.testing.wait_all_tasks_blocked()
    assert await bench.exec(container_id, process) == (0, b"60\n")


async def test_a_process_that_cannot_be_is_refused_and_ends_the_runtime(
    bench: RuntimeBench,
) -> None:
    container_id = await bench.start("sleep 60")
    process = shell("true", user="nobody-of-that-name")
    bench.runtime.expect_exec(container_id, process)
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(InvalidArgument):
        await bench.exec(container_id, process)
    assert waiting_runtimes(container_id) == []


async def test_a_container_that_has_ended_meanwhile_is_not_entered(bench: RuntimeBench) -> None:
    container_id = await bench.start("sleep 60")
    bench.runtime.expect_exec(container_id, shell("true"))
    await trio.testing.wait_all_tasks_blocked()
    await bench.runtime.signal(container_id, SIGKILL)
    await bench.runtime.wait(container_id)
    with pytest.raises(NotFound):
        await bench.exec(container_id, "true")
    request = bench.request("echo again > /tmp/life; sleep 60", container_id=container_id)
    await bench.runtime.create(request)
    await bench.runtime.start(container_id)
    assert await bench.exec(container_id, "echo entered") == (0, b"entered\n")
    await until(lambda: not waiting_runtimes(container_id))


async def test_nothing_waits_for_a_container_that_is_paused(bench: RuntimeBench) -> None:
    container_id = await bench.start("sleep 60")
    await bench.runtime.pause(container_id)
    bench.runtime.expect_exec(container_id, shell("true"))
    await trio.testing.wait_all_tasks_blocked()
    assert waiting_runtimes(container_id) == []
    await bench.runtime.resume(container_id)
