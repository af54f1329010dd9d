from collections.abc import Mapping

import pytest

from linkspan.sdk.testing.conformance.volume import VolumeConformance
from linkspan.sdk.testing.fakes.volume import FakeDisk, FakeVolumes, FakeVolumesConfig


class TestFakeVolumes(VolumeConformance):
    driver = FakeVolumes

    @pytest.fixture
    def config(self) -> FakeVolumesConfig:
        return FakeVolumesConfig(disk=FakeDisk())

    @pytest.fixture
    def options(self) -> Mapping[str, str]:
        return {"colour": "blue"}
