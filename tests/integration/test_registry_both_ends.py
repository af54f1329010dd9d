"""Our registry client passes its kit against our registry server."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from linkspan.plugins.distribution_registry.config import DistributionConfig
from linkspan.plugins.distribution_registry.driver import DistributionRegistry
from linkspan.plugins.registry_server.component import serve_registry
from linkspan.plugins.registry_server.config import RegistryServerConfig
from linkspan.sdk.drivers.registry import Registry
from linkspan.sdk.testing.conformance.registry import HttpRemote, RegistryConformance
from linkspan.sdk.testing.host import FakeHost

pytestmark = pytest.mark.integration


class TestOwnRegistry(RegistryConformance):
    driver: type[Registry[Any]] = DistributionRegistry

    @pytest.fixture
    def config(self, tmp_path: Path) -> DistributionConfig:
        return DistributionConfig(docker_config=tmp_path / "none.json", retry_delay_s=0.01)

    @pytest.fixture
    async def remote(self, tmp_path: Path) -> AsyncIterator[HttpRemote]:
        async with trio.open_nursery() as nursery:
            host = FakeHost(root=tmp_path / "server", nursery=nursery)
            config = RegistryServerConfig(listen="127.0.0.1:0")
            yield HttpRemote(await nursery.start(serve_registry, config, host))
            nursery.cancel_scope.cancel()
