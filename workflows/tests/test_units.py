"""Cells of a matrix, jobs of called pipelines, locks and concurrency groups."""

import pytest
import trio

from linkspan.sdk.errors import Conflict, LinkspanError
from linkspan.workflows.locks import Locks

MATRIX = """
jobs:
  test:
    strategy:
      fail-fast: %s
      matrix: {python: [3.10, 3.11], db: [pg, lite], exclude: [{python: 3.10, db: lite}]}
    outputs: {what: "${{ steps.s.outputs.value }}"}
    steps:
      - {id: s, uses: set, with: {name: "${{ matrix.python }}-${{ matrix.db }}", value: "${{ matrix.python }}"}}
      - {id: t, run: 'echo hi; test "$MATRIX_PYTHON/$MATRIX_DB" != "$BAD"', env: {BAD: "%s"}}
  after:
    needs: [test]
    if: always()
    steps: [{id: a, uses: set, with: {name: cells, value: "${{ to_json(needs.test.cells) }}"}}]
"""


async def test_every_cell_of_a_matrix_runs_with_values_of_its_own(bench, summarise):
    run = await bench.run(MATRIX % ("true", ""))
    assert run["state"] == "success"
    found = summarise(run)
    assert [name for name in found if "/" not in name] == [
        "test[3.10-pg]",
        "test[3.11-pg]",
        "test[3.11-lite]",
        "after",
    ]
    assert bench.world.values["3.11-lite"] == "3.11"
    assert (
        '"key":"3.10-pg","result":"success","outputs":{"what":"3.10"}'
        in bench.world.values["cells"]
    )
    logs = bench.manager.log_files("last", "test", "t")
    assert [job for job, _, _ in logs] == ["test[3.10-pg]", "test[3.11-pg]", "test[3.11-lite]"]


async def test_a_cell_that_fails_leaves_the_others_when_told_so(bench, summarise):
    run = await bench.run(MATRIX % ("false", "3.11/pg"))
    found = summarise(run)
    assert run["state"] == "failed"
    assert found["test[3.10-pg]"] == found["test[3.11-lite]"] == "success"
    assert '"result":"failed"' in bench.world.values["cells"]


async def test_a_cell_that_fails_stops_the_others_otherwise(bench, summarise):
    flag = bench.sources.parent / "flag"
    run = await bench.run(f"""
jobs:
  test:
    strategy: {{matrix: {{n: ["1", "2", "3"]}}}}
    env: {{F: "{flag}"}}
    steps:
      - id: s
        run: |
          if [ $MATRIX_N = 2 ]; then while ! test -e $F; do sleep 0.01; done; exit 1; fi
          touch $F; sleep 30
""")
    assert run["state"] == "failed"
    found = summarise(run)
    assert [found[f"test[{n}]"] for n in "123"] == ["cancelled", "failed", "cancelled"]
    assert "cancelled" in {found["test[1]/s"], found["test[3]/s"]}
    assert bench.engine.containers.all == {}


async def test_no_more_cells_run_at_a_time_than_are_allowed(bench):
    folder = bench.sources.parent / "running"
    folder.mkdir()
    run = await bench.run(f"""
jobs:
  test:
    strategy: {{matrix: {{n: ["1", "2", "3", "4", "5"]}}, max-parallel: 2}}
    env: {{F: "{folder}"}}
    steps:
      - run: 'touch $F/$MATRIX_N; ls $F | wc -l >> $F.seen; sleep 0.05; rm $F/$MATRIX_N'
""")
    assert run["state"] == "success"
    seen = folder.with_suffix(".seen").read_text().split()
    assert len(seen) == 5
    assert max(map(int, seen)) <= 2


async def test_a_run_with_cells_that_failed_resumes_with_those_alone(bench):
    bench.world.failures["s"] = [LinkspanError("no")]
    failed = await bench.run(MATRIX % ("false", ""))
    assert failed["state"] == "failed"
    again = await bench.resume(failed["id"])
    assert again["state"] == "success"
    assert bench.world.applied.count("s") == 4


