import pytest

from linkspan.plugins.bridge_network.driver import BridgeNetwork
from linkspan.sdk.testing.conformance.network import NetworkConformance


@pytest.mark.system
@pytest.mark.usefixtures("own_network")
class TestBridgeNetwork(NetworkConformance):
    driver = BridgeNetwork
