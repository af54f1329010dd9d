"""Hooks in the running daemon: ordered or side by side, awaited, timed, attributed."""

import sys
from typing import Any

import pytest
import trio
import trio.testing

from linkspan.core.plugins.hooks import HookRunner
from linkspan.sdk.errors import DriverFault, InvalidArgument, PermissionDenied
from linkspan.sdk.hooks import hookimpl
from linkspan.sdk.model.volume import VolumeSpec

BEFORE = "linkspan_before_image_pull"
REMOVED = "linkspan_image_removed"


class AddA:
    @hookimpl
    async def linkspan_before_image_pull(self, spec: str) -> str:
        await trio.lowlevel.checkpoint()
        return spec + "A"


class AddBFirst:
    @hookimpl(tryfirst=True)
    def linkspan_before_image_pull(self, spec: str) -> str:
        return spec + "B"


class NoChange:
    @hookimpl
    async def linkspan_before_image_pull(self) -> None:
        return None


def runner(*plugins: object, **settings: Any) -> HookRunner:
    made = HookRunner(**settings)
    for number, plugin in enumerate(plugins):
        made.register(plugin, f"p{number}")
    return made


async def test_interceptors_run_in_order_and_each_sees_the_last_result() -> None:
    assert await runner(AddA(), NoChange(), AddBFirst()).intercept(BEFORE, "x") == "xBA"


async def test_without_interceptors_the_value_passes() -> None:
    spec = VolumeSpec(name="v", driver="local")
    assert await runner().intercept("linkspan_before_volume_create", spec) is spec


async def test_an_interceptor_may_refuse() -> None:
    class Policy:
        @hookimpl
        async def linkspan_before_image_pull(self, spec: str) -> None:
            raise PermissionDenied(f"{spec} is not from our registry")

    with pytest.raises(PermissionDenied) as caught:
        await runner(Policy()).intercept(BEFORE, "x")
    assert caught.value.__notes__ == ["refused by plugin 'p0' in linkspan_before_image_pull"]


@pytest.mark.parametrize("answer", [5, ["x"]])
async def test_an_interceptor_that_returns_another_type_is_named(answer: object) -> None:
    class Wrong:
        @hookimpl
        async def linkspan_before_image_pull(self) -> object:
            return answer

    with pytest.raises(
        DriverFault, match=f"plugin 'p0' returned {type(answer).__name__} instead of str"
    ):
        await runner(Wrong()).intercept(BEFORE, "x")


async def test_an_interceptor_that_fails_stops_the_operation_and_is_named() -> None:
    class Broken:
        @hookimpl
        async def linkspan_before_image_pull(self) -> None:
            raise KeyError("x")

    made = runner(Broken())
    with pytest.raises(
        DriverFault, match="plugin 'p0' failed in linkspan_before_image_pull"
    ) as caught:
        await made.intercept(BEFORE, "x")
    assert isinstance(caught.value.__cause__, KeyError)
    assert made.stats["p0"].failures == 1


async def test_a_hook_that_wants_to_exit_has_failed_as_any_other() -> None:
    class Exits:
        @hookimpl
        async def linkspan_before_image_pull(self) -> None:
            sys.exit("bye")

        @hookimpl
        async def linkspan_image_removed(self) -> None:
            sys.exit("bye")

    made = runner(Exits())
    with pytest.raises(DriverFault, match="SystemExit: bye"):
        await made.intercept(BEFORE, "x")
    await made.notify(REMOVED, image_id="i")
    assert made.stats["p0"].failures == 2


async def test_an_interceptor_that_hangs_is_stopped(autojump_clock: trio.testing.MockClock) -> None:
    class Hang:
        @hookimpl
        async def linkspan_before_image_pull(self) -> None:
            await trio.sleep_forever()

    with pytest.raises(DriverFault, match="it took too long"):
        await runner(Hang(), timeout_s=2).intercept(BEFORE, "x")
    assert trio.current_time() == pytest.approx(2, abs=0.1)


