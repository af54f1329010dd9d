"""A balanced host port leads to its backends in turn, and follows their changes without a gap."""

from collections import Counter

import pytest
import trio

from linkspan.plugins.bridge_network.nftables import Nftables
from linkspan.sdk.model.network import Backend, PortBinding

pytestmark = pytest.mark.system

PORT = PortBinding(container_port=80, host_port=8080)


def backends(lab, *names):
    return tuple(Backend(address=lab.address(name), port=80) for name in names)


async def service(lab, count):
    net = await lab.network("bridge", subnet="10.201.0.0/24")
    names = [f"web{number}" for number in range(1, count + 1)]
    for name in names:
        await lab.attach(name, net)
    return names


async def answers(lab, place, address, count):
    found = [(await lab.ask(place, address, 8080)).split()[0] for _ in range(count)]
    return Counter(found)


async def test_every_backend_is_met_evenly_from_everywhere(lab):
    names = await service(lab, 3)
    await lab.driver.balance(PORT, backends(lab, *names))
    net = await lab.network("other", subnet="10.202.0.0/24")
    await lab.attach("client", net)
    for place, address in (
        ("lan", lab.host_address),
        ("host", lab.host_address),
        ("host", "127.0.0.1"),
        ("client", lab.host_address),
        ("web1", lab.host_address),
    ):
        assert await answers(lab, place, address, 9) == dict.fromkeys(names, 3), place


async def test_an_outside_client_is_seen_with_its_address(lab):
    names = await service(lab, 1)
    await lab.driver.balance(PORT, backends(lab, *names))
    assert await lab.ask("lan", lab.host_address, 8080) == f"web1 {lab.lan_address}"


async def test_without_backends_connections_are_refused_at_once(lab):
    names = await service(lab, 1)
    await lab.driver.balance(PORT, ())
    assert await lab.ask("lan", lab.host_address, 8080) == "refused"
    assert await lab.ask("host", "127.0.0.1", 8080) == "refused"
    await lab.driver.balance(PORT, backends(lab, *names))
    assert await answers(lab, "lan", lab.host_address, 2) == {"web1": 2}
    await lab.driver.balance(PORT, ())
    assert await lab.ask("lan", lab.host_address, 8080) == "refused"


async def test_a_removed_backend_keeps_its_connections_and_gets_no_new_ones(lab):
    await service(lab, 2)
    await lab.driver.balance(PORT, backends(lab, "web1"))
    stream = await lab.connect("lan", lab.host_address, 8080)
    async with stream:
        assert (await stream.receive_some()).startswith(b"web1")
        await lab.driver.balance(PORT, backends(lab, "web2"))
        assert await answers(lab, "lan", lab.host_address, 5) == {"web2": 5}
        await stream.send_all(b"still there?")
        with trio.fail_after(20):
            assert await stream.receive_some() == b"still there?"


async def test_no_connection_fails_while_backends_change_all_the_time(lab):
    names = await service(lab, 3)
    await lab.driver.balance(PORT, backends(lab, *names))
    seen = Counter()

    async def ask_on():
        while True:
            answer = await lab.ask("lan", lab.host_address, 8080, wait_s=5)
            seen[answer.split()[0]] += 1

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(ask_on)
        for number in range(100):
            await lab.driver.balance(
                PORT, backends(lab, names[number % 3], names[(number + 1) % 3])
            )
            await trio.sleep(0.005)
        nursery.cancel_scope.cancel()
    assert set(seen) == set(names)


@pytest.fixture
def written(monkeypatch):
    """Changes what the firewall writes: each function that is appended gets a transaction and returns another."""
    changes = []
    run = Nftables.run

    def changed(self, text, **options):
        for change in changes:
            text = change(text)
        return run(self, text, **options)

    monkeypatch.setattr(Nftables, "run", changed)
    return changes


async def test_a_connection_that_meets_a_map_being_replaced_is_led_all_the_same(lab, written):
    # The kernel replaces rules and elements one after the other: who has begun with the old rules may find
    # nothing in their map. Here nobody finds anything in it.
    written.append(lambda text: text.replace("numgen inc mod 2", "numgen inc mod 2 offset 100"))
    names = await service(lab, 2)
    await lab.driver.balance(PORT, backends(lab, *names))
    for place, address in (("lan", lab.host_address), ("host", "127.0.0.1")):
        assert (await lab.ask(place, address, 8080)).split()[0] in names, place


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
async def test_a_client_that_was_led_nowhere_is_led_at_its_next_try(lab, written, protocol):
    # As above, where rules are added to a chain that was empty.
    names = await service(lab, 1)
    port = PortBinding(container_port=80, host_port=8080, protocol=protocol)

    async def ask():
        return await lab.ask("lan", lab.host_address, 8080, protocol, source_port=5555)

    written.append(lambda text: "".join(_without_rules(text.splitlines(keepends=True))))
    await lab.driver.balance(port, backends(lab, *names))
    assert await ask() == "refused"
    written.clear()
    await lab.driver.balance(port, backends(lab, *names))
    assert (await ask()).startswith("web1 ")


def _without_rules(lines):
    return [line for line in lines if " dnat ip to " not in line]


async def test_an_ended_container_is_no_backend_any_more(lab):
    names = await service(lab, 2)
    await lab.driver.balance(PORT, backends(lab, *names))
    await lab.detach("web1")
    assert await answers(lab, "lan", lab.host_address, 4) == {"web2": 4}
    await lab.detach("web2")
    assert await lab.ask("lan", lab.host_address, 8080) == "refused"


async def test_a_udp_client_leaves_a_removed_backend(lab):
    await service(lab, 2)
    port = PortBinding(container_port=80, host_port=8080, protocol="udp")

    async def ask():
        answer = await lab.ask("lan", lab.host_address, 8080, "udp", source_port=5555)
        return answer.split()[0]

    await lab.driver.balance(port, backends(lab, "web1"))
    assert await ask() == "web1"
    await lab.driver.balance(port, backends(lab, "web2"))
    assert await ask() == "web2"


async def test_a_port_on_one_address_is_balanced_there_only(lab):
    names = await service(lab, 1)
    port = PortBinding(container_port=80, host_port=8080, host_ip="127.0.0.1")
    await lab.driver.balance(port, backends(lab, *names))
    assert await answers(lab, "host", "127.0.0.1", 1) == {"web1": 1}
    assert await lab.ask("lan", lab.host_address, 8080) == "refused"
    await lab.driver.balance(port, ())
    assert await lab.ask("host", "127.0.0.1", 8080) == "refused"


async def test_an_unbalanced_port_is_free(lab):
    names = await service(lab, 1)
    await lab.driver.balance(PORT, backends(lab, *names))
    await lab.driver.unbalance(PORT)
    assert await lab.ask("lan", lab.host_address, 8080) == "refused"
    lab.listen("host", "", 8080)
    assert (await lab.ask("lan", lab.host_address, 8080)).startswith("host")
