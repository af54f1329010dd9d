"""Who reaches whom: networks and published ports, asked from the host, a neighbour and containers."""

import subprocess

import pytest

from linkspan.sdk.errors import Conflict
from linkspan.sdk.model.network import EndpointSpec, PortBinding

pytestmark = pytest.mark.system


@pytest.fixture(params=["br_netfilter on", "br_netfilter off"], autouse=True)
def br_netfilter(request, wire):
    """Bridged frames pass the firewall or not: another program on the host decides."""
    value = "1" if request.param.endswith("on") else "0"
    done = subprocess.run(["sysctl", "-qw", f"net.bridge.bridge-nf-call-iptables={value}"])
    if done.returncode != 0 and value == "1":
        pytest.skip("the kernel has no br_netfilter")


async def test_a_published_port_is_reached_from_everywhere_and_sees_outside_clients(lab):
    """Behaviours 1, 3, 4, 12, 13, 14."""
    net = await lab.network("bridge", subnet="10.201.0.0/24")
    other = await lab.network("other", subnet="10.202.0.0/24")
    ports = tuple(
        PortBinding(container_port=80, host_port=8080, protocol=protocol)
        for protocol in ("tcp", "udp")
    )
    await lab.attach("a1", net, ports=ports)
    await lab.attach("a2", net)
    await lab.attach("b1", other)
    host = lab.host_address
    rows = []
    for protocol in ("tcp", "udp"):
        rows += [
            ("lan", host, 8080, protocol, f"a1 {lab.lan_address}"),
            ("host", host, 8080, protocol, "a1 10.201.0.1"),
            ("host", "127.0.0.1", 8080, protocol, "a1 10.201.0.1"),
            ("host", "127.0.0.5", 8080, protocol, "a1 10.201.0.1"),
            ("host", "10.201.0.1", 8080, protocol, "a1 10.201.0.1"),
            ("a1", host, 8080, protocol, "a1 10.201.0.1"),
            ("a2", host, 8080, protocol, "a1 10.201.0.1"),
            ("a2", "10.201.0.1", 8080, protocol, "a1 10.201.0.1"),
            ("b1", host, 8080, protocol, "a1 10.201.0.1"),
        ]
    await lab.check(rows)


async def test_a_port_on_one_address_is_reached_there_only(lab):
    """Behaviours 6, 10, 11."""
    net = await lab.network("bridge", subnet="10.201.0.0/24")
    host = lab.host_address
    loopback = PortBinding(container_port=80, host_port=8081, host_ip="127.0.0.1")
    address = PortBinding(container_port=80, host_port=8082, host_ip=host)
    await lab.attach("a1", net, ports=(loopback, address))
    # The same number on another address leads elsewhere.
    await lab.attach(
        "a2", net, ports=(PortBinding(container_port=80, host_port=8081, host_ip=host),)
    )
    await lab.check(
        [
            ("host", "127.0.0.1", 8081, "tcp", "a1 10.201.0.1"),
            ("host", host, 8081, "tcp", "a2 10.201.0.1"),
            ("lan", host, 8081, "tcp", f"a2 {lab.lan_address}"),
            ("host", "127.0.0.1", 8082, "tcp", "refused"),
            ("lan", host, 8082, "tcp", f"a1 {lab.lan_address}"),
        ],
    )


async def test_a_loopback_port_is_refused_to_neighbours(lab):
    net = await lab.network("bridge", subnet="10.201.0.0/24")
    port = PortBinding(container_port=80, host_port=8081, host_ip="127.0.0.1")
    await lab.attach("a1", net, ports=(port,))
    lab.exec("lan", "ip route add 127.0.0.1/32 via 198.51.100.2 table 100")
    await lab.check([("lan", lab.host_address, 8081, "tcp", "refused")])


