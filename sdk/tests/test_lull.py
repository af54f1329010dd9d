import pytest
import trio
import trio.testing

from linkspan.sdk.lull import Lull


async def test_work_waits_until_nothing_has_happened_for_a_while(
    autojump_clock: trio.testing.MockClock,
) -> None:
    lull = Lull(lambda: False, pause_s=1.0, latest_s=30.0)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lull.wait)
        for _ in range(5):
            await trio.sleep(0.9)
            lull.stir()
    assert trio.current_time() - began == pytest.approx(5 * 0.9 + 1.0)


async def test_work_waits_until_nobody_is_busy(autojump_clock: trio.testing.MockClock) -> None:
    idle_at = trio.current_time() + 7.5
    lull = Lull(lambda: trio.current_time() < idle_at, pause_s=1.0, latest_s=30.0)
    lull.stir()
    await lull.wait()
    assert trio.current_time() == pytest.approx(idle_at + 0.5)


async def test_work_does_not_wait_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    lull = Lull(lambda: True, pause_s=4.0, latest_s=30.0)
    began = trio.current_time()
    lull.stir()
    await lull.wait()
    assert trio.current_time() - began == pytest.approx(30.0)


async def test_without_a_cause_there_is_no_work(autojump_clock: trio.testing.MockClock) -> None:
    lull = Lull(lambda: False)
    lull.stir()
    await lull.wait()
    with trio.move_on_after(100) as scope:
        await lull.wait()
    assert scope.cancelled_caught


async def test_what_happens_during_the_work_is_for_the_next_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    lull = Lull(lambda: False, pause_s=1.0)
    lull.stir()
    await lull.wait()
    lull.stir()
    await lull.wait()
