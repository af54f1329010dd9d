"""Work in threads, with fewer turns of the event loop and fewer changes of thread than ``trio.to_thread``.

A worker thread costs more in what surrounds the work than in most of the work: names that trio gives it and
takes away again (two calls that each let another thread in), and a byte by which each result wakes the loop. Here
threads keep their names, and results that come close together share one byte.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, TypeVarTuple

import trio

if TYPE_CHECKING:
    from outcome import Outcome

T = TypeVar("T")
Args = TypeVarTuple("Args")


class _Results:
    """What threads have done and the loop has not taken up yet."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._done: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._is_told = False

    def put(self, take: Callable[[T], None], result: T) -> None:
        """From a thread: let the loop call ``take(result)`` soon; silent if the loop has ended."""
        self._done.append((take, result))
        # Once it is told, the loop looks at all that was put before.
        if not self._is_told:
            self._is_told = True
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._take)

    def _take(self) -> None:
        self._is_told = False
        while self._done:
            take, result = self._done.popleft()
            take(result)


_results: Final = trio.lowlevel.RunVar[_Results]("linkspan results of threads")


def to_loop(take: Callable[[T], None]) -> Callable[[T], None]:
    """What a thread is to call with its result: the loop calls ``take`` with it soon.

    Made in the loop, called in any thread. ``take`` must not raise.
    """
    try:
        results = _results.get()
    except LookupError:
        results = _Results()
        _results.set(results)
    return partial(results.put, take)


def never_abandoned(_: object) -> trio.lowlevel.Abort:
    """For ``trio.lowlevel.wait_task_rescheduled``: a result is waited for, also by who is cancelled."""
    return trio.lowlevel.Abort.FAILED


@trio.lowlevel.enable_ki_protection
async def in_thread(
    work: Callable[[*Args], T], *args: *Args, limiter: trio.CapacityLimiter | None = None
) -> T:
    """Do ``work(*args)`` in a worker thread and return what it returns.

    As ``trio.to_thread.run_sync``, save that the work cannot call ``trio.from_thread`` and sees no context
    variables.

    Args:
        limiter: How many of its kind may run at a time; None: trio's usual limit.

    If cancelled: before it starts, nothing is done; afterwards it is finished first and its result returned.
    """
    limit = limiter or trio.to_thread.current_default_thread_limiter()
    await trio.lowlevel.checkpoint_if_cancelled()
    task, borrower = trio.lowlevel.current_task(), object()
    try:
        # No turn of the loop where a place is free: what follows waits anyway.
        limit.acquire_on_behalf_of_nowait(borrower)
    except trio.WouldBlock:
        await limit.acquire_on_behalf_of(borrower)

    def take(result: "Outcome[T]") -> None:
        limit.release_on_behalf_of(borrower)
        trio.lowlevel.reschedule(task, result)

    try:
        trio.lowlevel.start_thread_soon(partial(work, *args), to_loop(take))
    except BaseException:  # the system has no thread left
        limit.release_on_behalf_of(borrower)
        raise
    value: T = await trio.lowlevel.wait_task_rescheduled(never_abandoned)
    return value
