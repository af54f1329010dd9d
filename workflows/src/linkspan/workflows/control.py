"""How a run is asked to stop: once in order, twice at once; and how it stops by itself for a person."""

from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import trio


@attrs.define(kw_only=True)
class Control:
    """The stop buttons of one run.

    Attributes:
        cancelling: The run was asked to stop: no job begins, running steps are stopped in order, then
            the jobs of ``finally`` run.
        killed: It was asked again: graces end at once, and ``finally`` with them.
        suspending: All that is left of it waits for a person: it leaves memory.
        main: Around the run's jobs.
        cleanup: Around the jobs of ``finally``.
        ending: The jobs of ``finally`` run.
    """

    cancelling: bool = False
    killed: bool = False
    suspending: bool = False
    ending: bool = False
    main: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    cleanup: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _graces: list[trio.CancelScope] = attrs.field(factory=list)
    _busy: int = 0
    _held: dict[str, trio.Event] = attrs.field(factory=dict)

    def cancel(self) -> None:
        """Ask to stop."""
        self.cancelling = True
        self.main.cancel()

    def kill(self) -> None:
        """Ask to stop at once."""
        self.cancel()
        self.killed = True
        self.cleanup.cancel()
        for scope in self._graces:
            scope.cancel()

    def add_grace(self, scope: trio.CancelScope) -> None:
        """A shielded wait for an orderly end begins; a kill ends it."""
        self._graces.append(scope)
        if self.killed:
            scope.cancel()

    # for a person

    def begin(self) -> None:
        """A job was put on its way; ``end`` follows."""
        self._busy += 1

    def end(self) -> None:
        """A job has ended."""
        self._busy -= 1
        self._look()

    async def hold(self, job: str) -> None:
        """Wait until somebody has decided about a job that was begun; the run may be suspended meanwhile.

        If cancelled: the run is suspended, or was told to stop.
        """
        with self._holding(job) as decided:
            self._look()
            await decided.wait()

    @contextmanager
    def _holding(self, job: str) -> Iterator[trio.Event]:
        self._busy -= 1
        self._held[job] = trio.Event()
        try:
            yield self._held[job]
        finally:
            del self._held[job]
            self._busy += 1

    def release(self, job: str) -> None:
        """Somebody has decided about a job."""
        if job in self._held:
            self._held[job].set()

    def _look(self) -> None:
        """Suspend the run if nothing of it goes on without a person."""
        undecided = [event for event in self._held.values() if not event.is_set()]
        if undecided and len(undecided) == len(self._held) and self._busy == 0:
            self.suspending = True
            (self.cleanup if self.ending else self.main).cancel()
