"""The kit for role ``state``. Subclass ``StateConformance`` and set ``driver``."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from linkspan.sdk.drivers.state import ChangeEvent, Delete, Entry, Put, State
from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound, Unavailable
from linkspan.sdk.testing.host import FakeHost

PATIENCE_S = 5.0


def change(key: str, value: bytes | None, revision: int) -> ChangeEvent:
    return ChangeEvent(key=key, value=value, revision=revision)


class StateConformance:
    """What every state driver must do."""

    driver: type[State[Any]]

    @pytest.fixture
    def config(self) -> Any:
        return self.driver.config_type()

    @pytest.fixture
    async def state(self, config: Any, fake_host: FakeHost) -> AsyncIterator[State[Any]]:
        async with self.driver.open(config, fake_host) as state:
            await state.recover()
            yield state

    async def take(
        self, state: State[Any], count: int, *, prefix: str = "", after: int = 0
    ) -> list[ChangeEvent]:
        found: list[ChangeEvent] = []
        with trio.fail_after(PATIENCE_S):
            async with state.watch(prefix, after_revision=after) as changes:
                while len(found) < count:
                    found.append(await anext(changes))
        return found

    async def test_what_is_put_can_be_got(self, state: State[Any]) -> None:
        assert await state.get("a/1") is None
        revision = await state.commit(Put(key="a/1", value=b"one"))
        assert await state.get("a/1") == Entry(key="a/1", value=b"one", revision=revision)

    async def test_every_transaction_raises_the_revision_by_one(self, state: State[Any]) -> None:
        first = await state.commit(Put(key="a", value=b"1"), Put(key="b", value=b"1"))
        second = await state.commit(Put(key="a", value=b"2"))
        third = await state.commit(Delete(key="b"))
        assert (second, third) == (first + 1, first + 2)
        found = await state.get("a")
        assert found is not None
        assert found.revision == second

    async def test_an_empty_transaction_changes_nothing(self, state: State[Any]) -> None:
        first = await state.commit(Put(key="a", value=b"1"))
        assert await state.commit() == first
        assert await state.commit(Put(key="a", value=b"2")) == first + 1

    async def test_listing_is_by_prefix_and_sorted(self, state: State[Any]) -> None:
        await state.commit(*(Put(key=key, value=b"") for key in ("b/2", "a/2", "ab", "a/10", "é")))
        entries, revision = await state.list("a/")
        assert [entry.key for entry in entries] == ["a/10", "a/2"]
        everything, _ = await state.list("")
        assert [entry.key for entry in everything] == ["a/10", "a/2", "ab", "b/2", "é"]
        assert revision == everything[0].revision

    async def test_a_prefix_is_no_pattern(self, state: State[Any]) -> None:
        await state.commit(Put(key="a%b", value=b""), Put(key="aXb", value=b""))
        entries, _ = await state.list("a%")
        assert [entry.key for entry in entries] == ["a%b"]

    async def test_a_deleted_key_is_gone(self, state: State[Any]) -> None:
        await state.commit(Put(key="a", value=b"1"))
        await state.commit(Delete(key="a"))
        assert await state.get("a") is None
        await state.commit(Delete(key="a"))

    async def test_a_write_with_an_old_revision_conflicts(self, state: State[Any]) -> None:
        first = await state.commit(Put(key="a", value=b"1"))
        await state.commit(Put(key="a", value=b"2", if_revision=first))
        with pytest.raises(Conflict) as caught:
            await state.commit(Put(key="a", value=b"3", if_revision=first))
        assert caught.value.code == "revision"
        with pytest.raises(Conflict):
            await state.commit(Delete(key="a", if_revision=first))
        found = await state.get("a")
        assert found is not None
        assert found.value == b"2"

    async def test_revision_zero_means_absent(self, state: State[Any]) -> None:
        await state.commit(Put(key="a", value=b"1", if_revision=0))
        with pytest.raises(Conflict):
            await state.commit(Put(key="a", value=b"2", if_revision=0))
        await state.commit(Delete(key="a"))
        await state.commit(Put(key="a", value=b"3", if_revision=0))

    async def test_a_conflict_undoes_the_whole_transaction(self, state: State[Any]) -> None:
        before = await state.commit(Put(key="a", value=b"1"))
        with pytest.raises(Conflict):
            await state.commit(
                Put(key="a", value=b"2"), Put(key="b", value=b"2"), Delete(key="c", if_revision=7)
            )
        assert await state.get("b") is None
        assert await state.commit(Put(key="d", value=b"")) == before + 1

    async def test_only_one_of_many_writers_wins(self, state: State[Any]) -> None:
        revision = await state.commit(Put(key="a", value=b"0"))
        wins = 0

        async def write(number: int) -> None:
            nonlocal wins
            try:
                await state.commit(Put(key="a", value=b"%d" % number, if_revision=revision))
                wins += 1
            except Conflict:
                pass

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(write, number)
        assert wins == 1

    async def test_concurrent_transactions_all_hold(self, state: State[Any]) -> None:
        revisions: list[int] = []

        async def write(number: int) -> None:
            revisions.append(await state.commit(Put(key=f"k/{number:03}", value=b"v")))

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(write, number)
        entries, revision = await state.list("k/")
        assert len(entries) == 100
        assert sorted(revisions) == sorted({entry.revision for entry in entries})
        assert max(revisions) == revision

    async def test_a_watcher_sees_every_change_in_order(self, state: State[Any]) -> None:
        start = await state.commit(Put(key="a", value=b"1"))
        await state.commit(Put(key="b", value=b"2"), Put(key="a", value=b"2"))
        await state.commit(Delete(key="a"))
        await state.commit(Delete(key="absent"))
        await state.commit(Put(key="a", value=b"4"))
        assert await self.take(state, 4, after=start) == [
            change("a", b"2", start + 1),
            change("b", b"2", start + 1),
            change("a", None, start + 2),
            change("a", b"4", start + 4),
        ]
        assert await self.take(state, 1, after=start - 1) == [change("a", b"1", start)]

    async def test_a_watcher_sees_only_its_prefix(self, state: State[Any]) -> None:
        start = await state.commit(Put(key="a/1", value=b""))
        await state.commit(Put(key="b/1", value=b""))
        last = await state.commit(Put(key="a/2", value=b""))
        assert await self.take(state, 1, prefix="a/", after=start) == [change("a/2", b"", last)]

    async def test_a_watcher_waits_for_what_comes(self, state: State[Any]) -> None:
        _, start = await state.list("")
        seen: tuple[list[str], list[str]] = ([], [])

        async def watch(keys: list[str], *, task_status: trio.TaskStatus[None]) -> None:
            async with state.watch("k/", after_revision=start) as changes:
                task_status.started()
                while len(keys) < 50:
                    keys.append((await anext(changes)).key)

        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                for keys in seen:
                    await nursery.start(watch, keys)
                for number in range(50):
                    await state.commit(Put(key=f"k/{number:02}", value=b""))
                    await state.commit(Put(key=f"other/{number:02}", value=b""))
        assert seen[0] == seen[1] == [f"k/{number:02}" for number in range(50)]

    async def test_what_was_compacted_cannot_be_watched(self, state: State[Any]) -> None:
        first = await state.commit(Put(key="a", value=b"1"))
        await state.commit(Put(key="a", value=b"2"))
        last = await state.commit(Put(key="a", value=b"3"))
        await state.compact(last)
        with pytest.raises(Unavailable) as caught:
            await self.take(state, 1, after=first)
        assert caught.value.code == "compacted"
        assert await self.take(state, 1, after=last - 1) == [change("a", b"3", last)]
        found = await state.get("a")
        assert found is not None
        assert found.value == b"3"

    async def test_compacting_twice_is_silent(self, state: State[Any]) -> None:
        last = await state.commit(Put(key="a", value=b"1"))
        await state.compact(last)
        await state.compact(last - 1)
        assert await self.take(state, 1, after=last - 1) == [change("a", b"1", last)]

    async def test_the_keys_of_a_lease_go_with_it(self, state: State[Any]) -> None:
        async with state.lease("leader", ttl_s=10):
            start = await state.commit(
                Put(key="l/1", value=b"me", lease="leader"), Put(key="l/2", value=b"stays")
            )
            await state.commit(Put(key="l/3", value=b"me", lease="leader"))
        entries, _ = await state.list("l/")
        assert [entry.key for entry in entries] == ["l/2"]
        events = await self.take(state, 3, prefix="l/", after=start)
        assert {e.key for e in events if e.value is None} == {"l/1", "l/3"}

    async def test_a_key_written_without_the_lease_stays(self, state: State[Any]) -> None:
        async with state.lease("leader", ttl_s=10):
            await state.commit(Put(key="a", value=b"1", lease="leader"))
            await state.commit(Put(key="a", value=b"2"))
        assert await state.get("a") is not None

    async def test_a_lease_has_one_holder(self, state: State[Any]) -> None:
        async with state.lease("leader", ttl_s=10):
            with pytest.raises(Conflict):
                async with state.lease("leader", ttl_s=10):
                    pytest.fail("two holders")
        async with state.lease("leader", ttl_s=10):
            pass

    async def test_a_lease_ends_when_its_holder_is_cancelled(self, state: State[Any]) -> None:
        with trio.CancelScope() as scope:
            async with state.lease("leader", ttl_s=10):
                await state.commit(Put(key="a", value=b"1", lease="leader"))
                scope.cancel()
                await trio.sleep_forever()
        assert await state.get("a") is None

    async def test_an_unknown_lease_is_refused(self, state: State[Any]) -> None:
        with pytest.raises(NotFound):
            await state.commit(Put(key="a", value=b"1", lease="nobody"))

    async def test_limits_are_kept(self, state: State[Any]) -> None:
        await state.commit(*(Put(key=f"k/{n}", value=b"") for n in range(1000)))
        with pytest.raises(InvalidArgument):
            await state.commit(*(Put(key=f"k/{n}", value=b"") for n in range(1001)))
        await state.commit(Put(key="big", value=bytes(1 << 20)))
        with pytest.raises(InvalidArgument):
            await state.commit(Put(key="big", value=bytes((1 << 20) + 1)))
        with pytest.raises(InvalidArgument):
            await state.commit(Put(key="a", value=b""), Delete(key="a"))
        with pytest.raises(InvalidArgument):
            await state.commit(Put(key="", value=b""))
