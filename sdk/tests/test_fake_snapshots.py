from linkspan.sdk.testing.conformance.snapshots import SnapshotsConformance
from linkspan.sdk.testing.fakes.snapshots import FakeSnapshots


class TestFakeSnapshots(SnapshotsConformance):
    driver = FakeSnapshots
