"""A run that is held at a step, with a container to look around in, until somebody decides."""

import pytest
import trio

from linkspan.sdk.errors import Conflict, InvalidArgument, LinkspanError, NotFound
from linkspan.sdk.model.container import ContainerStatus
from linkspan.workflows.again import Again
from linkspan.workflows.breakpoints import Decision, decision_of
from linkspan.workflows.creating import Rerun

PIPELINE = """
env: {COLOUR: blue}
jobs:
  a:
    steps:
      - {id: one, uses: set, with: {name: one, value: x}}
      - {id: two, run: 'test -e fixed; echo ok=yes > "$LINKSPAN_OUTPUT"', env: {SIZE: "5"}}
      - {id: three, uses: set, with: {name: three, value: "${{ steps.two.outputs.ok }}"}}
finally:
  end: {steps: [{id: e, uses: set, with: {name: end, value: "${{ run.result }}"}}]}
"""


async def held(bench, run_id, count=1, after=0):
    """Wait until the run is held at so many places, later than some record; those."""
    with trio.fail_after(20):
        while True:
            found = bench.manager.answers.breaks(run_id)["held"]
            if len(found) == count and found[0]["n"] > after:
                return found
            assert bench.manager.inspect(run_id)["active"], bench.manager.inspect(run_id)
            await trio.sleep(0.01)


def states(bench, run_id):
    run = bench.manager.inspect(run_id)
    return {step["id"]: step["state"] for job in run["jobs"] for step in job["steps"]}


async def test_a_failed_step_is_held_in_a_container_like_its_own(bench):
    run_id = await bench.start(PIPELINE, breaks=("on-failure",))
    (found,) = await held(bench, run_id)
    assert (found["place"], found["when"], found["shell"]) == ("a/two", "on-failure", "/bin/sh")
    assert "exit code 1" in found["error"]["message"]
    assert bench.manager.inspect(run_id)["state"] == "held"
    container = bench.engine.containers.inspect(found["container"])
    assert container.state.status is ContainerStatus.RUNNING
    ours, own = container.spec, bench.engine.containers.made[0]
    assert {"COLOUR=blue", "SIZE=5"} <= set(ours.env)
    assert (ours.env, ours.mounts, ours.network_mode) == (own.env, own.mounts, own.network_mode)
    await bench.manager.answers.leave(run_id, Decision(action="continue"))
    assert await bench.manager.wait(run_id) == "failed"
    assert bench.engine.containers.all == {}
    assert bench.world.values["end"] == "failed"


async def test_what_was_mended_in_the_workspace_is_there_for_the_retry(bench):
    run_id = await bench.start(PIPELINE, breaks=("on-failure",))
    (found,) = await held(bench, run_id)
    spec = bench.engine.containers.inspect(found["container"]).spec
    await trio.Path(spec.mounts[0].source, "fixed").touch()
    said = await bench.manager.answers.leave(run_id, Decision(action="retry", by="ana"))
    assert (said["job"], said["step"], said["action"]) == ("a", "two", "retry")
    assert await bench.manager.wait(run_id) == "success"
    assert bench.world.values == {"one": "x", "three": "yes", "end": "success"}
    assert bench.world.applied == ["one", "three", "e"]
    assert bench.engine.containers.all == {}


async def test_a_step_that_fails_again_is_held_again_and_an_edited_script_is_used(bench):
    run_id = await bench.start(PIPELINE, breaks=("on-failure",))
    (first,) = await held(bench, run_id)
    await bench.manager.answers.leave(run_id, Decision(action="retry"))
    found = await held(bench, run_id, after=first["n"])
    script = 'echo ok=edited > "$LINKSPAN_OUTPUT"'
    await bench.manager.answers.leave(run_id, Decision(action="retry", script=script))
    assert await bench.manager.wait(run_id) == "success"
    assert bench.world.values["three"] == "edited"
    step = bench.manager.inspect(run_id)["jobs"][0]["steps"][1]
    assert (step["edited"], step["tries"]) == (True, 3)
    assert found[0]["script"].startswith("test -e fixed")


async def test_a_step_that_is_skipped_fails_nothing(bench):
    run_id = await bench.start(
        PIPELINE.replace("${{ steps.two.outputs.ok }}", "y"), breaks=("on-failure",)
    )
    await held(bench, run_id)
    await bench.manager.answers.leave(run_id, Decision(action="skip"))
    assert await bench.manager.wait(run_id) == "success"
    assert states(bench, run_id)["two"] == "skipped"
    assert bench.world.values["three"] == "y"


