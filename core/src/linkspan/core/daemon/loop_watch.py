"""Breaks off a plugin's code that keeps the event loop from turning, and says whose it is.

A thread looks at the loop while it works, a few times within the limit, and sleeps without a timer while
the loop does. If the loop has not turned, and the same step of the same task was under way at each look,
the thread says who holds it and sends the main thread a signal. That ends a blocking system call, and its
handler, which sees the stack with nothing else running, raises an exception there if a plugin's code is
the innermost (``blocking.Owners.look``). The plugin's call fails with it as with any error of its own.

C code that keeps the interpreter's lock keeps this thread from looking, too. For that there is an alarm,
put off at each look: the kernel rings it, faulthandler writes down the stack, and the handler is called if
that code asks for signals, as ``re`` does.
"""

import contextlib
import faulthandler
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Final

import trio

from linkspan.core.plugins.blocking import (
    Holder,
    LoopBlocked,
    LoopStillBlocked,
    Owners,
    step_of,
)
from linkspan.sdk.values import define

log: Final = logging.getLogger(__name__)

LOOKS: Final = 4
"""Within the limit. A machine that stood still gives one late look, not four."""
_GIVES_IN: Final = 2
"""Exceptions that code may swallow before it gets one that ``except Exception`` lets pass."""
# Nobody else sends it to itself; a plugin may want SIGUSR1 or a real-time signal.
_BREAK: Final = signal.SIGVTALRM

Step = tuple[int, tuple[int, CodeType] | None]
"""A turn of the loop and the step of a task in it."""


class _Pulse(trio.abc.Instrument):
    """Counts the turns of the loop."""

    def __init__(self) -> None:
        self.turn = 0
        self.at_work = True
        self.nobody_looks = False
        self.begun = threading.Event()

    def before_io_wait(self, timeout: float) -> None:
        self.at_work = False

    def after_io_wait(self, timeout: float) -> None:
        self.turn += 1
        self.at_work = True
        if self.nobody_looks:
            self.begun.set()


@define
class _Held:
    """What the thread has seen of one step."""

    step: Step
    looks: int = 0
    told: bool = False


class LoopWatch:
    """Looks after the event loop of the main thread.

    Attributes:
        limit_s: For one step of one task.
    """

    def __init__(self, owners: Owners, limit_s: float) -> None:
        self.limit_s = limit_s
        self._owners = owners
        self._pulse = _Pulse()
        self._main = threading.main_thread().ident
        self._over = False
        self._aim: Step | None = None
        self._heard = True
        self._broken: Step | None = None
        self._tries = 0

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the loop that runs now; to be entered in a task of the main thread's loop."""
        trio.lowlevel.add_instrument(self._pulse)
        old = [(number, signal.getsignal(number)) for number in (_BREAK, signal.SIGALRM)]
        signal.signal(_BREAK, self._break)
        signal.signal(signal.SIGALRM, self._rung)
        if sys.stderr is not None:
            faulthandler.register(signal.SIGALRM, all_threads=False, chain=True)
        thread = threading.Thread(target=self._watch, name="loop watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over = True
            self._pulse.begun.set()
            thread.join()
            faulthandler.unregister(signal.SIGALRM)
            for number, handler in old:
                signal.signal(number, handler)
            trio.lowlevel.remove_instrument(self._pulse)

    def limit(self, limit_s: float) -> None:
        """Another limit from now on."""
        self.limit_s = limit_s
        self._pulse.begun.set()

    # -- the thread

    def _watch(self) -> None:
        pulse = self._pulse
        held = _Held((-1, None))
        while not self._over:
            signal.setitimer(signal.ITIMER_REAL, self.limit_s)
            turn = pulse.turn
            if pulse.begun.wait(self.limit_s / LOOKS):
                pulse.begun.clear()  # the limit is another, or it is over
                continue
            if pulse.turn == turn and not pulse.at_work:
                self._rest()
            held = self._look(held)
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _rest(self) -> None:
        """Sleep until the loop works."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        pulse = self._pulse
        pulse.nobody_looks = True
        # It may have begun before it could know that nobody looks.
        if not pulse.at_work and not self._over:
            pulse.begun.wait()
        pulse.nobody_looks = False
        if not self._over:
            pulse.begun.clear()

    def _look(self, held: _Held) -> _Held:
        frame = sys._current_frames().get(self._main or 0)
        step = self._step(frame)
        if step != held.step or not self._pulse.at_work or frame is None:
            if held.told:
                log.info("the event loop turns again")
            return _Held(step)
        held.looks += 1
        if held.looks >= LOOKS and not self._over:
            self._hold_to_account(held, self._owners.look(frame))
        return held

    def _hold_to_account(self, held: _Held, holder: Holder | None) -> None:
        if holder is None:
            return
        # Told anew at longer and longer intervals; tried at each look.
        if held.looks & (held.looks - 1) == 0:
            self._tell(held, holder)
        # Without our handler the signal would end the daemon: a plugin may have taken it away.
        if holder.plugin and self._main and signal.getsignal(_BREAK) == self._break:
            self._aim, self._heard = held.step, False
            signal.pthread_kill(self._main, _BREAK)

    def _tell(self, held: _Held, holder: Holder) -> None:
        if not holder.plugin:
            message = "the daemon's own code blocks the event loop"
        elif not held.told:
            message = "a plugin blocks the event loop: it is broken off"
        elif self._heard:
            message = "a plugin goes on blocking the event loop"
        else:
            message = "a plugin blocks the event loop in code that cannot be interrupted"
        held.told = True
        log.error(
            message,
            extra={
                "plugin": holder.plugin or None,
                "at": str(holder.place),
                "inside": str(holder.inner),
                "for_s": round(self.limit_s * held.looks / LOOKS, 1),
            },
        )

    # -- handlers, in the main thread

    def _break(self, number: int, frame: FrameType | None) -> None:
        self._heard = True
        if frame is not None and self._aim == self._step(frame):
            self._raise(frame, self._aim)

    def _rung(self, number: int, frame: FrameType | None) -> None:
        """The thread did not look for the whole limit: it may be kept from it."""
        if frame is None or not self._pulse.at_work:
            return
        step = self._step(frame)
        if step != self._aim:
            # Once more: if the whole machine stood still, it rings in the first moment after.
            self._aim = step
            signal.setitimer(signal.ITIMER_REAL, self.limit_s / LOOKS)
            return
        self._raise(frame, step)

    def _step(self, frame: FrameType | None) -> Step:
        return self._pulse.turn, step_of(frame)

    def _raise(self, frame: FrameType, step: Step) -> None:
        holder = self._owners.look(frame)
        if holder is None or not holder.plugin or not holder.safe:
            return
        self._tries = self._tries + 1 if step == self._broken else 1
        self._broken = step
        kind = LoopBlocked if self._tries <= _GIVES_IN else LoopStillBlocked
        raise kind(
            f"it blocked the whole daemon for {self.limit_s:g} s at {holder.place}; "
            "what blocks belongs into trio.to_thread.run_sync"
        )
