"""A run that was cut off anywhere goes on to the same end, and does nothing twice that was done."""

import json
import random

import attrs
import pytest
import trio

from linkspan.sdk.errors import Conflict, InvalidArgument, LinkspanError
from linkspan.workflows.config import WorkflowsConfig
from linkspan.workflows.creating import Rerun
from linkspan.workflows.journal import Journal

PIPELINE = """
jobs:
  build:
    outputs: {id: "${{ steps.make.outputs.id }}"}
    steps:
      - {id: make, run: 'echo made >> "$COUNT"; echo id=42 > "$LINKSPAN_OUTPUT"', env: {COUNT: "%s"}}
      - {id: tag, uses: set, with: {name: tag, value: "v${{ steps.make.outputs.id }}"}}
  side:
    steps: [{id: s, uses: set, with: {name: side, value: done}}]
  deploy:
    needs: [build, side]
    steps:
      - {id: roll, uses: set, with: {name: web, value: "${{ needs.build.outputs.id }}"}}
      - {id: scale, uses: set, with: {name: size, value: "5"}}
finally:
  end: {steps: [{id: e, uses: set, with: {name: end, value: "${{ run.result }}"}}]}
"""
END = {"tag": "v42", "side": "done", "web": "42", "size": "5", "end": "success"}


def pipeline(bench):
    return PIPELINE % (bench.sources.parent / "count")


async def crash(make_bench, text, monkeypatch, when):
    """Run until ``when(number of records written)`` is true, then let the daemon die at once."""
    count = 0
    real = Journal.append
    run_id = ""
    dead = False

    async def append(self, kind, data, *, sync=True):
        nonlocal count, dead
        if dead:
            raise _Died
        record = await real(self, kind, data, sync=sync)
        count += 1
        if when(count):
            dead = True
            nursery.cancel_scope.cancel()
            # Nothing after the record reaches the disk, whatever shields it.
            raise _Died
        return record

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", append)
        try:
            async with trio.open_nursery() as nursery:
                bench = await make_bench(nursery)
                run_id = await bench.start(text(bench))
                await bench.manager.wait(run_id)
        except* _Died:
            pass
    return run_id, count


class _Died(BaseException):
    pass


async def test_a_run_cut_off_after_any_record_reaches_the_same_end(
    make_bench, monkeypatch, tmp_path
):
    complete = None
    number = 1
    while complete is None:
        number += 1
        world = await _one_crash(make_bench, monkeypatch, tmp_path, number)
        if world is None:
            complete = number
    # 1 creation, 1 attempt, 4 jobs x 2, 6 steps x 2, 1 image, 1 end.
    assert complete == 25


async def _one_crash(make_bench, monkeypatch, tmp_path, number):
    """Crash after one record, resume, check the end; None if the run ended before."""
    async with trio.open_nursery() as nursery:
        world = (await make_bench(nursery)).world
        nursery.cancel_scope.cancel()
    world.values.clear()
    world.applied.clear()
    count = tmp_path / "count"
    count.unlink(missing_ok=True)
    run_id, written = await crash(make_bench, pipeline, monkeypatch, lambda n: n == number)
    if written < number:
        return None
    done_before = list(world.applied)
    async with trio.open_nursery() as nursery:
        bench = await make_bench(nursery)
        state = bench.manager.inspect(bench.manager.resolve(run_id or "last"))
        if state["state"] == "interrupted":
            finished = {
                step["id"] for job in state["jobs"] for step in job["steps"] if step["result"]
            }
            end = await bench.resume(state["id"])
            assert end["state"] == "success", number
            again = world.applied[len(done_before) :]
            assert not finished & set(again) - {"e"}, (number, again)
        assert world.values == END, number
        assert bench.engine.containers.all == {}
        assert bench.engine.networks.all == {}
        nursery.cancel_scope.cancel()
    return world


class _CancelAt(trio.abc.Instrument):
    """Cancels a nursery after so many steps of any task."""

    def __init__(self, steps: int) -> None:
        self.left = steps
        self.nursery = None

    def before_task_step(self, task):
        self.left -= 1
        if self.left == 0 and self.nursery is not None:
            self.nursery.cancel_scope.cancel()


