import pytest

from linkspan.plugins.bridge_network.bridges import parse_options
from linkspan.plugins.bridge_network.driver import short_id
from linkspan.plugins.bridge_network.ports import host_address
from linkspan.sdk.errors import InvalidArgument, Unsupported
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
        ("bridge.host_binding_ipv4", "ten"),
    ],
)
def test_values_that_cannot_be_are_refused(key, value):
    with pytest.raises(InvalidArgument):
        parse_options({PREFIX + key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bridge.gateway_mode_ipv4", "routed"),
        ("bridge.gateway_mode_ipv6", "nat"),
        ("bridge.trusted_host_interfaces", "eth0"),
    ],
)
def test_what_is_not_done_yet_is_said(key, value):
    with pytest.raises(Unsupported):
        parse_options({PREFIX + key: value})


def test_a_port_is_published_on_all_or_on_one_ipv4_address():
    assert int(host_address(PortBinding(container_port=80))) == 0
    assert str(host_address(PortBinding(container_port=80, host_ip="127.0.0.1"))) == "127.0.0.1"
    with pytest.raises(InvalidArgument):
        host_address(PortBinding(container_port=80, host_ip="localhost"))
    with pytest.raises(Unsupported):
        host_address(PortBinding(container_port=80, host_ip="::1"))


def test_daemons_are_told_apart_by_eight_characters():
    assert short_id("0123456789abcdef") == "01234567"
    assert len(short_id("any other text")) == 8
    assert short_id("one") != short_id("two")