async def test_an_abort_keeps_the_failure_and_cleans_up(bench):
    run_id = await bench.start(PIPELINE, breaks=("on-failure",))
    await held(bench, run_id)
    await bench.manager.answers.leave(run_id, Decision(action="abort"))
    assert await bench.manager.wait(run_id) == "cancelled"
    assert states(bench, run_id) == {
        **{"one": "success", "two": "failed", "three": "waiting", "e": "success"},
    }
    assert bench.world.values["end"] == "cancelled"
    assert bench.engine.containers.all == {}


@pytest.mark.parametrize("kill", [False, True])
async def test_a_held_run_can_be_cancelled(bench, kill):
    run_id = await bench.start(PIPELINE, breaks=("before:two",))
    await held(bench, run_id)
    await bench.manager.cancel(run_id, kill=kill)
    assert await bench.manager.wait(run_id) == "cancelled"
    assert ("end" in bench.world.values) is not kill
    assert states(bench, run_id)["two"] == "waiting"
    assert bench.engine.containers.all == {}
    with pytest.raises(Conflict, match="not running"):
        await bench.manager.answers.leave(run_id, Decision(action="retry"))


async def test_a_step_is_held_before_it_begins(bench):
    run_id = await bench.start(PIPELINE, breaks=("before:a/two",))
    (found,) = await held(bench, run_id)
    assert found["when"] == "before"
    assert states(bench, run_id)["three"] == "waiting"
    assert bench.world.applied == ["one"]
    spec = bench.engine.containers.inspect(found["container"]).spec
    await trio.Path(spec.mounts[0].source, "fixed").touch()
    await bench.manager.answers.leave(run_id, Decision(action="continue"))
    assert await bench.manager.wait(run_id) == "success"


async def test_a_step_is_held_after_it_has_run_and_can_run_again(bench):
    run_id = await bench.start(PIPELINE, breaks=("after:one",))
    (first,) = await held(bench, run_id)
    assert bench.world.applied == ["one"]
    with pytest.raises(Conflict, match="cannot be skipped"):
        await bench.manager.answers.leave(run_id, Decision(action="skip"))
    with pytest.raises(Conflict, match="no script"):
        await bench.manager.answers.leave(run_id, Decision(action="retry", script="true"))
    await bench.manager.answers.leave(run_id, Decision(action="retry"))
    await held(bench, run_id, after=first["n"])
    assert bench.world.applied == ["one", "one"]
    await bench.manager.answers.leave(run_id, Decision(action="continue"))
    assert await bench.manager.wait(run_id) == "failed"


async def test_a_failed_verb_is_rolled_back_only_when_the_run_goes_on(bench):
    bench.world.failures["one"] = [LinkspanError("no"), LinkspanError("no")]
    run_id = await bench.start(PIPELINE, breaks=("on-failure",))
    (first,) = await held(bench, run_id)
    assert bench.world.undone == []
    await bench.manager.answers.leave(run_id, Decision(action="retry"))
    await held(bench, run_id, after=first["n"])
    await bench.manager.answers.leave(run_id, Decision(action="continue"))
    assert await bench.manager.wait(run_id) == "failed"
    assert bench.world.undone == ["one"]
    assert "one" not in bench.world.values


async def test_a_daemon_that_ends_leaves_the_run_to_be_resumed_at_that_step(make_bench):
    async with trio.open_nursery() as nursery:
        bench = await make_bench(nursery)
        run_id = await bench.start(PIPELINE, breaks=("on-failure",))
        await held(bench, run_id)
        nursery.cancel_scope.cancel()
    assert bench.engine.containers.all == {}
    async with trio.open_nursery() as nursery:
        bench = await make_bench(nursery)
        assert bench.manager.inspect(run_id)["state"] == "interrupted"
        assert bench.manager.answers.breaks(run_id)["held"] == []
        with pytest.raises(Conflict, match="not running"):
            await bench.manager.answers.leave(run_id, Decision(action="retry"))
        await bench.manager.resume(run_id)
        (first,) = await held(bench, run_id)
        script = 'echo ok=edited > "$LINKSPAN_OUTPUT"; test -e ../never'
        await bench.manager.answers.leave(run_id, Decision(action="retry", script=script))
        await held(bench, run_id, after=first["n"])
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        bench = await make_bench(nursery)
        await bench.manager.resume(run_id)
        (found,) = await held(bench, run_id)
        assert found["script"] == script
        script = 'echo ok=last > "$LINKSPAN_OUTPUT"'
        await bench.manager.answers.leave(run_id, Decision(action="retry", script=script))
        assert await bench.manager.wait(run_id) == "success"
        nursery.cancel_scope.cancel()
    assert bench.world.applied == ["one", "three", "e"]


