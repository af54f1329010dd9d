"""What a driver raises outside its contract is attributed; everything else passes."""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import pytest
import trio

from linkspan.core.plugins.guard import CallStats, guarded, guarded_open
from linkspan.sdk.errors import Conflict, DriverFault, LinkspanError, OutOfSpace
from linkspan.sdk.pouring import Pourable


class Sample:
    def __init__(self) -> None:
        self.limit = 3

    @property
    def capabilities(self) -> int:
        return 7

    @property
    def broken(self) -> int:
        raise ValueError("no")

    def plain(self, value: int) -> int:
        return 10 // value

    async def work(self, value: int) -> int:
        await trio.lowlevel.checkpoint()
        return 10 // value

    async def conflict(self) -> None:
        raise Conflict("in use")

    async def wait(self) -> None:
        await trio.sleep_forever()

    async def full(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/data/x")

    async def grouped(self) -> None:
        raise ExceptionGroup("nursery", [Conflict("in use")])

    @asynccontextmanager
    async def stream(self, fail: str = "") -> AsyncIterator[int]:
        if fail == "enter":
            raise KeyError("enter")
        try:
            yield 5
        finally:
            if fail == "exit":
                raise KeyError("exit")

    @asynccontextmanager
    async def nursery(self) -> AsyncIterator[trio.Nursery]:
        async with trio.open_nursery() as nursery:
            yield nursery

    async def items(self) -> AsyncIterator[int]:
        yield 1
        raise KeyError("item")


def make(stats: CallStats | None = None) -> Sample:
    return guarded(Sample(), plugin="nfs", version="1.1.0", role="volume", stats=stats)


async def test_results_arguments_and_attributes_pass() -> None:
    driver = make()
    assert driver.capabilities == 7
    assert driver.plain(2) == await driver.work(value=2) == 5
    async with driver.stream() as value:
        assert value == 5
    driver.limit = 4
    assert driver.limit == 4
    assert isinstance(driver, Sample)


async def test_a_foreign_error_becomes_a_driver_fault_with_its_cause() -> None:
    stats = CallStats()
    driver = make(stats)
    with pytest.raises(DriverFault) as caught:
        await driver.work(0)
    assert caught.value.message == (
        "plugin 'nfs' 1.1.0 failed in volume.work: "
        "ZeroDivisionError: integer division or modulo by zero"
    )
    assert caught.value.details == {"plugin": "nfs", "version": "1.1.0", "operation": "volume.work"}
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(DriverFault, match=r"volume\.plain"):
        driver.plain(0)
    with pytest.raises(DriverFault, match=r"volume\.broken: ValueError: no"):
        _ = driver.broken
    assert (stats.calls, stats.faults) == (2, 3)


async def test_errors_of_the_contract_pass_and_are_no_faults() -> None:
    stats = CallStats()
    driver = make(stats)
    with pytest.raises(Conflict) as caught:
        await driver.conflict()
    assert caught.value.__cause__ is None
    assert stats.faults == 0


async def test_an_error_of_the_contract_in_a_group_of_one_comes_out_bare() -> None:
    with pytest.raises(Conflict, match="in use"):
        await make().grouped()


async def test_a_full_disk_is_out_of_space_and_names_the_path() -> None:
    with pytest.raises(OutOfSpace, match="No space left on device: /data/x"):
        await make().full()


async def test_cancellation_passes(autojump_clock: trio.testing.MockClock) -> None:
    with trio.move_on_after(1) as scope:
        await make().wait()
    assert scope.cancelled_caught


@pytest.mark.parametrize("fail", ["enter", "exit"])
async def test_a_context_manager_of_the_driver_is_guarded(fail: str) -> None:
    with pytest.raises(DriverFault, match=f"failed in volume.stream: KeyError: '{fail}'"):
        async with make().stream(fail):
            pass


async def test_what_the_body_raises_is_not_the_drivers_fault() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with make().stream():
            raise KeyError("mine")
    with pytest.raises(ExceptionGroup) as caught:
        async with make().nursery():
            raise KeyError("mine")
    assert not isinstance(caught.value.exceptions[0], LinkspanError)


async def test_an_async_iterator_of_the_driver_is_guarded() -> None:
    items = make().items()
    assert await anext(items) == 1
    with pytest.raises(DriverFault, match=r"volume\.items: KeyError"):
        await anext(items)


class Spring:
    """Poured twice, then it fails."""

    def __init__(self, failure: Exception) -> None:
        self._failure = failure
        self._left = 2

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        raise AssertionError

    async def pour(self, pipe: int) -> int:
        await trio.lowlevel.checkpoint()
        if not self._left:
            raise self._failure
        self._left -= 1
        return pipe


class Well:
    @asynccontextmanager
    async def spring(self, failure: Exception) -> AsyncIterator[Spring]:
        yield Spring(failure)


@pytest.mark.parametrize(
    ("failure", "seen"),
    [
        (KeyError("dry"), DriverFault),
        (Conflict("frozen"), Conflict),
        # Whoever pours into a pipe has to know that nobody reads it.
        (BrokenPipeError(), BrokenPipeError),
    ],
)
async def test_a_stream_that_can_be_poured_stays_so_and_is_guarded(
    failure: Exception, seen: type[Exception]
) -> None:
    well = guarded(Well(), plugin="nfs", version="1", role="volume")
    async with well.spring(failure) as spring:
        assert isinstance(spring, Pourable)
        assert [await spring.pour(7), await spring.pour(8)] == [7, 8]
        with pytest.raises(seen):
            await spring.pour(9)
    async with make().stream() as plain:
        assert not isinstance(plain, Pourable)
    assert not isinstance(make().items(), Pourable)


def test_an_attribute_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        _ = make().absent  # type: ignore[attr-defined]


@pytest.mark.parametrize("fail", ["enter", "exit"])
async def test_opening_and_closing_a_driver_is_guarded(fail: str) -> None:
    opening = Sample().stream(fail)
    with pytest.raises(DriverFault, match=f"plugin 'nfs' 1 failed in open: KeyError: '{fail}'"):
        async with guarded_open(opening, plugin="nfs", version="1"):
            pass


async def test_an_opened_driver_is_guarded() -> None:
    @asynccontextmanager
    async def open_sample() -> AsyncIterator[Sample]:
        yield Sample()

    async with guarded_open(open_sample(), plugin="nfs", version="1", role="volume") as driver:
        assert isinstance(driver, Sample)
        with pytest.raises(DriverFault, match=r"volume\.work"):
            await driver.work(0)
