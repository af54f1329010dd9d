"""Names between containers, and what is passed on to other servers."""

import random
import struct
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio

from linkspan.plugins.bridge_network import sandbox_files
from linkspan.sdk.model.network import AddressPool, EndpointSpec

pytestmark = pytest.mark.system

A, PTR, MX, AAAA = 1, 12, 15, 28
SERVER = ("127.0.0.11", 53)


def query(name, kind=A):
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return (
        struct.pack("!HHHHHH", random.randrange(65536), 0x0100, 1, 0, 0, 0)
        + labels
        + b"\0"
        + struct.pack("!HH", kind, 1)
    )


def read(asked, answer):
    """The code and the records' data."""
    ident, flags, _, count = struct.unpack_from("!HHHH", answer)
    assert ident == struct.unpack_from("!H", asked)[0]
    assert flags & 0x8000
    assert answer[12 : len(asked)] == asked[12:], "the question comes back as it was asked"
    found, offset = [], len(asked)
    for _ in range(count):
        size = struct.unpack_from("!H", answer, offset + 10)[0]
        found.append(answer[offset + 12 : offset + 12 + size])
        offset += 12 + size
    return flags & 0xF, found


async def ask(lab, place, name, kind=A, *, tcp=False, wait_s=15):
    asked = query(name, kind)
    with trio.fail_after(wait_s):
        if tcp:
            async with await lab.connect(place, *SERVER) as stream:
                await stream.send_all(struct.pack("!H", len(asked)) + asked)
                data = b""
                while len(data) < 2 or len(data) < 2 + struct.unpack_from("!H", data)[0]:
                    data += await stream.receive_some()
                return read(asked, data[2:])
        with trio.socket.from_stdlib_socket(lab.socket(place, "udp")) as sock:
            await sock.connect(SERVER)
            await sock.send(asked)
            return read(asked, await sock.recv(65535))


async def addresses(lab, place, name, **how):
    code, found = await ask(lab, place, name, **how)
    assert code == 0
    return sorted(".".join(map(str, each)) for each in found)


