"""What the engine in memory knows of its containers."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import attrs
import trio

from linkspan.sdk.errors import InvalidArgument, NotFound
from linkspan.sdk.model.container import Container, ContainerFilter, ExitStatus

_EVERY = ContainerFilter(all=True)


class Waiting(Protocol):
    """Who attached before the process exists."""

    created: trio.Event
    entered: trio.Event


class Entry:
    """A container with the events of its life."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.exited = trio.Event()
        self.removed = trio.Event()
        self.last_exit = ExitStatus(exit_code=0)
        self.waiting: list[Waiting] = []

    def change_state(self, **changes: Any) -> None:
        """Replace parts of the container's state."""
        state = attrs.evolve(self.container.state, **changes)
        self.container = attrs.evolve(self.container, state=state)

    def change(self, **changes: Any) -> None:
        """Replace parts of the container."""
        self.container = attrs.evolve(self.container, **changes)


class ContainerBook:
    """Containers by id."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def add(self, container: Container) -> None:
        """A new one."""
        self._entries[container.id] = Entry(container)

    def forget(self, container_id: str) -> None:
        """It is removed; whoever waits for that is told."""
        if entry := self._entries.pop(container_id, None):
            entry.removed.set()

    def entry(self, ref: str) -> Entry:
        """By id, its beginning or name.

        Raises:
            NotFound: There is none.
        """
        if not ref:
            raise InvalidArgument('invalid name or ID supplied: ""')
        for entry in self._entries.values():
            container = entry.container
            if ref.removeprefix("/") in (container.id, container.name):
                return entry
        found = [e for e in self._entries.values() if e.container.id.startswith(ref)]
        if len(found) != 1:
            raise NotFound(f"No such container: {ref}", code="container_not_found")
        return found[0]

    def named(self, name: str) -> Container | None:
        """Who has this name."""
        for entry in self._entries.values():
            if entry.container.name == name:
                return entry.container
        return None

    def all(self) -> Sequence[Container]:
        """Every container, newest first."""
        return self.listed(_EVERY)

    def listed(self, query: ContainerFilter) -> Sequence[Container]:
        """Those that match, newest first."""
        found = [e.container for e in reversed(self._entries.values())]
        found = [c for c in found if _matches(c, query)]
        return found[: query.limit] if query.limit else found


def _matches(container: Container, query: ContainerFilter) -> bool:
    wanted_state = query.all or query.statuses or query.limit or container.state.running
    return bool(
        wanted_state
        and all(_has_label(container.labels, label) for label in query.labels)
        and (not query.names or any(re.search(n, container.name) for n in query.names))
        and (not query.ids or any(container.id.startswith(i) for i in query.ids))
        and (not query.statuses or container.state.status.value in query.statuses)
        and (not query.exited or container.state.exit_code in query.exited)
    )


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)
