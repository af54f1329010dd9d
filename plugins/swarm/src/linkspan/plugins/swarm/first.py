"""Waiting for whatever happens first."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from linkspan.sdk.errors import LinkspanError

T = TypeVar("T")


async def first_of(*waits: Callable[[], Awaitable[T]]) -> T:
    """Run all, return the first result, cancel the others.

    Raises:
        LinkspanError: What the first one raised, not in a group.
    """
    results: list[T] = []
    errors: list[LinkspanError] = []

    async def run(wait: Callable[[], Awaitable[T]], scope: trio.CancelScope) -> None:
        try:
            result = await wait()
        except LinkspanError as error:
            errors.append(error)
        else:
            results.append(result)
        scope.cancel()

    async with trio.open_nursery() as nursery:
        for wait in waits:
            nursery.start_soon(run, wait, nursery.cancel_scope)
    if results:
        return results[0]
    raise errors[0]
