"""A run that waits for a person leaves memory, and goes on when they have decided."""

import attrs
import pytest
import trio
import trio.testing

from linkspan.sdk.drivers.step import MISSING, Step
from linkspan.sdk.errors import (
    Conflict,
    InvalidArgument,
    LinkspanError,
    NotFound,
    PermissionDenied,
)
from linkspan.sdk.model.step import StepChange, StepPlan
from linkspan.workflows.approvals import Voter, voter_of
from linkspan.workflows.creating import NewRun
from linkspan.workflows.undoing import undoable

ANA = Voter(name="ana", groups=frozenset({"release"}))
BEN = Voter(name="ben")

PIPELINE = """
jobs:
  build: {steps: [{id: b, uses: set, with: {name: web, value: old}}]}
  gate:
    needs: [build]
    outputs: {who: "${{ steps.ask.outputs.by }}"}
    steps:
      - {id: before, uses: set, with: {name: before, value: x}}
      - {id: ask, uses: ask, with: {message: "go?"%s}}
      - {id: after, uses: set, with: {name: after, value: "${{ steps.ask.outputs.by }}"}}
  deploy:
    needs: [gate]
    steps: [{id: d, uses: set, with: {name: web, value: new}}]
finally:
  end: {steps: [{id: e, uses: set, with: {name: end, value: "${{ run.result }}"}}]}
"""


async def test_a_run_that_asks_is_suspended_with_nothing_of_it_left(bench, summarise):
    run = await bench.run(PIPELINE % "")
    assert run["state"] == "suspended"
    assert not run["active"]
    assert summarise(run)["gate/ask"] == "suspended"
    assert "end" not in bench.world.values
    assert bench.engine.containers.all == {}
    assert bench.engine.networks.all == {}
    (step,) = [s for j in run["jobs"] for s in j["steps"] if s["state"] == "suspended"]
    planned = step["question"]["evidence"]["plan"]
    assert [each["step"] for each in planned] == ["gate/after", "deploy/d"]
    assert planned[1]["changes"][0]["detail"] == "old → new"


@attrs.define
class Maker(Step):
    """``set`` that makes what ``note`` cannot do without, and takes a secret that may not be empty."""

    @classmethod
    def open(cls, config, host):
        raise NotImplementedError

    async def plan(self, intent):
        await trio.lowlevel.checkpoint()
        thing = f"thing {intent.settings['name']}"
        if intent.verb == "note":
            raise NotFound(f"there is no {thing}", details={MISSING: thing})
        assert intent.settings["secrets"] == {"TOKEN": "${{ secrets.TOKEN }}"}
        return StepPlan(changes=(StepChange(action="create", what=thing),))

    async def apply(self, intent, context):
        raise NotImplementedError


async def test_who_decides_is_told_what_steps_make_for_each_other_and_no_secrets(bench):
    await bench.host.drivers["secrets", ""].put("TOKEN", "correct-horse")
    bench.host.drivers["step", "set"] = bench.host.drivers["step", "note"] = Maker()
    run = await bench.run("""
secrets: {TOKEN: {from: file}}
jobs:
  gate: {steps: [{id: ask, uses: ask, with: {message: "go?"}}]}
  deploy:
    needs: [gate]
    steps:
      - {id: make, uses: set, with: {name: web, secrets: [TOKEN]}}
      - {id: use, uses: note, with: {name: web}}
      - {id: other, uses: note, with: {name: db}}
""")
    assert run["state"] == "suspended"
    (step,) = [s for j in run["jobs"] for s in j["steps"] if s["state"] == "suspended"]
    planned = step["question"]["evidence"]["plan"]
    assert [(each["step"], each["unknown"]) for each in planned] == [
        ("deploy/make", ""),
        ("deploy/use", "known when it runs: thing web"),
        ("deploy/other", "there is no thing db"),
    ]
    assert "correct-horse" not in str(run)


async def test_an_approval_goes_on_where_the_run_was(bench):
    run = await bench.run(PIPELINE % "")
    said = await bench.manager.answers.decide(run["id"], "approve", ANA, comment="fine")
    assert said["decision"] == "approve"
    assert await bench.manager.wait(run["id"]) == "success"
    assert bench.world.values == {
        **{"web": "new", "before": "x", "after": "ana", "end": "success"},
    }
    assert bench.world.applied == ["b", "before", "after", "d", "e"]
    end = bench.manager.inspect(run["id"])
    assert end["attempt"] == 1
    assert [job["outputs"] for job in end["jobs"]][1] == {"who": "ana"}


