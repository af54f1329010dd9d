import pytest

from linkspan.sdk.testing.conformance.registry import FakeRemote, RegistryConformance
from linkspan.sdk.testing.fakes.registry import FakeRegistry


class TestFakeRegistry(RegistryConformance):
    driver = FakeRegistry

    @pytest.fixture
    async def remote(self, registry: FakeRegistry) -> FakeRemote:
        return FakeRemote(registry)
