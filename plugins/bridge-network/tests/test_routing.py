"""What the host forwards, with which address, and how large packets may be."""

import subprocess

import pytest
import trio

from linkspan.sdk.errors import Internal, InvalidArgument
from linkspan.sdk.model.network import EndpointSpec, PortBinding

pytestmark = pytest.mark.system


async def test_a_network_may_have_an_address_of_its_own_outside(lab, shell):
    """Behaviour 25."""
    shell("ip addr add 198.51.100.44/24 dev eth0")
    options = {"com.docker.network.host_ipv4": "198.51.100.44"}
    net = await lab.network("net", subnet="10.201.0.0/24", options=options)
    await lab.attach("a1", net)
    lab.listen("lan", lab.lan_address, 7000)
    assert await lab.ask("a1", lab.lan_address, 7000) == "lan 198.51.100.44"


@pytest.fixture
def far(wire, shell):
    """A second wire, with a machine that the neighbour reaches only through the host."""
    other = subprocess.Popen(["unshare", "--net", "sleep", "600"])
    try:
        path = f"/proc/{other.pid}/ns/net"
        own = shell("readlink /proc/self/ns/net")
        while shell(f"readlink {path}") == own:
            pass
        shell(f"ip link add eth1 type veth peer name eth0 netns {other.pid}")
        shell("ip addr add 203.0.113.1/24 dev eth1")
        shell("ip link set eth1 up")
        for command in (
            "ip link set lo up",
            "ip addr add 203.0.113.9/24 dev eth0",
            "ip link set eth0 up",
            "ip route add default via 203.0.113.1",
        ):
            shell(f"nsenter --net={path} {command}")
        shell(f"nsenter --net={wire} ip route add 203.0.113.0/24 via 198.51.100.2")
        yield path
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("before", ["0", "1"])
async def test_a_host_that_was_no_router_does_not_become_one(far, lab, shell, before):
    """Behaviour 74."""
    shell(f"sysctl -qw net.ipv4.ip_forward={before}")
    lab.places["far"] = far
    lab.listen("far", "203.0.113.9", 7000)
    net = await lab.network("net", subnet="10.201.0.0/24")
    await lab.attach("a1", net, ports=(PortBinding(container_port=80, host_port=8080),))
    assert shell("sysctl -n net.ipv4.ip_forward").strip() == "1"
    expected = "timeout" if before == "0" else f"far {lab.lan_address}"
    assert await lab.ask("lan", "203.0.113.9", 7000, wait_s=1) == expected
    assert await lab.ask("a1", "203.0.113.9", 7000) == "far 203.0.113.1"
    assert await lab.ask("lan", lab.host_address, 8080) == f"a1 {lab.lan_address}"


async def test_a_large_answer_passes_a_narrow_way_out(lab, shell):
    """Behaviour 73: the size of segments is agreed on by the narrowest link."""
    for command in (
        "ip link set eth0 mtu 1400",
        f"nsenter --net={lab.places['lan']} ip link set eth0 mtu 1400",
    ):
        shell(command)
    options = {"com.docker.network.driver.mtu": "1500"}
    net = await lab.network("net", subnet="10.201.0.0/24", options=options)
    await lab.attach("a1", net, ports=(PortBinding(container_port=80, host_port=8080),))
    stream = await lab.connect("lan", lab.host_address, 8080)
    sent, received = b"x" * 1_000_000, 0
    async with stream, trio.open_nursery() as nursery:
        await stream.receive_some()
        nursery.start_soon(stream.send_all, sent)
        with trio.fail_after(20):
            while received < len(sent):
                received += len(await stream.receive_some(1 << 16))


async def test_networks_made_at_once_have_subnets_of_their_own(lab):
    """Behaviour 51."""
    found = []

    async def make(number):
        net = await lab.network(f"n{number}", enable_ipv6=True)
        found.extend(pool.subnet for pool in net.spec.pools)

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(make, number)
    assert len(set(found)) == 16


async def test_rules_of_another_version_are_replaced_while_connections_go_on(lab, shell):
    """Behaviour 79."""
    net = await lab.network("net", subnet="10.201.0.0/24")
    other = await lab.network("other", subnet="10.202.0.0/24")
    port = PortBinding(container_port=80, host_port=8080)
    await lab.attach("a1", net, ports=(port,))
    await lab.attach("b1", (other, EndpointSpec()))
    stream = await lab.connect("lan", lab.host_address, 8080)
    firewall = lab.driver._firewall
    table = firewall._name
    async with stream:
        await stream.receive_some()
        older = (
            f"add chain inet {table} old {{ type filter hook forward priority 5; }}\n"
            f"add set inet {table} gone {{ type ifname; }}\n"
            f"add rule inet {table} old iifname @gone drop\n"
            f"add rule inet {table} forward drop\n"
        )
        await firewall._worker.run(firewall._books.run, older)
        await firewall._worker.run(firewall._books.load)
        await stream.send_all(b"still there?")
        with trio.fail_after(20):
            assert await stream.receive_some() == b"still there?"
    assert await lab.ask("lan", lab.host_address, 8080) == f"a1 {lab.lan_address}"
    assert await lab.ask("b1", lab.address("a1"), 81, wait_s=0.6) == "timeout"
    found = shell(f"nft list table inet {table}")
    assert "chain old" not in found
    assert "set gone" not in found


async def test_an_interface_has_the_settings_that_its_endpoint_asks_for(lab):
    net = await lab.network("app", subnet="10.201.0.0/24")
    key = "com.docker.network.endpoint.sysctls"
    asked = "net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.neigh.ifname.retrans_time_ms=2000"
    await lab.attach("one", (net, EndpointSpec(driver_options={key: asked})))
    for name, value in (("conf/eth0/log_martians", "1"), ("neigh/eth0/retrans_time_ms", "2000")):
        assert lab.exec("one", f"cat /proc/sys/net/ipv4/{name}").strip() == value
    for wrong in ("net.ipv4.ip_forward=1", "net.ipv4.conf.../../..IFNAME.x=1", "x"):
        with pytest.raises(InvalidArgument, match="unrecognised network interface sysctl"):
            await lab.attach("two", (net, EndpointSpec(driver_options={key: wrong})))
    missing = EndpointSpec(driver_options={key: "net.ipv4.conf.IFNAME.nothing=1"})
    with pytest.raises(Internal, match="nothing"):
        await lab.attach("two", (net, missing))
    sandbox = await lab.attach("three", net)
    other = await lab.network("other", subnet="10.202.0.0/24")
    with pytest.raises(Internal, match="nothing"):
        await lab.driver.connect(sandbox.container_id, other, missing)
    assert "eth1" not in lab.exec("three", "ip -br link")


async def test_an_address_of_a_group_is_no_containers(lab):
    net = await lab.network("app", subnet="10.201.0.0/24")
    with pytest.raises(InvalidArgument, match="one of a group"):
        await lab.attach("one", (net, EndpointSpec(mac_address="01:00:5e:00:00:01")))
