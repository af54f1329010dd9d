"""A lock that costs no turn of the event loop where nobody has it."""

from types import TracebackType

import trio


class QuickLock:
    """As ``trio.Lock``, for ``async with``, save that taking it is no checkpoint where it is free.

    A turn of the loop costs as much as most of what is done under a lock. What is done under it waits for
    something anyway, so that others get their turn.
    """

    def __init__(self) -> None:
        self._lock = trio.Lock()

    @property
    def is_wanted(self) -> bool:
        """Whether somebody has it or waits for it."""
        return self._lock.locked() or self._lock.statistics().tasks_waiting > 0

    async def __aenter__(self) -> None:
        try:
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()
