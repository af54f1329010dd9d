"""Work in threads."""

import queue
import threading  # noqa: TID251 - what is tested
from collections.abc import Callable
from functools import partial

import pytest
import trio
import trio.testing

from linkspan.sdk.threads import in_thread, to_loop


async def test_work_is_done_in_a_thread_and_its_result_and_errors_come_back() -> None:
    def work(number: int) -> tuple[int, int]:
        return number + 1, threading.get_ident()

    result, thread = await in_thread(work, 3)
    assert result == 4
    assert thread != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 / 0)


async def test_a_limit_is_kept_and_places_are_given_back() -> None:
    limiter = trio.CapacityLimiter(2)
    go_on = threading.Semaphore(0)
    begun: queue.SimpleQueue[int] = queue.SimpleQueue()

    def busy(number: int) -> None:
        begun.put(number)
        go_on.acquire()

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(partial(in_thread, busy, number, limiter=limiter))
        for _ in range(8):
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert limiter.borrowed_tokens <= 2
            await in_thread(begun.get)
            go_on.release()
    assert limiter.borrowed_tokens == 0


async def test_results_that_come_together_all_arrive() -> None:
    together = threading.Barrier(16)
    found = []

    def work(number: int) -> int:
        together.wait()
        return number

    async def one(number: int) -> None:
        for _ in range(20):
            found.append(await in_thread(work, number))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for number in range(16):
                nursery.start_soon(one, number)
    assert sorted(found) == sorted([*range(16)] * 20)


async def test_who_is_cancelled_waits_for_the_work_and_gets_its_result() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work() -> int:
        begun.set()
        go_on.wait()
        return 7

    async with trio.open_nursery() as nursery:
        found = []

        async def one() -> None:
            found.append(await in_thread(work))

        nursery.start_soon(one)
        await in_thread(begun.wait)
        nursery.cancel_scope.cancel()
        go_on.set()
    assert found == [7]


def test_a_thread_that_ends_after_the_loop_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    late: list[Callable[[int], None]] = []

    async def main() -> None:
        late.append(to_loop(late.remove))  # type: ignore[arg-type]

    trio.run(main)
    late[0](1)
    assert capfd.readouterr().err == ""


async def test_what_is_cancelled_before_it_starts_is_not_done() -> None:
    done = []
    with trio.CancelScope() as scope:
        scope.cancel()
        await in_thread(done.append, 1)
    assert scope.cancelled_caught
    assert not done
    assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0


async def test_a_place_is_given_back_when_the_system_has_no_thread_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    limiter = trio.CapacityLimiter(1)
    monkeypatch.setattr(trio.lowlevel, "start_thread_soon", no_thread)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        await in_thread(lambda: 1, limiter=limiter)
    assert limiter.borrowed_tokens == 0
