"""Steps side by side and in the background, undo of their own, pauses, reports, secrets."""

import json
import time

import pytest
import trio

from linkspan.sdk.drivers.step import Step
from linkspan.sdk.errors import LinkspanError, NotFound
from linkspan.sdk.model.step import StepChange, StepPlan
from linkspan.workflows.approvals import Voter


async def test_steps_run_side_by_side_and_the_next_waits_for_all(bench, summarise):
    run = await bench.run("""
jobs:
  a:
    steps:
      - id: both
        parallel:
          - {id: one, run: 'touch one; while ! test -e two; do sleep 0.01; done; echo x=1 > $LINKSPAN_OUTPUT'}
          - {id: two, run: 'touch two; while ! test -e one; do sleep 0.01; done'}
      - {id: after, uses: set, with: {name: x, value: "${{ steps.one.outputs.x }}"}}
""")
    assert run["state"] == "success"
    assert summarise(run)["a/both"] == "success"
    assert bench.world.values == {"x": "1"}


class NeverWaits(Step):
    """Says that nothing is to do, and does it at once."""

    def __init__(self):
        self.jobs = []

    @classmethod
    def open(cls, config, host):
        raise NotImplementedError

    async def plan(self, intent):
        return StepPlan(changes=(StepChange(action="none", what="nothing"),))

    async def apply(self, intent, context):
        self.jobs.append(intent.job)
        if len({*self.jobs}) < 3:
            # What gets the others ready is done by threads; here they have time for it.
            time.sleep(0.005)  # noqa: ASYNC251 - no turn is given
        return {}


async def test_steps_that_wait_for_nothing_leave_turns_to_other_jobs(bench):
    driver = bench.host.drivers["step", "set"] = NeverWaits()
    step = "{uses: set, with: {name: x, value: y}}"
    many = ", ".join([step] * 1000)
    one, all_of_them = f"steps: [{step}]", f"steps: [{many}]"
    # Whichever end is begun with: one of the short jobs comes after the long one.
    run = await bench.run(f"jobs: {{a: {{{one}}}, long: {{{all_of_them}}}, z: {{{one}}}}}")
    assert run["state"] == "success"
    assert len(driver.jobs) == 1002
    assert driver.jobs[-1] == "long"


async def test_a_failure_beside_others_lets_them_end_and_stops_what_comes_after(bench, summarise):
    run = await bench.run("""
jobs:
  a:
    steps:
      - id: both
        parallel:
          - {id: bad, run: exit 1}
          - {id: good, run: sleep 0.1; touch done}
      - {id: after, run: 'true'}
      - {id: tidy, if: failure(), run: test -e done}
""")
    found = summarise(run)
    assert run["state"] == "failed"
    assert [found[f"a/{step}"] for step in ("both", "bad", "good", "after", "tidy")] == [
        "failed",
        "failed",
        "success",
        "skipped",
        "success",
    ]


async def test_what_ran_well_beside_a_failure_is_kept_by_resume(bench):
    bench.world.failures["bad"] = [LinkspanError("no")]
    failed = await bench.run("""
jobs:
  a:
    steps:
      - id: both
        parallel:
          - {id: bad, uses: set, with: {name: bad, value: x}}
          - {id: good, uses: set, with: {name: good, value: x}}
""")
    assert failed["state"] == "failed"
    assert (await bench.resume(failed["id"]))["state"] == "success"
    assert sorted(bench.world.applied) == ["bad", "bad", "good"]


async def test_a_background_step_serves_the_others_until_it_is_stopped(bench, summarise):
    run = await bench.run("""
jobs:
  a:
    steps:
      - {id: server, background: true, run: 'touch up; trap "exit 0" TERM; while :; do sleep 0.01; done'}
      - {id: use, run: 'while ! test -e up; do sleep 0.01; done'}
      - {id: stop, cancel: [server]}
      - {id: after, run: 'true'}
""")
    assert run["state"] == "success"
    found = summarise(run)
    assert (found["a/server"], found["a/after"]) == ("cancelled", "success")
    assert bench.engine.containers.all == {}


