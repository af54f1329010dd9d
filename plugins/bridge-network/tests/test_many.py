"""Many containers at once, several daemons, and rules that another program flushes."""

import json

import pytest
import trio

from linkspan.plugins.bridge_network import driver as driver_module
from linkspan.plugins.bridge_network.config import BridgeConfig
from linkspan.plugins.bridge_network.driver import BridgeNetwork
from linkspan.plugins.bridge_network.pool import MOST_GROWTH
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.network import AddressPool, Backend, EndpointSpec, PortBinding
from linkspan.sdk.testing.host import FakeHost

pytestmark = pytest.mark.system


async def test_fifty_containers_come_and_go_and_nothing_of_them_stays(lab, shell, fake_host):
    """Behaviour 76."""
    net = await lab.network("bridge")
    before = shell("nft -j list ruleset")

    async def live(number):
        sandbox = await lab.attach(
            f"c{number}", net, ports=(PortBinding(container_port=80),), serving=False
        )
        found.append((sandbox.endpoints[0].ipv4_address, sandbox.ports[0].host_port))
        await lab.detach(f"c{number}")

    found = []
    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(live, number)
    assert len(found) == 50
    most = 3 + BridgeConfig().pool_size * MOST_GROWTH
    with trio.fail_after(30):
        while len(json.loads(shell("ip -j link"))) > most:  # noqa: ASYNC110
            await trio.sleep(0.1)
    assert without_counters(shell("nft -j list ruleset")) == without_counters(before)
    assert list((fake_host.run_dir / "sandboxes").iterdir()) == []


async def test_a_namespace_that_somebody_stays_in_keeps_no_link_and_no_address(lab, shell):
    net = await lab.network("app", subnet="10.201.0.0/29")
    sandbox = await lab.attach("donor", net, serving=False)
    guest = await trio.lowlevel.open_process(
        ["nsenter", f"--net={sandbox.namespace}", "sleep", "600"]
    )
    try:
        inside = f"/proc/{guest.pid}/ns/net"
        await until_in(inside, sandbox.namespace)
        await lab.detach("donor")
        with trio.fail_after(60):
            while "eth0" in shell(f"nsenter --net={inside} ip -br link"):  # noqa: ASYNC110
                await trio.sleep(0.1)
            for number in range(5):
                await lab.attach(f"c{number}", net, serving=False)
    finally:
        guest.kill()
        await guest.wait()


async def until_in(mine, theirs):
    """Until a process has come to a namespace."""
    wanted = await trio.Path(theirs).stat()
    with trio.fail_after(60):
        while (await trio.Path(mine).stat()).st_ino != wanted.st_ino:  # noqa: ASYNC110
            await trio.sleep(0.01)


def without_counters(text):
    rules = json.loads(text)["nftables"]
    for rule in rules:
        for part in rule.get("rule", {}).get("expr", ()):
            part.pop("counter", None)
    return rules


async def test_two_daemons_live_side_by_side_and_apart(lab, tmp_path, shell):
    """Behaviour 32."""
    root = tmp_path / "second"
    second_host = FakeHost(
        root=root, nursery=lab.nursery, daemon_id="second", bridge_address="10.250.0.1/24"
    )
    net = await lab.network("bridge", subnet="10.201.0.0/24")
    await lab.attach("a1", net, ports=(PortBinding(container_port=80, host_port=8080),))
    first = lab.driver
    async with BridgeNetwork.open(BridgeConfig(), second_host) as second:
        lab.driver = second
        other = await lab.network("bridge")
        assert other.spec.pools[0] == AddressPool(subnet="10.250.0.0/24", gateway="10.250.0.1")
        await lab.attach("b1", other, ports=(PortBinding(container_port=80, host_port=8081),))
        bridges = {
            network.spec.options["com.docker.network.bridge.name"] for network in (net, other)
        }
        assert len(bridges) == 2
        assert await lab.ask("b1", lab.host_address, 8080) == "a1 10.201.0.1"
        assert await lab.ask("a1", lab.host_address, 8081) == "b1 10.250.0.1"
        assert await lab.ask("a1", "10.250.0.2", 81, wait_s=0.6) == "timeout"
        assert await lab.ask("b1", "10.201.0.2", 81, wait_s=0.6) == "timeout"
        await lab.detach("b1")
        lab.driver = first
    assert shell("nft list tables").count("table inet linkspan_") == 1
    assert (await lab.ask("lan", lab.host_address, 8080)).startswith("a1")


