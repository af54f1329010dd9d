"""What the runner of pipelines costs, beside programs that run graphs of tasks too.

    .venv/bin/python benchmarks/pipelines.py [--steps 1000] [--graph 10000] [--scenarios 100] [--log 1000]
                                           [--peers FOLDER]

The runner works with the journal on disk. Its steps are a verb that does nothing and says so in its plan: no
process is started. Its pipeline is read and checked before (``benchmarks/lint.py``). Beside them: a verb of the
sdk's fakes that changes something and logs a line, so that each step waits for a sync and has a log of its own;
and a verb that runs ``true`` as a process of this machine with the sdk's ``run_program``, one step after the other
and in two jobs side by side. The language has no such step: its scripts run in containers
(``benchmarks/steps.py``). The verb shows what the runner adds to a process.

Peers run as many tasks in processes of their own, from their start to their end; less what they take for one
task. Reading their tasks is part of it: an iteration of a generator for doit, a line of text for make. ``--peers``
is a venv with ``doit``, ``invoke``, ``luigi`` and ``prefect``; GNU make is the machine's. Each is measured twice:

- with tasks that do nothing. In doit, invoke, luigi and prefect that is a call of an empty function. In make it is
  the recipe ``:``, which make knows to be empty and does not run: measured is that it looks at a target.
- with tasks that run ``true``, in the way that the documentation shows. It is the cheapest recipe that make runs
  at all. Make starts it without a shell; doit and invoke start a shell, whose own ``true`` it is; luigi and
  prefect start the program, as the runner does. Make runs two at a time, doit one or two, the others
  one after the other; beside those with two stands the runner with two jobs.

They promise different things. The runner has a checksummed line in its journal, and with the operating system,
before a step and behind it; on the disk before a step that changes something. It waits for a plugin that it can
cancel and leave behind. Doit writes what was done once, at its end; prefect into a database; make, invoke
and luigi nowhere.

Every line has the time on the clock and the CPU time of all threads and children: beside others on a machine
only the latter says something.
"""

import argparse
import contextlib
import os
import resource
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
from linkspan.sdk.model.process import StreamKind
from linkspan.sdk.model.step import Outputs, StepChange, StepIntent, StepPlan
from linkspan.sdk.programs import run_program
from linkspan.sdk.testing.fakes.step import FakeStep
from linkspan.sdk.testing.host import FakeHost
from linkspan.workflows.creating import NewRun
from linkspan.workflows.manager import RunManager
from linkspan.workflows.masking import Masks
from linkspan.workflows.steplog import LogWriter, StepLog
from linkspan.workflows.verbs import Verbs

SELF, CHILDREN = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
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


class Process(Nothing):
    """A verb that runs ``true``, and says that nothing is to do."""

    async def apply(self, intent: StepIntent, context: StepContext) -> Outputs:
        """Run it."""
        await run_program(["true"])
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
                VerbManifest(name="process", summary="", workspace=False),
            ),
        )
    ]
)
STEP = "{{uses: nothing}}"
PROCESS = "{{uses: process}}"
SAME = "{{uses: set, with: {{key: a, value: b}}}}"
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
    """A manager of runs, and what was spent since its start."""
    async with trio.open_nursery() as nursery:
        engine: Any = _Nothing()
        host = FakeHost(root=folder, nursery=nursery, fake_engine=engine)
        host.drivers["step", "set"] = FakeStep()
        host.drivers["step", "nothing"] = Nothing()
        host.drivers["step", "process"] = Process()
        made = RunManager(host, VERBS, nursery)
        spent = Spent()
        await made.recover()
        yield made, spent
        nursery.cancel_scope.cancel()


class Spent:
    """Seconds since it was made: on the clock, and of the CPU."""

    def __init__(self) -> None:
        self._began = self._now()

    def _now(self) -> tuple[float, float]:
        own, children = (resource.getrusage(who) for who in (SELF, CHILDREN))
        cpu = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
        return time.perf_counter(), cpu

    def __call__(self) -> tuple[float, float]:
        """Both."""
        (wall, cpu), (wall_then, cpu_then) = self._now(), self._began
        return wall - wall_then, cpu - cpu_then


def say(what: str, spent: tuple[float, float], count: int = 0, each: str = "") -> None:
    """Print one line, with the time each of so many took."""
    wall, cpu = spent
    one = f": {wall / count * 1000:.3f} ms a {each}, CPU {cpu / count * 1000:.3f}" if count else ""
    print(f"{what}{one}  (whole: {wall:.2f} s, CPU {cpu:.2f})", flush=True)


async def run(text: str, folder: Path) -> tuple[float, float]:
    """What a run takes from the start of its first job to its end."""
    sources = folder / "sources"
    sources.mkdir(parents=True)
    async with manager(folder / "host") as (runs, _):
        made = await runs.create(NewRun(file="p", text=text, workspace=sources))
        spent = Spent()
        assert await runs.wait(made["id"]) == "success"
        return spent()


