"""How a run is asked to stop: once in order, twice at once; and how it stops by itself for a person."""

import attrs
import trio


class Activity:
    """How many jobs of a pipeline are on their way, and how many wait for a person.

    A called pipeline has one of its own: while all of it waits for a person, so does the job that
    calls it.
    """

    def __init__(self, control: "Control", parent: "Activity | None" = None) -> None:
        self._control = control
        self._parent = parent
        self._busy = 0
        self._held: dict[str, trio.Event] = {}
        self._waiting_calls = 0
        self._waits = False

    def begin(self, jobs: int = 1) -> None:
        """Jobs were put on their way; ``end`` follows for each that is begun."""
        self._busy += jobs
        self._look()

    def end(self) -> None:
        """A job has ended."""
        self._busy -= 1
        self._look()

    async def hold(self, job: str) -> None:
        """Wait until somebody has decided about a job that was begun; the run may be suspended meanwhile.

        If cancelled: the run is suspended, or was told to stop.
        """
        decided = trio.Event()
        self._busy -= 1
        self._held[job] = decided
        self._control.held[job] = self
        try:
            self._look()
            await decided.wait()
        finally:
            self._held.pop(job, None)
            del self._control.held[job]
            self._busy += 0 if decided.is_set() else 1

    def release(self, job: str) -> None:
        """Somebody has decided about a job: it is on its way again."""
        self._held.pop(job).set()
        self._busy += 1
        self._look()

    def _look(self) -> None:
        waits = self._busy == 0 and bool(self._held or self._waiting_calls)
        if waits == self._waits:
            return
        self._waits = waits
        if self._parent is not None:
            self._parent.call_waits(waits)
        elif waits:
            self._control.suspend()

    def call_waits(self, waits: bool) -> None:
        """A called pipeline waits for a person as a whole, or no longer."""
        self._busy += -1 if waits else 1
        self._waiting_calls += 1 if waits else -1
        self._look()


@attrs.define(kw_only=True)
class Control:
    """The stop buttons of one run.

    Attributes:
        cancelling: The run was asked to stop: no job begins, running steps are stopped in order, then
            the jobs of ``finally`` run.
        killed: It was asked again: graces end at once, and ``finally`` with them.
        out_of_time: It was asked to stop because its time limit is over.
        suspending: All that is left of it waits for a person: it leaves memory.
        main: Around the run's jobs.
        cleanup: Around the jobs of ``finally``.
        held: Jobs that wait for a person, and where they are counted.
        ending: The jobs of ``finally`` run.
    """

    cancelling: bool = False
    killed: bool = False
    out_of_time: bool = False
    suspending: bool = False
    ending: bool = False
    main: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    cleanup: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _graces: list[trio.CancelScope] = attrs.field(factory=list)
    held: "dict[str, Activity]" = attrs.field(factory=dict)

    def cancel(self) -> None:
        """Ask to stop."""
        self.cancelling = True
        self.main.cancel()

    @property
    def reason(self) -> str:
        """Why it was asked to stop, for those that were stopped."""
        return "the run's time is over" if self.out_of_time else "the run was cancelled"

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

    def release(self, job: str) -> None:
        """Somebody has decided about a job."""
        activity = self.held.get(job)
        if activity is not None:
            activity.release(job)

    def suspend(self) -> None:
        """Nothing of the run goes on without a person: it leaves memory."""
        self.suspending = True
        (self.cleanup if self.ending else self.main).cancel()
