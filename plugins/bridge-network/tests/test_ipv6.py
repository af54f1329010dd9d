"""IPv6: networks of both families, published ports on ``[::]``, and the relay where rules cannot lead."""

import json
import socket
import struct
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import trio

from linkspan.plugins.bridge_network.config import BridgeConfig
from linkspan.plugins.bridge_network.driver import BridgeNetwork
from linkspan.sdk.errors import InvalidArgument, PermissionDenied
from linkspan.sdk.model.network import AddressPool, Backend, EndpointSpec, PortBinding

pytestmark = pytest.mark.system

FOUR, SIX = "10.201.0.0/24", "fd55:1::/64"
WEB = tuple(
    PortBinding(container_port=80, host_port=8080, protocol=protocol) for protocol in ("tcp", "udp")
)


async def dual(lab, name="net", four=FOUR, six=SIX, **spec):
    pools = tuple(AddressPool(subnet=subnet) for subnet in (four, six))
    return await lab.network(name, enable_ipv6=True, pools=pools, **spec)


async def until_refused(lab, port):
    """The relay lets go of a port a moment after its rules."""
    with trio.fail_after(5):
        while await lab.ask("lan", lab.host_address6, port) != "refused":  # noqa: ASYNC110
            await trio.sleep(0.01)


async def test_a_published_port_answers_on_both_families_and_sees_the_client(lab):
    """Behaviours 1, 2, 3, 4, 13, 14: with a network of both families no relay is met from outside."""
    net = await dual(lab)
    other = await dual(lab, "other", "10.202.0.0/24", "fd55:2::/64")
    await lab.attach("a1", net, ports=WEB)
    await lab.attach("a2", net)
    await lab.attach("b1", other)
    rows = []
    for protocol in ("tcp", "udp"):
        rows += [
            ("lan", lab.host_address6, 8080, protocol, f"a1 {lab.lan_address6}"),
            ("lan", lab.host_address, 8080, protocol, f"a1 {lab.lan_address}"),
            ("host", lab.host_address6, 8080, protocol, "a1 fd55:1::1"),
            ("host", "::1", 8080, protocol, "a1 fd55:1::1"),
            ("a2", lab.host_address6, 8080, protocol, "a1 fd55:1::1"),
            ("a2", "fd55:1::1", 8080, protocol, "a1 fd55:1::1"),
            ("a1", lab.host_address6, 8080, protocol, "a1 fd55:1::1"),
            ("b1", lab.host_address6, 8080, protocol, "a1 fd55:1::1"),
        ]
    await lab.check(rows)


async def test_an_ipv4_only_container_is_reached_over_ipv6_by_the_relay(lab):
    """Behaviours 5, 37: from the host and from outside."""
    net = await lab.network("net", subnet=FOUR)
    sandbox = await lab.attach("a1", net, ports=WEB)
    rows = [
        (place, address, 8080, protocol, "a1 10.201.0.1")
        for protocol in ("tcp", "udp")
        for place, address in (
            ("host", "::1"),
            ("host", lab.host_address6),
            ("lan", lab.host_address6),
        )
    ]
    await lab.check(rows)
    assert "inet6" not in lab.exec("a1", "ip addr show eth0"), "behaviour 54"
    await lab.driver.detach(sandbox.container_id)
    del lab.sandboxes["a1"]
    await until_refused(lab, 8080)


async def test_an_ipv6_only_container_is_reached_over_ipv4_by_the_relay(lab):
    pools = (AddressPool(subnet=SIX),)
    net = await lab.network("six", enable_ipv4=False, enable_ipv6=True, pools=pools)
    sandbox = await lab.attach("a1", net, ports=WEB)
    assert sandbox.endpoints[0].ipv4_address == ""
    await lab.check(
        [
            ("lan", lab.host_address, 8080, "tcp", "a1 fd55:1::1"),
            ("host", "127.0.0.1", 8080, "tcp", "a1 fd55:1::1"),
            ("lan", lab.host_address6, 8080, "tcp", f"a1 {lab.lan_address6}"),
        ],
    )


