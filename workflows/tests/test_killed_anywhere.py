"""A run whose daemon is killed at random moments, again and again, ends as one that was never disturbed.

The engine is the sdk's fake, whose containers live on when a daemon dies; the clock is one that jumps, so
that hours of waiting cost nothing. ``LINKSPAN_KILL_SEEDS`` asks for more seeds than the usual ones.
"""

import inspect
import os
import random
import shutil
import tempfile
from pathlib import Path

import attrs
import pytest
import trio

from linkspan.sdk.errors import LinkspanError, Unavailable
from linkspan.sdk.model.step import STEP_LABEL
from linkspan.sdk.testing.fakes.engine import FakeEngine
from linkspan.sdk.testing.fakes.engine_images import make_image
from linkspan.sdk.testing.fakes.machine import FakeMachine
from linkspan.sdk.testing.fakes.secrets import FakeSecrets
from linkspan.sdk.testing.host import FakeHost
from linkspan.workflows import manager
from linkspan.workflows.approvals import Voter
from linkspan.workflows.containers import CONTROL
from linkspan.workflows.creating import NewRun, checked
from linkspan.workflows.journal import JournalFailed
from linkspan.workflows.manager import RunManager
from linkspan.workflows.scenarios.clock import ScenarioClock, wall

SEEDS = int(os.environ.get("LINKSPAN_KILL_SEEDS", "150"))