async def test_a_job_s_time_limit_stands_still_while_it_is_held(bench):
    text = PIPELINE.replace("  a:\n", "  a:\n    timeout: 4s\n")
    run_id = await bench.start(text, breaks=("before:one",))
    await held(bench, run_id)
    await trio.sleep(4.2)
    assert len(bench.manager.answers.breaks(run_id)["held"]) == 1
    await bench.manager.answers.leave(run_id, Decision(action="continue"))
    assert await bench.manager.wait(run_id) == "failed"
    assert states(bench, run_id)["one"] == "success"


async def test_a_container_that_cannot_be_made_leaves_the_decision(bench):
    text = PIPELINE.replace('"5"}}', '"5"}, image: missing}')
    run_id = await bench.start(text, breaks=("before:two",))
    (found,) = await held(bench, run_id)
    assert found["container"] == ""
    assert "no image" in found["reason"]
    await bench.manager.answers.leave(run_id, Decision(action="continue"))
    assert await bench.manager.wait(run_id) == "failed"


async def test_a_run_that_is_held_at_two_places_wants_to_know_which_is_meant(bench):
    run_id = await bench.start(
        """
jobs:
  a: {steps: [{id: s, run: "false"}]}
  b: {steps: [{id: s, run: "false"}]}
""",
        breaks=("on-failure",),
    )
    await held(bench, run_id, 2)
    with pytest.raises(InvalidArgument, match="held at"):
        await bench.manager.answers.leave(run_id, Decision(action="skip"))
    with pytest.raises(NotFound, match="not held at 'c'"):
        await bench.manager.answers.leave(run_id, Decision(action="skip"), place="c")
    for place in ("a", "b/s"):
        await bench.manager.answers.leave(run_id, Decision(action="skip"), place=place)
    assert await bench.manager.wait(run_id) == "success"


async def test_of_two_who_decide_at_once_one_is_told_that_he_was_late(bench):
    run_id = await bench.start(PIPELINE, breaks=("on-failure",))
    await held(bench, run_id)
    late = []

    async def decide():
        try:
            await bench.manager.answers.leave(run_id, Decision(action="continue"))
        except Conflict as error:
            late.append(error.code)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(decide)
        nursery.start_soon(decide)
    assert late == ["not_held"]
    assert await bench.manager.wait(run_id) == "failed"


async def test_a_resumed_run_is_held_where_it_is_asked_for_and_then_where_it_was(bench):
    run_id = await bench.start(PIPELINE)
    assert await bench.manager.wait(run_id) == "failed"
    with pytest.raises(InvalidArgument, match="'nothing' is not in this pipeline"):
        await bench.manager.resume(run_id, breaks=("before:nothing",))
    await bench.manager.resume(run_id, breaks=("on-failure",))
    await held(bench, run_id)
    await bench.manager.answers.leave(run_id, Decision(action="continue"))
    assert await bench.manager.wait(run_id) == "failed"
    await bench.manager.resume(run_id)
    await held(bench, run_id)
    await bench.manager.answers.leave(run_id, Decision(action="abort"))
    await bench.manager.wait(run_id)
    await bench.manager.resume(run_id, breaks=("before:two",))
    (found,) = await held(bench, run_id)
    assert found["when"] == "before"
    await bench.manager.answers.leave(run_id, Decision(action="continue"))
    assert await bench.manager.wait(run_id) == "failed"


