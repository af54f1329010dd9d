"""Where an exception may be raised into a plugin that blocks, on stacks as they come about."""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import trio

from linkspan.core.plugins.blocking import Holder, Owners, step_of

OWNERS = Owners({"acme": "acme-plugin", "other.hooks": "other-plugin"})


def module(name: str, text: str) -> Any:
    made = ModuleType(name)
    made.__dict__["trio"] = trio
    exec(compile(text, f"/lib/{name}.py", "exec"), made.__dict__)
    return made


ACME = module(
    "acme.steps",
    """
def work(then):
    then()

async def apply(then):
    await trio.lowlevel.checkpoint()
    work(then)

async def wait(then):
    def abort(_):
        then()
        return trio.lowlevel.Abort.SUCCEEDED
    await trio.lowlevel.wait_task_rescheduled(abort)

class Resource:
    def __init__(self, then):
        self.then = then

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.then()
""",
)
HOUSE = module(
    "linkspan.core.engine.made_up",
    """
def call(function, *args):
    function(*args)

async def enter(resource):
    async with resource:
        await trio.lowlevel.checkpoint()
""",
)


class Probe:
    """Library code that a plugin has called: looks at the stack below itself."""

    seen: Holder | None = None

    def __call__(self) -> None:
        self.seen = OWNERS.look(sys._getframe())

    def saw(self, function: str, *, safe: bool) -> None:
        assert self.seen is not None
        assert (self.seen.plugin, self.seen.safe) == ("acme-plugin", safe)
        assert str(self.seen.place) == f"/lib/acme.steps.py:{self.seen.place.line} ({function})"
        assert self.seen.inner.function == "Probe.__call__"


@pytest.fixture
def probe() -> Probe:
    return Probe()


def test_a_plugin_that_the_house_has_called_may_be_broken_off(probe: Probe) -> None:
    HOUSE.call(ACME.work, probe)
    probe.saw("work", safe=True)
    assert probe.seen is not None
    assert probe.seen.place.line == 3


def test_a_plugin_that_has_called_back_into_the_house_may_not(probe: Probe) -> None:
    HOUSE.call(ACME.work, lambda: HOUSE.call(probe))
    probe.saw("work", safe=False)


def test_a_plugin_that_was_called_from_another_is_the_one_that_counts(probe: Probe) -> None:
    other = module("other.hooks", "def hook(then):\n    then()\n")
    HOUSE.call(other.hook, lambda: HOUSE.call(ACME.work, probe))
    probe.saw("work", safe=True)


async def test_a_task_of_a_plugin_may_be_broken_off(probe: Probe, nursery: trio.Nursery) -> None:
    nursery.start_soon(ACME.apply, probe)
    await trio.testing.wait_all_tasks_blocked()
    probe.saw("work", safe=True)


async def test_a_context_of_a_plugin_that_is_being_left_may_be(probe: Probe) -> None:
    await HOUSE.enter(ACME.Resource(probe))
    probe.saw("Resource.__aexit__", safe=True)


async def test_what_trio_calls_when_it_cancels_may_not(probe: Probe, nursery: trio.Nursery) -> None:
    nursery.start_soon(ACME.wait, probe)
    await trio.testing.wait_all_tasks_blocked()
    nursery.cancel_scope.cancel()
    await trio.lowlevel.cancel_shielded_checkpoint()
    probe.saw("wait.<locals>.abort", safe=False)


async def test_what_another_thread_has_the_loop_call_may_not(probe: Probe) -> None:
    trio.lowlevel.current_trio_token().run_sync_soon(ACME.work, probe)
    await trio.testing.wait_all_tasks_blocked()
    probe.saw("work", safe=False)


async def test_without_a_plugin_it_is_the_houses_own_line(probe: Probe) -> None:
    HOUSE.call(probe)
    assert probe.seen is not None
    assert (probe.seen.plugin, probe.seen.safe) == ("", False)
    assert probe.seen.place.function == "call"


@pytest.mark.parametrize(
    ("name", "plugin"),
    [
        ("acme", "acme-plugin"),
        ("acme.deep.inside", "acme-plugin"),
        ("acmeology", None),
        ("other", None),
        ("other.hooks", "other-plugin"),
        ("json", None),
        ("", None),
    ],
)
def test_code_belongs_to_the_plugin_whose_package_it_lies_in(name: str, plugin: str | None) -> None:
    assert OWNERS.plugin_of(name) == plugin


async def test_a_step_is_the_same_until_its_task_gives_way() -> None:
    found = []

    async def look(then: Callable[[], object]) -> None:
        then()
        found.append(step_of(sys._getframe()))

    async def task() -> None:
        async with trio.open_nursery():
            await look(lambda: found.append(step_of(sys._getframe())))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(task)
        nursery.start_soon(task)
    first, again, other, once_more = found
    assert first == again is not None
    assert other == once_more is not None
    assert first != other
