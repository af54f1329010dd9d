"""Our registry client and our registry server together: the kit, and lines and servers that break."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from linkspan.plugins.distribution_registry.config import DistributionConfig
from linkspan.plugins.distribution_registry.driver import DistributionRegistry
from linkspan.plugins.registry_server.component import serve_registry
from linkspan.plugins.registry_server.config import RegistryServerConfig
from linkspan.sdk.drivers.registry import Registry
from linkspan.sdk.errors import Unavailable
from linkspan.sdk.media_types import OCI_CONFIG, OCI_MANIFEST
from linkspan.sdk.model.image import Credentials
from linkspan.sdk.reference import parse_reference
from linkspan.sdk.testing.conformance.registry import (
    HttpRemote,
    RegistryConformance,
    describe,
    sha256,
    source_of,
)
from linkspan.sdk.testing.host import FakeHost

pytestmark = pytest.mark.integration

ANONYMOUS = Credentials()
BLOB = os.urandom(5 << 20)


@pytest.fixture
def config(tmp_path: Path) -> DistributionConfig:
    return DistributionConfig(docker_config=tmp_path / "none.json", retry_delay_s=0.01)


@pytest.fixture
async def remote(tmp_path: Path) -> AsyncIterator[HttpRemote]:
    async with trio.open_nursery() as nursery:
        host = FakeHost(root=tmp_path / "server", nursery=nursery)
        config = RegistryServerConfig(listen="127.0.0.1:0")
        yield HttpRemote(await nursery.start(serve_registry, config, host))
        nursery.cancel_scope.cancel()


class TestOwnRegistry(RegistryConformance):
    driver: type[Registry[Any]] = DistributionRegistry

    @pytest.fixture
    def config(self, config: DistributionConfig) -> DistributionConfig:
        return config

    @pytest.fixture
    async def remote(self, remote: HttpRemote) -> HttpRemote:
        return remote


@attrs.define
class Cutter:
    """A relay that breaks each of the first connections after some bytes.

    Attributes:
        limits: Bytes each connection lets through in all, both ways; later ones are not limited.
    """

    target: str
    limits: list[int]
    address: str = ""
    cuts: int = 0

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.address = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        await trio.serve_listeners(self.relay, listeners, task_status=task_status)  # type: ignore[arg-type]

    async def relay(self, client: trio.SocketStream) -> None:
        host, _, port = self.target.rpartition(":")
        server = await trio.open_tcp_stream(host, int(port))
        left = self.limits.pop(0) if self.limits else sys.maxsize

        async def pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
            nonlocal left
            try:
                async for part in source:
                    passed = part[:left]
                    left -= len(passed)
                    await sink.send_all(passed)
                    if left <= 0:
                        self.cuts += 1
                        break
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            nursery.cancel_scope.cancel()

        async with client, server, trio.open_nursery() as nursery:
            nursery.start_soon(pump, client, server)
            nursery.start_soon(pump, server, client)


@pytest.fixture
async def cut(remote: HttpRemote) -> AsyncIterator[Callable[..., Any]]:
    async with trio.open_nursery() as nursery:

        async def start(*limits: int) -> Cutter:
            cutter = Cutter(remote.domain, list(limits))
            await nursery.start(cutter.serve)
            return cutter

        yield start
        nursery.cancel_scope.cancel()


@pytest.fixture
async def registry(config: DistributionConfig, fake_host: FakeHost) -> AsyncIterator[Registry[Any]]:
    async with DistributionRegistry.open(config, fake_host) as registry:
        yield registry


async def test_a_pull_over_a_line_that_breaks_goes_on(
    registry: Registry[Any], remote: HttpRemote, cut: Callable[..., Any]
) -> None:
    await remote.put_blob("app", BLOB)
    cutter = await cut(1_000_000, 300_000, 2_000_000)
    reference = parse_reference(f"{cutter.address}/app:1")
    async with registry.blob(reference, describe(BLOB), ANONYMOUS) as parts:
        found = b"".join([part async for part in parts])
    assert found == BLOB
    assert cutter.cuts == 3


async def test_a_push_over_a_line_that_breaks_goes_on(
    registry: Registry[Any], remote: HttpRemote, cut: Callable[..., Any]
) -> None:
    cutter = await cut(1_000_000, 2_000_000, 1_500_000)
    reference = parse_reference(f"{cutter.address}/app:1")
    outcome = await registry.push_blob(reference, describe(BLOB), source_of(BLOB), ANONYMOUS)
    assert outcome == "pushed"
    assert await remote.blob("app", sha256(BLOB)) == BLOB
    assert cutter.cuts == 3


async def test_a_registry_that_is_down_is_named(registry: Registry[Any]) -> None:
    reference = parse_reference("127.0.0.1:1/app:1")
    with pytest.raises(Unavailable) as caught:
        await registry.manifest(reference, ANONYMOUS)
    assert caught.value.message == (
        'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused'
    )
    assert caught.value.help.endswith("curl -i http://127.0.0.1:1/v2/")


async def test_a_host_without_an_address_is_named(registry: Registry[Any]) -> None:
    with pytest.raises(Unavailable, match=r"registry\.invalid.*no such host"):
        await registry.manifest(parse_reference("registry.invalid/app:1"), ANONYMOUS)


SERVER = """
import sys, trio
from pathlib import Path
from linkspan.plugins.registry_server.component import serve_registry
from linkspan.plugins.registry_server.config import RegistryServerConfig
from linkspan.sdk.testing.host import FakeHost

