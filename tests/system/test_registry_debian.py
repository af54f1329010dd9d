"""Our registry client passes its kit against Debian's docker-registry; skopeo works with our server."""

import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from linkspan.plugins.distribution_registry.config import DistributionConfig
from linkspan.plugins.distribution_registry.driver import DistributionRegistry
from linkspan.sdk.drivers.registry import Registry
from linkspan.sdk.testing.conformance.registry import HttpRemote, RegistryConformance

pytestmark = pytest.mark.system

REGISTRY = "docker-registry"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def wait_for_port(port: int) -> None:
    with trio.fail_after(15):
        while True:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                await trio.sleep(0.05)
            else:
                await stream.aclose()
                return


class TestDebianRegistry(RegistryConformance):
    driver: type[Registry[Any]] = DistributionRegistry

    @pytest.fixture
    def config(self, tmp_path: Path) -> DistributionConfig:
        return DistributionConfig(docker_config=tmp_path / "none.json", retry_delay_s=0.01)

    @pytest.fixture
    async def remote(self, tmp_path: Path) -> AsyncIterator[HttpRemote]:
        if shutil.which(REGISTRY) is None:
            pytest.skip("Debian's package docker-registry is not installed")
        port = free_port()
        config = tmp_path / "registry.yml"
        config.write_text(
            "version: 0.1\n"
            "log: {level: error, accesslog: {disabled: true}}\n"
            f"storage: {{filesystem: {{rootdirectory: {tmp_path / 'registry'}}}}}\n"
            f"http: {{addr: '127.0.0.1:{port}'}}\n"
        )
        process = await trio.lowlevel.open_process(
            [REGISTRY, "serve", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            await wait_for_port(port)
            yield HttpRemote(f"127.0.0.1:{port}")
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
