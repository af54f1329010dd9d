"""What the engine in memory has told."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

import trio

from linkspan.sdk.events import Event


class FakeEvents:
    """Remembers everything that was told."""

    def __init__(self) -> None:
        self.told: list[Event] = []
        self._more = trio.Event()

    def publish(self, event: Event) -> None:
        self.told.append(event)
        self._more.set()
        self._more = trio.Event()

    @asynccontextmanager
    async def subscribe(
        self, *, since_ns: int | None = None
    ) -> AsyncIterator[AsyncIterator[Event]]:
        at = len(self.told)
        if since_ns is not None:
            at = next((i for i, e in enumerate(self.told) if e.time_ns >= since_ns), at)
        await trio.lowlevel.checkpoint()
        async with aclosing(self._from(at)) as events:
            yield events

    def recent(self, *, since_ns: int | None = None) -> Sequence[Event]:
        return [e for e in self.told if since_ns is None or e.time_ns >= since_ns]

    async def _from(self, at: int) -> AsyncGenerator[Event, None]:
        while True:
            while at < len(self.told):
                at += 1
                yield self.told[at - 1]
            await self._more.wait()