async def test_networks_are_isolated_and_only_published_ports_lead_in(lab):
    """Behaviours 15, 16, 17."""
    net = await lab.network("bridge", subnet="10.201.0.0/24")
    other = await lab.network("other", subnet="10.202.0.0/24")
    await lab.attach("a1", net, ports=(PortBinding(container_port=80, host_port=8080),))
    await lab.attach("a2", net)
    await lab.attach("b1", other)
    lab.listen("lan", lab.lan_address, 7000)
    lab.listen("host", "", 9998)
    await lab.check(
        [
            ("a2", lab.address("a1"), 81, "tcp", f"a1 {lab.address('a2')}"),
            ("a1", "10.202.0.2", 81, "tcp", "timeout"),
            ("b1", "10.201.0.2", 81, "tcp", "timeout"),
            ("b1", "10.201.0.2", 80, "tcp", "timeout"),
            ("lan", "10.201.0.2", 80, "tcp", "timeout"),
            ("lan", "10.201.0.2", 81, "tcp", "timeout"),
            ("host", "10.201.0.2", 81, "tcp", "a1 10.201.0.1"),
            ("a1", lab.lan_address, 7000, "tcp", f"lan {lab.host_address}"),
            ("a1", "10.201.0.1", 9998, "tcp", "host 10.201.0.2"),
        ],
    )


async def test_an_internal_network_is_reached_from_within_and_from_the_host_only(lab):
    """Behaviours 20, 21."""
    net = await lab.network("bridge", subnet="10.201.0.0/24")
    inner = await lab.network("inner", subnet="10.203.0.0/24", internal=True)
    await lab.attach("a1", net, ports=(PortBinding(container_port=80, host_port=8080),))
    await lab.attach("i1", inner)
    await lab.attach("i2", inner)
    assert lab.exec("i1", "ip route show default") == ""
    # As a container with NET_ADMIN could.
    lab.exec("i1", "ip route add default via 10.203.0.1")
    lab.listen("lan", lab.lan_address, 7000)
    await lab.check(
        [
            ("i1", "10.203.0.3", 80, "tcp", "i2 10.203.0.2"),
            ("i1", lab.lan_address, 7000, "tcp", "timeout"),
            ("i1", "10.201.0.2", 80, "tcp", "timeout"),
            ("i1", lab.host_address, 8080, "tcp", "timeout"),
            ("a1", "10.203.0.2", 80, "tcp", "timeout"),
            ("lan", "10.203.0.2", 80, "tcp", "timeout"),
            ("host", "10.203.0.2", 80, "tcp", "i1 10.203.0.1"),
        ],
    )


async def test_a_container_on_an_internal_and_another_network_goes_out_by_the_other(lab):
    """Behaviour 22."""
    inner = await lab.network("inner", subnet="10.203.0.0/24", internal=True)
    net = await lab.network("net", subnet="10.201.0.0/24")
    port = PortBinding(container_port=80, host_port=8080)
    await lab.attach("c", inner, net, ports=(port,))
    lab.listen("lan", lab.lan_address, 7000)
    await lab.check(
        [
            ("c", lab.lan_address, 7000, "tcp", f"lan {lab.host_address}"),
            ("lan", lab.host_address, 8080, "tcp", f"c {lab.lan_address}"),
        ],
    )


async def test_without_icc_peers_meet_over_published_ports_only(lab):
    """Behaviour 23."""
    options = {"com.docker.network.bridge.enable_icc": "false"}
    net = await lab.network("quiet", subnet="10.201.0.0/24", options=options)
    await lab.attach("a1", net, ports=(PortBinding(container_port=80, host_port=8080),))
    await lab.attach("a2", net)
    await lab.check(
        [
            ("a2", lab.host_address, 8080, "tcp", "a1 10.201.0.1"),
            ("host", "10.201.0.2", 81, "tcp", "a1 10.201.0.1"),
        ],
    )
    answer = await lab.ask("a2", "10.201.0.2", 81, wait_s=0.5)
    assert answer in ("timeout", "No route to host")


async def test_without_masquerade_the_containers_address_is_seen(lab):
    """Behaviour 24."""
    options = {"com.docker.network.bridge.enable_ip_masquerade": "false"}
    net = await lab.network("plain", subnet="10.201.0.0/24", options=options)
    await lab.attach("a1", net)
    lab.listen("lan", lab.lan_address, 7000)
    # The neighbour has a route to the container; only replies come back through the host.
    await lab.check([("a1", lab.lan_address, 7000, "tcp", "lan 10.201.0.2")])


async def test_the_loopback_of_the_host_is_no_way_in_from_a_container(lab):
    net = await lab.network("bridge", subnet="10.201.0.0/24")
    await lab.attach("a1", net)
    lab.listen("host", "127.0.0.1", 9999)
    lab.exec("a1", "ip addr del 127.0.0.1/8 dev lo")
    lab.exec("a1", "sysctl -qw net.ipv4.conf.all.route_localnet=1")
    lab.exec("a1", "ip route add 127.0.0.1/32 via 10.201.0.1 dev eth0 src 10.201.0.2")
    assert await lab.ask("a1", "127.0.0.1", 9999, wait_s=0.6) in (
        "timeout",
        "Network is unreachable",
    )


