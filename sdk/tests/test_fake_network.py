from linkspan.sdk.testing.conformance.network import NetworkConformance
from linkspan.sdk.testing.fakes.network import FakeNetwork


class TestFakeNetwork(NetworkConformance):
    driver = FakeNetwork