async def test_a_port_on_one_ipv6_address_is_reached_there_only(lab):
    net = await dual(lab)
    loopback = PortBinding(container_port=80, host_port=8081, host_ip="::1")
    address = PortBinding(container_port=80, host_port=8082, host_ip=lab.host_address6)
    await lab.attach("a1", net, ports=(loopback, address))
    await lab.check(
        [
            ("host", "::1", 8081, "tcp", "a1 fd55:1::1"),
            ("host", "127.0.0.1", 8081, "tcp", "refused"),
            ("lan", lab.host_address6, 8081, "tcp", "refused"),
            ("lan", lab.host_address6, 8082, "tcp", f"a1 {lab.lan_address6}"),
            ("host", "::1", 8082, "tcp", "refused"),
        ],
    )


async def test_networks_are_isolated_over_ipv6_and_lead_out_with_the_hosts_address(lab):
    """Behaviours 15, 16, 17, 20, 21 over IPv6."""
    net = await dual(lab)
    other = await dual(lab, "other", "10.202.0.0/24", "fd55:2::/64")
    inner = await dual(lab, "inner", "10.203.0.0/24", "fd55:3::/64", internal=True)
    await lab.attach("a1", net, ports=WEB)
    await lab.attach("a2", net)
    await lab.attach("b1", other)
    await lab.attach("i1", inner)
    await lab.attach("i2", inner)
    lab.exec("i1", "ip -6 route add default via fd55:3::1")
    lab.listen("lan", "::", 7000)
    six = {name: each.endpoints[0].ipv6_address for name, each in lab.sandboxes.items()}
    await lab.check(
        [
            ("a2", six["a1"], 81, "tcp", f"a1 {six['a2']}"),
            ("b1", six["a1"], 81, "tcp", "timeout"),
            ("b1", six["a1"], 80, "tcp", "timeout"),
            ("lan", six["a1"], 80, "tcp", "timeout"),
            ("lan", six["a1"], 81, "tcp", "timeout"),
            ("host", six["a1"], 81, "tcp", "a1 fd55:1::1"),
            ("a1", lab.lan_address6, 7000, "tcp", f"lan {lab.host_address6}"),
            ("i1", lab.lan_address6, 7000, "tcp", "timeout"),
            ("i1", six["a1"], 81, "tcp", "timeout"),
            ("i1", six["i2"], 81, "tcp", f"i2 {six['i1']}"),
            ("host", six["i1"], 81, "tcp", "i1 fd55:3::1"),
        ],
    )


async def test_a_routed_network_opens_published_ports_at_the_containers_address(lab):
    """Behaviour 18, both families; and nothing is reserved on the host."""
    mode = "com.docker.network.bridge.gateway_mode_ipv"
    net = await dual(lab, options={mode + "4": "routed", mode + "6": "routed"})
    port = PortBinding(container_port=81, host_port=8081)
    sandbox = await lab.attach("a1", net, ports=(port,))
    six = sandbox.endpoints[0].ipv6_address
    lab.listen("lan", "::", 7000)
    lab.listen("host", "", 8081)
    await lab.check(
        [
            ("lan", lab.address("a1"), 81, "tcp", f"a1 {lab.lan_address}"),
            ("lan", lab.address("a1"), 80, "tcp", "timeout"),
            ("lan", six, 81, "tcp", f"a1 {lab.lan_address6}"),
            ("lan", six, 80, "tcp", "timeout"),
            ("a1", lab.lan_address6, 7000, "tcp", f"lan {six}"),
        ],
    )


async def test_trusted_interfaces_and_unprotected_networks_are_reached_directly(lab):
    """Behaviour 19."""
    prefix = "com.docker.network.bridge."
    trusting = await dual(lab, options={prefix + "trusted_host_interfaces": "eth0"})
    open4 = await lab.network(
        "open", subnet="10.202.0.0/24", options={prefix + "gateway_mode_ipv4": "nat-unprotected"}
    )
    one = await lab.attach("a1", trusting)
    await lab.attach("b1", open4)
    await lab.check(
        [
            ("lan", lab.address("a1"), 80, "tcp", f"a1 {lab.lan_address}"),
            ("lan", one.endpoints[0].ipv6_address, 80, "tcp", f"a1 {lab.lan_address6}"),
            ("lan", lab.address("b1"), 80, "tcp", f"b1 {lab.lan_address}"),
            ("a1", lab.address("b1"), 80, "tcp", f"b1 {lab.address('a1')}"),
            ("b1", lab.address("a1"), 80, "tcp", "timeout"),
        ],
    )


