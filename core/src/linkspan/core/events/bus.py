"""Publish and subscribe for events, in the daemon's own loop.

Publishing never waits: each subscriber has a bounded buffer, and one that does not keep up loses
events and gets a marker that says how many, instead of holding up the daemon.
"""

from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final

import trio

from linkspan.sdk.events import Event

DROPPED: Final = "dropped"
"""Action of the marker event (type ``daemon``); its attribute ``count`` says how many were lost."""


class Subscription(AsyncIterator[Event]):
    """One subscriber's bounded buffer, which remembers how much it had to leave out."""

    def __init__(self, size: int, replay: Iterable[Event]) -> None:
        self._replay = deque(replay)
        self._size = size
        self._buffer: deque[Event] = deque()
        self._dropped = 0
        self._dropped_before_ns = 0
        self._more = trio.Event()
        self._closed = False

    def put(self, event: Event) -> None:
        """Keep an event, or count it as left out; never waits."""
        if len(self._buffer) >= self._size:
            self._dropped += 1
            self._dropped_before_ns = event.time_ns
        else:
            if self._dropped:
                self._buffer.append(self._marker())
            self._buffer.append(event)
        self._more.set()

    def _marker(self) -> Event:
        count, self._dropped = self._dropped, 0
        return Event(
            type="daemon",
            action=DROPPED,
            actor_id="",
            attributes={"count": str(count)},
            time_ns=self._dropped_before_ns,
        )

    def close(self) -> None:
        """End the iteration after what is in the buffer."""
        self._closed = True
        self._more.set()

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> Event:
        """The next event, in the order of publishing."""
        if self._replay or self._buffer or self._dropped or self._closed:
            await trio.lowlevel.checkpoint()
        while True:
            if self._replay:
                return self._replay.popleft()
            if self._buffer:
                return self._buffer.popleft()
            if self._dropped:
                return self._marker()
            if self._closed:
                raise StopAsyncIteration
            self._more = trio.Event()
            await self._more.wait()


class EventBus:
    """Hands each event to every subscriber and remembers the last ones."""

    def __init__(
        self,
        *,
        history: int = 1000,
        buffer: int = 1000,
    ) -> None:
        """Make a bus.

        Args:
            history: How many events are remembered for replay.
            buffer: How many events wait for one subscriber before some are left out.
        """
        self._history: deque[Event] = deque(maxlen=history)
        self._buffer = buffer
        self._subscribers: set[Subscription] = set()
        self._closed = False

    def publish(self, event: Event) -> None:
        """Tell everybody; never waits."""
        self._history.append(event)
        for subscriber in self._subscribers:
            subscriber.put(event)

    def recent(self, *, since_ns: int | None = None) -> list[Event]:
        """Remembered events from a time on, oldest first."""
        return [e for e in self._history if since_ns is None or e.time_ns >= since_ns]

    @asynccontextmanager
    async def subscribe(
        self,
        *,
        since_ns: int | None = None,
    ) -> AsyncIterator[Subscription]:
        """Receive events from now on, after a replay if one is asked for.

        Args:
            since_ns: Replay what is remembered from this time on.

        Yields:
            An iterator that ends when the bus is closed. A subscriber that is too slow gets a marker
            (type ``daemon``, action ``dropped``) in the place of what it missed.
        """
        replay = self.recent(since_ns=since_ns) if since_ns is not None else []
        # No await between reading the replay and subscribing: nothing is lost or doubled.
        subscriber = Subscription(self._buffer, replay)
        self._subscribers.add(subscriber)
        if self._closed:
            subscriber.close()
        try:
            yield subscriber
        finally:
            self._subscribers.discard(subscriber)

    def close(self) -> None:
        """End every subscription after what waits in its buffer."""
        self._closed = True
        for subscriber in self._subscribers:
            subscriber.close()
