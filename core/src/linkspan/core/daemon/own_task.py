"""Contexts that live in tasks of their own, so that what breaks in one ends nothing else."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

import trio

T = TypeVar("T")


@asynccontextmanager
async def in_own_task(
    context: AbstractAsyncContextManager[T],
    nursery: trio.Nursery,
    broke: Callable[[BaseException], None],
) -> AsyncIterator[T]:
    """Enter a context in a task of its own, and leave it there.

    A context may hold a nursery. If one of its tasks fails, trio cancels what is inside of that context: were it
    the caller's own task, the caller would end with it.

    Args:
        context: What entering it raises is raised here.
        nursery: Of the task.
        broke: Told what the context raises after it was entered. Cancellation and an interrupt by the user
            are not told, but go to the nursery.
    """
    leave, left = trio.Event(), trio.Event()

    async def live(*, task_status: trio.TaskStatus[T]) -> None:
        entered = False
        try:
            async with context as value:
                entered = True
                task_status.started(value)
                await leave.wait()
        except BaseException as error:
            if not entered or not _is_fault(error):
                raise
            broke(error)
        finally:
            left.set()

    value = await nursery.start(live)
    try:
        yield value
    finally:
        leave.set()
        # It leaves under the same cancellation as the caller: no longer than it allows itself.
        with trio.CancelScope(shield=True):
            await left.wait()


def _is_fault(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.split((Exception, SystemExit))[1] is None
    return isinstance(error, Exception | SystemExit)