PIPELINE = """
linkspan: v1
defaults: {image: "img:1"}
env: {WORD: x}
secrets: {TOKEN: {from: file}}
jobs:
  cells:
    strategy: {matrix: {n: ["1", "2"], m: ["a", "b"]}, max-parallel: 3}
    outputs: {v: "${{ steps.s.outputs.value }}"}
    steps: [{id: s, uses: set, with: {name: "cell-${{ matrix.n }}${{ matrix.m }}", value: "${{ env.WORD }}"}}]
  scripts:
    services: {db: {image: "db:1"}}
    outputs: {got: "${{ steps.one.outputs.got }}"}
    steps:
      - {id: one, run: set it, env: {NAME: script, VALUE: x}, timeout: 1h}
      - {id: two, run: set it, env: {NAME: after-script, VALUE: "${{ steps.one.outputs.got }}"}}
  steps:
    lock: only
    steps:
      - {id: behind, background: true, uses: set, with: {name: behind, value: x, takes: 2h}}
      - id: both
        parallel:
          - {id: left, uses: set, with: {name: left, value: x, token: "${{ secrets.TOKEN }}"}, secrets: [TOKEN]}
          - {id: right, uses: set, with: {name: right, value: x, takes: 90s}, timeout: 2m}
      - {wait: [behind]}
      - {id: after, uses: set, with: {name: after, value: "${{ steps.left.outputs.value }}"}}
      - {id: often, retry: {max: 3, backoff: 1h, on: [any]}, uses: set, with: {name: often, value: x}}
  gate:
    needs: [steps]
    steps: [{id: ask, uses: ask, with: {message: "go?"}}]
  other:
    needs: [cells]
    lock: only
    uses: ./other.yaml
    with: {word: "${{ needs.cells.result }}"}
  end:
    needs: [gate, other, scripts]
    steps: [{id: e, uses: set, with: {name: end, value: "${{ needs.other.outputs.got }}"}}]
finally:
  tidy: {steps: [{id: t, uses: set, with: {name: tidy, value: "${{ run.result }}"}}]}
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
    **dict.fromkeys(("behind", "left", "right", "after", "often", "script", "after-script"), "x"),
    **dict.fromkeys(("one", "two", "end", "tidy"), "success"),
}


@attrs.define
class Fate:
    """Whether the daemon that lives now has died."""

    dead: bool = False

    def gate(self, kind, data):
        if self.dead:
            raise JournalFailed("the daemon is dead")


class Mortal:
    """What a daemon calls; nobody hears it any more when it is dead."""

    def __init__(self, inner, fate, parts=()):
        self._inner, self._fate, self._parts = inner, fate, parts

    def __getattr__(self, name):
        value = getattr(self._inner, name)
        if name in self._parts:
            return Mortal(value, self._fate)
        if not inspect.iscoroutinefunction(value):
            return value

        async def call(*args, **kwargs):
            if self._fate.dead:
                raise Unavailable("the daemon is dead")
            return await value(*args, **kwargs)

        return call


class Machine(FakeMachine):
    """Scripts put a value into the world after a while; services run until they are stopped."""

    def __init__(self, nursery, values):
        super().__init__(nursery)
        self.values = values
        self.engine = None

    def program(self, args):
        return self._play

    async def _play(self, process):
        found = next(id_ for id_, each in self.containers.items() if each.init is process)
        container = self.engine.containers.inspect(found)
        if STEP_LABEL not in container.labels:
            await trio.sleep_forever()
        env = dict(pair.split("=", 1) for pair in container.spec.env)
        await process.write(b"at work\n")
        await trio.sleep(600)
        self.values[env["NAME"]] = env["VALUE"]
        folder = next(Path(m.source) for m in container.spec.mounts if m.target == CONTROL)
        if folder.exists():
            (folder / "output").write_text(f"got={env['VALUE']}\n")
        return 0


class KillAt(trio.abc.Instrument):
    """Ends a daemon after so many steps of any task: from then on nothing of it reaches the world."""

    def __init__(self, steps, fate, nursery):
        self.left, self.fate, self.nursery = steps, fate, nursery

    def before_task_step(self, task):
        self.left -= 1
        if self.left == 0:
            self.fate.dead = True
            self.nursery.cancel_scope.cancel()


@attrs.define
class Machines:
    """One machine, with as many daemons one after the other as it takes."""

    folder: Path
    verbs: object
    make_drivers: object
    engine: FakeEngine
    world: object

    async def live(self, kill_after=0):
        """One life: go on with the run as far as it gets; its state, empty if the daemon died."""
        fate = Fate()
        async with trio.open_nursery() as nursery:
            host = FakeHost(root=self.folder / "host", nursery=nursery)
            host.fake_engine = Mortal(self.engine, fate, ("containers", "networks", "images"))
            for name, driver in self.make_drivers(self.world).items():
                host.drivers["step", name] = Mortal(driver, fate)
            host.drivers["secrets", "file"] = FakeSecrets({"TOKEN": "hunter2hunter2"})
            killer = KillAt(kill_after, fate, nursery)
            trio.lowlevel.add_instrument(killer)
            try:
                runs = RunManager(host, self.verbs, nursery, wall=wall, gate=fate.gate)
                await runs.recover()
                return await self._go_on(runs)
            except LinkspanError:
                if not fate.dead:
                    raise
            finally:
                trio.lowlevel.remove_instrument(killer)
                nursery.cancel_scope.cancel()
        return ""

    async def _go_on(self, runs):
        known = runs.list_runs()
        if not known:
            sources = self.folder / "sources"
            others = {"other.yaml": OTHER}
            await runs.create(
                NewRun(file="p.yaml", text=PIPELINE, others=others, workspace=sources)
            )
        elif known[0]["state"] == "interrupted":
            await runs.resume("last")
        while True:
            state = await runs.wait("last")
            if state != "suspended":
                return state
            await runs.answers.decide("last", "approve", Voter(name="ana"))

    async def check(self):
        """All is as it should be, whatever happened on the way."""
        assert self.world.values == END
        assert self.engine.containers.list() == []
        assert [n.name for n in self.engine.networks.list() if n.name.startswith("linkspan-")] == []
        async with trio.open_nursery() as nursery:
            host = FakeHost(root=self.folder / "host", nursery=nursery, fake_engine=self.engine)
            runs = RunManager(host, self.verbs, nursery, wall=wall)
            await runs.recover()
            (run,) = runs.list_runs()
            finished = set()
            for record in runs.archive.records(run["id"]):
                place = (record.get("job"), record.get("step"))
                if record["kind"] == "step-finished" and record["result"] == "success":
                    finished.add(place)
                if record["kind"] == "step-started" and record["job"] != "tidy":
                    # What has succeeded is not done again; what cleans up is, in each attempt.
                    assert place not in finished
            nursery.cancel_scope.cancel()


async def _story(rng, clock, folder, verbs, make_drivers, make_world, lives):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.keep_jumping)
        world = make_world()
        world.failures["often"] = [OSError("once"), OSError("twice")]
        machine = Machine(nursery, world.values)
        machine.engine = engine = FakeEngine(machine)
        for name in ("img:1", "db:1"):
            engine.images.remote[name] = make_image(name)
        test = Machines(folder, verbs, make_drivers, engine, world)
        state = ""
        for _ in range(lives):
            state = await test.live(rng.randrange(1, 480))
        if state != "success":
            state = await test.live()
        assert state == "success"
        await test.check()
        nursery.cancel_scope.cancel()


async def _at_once(work, *args, **_):
    """In place of a worker thread: a seed tells the same story each time, and costs no switches."""
    await trio.lowlevel.checkpoint()
    return work(*args)


_workflows = {}


def _checked(text, others, file, verbs, use):
    """The check of the pipeline, which is the same in each life, once for all of them."""
    if text not in _workflows:
        _workflows[text] = checked(text, others, file, verbs, use)
    return _workflows[text]


@pytest.fixture(scope="module")
def memory():
    """A folder in memory, if there is such a place."""
    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="linkspan-kill-", dir=parent) as name:
        yield Path(name)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_resume_always_reaches_the_same_end(
    memory, seed, verbs, make_drivers, make_world, monkeypatch
):
    # Whether the disk has it is not asked here: it does, the process is what dies.
    monkeypatch.setattr(os, "fdatasync", lambda _: None)
    monkeypatch.setattr(manager, "checked", _checked)
    monkeypatch.setattr(trio.to_thread, "run_sync", _at_once)
    rng, clock = random.Random(seed), ScenarioClock()
    folder = memory / str(seed)
    (folder / "sources").mkdir(parents=True)
    lives = 0 if seed == 0 else rng.randrange(1, 4)
    trio.run(_story, rng, clock, folder, verbs, make_drivers, make_world, lives, clock=clock)
    shutil.rmtree(folder)
