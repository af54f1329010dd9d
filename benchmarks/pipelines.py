"""What the runner of pipelines costs, beside programs that run graphs of tasks too.

    .venv/bin/python benchmarks/pipelines.py [--steps 1000] [--graph 10000] [--scenarios 100] [--peers FOLDER]

The runner works with the journal on disk; its steps are a verb of the sdk's fakes, which does nothing. Peers
run as many tasks that do nothing, in processes of their own, from their start to their end; less what they
take for one task. ``--peers`` is a venv with ``doit``, ``invoke`` and ``luigi``; GNU make is the machine's.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import trio

from linkspan.sdk.drivers.base import NoConfig
from linkspan.sdk.drivers.step import Step, StepContext
from linkspan.sdk.host import Host
from linkspan.sdk.manifest import PluginManifest, VerbManifest, VerbSetting
from linkspan.sdk.model.step import Outputs, StepChange, StepIntent, StepPlan
from linkspan.sdk.testing.fakes.step import FakeStep
from linkspan.sdk.testing.host import FakeHost
from linkspan.workflows.creating import NewRun
from linkspan.workflows.manager import RunManager
from linkspan.workflows.verbs import Verbs

NOTHING = StepPlan(changes=(StepChange(action="none", what="nothing"),))


class Nothing(Step[NoConfig]):
    """A verb that does nothing, says so, and logs nothing: what peers' tasks do."""

    config_type = NoConfig

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, config: NoConfig, host: Host) -> AsyncIterator["Nothing"]:
        """Nothing to open."""
        yield cls()

    async def plan(self, intent: StepIntent) -> StepPlan:
        """Nothing is to do."""
        return NOTHING

    async def apply(self, intent: StepIntent, context: StepContext) -> Outputs:
        """Do it."""
        return {}


SETTINGS = {name: VerbSetting(type="string", required=True) for name in ("key", "value")}
VERBS = Verbs(
    [
        PluginManifest(
            name="bench",
            version="1",
            verbs=(
                VerbManifest(
                    name="set", summary="", settings=SETTINGS, outputs=("value", "before")
                ),
                VerbManifest(name="nothing", summary="", workspace=False),
            ),
        )
    ]
)
STEP = "{{uses: nothing}}"
CHANGING = "{{uses: set, with: {{key: a, value: '{number}'}}}}"


class _Nothing:
    """An engine that has nothing."""

    def __getattr__(self, name: str) -> "_Nothing":
        return self

    def list(self, *_: object) -> list[object]:
        return []

    def publish(self, _: object) -> None:
        """Nobody listens."""


@contextlib.asynccontextmanager
async def manager(folder: Path) -> Any:
    """A manager of runs, and the seconds that its start took."""
    async with trio.open_nursery() as nursery:
        engine: Any = _Nothing()
        host = FakeHost(root=folder, nursery=nursery, fake_engine=engine)
        host.drivers["step", "set"] = FakeStep()
        host.drivers["step", "nothing"] = Nothing()
        made = RunManager(host, VERBS, nursery)
        began = time.perf_counter()
        await made.recover()
        yield made, time.perf_counter() - began
        nursery.cancel_scope.cancel()


async def run(text: str, folder: Path) -> tuple[float, str]:
    """Seconds from the start of a run's first job to its end, and its id."""
    sources = folder / "sources"
    sources.mkdir(parents=True)
    async with manager(folder / "host") as (runs, _):
        made = await runs.create(NewRun(file="p", text=text, workspace=sources))
        began = time.perf_counter()
        assert await runs.wait(made["id"]) == "success"
        return time.perf_counter() - began, made["id"]


def steps(count: int, step: str = STEP) -> str:
    """A pipeline of one job with so many steps."""
    lines = "\n".join(f"      - {step.format(number=number)}" for number in range(count))
    return f"linkspan: v1\njobs:\n  a:\n    steps:\n{lines}\n"


def graph(count: int, *, chain: bool) -> str:
    """A pipeline of so many jobs with one step each."""
    lines = [
        f"  j{number}: {{{f'needs: [j{number - 1}], ' if chain and number else ''}steps: [{STEP.format()}]}}"
        for number in range(count)
    ]
    return "\n".join(("linkspan: v1\njobs:", *lines, ""))


async def resume(count: int, folder: Path) -> float:
    """Seconds until a daemon that starts knows all of a run of so many steps, and goes on with it."""
    sources = folder / "sources"
    sources.mkdir(parents=True)
    text = steps(count) + "      - {uses: set, with: {key: '', value: b}}\n"
    async with manager(folder / "host") as (runs, _):
        made = await runs.create(NewRun(file="p", text=text, workspace=sources))
        assert await runs.wait(made["id"]) == "failed"
    async with manager(folder / "host") as (runs, loading):
        began = time.perf_counter()
        await runs.resume("last")
        return loading + time.perf_counter() - began


