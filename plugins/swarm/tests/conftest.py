"""A daemon of fakes: the real orchestrator on an engine, a store and networks in memory.

What outlives a daemon (containers, images, the store, the kernel's rules) lives in ``World``; a daemon is
one orchestrator on it, and can be killed at any moment. Times are the test clock's.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from linkspan.plugins.swarm.config import SwarmConfig
from linkspan.plugins.swarm.driver import SwarmOrchestrator
from linkspan.sdk.drivers.orchestrator import RolloutProgress
from linkspan.sdk.drivers.state import Operation
from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.model.container import Container, ContainerFilter, ContainerSpec
from linkspan.sdk.model.network import Backend, PortBinding
from linkspan.sdk.model.service import (
    Service,
    ServicePort,
    ServiceRestart,
    ServiceSpec,
    Task,
    TaskState,
    UpdatePolicy,
)
from linkspan.sdk.testing.fakes.engine import FakeEngine
from linkspan.sdk.testing.fakes.engine_images import make_image
from linkspan.sdk.testing.fakes.machine import FakeMachine, FakeProcess
from linkspan.sdk.testing.fakes.network import FakeNetwork
from linkspan.sdk.testing.fakes.scheduler import FakeScheduler
from linkspan.sdk.testing.fakes.state import FakeState
from linkspan.sdk.testing.host import FakeHost

EPOCH = 1_700_000_000.0


class Network(FakeNetwork):
    """Remembers what it was told, and fails when a test says so."""

    def __init__(self, host: FakeHost) -> None:
        super().__init__(host)
        self.broken: LinkspanError | None = None
        self.calls: list[tuple[str, int, int]] = []

    async def balance(self, port: PortBinding, backends: tuple[Backend, ...]) -> PortBinding:
        if self.broken is not None:
            raise self.broken
        self.calls.append(("balance", port.host_port, len(backends)))
        return await super().balance(port, backends)

    async def unbalance(self, port: PortBinding) -> None:
        if self.broken is not None:
            raise self.broken
        self.calls.append(("unbalance", port.host_port, 0))
        await super().unbalance(port)

    def backends(self, port: int) -> list[str]:
        return [b.address for b in self.balanced.get(("tcp", port), ())]


class Store(FakeState):
    """Dies with the daemon's commit number ``dies_at``: before it is written, or right after."""

    commits = 0
    dies_at = -1
    dies_after = False
    die: Callable[[], None] = staticmethod(lambda: None)

    async def commit(self, *operations: Operation) -> int:
        self.commits += 1
        dying = self.commits == self.dies_at
        if dying and not self.dies_after:
            self.die()
            await trio.lowlevel.cancel_shielded_checkpoint()
            raise _Dead
        revision = await super().commit(*operations)
        if dying:
            self.die()
            raise _Dead
        return revision


class _Dead(BaseException):
    """Stands for SIGKILL: no handler of ours sees it as an error."""


async def cat_until_told(process: FakeProcess) -> int:
    """Runs until it gets SIGTERM."""
    await process.write(b"up\n")
    await trio.sleep_forever()
    return 0


async def fail(process: FakeProcess) -> int:
    await process.write(b"no config\n")
    return 3


async def done(process: FakeProcess) -> int:
    return 0


