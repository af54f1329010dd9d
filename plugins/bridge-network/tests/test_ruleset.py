from ipaddress import IPv4Address

import attrs

from linkspan.plugins.bridge_network import ruleset
from linkspan.plugins.bridge_network.ruleset import BalancedPort, BridgeRules, Element
from linkspan.sdk.model.network import Backend

ANY = IPv4Address(0)
WEB = (Backend(address="10.0.0.2", port=80), Backend(address="10.0.0.3", port=81))


def balanced(*backends, host_ip=ANY):
    return BalancedPort(host_ip=host_ip, protocol="tcp", host_port=8080, backends=backends)


def test_a_published_port_is_one_element():
    where = {"protocol": "udp", "host_port": 53, "address": IPv4Address("10.0.0.2"), "port": 5353}
    assert ruleset.published(host_ip=ANY, **where) == Element("pub4", "udp . 53", "10.0.0.2 . 5353")
    assert ruleset.published(host_ip=IPv4Address("127.0.0.1"), **where) == Element(
        "pub4_addr", "127.0.0.1 . udp . 53", "10.0.0.2 . 5353"
    )


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
    rules = BridgeRules(
        bridge="br0", subnet="10.0.0.0/24", internal=False, icc=True, masquerade=True
    )

    def containers(**changes):
        found = attrs.evolve(rules, **changes).elements()
        return {element.container for element in found} - {"pair", "subnet4"}

    assert containers() == {"masq4"}
    assert containers(masquerade=False) == set()
    assert containers(internal=True) == {"internal"}
    assert containers(source="192.0.2.7") == {"snat4"}
    quiet = attrs.evolve(rules, icc=False).elements()
    assert Element("pair", '"br0" . "br0"', "drop") in quiet


def test_backends_are_met_in_turn_by_one_rule():
    text = balanced(*WEB).change("t", None)
    assert "add chain inet t balance_tcp_8080\n" in text
    assert "numgen inc mod 2 map { 0 : 10.0.0.2 . 80, 1 : 10.0.0.3 . 81 }" in text
    assert "add element inet t balance4 { tcp . 8080 : goto balance_tcp_8080 }" in text


def test_other_backends_replace_the_rule_and_keep_the_chain():
    text = balanced(WEB[1]).change("t", balanced(*WEB))
    assert text.startswith("flush chain inet t balance_tcp_8080\n")
    assert "numgen inc mod 1" in text
    assert "delete" not in text


def test_without_backends_a_port_is_refused_and_back():
    assert balanced().change("t", None) == "add element inet t refuse4 { tcp . 8080 }\n"
    assert balanced().change("t", balanced()) == ""
    text = balanced().change("t", balanced(*WEB))
    assert "delete element inet t balance4 { tcp . 8080 }\ndelete chain" in text
    assert "add element inet t refuse4 { tcp . 8080 }" in text
    text = balanced(*WEB).change("t", balanced())
    assert text.startswith("delete element inet t refuse4 { tcp . 8080 }\n")


def test_one_address_has_a_chain_of_its_own():
    text = balanced(*WEB, host_ip=IPv4Address("127.0.0.1")).change("t", None)
    assert "add chain inet t balance_tcp_8080_127_0_0_1\n" in text
    assert "balance4_addr { 127.0.0.1 . tcp . 8080 : goto" in text


def test_the_table_is_loaded_anew_in_one_text():
    text = ruleset.load("t", 0x4C00BEEF, [Element("masq4", '"br0"')], [balanced(*WEB)])
    assert text.startswith("add table inet t\ndelete table inet t\ntable inet t {\n")
    assert "@" + "T@" not in text
    assert "iifgroup 0x4c00beef" in text
    assert text.index("masq4 {") < text.index('add element inet t masq4 { "br0" }')
