"""A thread of its own for work that belongs to one thread.

Entering a network namespace changes the calling *thread*, and a libnftables context may be used by
one thread only. ``trio.to_thread`` lends cached threads, which would carry a namespace into foreign
work, so such work goes to a ``Worker``. A thread starts in the network namespace of the thread that
starts it: the daemon's.
"""

import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, TypeVarTuple

import trio

from linkspan.sdk.threads import never_abandoned, to_loop
from linkspan.sdk.values import define

T = TypeVar("T")
Args = TypeVarTuple("Args")


class ThreadSpoiled(Exception):
    """The thread is in a state that it cannot leave; it ends and the next job gets a fresh one."""


@define
class _Job:
    work: Callable[[], Any]
    deliver: Callable[[None], None]
    value: Any = None
    error: BaseException | None = None


class Worker:
    """One thread that does its jobs in the order in which they were given."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = self._start()

    async def run(self, work: Callable[[*Args], T], *args: *Args) -> T:
        """Do ``work(*args)`` in the thread and return what it returns.

        Jobs are short (milliseconds) and change the kernel, so they are never abandoned.

        If cancelled: before it starts, nothing is done; afterwards the job is finished first and its
        result returned.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._thread.is_alive():
            self._thread = self._start()
        task = trio.lowlevel.current_task()
        job = _Job(partial(work, *args), to_loop(lambda _: trio.lowlevel.reschedule(task)))
        self._jobs.put(job)
        await trio.lowlevel.wait_task_rescheduled(never_abandoned)
        if job.error is not None:
            try:
                raise job.error
            finally:
                job.error = None  # no cycle between the frame and the error
        value: T = job.value
        return value

    async def close(self) -> None:
        """End the thread when its jobs are done."""
        self._jobs.put(None)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._thread.join)

    def _start(self) -> threading.Thread:
        # A daemon thread: a driver that is never closed must not keep the process alive.
        thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
        thread.start()
        return thread

    def _loop(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job.value = job.work()
            except BaseException as error:  # noqa: BLE001 - handed to the one who waits
                job.error = error
            spoiled = isinstance(job.error, ThreadSpoiled)
            job.deliver(None)
            del job
            if spoiled:
                return
