"""Plugins that raise, hang, give nonsense, or vanish: the run says so and ends; the daemon goes on."""

import os

import attrs
import pytest
import trio

from linkspan.sdk.drivers.step import Step
from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.model.step import StepOutcome, StepPlan
from linkspan.workflows.archive import JOURNAL
from linkspan.workflows.creating import InvalidPipeline, NewRun
from linkspan.workflows.manager import RunManager
from linkspan.workflows.planning.asking import StalePlan
from linkspan.workflows.scenarios.clock import ScenarioClock
from linkspan.workflows.verbs import Verbs

SET = "uses: set, with: {name: x, value: '1'}"
AFTER = """
jobs: {a: {steps: [{id: s, %s}]}}
finally: {z: {steps: [{id: last, uses: set, with: {name: z, value: end}}]}}
"""


@attrs.define
class Unruly(Step):
    """Does in each method what a test puts in."""

    world: object
    on_plan: object = None
    on_apply: object = None
    on_observe: object = None
    on_undo: object = None
    calls: list = attrs.field(factory=list)
    applying: trio.Event = attrs.field(factory=trio.Event)

    @classmethod
    def open(cls, config, host):
        raise NotImplementedError

    async def _do(self, name, given, intent):
        self.calls.append(name)
        await trio.lowlevel.checkpoint()
        if given is not None and intent.step != "last":
            return await given()
        return None

    async def plan(self, intent):
        return await self._do("plan", self.on_plan, intent) or StepPlan(undo={"before": None})

    async def apply(self, intent, context):
        self.applying.set()
        found = await self._do("apply", self.on_apply, intent)
        self.world.values[intent.settings["name"]] = intent.settings["value"]
        return found or {}

    async def observe(self, intent):
        return await self._do("observe", self.on_observe, intent) or StepOutcome(applied=False)

    async def undo(self, intent, context):
        return await self._do("undo", self.on_undo, intent) or {}


@pytest.fixture
def unruly(bench):
    bench.host.drivers["step", "set"] = driver = Unruly(bench.world)
    return driver


@pytest.fixture
def clock():
    return ScenarioClock()


@pytest.fixture
async def jumping(clock, nursery):
    """Time passes when nothing else happens."""
    nursery.start_soon(clock.keep_jumping)


def step(run, job="a", number=0):
    return next(each for each in run["jobs"] if each["id"] == job)["steps"][number]


async def raises(error):
    raise error


ERRORS = [
    (LinkspanError("it is full"), "it is full"),
    (KeyError("spec"), "KeyError: 'spec'"),
    (RecursionError("too deep"), "RecursionError: too deep"),
    (SystemExit("bye"), "the plugin wanted to exit: bye"),
    (AssertionError(), "AssertionError: "),
    (LinkspanError("no file 'caf\udce9'"), "no file 'caf?'"),
    (ExceptionGroup("two", [OSError("a"), OSError("b")]), "ExceptionGroup: two (2 sub-exceptions)"),
]


@pytest.mark.parametrize("method", ["on_plan", "on_apply"])
@pytest.mark.parametrize(("error", "message"), ERRORS, ids=lambda value: str(value)[:12])
async def test_whatever_a_plugin_raises_fails_its_step_and_finally_runs(
    bench, unruly, method, error, message
):
    setattr(unruly, method, lambda: raises(error))
    run = await bench.run(AFTER % SET)
    assert (run["state"], step(run)["error"]["message"]) == ("failed", message)
    assert bench.world.values == {"z": "end"}
    # All of it is in the journal, and can be gone on with.
    unruly.on_plan = unruly.on_apply = None
    assert (await bench.resume(run["id"]))["state"] == "success"


@pytest.mark.parametrize(("error", "message"), ERRORS[:4], ids=lambda value: str(value)[:12])
async def test_a_plugin_that_raises_while_it_undoes_or_looks_is_told_and_the_run_goes_on(
    bench, unruly, error, message
):
    unruly.on_apply = lambda: raises(LinkspanError("no"))
    unruly.on_undo = lambda: raises(error)
    run = await bench.run(AFTER % SET)
    assert run["state"] == "failed"
    logs = [path.read_text() for _, _, path in bench.manager.log_files(run["id"], "a", "s")]
    assert f"rollback failed: {message}" in logs[0]


