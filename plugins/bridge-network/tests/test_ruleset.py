from ipaddress import IPv4Address, IPv6Address, ip_address

import attrs

from linkspan.plugins.bridge_network import ruleset
from linkspan.plugins.bridge_network.ruleset import (
    BalancedPort,
    BridgeRules,
    Contents,
    Element,
    FamilyRules,
)
from linkspan.sdk.model.network import Backend

ANY = IPv4Address(0)
WEB = (Backend(address="10.0.0.2", port=80), Backend(address="10.0.0.3", port=81))


def balanced(*backends, host_ip=ANY):
    return BalancedPort(host_ip=host_ip, protocol="tcp", host_port=8080, backends=backends)


def test_a_published_port_is_one_element():
    where = {"protocol": "udp", "host_port": 53, "port": 5353}
    four, six = IPv4Address("10.0.0.2"), IPv6Address("fd00::2")

    def published(host, container):
        return ruleset.published(host=ip_address(host), container=container, **where)

    assert published("0.0.0.0", four) == Element("pub4", "udp . 53", "10.0.0.2 . 5353")
    assert published("127.0.0.1", four) == Element(
        "pub4_addr", "127.0.0.1 . udp . 53", "10.0.0.2 . 5353"
    )
    assert published("::", six) == Element("pub6", "udp . 53", "fd00::2 . 5353")
    assert published("fd01::1", six) == Element("pub6_addr", "fd01::1 . udp . 53", "fd00::2 . 5353")


def test_a_port_of_a_routed_network_is_opened_at_the_containers_address():
    found = ruleset.opened(container=IPv6Address("fd00::2"), protocol="tcp", port=80)
    assert found == Element("routed6", "fd00::2 . tcp . 80")


def test_elements_of_one_container_go_into_one_command_and_are_deleted_by_key():
    elements = [
        Element("pub4", "tcp . 1", "10.0.0.2 . 1"),
        Element("masq4", '"br0"'),
        Element("pub4", "tcp . 2", "10.0.0.2 . 2"),
    ]
    assert ruleset.add("t", elements) == (
        'add element inet t masq4 { "br0" }\n'
        "add element inet t pub4 { tcp . 1 : 10.0.0.2 . 1, tcp . 2 : 10.0.0.2 . 2 }\n"
    )
    assert ruleset.delete("t", elements) == (
        'delete element inet t masq4 { "br0" }\ndelete element inet t pub4 { tcp . 1, tcp . 2 }\n'
    )


def test_a_network_is_masqueraded_or_internal_or_has_a_source_address():
    family = FamilyRules(subnets=("10.0.0.0/24",))
    rules = BridgeRules(bridge="br0", internal=False, icc=True, ipv4=family)

    def containers(internal=False, **changes):
        changed = attrs.evolve(rules, internal=internal, ipv4=attrs.evolve(rules.ipv4, **changes))
        return {element.container for element in changed.elements()} - {"pair", "subnet4"}

    assert containers() == {"masq4"}
    assert containers(masquerade=False) == set()
    assert containers(internal=True) == {"internal"}
    assert containers(source="192.0.2.7") == {"snat4"}
    assert containers(masquerade=False, unprotected=True) == {"open4"}
    quiet = attrs.evolve(rules, icc=False).elements()
    assert Element("pair", '"br0" . "br0"', "drop") in quiet


def test_both_families_of_a_network_and_interfaces_it_trusts_are_in_the_rules():
    rules = BridgeRules(
        bridge="br0",
        internal=False,
        icc=True,
        ipv4=FamilyRules(subnets=("10.0.0.0/24",)),
        ipv6=FamilyRules(subnets=("fd00::/64",), masquerade=False),
        trusted=("eth0",),
    )
    found = rules.elements()
    assert Element("subnet6", "fd00::/64") in found
    assert Element("trusted", '"br0" . "eth0"') in found
    assert {e.container for e in found} == {"pair", "trusted", "subnet4", "masq4", "subnet6"}


