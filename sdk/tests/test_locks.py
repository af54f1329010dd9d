"""A lock without turns of the loop."""

import pytest
import trio
import trio.testing

from linkspan.sdk.locks import QuickLock


async def test_one_at_a_time_has_it_in_the_order_in_which_they_came() -> None:
    lock, order, inside = QuickLock(), list[int](), 0

    async def one(number: int) -> None:
        nonlocal inside
        async with lock:
            inside += 1
            assert inside == 1
            await trio.lowlevel.checkpoint()
            order.append(number)
            inside -= 1

    async with trio.open_nursery() as nursery, lock:
        for number in range(5):
            nursery.start_soon(one, number)
            await trio.testing.wait_all_tasks_blocked()
        assert lock.is_wanted
        assert order == []
    assert order == [*range(5)]
    assert not lock.is_wanted


async def test_a_free_one_is_taken_without_a_turn_of_the_loop() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        async with QuickLock():
            pass
    assert not scope.cancelled_caught


async def test_who_is_cancelled_while_it_waits_does_not_have_it() -> None:
    lock = QuickLock()
    async with lock, trio.open_nursery() as nursery:
        nursery.start_soon(lock.__aenter__)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not lock.is_wanted


async def test_it_is_given_back_after_an_error() -> None:
    lock = QuickLock()
    with pytest.raises(ZeroDivisionError):
        async with lock:
            1 / 0  # noqa: B018
    assert not lock.is_wanted
