"""The contract of role ``runtime``, sentence by sentence.

Subclass ``RuntimeConformance``, set ``driver``, and override the fixtures ``config`` and ``rootfs`` where
the driver needs more. The root folder must have ``/bin/sh``, ``cat``, ``echo``, ``sleep``, ``env``,
``true`` (busybox will do)::

    @pytest.mark.system
    class TestOci(RuntimeConformance):
        driver = OciRuntime
"""

import itertools
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from signal import SIGKILL
from typing import Any, ClassVar

import pytest
import trio

from linkspan.sdk.drivers.runtime import (
    CreateRequest,
    OciSpec,
    ProcessSpec,
    Runtime,
    RuntimeCap,
)
from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound, Unsupported
from linkspan.sdk.model.container import ContainerSpec, ExitStatus, Resources
from linkspan.sdk.model.process import LogQuery, ProcessStreams, StreamKind
from linkspan.sdk.testing.host import FakeHost

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def shell(script: str, **changes: Any) -> ProcessSpec:
    """A process that runs a script."""
    return ProcessSpec(args=("/bin/sh", "-c", script), env=(PATH,), **changes)


class RuntimeBench:
    """A runtime with shortcuts; what it makes is removed at the end of the test."""

    def __init__(self, runtime: Runtime[Any], rootfs: Path) -> None:
        self.runtime = runtime
        self.rootfs = rootfs
        self.made: list[str] = []

    def request(self, process: ProcessSpec | str, **changes: Any) -> CreateRequest:
        """A request with a fresh id."""
        container_id = changes.pop("container_id", None) or secrets.token_hex(32)
        self.made.append(container_id)
        return CreateRequest(
            container_id=container_id,
            name=f"kit-{container_id[:6]}",
            rootfs=self.rootfs,
            process=shell(process) if isinstance(process, str) else process,
            **changes,
        )

    async def create(self, process: ProcessSpec | str, **changes: Any) -> str:
        """Create a container; return its id."""
        request = self.request(process, **changes)
        await self.runtime.create(request)
        return request.container_id

    async def start(self, process: ProcessSpec | str, **changes: Any) -> str:
        """Create and start one; return its id."""
        container_id = await self.create(process, **changes)
        await self.runtime.start(container_id)
        return container_id

    async def run(self, process: ProcessSpec | str, **changes: Any) -> ExitStatus:
        """Run one to its end."""
        return await self.runtime.wait(await self.start(process, **changes))

    async def log(self, container_id: str, **query: Any) -> list[tuple[StreamKind, bytes]]:
        """Its log as pairs of stream and data."""
        async with self.runtime.logs(container_id, LogQuery(**query)) as records:
            return [(record.stream, record.data) async for record in records]

    async def exec(self, container_id: str, process: ProcessSpec | str) -> tuple[int, bytes]:
        """Run a further process; return its exit code and all its output."""
        process = shell(process) if isinstance(process, str) else process
        async with self.runtime.exec(container_id, process) as session:
            output = await drain(session)
            return await session.wait(), b"".join(output.values())

    async def until_logged(self, container_id: str, text: bytes) -> None:
        """Wait until its log has a text."""
        async with self.runtime.logs(container_id, LogQuery(follow=True)) as records:
            async for record in records:
                if text in record.data:
                    return
        raise AssertionError(f"{text!r} was never written")


async def drain(streams: ProcessStreams) -> dict[StreamKind, bytes]:
    """Read to the end; what came on each stream."""
    found: dict[StreamKind, bytes] = {}
    while (chunk := await streams.receive()) is not None:
        found[chunk.stream] = found.get(chunk.stream, b"") + chunk.data
    return found