async def test_a_bridge_address_that_is_none_is_refused(wire, fake_host, world):
    fake_host.bridge_address = "10.250.0.1/99"
    async with BridgeNetwork.open(BridgeConfig(), fake_host) as driver:
        world.driver = driver
        with pytest.raises(InvalidArgument, match="bridge address"):
            await world.network("bridge")


async def test_flushed_rules_come_back_by_themselves(world, fake_host, shell, monkeypatch):
    monkeypatch.setattr(driver_module, "_LOOK_AFTER_RULES_S", 0.05)
    async with BridgeNetwork.open(BridgeConfig(), fake_host) as driver:
        world.driver = driver
        net = await world.network("bridge", subnet="10.201.0.0/24")
        await world.attach("a1", net, ports=(PortBinding(container_port=80, host_port=8080),))
        shell("nft flush ruleset")
        with trio.fail_after(5):
            while "linkspan" not in shell("nft list tables"):  # noqa: ASYNC110
                await trio.sleep(0.02)
        assert (await world.ask("lan", world.host_address, 8080)).startswith("a1")
        await world.detach("a1")


async def test_flushed_rules_stand_in_nobodys_way(lab, shell):
    net = await lab.network("bridge", subnet="10.201.0.0/24")
    port, other = (PortBinding(container_port=80, host_port=number) for number in (8080, 8081))
    service = PortBinding(container_port=80, host_port=9000)
    await lab.attach("a1", net, ports=(port,))
    await lab.driver.balance(service, (Backend(address=lab.address("a1"), port=80),))
    shell("nft flush ruleset")
    await lab.attach("a2", net, ports=(other,))
    for number, name in ((8080, "a1"), (8081, "a2"), (9000, "a1")):
        assert (await lab.ask("lan", lab.host_address, number)).startswith(name)
    shell("nft flush ruleset")
    await lab.driver.balance(service, (Backend(address=lab.address("a2"), port=80),))
    assert (await lab.ask("lan", lab.host_address, 9000)).startswith("a2")
    shell("nft flush ruleset")
    await lab.detach("a1")
    assert (await lab.ask("lan", lab.host_address, 8081)).startswith("a2")
    assert await lab.ask("lan", lab.host_address, 8080) == "refused"
    shell("nft flush ruleset")
    await lab.driver.unbalance(service)
    await lab.driver.unbalance(service)
    await lab.detach("a2")
    shell("nft flush ruleset")
    await lab.driver.remove_network(net)


async def test_a_container_is_reached_from_its_first_moment(lab):
    # Without a carrier on its port a bridge drops the first packets, and ARP asks again a second later.
    net = await lab.network("net", subnet="10.201.0.0/24")
    for _ in range(30):
        await lab.attach("a", net)
        answer = await lab.ask("host", lab.address("a"), 80, "udp", wait_s=0.5)
        assert answer == "a 10.201.0.1"
        await lab.detach("a")


async def test_sandboxes_that_no_container_has_are_collected(lab):
    net = await lab.network("bridge", subnet="10.201.0.0/24")
    kept = await lab.attach("kept", net)
    lost = await lab.attach("lost", net)
    assert list(await lab.driver.gc([kept.container_id])) == [lost.container_id]
    assert await lab.driver.gc([kept.container_id]) == {}


async def test_a_fixed_mac_and_interface_name_are_kept(lab):
    """Behaviour 47."""
    net = await lab.network("bridge", subnet="10.201.0.0/24")
    wishes = EndpointSpec(
        mac_address="02:42:AC:11:00:99",
        driver_options={"com.docker.network.endpoint.ifname": "lan0"},
    )
    sandbox = await lab.attach("a1", (net, wishes))
    assert sandbox.endpoints[0].mac_address == "02:42:ac:11:00:99"
    shown = lab.exec("a1", "ip -br link show lan0")
    assert "02:42:ac:11:00:99" in shown
    with pytest.raises(InvalidArgument, match="MAC"):
        await lab.attach("a2", (net, EndpointSpec(mac_address="zz")))


async def test_the_mtu_of_a_network_is_that_of_all_its_links(lab, shell):
    """Behaviour 73."""
    options = {"com.docker.network.driver.mtu": "1400"}
    net = await lab.network("small", subnet="10.201.0.0/24", options=options)
    await lab.attach("a1", net)
    assert "mtu 1400" in lab.exec("a1", "ip link show eth0")
    assert "mtu 1400" in shell(f"ip link show br-{net.id[:12]}")
