"""Scripts and services on the real engine, with the sdk's fakes as its drivers."""

from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio

from linkspan.core.engine.drivers import Drivers
from linkspan.core.engine.engine import Engine
from linkspan.core.engine.supervisor import Supervisor
from linkspan.core.events.bus import EventBus
from linkspan.core.plugins.hooks import HookRunner
from linkspan.core.store.records import open_records
from linkspan.sdk.drivers.base import NoConfig
from linkspan.sdk.host import NewImage
from linkspan.sdk.model.process import StreamKind
from linkspan.sdk.testing.fakes.content import FakeContent
from linkspan.sdk.testing.fakes.machine import FakeMachine
from linkspan.sdk.testing.fakes.network import FakeNetwork
from linkspan.sdk.testing.fakes.registry import FakeRegistry
from linkspan.sdk.testing.fakes.runtime import FakeRuntime, FakeRuntimeConfig
from linkspan.sdk.testing.fakes.snapshots import FakeSnapshots
from linkspan.sdk.testing.host import FakeHost
from linkspan.workflows.creating import NewRun
from linkspan.workflows.manager import RunManager
from linkspan.workflows.verbs import Verbs

pytestmark = pytest.mark.integration

CONFIG = (
    b'{"os":"linux","architecture":"amd64","config":{"Cmd":["sleep","60"]},'
    b'"rootfs":{"type":"layers","diff_ids":[]}}'
)


class Bench:
    def __init__(self, machine: FakeMachine) -> None:
        self.machine = machine
        self.scripts: list[dict[str, str]] = []
        self.stopped: list[int] = []

    async def shell(self, process) -> int:
        """What a script does is told by its environment."""
        env = dict(pair.split("=", 1) for pair in process.spec.env)
        self.scripts.append({**env, "args": " ".join(process.spec.args), "cwd": process.spec.cwd})
        await process.write(f"hello from {env['JOB_ID']}\n".encode(), StreamKind.STDOUT)
        if "SLEEP" in env:
            process.trapped.add(15)
            self.stopped.append(await process.next_signal())
            return 0
        return int(env.get("EXIT", "0"))


@pytest.fixture
async def machine(nursery):
    return FakeMachine(nursery)


@pytest.fixture
async def bench(tmp_path, machine):
    bench = Bench(machine)
    machine.programs["sh"] = bench.shell
    sources = tmp_path / "sources"
    sources.mkdir()
    async with _engine(tmp_path, machine) as (engine, nursery):
        await engine.images.add(NewImage(config=CONFIG, chain_ids=()), tags=["img:latest"])
        host = FakeHost(root=tmp_path / "host", nursery=nursery, fake_engine=engine)
        bench.engine = engine
        bench.manager = RunManager(host, Verbs([]), nursery)
        await bench.manager.recover()

        async def start(jobs: str) -> str:
            text = f"linkspan: v1\ndefaults: {{image: img}}\n{jobs}"
            made = await bench.manager.create(NewRun(file="p", text=text, workspace=sources))
            return made["id"]

        bench.start = start
        yield bench


@asynccontextmanager
async def _engine(tmp_path, machine):
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        drivers = Drivers()
        for role, name, kind, config in (
            ("runtime", "fake", FakeRuntime, FakeRuntimeConfig(machine=machine)),
            ("content", "fake", FakeContent, NoConfig()),
            ("snapshots", "fake", FakeSnapshots, NoConfig()),
            ("registry", "fake", FakeRegistry, NoConfig()),
            ("network", "bridge", FakeNetwork, NoConfig()),
        ):
            host = FakeHost(root=tmp_path / f"{role}-{name}", nursery=nursery)
            driver = await stack.enter_async_context(kind.open(config, host))
            await driver.recover()
            drivers.add(role, name, driver)
            drivers.chosen.setdefault(role, name)
        records = await stack.enter_async_context(open_records(tmp_path / "linkspan.db"))
        engine = Engine(
            records=records,
            drivers=drivers,
            hooks=HookRunner(),
            supervisor=Supervisor(nursery),
            bus=EventBus(),
            data_root=tmp_path,
            exec_root=tmp_path / "run",
        )
        await engine.recover()
        yield engine, nursery
        nursery.cancel_scope.cancel()


async def test_a_script_runs_in_a_container_that_is_gone_afterwards(bench):
    run_id = await bench.start("jobs: {a: {steps: [{id: s, run: echo, env: {X: y}}]}}")
    assert await bench.manager.wait(run_id) == "success"
    (script,) = bench.scripts
    assert script["args"] == "/bin/sh -e /run/linkspan-step/script"
    assert (script["cwd"], script["X"], script["LINKSPAN"]) == ("/workspace", "y", "true")
    ((_, _, log),) = bench.manager.log_files(run_id, "a", "s")
    assert log.read_text().endswith("o hello from a\n")
    assert list(bench.engine.containers.list()) == []
    assert [n.name for n in bench.engine.networks.list() if "linkspan" in n.name] == []


async def test_a_failing_script_fails_the_step_with_its_exit_code(bench):
    run_id = await bench.start("jobs: {a: {steps: [{id: s, run: x, env: {EXIT: '4'}}]}}")
    assert await bench.manager.wait(run_id) == "failed"
    step = bench.manager.inspect(run_id)["jobs"][0]["steps"][0]
    assert step["error"]["message"] == "the script ended with exit code 4"
    assert step["tail"] == ["hello from a"]


async def test_a_cancelled_script_gets_sigterm_and_its_container_is_gone(bench):
    run_id = await bench.start("jobs: {a: {steps: [{id: s, run: x, env: {SLEEP: '1'}}]}}")
    while not bench.scripts:  # noqa: ASYNC110
        await trio.sleep(0.01)
    await bench.manager.cancel(run_id, kill=False)
    assert await bench.manager.wait(run_id) == "cancelled"
    assert bench.stopped == [15]
    assert list(bench.engine.containers.list()) == []


async def test_services_run_beside_the_scripts(bench):
    run_id = await bench.start("""
jobs:
  a:
    services: {db: {image: img, command: [sleep, "60"]}}
    steps: [{id: s, run: x, env: {DB: "${{ services.db.host }}"}}]
""")
    assert await bench.manager.wait(run_id) == "success", bench.manager.inspect(run_id)
    assert bench.scripts[0]["DB"] == "db"
    assert list(bench.engine.containers.list()) == []
