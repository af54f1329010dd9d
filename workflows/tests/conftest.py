"""A host whose containers are processes of this machine, and verbs whose world is a dictionary."""

import functools
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from linkspan.core.http.listeners import open_unix_listener
from linkspan.core.http.routing import RouteTable
from linkspan.core.http.server import serve_http
from linkspan.sdk.drivers.base import NoConfig
from linkspan.sdk.drivers.step import NeedsDecision, Step, StepContext
from linkspan.sdk.errors import Conflict, LinkspanError, NotFound, NotModified
from linkspan.sdk.manifest import PluginManifest, VerbManifest, VerbSetting
from linkspan.sdk.model.container import (
    Container,
    ContainerSpec,
    ContainerState,
    ContainerStatus,
    ExitStatus,
    Health,
    HealthStatus,
)
from linkspan.sdk.model.image import Image, ImageConfig
from linkspan.sdk.model.network import Network
from linkspan.sdk.model.process import Chunk, LogRecord, StreamKind
from linkspan.sdk.model.step import Question, StepChange, StepIntent, StepOutcome, StepPlan
from linkspan.sdk.testing.fakes.secrets import FakeSecrets
from linkspan.sdk.testing.host import FakeHost
from linkspan.workflows.config import WorkflowsConfig
from linkspan.workflows.containers import CONTROL
from linkspan.workflows.creating import NewRun
from linkspan.workflows.manager import RunManager
from linkspan.workflows.routes import Routes
from linkspan.workflows.verbs import Verbs