async def test_a_rerun_is_held_where_it_is_asked_for_and_not_where_the_old_run_was(bench):
    run_id = await bench.start(PIPELINE, breaks=("before:one",))
    await held(bench, run_id)
    await bench.manager.answers.leave(run_id, Decision(action="continue"))
    assert await bench.manager.wait(run_id) == "failed"
    wish = Rerun(again=Again(failed=True), breaks=("on-failure",))
    again = (await bench.manager.rerun(run_id, wish))["id"]
    (found,) = await held(bench, again)
    assert (found["place"], found["when"]) == ("a/two", "on-failure")
    await bench.manager.answers.leave(again, Decision(action="continue"))
    assert await bench.manager.wait(again) == "failed"


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ("never", "is no breakpoint"),
        ("before:nothing", "'nothing' is not in this pipeline"),
        ("after:b/one", "'b/one' is not in this pipeline"),
        ("before:", "is no breakpoint"),
    ],
)
async def test_a_breakpoint_that_names_no_step_is_refused(bench, wish, words):
    with pytest.raises(InvalidArgument, match=words):
        await bench.start(PIPELINE, breaks=(wish,))
    assert bench.manager.list_runs() == []


async def test_steps_that_only_hold_others_are_no_breakpoint(bench):
    text = (
        "jobs: {a: {steps: [{id: both, parallel: [{id: x, run: 'true'}, {id: y, run: 'true'}]}]}}"
    )
    with pytest.raises(InvalidArgument, match="'both' does nothing itself"):
        await bench.start(text, breaks=("before:both",))
    run_id = await bench.start(text, breaks=("before:x",))
    await held(bench, run_id)
    await bench.manager.answers.leave(run_id, Decision(action="continue"))
    assert await bench.manager.wait(run_id) == "success"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "'action' is one of"),
        ({"action": "fix"}, "'action' is one of"),
        ({"action": "skip", "script": "x"}, "goes with the action 'retry'"),
        ({"action": "retry", "script": 5}, "wrong type"),
        ({"action": "retry", "script": " "}, "must have 1"),
        ({"action": "retry", "script": "echo ${{ env.X }}"}, "no expressions"),
    ],
)
def test_a_bad_decision_is_refused(body, words):
    with pytest.raises(InvalidArgument, match=words):
        decision_of(body, "ana")


LOOKED_AT = """
concurrency: {group: one, on-conflict: reject}
jobs:
  a:
    lock: prod
    cache: [{path: cached, key: k}]
    steps:
      - {id: one, run: 'echo made > made'}
      - {id: two, run: 'exit 3'}
finally:
  end: {steps: [{id: e, uses: set, with: {name: end, value: x}}]}
"""


async def look(bench, run_id, start="a/two"):
    return (await bench.manager.rerun(run_id, Rerun(again=Again(start=start), look=True)))["id"]


async def test_looking_around_after_the_end_takes_nothing_and_is_forgotten(bench):
    run_id = (await bench.run(LOOKED_AT))["id"]
    # Another run is active, and holds all that this pipeline asks for.
    busy = await bench.start(LOOKED_AT, breaks=("before:one",))
    await held(bench, busy)
    bench.world.values.clear()
    looking = await look(bench, run_id, "two")
    (found,) = await held(bench, looking)
    assert (found["place"], found["when"]) == ("a/two", "before")
    assert found["container"] in bench.engine.containers.all
    (folder,) = bench.host.state_dir.glob(f"runs/{looking}/jobs/a/workspace")
    assert (folder / "made").read_text() == "made\n"
    (folder / "cached/file").write_text("x")
    assert bench.manager.resolve("last") == busy
    await bench.manager.cancel(looking, kill=False)
    await bench.manager.wait(looking)
    assert looking not in [row["id"] for row in bench.manager.list_runs()]
    folder = bench.host.state_dir / "runs" / looking
    with trio.fail_after(20):
        while folder.exists():  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.01)
    assert bench.world.values == {}
    await bench.manager.cancel(busy, kill=True)
    await bench.manager.wait(busy)
    assert bench.engine.containers.all == {}
    again = (await bench.run(LOOKED_AT))["id"]
    assert list((bench.host.state_dir / f"runs/{again}/jobs/a/workspace/cached").iterdir()) == []
    with pytest.raises(InvalidArgument, match="which step of it: one, two"):
        await look(bench, run_id, "a")
    with pytest.raises(NotFound):
        await look(bench, run_id, "a/none")


async def test_what_was_looked_at_when_the_daemon_died_is_forgotten(make_bench):
    async with trio.open_nursery() as nursery:
        bench = await make_bench(nursery)
        run_id = (await bench.run(LOOKED_AT))["id"]
        await held(bench, await look(bench, run_id))
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        bench = await make_bench(nursery)
        assert [row["id"] for row in bench.manager.list_runs()] == [run_id]
        nursery.cancel_scope.cancel()
