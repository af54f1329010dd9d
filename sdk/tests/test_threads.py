"""Work in threads."""

import pytest
import trio
import trio.testing

from linkspan.sdk.threads import in_thread


async def test_work_is_done_in_a_thread_and_its_result_and_errors_come_back() -> None:
    # Only a worker thread may ask the loop.
    assert await in_thread(lambda number: trio.from_thread.run_sync(lambda: number + 1), 3) == 4
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 / 0)


async def test_a_limit_is_kept_and_places_are_given_back() -> None:
    limiter = trio.CapacityLimiter(2)
    at_once = most = 0

    async def busy() -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await trio.testing.wait_all_tasks_blocked(0.01)
        at_once -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(lambda: in_thread(trio.from_thread.run, busy, limiter=limiter))
    assert most == 2
    assert limiter.borrowed_tokens == 0


async def test_what_is_cancelled_before_it_starts_is_not_done() -> None:
    done = []
    with trio.CancelScope() as scope:
        scope.cancel()
        await in_thread(done.append, 1)
    assert scope.cancelled_caught
    assert not done
    assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
