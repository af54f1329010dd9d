"""Work in threads, with one turn of the event loop less."""

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple, cast

import trio

T = TypeVar("T")
Args = TypeVarTuple("Args")


class _TakenAtOnce:
    """A limit whose places are taken without a turn of the loop where one is free: what follows waits anyway."""

    def __init__(self, limiter: trio.CapacityLimiter) -> None:
        self._limiter = limiter

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        try:
            self._limiter.acquire_on_behalf_of_nowait(borrower)
        except trio.WouldBlock:
            await self._limiter.acquire_on_behalf_of(borrower)

    def release_on_behalf_of(self, borrower: object) -> None:
        self._limiter.release_on_behalf_of(borrower)


async def in_thread(
    work: Callable[[*Args], T], *args: *Args, limiter: trio.CapacityLimiter | None = None
) -> T:
    """As ``trio.to_thread.run_sync``: do ``work(*args)`` in a worker thread and return what it returns.

    Args:
        limiter: How many of its kind may run at a time; None: trio's usual limit.

    If cancelled: before it starts, nothing is done; afterwards it is finished first and its result returned.
    """
    limit = limiter or trio.to_thread.current_default_thread_limiter()
    quick = cast(trio.CapacityLimiter, _TakenAtOnce(limit))
    return await trio.to_thread.run_sync(work, *args, limiter=quick)
