"""A clock that stands while anything happens, and jumps to the next deadline when nothing does."""

import math
from typing import Final

import trio
import trio.testing

from linkspan.sdk.errors import LinkspanError

_LOOK_AGAIN_S: Final = 0.0005
"""Real seconds between looks at worker threads, which trio does not count as something that happens."""

EPOCH: Final = 1_767_225_600.0
"""The wall clock at the beginning of a scenario: 2026-01-01T00:00:00Z."""


class Stuck(LinkspanError):
    """Nothing happens any more, and no time limit will change that."""

    default_code = "stuck"


class ScenarioClock(trio.abc.Clock):
    """See the module; unlike the clock of ``trio.testing`` it waits for worker threads.

    The runner writes its journal in threads: a clock that jumped meanwhile would let time limits run out.
    """

    def __init__(self) -> None:
        self._now = 0.0

    def start_clock(self) -> None:
        """It begins at 0."""

    def current_time(self) -> float:
        """Seconds since the beginning of the scenario."""
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Nothing comes by waiting: only jumps move this clock."""
        return 0.0 if deadline <= self._now else math.inf

    async def keep_jumping(self) -> None:
        """Move the clock until cancelled.

        Raises:
            Stuck: All tasks wait, for nothing that comes.
        """
        limiter = trio.to_thread.current_default_thread_limiter()
        while True:
            busy = limiter.borrowed_tokens > 0
            await trio.testing.wait_all_tasks_blocked(_LOOK_AGAIN_S if busy else 0.0)
            if limiter.borrowed_tokens:
                continue
            seconds = trio.lowlevel.current_statistics().seconds_to_next_deadline
            if math.isinf(seconds):
                raise Stuck("all that is left of the run waits for something that does not come")
            # A step of nothing at all would be rounded away.
            self._now += max(seconds, 1e-9)


def wall() -> float:
    """POSIX time of the scenario."""
    return EPOCH + trio.current_time()
