"""Calls of a step's plugin that nobody has to wait for longer than they want to.

A plugin may hang, in a thread or behind a shield, and take no notice of being cancelled. Its call is
made in a task of its own: when it does not end within its grace it is left behind, and the run goes on.
"""

from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

import attrs
import trio

from linkspan.sdk.errors import DriverFault
from linkspan.workflows.containers import OnStop

T = TypeVar("T")

PLAN_LIMIT_S: Final = 30.0
"""For a plugin that is asked what it would do."""
_AT_LEAST_S: Final = 1.0
"""Between being told to stop and being left behind; enough to leave a `finally`."""


@attrs.define
class _Work(Generic[T]):
    """One call, as the task that makes it and the one that waits for it see it."""

    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    ended: trio.Event = attrs.field(factory=trio.Event)
    result: list[T] = attrs.field(factory=list)
    fault: BaseException | None = None

    async def run(self, call: Callable[[], Awaitable[T]]) -> None:
        try:
            with self.scope:
                self.result.append(await call())
        except (Exception, SystemExit) as error:  # noqa: BLE001 - raised to who waits
            self.fault = error
        finally:
            self.ended.set()


@attrs.define(kw_only=True)
class PluginCalls:
    """Makes calls of plugins, for one step or one plan.

    Attributes:
        nursery: Carries them; nothing in it may raise.
        say: Told of a call that was left behind.
        grace_s: Between being told to stop and being left behind.
        on_stop: Gets the scope of the grace when it begins; cancelling it ends the grace.
        left: One was: nobody knows what it still does.
    """

    nursery: trio.Nursery
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
        work: _Work[T] = _Work()
        self.nursery.start_soon(work.run, call, name="call of a plugin")
        try:
            await work.ended.wait()
        except BaseException:
            await self._stop(work)
            raise
        if isinstance(work.fault, SystemExit):
            raise DriverFault(f"the plugin wanted to exit: {work.fault}") from work.fault
        if work.fault is not None:
            raise work.fault
        if not work.result:
            # The nursery that carried it is being cancelled, and so are we.
            await trio.sleep_forever()
        return work.result[0]

    async def _stop(self, work: _Work[T]) -> None:
        work.scope.cancel()
        with trio.CancelScope(shield=True), trio.move_on_after(_AT_LEAST_S):
            await work.ended.wait()
        if not work.ended.is_set() and self.grace_s > _AT_LEAST_S:
            with trio.CancelScope(shield=True) as scope:
                scope.deadline = trio.current_time() + self.grace_s - _AT_LEAST_S
                self.on_stop(scope)
                await work.ended.wait()
        if not work.ended.is_set():
            self.left = True
            self.say("its plugin does not stop; it was left behind, and may still be at work")
