"""An engine on the sdk's fakes; ``machine`` survives it, as containers survive a daemon."""

import gzip
import io
import json
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from linkspan.core.engine.drivers import Drivers
from linkspan.core.engine.engine import Engine
from linkspan.core.engine.supervisor import Supervisor
from linkspan.core.events.bus import EventBus
from linkspan.core.plugins.hooks import HookRunner
from linkspan.core.store.records import open_records
from linkspan.sdk.drivers.base import NoConfig
from linkspan.sdk.media_types import DOCKER_CONFIG, DOCKER_LAYER_GZIP, DOCKER_MANIFEST
from linkspan.sdk.testing.fakes.content import FakeContent
from linkspan.sdk.testing.fakes.machine import FakeMachine
from linkspan.sdk.testing.fakes.network import FakeNetwork
from linkspan.sdk.testing.fakes.registry import FakeRegistry, FakeRepository, digest_of
from linkspan.sdk.testing.fakes.runtime import FakeRuntime, FakeRuntimeConfig
from linkspan.sdk.testing.fakes.snapshots import FakeSnapshots
from linkspan.sdk.testing.host import FakeHost

IMAGE = "registry.test/app:1"


@attrs.define
class World:
    """An engine and what it stands on."""

    engine: Engine
    machine: FakeMachine
    registry: FakeRegistry
    network: FakeNetwork
    snapshots: FakeSnapshots
    content: FakeContent
    hooks: HookRunner
    said: list[str]


def layer(files: dict[str, bytes]) -> bytes:
    """A tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def serve_image(
    registry: FakeRegistry,
    tars: list[bytes],
    *,
    name: str = "registry.test/app",
    tag: str = "1",
    config: dict[str, object] | None = None,
) -> FakeRepository:
    """Put an image into a fake registry."""
    repository = registry.repositories.setdefault(name, FakeRepository())
    blobs = [gzip.compress(tar, mtime=0) for tar in tars]
    document = {
        "os": "linux",
        "architecture": "amd64",
        "config": {"Cmd": ["sleep", "60"], "Env": ["A=1"], **(config or {})},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
    }
    data = json.dumps(document).encode()
    for blob in (*blobs, data):
        repository.blobs[digest_of(blob)] = blob
    manifest = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": {"mediaType": DOCKER_CONFIG, "size": len(data), "digest": digest_of(data)},
        "layers": [
            {"mediaType": DOCKER_LAYER_GZIP, "size": len(b), "digest": digest_of(b)} for b in blobs
        ],
    }
    repository.put_manifest(tag, DOCKER_MANIFEST, json.dumps(manifest).encode())
    return repository


@pytest.fixture
async def machine() -> AsyncIterator[FakeMachine]:
    async with trio.open_nursery() as nursery:
        yield FakeMachine(nursery)
        nursery.cancel_scope.cancel()


@pytest.fixture
def open_world(tmp_path: Path, machine: FakeMachine):
    """Start an engine on the same folders and machine, as often as a test likes."""

    @asynccontextmanager
    async def start() -> AsyncIterator[World]:
        async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
            supervisor = Supervisor(nursery)
            drivers = Drivers()

            async def add(role: str, name: str, kind: type, config: object) -> object:
                host = FakeHost(root=tmp_path / f"{role}-{name}", nursery=nursery)
                driver = await stack.enter_async_context(kind.open(config, host))
                await driver.recover()
                drivers.add(role, name, driver)
                drivers.chosen.setdefault(role, name)
                return driver

            await add("runtime", "fake", FakeRuntime, FakeRuntimeConfig(machine=machine))
            content = await add("content", "fake", FakeContent, NoConfig())
            snapshots = await add("snapshots", "fake", FakeSnapshots, NoConfig())
            registry = await add("registry", "fake", FakeRegistry, NoConfig())
            network = await add("network", "bridge", FakeNetwork, NoConfig())
            records = await stack.enter_async_context(open_records(tmp_path / "linkspan.db"))
            hooks = HookRunner()
            engine = Engine(
                records=records,
                drivers=drivers,
                hooks=hooks,
                supervisor=supervisor,
                bus=EventBus(),
                data_root=tmp_path,
                exec_root=tmp_path / "run",
            )
            said = list(await engine.recover())
            serve_image(registry, [layer({"bin/app": b"program"}), layer({"etc/x": b"y"})])
            yield World(engine, machine, registry, network, snapshots, content, hooks, said)
            nursery.cancel_scope.cancel()

    return start


@pytest.fixture
async def world(open_world) -> AsyncIterator[World]:
    async with open_world() as made:
        await made.engine.images.pull(IMAGE)
        yield made


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    with trio.fail_after(5):
        # What is waited for is the machine's doing; it has no event to offer.
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.005)