class World:
    """What outlives a daemon."""

    def __init__(self, root: Path, nursery: trio.Nursery) -> None:
        self.root = root
        self.labels: tuple[str, ...] = ()
        self.generic_resources: tuple[str, ...] = ()
        self.machine = FakeMachine(nursery)
        self.machine.programs.update(serve=cat_until_told, fail=fail, done=done)
        self.engine = FakeEngine(self.machine)
        self.state = Store()
        self.network = Network(FakeHost(root=root, nursery=nursery))
        for name, command in (("app:1", "serve"), ("app:2", "serve"), ("bad:1", "fail")):
            self.engine.images.put(make_image(name, command=(command,), labels={"v": name}))

    @asynccontextmanager
    async def daemon(self) -> AsyncIterator["Daemon"]:
        """A daemon until the context ends; containers go on."""
        async with trio.open_nursery() as nursery:
            host = FakeHost(
                root=self.root,
                nursery=nursery,
                fake_engine=self.engine,
                labels=self.labels,
                generic_resources=self.generic_resources,
            )
            host.drivers["state", ""] = self.state
            host.drivers["network", ""] = self.network
            host.drivers["scheduler", ""] = FakeScheduler()
            swarm = SwarmOrchestrator(SwarmConfig(), host, now=lambda: EPOCH + trio.current_time())
            await swarm.start()
            yield Daemon(self, host, swarm)
            nursery.cancel_scope.cancel()

    async def daemon_that_dies(
        self, commit: int, *, after: bool, work: Callable[["Daemon"], Any]
    ) -> bool:
        """Run work on a daemon that is killed in a commit; whether it came to that."""
        scope = trio.CancelScope()
        self.state.commits, self.state.dies_at, self.state.dies_after = 0, commit, after
        self.state.die = scope.cancel
        try:
            with scope:
                async with self.daemon() as daemon:
                    await work(daemon)
        except BaseExceptionGroup as group:
            _, rest = group.split(_Dead)
            if rest is not None:
                raise
        except _Dead:
            pass
        died = self.state.commits >= commit
        self.state.dies_at = -1
        return died

    spec = staticmethod(lambda *args, **facts: spec(*args, **facts))
    port = staticmethod(lambda *args, **facts: port(*args, **facts))

    def containers(self) -> list[Container]:
        return list(self.engine.containers.list(ContainerFilter(all=True)))

    def running(self) -> list[Container]:
        return [c for c in self.containers() if c.state.running]


@attrs.frozen
class Daemon:
    """An orchestrator and what tests ask it."""

    world: World
    host: FakeHost
    swarm: SwarmOrchestrator

    async def until_done(self, service: str = "web") -> RolloutProgress:
        with trio.fail_after(600):
            async with self.swarm.rollout(service) as moments:
                async for moment in moments:
                    last = moment
        return last

    async def tasks(self, service: str = "web", state: TaskState | None = None) -> list[Task]:
        found = await self.swarm.list_tasks(service=service)
        return [t for t in found if state is None or t.state is state]

    async def running(self, service: str = "web") -> list[Task]:
        return await self.tasks(service, TaskState.RUNNING)

    async def until(self, condition: Callable[[], Any]) -> None:
        """Poll, in the test clock's time."""
        with trio.fail_after(600):
            while not await _value(condition):  # noqa: ASYNC110 - whatever a test asks for
                await trio.sleep(0.05)

    async def create(self, image: str = "app:1", **facts: Any) -> Service:
        """A service ``web``, up."""
        service = await self.swarm.create_service(spec(image, **facts))
        await self.until_done(service.id)
        return service

    async def update(self, **facts: Any) -> None:
        """Want something else of ``web``; ``image`` is its container's."""
        before = (await self.swarm.get_service("web")).spec
        if "image" in facts:
            facts["container"] = attrs.evolve(before.container, image=facts.pop("image"))
        await self.swarm.update_service("web", attrs.evolve(before, **facts))


async def _value(condition: Callable[[], Any]) -> Any:
    found = condition()
    return await found if hasattr(found, "__await__") else found


def spec(image: str = "app:1", **facts: Any) -> ServiceSpec:
    """A service ``web`` that is quick."""
    defaults: dict[str, Any] = {
        "name": "web",
        "container": ContainerSpec(image=image),
        "restart": ServiceRestart(delay_s=0.5),
        "update": UpdatePolicy(monitor_s=1, order="start-first"),
        "rollback": UpdatePolicy(monitor_s=1, order="start-first"),
    }
    return ServiceSpec(**{**defaults, **facts})


def port(published: int = 8080, target: int = 80, **facts: Any) -> ServicePort:
    return ServicePort(target_port=target, published_port=published, **facts)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        yield World(tmp_path, nursery)
        nursery.cancel_scope.cancel()


@pytest.fixture
async def daemon(world: World) -> AsyncIterator[Daemon]:
    async with world.daemon() as daemon:
        await daemon.swarm.init()
        yield daemon