@pytest.fixture
def upstream(lab, tmp_path, monkeypatch):
    """A server on the neighbour which the host uses: it knows ``x.example``; returns what it was asked."""
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text(f"nameserver {lab.lan_address}\nsearch example.org\n")
    monkeypatch.setattr(sandbox_files, "HOST_RESOLV_CONF", resolv_conf)
    asked = []

    def answer(data):
        asked.append(data)
        if b"\x07example" not in data:
            return data[:2] + b"\x81\x83" + data[4:]
        record = b"\xc0\x0c" + struct.pack("!HHIH", A, 1, 60, 4) + bytes([203, 0, 113, 5])
        return data[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + data[12:] + record

    async def serve_udp(sock):
        with sock:
            while True:
                data, peer = await sock.recvfrom(4096)
                await sock.sendto(answer(data), peer)

    async def serve_tcp(stream):
        size = struct.unpack("!H", await stream.receive_some(2))[0]
        reply = answer(await stream.receive_some(size))
        await stream.send_all(struct.pack("!H", len(reply)) + reply)

    lab.nursery.start_soon(serve_udp, lab._listen("lan", lab.lan_address, 53, "udp"))
    listener = trio.SocketListener(lab._listen("lan", lab.lan_address, 53))
    lab.nursery.start_soon(trio.serve_listeners, serve_tcp, [listener])
    return asked


async def test_containers_know_each_other_by_name_alias_and_short_id(lab, upstream):
    """Behaviour 58."""
    net = await lab.network("shop", subnet="10.201.0.0/24")
    db = await lab.attach("db", (net, EndpointSpec(aliases=("Store",))))
    await lab.attach("web", net)
    for name in ("db", "DB", "store", db.container_id[:12], "db.shop"):
        assert await addresses(lab, "web", name) == ["10.201.0.2"], name
    assert await addresses(lab, "db", "web", tcp=True) == ["10.201.0.3"]
    assert upstream == []


async def test_a_shared_alias_leads_to_all_who_have_it_and_are_there(lab, upstream):
    """Behaviour 55."""
    net = await lab.network("shop", subnet="10.201.0.0/24")
    for name in ("w1", "w2"):
        await lab.attach(name, (net, EndpointSpec(aliases=("web",))))
    assert await addresses(lab, "w1", "web") == ["10.201.0.2", "10.201.0.3"]
    await lab.detach("w2")
    assert await addresses(lab, "w1", "web") == ["10.201.0.2"]


async def test_a_known_name_without_that_record_is_answered_empty(lab, upstream):
    """Behaviour 57."""
    net = await lab.network("shop", subnet="10.201.0.0/24")
    await lab.attach("db", net)
    for kind in (AAAA, MX):
        assert await ask(lab, "db", "db", kind) == (0, [])
    assert upstream == []


async def test_an_address_leads_back_to_a_name(lab, upstream):
    """Behaviour 59."""
    net = await lab.network("shop", subnet="10.201.0.0/24")
    await lab.attach("db", net)
    code, found = await ask(lab, "db", "2.0.201.10.in-addr.arpa", PTR)
    assert (code, found) == (0, [b"\x02db\x04shop\x00"])


async def test_names_of_other_networks_are_not_known(lab, upstream):
    """Behaviour 56."""
    shop = await lab.network("shop", subnet="10.201.0.0/24")
    office = await lab.network("office", subnet="10.202.0.0/24")
    await lab.attach("db", shop)
    await lab.attach("desk", office)
    assert await ask(lab, "desk", "db") == (3, [])


async def test_other_names_are_asked_of_the_hosts_servers(lab, upstream):
    net = await lab.network("shop", subnet="10.201.0.0/24")
    sandbox = await lab.attach("web", net)
    assert await addresses(lab, "web", "www.example") == ["203.0.113.5"]
    assert await addresses(lab, "web", "www.example", tcp=True) == ["203.0.113.5"]
    assert Path(sandbox.files["/etc/resolv.conf"]).read_text().splitlines()[1:] == [
        "nameserver 127.0.0.11",
        "search example.org",
        "options ndots:0",
    ]


async def test_a_containers_own_servers_are_asked_from_within_it(lab, upstream):
    """Behaviour 65."""
    net = await lab.network("shop", subnet="10.201.0.0/24")
    seen = []

    async def serve(sock):
        with sock:
            while True:
                data, peer = await sock.recvfrom(4096)
                seen.append(peer[0])
                await sock.sendto(data[:2] + b"\x81\x80" + data[4:], peer)

    await lab.attach("dns", net)
    lab.nursery.start_soon(serve, lab._listen("dns", "", 53, "udp"))
    await lab.attach("web", net, dns=("10.201.0.2",), dns_search=("shop.test",))
    assert await ask(lab, "web", "www.example") == (0, [])
    assert seen == ["10.201.0.3"]
    assert upstream == []


async def test_a_container_may_have_port_53_itself(lab, upstream):
    """Behaviour 64."""
    net = await lab.network("shop", subnet="10.201.0.0/24")
    await lab.attach("dns", net)
    with lab._listen("dns", "0.0.0.0", 53), lab._listen("dns", "0.0.0.0", 53, "udp"):
        assert await addresses(lab, "dns", "dns") == ["10.201.0.2"]


async def test_an_internal_network_is_not_a_way_to_the_hosts_servers(lab, upstream):
    """Behaviour 63."""
    net = await lab.network("shop", subnet="10.201.0.0/24", internal=True)
    await lab.attach("db", net)
    assert await addresses(lab, "db", "db") == ["10.201.0.2"]
    assert await ask(lab, "db", "www.example") == (2, [])
    assert upstream == []


async def test_a_dead_first_server_costs_a_second(lab, upstream):
    """Behaviour 60."""
    net = await lab.network("shop", subnet="10.201.0.0/24")
    path = sandbox_files.HOST_RESOLV_CONF
    path.write_text(f"nameserver 198.51.100.77\nnameserver {lab.lan_address}\n")
    await lab.attach("web", net)
    assert await addresses(lab, "web", "www.example", wait_s=4) == ["203.0.113.5"]


async def test_a_single_label_stays_here_when_the_user_wants_dots(lab, upstream):
    """Behaviour 66."""
    net = await lab.network("shop", subnet="10.201.0.0/24")
    await lab.attach("web", net, dns_options=("ndots:2",))
    assert await ask(lab, "web", "nobody") == (3, [])
    assert upstream == []


async def test_many_questions_from_one_socket_are_all_answered(lab, upstream):
    """Behaviour 67."""
    net = await lab.network("shop", subnet="10.201.0.0/24")
    await lab.attach("db", net)
    with trio.socket.from_stdlib_socket(lab.socket("db", "udp")) as sock:
        await sock.connect(SERVER)
        for _ in range(20):
            for _ in range(32):
                await sock.send(query("db"))
                await sock.send(query("db", AAAA))
            with trio.fail_after(20):
                for _ in range(64):
                    await sock.recv(512)


async def test_nonsense_does_not_stop_the_service(lab, upstream):
    """Behaviour 68."""
    net = await lab.network("shop", subnet="10.201.0.0/24")
    await lab.attach("db", net)
    with trio.socket.from_stdlib_socket(lab.socket("db", "udp")) as sock:
        await sock.connect(SERVER)
        for size in range(1, 40):
            await sock.send(random.Random(size).randbytes(size))
    assert await addresses(lab, "db", "db") == ["10.201.0.2"]


async def test_a_new_name_takes_the_place_of_the_old(lab, upstream):
    net = await lab.network("shop", subnet="10.201.0.0/24")
    sandbox = await lab.attach("db", net)
    await lab.driver.rename(sandbox.container_id, "store")
    assert await addresses(lab, "db", "store") == ["10.201.0.2"]
    # The hostname stays, as Docker's does.
    await lab.attach("web", net)
    code, _ = await ask(lab, "web", "2.0.201.10.in-addr.arpa", PTR)
    assert code == 0


async def test_names_come_with_the_first_network_that_has_them(lab, upstream):
    default = await lab.network("bridge", subnet="10.200.0.0/24")
    shop = await lab.network("shop", subnet="10.201.0.0/24")
    sandbox = await lab.attach("web", default)
    await lab.attach("db", shop)
    path = Path(sandbox.files["/etc/resolv.conf"])
    assert f"nameserver {lab.lan_address}" in path.read_text()
    inode = path.stat().st_ino
    await lab.driver.connect(sandbox.container_id, shop, EndpointSpec(aliases=("shopweb",)))
    assert "nameserver 127.0.0.11" in path.read_text()
    assert path.stat().st_ino == inode, "a bind mounted file is written in place"
    assert await addresses(lab, "web", "db") == ["10.201.0.2"]
    assert await addresses(lab, "db", "shopweb") == ["10.201.0.3"]
    hosts = Path(sandbox.files["/etc/hosts"])
    assert "10.201.0.3\tweb\n" in hosts.read_text()
    await lab.driver.disconnect(sandbox.container_id, shop)
    assert "10.201.0.3" not in hosts.read_text()
    assert f"nameserver {lab.lan_address}" in path.read_text()


async def test_a_users_resolv_conf_is_left_alone(lab, upstream):
    """Behaviour 70."""
    default = await lab.network("bridge", subnet="10.200.0.0/24")
    shop = await lab.network("shop", subnet="10.201.0.0/24")
    sandbox = await lab.attach("web", default)
    path = Path(sandbox.files["/etc/resolv.conf"])
    path.write_text("nameserver 192.0.2.1\n")
    await lab.driver.connect(sandbox.container_id, shop, EndpointSpec())
    assert path.read_text() == "nameserver 192.0.2.1\n"


async def test_links_are_names_for_one_container_only(lab, upstream):
    net = await lab.network("shop", subnet="10.201.0.0/24")
    await lab.attach("db", net)
    await lab.attach("web", (net, EndpointSpec(links=("db:store",))))
    assert await addresses(lab, "web", "store") == ["10.201.0.2"]
    assert await ask(lab, "db", "store") == (3, [])
    default = await lab.network("bridge", subnet="10.200.0.0/24")
    await lab.attach("old-db", default)
    old = await lab.attach("old-web", (default, EndpointSpec(links=("old-db:store",))))
    hosts = Path(old.files["/etc/hosts"]).read_text()
    assert f"{lab.address('old-db')}\tstore old-db\n" in hosts


async def test_links_of_a_living_sandbox_change_at_once(lab, upstream):
    default = await lab.network("bridge", subnet="10.200.0.0/24")
    shop = await lab.network("shop", subnet="10.201.0.0/24")
    await lab.attach("db", default)
    await lab.attach("store", shop)
    linked = (default, EndpointSpec(links=("db:base",)))
    sandbox = await lab.attach("web", linked, (shop, EndpointSpec(links=("store:goods",))))
    hosts = Path(sandbox.files["/etc/hosts"])
    assert f"{lab.address('db')}\tbase db\n" in hosts.read_text()
    await lab.driver.relink(sandbox.container_id, default, ())
    assert "base" not in hosts.read_text()
    await lab.driver.relink(sandbox.container_id, default, ("db:other",))
    assert f"{lab.address('db')}\tother db\n" in hosts.read_text()
    assert await addresses(lab, "web", "goods") == ["10.201.0.2"]
    await lab.driver.relink(sandbox.container_id, shop, ("store:wares",))
    assert await addresses(lab, "web", "wares") == ["10.201.0.2"]
    assert await addresses(lab, "web", "WARES.shop") == ["10.201.0.2"]
    assert await ask(lab, "web", "goods") == (3, [])


async def test_a_link_follows_a_container_that_comes_again_and_a_users_lines_stay(lab, upstream):
    default = await lab.network("bridge", subnet="10.200.0.0/24")
    await lab.attach("db", default)
    web = await lab.attach("web", (default, EndpointSpec(links=("db:base",))))
    hosts = Path(web.files["/etc/hosts"])
    hosts.write_text(hosts.read_text() + "192.0.2.1\tmine\n")
    before = lab.address("db")
    await lab.detach("db")
    await lab.driver.relink(web.container_id, default, ("db:base",))
    assert "base" not in hosts.read_text(), "whoever gets its address is another"
    await lab.attach("other", (default, EndpointSpec(ipv4_address=before)))
    await lab.attach("db", default)
    await lab.driver.relink(web.container_id, default, ("db:base",))
    assert f"{lab.address('db')}\tbase db\n" in hosts.read_text()
    assert before not in hosts.read_text()
    assert "192.0.2.1\tmine\n" in hosts.read_text()


async def test_host_gateway_is_the_host(lab, upstream):
    """Behaviour 69."""
    default = await lab.network("bridge", subnet="10.200.0.0/24")
    lab.listen("host", "", 9998)
    sandbox = await lab.attach("web", default, extra_hosts=("box:host-gateway",))
    assert "10.200.0.1\tbox\n" in Path(sandbox.files["/etc/hosts"]).read_text()
    assert (await lab.ask("web", "10.200.0.1", 9998)).startswith("host")


async def test_dead_servers_are_not_waited_for_for_ever(lab, upstream):
    """Behaviour 60."""
    net = await lab.network("shop", subnet="10.201.0.0/24")
    servers = ("198.51.100.77", "198.51.100.78")
    sandbox_files.HOST_RESOLV_CONF.write_text("".join(f"nameserver {s}\n" for s in servers))
    await lab.attach("web", net)
    assert await ask(lab, "web", "www.example", wait_s=8) == (2, [])


async def test_a_server_on_the_hosts_loopback_is_asked(lab, upstream):
    """Behaviour 61: systemd-resolved and dnsmasq listen there."""
    net = await lab.network("shop", subnet="10.201.0.0/24")
    sandbox_files.HOST_RESOLV_CONF.write_text("nameserver 127.0.0.53\n")
    answers = iter([b"\xcb\0\x71\7"])

    async def serve(sock):
        with sock:
            data, peer = await sock.recvfrom(4096)
            record = b"\xc0\x0c" + struct.pack("!HHIH", A, 1, 60, 4) + next(answers)
            head = data[:2] + b"\x81\x80\0\1\0\1\0\0\0\0"
            await sock.sendto(head + data[12:] + record, peer)

    lab.nursery.start_soon(serve, lab._listen("host", "127.0.0.53", 53, "udp"))
    await lab.attach("web", net)
    assert await addresses(lab, "web", "www.example") == ["203.0.113.7"]


async def test_a_large_answer_is_whole_by_tcp_or_when_the_client_takes_it(
    lab, tmp_path, monkeypatch
):
    """Behaviour 62."""
    path = tmp_path / "resolv.conf"
    path.write_text(f"nameserver {lab.lan_address}\n")
    monkeypatch.setattr(sandbox_files, "HOST_RESOLV_CONF", path)
    texts = b"".join(
        b"\xc0\x0c" + struct.pack("!HHIHB", 16, 1, 60, 251, 250) + b"x" * 250 for _ in range(12)
    )

    def whole(data):
        end = data.index(b"\0", 12) + 5
        return data[:2] + b"\x81\x80\0\1\0\x0c\0\0\0\0" + data[12:end] + texts

    async def serve_udp(sock):
        with sock:
            while True:
                data, peer = await sock.recvfrom(4096)
                takes_it = data[11] == 1
                cut = data[:2] + b"\x83\x80\0\1\0\0\0\0\0\0" + data[12:]
                await sock.sendto(whole(data) if takes_it else cut, peer)

    async def serve_tcp(stream):
        size = struct.unpack("!H", await stream.receive_some(2))[0]
        reply = whole(await stream.receive_some(size))
        await stream.send_all(struct.pack("!H", len(reply)) + reply)

    lab.nursery.start_soon(serve_udp, lab._listen("lan", lab.lan_address, 53, "udp"))
    listener = trio.SocketListener(lab._listen("lan", lab.lan_address, 53))
    lab.nursery.start_soon(trio.serve_listeners, serve_tcp, [listener])
    net = await lab.network("shop", subnet="10.201.0.0/24")
    await lab.attach("web", net)
    asked = query("big.example", 16)
    edns = asked[:11] + b"\1" + asked[12:] + b"\0" + struct.pack("!HHIH", 41, 4096, 0, 0)
    with trio.socket.from_stdlib_socket(lab.socket("web", "udp")) as sock:
        await sock.connect(SERVER)
        for question, size, cut in ((asked, len(asked), True), (edns, 3000, False)):
            await sock.send(question)
            with trio.fail_after(5):
                answer = await sock.recv(65535)
            assert bool(answer[2] & 0x02) is cut
            assert len(answer) >= size
    code, found = await ask(lab, "web", "big.example", 16, tcp=True)
    assert (code, len(found)) == (0, 12)


async def test_names_have_addresses_of_both_families(lab, upstream):
    pools = (AddressPool(subnet="10.201.0.0/24"), AddressPool(subnet="fd55:1::/64"))
    net = await lab.network("shop", enable_ipv6=True, pools=pools)
    await lab.attach("db", net)
    await lab.attach("web", net)
    six = lab.sandboxes["db"].endpoints[0].ipv6_address
    code, found = await ask(lab, "web", "db", AAAA)
    assert (code, found) == (0, [ip_address(six).packed])
    assert await addresses(lab, "web", "db") == [lab.address("db")]
    code, found = await ask(lab, "web", ip_address(six).reverse_pointer, PTR)
    assert found == [b"\2db\4shop\0"]
    hosts = Path(lab.sandboxes["web"].files["/etc/hosts"]).read_text()
    own = lab.sandboxes["web"].endpoints[0].ipv6_address
    assert f"{own}\tweb\n" in hosts
    assert "::1\tlocalhost ip6-localhost ip6-loopback\n" in hosts
    assert upstream == []
