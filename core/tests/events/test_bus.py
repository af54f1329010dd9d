"""Every subscriber gets every event it wants, and none can hold up the daemon."""

from collections.abc import AsyncIterator

import trio
import trio.testing

from linkspan.core.events.bus import DROPPED, EventBus
from linkspan.sdk.events import Event


def event(number: int, type_: str = "container", action: str = "start", **labels: str) -> Event:
    return Event(
        type=type_, action=action, actor_id=f"id{number}", time_ns=number, attributes=labels
    )


async def take(events: AsyncIterator[Event], count: int) -> list[str]:
    taken = []
    with trio.fail_after(1):
        async for item in events:
            taken.append(item.actor_id or f"{item.action} {item.attributes['count']}")
            if len(taken) == count:
                break
    return taken


async def test_two_subscribers_get_the_same_events_in_order() -> None:
    bus = EventBus()
    async with bus.subscribe() as one, bus.subscribe() as two:
        for number in range(3):
            bus.publish(event(number))
        assert await take(one, 3) == await take(two, 3) == ["id0", "id1", "id2"]


async def test_a_subscriber_waits_for_what_comes(autojump_clock: trio.testing.MockClock) -> None:
    bus = EventBus()

    async def later() -> None:
        await trio.sleep(0.5)
        bus.publish(event(1))

    async with bus.subscribe() as events, trio.open_nursery() as nursery:
        nursery.start_soon(later)
        assert await take(events, 1) == ["id1"]


async def test_what_came_before_is_replayed_by_time() -> None:
    bus = EventBus(history=4)
    for number in range(6):
        bus.publish(event(number))
    async with bus.subscribe(since_ns=4) as events:
        bus.publish(event(6))
        assert await take(events, 3) == ["id4", "id5", "id6"]
    async with bus.subscribe(since_ns=0) as events:
        assert await take(events, 4) == ["id3", "id4", "id5", "id6"]


async def test_a_slow_subscriber_loses_events_and_is_told_how_many() -> None:
    bus = EventBus(buffer=2)
    async with bus.subscribe() as slow, bus.subscribe() as quick:
        seen = []
        for number in range(5):
            bus.publish(event(number))
            seen += await take(quick, 1)
        assert seen == ["id0", "id1", "id2", "id3", "id4"]
        assert await take(slow, 3) == ["id0", "id1", f"{DROPPED} 3"]
        bus.publish(event(9))
        assert await take(slow, 1) == ["id9"]


async def test_the_marker_stands_where_the_events_are_missing() -> None:
    bus = EventBus(buffer=2)
    async with bus.subscribe() as slow:
        for number in range(3):
            bus.publish(event(number))
        assert await take(slow, 1) == ["id0"]
        bus.publish(event(3))
        assert await take(slow, 3) == ["id1", f"{DROPPED} 1", "id3"]


async def test_closing_ends_the_subscriptions_after_what_is_buffered() -> None:
    bus = EventBus()
    async with bus.subscribe() as events:
        bus.publish(event(1))
        bus.close()
        assert [e.actor_id async for e in events] == ["id1"]
    async with bus.subscribe() as events:
        assert [e async for e in events] == []


async def test_a_subscriber_that_left_is_forgotten() -> None:
    bus = EventBus()
    async with bus.subscribe():
        pass
    assert not bus._subscribers
