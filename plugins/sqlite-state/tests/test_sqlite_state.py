"""The sqlite store passes the kit, survives kills and full disks, and keeps others out."""

import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from linkspan.plugins.sqlite_state.config import SqliteStateConfig
from linkspan.plugins.sqlite_state.driver import SqliteState
from linkspan.sdk.drivers.state import Put
from linkspan.sdk.errors import DataLoss, InvalidArgument, NotUsable, OutOfSpace, Unavailable
from linkspan.sdk.testing.conformance.state import StateConformance
from linkspan.sdk.testing.host import FakeHost


class TestSqliteConformance(StateConformance):
    driver = SqliteState


@pytest.fixture
async def state(fake_host: FakeHost) -> AsyncIterator[SqliteState]:
    async with SqliteState.open(SqliteStateConfig(), fake_host) as state:
        yield state


async def test_entries_and_revision_survive_a_restart(fake_host: FakeHost) -> None:
    config = SqliteStateConfig()
    async with SqliteState.open(config, fake_host) as state:
        revision = await state.commit(Put(key="a", value=b"1"))
    async with SqliteState.open(config, fake_host) as state:
        entries, found = await state.list("")
        assert [(e.key, e.value, e.revision) for e in entries] == [("a", b"1", revision)]
        assert found == revision
        async with state.watch("", after_revision=0) as changes:
            assert (await anext(changes)).key == "a"


CHILD = """
import sys, trio
from pathlib import Path
from linkspan.plugins.sqlite_state.config import SqliteStateConfig
from linkspan.plugins.sqlite_state.driver import SqliteState
from linkspan.sdk.drivers.state import Put
from linkspan.sdk.testing.host import FakeHost

async def main():
    async with trio.open_nursery() as nursery:
        host = FakeHost(root=Path(sys.argv[1]), nursery=nursery)
        async with SqliteState.open(SqliteStateConfig(), host) as state:
            async with state.lease("leader", ttl_s=10):
                await state.commit(Put(key="leader", value=b"me", lease="leader"))
                async def write(name):
                    for number in range(1_000_000):
                        await state.commit(Put(key=name, value=b"%d" % number),
                                           Put(key=name + "/copy", value=b"%d" % number))
                        print(name, number, flush=True)
                for name in "ab":
                    nursery.start_soon(write, name)
                await trio.sleep_forever()

trio.run(main)
"""


async def test_what_was_answered_survives_kill_9(fake_host: FakeHost) -> None:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", CHILD, str(fake_host.root)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    answered = {"a": -1, "b": -1}
    text = b""
    with trio.fail_after(30):
        while min(answered.values()) < 50:
            text += await process.stdout.receive_some(4096)
            *lines, text = text.split(b"\n")
            for line in lines:
                name, number = line.decode().split()
                answered[name] = int(number)
        process.send_signal(signal.SIGKILL)
        await process.wait()
    await process.stdout.aclose()
    async with SqliteState.open(SqliteStateConfig(), fake_host) as state:
        for name, number in answered.items():
            entry, copy = await state.get(name), await state.get(f"{name}/copy")
            assert entry is not None
            assert copy is not None
            assert int(entry.value) >= number
            assert (entry.value, entry.revision) == (copy.value, copy.revision)
        assert await state.get("leader") is None, "its holder is dead"


async def test_a_second_daemon_is_kept_out(state: SqliteState, fake_host: FakeHost) -> None:
    await state.commit(Put(key="a", value=b"1"))
    with pytest.raises(NotUsable) as caught:
        async with SqliteState.open(SqliteStateConfig(), fake_host):
            pytest.fail("two daemons in one file")
    assert caught.value.code == "state_in_use"
    assert "state.db" in caught.value.message


async def test_a_damaged_file_is_named(fake_host: FakeHost) -> None:
    path = fake_host.state_dir / "state.db"
    path.write_bytes(b"this is no database, but long enough to have a header" * 100)
    with pytest.raises(DataLoss, match=r"state\.db"):
        async with SqliteState.open(SqliteStateConfig(), fake_host):
            pytest.fail("opened")


async def test_a_newer_schema_is_refused(fake_host: FakeHost) -> None:
    database = sqlite3.connect(fake_host.state_dir / "state.db")
    database.execute("pragma user_version = 99")
    database.close()
    with pytest.raises(NotUsable, match="newer"):
        async with SqliteState.open(SqliteStateConfig(), fake_host):
            pytest.fail("opened")


