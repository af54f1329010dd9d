from linkspan.sdk.testing.conformance.scheduler import SchedulerConformance
from linkspan.sdk.testing.fakes.scheduler import FakeScheduler


class TestFakeScheduler(SchedulerConformance):
    driver = FakeScheduler
