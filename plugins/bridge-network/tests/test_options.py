import pytest

from linkspan.plugins.bridge_network.bridges import parse_options
from linkspan.plugins.bridge_network.driver import short_id
from linkspan.plugins.bridge_network.ports import ANY4, ANY6, Reservation, host_addresses
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.network import PortBinding

PREFIX = "com.docker.network."


def test_dockers_options_are_understood_and_others_passed_over():
    options = parse_options(
        {
            PREFIX + "bridge.name": "docker7",
            PREFIX + "bridge.enable_icc": "false",
            PREFIX + "driver.mtu": "1400",
            "com.example.anything": "x",
        }
    )
    assert (options.bridge, options.icc, options.masquerade, options.mtu) == (
        "docker7",
        False,
        True,
        1400,
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bridge.enable_icc", "maybe"),
        ("driver.mtu", "big"),
        ("driver.mtu", "12"),
        ("bridge.name", "a-name-that-is-too-long"),
        ("bridge.name", "a/b"),
        ("bridge.name", 'a"b'),
        ("bridge.host_binding_ipv4", "ten"),
        ("bridge.gateway_mode_ipv4", "magic"),
        ("bridge.trusted_host_interfaces", "eth0:a b"),
        ("host_ipv4", "fd00::1"),
    ],
)
def test_values_that_cannot_be_are_refused(key, value):
    with pytest.raises(InvalidArgument):
        parse_options({PREFIX + key: value})


def test_gateway_modes_sources_and_trusted_interfaces_are_understood():
    options = parse_options(
        {
            PREFIX + "bridge.gateway_mode_ipv6": "routed",
            PREFIX + "bridge.trusted_host_interfaces": "eth0:wg0",
            PREFIX + "host_ipv6": "2001:db8::7",
            PREFIX + "bridge.inhibit_ipv4": "true",
        }
    )
    assert options.gateway_mode == {4: "nat", 6: "routed"}
    assert options.trusted == ("eth0", "wg0")
    assert options.source == {6: "2001:db8::7"}
    assert options.inhibit_ipv4


def test_a_port_is_published_on_all_addresses_or_on_one():
    def addresses(host_ip):
        binding = PortBinding(container_port=80, host_ip=host_ip)
        return [str(each) for each in host_addresses(binding)]

    assert addresses("") == ["0.0.0.0", "::"]
    assert addresses("0.0.0.0") == ["0.0.0.0"]
    assert addresses("127.0.0.1") == ["127.0.0.1"]
    assert addresses("::1") == addresses("[::1]") == ["::1"]
    for wrong in ("localhost", "fe80::1", "fe80::1%eth0"):
        with pytest.raises(InvalidArgument):
            addresses(wrong)


def test_daemons_are_told_apart_by_eight_characters():
    assert short_id("0123456789abcdef") == "01234567"
    assert len(short_id("any other text")) == 8
    assert short_id("one") != short_id("two")


def test_a_port_on_all_addresses_says_so_where_the_host_has_no_ipv6():
    everywhere = PortBinding(container_port=80, host_port=8080)
    both = Reservation(owner="x", binding=everywhere, sockets={ANY4: None, ANY6: None})
    four = Reservation(owner="x", binding=everywhere, sockets={ANY4: None})
    assert both.shown() == everywhere
    assert four.shown().host_ip == "0.0.0.0"