NONSENSE = [
    ({"value": object()}, "no JSON value"),
    ({"value": float("nan")}, "no JSON value"),
    ({"value": {1, 2}}, "no JSON value"),
    ({"nope": 1}, "an output 'nope' that its manifest does not name"),
    ({"value": "x" * (10 << 20)}, "10485762 bytes as the output 'value'; 1048576 are kept"),
]


@pytest.mark.parametrize(("outputs", "message"), NONSENSE, ids=lambda value: str(value)[:20])
async def test_what_cannot_be_recorded_is_no_output_and_the_journal_stays_whole(
    bench, unruly, outputs, message
):
    async def give():
        return outputs

    unruly.on_apply = give
    run = await bench.run(AFTER % SET)
    assert run["state"] == "failed"
    assert message in step(run)["error"]["message"]
    journal = bench.host.state_dir / "runs" / run["id"] / JOURNAL
    assert journal.stat().st_size < 64 * 1024
    unruly.on_apply = None
    assert (await bench.resume(run["id"]))["state"] == "success"


async def test_a_way_back_that_cannot_be_recorded_changes_nothing(bench, unruly):
    async def plan():
        return StepPlan(undo={"handle": object()})

    unruly.on_plan = plan
    run = await bench.run(AFTER % SET)
    assert "as what it needs to undo it" in step(run)["error"]["message"]
    assert unruly.calls.count("apply") == 1  # of `finally`


# hangs


@pytest.fixture
async def stuck_thread():
    """A call that blocks a worker thread and takes no notice of anything, until the test is over."""
    reading, writing = os.pipe()
    yield lambda: trio.to_thread.run_sync(os.read, reading, 1)
    os.close(writing)
    await trio.to_thread.run_sync(os.read, reading, 1)
    os.close(reading)


@pytest.fixture
async def stubborn():
    """A call that takes no notice of being cancelled, until the test is over."""
    release = trio.Event()

    async def call():
        with trio.CancelScope(shield=True):
            await release.wait()

    call.release = release
    yield call
    release.set()


@pytest.mark.parametrize("method", ["on_plan", "on_apply"])
async def test_a_verb_that_never_returns_is_stopped_at_its_timeout_and_the_run_ends(
    bench, unruly, method, clock, jumping
):
    setattr(unruly, method, trio.sleep_forever)
    run = await bench.run(
        AFTER % f"timeout: 5m, retry: {{max: 1, backoff: 1s, on: [timeout]}}, {SET}"
    )
    assert step(run)["error"]["message"] == "it took longer than its timeout of 300s"
    assert (step(run)["result"], step(run)["tries"]) == (
        "timed-out",
        2 if method == "on_apply" else 0,
    )
    assert bench.world.values["z"] == "end"


@pytest.mark.parametrize("method", ["on_plan", "on_apply"])
async def test_a_verb_that_ignores_its_timeout_is_left_behind_and_not_tried_or_undone(
    bench, unruly, method, stuck_thread
):
    setattr(unruly, method, stuck_thread)
    text = f"timeout: 50ms, grace: 100ms, retry: {{max: 3, on: [any]}}, {SET}"
    run = await bench.run(AFTER % text)
    message = step(run)["error"]["message"]
    assert message == "it took longer than its timeout of 0.05s, and its plugin does not stop"
    assert (run["state"], step(run)["result"]) == ("failed", "timed-out")
    assert "undo" not in unruly.calls
    assert bench.world.values == {"z": "end"}


@pytest.mark.parametrize("kill", [False, True], ids=["once", "twice"])
async def test_a_verb_that_ignores_a_cancel_is_left_behind_after_its_grace_or_at_once(
    bench, unruly, kill, stubborn, clock, jumping
):
    unruly.on_apply = stubborn
    run_id = await bench.start(AFTER % f"grace: 10m, {SET}")
    await unruly.applying.wait()
    began = trio.current_time()
    await bench.manager.cancel(run_id, kill=False)
    if kill:
        await bench.manager.cancel(run_id, kill=True)
    assert await bench.manager.wait(run_id) == "cancelled"
    took = trio.current_time() - began
    assert took < 5 if kill else 600 <= took < 605
    logs = [path.read_text() for _, _, path in bench.manager.log_files(run_id, "a", "s")]
    assert "it was left behind, and may still be at work" in logs[0]