class Recorder:
    def __init__(self) -> None:
        self.seen: list[str] = []

    @hookimpl
    async def linkspan_image_removed(self, image_id: str) -> None:
        await trio.sleep(0.01)
        self.seen.append(image_id)


class Raises:
    @hookimpl
    def linkspan_image_removed(self) -> None:
        raise ValueError("boom")


class Hangs:
    @hookimpl
    async def linkspan_image_removed(self) -> None:
        await trio.sleep_forever()


async def test_a_listeners_crash_or_delay_harms_nobody_else(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder()
    made = runner(Raises(), recorder, Hangs())
    await made.notify(REMOVED, image_id="i")
    assert recorder.seen == ["i"]
    assert sorted((f.plugin, f.reason) for f in made.failures) == [
        ("p0", "ValueError: boom"),
        ("p2", "it took too long"),
    ]
    assert {r.plugin for r in caplog.records} == {"p0", "p2"}  # type: ignore[attr-defined]


async def test_listeners_are_told_side_by_side(autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()
    await runner(*(Recorder() for _ in range(10))).notify(REMOVED, image_id="i")
    assert trio.current_time() - began < 0.02


async def test_a_listener_that_fails_too_often_in_a_row_is_muted() -> None:
    class Counts:
        calls = 0

        @hookimpl
        def linkspan_image_removed(self, image_id: str) -> None:
            self.calls += 1
            if image_id == "bad":
                raise ValueError

    listener = Counts()
    made = runner(listener, max_failures=3)
    for image_id in ("bad", "bad", "good", "bad", "bad", "bad", "bad", "good"):
        await made.notify(REMOVED, image_id=image_id)
    assert listener.calls == 6
    assert made.stats["p0"].muted
    assert made.stats["p0"].last_failure == "linkspan_image_removed: ValueError"


async def test_cancellation_passes_and_is_no_failure(
    autojump_clock: trio.testing.MockClock,
) -> None:
    made = runner(Hangs(), timeout_s=100)
    with trio.move_on_after(1) as scope:
        await made.notify(REMOVED, image_id="i")
    assert scope.cancelled_caught
    assert made.failures == []


async def test_the_first_answer_ends_the_asking() -> None:
    class Declines:
        @hookimpl(tryfirst=True)
        async def linkspan_before_image_pull(self) -> None:
            return None

    class Never:
        @hookimpl(trylast=True)
        async def linkspan_before_image_pull(self) -> str:
            raise AssertionError

    assert await runner(Declines(), AddA(), Never()).first(BEFORE, spec="x") == "xA"
    assert await runner(Declines()).first(BEFORE, spec="x") is None


def test_registration_goes_on_after_a_broken_plugin() -> None:
    class Info:
        @hookimpl
        def linkspan_info(self) -> dict[str, str]:
            return {"a": "b"}

    class Broken:
        @hookimpl(tryfirst=True)
        def linkspan_info(self) -> None:
            raise ValueError("boom")

    made = runner(Info(), Broken())
    assert made.call("linkspan_info") == [("p0", {"a": "b"})]
    assert [f.plugin for f in made.failures] == ["p1"]


def test_a_name_can_be_taken_once() -> None:
    made = runner(AddA())
    with pytest.raises(InvalidArgument, match="p0"):
        made.register(AddA(), "p0")


async def test_a_plugin_that_was_refused_is_not_called() -> None:
    class Typo:
        @hookimpl
        def linkspan_before_image_pull(self, spec: str) -> str:
            return spec + "!"

        @hookimpl
        def linkspan_before_image_pul(self) -> None: ...

    made = HookRunner()
    with pytest.raises(InvalidArgument, match="did you mean 'linkspan_before_image_pull'"):
        made.register(Typo(), "typo")
    assert await made.intercept(BEFORE, "x") == "x"
    made.register(AddA(), "other")
    assert await made.intercept(BEFORE, "x") == "xA"
