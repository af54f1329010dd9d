"""An engine in memory: containers of a ``FakeMachine``, images by name, networks and volumes in books.

It follows the contract of ``linkspan.sdk.host.Engine`` with the texts that clients see, so that routes,
orchestrators and steps can be tested without a kernel. It has no restart policies, no health checks
and no snapshots: tests of those use the core's engine on the fakes of its drivers.
"""

from collections.abc import Callable, Mapping

import trio

from linkspan.sdk.errors import (
    Unsupported,
)
from linkspan.sdk.host import StepRun
from linkspan.sdk.model.process import Chunk
from linkspan.sdk.testing.fakes.engine_containers import FakeContainers
from linkspan.sdk.testing.fakes.engine_events import FakeEvents
from linkspan.sdk.testing.fakes.engine_images import FakeImages, Users
from linkspan.sdk.testing.fakes.engine_networks import FakeNetworks
from linkspan.sdk.testing.fakes.engine_records import ContainerBook
from linkspan.sdk.testing.fakes.engine_volumes import FakeVolumes
from linkspan.sdk.testing.fakes.machine import FakeMachine
from linkspan.sdk.testing.fakes.runtime import FakeRuntime


class FakeEngine:
    """Implements ``linkspan.sdk.host.Engine``; see the module.

    Args:
        machine: Where its containers run.
        images: Makes its images from its events and who uses an image, by the image's id.
    """

    def __init__(
        self,
        machine: FakeMachine,
        images: Callable[[FakeEvents, Users], FakeImages] = FakeImages,
    ) -> None:
        self.machine = machine
        self.events = FakeEvents()
        book = ContainerBook()
        self.networks = FakeNetworks(book)
        self.volumes = FakeVolumes(book)
        self.images = images(
            self.events, lambda image_id: [c for c in book.all() if c.image_id == image_id]
        )
        self.containers = FakeContainers(
            book,
            FakeRuntime(machine),
            self.events,
            images=self.images,
            networks=self.networks,
            volumes=self.volumes,
        )

    async def run_in_snapshot(self, run: StepRun, output: Callable[[Chunk], None]) -> int:
        raise Unsupported("the fake engine has no snapshots")

    async def gc(self) -> Mapping[str, str]:
        await trio.lowlevel.checkpoint()
        return {}