async def test_ports_end_with_their_container(lab):
    net = await lab.network("bridge", subnet="10.201.0.0/24")
    port = PortBinding(container_port=80, host_port=8080)
    await lab.attach("a1", net, ports=(port,))
    await lab.detach("a1")
    assert await lab.ask("lan", lab.host_address, 8080) == "refused"
    await lab.attach("a2", net, ports=(port,))
    assert (await lab.ask("lan", lab.host_address, 8080)).startswith("a2 ")


async def test_a_udp_client_with_a_fixed_port_meets_the_new_container(lab):
    """Behaviours 41, 42."""
    net = await lab.network("bridge", subnet="10.201.0.0/24")
    port = PortBinding(container_port=80, host_port=8080, protocol="udp")

    async def ask():
        answer = await lab.ask("lan", lab.host_address, 8080, "udp", source_port=5555)
        return answer.split()[0]

    assert await ask() == "refused"
    await lab.attach("a1", net, ports=(port,))
    assert await ask() == "a1"
    await lab.detach("a1")
    await lab.attach("a2", net, ports=(port,))
    assert await ask() == "a2"


async def test_a_port_of_another_process_is_refused_by_its_name(lab):
    """Behaviour 33."""
    net = await lab.network("bridge", subnet="10.201.0.0/24")
    lab.listen("host", "127.0.0.1", 8080)
    port = PortBinding(container_port=80, host_port=8080)
    with pytest.raises(
        Conflict, match=r"0\.0\.0\.0:8080/tcp: address already in use \(by"
    ) as caught:
        await lab.attach("a1", net, ports=(port,))
    assert caught.value.code == "port_taken"
    assert "pid" in caught.value.details["holder"]
    assert await lab.ask("lan", lab.host_address, 8080) == "refused"
    await lab.attach("a1", net)


async def test_a_reserved_port_cannot_be_taken_by_another_process(lab):
    """Behaviour 34."""
    net = await lab.network("bridge", subnet="10.201.0.0/24")
    await lab.attach("a1", net, ports=(PortBinding(container_port=80, host_port=8080),))
    with pytest.raises(OSError, match="in use"):
        lab.listen("host", "127.0.0.1", 8080)


async def test_a_connected_network_brings_an_interface_and_a_way_out(lab):
    inner = await lab.network("inner", subnet="10.203.0.0/24", internal=True)
    net = await lab.network("net", subnet="10.201.0.0/24")
    port = PortBinding(container_port=80, host_port=8080)
    sandbox = await lab.attach("c", inner, ports=(port,))
    lab.listen("lan", lab.lan_address, 7000)
    assert await lab.ask("c", lab.lan_address, 7000) == "Network is unreachable"
    await lab.driver.connect(sandbox.container_id, net, EndpointSpec())
    assert await lab.ask("c", lab.lan_address, 7000) == f"lan {lab.host_address}"
    assert await lab.ask("lan", lab.host_address, 8080) == f"c {lab.lan_address}"
    await lab.driver.disconnect(sandbox.container_id, net)
    assert await lab.ask("c", lab.lan_address, 7000) == "Network is unreachable"
    assert await lab.ask("lan", lab.host_address, 8080) == "refused"
    assert "eth1" not in lab.exec("c", "ip -br link")


async def test_ports_and_default_route_move_when_their_network_is_left(lab):
    """Behaviour 45."""
    first = await lab.network("first", subnet="10.201.0.0/24")
    second = await lab.network("second", subnet="10.202.0.0/24")
    port = PortBinding(container_port=80, host_port=8080)
    sandbox = await lab.attach("c", first, second, ports=(port,))
    assert await lab.ask("host", "127.0.0.1", 8080) == "c 10.201.0.1"
    await lab.driver.disconnect(sandbox.container_id, first)
    assert await lab.ask("host", "127.0.0.1", 8080) == "c 10.202.0.1"
    lab.listen("lan", lab.lan_address, 7000)
    assert await lab.ask("c", lab.lan_address, 7000) == f"lan {lab.host_address}"
