"""The driver ``sqlite``: group commit, watchers, leases over one database."""

import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, Self, TypeVar

import attrs
import trio

from linkspan.plugins.sqlite_state.config import SqliteStateConfig
from linkspan.plugins.sqlite_state.database import (
    Committed,
    Database,
    DropLease,
    Outcome,
    Transaction,
)
from linkspan.sdk.drivers.base import Health
from linkspan.sdk.drivers.state import ChangeEvent, Entry, Operation, Put, State, StateCap
from linkspan.sdk.errors import (
    Conflict,
    Internal,
    InvalidArgument,
    LinkspanError,
    NotFound,
    OutOfSpace,
    Unavailable,
)
from linkspan.sdk.host import Host
from linkspan.sdk.values import define

R = TypeVar("R")
log = logging.getLogger(__name__)

MAX_VALUE_BYTES = 1 << 20
MAX_KEY_BYTES = 1024
MAX_OPERATIONS = 1000
_BATCH_OPERATIONS = 2000
_RECENT_EVENTS = 4096
_RECENT_BYTES = 8 << 20
_READ_EVENTS = 500


@define(eq=False)
class _Job:
    """A transaction that waits for its turn.

    Attributes:
        leads: It has been told to commit the next batch.
    """

    transaction: Transaction
    turn: trio.Event = attrs.field(factory=trio.Event)
    outcome: Outcome | None = None
    leads: bool = False