async def test_a_folder_that_cannot_be_written_is_not_usable(fake_host: FakeHost) -> None:
    config = SqliteStateConfig(path=Path("/proc/none/state.db"))
    with pytest.raises((NotUsable, OSError)):
        async with SqliteState.open(config, fake_host):
            pytest.fail("opened")


async def test_a_full_disk_writes_nothing_and_the_store_lives_on(state: SqliteState) -> None:
    before = await state.commit(Put(key="a", value=b"1"))
    connection = state._database._connection
    (pages,) = connection.execute("pragma page_count").fetchone()
    connection.execute(f"pragma max_page_count = {pages + 2}")
    with pytest.raises(OutOfSpace, match="no space left"):
        await state.commit(Put(key="a", value=b"2"), Put(key="big", value=bytes(1 << 20)))
    assert (await state.probe()).state == "degraded"
    entries, revision = await state.list("")
    assert [(e.key, e.value) for e in entries] == [("a", b"1")]
    assert revision == before
    connection.execute("pragma max_page_count = 1000000")
    assert await state.commit(Put(key="big", value=bytes(1 << 20))) == before + 1
    assert (await state.probe()).state == "ready"


async def test_a_cancelled_writer_leaves_the_others_alone(state: SqliteState) -> None:
    """Whoever is cancelled in the queue, also the one that is to lead, holds nobody up."""
    done = 0

    async def write(number: int) -> None:
        nonlocal done
        await state.commit(Put(key=f"k/{number}", value=b""))
        done += 1

    for round_number in range(20):
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(write, round_number * 100 + number)
                    async with trio.open_nursery() as doomed:
                        doomed.start_soon(write, round_number * 100 + 50 + number)
                        for _ in range(number % 4):
                            await trio.lowlevel.checkpoint()
                        doomed.cancel_scope.cancel()
    entries, _ = await state.list("k/")
    kept = {int(e.key[2:]) for e in entries if int(e.key[2:]) % 100 < 50}
    assert len(kept) == 200
    assert done >= 200


async def test_a_watcher_that_lags_reads_the_file(state: SqliteState) -> None:
    start = await state.commit(Put(key="first", value=b""))
    async with state.watch("k/", after_revision=start) as changes:
        for round_number in range(6):
            await state.commit(
                *(Put(key=f"k/{round_number}/{n:04}", value=b"x") for n in range(1000))
            )
        keys = [(await anext(changes)).key for _ in range(6000)]
    assert keys == sorted(keys)
    assert len(set(keys)) == 6000


async def test_history_is_bounded_and_a_slow_watcher_is_told(fake_host: FakeHost) -> None:
    config = SqliteStateConfig(history=100)
    async with SqliteState.open(config, fake_host) as state:
        start = await state.commit(Put(key="a", value=b""))
        async with state.watch("", after_revision=start) as changes:
            for number in range(300):
                await state.commit(*(Put(key=f"k/{n}", value=b"%d" % number) for n in range(20)))
            with pytest.raises(Unavailable) as caught:
                await anext(changes)
        assert caught.value.code == "compacted"
        assert (
            state._database._connection.execute(
                "select count(distinct revision) from history"
            ).fetchone()[0]
            <= 112
        )


async def test_a_closed_store_says_so(fake_host: FakeHost) -> None:
    async with SqliteState.open(SqliteStateConfig(), fake_host) as state:
        changes_context = state.watch("", after_revision=0)
        changes = await changes_context.__aenter__()
    with pytest.raises(Unavailable):
        await state.get("a")
    with pytest.raises(Unavailable):
        await state.commit(Put(key="a", value=b""))
    with pytest.raises(Unavailable):
        await anext(changes)
    await changes_context.__aexit__(None, None, None)


@pytest.mark.parametrize("key", ["nul\0", "\ud800", "x" * 1025, "last\U0010ffff"])
async def test_keys_that_cannot_be_kept_are_refused(state: SqliteState, key: str) -> None:
    with pytest.raises(InvalidArgument):
        await state.commit(Put(key=key, value=b""))


async def test_commits_that_come_together_share_the_disk(state: SqliteState) -> None:
    """A hundred concurrent commits wait for the disk a few times only."""
    batches = 0
    commit_all = state._database.commit_all

    def counted(transactions):  # type: ignore[no-untyped-def]
        nonlocal batches
        batches += 1
        return commit_all(transactions)

    state._database.commit_all = counted  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(state.commit, Put(key=f"k/{number}", value=b""))
    assert batches <= 3
