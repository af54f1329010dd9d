"""One run's journal, its state folded from it, and those who watch."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import trio

from linkspan.workflows.expressions.types import Json
from linkspan.workflows.journal import Journal, Record
from linkspan.workflows.masking import Masks
from linkspan.workflows.state import RunState, fold

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

    def __init__(self, past: list[Mapping[str, Json]]) -> None:
        self._waiting: deque[Mapping[str, Json]] = deque(past)
        self._lost = 0
        self._ended = False
        self._wake = trio.Event()

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


class Recorder:
    """Writes records, folds them, and tells the watchers.

    Attributes:
        state: After the last record.
        masks: What must not be written or told.
    """

    def __init__(
        self, journal: Journal, records: list[Record], gate: Gate = lambda kind, data: None
    ) -> None:
        self.masks = Masks()
        self._journal = journal
        self._gate = gate
        self._records: list[Mapping[str, Json]] = [record.as_json() for record in records]
        self._watchers: set[Watcher] = set()
        self._recent: deque[Mapping[str, Json]] = deque(maxlen=_RECENT)
        self.state: RunState = fold(self._records)

    async def write(self, kind: str, **data: Json) -> None:
        """Append a record; when this returns it is written, folded, and told.

        A record that announces something (``SYNCED``) is on disk then.

        Raises:
            JournalFailed: The disk is full.
        If cancelled: the record is written and folded all the same.
        """
        with trio.CancelScope(shield=True):
            masked = self.masks.mask_json(data)
            self._gate(kind, masked)
            record = (await self._journal.append(kind, masked, sync=kind in SYNCED)).as_json()
            self._records.append(record)
            self.state.take(record)
            for watcher in self._watchers:
                watcher.offer(record, passing=False)
        await trio.lowlevel.checkpoint()

    def tell(self, kind: str, **data: Json) -> None:
        """Tell the watchers something that is not recorded."""
        event = {"kind": kind, **self.masks.mask_json(data)}
        self._recent.append(event)
        for watcher in self._watchers:
            watcher.offer(event, passing=True)

    @contextmanager
    def watch(self) -> Iterator[Watcher]:
        """A watcher, from the first record on; of passing events it gets the last ones too."""
        watcher = Watcher([*self._records, *self._recent])
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def close(self) -> None:
        """The run is no longer active."""
        self._journal.close()
        for watcher in self._watchers:
            watcher.end()