class RuntimeConformance:
    """See the module."""

    driver: ClassVar[type[Runtime[Any]]]

    @pytest.fixture
    def config(self) -> Any:
        return self.driver.config_type()

    @pytest.fixture
    def rootfs(self, tmp_path: Path) -> Path:
        folder = tmp_path / "rootfs"
        folder.mkdir()
        return folder

    @pytest.fixture
    async def bench(
        self, config: Any, rootfs: Path, fake_host: FakeHost
    ) -> AsyncIterator[RuntimeBench]:
        async with self.driver.open(config, fake_host) as runtime:
            await runtime.recover()
            bench = RuntimeBench(runtime, rootfs)
            try:
                yield bench
            finally:
                with trio.CancelScope(shield=True), trio.move_on_after(20):
                    for container_id in bench.made:
                        await runtime.delete(container_id)

    # --- life

    async def test_a_program_runs_to_its_end_and_its_exit_code_is_known(
        self, bench: RuntimeBench
    ) -> None:
        assert (await bench.run("exit 0")).exit_code == 0
        status = await bench.run("exit 7")
        assert status.exit_code == 7
        assert not status.oom_killed
        assert status.finished_at.endswith("Z")

    async def test_nothing_runs_before_start(self, bench: RuntimeBench) -> None:
        container_id = await bench.create("echo ran")
        with trio.move_on_after(0.1) as scope:
            await bench.runtime.wait(container_id)
        assert scope.cancelled_caught, "it ended without having been started"
        assert await bench.log(container_id) == []
        assert await bench.runtime.start(container_id) > 0
        await bench.runtime.wait(container_id)
        assert await bench.log(container_id) == [(StreamKind.STDOUT, b"ran\n")]

    async def test_all_waiters_get_the_same_answer_and_later_ones_at_once(
        self, bench: RuntimeBench
    ) -> None:
        container_id = await bench.create("exit 3")
        answers: list[ExitStatus] = []

        async def wait() -> None:
            answers.append(await bench.runtime.wait(container_id))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait)
            await bench.runtime.start(container_id)
        await wait()
        assert len(answers) == 4
        assert len(set(answers)) == 1
        assert answers[0].exit_code == 3

    async def test_a_cancelled_wait_changes_nothing(self, bench: RuntimeBench) -> None:
        container_id = await bench.start("sleep 30")
        with trio.move_on_after(0.05) as scope:
            await bench.runtime.wait(container_id)
        assert scope.cancelled_caught
        assert await bench.runtime.pids(container_id)

    async def test_a_signal_that_is_not_handled_ends_it_with_128_plus_n(
        self, bench: RuntimeBench
    ) -> None:
        container_id = await bench.start("sleep 30")
        await bench.runtime.signal(container_id, SIGKILL)
        assert (await bench.runtime.wait(container_id)).exit_code == 137
        with pytest.raises(NotFound):
            await bench.runtime.signal(container_id, SIGKILL)

    async def test_delete_kills_and_forgets_and_is_silent_the_second_time(
        self, bench: RuntimeBench
    ) -> None:
        container_id = await bench.start("sleep 30")
        created = await bench.create("sleep 30")
        for name in (container_id, created):
            await bench.runtime.delete(name)
            with pytest.raises(NotFound):
                await bench.runtime.wait(name)
            await bench.runtime.delete(name)
        again = await bench.start("echo again", container_id=container_id)
        assert (await bench.runtime.wait(again)).exit_code == 0

    async def test_the_same_id_twice_is_a_conflict(self, bench: RuntimeBench) -> None:
        container_id = await bench.create("sleep 30")
        with pytest.raises(Conflict):
            await bench.create("true", container_id=container_id)
        await bench.runtime.start(container_id)
        with pytest.raises(Conflict):
            await bench.create("true", container_id=container_id)
        assert await bench.runtime.pids(container_id)

    async def test_an_ended_id_may_be_created_again_and_its_log_goes_on(
        self, bench: RuntimeBench
    ) -> None:
        container_id = await bench.start("echo one; exit 1")
        assert (await bench.runtime.wait(container_id)).exit_code == 1
        await bench.start("echo two; exit 2", container_id=container_id)
        assert (await bench.runtime.wait(container_id)).exit_code == 2
        assert [data for _, data in await bench.log(container_id)] == [b"one\n", b"two\n"]

    async def test_an_unknown_id_is_not_found(self, bench: RuntimeBench) -> None:
        name = "0" * 64
        for call in (
            bench.runtime.start(name),
            bench.runtime.wait(name),
            bench.runtime.signal(name, SIGKILL),
            bench.runtime.pids(name),
            bench.log(name),
            bench.exec(name, "true"),
        ):
            with pytest.raises(NotFound):
                await call
        with pytest.raises(NotFound):
            async with bench.runtime.attach(name):
                pass

    # --- what create is asked

    async def test_environment_and_arguments_arrive(self, bench: RuntimeBench) -> None:
        process = ProcessSpec(
            args=("/bin/sh", "-c", "echo $GREETING"), env=(PATH, "GREETING=hello there")
        )
        container_id = await bench.start(process)
        await bench.runtime.wait(container_id)
        assert await bench.log(container_id) == [(StreamKind.STDOUT, b"hello there\n")]

    async def test_a_missing_program_is_named_and_nothing_is_left(
        self, bench: RuntimeBench
    ) -> None:
        process = ProcessSpec(args=("no-such-program",), env=(PATH,))
        with pytest.raises(InvalidArgument) as caught:
            await bench.start(process)
        assert caught.value.code == "command_not_found"
        assert "no-such-program" in str(caught.value)
        again = bench.made[-1]
        await bench.runtime.delete(again)
        assert (await bench.run("exit 4", container_id=again)).exit_code == 4

    async def test_an_unknown_user_is_named(self, bench: RuntimeBench) -> None:
        with pytest.raises(InvalidArgument) as caught:
            await bench.create(shell("true", user="nobody-knows-me"))
        assert caught.value.code == "user_not_found"

    async def test_an_unknown_user_of_an_exec_is_named_before_it_runs(
        self, bench: RuntimeBench
    ) -> None:
        container_id = await bench.start("sleep 30")
        await bench.runtime.check_exec(container_id, shell("true", user="0"))
        with pytest.raises(InvalidArgument) as caught:
            await bench.runtime.check_exec(container_id, shell("true", user="nobody-knows-me"))
        assert caught.value.code == "user_not_found"
        assert "nobody-knows-me" in str(caught.value)

    async def test_modify_spec_has_the_last_word(self, bench: RuntimeBench) -> None:
        async def modify(spec: OciSpec) -> OciSpec:
            await trio.lowlevel.checkpoint()
            assert spec["process"]["args"] == ["/bin/sh", "-c", "exit 0"]
            return spec

        assert (await bench.run("exit 0", modify_spec=modify)).exit_code == 0

    async def test_a_refusing_or_cancelled_modify_spec_leaves_nothing(
        self, bench: RuntimeBench
    ) -> None:
        async def refuse(spec: OciSpec) -> OciSpec:
            raise InvalidArgument("not here", code="refused")

        async def hang(spec: OciSpec) -> OciSpec:
            await trio.sleep(float("inf"))
            return spec

        with pytest.raises(InvalidArgument, match="not here"):
            await bench.create("true", modify_spec=refuse)
        refused = bench.made[-1]
        with trio.move_on_after(0.05) as scope:
            await bench.create("true", modify_spec=hang)
        assert scope.cancelled_caught
        for name in (refused, bench.made[-1]):
            with pytest.raises(NotFound):
                await bench.runtime.wait(name)
            assert (await bench.run("exit 5", container_id=name)).exit_code == 5

    async def test_a_namespace_of_a_container_that_does_not_run_is_not_found(
        self, bench: RuntimeBench
    ) -> None:
        with pytest.raises(NotFound):
            await bench.create("true", share_pid="1" * 64)

    # --- streams

    async def test_attached_before_start_nothing_is_missed(self, bench: RuntimeBench) -> None:
        container_id = await bench.create("echo out; echo err >&2; exit 0")
        async with bench.runtime.attach(container_id) as streams:
            await bench.runtime.start(container_id)
            output = await drain(streams)
        assert output == {StreamKind.STDOUT: b"out\n", StreamKind.STDERR: b"err\n"}

    async def test_stdin_arrives_and_its_end_too(self, bench: RuntimeBench) -> None:
        container_id = await bench.create(shell("cat; echo bye", stdin=True), stdin_once=True)
        async with bench.runtime.attach(container_id) as streams:
            await bench.runtime.start(container_id)
            await streams.send(b"ping\n")
            chunk = await streams.receive()
            assert chunk is not None
            assert chunk.data == b"ping\n"
            await streams.close_stdin()
            await streams.close_stdin()
            assert await drain(streams) == {StreamKind.STDOUT: b"bye\n"}
        assert (await bench.runtime.wait(container_id)).exit_code == 0

    async def test_stdin_stays_open_for_the_next_one_without_stdin_once(
        self, bench: RuntimeBench
    ) -> None:
        container_id = await bench.create(shell("cat", stdin=True))
        await bench.runtime.start(container_id)
        for text in (b"one\n", b"two\n"):
            async with bench.runtime.attach(container_id) as streams:
                await streams.send(text)
                chunk = await streams.receive()
                assert chunk is not None
                assert chunk.data == text

    async def test_with_a_tty_there_is_one_stream(self, bench: RuntimeBench) -> None:
        container_id = await bench.create(shell("echo out; echo err >&2", tty=True))
        await bench.runtime.resize(container_id, 40, 120)
        async with bench.runtime.attach(container_id) as streams:
            await bench.runtime.start(container_id)
            output = await drain(streams)
        assert output == {StreamKind.STDOUT: b"out\r\nerr\r\n"}

    async def test_an_ended_container_cannot_be_attached(self, bench: RuntimeBench) -> None:
        container_id = await bench.start("true")
        await bench.runtime.wait(container_id)
        with pytest.raises(NotFound):
            async with bench.runtime.attach(container_id):
                pass

    # --- exec

    async def test_exec_runs_inside_and_tells_output_and_exit_code(
        self, bench: RuntimeBench
    ) -> None:
        container_id = await bench.start("sleep 30")
        process = shell("echo out; echo err >&2; exit 9")
        async with bench.runtime.exec(container_id, process) as session:
            output = await drain(session)
            assert await session.wait() == 9
        assert output == {StreamKind.STDOUT: b"out\n", StreamKind.STDERR: b"err\n"}

    async def test_exec_has_stdin_and_a_tty_if_asked(self, bench: RuntimeBench) -> None:
        container_id = await bench.start("sleep 30")
        async with bench.runtime.exec(container_id, shell("cat", stdin=True)) as session:
            await session.send(b"hello")
            await session.close_stdin()
            assert await drain(session) == {StreamKind.STDOUT: b"hello"}
            assert await session.wait() == 0
        async with bench.runtime.exec(container_id, shell("echo on tty", tty=True)) as session:
            await session.resize(30, 90)
            assert await drain(session) == {StreamKind.STDOUT: b"on tty\r\n"}

    async def test_exec_of_a_missing_program_is_command_not_found(
        self, bench: RuntimeBench
    ) -> None:
        container_id = await bench.start("sleep 30")
        try:
            code, _ = await bench.exec(container_id, ProcessSpec(args=("nope",), env=(PATH,)))
        except InvalidArgument as error:
            assert error.code == "command_not_found"  # noqa: PT017 - an exit code will do as well
        else:
            assert code == 127

    async def test_started_tells_a_missing_program_from_an_exit_code(
        self, bench: RuntimeBench
    ) -> None:
        container_id = await bench.start("sleep 30")
        code = ""
        try:
            missing = ProcessSpec(args=("nope",), env=(PATH,))
            async with bench.runtime.exec(container_id, missing) as session:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(drain, session)
                    with pytest.raises(InvalidArgument) as caught:
                        await session.started()
                code = caught.value.code
        except InvalidArgument as error:
            code = error.code
        assert code == "command_not_found"
        async with bench.runtime.exec(container_id, shell("exit 127")) as session:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(drain, session)
                await session.started()
            assert await session.wait() == 127

    async def test_exec_in_a_container_that_does_not_run_is_not_found(
        self, bench: RuntimeBench
    ) -> None:
        created = await bench.create("sleep 30")
        ended = await bench.start("true")
        await bench.runtime.wait(ended)
        for container_id in (created, ended):
            with pytest.raises(NotFound):
                await bench.exec(container_id, "true")

    async def test_leaving_an_exec_kills_it(self, bench: RuntimeBench) -> None:
        container_id = await bench.start("sleep 30")
        async with bench.runtime.exec(container_id, shell("echo up; sleep 30")) as session:
            chunk = await session.receive()
            assert chunk is not None
            before = await bench.runtime.pids(container_id)
            assert session.pid == 0 or session.pid > 0
        for _ in range(100):
            now = await bench.runtime.pids(container_id)
            if len(now) < len(before):
                break
            await trio.sleep(0.02)
        assert len(now) < len(before)

    # --- what a machine can do

    async def test_what_is_usual_passes_the_check_without_a_warning(
        self, bench: RuntimeBench
    ) -> None:
        limits = Resources(memory_bytes=64 << 20, cpu_shares=512, pids_limit=10)
        spec = ContainerSpec(image="i", resources=limits, cap_add=("NET_ADMIN",), cap_drop=("ALL",))
        assert list(bench.runtime.check(spec)) == []

    async def test_a_runtime_that_is_not_there_is_refused(self, bench: RuntimeBench) -> None:
        with pytest.raises(InvalidArgument, match="bogus"):
            bench.runtime.check(ContainerSpec(image="i", runtime="bogus"))

    # --- logs

    async def test_the_log_has_both_streams_and_can_be_narrowed(self, bench: RuntimeBench) -> None:
        container_id = await bench.start("echo a; echo b >&2; sleep 0.05; echo c")
        await bench.runtime.wait(container_id)
        out, err = StreamKind.STDOUT, StreamKind.STDERR
        assert sorted(await bench.log(container_id)) == [
            (out, b"a\n"),
            (out, b"c\n"),
            (err, b"b\n"),
        ]
        assert await bench.log(container_id, stdout=False) == [(err, b"b\n")]
        assert await bench.log(container_id, stderr=False) == [(out, b"a\n"), (out, b"c\n")]
        assert await bench.log(container_id, tail=1) == [(out, b"c\n")]
        assert await bench.log(container_id, tail=0) == []

    async def test_merged_logs_have_the_same_bytes(self, bench: RuntimeBench) -> None:
        container_id = await bench.start("echo a; echo b; printf c")
        await bench.runtime.wait(container_id)
        merged = await bench.log(container_id, merge=True)
        assert b"".join(data for _, data in merged) == b"a\nb\nc"

    async def test_following_ends_with_the_container(self, bench: RuntimeBench) -> None:
        container_id = await bench.start("echo first; sleep 0.1; echo last")
        assert [data for _, data in await bench.log(container_id, follow=True)] == [
            b"first\n",
            b"last\n",
        ]

    async def test_a_log_of_several_files_reads_as_one_also_while_it_grows(
        self, bench: RuntimeBench
    ) -> None:
        script = "; sleep 0.6; ".join(f"echo {word * 30}" for word in ("a", "b", "c"))
        container_id = await bench.start(script, log_max_bytes=60, log_max_files=20)
        wanted = [letter * 30 + b"\n" for letter in (b"a", b"b", b"c")]
        followed = await bench.log(container_id, follow=True)
        assert [data for _, data in followed] == wanted
        assert [data for _, data in await bench.log(container_id)] == wanted
        assert [data for _, data in await bench.log(container_id, tail=2)] == wanted[1:]

    async def test_log_times_grow_and_narrow(self, bench: RuntimeBench) -> None:
        container_id = await bench.start("echo a; sleep 0.05; echo b")
        await bench.runtime.wait(container_id)
        async with bench.runtime.logs(container_id, LogQuery()) as found:
            records = [record async for record in found]
        assert all(first.time < then.time for first, then in itertools.pairwise(records))
        assert len(records[0].time) == len("2026-11-24T08:00:00.000000000Z")
        assert await bench.log(container_id, until_ns=1) == []
        assert len(await bench.log(container_id, since_ns=1)) == 2

    async def test_without_a_log_there_is_none(self, bench: RuntimeBench) -> None:
        container_id = await bench.start("echo a", log=False)
        await bench.runtime.wait(container_id)
        with pytest.raises(NotFound):
            await bench.log(container_id)

    # --- recovery

    async def test_a_running_container_is_found_again_and_waited_for(
        self, bench: RuntimeBench, config: Any, fake_host: FakeHost
    ) -> None:
        container_id = await bench.start(shell("cat; exit 6", stdin=True), stdin_once=True)
        created = await bench.create("true")
        async with self.driver.open(config, fake_host) as second:
            await second.recover()
            found = {item.container_id: item for item in await second.recovered()}
            assert created not in found
            assert found[container_id].pid > 0
            assert found[container_id].exit is None
            async with second.attach(container_id) as streams:
                await streams.close_stdin()
                await drain(streams)
            assert (await second.wait(container_id)).exit_code == 6

    async def test_what_ended_meanwhile_is_found_with_its_exit_code(
        self, bench: RuntimeBench, config: Any, fake_host: FakeHost
    ) -> None:
        container_id = await bench.start("echo words; exit 8")
        ended = await bench.runtime.wait(container_id)
        async with self.driver.open(config, fake_host) as second:
            await second.recover()
            found = {item.container_id: item for item in await second.recovered()}
            status = found[container_id].exit
            assert status is not None
            assert status.exit_code == ended.exit_code == 8
            assert (await second.wait(container_id)).exit_code == 8
            async with second.logs(container_id, LogQuery()) as records:
                assert [record.data async for record in records] == [b"words\n"]

    async def test_gc_removes_what_nobody_knows(self, bench: RuntimeBench) -> None:
        known = await bench.start("sleep 30")
        unknown = await bench.start("sleep 30")
        removed = await bench.runtime.gc([known])
        assert unknown in removed
        assert known not in removed
        assert await bench.runtime.pids(known)
        with pytest.raises(NotFound):
            await bench.runtime.pids(unknown)

    # --- capabilities

    async def test_pause_and_resume_do_what_the_capability_says(self, bench: RuntimeBench) -> None:
        container_id = await bench.start("sleep 30")
        if RuntimeCap.PAUSE not in bench.runtime.capabilities:
            with pytest.raises(Unsupported):
                await bench.runtime.pause(container_id)
            return
        await bench.runtime.pause(container_id)
        await bench.runtime.resume(container_id)
        assert (await bench.exec(container_id, "echo thawed")) == (0, b"thawed\n")
        await bench.runtime.pause(container_id)
        await bench.runtime.delete(container_id)

    async def test_update_does_what_the_capability_says(self, bench: RuntimeBench) -> None:
        container_id = await bench.start("sleep 30")
        resources = Resources(memory_bytes=64 << 20, pids_limit=50)
        if RuntimeCap.UPDATE not in bench.runtime.capabilities:
            with pytest.raises(Unsupported):
                await bench.runtime.update(container_id, resources)
            return
        await bench.runtime.update(container_id, resources)
        if RuntimeCap.STATS in bench.runtime.capabilities:
            stats = await bench.runtime.stats(container_id)
            assert stats.memory_limit_bytes == 64 << 20
            assert stats.pids_limit == 50
        await bench.runtime.update(container_id, Resources(pids_limit=-1))
        await bench.runtime.update(container_id, Resources(cpu_quota_us=20_000))
        await bench.runtime.update(container_id, Resources(cpu_quota_us=-1))
        if RuntimeCap.STATS in bench.runtime.capabilities:
            assert (await bench.runtime.stats(container_id)).pids_limit == 0

    async def test_stats_do_what_the_capability_says(self, bench: RuntimeBench) -> None:
        container_id = await bench.start("sleep 30")
        if RuntimeCap.STATS not in bench.runtime.capabilities:
            with pytest.raises(Unsupported):
                await bench.runtime.stats(container_id)
            return
        stats = await bench.runtime.stats(container_id)
        assert stats.pids_current >= 1
        assert stats.memory_usage_bytes > 0
        assert stats.cpu_usage_ns > 0

    async def test_stir_is_cheap_and_silent(self, bench: RuntimeBench) -> None:
        begin = trio.current_time()
        for _ in range(100):
            bench.runtime.stir()
        assert trio.current_time() - begin < 0.1
        await trio.sleep(0.05)
        assert (await bench.run("exit 0")).exit_code == 0

    async def test_an_expected_exec_is_like_any_other(self, bench: RuntimeBench) -> None:
        container_id = await bench.start("sleep 30")
        expected = shell("echo expected; exit 3")
        bench.runtime.expect_exec(container_id, expected)
        assert await bench.exec(container_id, expected) == (3, b"expected\n")
        bench.runtime.expect_exec(container_id, expected)
        await trio.sleep(0.05)
        assert await bench.exec(container_id, expected) == (3, b"expected\n")
        bench.runtime.expect_exec(container_id, expected)
        bench.runtime.expect_exec(container_id, expected)
        async with bench.runtime.exec(container_id, shell("cat", stdin=True)) as session:
            await session.send(b"another")
            await session.close_stdin()
            assert await drain(session) == {StreamKind.STDOUT: b"another"}
        assert await bench.exec(container_id, "exit 4") == (4, b"")

    async def test_an_exec_that_was_expected_in_vain_leaves_nothing(
        self, bench: RuntimeBench
    ) -> None:
        container_id = await bench.start("sleep 30")
        bench.runtime.expect_exec(container_id, shell("sleep 30"))
        assert len(await bench.runtime.pids(container_id)) == 1
        await bench.runtime.signal(container_id, 9)
        with trio.fail_after(10):
            await bench.runtime.wait(container_id)
        bench.runtime.expect_exec(container_id, shell("sleep 30"))
        bench.runtime.expect_exec("0" * 64, shell("sleep 30"))

    async def test_many_at_once_do_not_disturb_each_other(self, bench: RuntimeBench) -> None:
        codes: dict[int, int] = {}

        async def one(number: int) -> None:
            status = await bench.run(f"exit {number}")
            codes[number] = status.exit_code

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(one, number)
        assert codes == {number: number for number in range(8)}
