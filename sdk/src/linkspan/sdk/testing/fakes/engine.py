"""An engine in memory: containers of a ``FakeMachine``, images by name, networks and volumes in books.

It follows the contract of ``linkspan.sdk.host.Engine`` with the texts that clients see, so that routes,
orchestrators and steps can be tested without a kernel. It has no restart policies, no health checks
and no snapshots: tests of those use the core's engine on the fakes of its drivers.
"""

from collections.abc import Callable, Mapping, Sequence

import trio

from linkspan.sdk.errors import (
    Unsupported,
)
from linkspan.sdk.host import StepRun
from linkspan.sdk.model.container import (
    Container,
    ContainerFilter,
)
from linkspan.sdk.model.process import Chunk
from linkspan.sdk.testing.fakes.engine_books import FakeNetworks, FakeVolumes
from linkspan.sdk.testing.fakes.engine_containers import FakeContainers
from linkspan.sdk.testing.fakes.engine_events import FakeEvents
from linkspan.sdk.testing.fakes.engine_images import FakeImages
from linkspan.sdk.testing.fakes.machine import FakeMachine
from linkspan.sdk.testing.fakes.runtime import FakeRuntime


class FakeEngine:
    """Implements ``linkspan.sdk.host.Engine``; see the module."""

    def __init__(self, machine: FakeMachine) -> None:
        self.machine = machine
        self.events = FakeEvents()
        self.containers = FakeContainers(FakeRuntime(machine), self.events)
        self.networks = self.containers.networks = FakeNetworks(self.containers, self.events)
        self.volumes = self.containers.volumes = FakeVolumes(self.containers)
        self.images = self.containers.images = FakeImages(self.events, self._using)

    def _using(self, image_id: str) -> Sequence[Container]:
        everything = self.containers.list(ContainerFilter(all=True))
        return [c for c in everything if c.image_id == image_id]

    async def run_in_snapshot(self, run: StepRun, output: Callable[[Chunk], None]) -> int:
        raise Unsupported("the fake engine has no snapshots")

    async def gc(self) -> Mapping[str, str]:
        await trio.lowlevel.checkpoint()
        return {}