CALLED = """
linkspan: v1
inputs: {version: {type: string, required: true}, size: {type: int, default: 2}}
jobs:
  one:
    outputs: {v: "${{ steps.s.outputs.value }}"}
    steps: [{id: s, uses: set, with: {name: "one", value: "${{ inputs.version }}"}}]
  two:
    needs: [one]
    steps:
      - {id: t, uses: set, with: {name: two, value: "${{ needs.one.outputs.v }}/${{ inputs.size }}"}}
finally:
  last: {steps: [{id: l, uses: set, with: {name: last, value: "${{ run.result }}"}}]}
outputs: {got: "${{ needs.one.outputs.v }}"}
"""
CALLER = """
jobs:
  first:
    outputs: {v: "${{ steps.f.outputs.value }}"}
    steps: [{id: f, uses: set, with: {name: first, value: "7"}}]
  other:
    needs: [first]
    uses: ./other.yaml
    with: {version: "v${{ needs.first.outputs.v }}"}
  after:
    needs: [other]
    steps: [{id: a, uses: set, with: {name: after, value: "${{ needs.other.outputs.got }}"}}]
"""


async def test_a_job_may_be_another_pipeline(bench, summarise):
    bench.others["other.yaml"] = CALLED
    run = await bench.run(CALLER)
    assert run["state"] == "success", run
    assert bench.world.values == {
        "first": "7",
        "one": "v7",
        "two": "v7/2",
        "last": "success",
        "after": "v7",
    }
    assert [job["id"] for job in run["jobs"]] == [
        "first",
        "other",
        "other.one",
        "other.two",
        "other.last",
        "after",
    ]


async def test_a_failure_in_a_called_pipeline_is_the_jobs_and_is_resumed_there(bench, summarise):
    bench.others["other.yaml"] = CALLED
    bench.world.failures["t"] = [LinkspanError("no")]
    run = await bench.run(CALLER)
    found = summarise(run)
    assert (run["state"], found["other"], found["other.two"]) == ("failed", "failed", "failed")
    assert bench.world.values["last"] == "failed"
    again = await bench.resume(run["id"])
    assert again["state"] == "success"
    assert bench.world.applied.count("s") == 1
    assert bench.world.values["after"] == "v7"


async def test_finally_of_a_called_pipeline_runs_after_a_cancel(bench, summarise):
    bench.others["other.yaml"] = CALLED.replace(
        "    needs: [one]\n    steps:\n",
        "    needs: [one]\n    image: img\n    steps:\n      - {id: w, run: sleep 60}\n",
    )
    run_id = await bench.start(CALLER)
    while not bench.engine.containers.all:  # noqa: ASYNC110
        await trio.sleep(0.01)
    await bench.manager.cancel(run_id, kill=False)
    assert await bench.manager.wait(run_id) == "cancelled"
    assert bench.world.values["last"] == "cancelled"
    assert summarise(bench.manager.inspect(run_id))["other"] == "cancelled"


async def test_an_approval_in_a_called_pipeline_suspends_the_whole_run(bench):
    bench.others["other.yaml"] = CALLED.replace(
        "    needs: [one]\n    steps:\n",
        "    needs: [one]\n    steps:\n      - {id: ask, uses: ask, with: {message: x}}\n",
    )
    run = await bench.run(CALLER)
    assert run["state"] == "suspended"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_approve, bench, run["id"])
    assert await bench.manager.wait(run["id"]) == "success"
    assert bench.world.values["after"] == "v7"
    assert bench.world.applied.count("s") == 1


async def _approve(bench, run_id):
    from linkspan.workflows.approvals import Voter

    await bench.manager.answers.decide(run_id, "approve", Voter(name="ana"))


async def test_an_approval_beside_a_call_does_not_cut_the_call_off(bench):
    bench.others["other.yaml"] = CALLED
    run = await bench.run(CALLER + "  gate: {steps: [{id: ask, uses: ask, with: {message: x}}]}\n")
    assert run["state"] == "suspended"
    assert bench.world.values["after"] == "v7"
    await _approve(bench, run["id"])
    assert await bench.manager.wait(run["id"]) == "success"
    assert bench.world.applied.count("s") == 1


LOCKED = """
jobs:
  a:
    lock: prod
    steps: [{id: s, run: 'while ! test -e "$F"; do sleep 0.01; done', env: {F: "%s"}}]
"""