async def test_a_rejection_ends_the_run_as_rejected(bench, summarise):
    run = await bench.run(PIPELINE % "")
    await bench.manager.answers.decide(run["id"], "reject", BEN, comment="not today")
    assert await bench.manager.wait(run["id"]) == "rejected"
    end = bench.manager.inspect(run["id"])
    found = summarise(end)
    assert (found["gate/ask"], found["gate"], found["deploy"]) == (
        "rejected",
        "rejected",
        "skipped",
    )
    assert "rejected by ben: not today" in end["jobs"][1]["steps"][1]["error"]["message"]
    assert bench.world.values["end"] == "rejected"


async def test_the_daemon_may_end_while_a_run_waits(make_bench):
    async with trio.open_nursery() as nursery:
        bench = await make_bench(nursery)
        run = await bench.run(PIPELINE % "")
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        bench = await make_bench(nursery)
        assert bench.manager.inspect(run["id"])["state"] == "suspended"
        await bench.manager.answers.decide(run["id"], "approve", ANA)
        assert await bench.manager.wait(run["id"]) == "success"
        nursery.cancel_scope.cancel()
    assert bench.world.applied == ["b", "before", "after", "d", "e"]


async def test_an_approval_that_comes_while_others_work_is_taken_at_once(bench):
    flag = bench.sources.parent / "flag"
    run_id = await bench.start(f"""
jobs:
  slow: {{steps: [{{id: s, run: 'while ! test -e "$F"; do sleep 0.02; done', env: {{F: "{flag}"}}}}]}}
  gate: {{steps: [{{id: ask, uses: ask, with: {{message: go}}}}]}}
  after: {{needs: [gate], steps: [{{id: a, uses: set, with: {{name: a, value: x}}}}]}}
""")
    while bench.manager.inspect(run_id)["jobs"][1]["state"] != "suspended":  # noqa: ASYNC110
        await trio.sleep(0.01)
    assert bench.manager.inspect(run_id)["state"] == "running"
    await bench.manager.answers.decide("last", "approve", ANA)
    while "a" not in bench.world.values:  # noqa: ASYNC110
        await trio.sleep(0.01)
    flag.touch()
    assert await bench.manager.wait(run_id) == "success"


async def test_so_many_as_are_needed_must_approve_and_nobody_twice(bench):
    run = await bench.run(PIPELINE % ", minimum: 2")
    assert (await bench.manager.answers.decide("last", "approve", ANA))["decision"] == ""
    with pytest.raises(Conflict, match="'ana' has decided already"):
        await bench.manager.answers.decide("last", "approve", ANA)
    assert bench.manager.inspect("last")["state"] == "suspended"
    await bench.manager.answers.decide("last", "approve", BEN)
    assert await bench.manager.wait(run["id"]) == "success"


async def test_two_who_answer_at_once_are_both_heard(bench):
    run = await bench.run(PIPELINE % ", minimum: 2")
    async with trio.open_nursery() as nursery:
        for voter in (ANA, BEN):
            nursery.start_soon(bench.manager.answers.decide, run["id"], "approve", voter)
    assert await bench.manager.wait(run["id"]) == "success"


async def test_only_those_who_are_asked_may_decide(bench):
    await bench.run(PIPELINE % ', approvers: ["group:release", "user:eve"]')
    with pytest.raises(PermissionDenied, match="'ben' is not asked"):
        await bench.manager.answers.decide("last", "approve", BEN)
    await bench.manager.answers.decide("last", "approve", ANA)
    assert await bench.manager.wait("last") == "success"


@pytest.mark.parametrize(("answer", "end"), [("reject", "rejected"), ("approve", "success")])
async def test_a_question_answers_itself_when_its_time_is_over(bench, answer, end):
    await bench.run(PIPELINE % f", timeout: 24h, on-timeout: {answer}")
    assert bench.manager.inspect("last")["state"] == "suspended"
    bench.world.clock_moved = 86401.0
    bench.manager.answers.expiry.changed()
    while bench.manager.inspect("last")["result"] != end:  # noqa: ASYNC110
        await trio.sleep(0.01)


async def test_a_question_that_ran_out_while_no_daemon_was_there_is_answered_at_start(make_bench):
    async with trio.open_nursery() as nursery:
        bench = await make_bench(nursery)
        await bench.run(PIPELINE % ", timeout: 1h")
        nursery.cancel_scope.cancel()
    bench.world.clock_moved = 3601.0
    async with trio.open_nursery() as nursery:
        bench = await make_bench(nursery)
        while bench.manager.inspect("last")["result"] != "rejected":  # noqa: ASYNC110
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def test_a_suspended_run_can_be_cancelled_and_cleans_up(bench, summarise):
    run = await bench.run(PIPELINE % "")
    await bench.manager.cancel(run["id"], kill=False, by="ana")
    assert await bench.manager.wait(run["id"]) == "cancelled"
    assert bench.world.values["end"] == "cancelled"
    with pytest.raises(Conflict, match="waits for nobody"):
        await bench.manager.answers.decide(run["id"], "approve", ANA)