def test_backends_are_met_in_turn_by_one_rule():
    text = balanced(*WEB).change("t", None)
    assert "add chain inet t balance_tcp_8080\n" in text
    assert "numgen inc mod 2 map { 0 : 10.0.0.2 . 80, 1 : 10.0.0.3 . 81 }" in text
    assert "add element inet t balance4 { tcp . 8080 : goto balance_tcp_8080 }" in text


def test_the_last_rule_leads_whom_a_map_that_is_being_replaced_leads_nowhere():
    for backends in (WEB, WEB[:1]):
        for before in (None, balanced(), balanced(WEB[1])):
            text = balanced(*backends).change("t", before)
            rules = [line for line in text.splitlines() if line.startswith("add rule")]
            assert rules[-1].endswith(" dnat ip to 10.0.0.2:80")
            assert len(rules) == len(backends)


def test_other_backends_replace_the_rules_and_keep_the_chain():
    text = balanced(WEB[1]).change("t", balanced(*WEB))
    assert text.startswith("flush chain inet t balance_tcp_8080\n")
    assert "10.0.0.3:81" in text
    assert "10.0.0.2" not in text
    assert "delete" not in text


def test_without_backends_a_port_is_refused_and_back():
    refused = "add element inet t refuse4 { tcp . 8080 }\n"
    assert balanced().change("t", None) == refused
    assert balanced().change("t", balanced()) == ""
    leading_nowhere = (
        "delete element inet t balance4 { tcp . 8080 }\ndelete chain inet t balance_tcp_8080\n"
    )
    assert balanced().change("t", balanced(*WEB)) == leading_nowhere
    assert balanced(*WEB).removal("t") == leading_nowhere + balanced().removal("t")
    assert balanced().removal("t") == "delete element inet t refuse4 { tcp . 8080 }\n"


def test_what_no_rule_leads_to_a_backend_is_refused_as_long_as_the_port_is_balanced():
    assert "add element inet t refuse4 { tcp . 8080 }\n" in balanced(*WEB).change("t", None)
    for before, after in ((balanced(), balanced(*WEB)), (balanced(*WEB), balanced())):
        assert "refuse4" not in after.change("t", before)


def test_one_address_has_a_chain_of_its_own():
    text = balanced(*WEB, host_ip=IPv4Address("127.0.0.1")).change("t", None)
    assert "add chain inet t balance_tcp_8080_127_0_0_1\n" in text
    assert "balance4_addr { 127.0.0.1 . tcp . 8080 : goto" in text


def test_the_table_is_loaded_in_one_text_and_is_itself_never_gone():
    text = ruleset.load(
        "t", 0x4C00BEEF, [Element("masq4", '"br0"')], [balanced(*WEB)], found=Contents()
    )
    assert text.startswith("flush table inet t\n")
    assert "table inet t {" not in text
    assert "@" + "G@" not in text
    assert "@" + "FOREIGN" not in text
    assert "iifgroup 0x4c00beef" in text
    assert text.index("add set inet t masq4 {") < text.index('add element inet t masq4 { "br0" }')


def test_what_an_earlier_daemon_left_in_the_table_is_taken_out():
    found = Contents(
        chains=frozenset({"forward", "balance_tcp_1"}), containers=frozenset({"pub4", "old"})
    )
    lines = ruleset.load("t", 1, [], [], found=found).splitlines()
    assert lines[1:4] == [
        "flush map inet t pub4",
        "delete chain inet t balance_tcp_1",
        "delete set inet t old",
    ]


def test_the_chain_of_a_balanced_port_is_there_while_the_table_is_loaded_again():
    found = Contents(chains=frozenset({"balance_tcp_8080", "balance_tcp_1"}))
    text = ruleset.load("t", 1, [], [balanced(*WEB)], found=found)
    assert "delete chain inet t balance_tcp_1\n" in text
    assert "delete chain inet t balance_tcp_8080" not in text


def test_a_host_that_was_no_router_forwards_nothing_but_ours():
    text = ruleset.load("t", 1, [], [], found=Contents(), keep_apart=frozenset({6}))
    rule = "add rule inet t forward meta nfproto {} iifgroup != 0x1 oifgroup != 0x1 {}\n"
    assert rule.format("ipv4", "accept") in text
    assert rule.format("ipv6", "counter drop") in text