class _Process:
    """A container: its script runs here, with the workspace as its folder."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.process: trio.Process | None = None
        self.exit: ExitStatus | None = None
        self.exited = trio.Event()
        self.started = trio.Event()
        self.signals: list[str] = []


class _Streams:
    def __init__(self, engine: "FakeContainers", entry: _Process) -> None:
        self._engine = engine
        self._entry = entry

    async def receive(self) -> Chunk | None:
        process = self._entry.process
        assert process is not None
        assert process.stdout is not None
        data = await process.stdout.receive_some()
        if data:
            return Chunk(StreamKind.STDOUT, bytes(data))
        code = await process.wait()
        self._engine.ended(self._entry, code if code >= 0 else 128 - code)
        return None


class FakeContainers:
    def __init__(self, engine: "FakeEngine") -> None:
        self.engine = engine
        self.all: dict[str, _Process] = {}
        self.made: list[ContainerSpec] = []
        self._count = 0

    async def create(self, spec: ContainerSpec, *, name: str = "") -> Container:
        self.engine.images.inspect(spec.image)
        self._count += 1
        made = Container(
            id=f"{self._count:064x}",
            name=name or f"c{self._count}",
            created_at="",
            spec=spec,
            image_id="sha256:0",
            labels=spec.labels,
        )
        self.all[made.id] = _Process(made)
        self.made.append(spec)
        await trio.lowlevel.checkpoint()
        return made

    async def start(self, ref: str) -> None:
        entry = self.all[ref]
        spec = entry.container.spec
        state = ContainerState(status=ContainerStatus.RUNNING)
        if spec.healthcheck is not None and spec.healthcheck.test != ("NONE",):
            state = attrs.evolve(state, health=Health(status=self.engine.health))
        entry.container = attrs.evolve(entry.container, state=state)
        if not spec.mounts or spec.mounts[0].target != "/workspace":
            return
        workspace, control = (Path(mount.source) for mount in spec.mounts[:2])
        env = dict(pair.split("=", 1) for pair in spec.env)
        env["LINKSPAN_OUTPUT"] = str(control / "output")
        args = [arg.replace(CONTROL, str(control)) for arg in spec.entrypoint or ()]
        folder = workspace / spec.working_dir.removeprefix("/workspace").lstrip("/")
        entry.process = await trio.lowlevel.open_process(
            args,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={"PATH": os.environ["PATH"], **env},
            start_new_session=True,
        )
        entry.started.set()

    def ended(self, entry: _Process, code: int) -> None:
        entry.exit = entry.exit or ExitStatus(exit_code=code, oom_killed=code == 137)
        entry.container = attrs.evolve(
            entry.container, state=ContainerState(status=ContainerStatus.EXITED, exit_code=code)
        )
        entry.exited.set()

    @asynccontextmanager
    async def attach(self, ref: str) -> AsyncIterator[_Streams]:
        if ref not in self.all:
            raise NotFound(f"No such container: {ref}")
        entry = self.all[ref]
        await entry.started.wait()
        yield _Streams(self, entry)

    def waiter(self, ref: str, condition: str = "not-running") -> "_Waiter":
        return _Waiter(self.all[ref])

    def inspect(self, ref: str) -> Container:
        return self.all[ref].container

    async def stop(self, ref: str, *, timeout_s: float | None = None, signal: str = "") -> None:
        entry = self.all[ref]
        entry.signals.append("TERM")
        if entry.process is None or entry.process.poll() is not None:
            raise NotModified("it has stopped already")
        _signal(entry, 15)
        with trio.move_on_after(timeout_s or 0):
            await entry.process.wait()
            return
        entry.signals.append("KILL")

    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        if ref not in self.all:
            raise NotFound("No such container")
        entry = self.all.pop(ref)
        if entry.process is not None:
            if entry.process.poll() is None:
                _signal(entry, 9)
            await entry.process.wait()
            assert entry.process.stdout is not None
            await entry.process.stdout.aclose()

    def list(self, query: object = None) -> list[Container]:
        wanted = getattr(query, "labels", ())
        return [
            entry.container
            for entry in self.all.values()
            if all(_has_label(entry.container.labels, label) for label in wanted)
        ]

    @asynccontextmanager
    async def logs(self, ref: str, query: object) -> AsyncIterator[AsyncIterator[LogRecord]]:
        async def records() -> AsyncIterator[LogRecord]:
            yield LogRecord(stream=StreamKind.STDERR, time="", data=b"it cannot start\n")

        yield records()


def _signal(entry: _Process, number: int) -> None:
    assert entry.process is not None
    os.killpg(entry.process.pid, number)


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    name, has_value, value = wanted.partition("=")
    return name in labels and (not has_value or labels[name] == value)


class _Waiter:
    def __init__(self, entry: _Process) -> None:
        self._entry = entry

    async def result(self) -> ExitStatus:
        await self._entry.exited.wait()
        assert self._entry.exit is not None
        return self._entry.exit


class FakeImages:
    def __init__(self) -> None:
        self.here = {"img", "sha256:0"}
        self.pulled: list[str] = []

    def inspect(self, ref: str) -> Image:
        if ref not in self.here:
            raise NotFound(f"No such image: {ref}")
        return Image(id="sha256:0", config=ImageConfig())

    async def pull(self, reference: str, **_: object) -> Image:
        if reference.startswith("missing"):
            raise NotFound(f"no image '{reference}' in its registry")
        self.pulled.append(reference)
        self.here.add(reference)
        await trio.lowlevel.checkpoint()
        return self.inspect(reference)


class FakeNetworks:
    def __init__(self) -> None:
        self.all: dict[str, Network] = {}
        self.made: list[str] = []
        self.specs = []

    async def create(self, spec) -> Network:
        self.specs.append(spec)
        assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", spec.name)
        if spec.name in self.all:
            raise Conflict("name taken", code="name_taken")
        self.all[spec.name] = Network(id=spec.name, spec=spec, created_at="")
        self.made.append(spec.name)
        await trio.lowlevel.checkpoint()
        return self.all[spec.name]

    async def remove(self, ref: str) -> None:
        del self.all[ref]
        await trio.lowlevel.checkpoint()

    def list(self) -> list[Network]:
        return list(self.all.values())


class FakeEvents:
    def __init__(self) -> None:
        self.published = []

    def publish(self, event) -> None:
        self.published.append((event.action, event.attributes.get("result", "")))


class FakeEngine:
    def __init__(self) -> None:
        self.images = FakeImages()
        self.networks = FakeNetworks()
        self.events = FakeEvents()
        self.containers = FakeContainers(self)
        self.health = HealthStatus.HEALTHY


class WorldVerb(Step[NoConfig]):
    """``set``: puts a value under a name; what it can be told to do is in ``with``."""

    def __init__(self, world: "World") -> None:
        self.world = world

    @classmethod
    @asynccontextmanager
    async def open(cls, config, host):
        raise NotImplementedError
        yield

    async def plan(self, intent: StepIntent) -> StepPlan:
        await trio.lowlevel.checkpoint()
        if intent.settings.get("plain"):
            return StepPlan()
        before, after = self.world.values.get(intent.settings["name"]), intent.settings.get("value")
        change = StepChange(
            action="change", what=intent.settings["name"], detail=f"{before} → {after}"
        )
        return StepPlan(changes=(change,), undo={"before": before})

    async def apply(self, intent: StepIntent, context: StepContext) -> Mapping[str, object]:
        name, value = intent.settings["name"], intent.settings.get("value", "")
        self.world.applied.append(intent.step)
        self.world.secrets |= context.secrets
        context.log(f"setting {name} to {value}")
        await trio.lowlevel.checkpoint()
        if (seconds := intent.settings.get("takes")) is not None:
            await trio.sleep(seconds)
        self.world.values[name] = value
        self.world.changed(intent)
        await trio.lowlevel.checkpoint()
        failures = self.world.failures.get(intent.step, [])
        if failures:
            raise failures.pop(0)
        return {"value": value, "settings": dict(intent.settings)}

    async def observe(self, intent: StepIntent) -> StepOutcome:
        await trio.lowlevel.checkpoint()
        self.world.observed.append(intent.step)
        value = intent.settings.get("value", "")
        done = self.world.values.get(intent.settings["name"]) == value
        outputs = {"value": value, "settings": dict(intent.settings)} if done else {}
        return StepOutcome(applied=done, outputs=outputs, detail="looked at the world")

    async def undo(self, intent: StepIntent, context: StepContext) -> Mapping[str, object]:
        await trio.lowlevel.checkpoint()
        self.world.undone.append(intent.step)
        if self.world.undo_fails:
            raise LinkspanError("the world is stuck")
        before = intent.undo["before"]
        if before is None:
            self.world.values.pop(intent.settings["name"], None)
        else:
            self.world.values[intent.settings["name"]] = before
        return {"detail": f"back to {before}"}


class AskVerb(Step[NoConfig]):
    """``ask``: leaves the step to a person."""

    @classmethod
    @asynccontextmanager
    async def open(cls, config, host):
        raise NotImplementedError
        yield

    async def apply(self, intent: StepIntent, context: StepContext) -> Mapping[str, object]:
        await trio.lowlevel.checkpoint()
        wish = dict(intent.settings)
        raise NeedsDecision(
            Question(
                message=wish["message"],
                approvers=tuple(wish.get("approvers", ())),
                minimum=wish.get("minimum", 1),
                timeout_s=wish.get("timeout"),
                on_timeout=wish.get("on-timeout", "reject"),
                show=("plan", "tests"),
            )
        )


class TellVerb(Step[NoConfig]):
    """``tell``: does what cannot be taken back."""

    @classmethod
    @asynccontextmanager
    async def open(cls, config, host):
        raise NotImplementedError
        yield

    async def apply(self, intent: StepIntent, context: StepContext) -> Mapping[str, object]:
        await trio.lowlevel.checkpoint()
        return {}


@attrs.define
class World:
    """What verbs change."""

    values: dict[str, str] = attrs.field(factory=dict)
    applied: list[str] = attrs.field(factory=list)
    undone: list[str] = attrs.field(factory=list)
    observed: list[str] = attrs.field(factory=list)
    failures: dict[str, list[Exception]] = attrs.field(factory=dict)
    undo_fails: bool = False
    clock_moved: float = 0.0
    secrets: dict[str, str] = attrs.field(factory=dict)
    changed: Callable[[StepIntent], None] = attrs.field(default=lambda intent: None)


VERBS = Verbs(
    [
        PluginManifest(
            name="world",
            version="1",
            verbs=(
                VerbManifest(
                    name="set",
                    summary="",
                    settings={
                        "name": VerbSetting(type="string", required=True),
                        "value": VerbSetting(type="string", default=""),
                        "takes": VerbSetting(type="duration"),
                        "number": VerbSetting(type="int"),
                        "plain": VerbSetting(type="bool"),
                        "token": VerbSetting(type="string", secret=True),
                        "secrets": VerbSetting(type="secrets"),
                    },
                    outputs=("value", "settings"),
                ),
                VerbManifest(
                    name="note",
                    summary="",
                    settings={
                        "name": VerbSetting(type="string", required=True),
                        "value": VerbSetting(type="string", default=""),
                    },
                    outputs=("value", "settings"),
                    workspace=False,
                ),
                VerbManifest(
                    name="ask",
                    summary="",
                    settings={
                        "message": VerbSetting(type="string", required=True),
                        "approvers": VerbSetting(type="list"),
                        "minimum": VerbSetting(type="int"),
                        "timeout": VerbSetting(type="duration"),
                        "on-timeout": VerbSetting(type="string"),
                    },
                    outputs=("by", "comment"),
                    undo="needless",
                ),
                VerbManifest(name="tell", summary="", undo="impossible", workspace=False),
            ),
        )
    ]
)


@attrs.define
class Bench:
    """A manager with all around it."""

    host: FakeHost
    engine: FakeEngine
    world: World
    manager: RunManager
    sources: Path

    others: dict[str, str] = attrs.field(factory=dict)

    async def start(self, jobs: str, *, breaks: tuple[str, ...] = (), **inputs: str) -> str:
        text = jobs if "linkspan:" in jobs else f"linkspan: v1\ndefaults: {{image: img}}\n{jobs}"
        new = NewRun(
            file="p.yaml",
            text=text,
            others=self.others,
            workspace=self.sources,
            inputs=inputs,
            breaks=breaks,
        )
        return (await self.manager.create(new))["id"]

    def files(self, run_id: str, suffix: str = "") -> list[Path]:
        """What is kept of a run; its workspaces may go meanwhile, which ``rglob`` would mind."""
        kept = os.walk(self.host.state_dir / "runs" / run_id)
        return [Path(at, name) for at, _, names in kept for name in names if name.endswith(suffix)]

    async def run(self, jobs: str, **inputs: str) -> dict:
        run_id = await self.start(jobs, **inputs)
        await self.manager.wait(run_id)
        return self.manager.inspect(run_id)

    async def resume(self, run_id: str) -> dict:
        await self.manager.resume(run_id)
        await self.manager.wait(run_id)
        return self.manager.inspect(run_id)


def results(run: dict) -> dict[str, str]:
    """``job`` and ``job/step`` → state."""
    found = {}
    for job in run["jobs"]:
        found[job["id"]] = job["state"]
        found |= {f"{job['id']}/{step['id']}": step["state"] for step in job["steps"]}
    return found


@pytest.fixture
def summarise():
    return results


@pytest.fixture
def verbs():
    return VERBS


@pytest.fixture
def make_world():
    return World


@pytest.fixture
def make_drivers():
    """The verbs, acting upon a world."""
    return lambda world: {"set": WorldVerb(world), "ask": AskVerb()}


@pytest.fixture
def make_bench(tmp_path):
    """Makes benches that share one folder and one world, as daemons one after the other do."""
    world, engine = World(), FakeEngine()
    secrets = FakeSecrets({})
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "hello.txt").write_text("hello\n")

    async def make(nursery: trio.Nursery, config: WorkflowsConfig | None = None) -> Bench:
        host = FakeHost(root=tmp_path / "host", nursery=nursery, fake_engine=engine)
        host.drivers["step", "set"] = WorldVerb(world)
        host.drivers["step", "note"] = WorldVerb(world)
        host.drivers["step", "ask"] = AskVerb()
        host.drivers["step", "tell"] = TellVerb()
        host.drivers["secrets", ""] = host.drivers["secrets", "file"] = secrets
        manager = RunManager(
            host,
            VERBS,
            nursery,
            wall=lambda: time.time() + world.clock_moved,
            config=config,
        )
        await manager.recover()
        return Bench(host, engine, world, manager, sources)

    return make


@pytest.fixture
async def bench(make_bench, nursery):
    return await make_bench(nursery)


@attrs.define
class Shell:
    """Runs ``linkspan workflow …`` in a folder of its own."""

    url: str
    folder: Path
    bench: object

    def command(self, *words: str) -> list[str]:
        code = "import sys; from linkspan.core.cli.main import main; sys.exit(main())"
        return [sys.executable, "-c", code, "--host", self.url, "workflow", *words]

    @property
    def environ(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k not in ("CI", "NO_COLOR", "FORCE_COLOR")}
        return {
            **kept,
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "PYTHONUTF8": "1",
            "TZ": "UTC",
        }

    async def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        run = functools.partial(
            trio.run_process,
            self.command(*words),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            cwd=self.folder,
            env=self.environ,
        )
        done = await run()
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    def write(self, text: str, name: str = "p.yaml") -> None:
        (self.folder / name).write_text(f"linkspan: v1\ndefaults: {{image: img}}\n{text}")


@pytest.fixture
async def shell(bench, nursery, tmp_path):
    path = tmp_path / "s"
    routes = RouteTable()
    Routes(lambda: bench.manager).register(routes)
    listener = await open_unix_listener(str(path))
    await nursery.start(serve_http, [listener], routes)
    folder = tmp_path / "project"
    folder.mkdir()
    yield Shell(f"unix://{path}", folder, bench)
    nursery.cancel_scope.cancel()
