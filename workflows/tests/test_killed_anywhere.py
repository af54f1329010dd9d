"""A run that is killed at random moments, again and again, ends as one that was never disturbed."""

import os
import random

import pytest
import trio

from linkspan.workflows.approvals import Voter

PIPELINE = """
env: {WORD: x}
jobs:
  cells:
    strategy: {matrix: {n: ["1", "2"], m: ["a", "b"]}, max-parallel: 3}
    outputs: {v: "${{ steps.s.outputs.value }}"}
    steps: [{id: s, uses: set, with: {name: "cell-${{ matrix.n }}${{ matrix.m }}", value: "${{ env.WORD }}"}}]
  steps:
    lock: only
    steps:
      - {id: behind, background: true, uses: set, with: {name: behind, value: x}}
      - id: both
        parallel:
          - {id: left, uses: set, with: {name: left, value: x}}
          - {id: right, uses: set, with: {name: right, value: x}}
      - {wait: [behind]}
      - {id: after, uses: set, with: {name: after, value: "${{ steps.left.outputs.value }}"}}
  gate:
    needs: [steps]
    steps: [{id: ask, uses: ask, with: {message: "go?"}}]
  other:
    needs: [cells]
    lock: only
    uses: ./other.yaml
    with: {word: "${{ needs.cells.result }}"}
  end:
    needs: [gate, other]
    steps: [{id: e, uses: set, with: {name: end, value: "${{ needs.other.outputs.got }}"}}]
"""
OTHER = """
linkspan: v1
inputs: {word: {type: string, required: true}}
jobs:
  one:
    outputs: {v: "${{ steps.o.outputs.value }}"}
    steps: [{id: o, uses: set, with: {name: one, value: "${{ inputs.word }}"}}]
  two: {needs: [one], steps: [{id: t, uses: set, with: {name: two, value: "${{ needs.one.outputs.v }}"}}]}
outputs: {got: "${{ needs.one.outputs.v }}"}
"""
END = {
    **{f"cell-{n}{m}": "x" for n in "12" for m in "ab"},
    **dict.fromkeys(("behind", "left", "right", "after"), "x"),
    **{"one": "success", "two": "success", "end": "success"},
}


class _KillAt(trio.abc.Instrument):
    """Raises the curtain after so many steps of any task: from then on nothing reaches the disk."""

    def __init__(self, steps, nursery):
        self.left = steps
        self.nursery = nursery

    def before_task_step(self, task):
        self.left -= 1
        if self.left == 0:
            self.nursery.cancel_scope.cancel()


async def live(make_bench, rng, *, killed):
    """One life of a daemon: go on with the run as far as it gets; its state at the end, empty if dead."""
    async with trio.open_nursery() as nursery:
        bench = await make_bench(nursery)
        bench.others["other.yaml"] = OTHER
        if killed:
            trio.lowlevel.add_instrument(killer := _KillAt(rng.randrange(1, 2500), nursery))
        try:
            return await _go_on(bench)
        finally:
            if killed:
                trio.lowlevel.remove_instrument(killer)
            nursery.cancel_scope.cancel()
    return ""


async def _go_on(bench):
    runs = bench.manager.list_runs()
    if not runs:
        await bench.start(PIPELINE)
    elif runs[0]["state"] == "interrupted":
        await bench.manager.resume("last")
    while True:
        state = await bench.manager.wait("last")
        if state != "suspended":
            return state
        await bench.manager.decide("last", "approve", Voter(name="ana"))


@pytest.mark.parametrize("seed", range(200))
async def test_resume_always_reaches_the_same_end(make_bench, seed, monkeypatch):
    # Whether the disk has it is not asked here: it does, the process is what dies.
    monkeypatch.setattr(os, "fdatasync", lambda _: None)
    rng = random.Random(seed)
    state = ""
    for _ in range(rng.randrange(1, 4)):
        state = await live(make_bench, rng, killed=True)
    if state != "success":
        state = await live(make_bench, rng, killed=False)
    assert state == "success"
    async with trio.open_nursery() as nursery:
        bench = await make_bench(nursery)
        assert bench.world.values == END
        assert len(bench.manager.list_runs()) == 1
        nursery.cancel_scope.cancel()
