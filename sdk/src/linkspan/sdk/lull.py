"""Work that is put off until what causes it pauses."""

from collections.abc import Callable

import trio


class Lull:
    """Waits for a moment in which nothing happens.

    Writing to the disk itself, or removing what nobody needs any more, holds up everything else that uses
    the disk: in the middle of a pull it costs the user time, a moment later nobody notices.

    Args:
        busy: Whether something is under way that should not be disturbed.
        pause_s: How long nothing has to happen.
        latest_s: After so long the work is done in any case.
    """

    def __init__(
        self, busy: Callable[[], bool], *, pause_s: float = 1.0, latest_s: float = 30.0
    ) -> None:
        self._busy = busy
        self._pause_s = pause_s
        self._latest_s = latest_s
        self._stirred = trio.Event()

    def stir(self) -> None:
        """Something happens: there will be work to do."""
        self._stirred.set()

    async def wait(self) -> None:
        """Wait until there is work, and a lull to do it in.

        What stirs from now on is for the next call.
        """
        await self._stirred.wait()
        latest = trio.current_time() + self._latest_s
        quiet = False
        while not quiet and trio.current_time() < latest:
            self._stirred = trio.Event()
            with trio.move_on_at(min(latest, trio.current_time() + self._pause_s)) as pause:
                await self._stirred.wait()
            quiet = pause.cancelled_caught and not self._busy()
        self._stirred = trio.Event()
