"""Calls of a step's plugin that nobody has to wait for longer than they want to.

A plugin may hang, in a thread or behind a shield, and take no notice of being cancelled. Its call is
made in another task than that which answers for the run: when it does not end within its grace, it is left
behind, and the run goes on. For a single call there is ``PluginCalls``. The steps of a job, one after the other,
share one such task (``Guard``): to change the task twice for each would cost more than a short step does.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, NoReturn, TypeVar

import attrs
import trio

from linkspan.sdk.errors import DriverFault
from linkspan.workflows.containers import OnStop

T = TypeVar("T")

PLAN_LIMIT_S: Final = 30.0
"""For a plugin that is asked what it would do."""
_AT_LEAST_S: Final = 1.0
"""Between being told to stop and being left behind; enough to leave a `finally`."""


@attrs.define(eq=False)
class _Work(Generic[T]):
    """One call, as the task that makes it and the one that waits for it see it."""

    call: Callable[[], Awaitable[T]]
    ended: trio.Event = attrs.field(factory=trio.Event)
    result: list[T] = attrs.field(factory=list)
    fault: BaseException | None = None


class _Worker:
    """A task that makes calls, until one of them had to be told to stop.

    Attributes:
        scope: Ends it.
        over: It has ended, and makes no call any more.
    """

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.over = False
        self._work: _Work[Any] | None = None
        self._given = trio.Event()

    def give(self, work: _Work[Any]) -> None:
        """Make this call next; the one before has ended."""
        self._work = work
        self._given.set()

    async def run(self) -> None:
        """Make calls until cancelled."""
        try:
            with self.scope:
                while True:
                    await self._given.wait()
                    self._given = trio.Event()
                    assert self._work is not None
                    await self._make(self._work)
        finally:
            self.over = True
            if self._work is not None:
                # Cancelled before it was begun.
                self._work.ended.set()

    async def _make(self, work: _Work[Any]) -> None:
        self._work = None
        try:
            work.result.append(await work.call())
        except (Exception, SystemExit) as error:  # noqa: BLE001 - raised to who waits
            work.fault = error
        finally:
            work.ended.set()


class CallWorkers:
    """The tasks that make the calls of a run's plugins: one is made only when all others are busy."""

    def __init__(self, nursery: trio.Nursery) -> None:
        """Make them.

        Args:
            nursery: Carries them; nothing in it may raise.
        """
        self._nursery = nursery
        self._idle: list[_Worker] = []

    async def do(
        self, call: Callable[[], Awaitable[T]], leave: Callable[[trio.Event], Awaitable[None]]
    ) -> T:
        """Have one of them make a call.

        Args:
            call: It.
            leave: Waits for its end once it was told to stop, as long as it is to be waited for.

        Raises:
            DriverFault: The call wanted to end the daemon (``sys.exit``).
            Exception: Whatever it raises.
        If cancelled: it has ended, or was left behind.
        """
        work = _Work(call)
        worker = self._take()
        worker.give(work)
        try:
            await work.ended.wait()
        except BaseException:
            worker.scope.cancel()
            await leave(work.ended)
            raise
        if not work.result and work.fault is None:
            # The nursery that carried it is being cancelled, and so are we.
            await trio.sleep_forever()
        self._idle.append(worker)
        if work.fault is not None:
            _raise(work.fault)
        return work.result[0]

    def _take(self) -> _Worker:
        """One that nobody else has."""
        while self._idle:
            worker = self._idle.pop()
            # Those of a nursery that is being cancelled end while nobody looks.
            if not worker.over:
                return worker
        made = _Worker()
        self._nursery.start_soon(made.run, name="calls of plugins")
        return made

    def close(self) -> None:
        """End those that have nothing to do; the others end with their calls."""
        while self._idle:
            self._idle.pop().scope.cancel()


def _raise(fault: BaseException) -> NoReturn:
    if isinstance(fault, SystemExit):
        raise DriverFault(f"the plugin wanted to exit: {fault}") from fault
    raise fault


@attrs.define(kw_only=True)
class PluginCalls:
    """Makes calls of plugins, for one step or one plan.

    Attributes:
        workers: Make them.
        say: Told of a call that was left behind.
        grace_s: Between being told to stop and being left behind.
        on_stop: Gets the scope of the grace when it begins; cancelling it ends the grace.
        left: One was: nobody knows what it still does.
    """

    workers: CallWorkers
    say: Callable[[str], None]
    grace_s: float = _AT_LEAST_S
    on_stop: OnStop = lambda scope: None
    left: bool = False

    async def __call__(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call.

        Raises:
            DriverFault: The plugin wanted to end the daemon (``sys.exit``).
            Exception: Whatever it raises.
        If cancelled: it has ended, or was left behind.
        """
        return await self.workers.do(call, self.leave)

    async def leave(self, ended: trio.Event) -> None:
        """Wait for a call that was told to stop; leave it behind when its grace is over."""
        with trio.CancelScope(shield=True), trio.move_on_after(_AT_LEAST_S):
            await ended.wait()
        if not ended.is_set() and self.grace_s > _AT_LEAST_S:
            with trio.CancelScope(shield=True) as scope:
                scope.deadline = trio.current_time() + self.grace_s - _AT_LEAST_S
                self.on_stop(scope)
                await ended.wait()
        if not ended.is_set():
            self.left = True
            self.say("its plugin does not stop; it was left behind, and may still be at work")


class Guard:
    """Does work of ours that calls plugins, in a task that can be left behind in the middle of a call."""

    def __init__(self, workers: CallWorkers) -> None:
        """Make one; the task is one of these."""
        self._workers = workers
        self._task: trio.lowlevel.Task | None = None
        self._calls: PluginCalls | None = None
        self._out = trio.Event()

    async def __call__(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work.

        Raises:
            Exception: Whatever it raises.
        If cancelled: it has ended, or was left behind in the call of a plugin.
        """

        async def within() -> T:
            self._task = trio.lowlevel.current_task()
            return await work()

        return await self._workers.do(within, self._leave)

    @property
    def here(self) -> bool:
        """Whether the current task is the one that can be left behind."""
        return self._task is trio.lowlevel.current_task()

    async def call(self, calls: PluginCalls, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call ``here``, within no limit or other scope that is to end before the work does.

        Args:
            calls: Those that it is one of.
            call: It.

        Raises:
            DriverFault: The plugin wanted to end the daemon.
            Exception: Whatever it raises.
        If cancelled: that, whatever the plugin makes of it.
        """
        self._calls = calls
        try:
            result = await call()
        except (Exception, SystemExit) as fault:  # noqa: BLE001 - raised again
            # What was left behind goes no further, however late it comes back.
            await trio.lowlevel.checkpoint_if_cancelled()
            _raise(fault)
        finally:
            self._calls = None
            self._out.set()
        await trio.lowlevel.checkpoint_if_cancelled()
        return result

    async def _leave(self, ended: trio.Event) -> None:
        if self._calls is not None:
            self._out = trio.Event()
            calls = self._calls
            await calls.leave(self._out)
            if calls.left:
                return
        # What else it does is ours, and ends in order.
        with trio.CancelScope(shield=True):
            await ended.wait()
