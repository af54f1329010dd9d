"""Another firewall on the host drops what it does not know."""

import pytest
import trio

from linkspan.plugins.bridge_network.config import BridgeConfig
from linkspan.plugins.bridge_network.driver import BridgeNetwork
from linkspan.sdk.model.network import PortBinding

pytestmark = pytest.mark.system


@pytest.fixture(params=["FORWARD", "DOCKER-USER"])
def chain(request, wire, shell):
    """Where others may put rules; the policy is DROP as Docker sets it."""
    shell("iptables -P FORWARD DROP")
    if request.param == "DOCKER-USER":
        shell("iptables -N DOCKER-USER")
        shell("iptables -A FORWARD -j DOCKER-USER")
    return request.param


async def test_our_packets_pass_and_nothing_is_left_behind(chain, world, fake_host, shell):
    before = shell("iptables -S")
    lab = world
    async with BridgeNetwork.open(BridgeConfig(pool_size=0), fake_host) as driver:
        lab.driver = driver
        net = await lab.network("net", subnet="10.201.0.0/24")
        other = await lab.network("other", subnet="10.202.0.0/24")
        await lab.attach("a1", net, ports=(PortBinding(container_port=80, host_port=8080),))
        await lab.attach("a2", net)
        await lab.attach("b1", other)
        lab.listen("lan", lab.lan_address, 7000)
        with trio.fail_after(5):
            while shell(f"iptables -S {chain}").count("devgroup") < 2:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert (await lab.ask("lan", lab.host_address, 8080)) == f"a1 {lab.lan_address}"
        assert (await lab.ask("a1", lab.lan_address, 7000)).startswith("lan")
        assert (await lab.ask("a2", "10.201.0.2", 81)).startswith("a1")
        assert await lab.ask("b1", "10.201.0.2", 81, wait_s=0.6) == "timeout"
        for name in list(lab.sandboxes):
            await lab.detach(name)
    assert shell("iptables -S") == before
