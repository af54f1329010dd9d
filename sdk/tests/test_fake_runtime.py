from collections.abc import AsyncIterator

import pytest
import trio

from linkspan.sdk.testing.conformance.runtime import RuntimeConformance
from linkspan.sdk.testing.fakes.machine import FakeMachine
from linkspan.sdk.testing.fakes.runtime import FakeRuntime, FakeRuntimeConfig


class TestFakeRuntime(RuntimeConformance):
    driver = FakeRuntime

    @pytest.fixture
    async def config(self) -> AsyncIterator[FakeRuntimeConfig]:
        async with trio.open_nursery() as nursery:
            yield FakeRuntimeConfig(machine=FakeMachine(nursery))
            nursery.cancel_scope.cancel()
