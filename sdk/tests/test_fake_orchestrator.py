from collections.abc import AsyncIterator

import pytest

from linkspan.sdk.model.container import ContainerSpec
from linkspan.sdk.model.service import ServiceSpec
from linkspan.sdk.testing.conformance.orchestrator import OrchestratorConformance
from linkspan.sdk.testing.fakes.orchestrator import FakeOrchestrator, FakeOrchestratorConfig
from linkspan.sdk.testing.host import FakeHost


class TestFakeOrchestrator(OrchestratorConformance):
    @pytest.fixture
    async def orchestrator(self, fake_host: FakeHost) -> AsyncIterator[FakeOrchestrator]:
        config = FakeOrchestratorConfig(broken=[self.broken_image])
        async with FakeOrchestrator.open(config, fake_host) as orchestrator:
            yield orchestrator


async def test_a_step_takes_as_long_as_a_test_wants(fake_host, autojump_clock):
    config = FakeOrchestratorConfig(step_s=5.0)
    async with FakeOrchestrator.open(config, fake_host) as orchestrator:
        await orchestrator.init()
        await orchestrator.create_service(
            ServiceSpec(name="web", container=ContainerSpec(image="app"), replicas=3)
        )
        seen = []
        async with orchestrator.rollout("web") as moments:
            async for moment in moments:
                seen.append(moment.running)
        assert seen[0] == 0
        assert seen[-1] == 3
        assert orchestrator.calls == ["init", "create web"]
