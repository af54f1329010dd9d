"""A state store in memory."""

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Self

import attrs
import trio

from linkspan.sdk.drivers.base import NoConfig
from linkspan.sdk.drivers.state import ChangeEvent, Delete, Entry, Operation, Put, State, StateCap
from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound, OutOfSpace, Unavailable
from linkspan.sdk.host import Host

MAX_OPERATIONS = 1000
MAX_VALUE_BYTES = 1 << 20


@attrs.define
class FakeState(State[NoConfig]):
    """Implements the role without a file; nothing outlives ``open``.

    Attributes:
        entries: Key → entry; a test may look.
        full: Whether the next commits find the disk full.
    """

    config_type = NoConfig

    entries: dict[str, Entry] = attrs.field(factory=dict)
    full: bool = False
    _revision: int = 0
    _compacted: int = 0
    _history: list[ChangeEvent] = attrs.field(factory=list)
    _leases: dict[str, set[str]] = attrs.field(factory=dict)
    _changed: trio.Event = attrs.field(factory=trio.Event)

    @classmethod
    @asynccontextmanager
    async def open(cls, config: NoConfig, host: Host) -> AsyncIterator[Self]:
        await trio.lowlevel.checkpoint()
        yield cls()

    @property
    def capabilities(self) -> StateCap:
        return StateCap.NONE

    async def get(self, key: str) -> Entry | None:
        await trio.lowlevel.checkpoint()
        return self.entries.get(key)

    async def list(self, prefix: str) -> tuple[list[Entry], int]:
        await trio.lowlevel.checkpoint()
        found = [self.entries[key] for key in sorted(self.entries) if key.startswith(prefix)]
        return found, self._revision

    async def commit(self, *operations: Operation) -> int:
        await trio.lowlevel.checkpoint()
        return self._apply(operations)

    def _apply(self, operations: Sequence[Operation]) -> int:
        self._check(operations)
        if not operations:
            return self._revision
        for op in operations:
            entry = self.entries.get(op.key)
            found = entry.revision if entry is not None else 0
            if op.if_revision is not None and op.if_revision != found:
                raise Conflict(
                    f"'{op.key}' has revision {found}, not {op.if_revision}",
                    code="revision",
                    details={"key": op.key, "expected": op.if_revision, "found": found},
                )
        if self.full:
            raise OutOfSpace("the fake store is full")
        self._revision += 1
        for op in sorted(operations, key=lambda op: op.key):
            self._write(op)
        self._changed.set()
        self._changed = trio.Event()
        return self._revision

    def _check(self, operations: Sequence[Operation]) -> None:
        if len(operations) > MAX_OPERATIONS:
            raise InvalidArgument("too many operations")
        if len({op.key for op in operations}) < len(operations):
            raise InvalidArgument("a key is written twice")
        for op in operations:
            if not op.key:
                raise InvalidArgument("a key is not empty")
            if isinstance(op, Put) and len(op.value) > MAX_VALUE_BYTES:
                raise InvalidArgument("the value is too large")
            if isinstance(op, Put) and op.lease and op.lease not in self._leases:
                raise NotFound(f"nobody holds lease '{op.lease}'", code="lease_unknown")

    def _write(self, op: Operation) -> None:
        for keys in self._leases.values():
            keys.discard(op.key)
        value: bytes | None = None
        if isinstance(op, Put):
            value = op.value
            self.entries[op.key] = Entry(key=op.key, value=value, revision=self._revision)
            if op.lease:
                self._leases[op.lease].add(op.key)
        elif self.entries.pop(op.key, None) is None:
            return
        self._history.append(ChangeEvent(key=op.key, value=value, revision=self._revision))

    @asynccontextmanager
    async def watch(
        self, prefix: str, *, after_revision: int
    ) -> AsyncIterator[AsyncIterator[ChangeEvent]]:
        await trio.lowlevel.checkpoint()
        self.check_history(after_revision)
        yield _FakeWatch(self, prefix, after_revision)

    def check_history(self, after_revision: int) -> None:
        if after_revision + 1 < self._compacted:
            raise Unavailable("those changes are forgotten; list again", code="compacted")

    async def changes_after(self, prefix: str, revision: int) -> tuple[Sequence[ChangeEvent], int]:
        await trio.lowlevel.checkpoint()
        while self._revision <= revision:
            await self._changed.wait()
        self.check_history(revision)
        found = [e for e in self._history if e.revision > revision and e.key.startswith(prefix)]
        return found, self._revision

    @asynccontextmanager
    async def lease(self, name: str, *, ttl_s: float) -> AsyncIterator[None]:
        if not name or ttl_s <= 0:
            raise InvalidArgument("a lease has a name and a time to live")
        await trio.lowlevel.checkpoint()
        if name in self._leases:
            raise Conflict(f"lease '{name}' is held", code="lease_held")
        self._leases[name] = set()
        try:
            yield
        finally:
            self._apply([Delete(key=key) for key in sorted(self._leases[name])])
            del self._leases[name]

    async def compact(self, revision: int) -> None:
        await trio.lowlevel.checkpoint()
        self._compacted = max(self._compacted, min(revision, self._revision + 1))
        self._history = [e for e in self._history if e.revision >= self._compacted]


class _FakeWatch(AsyncIterator[ChangeEvent]):
    def __init__(self, state: FakeState, prefix: str, after_revision: int) -> None:
        self._state = state
        self._prefix = prefix
        self._position = after_revision
        self._ready: deque[ChangeEvent] = deque()

    async def __anext__(self) -> ChangeEvent:
        while not self._ready:
            found, self._position = await self._state.changes_after(self._prefix, self._position)
            self._ready.extend(found)
        return self._ready.popleft()
