"""Questions with a time limit answer themselves when it is over.

One task for all of them, and none while nothing with a limit is asked. The limit is a time
of the wall clock, since a run may be suspended for days and over restarts; it is looked at again every
half minute, so that a clock that was set is noticed.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import trio

from linkspan.sdk.errors import LinkspanError

log = logging.getLogger(__name__)

_LOOK_AGAIN_S: Final = 30.0


class Expiry:
    """See the module."""

    def __init__(
        self,
        questions: Callable[[], Iterable[tuple[float, str, str]]],
        expired: Callable[[str, str], Awaitable[None]],
        wall: Callable[[], float],
        nursery: trio.Nursery,
    ) -> None:
        """Make one.

        Args:
            questions: ``(POSIX time, run, place)`` of what is asked now.
            expired: Called with run and place of a question whose time is over.
            wall: POSIX time.
            nursery: Carries the task.
        """
        self._nursery = nursery
        self._watching = False
        self._questions = questions
        self._expired = expired
        self._wall = wall
        self._changed = trio.Event()

    def changed(self) -> None:
        """Something is asked, or was answered."""
        self._changed.set()
        if not self._watching and any(self._questions()):
            self._watching = True
            self._nursery.start_soon(self._watch, name="questions of suspended runs")

    async def _watch(self) -> None:
        try:
            while asked := sorted(self._questions()):
                await self._look(asked)
        finally:
            self._watching = False

    async def _look(self, asked: list[tuple[float, str, str]]) -> None:
        """Answer what is over, then wait for the next end, or for a change."""
        self._changed = trio.Event()
        for until, run_id, place in asked:
            if until <= self._wall():
                await self._end(run_id, place)
        later = [until for until, _, _ in asked if until > self._wall()]
        wait = min(later[0] - self._wall(), _LOOK_AGAIN_S) if later else 0.0
        with trio.move_on_after(max(0.0, wait)):
            await self._changed.wait()

    async def _end(self, run_id: str, place: str) -> None:
        try:
            await self._expired(run_id, place)
        except (LinkspanError, OSError) as error:
            # Answered in this very moment, or its record cannot be written: the next look says.
            log.warning(
                "question stays", extra={"run": run_id, "place": place, "reason": str(error)}
            )
            await trio.sleep(1)
