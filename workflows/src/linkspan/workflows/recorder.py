"""One run's journal, its state folded from it, and those who watch."""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio

from linkspan.sdk.progress import Progress
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.journal import Journal, Record
from linkspan.workflows.masking import Masks
from linkspan.workflows.state import RunState

_MAX_BEHIND: Final = 5000
"""Passing events (log lines, progress) kept for a watcher that is slow; records are always kept."""


_RECENT: Final = 200

SYNCED: Final = frozenset(
    {
        "run-created",
        "step-started",
        "step-suspended",
        "step-decided",
        "undo-started",
        "run-suspended",
        "run-finished",
    }
)
"""Records that are on disk before anything that they announce is done."""


class Watcher:
    """Receives a run's events: first all records so far, then everything as it happens."""

    def __init__(self, past: Iterable[Mapping[str, Json]] = ()) -> None:
        self._waiting: deque[Mapping[str, Json]] = deque(past)
        self._lost = 0
        self._ended = False
        self._wake = trio.Event()

    def begin(self, past: Sequence[Mapping[str, Json]]) -> None:
        """What was before all that it was offered so far."""
        self._waiting.extendleft(reversed(past))

    def offer(self, event: Mapping[str, Json], *, passing: bool) -> None:
        """Put an event in; a passing one is dropped if the watcher is too far behind."""
        if passing and len(self._waiting) >= _MAX_BEHIND:
            self._lost += 1
        else:
            self._waiting.append(event)
        self._wake.set()

    def end(self) -> None:
        """Nothing follows."""
        self._ended = True
        self._wake.set()

    async def batch(self) -> list[Mapping[str, Json]]:
        """The events there are, at least one; empty when the run is no longer active."""
        while not self._waiting and not self._ended:
            self._wake = trio.Event()
            await self._wake.wait()
        batch, self._waiting = list(self._waiting), deque()
        if self._lost:
            batch.append({"kind": "lost", "count": self._lost})
            self._lost = 0
        return batch


Gate = Callable[[str, Mapping[str, Json]], None]
"""Asked before a record is written, with its kind and fields; raises JournalFailed if nothing may be."""


def _acts(intent: Mapping[str, Json]) -> bool:
    """Whether a ``step-started`` record announces something, as far as its verb can tell.

    A step of which the verb says that nothing is to do leaves nothing to be undone, or to be found half
    done after a power cut: it is asked again then.
    """
    changes = intent["changes"]
    for change in changes:
        if change["action"] != "none":
            return True
    return not changes


class Recorder:
    """Writes records, folds them, and tells the watchers.

    Attributes:
        state: After the last record.
        masks: What must not be written or told.
    """

    def __init__(
        self, journal: Journal, state: RunState, gate: Gate = lambda kind, data: None
    ) -> None:
        self.masks = Masks()
        self.state = state
        self._journal = journal
        self._journal.told = self._take
        self._gate = gate
        # A step has changed the world, and that it has done so is not on disk yet.
        self._owes = False
        self._watchers: set[Watcher] = set()
        self._recent: deque[Mapping[str, Json]] = deque(maxlen=_RECENT)

    def write(self, kind: str, **data: Json) -> Awaitable[None]:
        """``record`` with the fields as keywords."""
        return self.record(kind, data)

    async def record(self, kind: str, data: Mapping[str, Json]) -> None:
        """Append a record; when this returns it is written, folded, and told.

        A record that announces something (``SYNCED``) is on disk then. No checkpoint if it need not be.

        Raises:
            JournalFailed: The disk is full.
        If cancelled: the record is written and folded all the same.
        """
        masked = self.masks.mask_json(data)
        self._gate(kind, masked)
        sync = kind in SYNCED and (kind != "step-started" or self._owes or _acts(data))
        if sync:
            self._owes = False
        await self._journal.append(kind, masked, sync=sync)

    def _take(self, record: Record) -> None:
        self.state.take(record)
        if not self._owes and record["kind"] == "step-finished":
            intent = self.state.step(record).intent
            self._owes = intent is not None and _acts(intent)
        for watcher in self._watchers:
            watcher.offer(record, passing=False)

    def tell(self, kind: str, **data: Json) -> None:
        """Tell the watchers something that is not recorded."""
        event = {"kind": kind, **self.masks.mask_json(data)}
        self._recent.append(event)
        for watcher in self._watchers:
            watcher.offer(event, passing=True)

    def tell_progress(self, job: str, step: str, progress: Progress) -> None:
        """Tell the watchers how far something of a job, or of its step, is."""
        self.tell(
            "progress",
            job=job,
            step=step,
            status=progress.status,
            id=progress.id,
            current=progress.current,
            total=progress.total,
        )

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[Watcher]:
        """A watcher, from the first record on; of passing events it gets the last ones too.

        Raises:
            DataLoss: The journal was damaged meanwhile.
        """
        watcher = Watcher()
        recent, count = list(self._recent), self.state.records
        # What is written from now on comes by itself; what was before lies on the disk.
        self._watchers.add(watcher)
        try:
            watcher.begin([*await self._journal.past(count), *recent])
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def close(self) -> None:
        """The run is no longer active."""
        self._journal.close()
        for watcher in self._watchers:
            watcher.end()
