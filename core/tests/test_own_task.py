from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from linkspan.core.daemon.own_task import in_own_task


class Opened:
    """A context with a nursery of its own, which notes what happens to it."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.fails = trio.Event()

    @asynccontextmanager
    async def open(self, name: str) -> AsyncIterator[str]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._fail)
            try:
                yield name
            finally:
                self.notes.append(f"{name} left")
                nursery.cancel_scope.cancel()

    async def _fail(self) -> None:
        await self.fails.wait()
        raise RuntimeError("in the background")


async def test_contexts_are_left_in_the_order_of_their_with() -> None:
    made = Opened()
    async with (
        trio.open_nursery() as nursery,
        in_own_task(made.open("first"), nursery, pytest.fail) as first,
        in_own_task(made.open("second"), nursery, pytest.fail) as second,
    ):
        assert (first, second) == ("first", "second")
    assert made.notes == ["second left", "first left"]


async def test_what_breaks_within_is_told_and_ends_nobody_else() -> None:
    made, told = Opened(), list[BaseException]()
    async with trio.open_nursery() as nursery, in_own_task(made.open("it"), nursery, told.append):
        made.fails.set()
        await trio.testing.wait_all_tasks_blocked()
        assert made.notes == ["it left"]
        [group] = told
        assert isinstance(group, ExceptionGroup)
        assert str(group.exceptions[0]) == "in the background"


async def test_what_entering_raises_is_the_callers() -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        raise ValueError("not today")
        yield

    async with trio.open_nursery() as nursery:
        with pytest.raises(ValueError, match="not today"):
            async with in_own_task(broken(), nursery, pytest.fail):
                pass


async def test_an_error_of_the_body_passes_and_the_context_is_left() -> None:
    made = Opened()
    async with trio.open_nursery() as nursery:
        with pytest.raises(KeyError):
            async with in_own_task(made.open("it"), nursery, pytest.fail):
                raise KeyError("body")
        assert made.notes == ["it left"]


async def test_a_cancelled_caller_waits_until_the_context_is_left() -> None:
    made = Opened()
    with trio.CancelScope() as scope:
        async with (
            trio.open_nursery() as nursery,
            in_own_task(made.open("it"), nursery, pytest.fail),
        ):
            scope.cancel()
            await trio.sleep_forever()
    assert made.notes == ["it left"]