async def test_a_step_waits_for_a_background_step_and_sees_what_it_gave(bench):
    run = await bench.run("""
jobs:
  a:
    steps:
      - {id: slow, background: true, run: 'sleep 0.1; echo v=9 > $LINKSPAN_OUTPUT'}
      - {id: meanwhile, run: 'true'}
      - {wait: [slow]}
      - {id: after, uses: set, with: {name: v, value: "${{ steps.slow.outputs.v }}"}}
""")
    assert run["state"] == "success"
    assert bench.world.values == {"v": "9"}


async def test_a_failure_stops_what_runs_in_the_background(bench, summarise):
    run = await bench.run("""
jobs:
  a:
    steps:
      - {id: server, background: true, run: sleep 60}
      - {id: bad, run: exit 3}
      - {id: stop, cancel: [server]}
""")
    found = summarise(run)
    assert (run["state"], found["a/server"], found["a/bad"]) == ("failed", "cancelled", "failed")


async def test_a_job_ends_only_when_its_background_steps_have(bench, summarise):
    run = await bench.run(
        "jobs: {a: {steps: [{id: b, background: true, run: sleep 0.2; exit 4}, {id: s, run: 'true'}]}}"
    )
    assert (run["state"], summarise(run)["a/b"]) == ("failed", "failed")


async def test_a_step_brings_its_own_way_back(bench):
    bench.world.values["size"] = "3"
    run = await bench.run("""
jobs:
  a:
    steps:
      - id: roll
        uses: set
        with: {name: web, value: new}
        undo: {uses: set, with: {name: undone, value: "back to ${{ run.name }}"}}
      - {id: check, run: exit 1, on-failure: "rollback:roll"}
""")
    assert run["jobs"][0]["steps"][0]["undo"]["result"] == "success"
    assert bench.world.values == {"size": "3", "web": "new", "undone": "back to p"}
    assert bench.world.undone == []


async def test_a_script_with_a_way_back_is_undone_with_its_run(bench):
    run = await bench.run("""
jobs: {a: {steps: [{id: s, run: 'true', undo: {uses: set, with: {name: gone, value: x}}}]}}
""")
    assert bench.world.values == {}
    assert (await bench.manager.undo(run["id"]))["undone"] == "success"
    assert bench.world.values == {"gone": "x"}


PAUSE = """
jobs:
  a:
    steps:
      - {id: roll, uses: set, with: {name: web, value: new}, on-failure: pause}
      - {id: after, uses: set, with: {name: after, value: x}}
"""


@pytest.mark.parametrize(("vote", "state"), [("approve", "success"), ("reject", "failed")])
async def test_a_failure_may_wait_for_a_person_to_try_again_or_to_go_back(bench, vote, state):
    bench.world.failures["roll"] = [LinkspanError("unhealthy")]
    run = await bench.run(PAUSE)
    assert run["state"] == "suspended"
    step = run["jobs"][0]["steps"][0]
    assert "'roll' failed: unhealthy" in step["question"]["message"]
    assert bench.world.values == {"web": "new"}
    await bench.manager.answers.decide(run["id"], vote, Voter(name="ana"))
    assert await bench.manager.wait(run["id"]) == state
    end = bench.manager.inspect(run["id"])
    if vote == "approve":
        assert bench.world.values == {"web": "new", "after": "x"}
        assert bench.world.applied == ["roll", "roll", "after"]
    else:
        assert bench.world.values == {}
        assert end["jobs"][0]["steps"][0]["error"]["message"] == "unhealthy"


JUNIT = (
    "<testsuites><testsuite><testcase/><testcase><failure/></testcase>"
    "<testcase><skipped/></testcase></testsuite></testsuites>"
)


