"""Background work that outlives one request, started again when it fails."""

import logging
from collections.abc import Awaitable, Callable

import trio

log = logging.getLogger("linkspan.supervisor")

FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 30.0


class Supervisor:
    """Runs tasks in one nursery; a failing one is logged and started again with back-off."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.failing: dict[str, str] = {}

    async def start(self, fn: Callable[..., Awaitable[object]], *args: object, name: str) -> object:
        """Start ``fn(*args, task_status=…)``; return what it says with ``started``.

        The first start is the caller's: its error is raised here. Later ones are repeated.
        """
        return await self._nursery.start(self._run, fn, args, name, name=name)

    def spawn(self, fn: Callable[..., Awaitable[object]], *args: object, name: str) -> None:
        """Run work once, in the background; an error is logged."""
        self._nursery.start_soon(self._once, fn, args, name, name=name)

    async def _once(
        self, fn: Callable[..., Awaitable[object]], args: tuple[object, ...], name: str
    ) -> None:
        try:
            await fn(*args)
        except (Exception, SystemExit):
            log.exception("background work failed", extra={"task": name})

    async def _run(
        self,
        fn: Callable[..., Awaitable[object]],
        args: tuple[object, ...],
        name: str,
        *,
        task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        first = _Started(task_status)
        backoff_s = FIRST_BACKOFF_S
        while True:
            began = trio.current_time()
            try:
                await fn(*args, task_status=first)
            except (Exception, SystemExit) as error:
                if not first.done:
                    raise
                self.failing[name] = str(error) or type(error).__name__
                log.exception("task failed; it is started again", extra={"task": name})
            else:
                self.failing.pop(name, None)
                return
            if trio.current_time() - began > LONGEST_BACKOFF_S:
                backoff_s = FIRST_BACKOFF_S
            await trio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)


class _Started:
    """Passes on the first ``started``; later runs of the same task say it to nobody."""

    def __init__(self, status: trio.TaskStatus[object]) -> None:
        self._status = status
        self.done = False

    def started(self, value: object = None) -> None:
        if not self.done:
            self.done = True
            self._status.started(value)