class SqliteState(State[SqliteStateConfig]):
    """One file, one daemon. Commits that come together share one wait for the disk."""

    config_type: ClassVar[type[Any]] = SqliteStateConfig

    def __init__(self, database: Database, config: SqliteStateConfig) -> None:
        self._database = database
        self._config = config
        self._worker = trio.CapacityLimiter(1)
        self._closed = False
        self._queue: deque[_Job] = deque()
        self._leading = False
        self._leases: set[str] = set()
        self._changed = trio.Event()
        # All changes after ``_recent_after``, so that a watcher that keeps up never reads the file.
        self._recent: deque[ChangeEvent] = deque()
        self._recent_after = database.revision
        self._recent_bytes = 0
        self._revision = database.revision
        self._full = ""

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, config: SqliteStateConfig, host: Host) -> AsyncIterator[Self]:
        """Open the file; entries of leases that the last daemon held are removed.

        Raises:
            NotUsable: Another daemon has it, or it cannot be opened.
            DataLoss: It is damaged.
        """
        path = config.path or host.state_dir / "state.db"
        database = await trio.to_thread.run_sync(Database, path)
        driver = cls(database, config)
        try:
            yield driver
        finally:
            with trio.CancelScope(shield=True):
                await driver._close()

    async def _close(self) -> None:
        self._closed = True
        self._wake_watchers()
        await trio.to_thread.run_sync(self._database.close, limiter=self._worker)

    @property
    def capabilities(self) -> StateCap:
        """For one daemon alone."""
        return StateCap.NONE

    async def probe(self) -> Health:
        """Degraded while the last write found the disk full."""
        return Health(state="degraded", reason=self._full) if self._full else Health()

    async def _run(self, function: Callable[..., R], *arguments: Any) -> R:
        if self._closed:
            raise Unavailable("the cluster's state is closed", code="state_closed")
        return await trio.to_thread.run_sync(function, *arguments, limiter=self._worker)

    async def get(self, key: str) -> Entry | None:
        """See ``State.get``. If cancelled: nothing has changed."""
        return await self._run(self._database.get, key)

    async def list(self, prefix: str) -> tuple[list[Entry], int]:
        """See ``State.list``. If cancelled: nothing has changed."""
        return await self._run(self._database.entries, prefix)

    # --- commit

    async def commit(self, *operations: Operation) -> int:
        """See ``State.commit``; without operations it writes nothing.

        Raises also:
            NotFound: code ``lease_unknown``: a lease that nobody holds now.
            InvalidArgument: Too much, or a key that is written twice.
        """
        self._check(operations)
        if not operations:
            await trio.lowlevel.checkpoint()
            return self._revision
        outcome = await self._commit(operations)
        if isinstance(outcome, LinkspanError):
            raise outcome
        return outcome.revision

    def _check(self, operations: Sequence[Operation]) -> None:
        if len(operations) > MAX_OPERATIONS:
            raise InvalidArgument(f"a transaction has at most {MAX_OPERATIONS} operations")
        if len({op.key for op in operations}) < len(operations):
            raise InvalidArgument("a transaction writes a key twice")
        for op in operations:
            _check_key(op.key)
            if isinstance(op, Put):
                if len(op.value) > MAX_VALUE_BYTES:
                    raise InvalidArgument(f"the value of '{op.key}' is larger than 1 MiB")
                if op.lease and op.lease not in self._leases:
                    raise NotFound(f"nobody holds lease '{op.lease}'", code="lease_unknown")

    async def _commit(self, transaction: Transaction) -> Outcome:
        """Whoever finds nobody committing leads: it takes all that waits, then hands over."""
        job = _Job(transaction)
        self._queue.append(job)
        if self._leading:
            try:
                await job.turn.wait()
            except trio.Cancelled:
                if job in self._queue:
                    self._queue.remove(job)
                if job.leads:
                    self._hand_over()
                raise
            if job.outcome is not None:
                return job.outcome
        self._leading = True
        try:
            with trio.CancelScope(shield=True):
                await self._commit_batch(self._take_batch())
        finally:
            self._hand_over()
        assert job.outcome is not None
        await trio.lowlevel.checkpoint_if_cancelled()
        return job.outcome

    def _take_batch(self) -> Sequence[_Job]:
        batch: deque[_Job] = deque()
        count = 0
        while self._queue and (not batch or count < _BATCH_OPERATIONS):
            job = self._queue.popleft()
            batch.append(job)
            count += 1 if isinstance(job.transaction, DropLease) else len(job.transaction)
        return batch

    async def _commit_batch(self, batch: Sequence[_Job]) -> None:
        broken = Internal("the transaction broke off; read to learn whether it holds")
        outcomes: Sequence[Outcome] = [broken] * len(batch)
        try:
            outcomes = await self._run(
                self._database.commit_all, [job.transaction for job in batch]
            )
            self._full = ""
        except LinkspanError as error:
            # One object raised in several tasks would collect all their tracebacks.
            outcomes = [_copy(error) for _ in batch]
            self._full = error.message if isinstance(error, OutOfSpace) else ""
        finally:
            for job, outcome in zip(batch, outcomes, strict=True):
                job.outcome = outcome
                job.turn.set()
                if isinstance(outcome, Committed):
                    self._remember(outcome)
            self._wake_watchers()
        await self._compact_old()

    def _remember(self, committed: Committed) -> None:
        self._revision = committed.revision
        self._recent.extend(committed.events)
        self._recent_bytes += sum(map(_weight, committed.events))
        while len(self._recent) > _RECENT_EVENTS or self._recent_bytes > _RECENT_BYTES:
            # A transaction is kept whole or not at all.
            self._recent_after = self._recent[0].revision
            while self._recent and self._recent[0].revision == self._recent_after:
                self._recent_bytes -= _weight(self._recent.popleft())

    async def _compact_old(self) -> None:
        keep = self._config.history
        if self._revision - self._database.compacted > keep + keep // 10 + 1:
            with contextlib.suppress(LinkspanError):
                await self._run(self._database.compact, self._revision - keep)

    def _hand_over(self) -> None:
        self._leading = bool(self._queue)
        if self._queue:
            self._queue[0].leads = True
            self._queue[0].turn.set()

    # --- watch

    def _wake_watchers(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    @contextlib.asynccontextmanager
    async def _watch(
        self, prefix: str, after_revision: int
    ) -> AsyncIterator[AsyncIterator[ChangeEvent]]:
        self._check_history(after_revision)
        await trio.lowlevel.checkpoint()
        yield _Watch(self, prefix, after_revision)

    def watch(
        self, prefix: str, *, after_revision: int
    ) -> AbstractAsyncContextManager[AsyncIterator[ChangeEvent]]:
        """See ``State.watch``; a watcher that lags too far is told ``compacted`` later, too."""
        return self._watch(prefix, after_revision)

    def _check_history(self, after_revision: int) -> None:
        if after_revision + 1 < self._database.compacted:
            raise Unavailable(
                f"changes after revision {after_revision} are forgotten (kept since "
                f"{self._database.compacted}); list again",
                code="compacted",
                details={"compacted": self._database.compacted},
            )

    async def _changes(self, prefix: str, after_revision: int) -> tuple[Sequence[ChangeEvent], int]:
        """Changes that are known now, and up to which revision; waits until there is one to look at."""
        while self._revision <= after_revision:
            if self._closed:
                raise Unavailable("the cluster's state is closed", code="state_closed")
            await self._changed.wait()
        if after_revision >= self._recent_after:
            await trio.lowlevel.checkpoint()
            events = [
                e for e in self._recent if e.revision > after_revision and e.key.startswith(prefix)
            ]
            return events, self._revision
        found = await self._run(self._database.changes, prefix, after_revision, _READ_EVENTS)
        self._check_history(after_revision)
        return found

    # --- leases

    @contextlib.asynccontextmanager
    async def _lease(self, name: str) -> AsyncIterator[None]:
        if name in self._leases:
            raise Conflict(
                f"lease '{name}' is held by somebody else",
                code="lease_held",
                details={"name": name},
            )
        self._leases.add(name)
        try:
            await trio.lowlevel.checkpoint()
            yield
        finally:
            with trio.CancelScope(shield=True):
                await self._end_lease(name)

    def lease(self, name: str, *, ttl_s: float) -> AbstractAsyncContextManager[None]:
        """See ``State.lease``. The holder lives in this process, so the lease lives as long as it."""
        if not name or ttl_s <= 0:
            raise InvalidArgument("a lease has a name and a time to live")
        return self._lease(name)

    async def _end_lease(self, name: str) -> None:
        self._leases.discard(name)
        if self._closed:
            return  # The next start removes what the lease held.
        outcome = await self._commit(DropLease(name))
        if isinstance(outcome, LinkspanError):
            log.error(
                "entries of an ended lease stay until the next start",
                extra={"lease": name, "reason": outcome.message},
            )

    async def compact(self, revision: int) -> None:
        """See ``State.compact``."""
        await self._run(self._database.compact, revision)


class _Watch(AsyncIterator[ChangeEvent]):
    def __init__(self, state: SqliteState, prefix: str, after_revision: int) -> None:
        self._state = state
        self._prefix = prefix
        self._position = after_revision
        self._ready: deque[ChangeEvent] = deque()

    async def __anext__(self) -> ChangeEvent:
        while not self._ready:
            events, self._position = await self._state._changes(self._prefix, self._position)
            self._ready.extend(events)
        return self._ready.popleft()


def _weight(event: ChangeEvent) -> int:
    return len(event.key) + len(event.value or b"")


def _copy(error: LinkspanError) -> LinkspanError:
    copy = type(error)(error.message, code=error.code, details=error.details, help=error.help)
    copy.__cause__ = error.__cause__
    return copy


def _check_key(key: str) -> None:
    try:
        size = len(key.encode())
    except UnicodeEncodeError as error:
        raise InvalidArgument("a key is valid Unicode text") from error
    if not 0 < size <= MAX_KEY_BYTES or "\0" in key or "\U0010ffff" in key:
        raise InvalidArgument(f"a key has 1 to {MAX_KEY_BYTES} bytes and no NUL")