async def test_a_suspended_run_cannot_be_resumed_and_says_why(bench):
    await bench.run(PIPELINE % "")
    with pytest.raises(Conflict, match="waits for a person") as caught:
        await bench.manager.resume("last")
    assert "approve" in caught.value.help


async def test_a_rejected_run_asks_again_when_it_is_resumed(bench):
    run = await bench.run(PIPELINE % "")
    await bench.manager.answers.decide("last", "reject", ANA)
    await bench.manager.wait("last")
    assert (await bench.resume(run["id"]))["state"] == "suspended"
    await bench.manager.answers.decide("last", "approve", ANA)
    assert await bench.manager.wait("last") == "success"


async def test_a_run_that_asks_several_things_wants_to_know_which_is_meant(bench):
    await bench.run("""
jobs:
  a: {steps: [{id: ask, uses: ask, with: {message: one}}]}
  b: {steps: [{id: ask, uses: ask, with: {message: two}}]}
""")
    with pytest.raises(InvalidArgument, match="a/ask, b/ask"):
        await bench.manager.answers.decide("last", "approve", ANA)
    await bench.manager.answers.decide("last", "approve", ANA, place="a")
    assert await bench.manager.wait("last") == "suspended"
    await bench.manager.answers.decide("last", "reject", ANA, place="b/ask")
    assert await bench.manager.wait("last") == "rejected"


async def test_undo_walks_back_through_a_run(bench):
    bench.world.values["web"] = "older"
    run = await bench.run("""
jobs:
  a:
    steps:
      - {id: one, uses: set, with: {name: web, value: new}}
      - {id: two, uses: set, with: {name: size, value: "5"}}
      - {id: three, uses: set, with: {name: plain, value: "5", plain: true}}
  b: {needs: [a], steps: [{id: four, uses: set, with: {name: web, value: newer}}]}
""")
    said = await bench.manager.undo(run["id"], by="ana")
    assert (said["undone"], said["state"]) == ("success", "success")
    assert bench.world.undone == ["four", "two", "one"]
    assert bench.world.values == {"web": "older", "plain": "5"}
    with pytest.raises(Conflict, match="nothing of run"):
        await bench.manager.undo(run["id"])


async def test_an_undo_that_fails_stops_there_and_can_be_tried_again(bench):
    run = await bench.run("""
jobs: {a: {steps: [
  {id: one, uses: set, with: {name: web, value: new}},
  {id: two, uses: set, with: {name: size, value: "5"}}]}}
""")
    bench.world.undo_fails = True
    assert (await bench.manager.undo(run["id"]))["undone"] == "failed"
    assert bench.world.undone == ["two"]
    bench.world.undo_fails = False
    assert (await bench.manager.undo(run["id"]))["undone"] == "success"
    assert bench.world.undone == ["two", "two", "one"]
    assert bench.world.values == {}


async def test_what_was_rolled_back_by_a_failure_is_not_undone_again(bench):
    bench.world.failures["two"] = [LinkspanError("no")]
    run = await bench.run("""
jobs: {a: {steps: [
  {id: one, uses: set, with: {name: web, value: new}},
  {id: two, uses: set, with: {name: size, value: "5"}}]}}
""")
    assert bench.world.undone == ["two"]
    assert [s.id for _, s in undoable(bench.manager.archive.ended[run["id"]])] == ["one"]


def test_root_decides_in_the_name_that_is_given():
    assert voter_of(0, "ana") == Voter(name="ana", groups=voter_of(0).groups, root=True)
    assert voter_of(0).name == "root"
    assert voter_of(987654).name == "uid 987654"
    assert voter_of(None, "eve") == Voter(name="eve")


async def test_a_time_limit_begins_anew_after_a_person_was_waited_for(bench, mock_clock):
    slow = (PIPELINE % "").replace("name: web, value: new", "name: web, value: new, takes: 1h")
    text = f"linkspan: v1\ndefaults: {{image: img}}\n{slow}"
    new = NewRun(file="p.yaml", text=text, workspace=bench.sources, timeout_s=60)
    run = (await bench.manager.create(new))["id"]
    assert await bench.manager.wait(run) == "suspended"
    mock_clock.jump(3600)
    await bench.manager.answers.decide(run, "approve", ANA)
    while "d" not in bench.world.applied:
        await trio.testing.wait_all_tasks_blocked()
    mock_clock.jump(59)
    await trio.testing.wait_all_tasks_blocked()
    assert bench.manager.inspect(run)["state"] == "running"
    mock_clock.jump(2)
    assert await bench.manager.wait(run) == "timed-out"
    assert (bench.world.values["end"], bench.manager.inspect(run)["attempt"]) == ("timed-out", 1)
