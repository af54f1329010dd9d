"""Locks and groups that the runs of a daemon share: first come, first served.

They live in memory: when the daemon dies they are free, and so are those of a task that ends in whatever
way.
"""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import trio

Waits = Callable[[str], Awaitable[None]]
"""Called with who holds the lock, before it is waited for."""


@attrs.define
class _Lock:
    holder: str
    waiting: deque[tuple[str, trio.Event]] = attrs.field(factory=deque)


class Locks:
    """Locks by name."""

    def __init__(self) -> None:
        self._held: dict[str, _Lock] = {}

    def holder(self, name: str) -> str:
        """Who holds it; empty if it is free."""
        lock = self._held.get(name)
        return "" if lock is None else lock.holder

    @asynccontextmanager
    async def hold(self, name: str, who: str, waits: Waits) -> AsyncIterator[None]:
        """Hold a lock; those who came before come first.

        If cancelled while it waits: others move up.
        """
        lock = self._held.get(name)
        if lock is None:
            self._held[name] = _Lock(who)
        else:
            await self._wait(lock, name, who, waits)
        try:
            yield
        finally:
            self._release(name)

    async def _wait(self, lock: _Lock, name: str, who: str, waits: Waits) -> None:
        mine = (who, trio.Event())
        lock.waiting.append(mine)
        try:
            await waits(lock.holder)
            await mine[1].wait()
        except BaseException:
            if mine[1].is_set():
                # It became ours in the moment in which we left.
                self._release(name)
            else:
                lock.waiting.remove(mine)
            raise

    def _release(self, name: str) -> None:
        lock = self._held[name]
        if not lock.waiting:
            del self._held[name]
            return
        lock.holder, event = lock.waiting.popleft()
        event.set()
