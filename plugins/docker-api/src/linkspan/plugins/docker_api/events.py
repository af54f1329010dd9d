"""GET /events."""

from collections.abc import Callable
from typing import Any

import orjson
import trio

from linkspan.plugins.docker_api.codec_network import driver_shown
from linkspan.plugins.docker_api.filters import Filters, has_label, parse_nanoseconds, read_filters
from linkspan.plugins.docker_api.streams import copy_in_batches
from linkspan.plugins.docker_api.timestamps import now_s
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.events import Event
from linkspan.sdk.host import Host
from linkspan.sdk.http import Request, Stream, Writer

_FILTERS = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
    "workflow",
    "task",
]
# Filters that name an object of the type of the same name.
_OBJECTS = (
    "config",
    "secret",
    "plugin",
    "container",
    "daemon",
    "image",
    "network",
    "node",
    "service",
    "volume",
    "workflow",
    "task",
)


class EventRoutes:
    """What happens, as it happens."""

    def __init__(self, host: Host) -> None:
        self._events = host.engine.events

    async def events(self, request: Request) -> Stream:
        """GET /events: one object a line, until the client goes or ``until`` is over."""
        filters = read_filters(request, _FILTERS)
        since_ns = parse_nanoseconds(request.query.get("since", ""))
        until_ns = parse_nanoseconds(request.query.get("until", ""))
        if since_ns is not None and until_ns is not None and until_ns < since_ns:
            raise InvalidArgument(
                f"`since` time ({request.query['since']}) cannot be after `until` time "
                f"({request.query['until']})"
            )

        def encode(event: Event) -> tuple[bytes, ...]:
            wanted = until_ns is None or event.time_ns <= until_ns
            return _encode(event) if wanted and passes(event, filters) else ()

        async def run(writer: Writer) -> None:
            if until_ns is not None:
                # As in Docker: who says until when is told the past, too.
                await self._until(writer, encode, since_ns or 0, until_ns)
                return
            async with self._events.subscribe(since_ns=since_ns) as events:
                await copy_in_batches(writer, events, encode)

        return Stream(run=run, at_stop="end")

    async def _until(
        self,
        writer: Writer,
        encode: Callable[[Event], tuple[bytes, ...]],
        from_ns: int,
        until_ns: int,
    ) -> None:
        """Write what is remembered, and what happens until then; nothing is cut off by the deadline.

        The subscription only says that something has happened.
        """
        while True:
            left_s = until_ns / 1e9 - now_s()
            found = self._events.recent(since_ns=from_ns)
            if found:
                from_ns = found[-1].time_ns + 1
                await writer.write(*(part for event in found for part in encode(event)))
            if left_s <= 0:
                return
            with trio.move_on_after(left_s):
                async with self._events.subscribe(since_ns=from_ns) as events:
                    if await anext(events, None) is None:
                        return


def _encode(event: Event) -> tuple[bytes]:
    return (orjson.dumps(encode_event(event)) + b"\n",)


def passes(event: Event, filters: Filters) -> bool:
    """Docker's rules: any value of a key, all keys; objects by the beginning of id or name."""
    action = event.action.partition(":")[0]
    if not filters.among("type", event.type) or not filters.among("scope", event.scope):
        return False
    if not filters.among("event", event.action, action):
        return False
    if not all(has_label(event.attributes, label) for label in filters.all("label")):
        return False
    return all(_is_of(event, kind, filters) for kind in _OBJECTS if kind in filters)


def _is_of(event: Event, kind: str, filters: Filters) -> bool:
    """Whether it is about an object that is named; what happens to a container is about its image, too."""
    name = event.attributes.get("name", "")
    if kind != "image":
        return event.type == kind and filters.prefix(kind, event.actor_id, name)
    if event.type not in ("image", "container"):
        return False
    names = {name, name.partition(":")[0], event.attributes.get("image", "")}
    return filters.among(kind, event.actor_id, *names) or filters.prefix(kind, event.actor_id)


def encode_event(event: Event) -> dict[str, Any]:
    """EventMessage, with the old names that clients of containers and images still read."""
    out: dict[str, Any] = {}
    if event.type in ("container", "image"):
        out = {"status": event.action, "id": event.actor_id}
        if event.type == "container" and "image" in event.attributes:
            out["from"] = event.attributes["image"]
    attributes = dict(event.attributes)
    if event.type == "network" and "type" in attributes:
        attributes["type"] = driver_shown(attributes["type"])
    return {
        **out,
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.actor_id, "Attributes": attributes},
        "scope": event.scope,
        "time": event.time_ns // 10**9,
        "timeNano": event.time_ns,
    }