async def test_what_was_left_behind_says_and_changes_nothing_in_the_record(
    bench, stubborn, clock, jumping
):
    said = trio.Event()

    class Talker(Unruly):
        async def apply(self, intent, context):
            if intent.step == "last":
                return await super().apply(intent, context)
            await stubborn()
            context.log("here I am again")
            said.set()
            return {"value": "late"}

    bench.host.drivers["step", "set"] = Talker(bench.world)
    run = await bench.run(AFTER % f"timeout: 1s, grace: 1s, {SET}")
    path = bench.host.state_dir / "runs" / run["id"]
    before = (path / JOURNAL).read_bytes()
    stubborn.release.set()
    await said.wait()
    await trio.testing.wait_all_tasks_blocked()
    assert (path / JOURNAL).read_bytes() == before
    logs = [path.read_text() for _, _, path in bench.manager.log_files(run["id"], "a", "s")]
    assert "here I am again" not in logs[0]


async def gives_up():
    raise LinkspanError("I give up")


async def exits():
    raise SystemExit(3)


async def returns():
    return {"value": "done all the same"}


@pytest.mark.parametrize("answer", [gives_up, exits, returns])
async def test_a_verb_was_cancelled_whatever_it_makes_of_it(bench, unruly, answer):
    async def apply():
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            return await answer()

    unruly.on_apply = apply
    run_id = await bench.start(AFTER % f"on-failure: rollback, {SET}")
    await unruly.applying.wait()
    await bench.manager.cancel(run_id, kill=False)
    with trio.fail_after(30):
        assert await bench.manager.wait(run_id) == "cancelled"
    run = bench.manager.inspect(run_id)
    assert (step(run)["result"], step(run)["error"]["message"]) == (
        "cancelled",
        "the run was cancelled",
    )
    assert "undo" not in unruly.calls
    assert bench.world.values["z"] == "end"


@pytest.mark.parametrize("late", [gives_up, exits, returns])
async def test_what_a_cancelled_run_left_behind_changes_nothing_in_its_record(
    bench, unruly, late, stubborn, clock, jumping
):
    came_back = trio.Event()

    async def apply():
        await stubborn()
        came_back.set()
        return await late()

    unruly.on_apply = apply
    two = f"{SET}}}, {{id: next, {SET.replace('x', 'y')}"
    run_id = await bench.start(AFTER % f"grace: 1s, {two}")
    await unruly.applying.wait()
    await bench.manager.cancel(run_id, kill=False)
    assert await bench.manager.wait(run_id) == "cancelled"
    path = bench.host.state_dir / "runs" / run_id / JOURNAL
    before = path.read_bytes()
    stubborn.release.set()
    await came_back.wait()
    await trio.testing.wait_all_tasks_blocked()
    assert path.read_bytes() == before
    assert "y" not in bench.world.values


async def test_a_verb_that_ignores_its_jobs_time_limit_is_left_behind_and_the_run_goes_on(
    bench, unruly, stuck_thread
):
    unruly.on_apply = stuck_thread
    run = await bench.run(
        f"""
jobs:
  a: {{timeout: 50ms, steps: [{{id: s, {SET}}}, {{id: next, {SET}}}]}}
finally: {{z: {{steps: [{{id: last, uses: set, with: {{name: z, value: end}}}}]}}}}
"""
    )
    assert (run["state"], step(run)["result"]) == ("failed", "timed-out")
    assert step(run, number=1)["state"] == "waiting"
    assert bench.world.values == {"z": "end"}


