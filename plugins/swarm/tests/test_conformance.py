"""The sdk's kit on the real orchestrator, with an engine in memory and real time."""

from collections.abc import AsyncIterator

import pytest

from linkspan.plugins.swarm.config import SwarmConfig
from linkspan.plugins.swarm.driver import SwarmOrchestrator
from linkspan.sdk.testing.conformance.orchestrator import OrchestratorConformance
from linkspan.sdk.testing.fakes.engine import FakeEngine
from linkspan.sdk.testing.fakes.engine_images import make_image
from linkspan.sdk.testing.fakes.machine import FakeMachine
from linkspan.sdk.testing.fakes.network import FakeNetwork
from linkspan.sdk.testing.fakes.scheduler import FakeScheduler
from linkspan.sdk.testing.fakes.state import FakeState
from linkspan.sdk.testing.host import FakeHost


class TestSwarm(OrchestratorConformance):
    @pytest.fixture
    async def orchestrator(self, fake_host: FakeHost) -> AsyncIterator[SwarmOrchestrator]:
        engine = FakeEngine(FakeMachine(fake_host.nursery))
        for image in (self.image, self.other_image):
            engine.images.put(make_image(image, command=("sleep", "1000"), labels={"of": image}))
        engine.images.put(make_image(self.broken_image, command=("no-such-program",)))
        fake_host.fake_engine = engine
        fake_host.drivers["state", ""] = FakeState()
        fake_host.drivers["network", ""] = FakeNetwork(fake_host)
        fake_host.drivers["scheduler", ""] = FakeScheduler()
        async with SwarmOrchestrator.open(SwarmConfig(drain_s=0), fake_host) as orchestrator:
            yield orchestrator
