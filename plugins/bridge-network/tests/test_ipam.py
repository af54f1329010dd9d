from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network

import pytest
from hypothesis import given, strategies as st

from linkspan.plugins.bridge_network.config import DEFAULT_POOLS, PoolConfig
from linkspan.plugins.bridge_network.ipam import Subnet, Surroundings, choose_subnet
from linkspan.sdk.errors import Conflict, InvalidArgument, PermissionDenied, Unavailable
from linkspan.sdk.model.network import AddressPool


def subnet(text="10.0.0.0/24", **parts):
    network = IPv4Network(text)
    parts.setdefault("gateway", network.network_address + 1)
    return Subnet("net", network, **parts)


def choose(wanted=None, pools=DEFAULT_POOLS, *, own=(), foreign=()):
    return choose_subnet(
        wanted or AddressPool(),
        pools,
        Surroundings(
            own=tuple(ip_network(each) for each in own),
            foreign=tuple(ip_network(each) for each in foreign),
        ),
    )


def test_the_lowest_free_address_is_given_out():
    net = subnet()
    assert [str(net.take()) for _ in range(3)] == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    net.release(IPv4Address("10.0.0.3"))
    assert str(net.take()) == "10.0.0.3"
    assert str(net.take()) == "10.0.0.5"


def test_a_range_limits_what_is_chosen_but_not_what_is_asked_for():
    net = subnet(ip_range=IPv4Network("10.0.0.128/30"))
    assert [str(net.take()) for _ in range(4)] == [f"10.0.0.{n}" for n in (128, 129, 130, 131)]
    with pytest.raises(Unavailable):
        net.take()
    net.take_fixed(IPv4Address("10.0.0.9"))


def test_reserved_addresses_are_refused():
    net = subnet(auxiliary=[IPv4Address("10.0.0.5")])
    for text in ("10.0.0.0", "10.0.0.1", "10.0.0.5", "10.0.0.255", "10.0.1.2"):
        with pytest.raises(InvalidArgument):
            net.take_fixed(IPv4Address(text))


def test_a_point_to_point_subnet_has_no_network_and_broadcast_address():
    net = subnet("10.0.0.0/31", gateway=IPv4Address("10.0.0.0"))
    assert str(net.take()) == "10.0.0.1"


@given(st.lists(st.sampled_from(["take", "release", "fixed"]), max_size=60), st.randoms())
def test_no_address_is_had_twice(steps, random):
    net = subnet("10.0.0.0/28")
    held = set()
    for step in steps:
        if step == "release" and held:
            address = random.choice(sorted(held))
            held.remove(address)
            net.release(address)
            continue
        free = set(net.network.hosts()) - held - {net.gateway}
        if step == "fixed":
            address = random.choice(sorted(net.network.hosts()))
            if address in free:
                net.take_fixed(address)
                held.add(address)
            else:
                with pytest.raises((Conflict, InvalidArgument)):
                    net.take_fixed(address)
        elif free:
            address = net.take()
            assert address == min(free)
            held.add(address)
        else:
            with pytest.raises(Unavailable):
                net.take()


def test_the_first_pool_that_the_host_does_not_route_to_is_chosen():
    """Behaviour 50."""
    pool = choose(own=["172.17.0.0/16"], foreign=["172.18.4.0/24", "0.0.0.0/32", "172.19.0.5/32"])
    assert (pool.subnet, pool.gateway) == ("172.20.0.0/16", "172.20.0.1")


def test_pools_run_out_and_the_option_is_named():
    """Behaviour 50."""
    pools = (PoolConfig(base="10.0.0.0/23", size=24),)
    assert choose(pools=pools, own=["10.0.0.0/24"]).subnet == "10.0.1.0/24"
    with pytest.raises(InvalidArgument, match="fully subnetted") as caught:
        choose(pools=pools, own=["10.0.0.0/24"], foreign=["10.0.1.0/30"])
    assert caught.value.code == "pools_exhausted"
    assert "default-address-pools" in caught.value.help


def test_an_asked_subnet_may_overlap_the_hosts_routes_but_no_network():
    wanted = AddressPool(subnet="10.5.0.0/16")
    assert choose(wanted, foreign=["10.5.1.0/24"]).gateway == "10.5.0.1"
    with pytest.raises(PermissionDenied):
        choose(wanted, own=["10.0.0.0/8"])


