"""How a run is asked to stop: once in order, twice at once."""

import attrs
import trio


@attrs.define(kw_only=True)
class Control:
    """The stop buttons of one run.

    Attributes:
        cancelling: The run was asked to stop: no job begins, running steps are stopped in order, then
            the jobs of ``finally`` run.
        killed: It was asked again: graces end at once, and ``finally`` with them.
        main: Around the run's jobs.
        cleanup: Around the jobs of ``finally``.
    """

    cancelling: bool = False
    killed: bool = False
    main: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    cleanup: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _graces: list[trio.CancelScope] = attrs.field(factory=list)

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
