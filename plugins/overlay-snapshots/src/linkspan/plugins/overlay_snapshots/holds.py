"""Who is at work with what: layers that must not go, and locks by name."""

import collections
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from linkspan.sdk.locks import QuickLock


class Holds:
    """Of one driver."""

    def __init__(self) -> None:
        self._pinned: collections.Counter[str] = collections.Counter()
        self._locks: dict[tuple[str, str], QuickLock] = {}

    def is_pinned(self, name: str) -> bool:
        """Whether somebody keeps a layer."""
        return bool(self._pinned[name])

    @contextlib.contextmanager
    def pin(self, name: str) -> Iterator[None]:
        """Keep a layer from being removed."""
        self._pinned[name] += 1
        try:
            yield
        finally:
            self._pinned[name] -= 1
            if not self._pinned[name]:
                del self._pinned[name]

    @asynccontextmanager
    async def alone(self, kind: str, name: str) -> AsyncIterator[None]:
        """Be the only one at work with something of this name."""
        lock = self._locks.setdefault((kind, name), QuickLock())
        try:
            async with lock:
                yield
        finally:
            if not lock.is_wanted:
                self._locks.pop((kind, name), None)
