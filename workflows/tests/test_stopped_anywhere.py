"""Ctrl-C once and twice at every stage of a run: it ends in order or at once, and can be gone on with."""

import contextlib

import attrs
import pytest
import trio

from linkspan.sdk.errors import Conflict
from linkspan.sdk.model.container import HealthStatus
from linkspan.workflows.creating import NewRun

SERVICE = "services: {db: {image: img, healthcheck: {test: [CMD, x]}}}, "
SET = "uses: set, with: {name: x, value: '1'}"
SLOW = "uses: set, with: {name: x, value: '1', takes: 1h}"
END = "{id: last, uses: set, with: {name: z, value: end}}"


@attrs.frozen
class Stage:
    """A moment of a run.

    Attributes:
        job: The job's keys.
        begun: The step of a verb that is under way then.
        cleanup: The steps of ``finally``.
    """

    job: str
    begun: str = ""
    cleanup: str = END


STAGES = {
    "pull": Stage("image: pulled, steps: [{id: s, run: 'true'}]"),
    "health": Stage(SERVICE + "steps: [{id: s, run: 'true'}]"),
    "script": Stage("steps: [{id: s, run: 'while :; do sleep 0.05; done'}]"),
    "verb": Stage(f"steps: [{{id: s, {SLOW}}}]", "s"),
    "parallel": Stage(f"steps: [{{id: p, parallel: [{{id: q, {SET}}}, {{id: s, {SLOW}}}]}}]", "s"),
    "background": Stage(f"steps: [{{id: s, background: true, {SLOW}}}, {{wait: [s]}}]", "s"),
    "retry": Stage(f"steps: [{{id: s, retry: {{max: 9, backoff: 1h, on: [any]}}, {SET}}}]"),
    "finally": Stage(f"steps: [{{id: s, {SET}}}]", "slow", f"{{id: slow, {SLOW}}}, {END}"),
    "approval": Stage("steps: [{id: s, uses: ask, with: {message: go?}}]"),
}


class Held:
    """A bench whose runs stay at a stage until ``let_go``."""

    def __init__(self, bench, name):
        self.bench, self.name, self.stage = bench, name, STAGES[name]
        self.reached = trio.Event()
        if name == "pull":
            bench.engine.images.pull = self._hang
        elif name == "health":
            bench.engine.health = HealthStatus.STARTING
        elif name == "retry":
            bench.world.failures["s"] = [OSError("no")]

    async def _hang(self, *_, **__):
        self.reached.set()
        await trio.sleep_forever()

    def _there(self, run_id):
        """Whether the stage is reached."""
        run = self.bench.manager.inspect(run_id)
        step = run["jobs"][0]["steps"][-1 if self.name == "parallel" else 0]
        containers = self.bench.engine.containers.all.values()
        return {
            "pull": self.reached.is_set(),
            "health": bool(containers),
            "script": any(entry.started.is_set() for entry in containers),
            "retry": step["tries"] == 1 and step["state"] != "running",
            "approval": run["state"] == "suspended",
        }.get(self.name, self.stage.begun in self.bench.world.applied)

    async def start(self):
        text = f"jobs: {{a: {{{self.stage.job}}}}}\nfinally: {{z: {{steps: [{self.stage.cleanup}]}}}}\n"
        run_id = await self.bench.start(text)
        with trio.fail_after(30):
            while not self._there(run_id):  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.005)
        return run_id

    def let_go(self):
        if self.name == "pull":
            del self.bench.engine.images.pull
        self.bench.engine.health = HealthStatus.HEALTHY


def is_clean(bench):
    assert bench.engine.containers.all == {}
    assert bench.engine.networks.all == {}


@pytest.mark.parametrize("name", STAGES)
async def test_stopped_once_it_ends_in_order_and_cleans_up(bench, name):
    held = Held(bench, name)
    run_id = await held.start()
    await bench.manager.cancel(run_id, kill=False)
    if name == "finally":
        # What cleans up is let end; asked again, it is stopped.
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert bench.manager.inspect(run_id)["state"] in ("running", "cancelling")
        return
    with trio.fail_after(30):
        assert await bench.manager.wait(run_id) == "cancelled"
    assert bench.world.values["z"] == "end"
    is_clean(bench)
    states = {step["state"] for step in bench.manager.inspect(run_id)["jobs"][0]["steps"]}
    assert "running" not in states


@pytest.mark.parametrize("name", STAGES)
async def test_stopped_twice_it_ends_at_once_and_leaves_nothing(bench, name):
    held = Held(bench, name)
    run_id = await held.start()
    await bench.manager.cancel(run_id, kill=False)
    # It may have been quicker.
    with contextlib.suppress(Conflict):
        await bench.manager.cancel(run_id, kill=True)
    with trio.fail_after(30):
        assert await bench.manager.wait(run_id) == "cancelled"
    is_clean(bench)


@pytest.mark.parametrize("kill", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize("name", ["pull", "health", "retry", "approval"])
async def test_what_was_stopped_can_be_gone_on_with(bench, name, kill):
    held = Held(bench, name)
    run_id = await held.start()
    await bench.manager.cancel(run_id, kill=kill)
    await bench.manager.wait(run_id)
    held.let_go()
    run = await bench.resume(run_id)
    if name == "approval":
        assert run["state"] == "suspended"
    else:
        assert run["state"] == "success"
        assert bench.world.values["z"] == "end"
    is_clean(bench)


@pytest.mark.parametrize("steps", range(1, 60, 4))
async def test_a_client_that_leaves_while_its_run_is_made_leaves_a_run_or_nothing(bench, steps):
    text = f"linkspan: v1\njobs: {{a: {{steps: [{{id: s, {SET}}}]}}}}\n"
    new = NewRun(file="p.yaml", text=text, workspace=bench.sources)

    class After(trio.abc.Instrument):
        left = steps

        def before_task_step(self, task):
            self.left -= 1
            if self.left == 0:
                scope.cancel()

    instrument = After()
    with trio.CancelScope() as scope:
        trio.lowlevel.add_instrument(instrument)
        try:
            await bench.manager.create(new)
        finally:
            trio.lowlevel.remove_instrument(instrument)
    runs = bench.manager.list_runs()
    for run in runs:
        assert await bench.manager.wait(run["id"]) == "success"
    folder = bench.host.state_dir / "runs"
    assert sorted(path.name for path in folder.iterdir()) == [run["id"] for run in runs]
