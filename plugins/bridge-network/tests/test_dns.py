import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, strategies as st

from linkspan.plugins.bridge_network import dns
from linkspan.plugins.bridge_network.dns import Malformed
from linkspan.plugins.bridge_network.names import Zone

labels = st.text("abcXYZ019-_", min_size=1, max_size=20)
names = st.lists(labels, min_size=1, max_size=5).map(".".join)


def query(name, kind=dns.A, *, ident=7, flags=0x0100, edns=0):
    parts = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    head = struct.pack("!HHHHHH", ident, flags, 1, 0, 0, 1 if edns else 0)
    opt = b"\0" + struct.pack("!HHIH", dns.OPT, edns, 0, 0) if edns else b""
    return head + parts + b"\0" + struct.pack("!HH", kind, dns.IN) + opt


def code_of(message):
    return message[3] & 0xF


@given(names, st.integers(0, 65535), st.integers(0, 65535))
def test_a_question_is_read_as_it_was_written(name, kind, ident):
    question = dns.parse_question(query(name, kind, ident=ident))
    assert question.name == name.lower()
    assert (question.kind, question.klass, question.id) == (kind, dns.IN, ident)
    assert question.udp_size == dns.PLAIN_UDP_SIZE


@given(st.binary(max_size=600))
def test_whatever_comes_in_is_read_or_refused(data):
    refusal = None
    try:
        question = dns.parse_question(data)
    except Malformed as error:
        refusal = error
    if refusal is None:
        assert data[12 : 12 + len(question.raw)] == question.raw
    elif refusal.reply is not None:
        assert refusal.reply[:2] == data[:2]
        assert refusal.reply[2] & 0x80


@given(names, st.lists(st.ip_addresses(v=4), max_size=80), st.integers(512, 4096))
def test_an_answer_fits_keeps_the_case_and_says_when_it_is_cut(name, addresses, limit):
    asked = query(name)
    question = dns.parse_question(asked)
    answer = dns.reply_addresses(question, addresses, limit)
    assert len(answer) <= max(limit, len(asked))
    assert answer[12 : len(asked)] == asked[12:]
    count = struct.unpack_from("!H", answer, 6)[0]
    assert bool(answer[2] & 0x02) == (count < len(addresses))
    for number in range(count):
        record = answer[len(asked) + 16 * number :][:16]
        assert record[12:] == addresses[number].packed
    assert dns.answers(answer, question.id, question)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (query("a", flags=0x0100)[:-3], dns.FORMAT_ERROR),
        (query("a")[:4] + b"\0\2" + query("a")[6:], dns.FORMAT_ERROR),
        (query("a")[:4] + b"\0\0" + query("a")[6:], dns.FORMAT_ERROR),
        (query("a")[:12] + b"\xc0\x0c\0\1\0\1", dns.FORMAT_ERROR),
        (query("a", flags=0x2800), dns.NOT_IMPLEMENTED),
        (query(".".join(["x" * 63] * 5)), dns.FORMAT_ERROR),
    ],
)
def test_what_is_no_plain_question_is_refused_with_its_code(data, code):
    with pytest.raises(Malformed) as caught:
        dns.parse_question(data)
    assert code_of(caught.value.reply) == code


@pytest.mark.parametrize("data", [b"", b"\0" * 11, query("a", flags=0x8180)])
def test_what_is_no_question_is_passed_over(data):
    with pytest.raises(Malformed) as caught:
        dns.parse_question(data)
    assert caught.value.reply is None


def test_a_client_may_take_more_over_udp():
    assert dns.parse_question(query("a", edns=4096)).udp_size == 4096
    assert dns.parse_question(query("a", edns=100)).udp_size == dns.PLAIN_UDP_SIZE


def test_a_dot_within_a_label_does_not_join_names():
    asked = query("ab")
    asked = asked[:12] + b"\x03a.b\0" + asked[-4:]
    assert dns.parse_question(asked).name == "a\\.b"


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("2.0.17.172.in-addr.arpa", IPv4Address("172.17.0.2")),
        ("0.17.172.in-addr.arpa", None),
        ("x.0.17.172.in-addr.arpa", None),
        ("web", None),
    ],
)
def test_the_address_whose_name_is_asked_is_read(name, address):
    assert dns.asked_address(dns.parse_question(query(name, dns.PTR))) == address


def test_only_the_asked_server_with_the_asked_question_answers():
    question = dns.parse_question(query("web", ident=1))
    good = dns.with_id(dns.reply(question, dns.NAME_ERROR), 99)
    assert dns.answers(good, 99, question)
    assert not dns.answers(good, 98, question)
    assert not dns.answers(good[:20], 99, question)
    other = dns.parse_question(query("wev", ident=1))
    assert not dns.answers(dns.with_id(dns.reply(other, 0), 99), 99, question)
    assert not dns.answers(dns.with_id(query("web"), 99), 99, question)


def test_a_zone_knows_all_holders_of_a_name_until_they_leave():
    zone = Zone("Shop")
    one, other = IPv4Address("10.0.0.2"), IPv4Address("10.0.0.3")
    zone.add("1", ["w1", "Web"], [one])
    zone.add("2", ["w2", "web", "WEB"], [other])
    assert set(zone.resolve("web")) == {one, other} == set(zone.resolve("web.shop"))
    assert (zone.reverse(one), zone.reverse(other)) == ("w1.shop", "w2.shop")
    zone.remove("1")
    zone.remove("1")
    assert zone.resolve("web") == [other]
    assert zone.resolve("w1") == []
    assert zone.reverse(one) == ""


def test_addresses_of_both_families_are_known_and_each_kind_is_answered_by_its_own():
    zone = Zone("shop")
    four, six = IPv4Address("10.0.0.2"), IPv6Address("fd00::2")
    zone.add("1", ["web"], [four, six])
    assert zone.reverse(four) == zone.reverse(six) == "web.shop"
    for kind, address in ((dns.A, four), (dns.AAAA, six)):
        question = dns.parse_question(query("web", kind))
        answer = dns.reply_addresses(question, zone.resolve("web"), 512)
        assert answer.endswith(address.packed)
        assert struct.unpack_from("!H", answer, 6)[0] == 1
    question = dns.parse_question(query("web", 15))
    assert struct.unpack_from("!H", dns.reply_addresses(question, [four, six], 512), 6)[0] == 0


def test_the_name_of_an_ipv6_address_is_asked_by_its_digits():
    address = IPv6Address("fd00::2")
    asked = dns.parse_question(query(address.reverse_pointer, dns.PTR))
    assert dns.asked_address(asked) == address
    short = dns.parse_question(query("2.0.ip6.arpa", dns.PTR))
    assert dns.asked_address(short) is None


def test_a_pointer_has_no_empty_or_overlong_parts():
    question = dns.parse_question(query("2.0.17.172.in-addr.arpa", dns.PTR))
    answer = dns.reply_pointer(question, f"web..{'x' * 70}.d")
    assert answer.endswith(b"\x03web\x3f" + b"x" * 63 + b"\x01d\x00")