@pytest.mark.parametrize("seed", range(40))
async def test_a_daemon_that_ends_at_any_moment_leaves_a_run_that_can_be_finished(make_bench, seed):
    steps = random.Random(seed).randrange(1, 900)
    instrument = _CancelAt(steps)
    async with trio.open_nursery() as nursery:
        bench = await make_bench(nursery)
        instrument.nursery = nursery
        trio.lowlevel.add_instrument(instrument)
        try:
            await bench.manager.wait(await bench.start(pipeline(bench)))
        finally:
            trio.lowlevel.remove_instrument(instrument)
    before = list(bench.world.applied)
    async with trio.open_nursery() as nursery:
        bench = await make_bench(nursery)
        runs = bench.manager.list_runs()
        if not runs:
            # It ended before the run was made: nothing of it is left.
            assert before == []
            assert not list((bench.host.state_dir / "runs").iterdir())
        elif runs[0]["state"] == "interrupted":
            assert (await bench.resume("last"))["state"] == "success"
        if runs:
            assert bench.world.values == END
            twice = {s for s in bench.world.applied if bench.world.applied.count(s) > 1}
            # Cut off in the middle of a change, it is made again; never more than one step a chain.
            assert len(twice - {"e"}) <= 2
        assert bench.engine.containers.all == {}
        assert bench.engine.networks.all == {}
        nursery.cancel_scope.cancel()


async def test_an_intent_without_a_result_is_settled_by_its_driver(make_bench, monkeypatch):
    """The change happened, its record did not: it is seen, and not made a second time."""
    async with trio.open_nursery() as nursery:
        bench = await make_bench(nursery)
        bench.world.changed = lambda intent: nursery.cancel_scope.cancel()
        await bench.start("jobs: {a: {steps: [{id: s, uses: set, with: {name: x, value: v}}]}}")
        await trio.sleep_forever()
    async with trio.open_nursery() as nursery:
        bench = await make_bench(nursery)
        bench.world.changed = lambda intent: None
        assert bench.manager.inspect("last")["state"] == "interrupted"
        run = await bench.resume("last")
        nursery.cancel_scope.cancel()
    assert run["state"] == "success"
    assert run["attempt"] == 2
    assert bench.world.observed == ["s"]
    assert bench.world.applied == ["s"]
    assert run["jobs"][0]["steps"][0]["outputs"]["value"] == "v"


async def test_an_intent_that_was_not_carried_out_is_carried_out(make_bench, monkeypatch):
    def text(bench):
        return "jobs: {a: {steps: [{id: s, uses: set, with: {name: x, value: v}}]}}"

    # 1 creation, 2 attempt, 3 job, 4 the intent: the driver was never called.
    run_id, _ = await crash(make_bench, text, monkeypatch, lambda n: n == 4)
    async with trio.open_nursery() as nursery:
        bench = await make_bench(nursery)
        run = await bench.resume(run_id or "last")
        nursery.cancel_scope.cancel()
    assert (bench.world.observed, bench.world.applied) == (["s"], ["s"])
    assert run["state"] == "success"


async def test_resume_goes_on_at_the_step_that_failed(bench, summarise):
    bench.world.failures["roll"] = [LinkspanError("unhealthy")]
    failed = await bench.run(pipeline(bench))
    assert summarise(failed)["deploy/roll"] == "failed"
    assert "size" not in bench.world.values
    again = await bench.resume(failed["id"])
    assert again["state"] == "success"
    assert bench.world.values == END
    assert (bench.sources.parent / "count").read_text() == "made\n"
    assert bench.world.applied.count("tag") == 1
    assert bench.world.applied.count("e") == 2


async def test_what_was_rolled_back_is_done_again(bench):
    flag = bench.sources.parent / "flag"
    failed = await bench.run(f"""
jobs:
  a:
    steps:
      - {{id: first, uses: set, with: {{name: first, value: x}}}}
      - {{id: roll, uses: set, with: {{name: web, value: new}}}}
      - {{id: after, uses: set, with: {{name: after, value: x}}}}
      - {{id: smoke, run: 'test -e "$FLAG"', env: {{FLAG: "{flag}"}}, on-failure: "rollback:roll"}}
""")
    assert failed["state"] == "failed"
    assert "web" not in bench.world.values
    flag.touch()
    again = await bench.resume(failed["id"])
    assert again["state"] == "success"
    assert bench.world.values["web"] == "new"
    assert bench.world.applied == ["first", "roll", "after", "roll", "after"]