async def test_a_plugin_that_does_not_say_what_became_of_a_step_is_not_waited_for(
    make_bench, stubborn, clock, jumping
):
    async with trio.open_nursery() as first:
        bench = await make_bench(first)
        bench.host.drivers["step", "set"] = driver = Unruly(
            bench.world, on_apply=trio.sleep_forever
        )
        run_id = await bench.start(AFTER % SET)
        await driver.applying.wait()
        first.cancel_scope.cancel()
    for hangs in (trio.sleep_forever, lambda: raises(ZeroDivisionError("oh")), stubborn):
        async with trio.open_nursery() as nursery:
            bench = await make_bench(nursery)
            driver = Unruly(bench.world, on_observe=hangs, on_apply=trio.sleep_forever)
            bench.host.drivers["step", "set"] = driver
            await bench.manager.resume(run_id)
            await driver.applying.wait()
            await trio.sleep(1)
            logs = [path.read_text() for _, _, path in bench.manager.log_files(run_id, "a", "s")]
            assert "cannot be observed" in logs[0].splitlines()[-1]
            if hangs is stubborn:
                stubborn.release.set()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("ignores", [False, True], ids=["waits", "ignores"])
async def test_a_plan_of_a_plugin_that_hangs_says_so(
    bench, unruly, ignores, stubborn, clock, jumping
):
    unruly.on_plan = stubborn if ignores else trio.sleep_forever
    planned = await bench.manager.plan(new_run(bench, AFTER % SET))
    assert [each["headline"] for each in planned["problems"]] == [
        "`set` did not say within 30s what it would change"
    ]


async def test_an_approval_is_asked_also_when_a_later_verb_does_not_say_what_it_would_do(
    bench, unruly, stubborn, clock, jumping
):
    unruly.on_plan = stubborn
    run_id = await bench.start(
        f"jobs: {{a: {{steps: [{{id: ask, uses: ask, with: {{message: go?}}}}, {{id: s, {SET}}}]}}}}"
    )
    assert await bench.manager.wait(run_id) == "suspended"


# vanishes


def new_run(bench, text, **more):
    whole = f"linkspan: v1\ndefaults: {{image: img}}\n{text}"
    return NewRun(file="p.yaml", text=whole, workspace=bench.sources, **more)


async def test_a_plugin_that_vanishes_between_plan_and_run_is_missed_before_anything_begins(bench):
    new = new_run(bench, AFTER % SET)
    planned = await bench.manager.plan(new)
    assert planned["problems"] == []
    followed = attrs.evolve(new, plan=planned)
    # Its code is gone, its manifest is still there: the daemon could not open it.
    driver = bench.host.drivers.pop(("step", "set"))
    with pytest.raises(StalePlan, match="no driver 'set' for role 'step'"):
        await bench.manager.create(followed)
    bench.host.drivers["step", "set"] = driver
    # It was uninstalled, and the daemon started again.
    bench.manager = RunManager(bench.host, Verbs([]), bench.host.nursery)
    with pytest.raises(InvalidPipeline, match="LS1401"):
        await bench.manager.create(followed)
    assert bench.manager.list_runs() == []


async def test_a_plugin_that_vanishes_during_a_run_fails_the_step_that_needs_it(bench):
    bench.world.changed = lambda intent: bench.host.drivers.pop(("step", "set"), None)
    run = await bench.run(f"jobs: {{a: {{steps: [{{id: s, {SET}}}, {{id: t, {SET}}}]}}}}")
    assert (step(run)["result"], step(run, number=1)["result"]) == ("success", "failed")
    assert step(run, number=1)["error"]["message"] == "no driver 'set' for role 'step'"


async def test_a_plugin_that_vanishes_while_a_person_decides_is_told_and_can_come_back(
    make_bench, nursery
):
    from linkspan.workflows.approvals import Voter

    text = f"jobs: {{a: {{steps: [{{id: ask, uses: ask, with: {{message: go?}}}}, {{id: s, {SET}}}]}}}}"
    bench = await make_bench(nursery)
    run_id = await bench.start(text)
    assert await bench.manager.wait(run_id) == "suspended"
    verbs, bench.manager._runs.verbs = bench.manager._runs.verbs, Verbs([])
    with pytest.raises(InvalidPipeline, match="LS1401"):
        await bench.manager.answers.decide(run_id, "approve", Voter(name="ana"))
    assert bench.manager.inspect(run_id)["state"] == "suspended"
    bench.manager._runs.verbs = verbs
    await bench.manager.answers.decide(run_id, "approve", Voter(name="ana"))
    assert await bench.manager.wait(run_id) == "success"