def test_the_gateway_avoids_auxiliary_addresses():
    wanted = AddressPool(subnet="10.5.0.0/24", auxiliary={"router": "10.5.0.1"})
    assert choose(wanted).gateway == "10.5.0.2"


@pytest.mark.parametrize(
    "wanted",
    [
        AddressPool(subnet="10.5.0.0/24", ip_range="10.6.0.0/25"),
        AddressPool(subnet="10.5.0.0/24", auxiliary={"x": "10.6.0.1"}),
        AddressPool(subnet="10.5.0.0/24", gateway="fd00::1"),
        AddressPool(subnet="fd00::1/64"),
        AddressPool(subnet="fd00::/64", gateway="fd01::1"),
        AddressPool(subnet="fd00::/64", ip_range="10.5.0.0/24"),
        AddressPool(subnet="10.5.0.1/32", auxiliary={"x": "10.5.0.1"}),
    ],
)
def test_parts_that_do_not_fit_are_refused(wanted):
    with pytest.raises(InvalidArgument):
        choose(wanted)


@pytest.mark.parametrize(
    ("subnet", "gateway", "auxiliary", "said"),
    [
        ("10.5.0.0/30", "10.5.0.3", {}, "gateway (10.5.0.3)"),
        ("10.5.0.0/30", "10.5.0.0", {}, "gateway (10.5.0.0)"),
        ("fd00::/64", "fd00::", {}, "gateway (fd00::)"),
        ("10.5.0.0/24", "", {"a": "10.5.0.255"}, "secondary ip address (a:10.5.0.255)"),
        ("10.5.0.0/24", "10.5.0.9", {"a": "10.5.0.9"}, "secondary ip address (a:10.5.0.9)"),
        (
            "10.5.0.0/24",
            "",
            {"a": "10.5.0.9", "b": "10.5.0.9"},
            "secondary ip address (b:10.5.0.9)",
        ),
    ],
)
def test_what_is_no_hosts_address_or_anothers_is_refused(subnet, gateway, auxiliary, said):
    with pytest.raises(InvalidArgument) as caught:
        choose(AddressPool(subnet=subnet, gateway=gateway, auxiliary=auxiliary))
    assert caught.value.message == f"failed to allocate {said}: Address already in use"


def test_a_network_of_two_addresses_has_neither_a_first_nor_a_last():
    assert choose(AddressPool(subnet="10.5.0.0/31", gateway="10.5.0.0")).gateway == "10.5.0.0"


@pytest.mark.parametrize(("base", "size"), [("10.0.0.1/8", 16), ("10.0.0.0/16", 8), ("ten", 16)])
def test_a_pool_that_cannot_be_cut_is_refused(base, size):
    with pytest.raises(InvalidArgument):
        PoolConfig(base=base, size=size)


def test_an_ipv6_subnet_is_chosen_past_those_that_are_taken():
    pools = (PoolConfig(base="fd00:1:2::/48", size=64),)
    taken = ["fd00:1:2::/64", "fd00:1:2:1::/64", "10.0.0.0/8"]
    pool = choose(pools=pools, own=taken, foreign=["fd00:1:2:2::/63"])
    assert (pool.subnet, pool.gateway) == ("fd00:1:2:4::/64", "fd00:1:2:4::1")


def test_a_pool_covered_by_a_route_is_passed_over_in_one_step():
    pools = (PoolConfig(base="fd00::/16", size=120), PoolConfig(base="fd01::/112", size=120))
    assert choose(pools=pools, foreign=["fd00::/16"]).subnet == "fd01::/120"


def test_addresses_of_ipv6_are_given_out_from_the_lowest():
    net = Subnet("net", ip_network("fd00::/64"), gateway=ip_address("fd00::1"))
    assert [str(net.take()) for _ in range(2)] == ["fd00::2", "fd00::3"]
    net.take_fixed(ip_address("fd00::ffff"))
    with pytest.raises(Conflict):
        net.take_fixed(ip_address("fd00::ffff"))
    with pytest.raises(InvalidArgument):
        net.check(ip_address("fd00::"))
