"""Packets that no honest host sends: to loopback addresses, from outside and from containers."""

import json
import struct
from ipaddress import ip_address

import pytest
import trio

from linkspan.sdk.model.network import AddressPool, PortBinding

pytestmark = pytest.mark.system

_IPV4, _IPV6, _ALL = 0x0800, 0x86DD, 0x0003


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def syn(source, target, port):
    """An IP packet that asks for a connection."""
    source, target = ip_address(source), ip_address(target)
    tcp = struct.pack("!HHIIBBHHH", 40000, port, 1, 0, 0x50, 2, 64240, 0, 0)
    pseudo = source.packed + target.packed + struct.pack("!II", len(tcp), 6)
    tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
    if source.version == 6:
        head = struct.pack("!IHBB", 6 << 28, len(tcp), 6, 64) + source.packed + target.packed
        return head + tcp
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, 0)
    head += source.packed + target.packed
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + tcp


def mac_of(listing):
    return json.loads(listing)[0]["address"]


async def answered(lab, place, mac, packet, port):
    """Whether a SYN, sent to a MAC as it is, is answered by a SYN-ACK."""
    kind = _IPV6 if packet[0] >> 4 == 6 else _IPV4
    own = mac_of(lab.exec(place, "ip -j link show eth0"))
    with lab.raw_socket(place) as raw:
        raw.bind(("eth0", _ALL))
        with trio.socket.from_stdlib_socket(raw) as sock:
            frame = bytes.fromhex((mac + own).replace(":", "")) + struct.pack("!H", kind)
            await sock.send(frame + packet)
            with trio.move_on_after(0.5):
                while True:
                    got = await sock.recv(2048)
                    offset = 14 + (40 if got[12:14] == b"\x86\xdd" else 20)
                    segment = got[offset : offset + 14]
                    if segment[:2] == struct.pack("!H", port) and segment[13] & 0x12 == 0x12:
                        return True
    return False


@pytest.fixture
async def target(lab, shell):
    """A host with a service on its loopback addresses, and a container published there."""
    pools = (AddressPool(subnet="10.201.0.0/24"), AddressPool(subnet="fd55:1::/64"))
    net = await lab.network("net", enable_ipv6=True, pools=pools)
    port = PortBinding(container_port=80, host_port=8081, host_ip="127.0.0.1")
    await lab.attach("a1", net, ports=(port, PortBinding(container_port=80, host_port=8080)))
    for address in ("127.0.0.1", "::1"):
        lab.listen("host", address, 9999)
    return {
        "lan": mac_of(shell("ip -j link show eth0")),
        "a1": mac_of(shell(f"ip -j link show br-{net.id[:12]}")),
    }


@pytest.mark.parametrize("place", ["lan", "a1"])
async def test_loopback_addresses_of_the_host_are_no_way_in(lab, target, place):
    """Behaviours 7, 8, 9."""
    sources = {"lan": (lab.lan_address, lab.lan_address6), "a1": ()}
    six = lab.sandboxes["a1"].endpoints[0]
    four, six = sources[place] or (six.ipv4_address, six.ipv6_address)
    for source, address, port in (
        (four, "127.0.0.1", 8081),
        (four, "127.0.0.1", 9999),
        ("127.0.0.1", "127.0.0.1", 9999),
        (six, "::1", 9999),
        (six, "::1", 8080),
    ):
        packet = syn(source, address, port)
        assert not await answered(lab, place, target[place], packet, port), (source, address, port)


async def test_the_packets_of_these_tests_are_answered_where_they_may_be(lab, target):
    for source, address in (
        (lab.lan_address, lab.host_address),
        (lab.lan_address6, lab.host_address6),
    ):
        packet = syn(source, address, 8080)
        assert await answered(lab, "lan", target["lan"], packet, 8080), address