async def test_a_lock_is_held_by_one_at_a_time_and_handed_on_in_order(bench):
    flag = bench.sources.parent / "flag"
    first = await bench.start(LOCKED % flag)
    while not bench.engine.containers.all:  # noqa: ASYNC110
        await trio.sleep(0.01)
    others = [await bench.start(LOCKED % flag) for _ in range(3)]
    while not all(_waits(bench, run) for run in others):  # noqa: ASYNC110
        await trio.sleep(0.01)
    assert len(bench.engine.containers.all) == 1
    flag.touch()
    for run in (first, *others):
        assert await bench.manager.wait(run) == "success"
    begun = [
        r["t"]
        for run in (first, *others)
        for r in bench.manager.archive.records(run)
        if r["kind"] == "job-started"
    ]
    assert begun == sorted(begun)


def _waits(bench, run_id):
    return bench.manager.inspect(run_id)["jobs"][0]["waits"] == "prod"


async def test_a_lock_comes_back_when_its_holder_is_killed_or_its_waiter_leaves(bench):
    never = bench.sources.parent / "never"
    first = await bench.start(LOCKED % never)
    while not bench.engine.containers.all:  # noqa: ASYNC110
        await trio.sleep(0.01)
    second, third = await bench.start(LOCKED % never), await bench.start(LOCKED % never)
    while not (_waits(bench, second) and _waits(bench, third)):  # noqa: ASYNC110
        await trio.sleep(0.01)
    await bench.manager.cancel(second, kill=False)
    assert await bench.manager.wait(second) == "cancelled"
    await bench.manager.cancel(first, kill=True)
    assert await bench.manager.wait(first) == "cancelled"
    never.touch()
    assert await bench.manager.wait(third) == "success"


async def test_those_who_wait_for_a_lock_get_it_in_order_and_leave_without_harm():
    locks, got = Locks(), []

    async def hold(name):
        async def waits(behind):
            await trio.lowlevel.checkpoint()

        async with locks.hold("x", name, waits):
            got.append((name, locks.holder("x")))
            await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(hold, name)
            await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.001):
            await hold("d")
        await hold("e")
    assert got == [(name, name) for name in "abce"]
    assert locks.holder("x") == ""


GROUP = """
concurrency: {group: "g-${{ inputs.env }}", on-conflict: %s}
inputs: {env: {type: string, default: prod}}
jobs: {a: {steps: [{id: s, run: 'while ! test -e "$F"; do sleep 0.01; done', env: {F: "%s"}}]}}
"""


async def _one_active(bench, mode, flag):
    first = await bench.start(GROUP % (mode, flag))
    while not bench.engine.containers.all:  # noqa: ASYNC110
        await trio.sleep(0.01)
    return first


async def test_runs_of_a_group_wait_for_each_other(bench):
    flag = bench.sources.parent / "flag"
    first = await _one_active(bench, "queue", flag)
    second = await bench.start(GROUP % ("queue", flag))
    while bench.manager.inspect(second)["state"] != "queued":  # noqa: ASYNC110
        await trio.sleep(0.01)
    apart = await bench.start(GROUP % ("queue", flag), env="test")
    while len(bench.engine.containers.all) != 2:  # noqa: ASYNC110
        await trio.sleep(0.01)
    flag.touch()
    for run in (first, second, apart):
        assert await bench.manager.wait(run) == "success"


async def test_a_run_that_waits_for_its_group_can_be_cancelled(bench):
    flag = bench.sources.parent / "flag"
    first = await _one_active(bench, "queue", flag)
    second = await bench.start(GROUP % ("queue", flag))
    while bench.manager.inspect(second)["state"] != "queued":  # noqa: ASYNC110
        await trio.sleep(0.01)
    await bench.manager.cancel(second, kill=False)
    assert await bench.manager.wait(second) == "cancelled"
    flag.touch()
    assert await bench.manager.wait(first) == "success"


async def test_a_new_run_may_cancel_the_one_that_is_active(bench):
    flag = bench.sources.parent / "flag"
    first = await _one_active(bench, "cancel-running", flag)
    second = await bench.start(GROUP % ("cancel-running", flag))
    assert await bench.manager.wait(first) == "cancelled"
    flag.touch()
    assert await bench.manager.wait(second) == "success"


async def test_a_new_run_may_be_refused(bench):
    flag = bench.sources.parent / "flag"
    first = await _one_active(bench, "reject", flag)
    with pytest.raises(Conflict, match=f"run {first} of the group 'g-prod' is active"):
        await bench.start(GROUP % ("reject", flag))
    flag.touch()
    assert await bench.manager.wait(first) == "success"
    assert len(bench.manager.list_runs()) == 1