async def test_an_isolated_gateway_has_no_address_on_the_host(lab, shell):
    mode = "com.docker.network.bridge.gateway_mode_ipv4"
    with pytest.raises(InvalidArgument, match="internal"):
        await lab.network("net", subnet=FOUR, options={mode: "isolated"})
    net = await lab.network("net", subnet=FOUR, internal=True, options={mode: "isolated"})
    await lab.attach("a1", net)
    await lab.attach("a2", net)
    assert "10.201.0.1" not in shell("ip addr")
    assert await lab.ask("a1", lab.address("a2"), 80) == f"a2 {lab.address('a1')}"


async def test_networks_without_a_subnet_get_two_of_the_daemons_own_range(lab):
    """Behaviour 53: unique local addresses, used at once."""
    nets = [await lab.network(name, enable_ipv6=True) for name in ("one", "two")]
    subnets = [ip_network(net.spec.pools[1].subnet) for net in nets]
    assert [subnet.prefixlen for subnet in subnets] == [64, 64]
    assert subnets[0] != subnets[1]
    assert subnets[0].supernet(new_prefix=48) == subnets[1].supernet(new_prefix=48)
    assert subnets[0].subnet_of(ip_network("fd00::/8"))
    sandbox = await lab.attach("a1", nets[0])
    address = ip_address(sandbox.endpoints[0].ipv6_address)
    assert address in subnets[0]
    gateway = nets[0].spec.pools[1].gateway
    assert sandbox.endpoints[0].ipv6_gateway == gateway
    assert await lab.ask("host", str(address), 80) == f"a1 {gateway}"
    flags = json.loads(lab.exec("a1", "ip -j -6 addr show dev eth0"))[0]["addr_info"]
    assert not any(each.get("tentative") for each in flags)


async def test_an_ipv6_network_is_connected_to_and_left_while_running(lab):
    """Behaviours 44, 45, 47, 54 over IPv6."""
    four = await lab.network("a-four", subnet="10.202.0.0/24")
    net = await dual(lab)
    sandbox = await lab.attach("c", four, ports=WEB[:1])
    assert await lab.ask("lan", lab.host_address6, 8080) == "c 10.202.0.1"
    spec = EndpointSpec(
        ipv4_address="10.201.0.77",
        ipv6_address="fd55:1::77",
        link_local_addresses=("169.254.34.68", "fe80::77"),
    )
    endpoint = await lab.driver.connect(sandbox.container_id, net, spec)
    assert (endpoint.ipv6_address, endpoint.ipv6_prefix) == ("fd55:1::77", 64)
    found = lab.exec("c", "ip addr show eth1")
    for address in ("10.201.0.77/24", "fd55:1::77/64", "169.254.34.68/16", "fe80::77/64"):
        assert address in found
    assert await lab.ask("lan", lab.host_address6, 8080) == f"c {lab.lan_address6}"
    with pytest.raises(InvalidArgument, match="fd55:9::1"):
        await lab.attach("d", (net, EndpointSpec(ipv6_address="fd55:9::1")))
    with pytest.raises(InvalidArgument, match="link local"):
        await lab.attach("d", (net, EndpointSpec(link_local_addresses=("10.0.0.1",))))
    await lab.driver.disconnect(sandbox.container_id, net)
    assert await lab.ask("lan", lab.host_address6, 8080) == "c 10.202.0.1"
    assert "default" not in lab.exec("c", "ip -6 route")