async def test_a_cancelled_run_can_be_resumed(bench):
    run_id = await bench.start("""
jobs: {a: {steps: [{id: one, uses: set, with: {name: one}}, {id: two, run: "test -e go || sleep 60"}]}}
""")
    workspace = bench.host.state_dir / "runs" / run_id / "jobs" / "a" / "workspace"
    while not (workspace.parent / "steps" / "two").exists():  # noqa: ASYNC110
        await trio.sleep(0.01)
    await bench.manager.cancel(run_id, kill=False)
    assert await bench.manager.wait(run_id) == "cancelled"
    (workspace / "go").touch()
    run = await bench.resume(run_id)
    assert run["state"] == "success"
    assert bench.world.applied == ["one"]


async def test_the_recorded_text_and_inputs_are_used(bench):
    bench.world.failures["s"] = [LinkspanError("no")]
    failed = await bench.run(
        """
inputs: {v: {type: string}}
jobs: {a: {steps: [{id: s, uses: set, with: {name: x, value: "${{ inputs.v }}"}}]}}
""",
        v="7",
    )
    await bench.resume(failed["id"])
    assert bench.world.values == {"x": "7"}


async def test_a_run_that_succeeded_or_is_active_cannot_be_resumed(bench):
    run = await bench.run("jobs: {a: {steps: [{run: 'true'}]}}")
    with pytest.raises(Conflict, match="nothing is left to do"):
        await bench.manager.resume(run["id"])
    active = await bench.start("jobs: {a: {steps: [{run: sleep 60}]}}")
    with pytest.raises(Conflict, match="is running"):
        await bench.manager.resume(active)
    await bench.manager.cancel(active, kill=True)
    await bench.manager.wait(active)


async def test_a_run_whose_verb_is_gone_is_refused_with_its_place(make_bench, nursery):
    bench = await make_bench(nursery)
    bench.world.failures["s"] = [LinkspanError("no")]
    failed = await bench.run("jobs: {a: {steps: [{id: s, uses: set, with: {name: x}}]}}")
    bench.manager._runs.verbs = type(bench.manager._runs.verbs)([])
    with pytest.raises(InvalidArgument) as caught:
        await bench.manager.resume(failed["id"])
    assert caught.value.details["diagnostics"][0]["id"] == "LS1401"


async def test_leftovers_of_a_dead_daemon_are_removed_at_the_next_start(make_bench):
    async with trio.open_nursery() as nursery:
        bench = await make_bench(nursery)
        run_id = await bench.start("jobs: {a: {steps: [{id: s, run: sleep 60}]}}")
        while not bench.engine.containers.all:  # noqa: ASYNC110
            await trio.sleep(0.01)
        leftover = next(iter(bench.engine.containers.all.values()))
        network = dict(bench.engine.networks.all)
        nursery.cancel_scope.cancel()
    # What a kill -9 leaves: the container and its network are there still.
    bench.engine.containers.all["left"] = leftover
    bench.engine.networks.all.update(network)
    leftover.process = None

    leftover.container = attrs.evolve(leftover.container, id="left")
    async with trio.open_nursery() as nursery:
        bench = await make_bench(nursery)
        assert bench.engine.containers.all == {}
        assert bench.engine.networks.all == {}
        assert bench.manager.inspect(run_id)["state"] == "interrupted"
        nursery.cancel_scope.cancel()


async def test_a_successful_run_keeps_its_record_and_sources_and_not_its_workspaces(bench):
    run = await bench.run("jobs: {a: {steps: [{id: s, run: echo hi}]}}")
    folder = bench.host.state_dir / "runs" / run["id"]
    while (folder / "jobs" / "a" / "workspace").exists():  # noqa: ASYNC110
        await trio.sleep(0.01)
    assert (folder / "source" / "hello.txt").exists()
    assert (folder / "jobs" / "a" / "s.log").exists()
    first = json.loads((folder / "journal.jsonl").read_text().splitlines()[0])
    assert (first["version"], first["kind"]) == (1, "run-created")


async def test_only_the_latest_runs_that_succeeded_keep_their_sources(make_bench, nursery):
    bench = await make_bench(nursery, WorkflowsConfig(keep_sources=2))
    runs = [(await bench.run("jobs: {a: {steps: [{run: 'true'}]}}"))["id"] for _ in range(3)]
    root = bench.host.state_dir / "runs"
    while (root / runs[0] / "source").exists():  # noqa: ASYNC110
        await trio.sleep(0.01)
    assert [(root / run / "source").exists() for run in runs] == [False, True, True]
    with pytest.raises(Conflict, match="not kept any more"):
        await bench.manager.rerun(runs[0], Rerun())