async def test_a_test_report_is_counted_also_when_the_script_fails(bench):
    run = await bench.run(f"""
jobs:
  a:
    steps:
      - {{id: s, run: "echo '{JUNIT}' > r.xml; exit 1", reports: {{junit: r.xml}}}}
""")
    assert run["jobs"][0]["steps"][0]["tests"] == {"passed": 1, "failed": 1, "skipped": 1}


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("true", "wrote no report 'r.xml'"),
        ("echo '<a' > r.xml", "is no XML"),
        ("ln -s /etc/passwd r.xml", "leads out of the workspace"),
        (
            "echo '<!DOCTYPE a [<!ENTITY b \\\"c\\\">]><a>&b;</a>' > r.xml",
            "declares a document type",
        ),
    ],
)
async def test_a_report_that_cannot_be_read_fails_the_step_and_says_why(bench, script, reason):
    run = await bench.run(
        f'jobs: {{a: {{steps: [{{id: s, run: "{script}", reports: {{junit: r.xml}}}}]}}}}'
    )
    assert reason in run["jobs"][0]["steps"][0]["error"]["message"]


SECRET = "hunter2-p@ss word"
SECRETS = """
secrets: {TOKEN: {from: file}, OTHER: {from: file, generate: {length: 24}}}
jobs:
  a:
    steps:
      - {id: first, run: 'test -z "$TOKEN"'}
      - id: s
        secrets: [TOKEN]
        run: 'echo "got $TOKEN"; echo -n "$TOKEN" | base64; echo t=$TOKEN > $LINKSPAN_OUTPUT'
      - id: env
        secrets: [TOKEN]
        env: {MINE: "x-${{ secrets.TOKEN }}"}
        run: 'test "$MINE" = "x-$TOKEN"; echo $MINE'
      - {id: verb, uses: set, secrets: [TOKEN], with: {name: x, token: "${{ secrets.TOKEN }}"}}
      - {id: made, secrets: [OTHER], run: 'test ${#OTHER} = 24; echo $OTHER'}
"""


async def test_a_secret_reaches_the_steps_that_were_granted_it_and_no_sink(bench):
    driver = bench.host.drivers["secrets", ""]
    await driver.put("TOKEN", SECRET)
    run = await bench.run(SECRETS)
    assert run["state"] == "success", [s["error"] for s in run["jobs"][0]["steps"]]
    assert bench.world.secrets == {"TOKEN": SECRET}
    assert await driver.get("OTHER")
    folder = bench.host.state_dir / "runs" / run["id"]
    logs = "".join(path.read_text() for path in bench.files(run["id"], ".log"))
    assert "got ***" in logs
    for text in (logs, (folder / "journal.jsonl").read_text(), json.dumps(run)):
        assert SECRET not in text
        assert "aHVudGVyMi" not in text


async def test_a_secret_that_is_not_there_fails_the_step_that_wants_it(bench):
    run = await bench.run(SECRETS)
    step = run["jobs"][0]["steps"][1]
    assert (step["result"], step["error"]["code"]) == ("failed", NotFound.default_code) or (
        step["error"]["code"] == "secret_not_found"
    )
    assert step["tries"] == 0


async def test_a_crash_is_settled_with_the_secret_that_the_journal_does_not_have(make_bench):
    text = """
secrets: {TOKEN: {from: file}}
jobs:
  a:
    steps:
      - id: s
        uses: set
        secrets: [TOKEN]
        with: {name: x, value: v, token: "${{ secrets.TOKEN }}"}
"""
    async with trio.open_nursery() as nursery:
        bench = await make_bench(nursery)
        await bench.host.drivers["secrets", ""].put("TOKEN", SECRET)
        bench.world.changed = lambda intent: nursery.cancel_scope.cancel()
        await bench.start(text)
        await trio.sleep_forever()
    async with trio.open_nursery() as nursery:
        bench = await make_bench(nursery)
        bench.world.changed = lambda intent: None
        run = await bench.resume("last")
        nursery.cancel_scope.cancel()
    assert run["state"] == "success"
    assert bench.world.applied == ["s"]
    assert run["jobs"][0]["steps"][0]["outputs"]["settings"]["token"] == "***"