SCENARIO = """\
  - name: scenario {number}
    steps:
      build/make: [{{exit: 1, log: [again]}}, {{outputs: {{sum: abc}}}}]
      test/unit: {{takes: 1h}}
    crash: {{after: build/make}}
    expect: {{result: success, order: [build/make, test/unit], kept: [build/make]}}
"""
TESTED = """\
linkspan: v1
defaults: {image: alpine}
jobs:
  build: {steps: [{id: make, run: make, retry: {max: 2, backoff: 1m}}]}
  test: {needs: [build], steps: [{id: unit, run: make test}, {id: lint, run: make lint}]}
"""


def scenarios(count: int, folder: Path) -> float:
    """Seconds that the command takes for so many scenarios, each with a retry, a crash and a resume."""
    tests = folder / ".linkspan" / "tests"
    tests.mkdir(parents=True)
    (folder / ".linkspan" / "p.yaml").write_text(TESTED)
    for first in range(0, count, 10):
        numbers = range(first, min(first + 10, count))
        body = "".join(SCENARIO.format(number=number) for number in numbers)
        (tests / f"t{first}.yaml").write_text(f"pipeline: p\nscenarios:\n{body}")
    command = Path(sys.executable).with_name("linkspan")
    began = time.perf_counter()
    subprocess.run(
        [command, "workflow", "test"], cwd=folder, check=True, capture_output=True, timeout=600
    )
    return time.perf_counter() - began


# peers


def make(count: int, folder: Path) -> list[str]:
    """GNU make."""
    names = " ".join(f"t{number}" for number in range(count))
    rules = "".join(f"t{number}:\n\t@:\n" for number in range(count))
    (folder / "Makefile").write_text(f"all: {names}\n{rules}.PHONY: all {names}\n")
    return ["make", "-s", "-j2", "all"]


def doit(count: int, folder: Path) -> list[str]:
    """doit."""
    (folder / "dodo.py").write_text(
        "def nothing():\n    pass\n\ndef task_t():\n"
        f"    for i in range({count}):\n        yield {{'name': str(i), 'actions': [nothing]}}\n"
    )
    return ["doit", "run"]


def invoke(count: int, folder: Path) -> list[str]:
    """invoke: all tasks in front of one."""
    tasks = "".join(f"@task\ndef t{n}(c):\n    pass\n\n" for n in range(count))
    names = ", ".join(f"t{n}" for n in range(count))
    (folder / "tasks.py").write_text(
        f"from invoke import task\n\n{tasks}\n@task(pre=[{names}])\ndef all(c):\n    pass\n"
    )
    return ["invoke", "all"]


def luigi(count: int, folder: Path) -> list[str]:
    """luigi with its local scheduler."""
    (folder / "graph.py").write_text(
        "import luigi\n\n\nclass T(luigi.Task):\n    n = luigi.IntParameter()\n    done = False\n"
        "    def run(self):\n        self.done = True\n    def complete(self):\n        return self.done\n\n\n"
        "class All(luigi.WrapperTask):\n    count = luigi.IntParameter()\n"
        "    def requires(self):\n        return [T(n=i) for i in range(self.count)]\n"
    )
    return ["luigi", "--module", "graph", "All", "--count", str(count), "--local-scheduler"]


Peer = Callable[[int, Path], list[str]]


def peer(prepare: Peer, count: int, venv: Path | None) -> float | None:
    """Milliseconds a task; None if the peer is not installed."""
    path = os.pathsep.join(([str(venv / "bin")] if venv else []) + [os.environ["PATH"]])
    taken = []
    for size in (1, count):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            words = prepare(size, folder)
            if shutil.which(words[0], path=path) is None:
                return None
            began = time.perf_counter()
            subprocess.run(
                words,
                cwd=folder,
                env={**os.environ, "PATH": path, "PYTHONPATH": name},
                check=True,
                capture_output=True,
                timeout=600,
            )
            taken.append(time.perf_counter() - began)
    return (taken[1] - taken[0]) / (count - 1) * 1000


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--graph", type=int, default=10_000)
    parser.add_argument("--scenarios", type=int, default=100)
    parser.add_argument("--peers", type=Path)
    options = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.1f}")
    place = Path(".bench")
    place.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.resolve()) as name:
        root = Path(name)
        took, _ = trio.run(run, steps(options.steps), root / "steps")
        print(f"linkspan, steps one after the other: {took / options.steps * 1000:.2f} ms a step")
        wide, _ = trio.run(run, graph(options.graph, chain=False), root / "wide")
        chain, _ = trio.run(run, graph(options.graph, chain=True), root / "chain")
        for shape, seconds in (("side by side", wide), ("in a chain", chain)):
            each = seconds / options.graph * 1000
            print(f"linkspan, {options.graph} jobs {shape}: {seconds:.1f} s, {each:.2f} ms a job")
        seconds = trio.run(resume, options.graph, root / "resume")
        print(f"linkspan, start and resume after {options.graph} steps: {seconds:.2f} s")
        seconds = scenarios(options.scenarios, root / "scenarios")
        print(f"linkspan, {options.scenarios} scenarios with a crash each: {seconds:.2f} s")
    for prepare in (make, doit, invoke, luigi):
        found = peer(prepare, options.steps, options.peers)
        said = "not installed" if found is None else f"{found:.2f} ms a task"
        print(f"{prepare.__name__}: {said}")
    print(f"load after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
