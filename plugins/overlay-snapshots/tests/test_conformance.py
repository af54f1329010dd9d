from typing import Any

import pytest

from linkspan.plugins.overlay_snapshots.config import OverlaySnapshotsConfig
from linkspan.plugins.overlay_snapshots.driver import OverlaySnapshots
from linkspan.sdk.testing.conformance.snapshots import SnapshotsConformance


@pytest.mark.system
class TestOverlaySnapshots(SnapshotsConformance):
    driver = OverlaySnapshots

    @pytest.fixture
    def config(self) -> Any:
        return OverlaySnapshotsConfig(grace_s=0)
