from linkspan.sdk.testing.conformance.builder import BuilderConformance
from linkspan.sdk.testing.fakes.builder import FakeBuilder


class TestFakeBuilder(BuilderConformance):
    driver = FakeBuilder
