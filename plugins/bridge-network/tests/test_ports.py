"""Host ports: many, at once, and what happens in the moments in which they change."""

import errno
import os
import resource
import socket
import subprocess
import time

import pytest
import trio

from linkspan.plugins.bridge_network.nftables import Nftables
from linkspan.plugins.bridge_network.ports import Ports
from linkspan.sdk.model.network import Backend, EndpointSpec, PortBinding

pytestmark = pytest.mark.system


async def test_a_thousand_ports_are_published_without_a_process_each(lab, fake_host):
    """Behaviours 37, 77."""
    net = await lab.network("net", subnet="10.201.0.0/24")
    ports = tuple(
        PortBinding(container_port=number, host_port=number) for number in range(7000, 8000)
    )
    await lab.attach("many", net, ports=ports, serving=False)
    listing = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True)
    keepers = [line for line in listing.stdout.splitlines() if str(fake_host.run_dir) in line]
    assert len(keepers) == 1
    lab.listen("many", "", 7999)
    assert await lab.ask("lan", lab.host_address, 7999) == f"many {lab.lan_address}"
    lab.listen("many", "::", 7500)
    assert await lab.ask("lan", lab.host_address6, 7500) == "many 10.201.0.1"


async def test_ports_that_are_chosen_at_once_are_all_different(lab):
    """Behaviour 39."""
    net = await lab.network("net", subnet="10.201.0.0/24")
    found = []

    async def start(number):
        ports = (PortBinding(container_port=80), PortBinding(container_port=80, protocol="udp"))
        sandbox = await lab.attach(f"c{number}", net, ports=ports, serving=False)
        found.extend((each.protocol, each.host_port) for each in sandbox.ports)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(start, number)
    assert len(set(found)) == 40


async def test_a_client_that_comes_too_early_is_served_late(lab, monkeypatch):
    """Behaviour 40: it is neither refused nor left hanging."""
    net = await lab.network("net", subnet="10.201.0.0/24")
    books = lab.driver._firewall._books
    run = books.run

    def slow(text):
        if "pub4" in text:
            time.sleep(0.3)  # in the firewall's thread: the port is reserved, and leads nowhere
        run(text)

    monkeypatch.setattr(books, "run", slow)
    answers = []

    async def client():
        while True:
            answer = await lab.ask("lan", lab.host_address, 8080, wait_s=5)
            if answer != "refused":
                answers.append(answer)
                return

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client)
            ports = (PortBinding(container_port=80, host_port=8080),)
            await lab.attach("web", net, ports=ports)
    assert answers == [f"web {lab.lan_address}"]


@pytest.mark.parametrize("balanced", [False, True])
async def test_a_client_that_comes_as_a_port_is_given_back_is_refused(lab, monkeypatch, balanced):
    """It is not left hanging, nor tracked: its next try may meet the next container with that port."""
    net = await lab.network("net", subnet="10.201.0.0/24")
    port = PortBinding(container_port=80, host_port=8080)
    await lab.attach("web", net, ports=() if balanced else (port,))
    if balanced:
        await lab.driver.balance(port, (Backend(address=lab.address("web"), port=80),))
    met = []
    run = Nftables.run

    def run_and_come(self, text, **options):
        run(self, text, **options)
        if text.startswith("delete element") and "tcp . 8080" in text:
            # In the firewall's thread: the rule is gone, and the port not given back yet.
            with socket.socket() as client:
                client.settimeout(5)
                met.append(client.connect_ex(("127.0.0.1", 8080)))

    monkeypatch.setattr(Nftables, "run", run_and_come)
    await (lab.driver.unbalance(port) if balanced else lab.detach("web"))
    assert met == [errno.ECONNREFUSED]


def test_a_port_that_a_daemon_was_giving_back_when_it_was_killed_is_held_again(own_network, shell):
    shell("ip link set lo up")
    wanted = [PortBinding(container_port=80, host_port=8080, host_ip="127.0.0.1")]
    killed, next_one = Ports(), Ports()
    reserved = killed.reserve("web", wanted)
    ((name, held),) = reserved[0].named_sockets().items()
    kept = held.dup()
    reserved[0].refuse(())
    killed.release(reserved)
    next_one.know_kept({name: kept})
    taken = next_one.reserve("web", wanted)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="Address already in use"):
            other.bind(("127.0.0.1", 8080))
    next_one.release(taken)


async def test_packets_for_an_ended_container_do_not_reach_its_successor(lab):
    """Behaviour 43."""
    net = await lab.network("net", subnet="10.201.0.0/24")
    fixed = (net, EndpointSpec(ipv4_address="10.201.0.9"))
    port = PortBinding(container_port=80, host_port=8080, protocol="udp")
    await lab.attach("old", fixed, ports=(port,))
    with trio.socket.from_stdlib_socket(lab.socket("lan", "udp")) as sock:
        await sock.connect((lab.host_address, 8080))
        await sock.send(b"?")
        assert (await sock.recv(100)).startswith(b"old")
        await lab.detach("old")
        await lab.attach("new", fixed)
        await sock.send(b"?")
        with trio.move_on_after(0.5), pytest.raises(ConnectionRefusedError):
            assert not await sock.recv(100)


async def test_an_unrelated_container_disturbs_no_connection(lab):
    """Behaviours 44, 78: nothing is sent twice while others publish, and networks come."""
    net = await lab.network("net", subnet="10.201.0.0/24")
    port = PortBinding(container_port=80, host_port=8080)
    web = await lab.attach("web", net, ports=(port,))
    stream = await lab.connect("lan", lab.host_address, 8080)
    async with stream:
        await stream.receive_some()

        async def talk():
            while True:
                await stream.send_all(b"x" * 1000)
                await stream.receive_some()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk)
            for number in range(5):
                ports = (PortBinding(container_port=80),)
                await lab.attach(f"c{number}", net, ports=ports, serving=False)
                other = await lab.network(f"n{number}", subnet=f"10.20{number + 2}.0.0/24")
                await lab.driver.connect(web.container_id, other, EndpointSpec(gateway_priority=-1))
            nursery.cancel_scope.cancel()
        info = stream.socket.getsockopt(6, 11, 104)  # TCP_INFO: tcpi_total_retrans
        assert int.from_bytes(info[100:104], "little") == 0


def test_rules_are_changed_though_very_many_files_are_open(own_network, shell):
    """libnftables would end the process: it cannot wait for a socket numbered 1024 or more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    opened = [os.open("/", os.O_PATH) for _ in range(1100)]
    try:
        nftables = Nftables()
        nftables.run("add table inet many\n")
        nftables.close()
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "table inet many" in shell("nft list tables")