async def main():
    async with trio.open_nursery() as nursery:
        host = FakeHost(root=Path(sys.argv[1]), nursery=nursery)
        config = RegistryServerConfig(listen=sys.argv[2])
        print(await nursery.start(serve_registry, config, host), flush=True)

trio.run(main)
"""


async def start_server(root: Path, listen: str) -> tuple[trio.Process, str]:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", SERVER, str(root), listen], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with trio.fail_after(20):
        line = b""
        while not line.endswith(b"\n"):
            part = await process.stdout.receive_some(100)
            assert part, "the server did not start"
            line += part
    await process.stdout.aclose()
    return process, line.decode().strip()


async def test_a_server_killed_in_the_middle_of_an_upload_keeps_no_half_blob(
    registry: Registry[Any], tmp_path: Path
) -> None:
    """The client goes on with the server that comes back on the same address."""
    process, address = await start_server(tmp_path / "killed", "127.0.0.1:0")
    stored = tmp_path / "killed" / "state" / "registry" / "blobs" / "sha256"
    killed = False

    async def restart() -> None:
        nonlocal process
        await process.wait()
        assert list(stored.iterdir()) == []
        process, _ = await start_server(tmp_path / "killed", address)

    def kill(sent: int) -> None:
        nonlocal killed
        if sent > 2 << 20 and not killed:
            killed = True
            process.kill()
            nursery.start_soon(restart)

    reference = parse_reference(f"{address}/app:1")
    try:
        async with trio.open_nursery() as nursery:
            with pytest.raises(Unavailable):
                await registry.push_blob(
                    reference, describe(BLOB), source_of(BLOB), ANONYMOUS, sent=kill
                )
        outcome = await registry.push_blob(reference, describe(BLOB), source_of(BLOB), ANONYMOUS)
        assert outcome == "pushed"
        assert [path.name for path in stored.iterdir()] == [sha256(BLOB).partition(":")[2]]
        assert await HttpRemote(address).blob("app", sha256(BLOB)) == BLOB
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def test_a_search_finds_repositories_by_a_part_of_their_name(
    registry: Registry[Any], remote: HttpRemote
) -> None:
    config = b"{}"
    for name in ("team/app", "team/apple", "other"):
        reference = parse_reference(f"{remote.domain}/{name}:1")
        await registry.push_blob(reference, describe(config), source_of(config), ANONYMOUS)
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": sha256(config), "size": 2},
            "layers": [],
        }
        data = json.dumps(manifest).encode()
        await registry.push_manifest(reference, OCI_MANIFEST, data, ANONYMOUS)
    found = await registry.search(f"{remote.domain}/app", ANONYMOUS)
    assert [item.name for item in found] == [
        f"{remote.domain}/team/app",
        f"{remote.domain}/team/apple",
    ]
    assert len(await registry.search(f"{remote.domain}/app", ANONYMOUS, limit=1)) == 1