def steps(count: int, step: str = STEP, *, jobs: int = 1) -> str:
    """A pipeline of so many steps, in jobs side by side that have as many each."""
    lines = "".join(f"      - {step.format(number=number)}\n" for number in range(count // jobs))
    return "linkspan: v1\njobs:\n" + "".join(f"  j{n}:\n    steps:\n{lines}" for n in range(jobs))


def graph(count: int, *, chain: bool, step: str = STEP) -> str:
    """A pipeline of so many jobs with one step each."""
    lines = [
        f"  j{number}: {{{f'needs: [j{number - 1}], ' if chain and number else ''}steps: [{step.format()}]}}"
        for number in range(count)
    ]
    return "\n".join(("linkspan: v1\njobs:", *lines, ""))


async def resume(count: int, folder: Path) -> tuple[float, float]:
    """What it takes until a daemon that starts knows all of a run of so many steps, and goes on with it."""
    sources = folder / "sources"
    sources.mkdir(parents=True)
    text = steps(count, SAME) + "      - {uses: set, with: {key: '', value: b}}\n"
    async with manager(folder / "host") as (runs, _):
        made = await runs.create(NewRun(file="p", text=text, workspace=sources))
        assert await runs.wait(made["id"]) == "failed"
    async with manager(folder / "host") as (runs, spent):
        await runs.resume("last")
        return spent()


async def flood(megabytes: int, folder: Path) -> tuple[float, float]:
    """What the log of a step takes that writes so much, while a secret must not be in it."""
    line = b"x" * 199 + b"\n"
    masks = Masks()
    masks.add("token", "a secret that is not in it")
    async with trio.open_nursery() as nursery:
        log = StepLog(folder / "log", lambda stream, text: None, masks, LogWriter(nursery))
        spent = Spent()
        for _ in range(megabytes * 1_000_000 // (len(line) * 320)):
            await log.feed(StreamKind.STDOUT, line * 320)
        log.end()
        await log.flush()
        nursery.cancel_scope.cancel()
        return spent()


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


def scenarios(count: int, folder: Path) -> tuple[float, float]:
    """What the command takes for so many scenarios, each with a retry, a crash and a resume."""
    tests = folder / ".linkspan" / "tests"
    tests.mkdir(parents=True)
    (folder / ".linkspan" / "p.yaml").write_text(TESTED)
    for first in range(0, count, 10):
        numbers = range(first, min(first + 10, count))
        body = "".join(SCENARIO.format(number=number) for number in numbers)
        (tests / f"t{first}.yaml").write_text(f"pipeline: p\nscenarios:\n{body}")
    command = Path(sys.executable).with_name("linkspan")
    spent = Spent()
    subprocess.run(
        [command, "workflow", "test"], cwd=folder, check=True, capture_output=True, timeout=600
    )
    return spent()


# peers


def make(count: int, folder: Path, *, process: bool) -> list[str]:
    """GNU make."""
    names = " ".join(f"t{number}" for number in range(count))
    recipe = "@true" if process else "@:"
    rules = "".join(f"t{number}:\n\t{recipe}\n" for number in range(count))
    (folder / "Makefile").write_text(f"all: {names}\n{rules}.PHONY: all {names}\n")
    return ["make", "-s", "-j2", "all"]


def doit(count: int, folder: Path, *, process: bool) -> list[str]:
    """doit."""
    action = "'true'" if process else "nothing"
    (folder / "dodo.py").write_text(
        "def nothing():\n    pass\n\ndef task_t():\n"
        f"    for i in range({count}):\n        yield {{'name': str(i), 'actions': [{action}]}}\n"
    )
    return ["doit", "run"]


def doit_by_two(count: int, folder: Path, *, process: bool) -> list[str]:
    """doit, two tasks at a time."""
    return [*doit(count, folder, process=process), "-n", "2", "-P", "thread"]


def invoke(count: int, folder: Path, *, process: bool) -> list[str]:
    """invoke: all tasks in front of one."""
    body = "c.run('true')" if process else "pass"
    tasks = "".join(f"@task\ndef t{n}(c):\n    {body}\n\n" for n in range(count))
    names = ", ".join(f"t{n}" for n in range(count))
    (folder / "tasks.py").write_text(
        f"from invoke import task\n\n{tasks}\n@task(pre=[{names}])\ndef all(c):\n    pass\n"
    )
    return ["invoke", "all"]


_RUN_TRUE = "subprocess.run(['true'], check=True)"


def luigi(count: int, folder: Path, *, process: bool) -> list[str]:
    """luigi with its local scheduler."""
    body = _RUN_TRUE if process else "pass"
    (folder / "graph.py").write_text(
        "import subprocess\nimport luigi\n\n\nclass T(luigi.Task):\n    n = luigi.IntParameter()\n"
        f"    done = False\n    def run(self):\n        {body}\n        self.done = True\n"
        "    def complete(self):\n        return self.done\n\n\n"
        "class All(luigi.WrapperTask):\n    count = luigi.IntParameter()\n"
        "    def requires(self):\n        return [T(n=i) for i in range(self.count)]\n"
    )
    return ["luigi", "--module", "graph", "All", "--count", str(count), "--local-scheduler"]


def prefect(count: int, folder: Path, *, process: bool) -> list[str]:
    """prefect with its server of its own."""
    body = _RUN_TRUE if process else "pass"
    (folder / "graph.py").write_text(
        "import subprocess\nfrom prefect import flow, task\n\n\n"
        f"@task\ndef nothing():\n    {body}\n\n\n@flow\ndef all_of_them():\n"
        f"    for _ in range({count}):\n        nothing()\n\n\nall_of_them()\n"
    )
    return ["python", "graph.py"]


PEERS = {
    "make": (make, 1),
    "doit": (doit, 1),
    "doit -n 2 -P thread": (doit_by_two, 1),
    "invoke": (invoke, 1),
    "luigi": (luigi, 1),
    # It takes a hundredth of a second and more for each, and many seconds for its start.
    "prefect": (prefect, 2),
}
"""Each, the program's name first, with the part of the tasks that it gets."""


def peer(
    name: str, prepare: Callable[..., list[str]], count: int, venv: Path | None, *, process: bool
) -> tuple[float, float] | None:
    """What so many tasks take less what one takes; None if the peer is not installed."""
    path = os.pathsep.join(([str(venv / "bin")] if venv else []) + [os.environ["PATH"]])
    if shutil.which(name.split()[0], path=path) is None:
        return None
    taken = []
    for size in (1, count):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            words = prepare(size, folder, process=process)
            env = {**os.environ, "PATH": path, "PYTHONPATH": place, "PREFECT_HOME": place}
            env["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "300"
            spent = Spent()
            subprocess.run(words, cwd=folder, env=env, check=True, capture_output=True, timeout=600)
            taken.append(spent())
    return taken[1][0] - taken[0][0], taken[1][1] - taken[0][1]


def own(options: argparse.Namespace, root: Path) -> None:
    """The runner's lines."""
    text = steps(options.steps)
    say("a step", trio.run(run, text, root / "steps"), options.steps, "step")
    text = steps(options.steps, PROCESS)
    say("a step that runs `true`", trio.run(run, text, root / "process"), options.steps, "step")
    text = steps(options.steps, PROCESS, jobs=2)
    spent = trio.run(run, text, root / "two")
    say("a step that runs `true`, in two jobs side by side", spent, options.steps, "step")
    text = steps(options.steps, CHANGING)
    say(
        "a step that changes something and logs a line",
        trio.run(run, text, root / "changing"),
        options.steps,
        "step",
    )
    for shape, chain in (("side by side", False), ("in a chain", True)):
        spent = trio.run(run, graph(options.graph, chain=chain), root / f"graph-{chain}")
        say(f"{options.graph} jobs {shape}", spent, options.graph, "job")
    text = graph(options.graph, chain=True, step=SAME)
    spent = trio.run(run, text, root / "files")
    say(f"{options.graph} jobs in a chain, each with files and a log", spent, options.graph, "job")
    spent = trio.run(resume, options.graph, root / "resume")
    say(f"start and resume after {options.graph} steps", spent)
    spent = scenarios(options.scenarios, root / "scenarios")
    say(f"{options.scenarios} scenarios with a crash each", spent)
    print(f"peak of this process: {resource.getrusage(SELF).ru_maxrss / 1024:.0f} MiB")
    log(options.log, root)


def log(megabytes: int, root: Path) -> None:
    """The log of a step, in a process of its own: its memory is that of the log."""
    child = os.fork()
    if not child:
        before = resource.getrusage(SELF).ru_maxrss
        say(f"a log of {megabytes} MB", trio.run(flood, megabytes, root), megabytes, "MB")
        more = resource.getrusage(SELF).ru_maxrss - before
        print(f"memory for it: {more / 1024:.1f} MiB", flush=True)
        os._exit(0)
    os.waitpid(child, 0)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--graph", type=int, default=10_000)
    parser.add_argument("--scenarios", type=int, default=100)
    parser.add_argument("--log", type=int, default=1000, metavar="MB")
    parser.add_argument("--peers", type=Path)
    options = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.1f}")
    place = Path(".bench")
    place.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.resolve()) as name:
        own(options, Path(name))
    for name, (prepare, part) in PEERS.items():
        for process, what in ((False, name), (True, f"{name}, a process (`true`) a task")):
            count = options.steps // part
            found = peer(name, prepare, count, options.peers, process=process)
            if found is None:
                print(f"{name}: not installed")
            else:
                say(what, found, count - 1, "task")
    print(f"load after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