async def test_the_default_network_may_have_ipv6(world, fake_host):
    """Behaviour 2, with namespaces that were prepared."""
    config = BridgeConfig(default_network_ipv6=True, pool_size=2)
    async with BridgeNetwork.open(config, fake_host) as driver:
        world.driver = driver
        net = await world.network("bridge")
        assert net.spec.enable_ipv6
        with trio.fail_after(10):
            while len(driver._pool._ready) < 2:  # noqa: ASYNC110 - the pool tells nobody
                await trio.sleep(0.01)
        sandbox = await world.attach("a1", net, ports=WEB[:1])
        assert sandbox.endpoints[0].ipv6_address
        answer = await world.ask("lan", world.host_address6, 8080)
        assert answer == f"a1 {world.lan_address6}"
        await world.detach("a1")


async def test_several_subnets_of_one_family_are_refused_and_overlaps_too(lab):
    await dual(lab)
    with pytest.raises(PermissionDenied) as caught:
        await dual(lab, "more", "10.202.0.0/24", "fd55::/16")
    assert caught.value.code == "pool_overlaps"


def advertise_as_router(lab):
    """Say to the host's wire that the neighbour is a router, for half an hour (RFC 4861, section 4.2)."""
    index = json.loads(lab.exec("lan", "ip -j link show eth0"))[0]["ifindex"]
    with lab.icmp6_socket("lan") as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        advertisement = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
        sock.sendto(advertisement, ("ff02::1", 0, 0, index))


async def test_a_host_that_listens_to_routers_goes_on_to_do_so(lab, shell):
    """Behaviour 75: the kernel would forget its default route when it begins to forward."""
    shell("sysctl -qw net.ipv6.conf.all.forwarding=0")
    shell("sysctl -qw net.ipv6.conf.eth0.accept_ra=1")

    def learned():
        return "proto ra" in shell("ip -6 route show default dev eth0")

    with trio.fail_after(30):
        while not learned():
            advertise_as_router(lab)
            await trio.sleep(0.1)  # the link-local address of a new link takes a while
    await dual(lab)
    assert shell("sysctl -n net.ipv6.conf.all.forwarding").strip() == "1"
    assert shell("sysctl -n net.ipv6.conf.eth0.accept_ra").strip() == "2"
    assert learned(), "the route is still there"
    shell("ip -6 route flush proto ra")
    with trio.fail_after(30):
        while not learned():
            advertise_as_router(lab)
            await trio.sleep(0.1)


async def test_a_balanced_port_answers_over_ipv6(lab):
    net = await lab.network("net", subnet=FOUR)
    for name in ("a1", "a2"):
        await lab.attach(name, net)
    port = PortBinding(container_port=80, host_port=9000)
    await lab.driver.balance(
        port, tuple(Backend(address=lab.address(n), port=80) for n in lab.sandboxes)
    )
    for place, address in (("lan", lab.host_address6), ("host", "::1")):
        found = {(await lab.ask(place, address, 9000)).split()[0] for _ in range(4)}
        assert found == {"a1", "a2"}
    await lab.driver.balance(port, ())
    answer = await lab.ask("lan", lab.host_address6, 9000)
    assert answer == "" or answer.endswith("Connection reset by peer")
    await lab.driver.unbalance(port)
    await until_refused(lab, 9000)


async def test_who_switches_ipv6_off_is_not_told_of_it_nor_others_of_its_addresses(lab):
    net = await lab.network("net", subnet="10.201.0.0/24", enable_ipv6=True)
    sandbox = await lab.attach("four", net, ipv6=False)
    (endpoint,) = sandbox.endpoints
    assert (endpoint.ipv4_address, endpoint.gateway) == ("10.201.0.2", "10.201.0.1")
    assert (endpoint.ipv6_address, endpoint.ipv6_prefix, endpoint.ipv6_gateway) == ("", 0, "")
    assert "::1" not in Path(sandbox.files["/etc/hosts"]).read_text()
    assert "default" not in lab.exec("four", "ip -6 route")
    both = await lab.attach("both", net)
    assert both.endpoints[0].ipv6_address.endswith("::2"), "no address is spent"
    only6 = await lab.network("only6", enable_ipv4=False, enable_ipv6=True)
    found = await lab.attach("six", only6, ipv6=False)
    assert found.endpoints[0].ipv6_address, "it would have no address at all"
