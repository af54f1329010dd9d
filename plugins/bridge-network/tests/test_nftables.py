"""libnftables in a process of its own, which may crash."""

import os
import signal
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trio

from linkspan.plugins.bridge_network.config import BridgeConfig
from linkspan.plugins.bridge_network.descriptors import opened
from linkspan.plugins.bridge_network.driver import BridgeNetwork
from linkspan.plugins.bridge_network.nfnetlink import attribute
from linkspan.plugins.bridge_network.nftables import Nftables, NftablesCrashed, NftablesError
from linkspan.sdk.errors import NotUsable
from linkspan.sdk.model.network import AddressPool, Network, NetworkSpec, PortBinding

pytestmark = pytest.mark.system


@pytest.fixture
def nft(own_network):
    opened = Nftables()
    yield opened
    opened.close()


def child_of(nft: Nftables) -> int:
    assert nft._pid
    return nft._pid


def until_stopped(pid: int) -> None:
    while " T " not in Path(f"/proc/{pid}/stat").read_text():
        time.sleep(0.005)


def killed_in_the_middle(nft: Nftables, text: str) -> str:
    """Run a transaction whose child is killed after it was told and before it has done it."""
    pid = child_of(nft)
    os.kill(pid, signal.SIGSTOP)
    until_stopped(pid)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(nft.run, text)
        while not nft._lock.locked():
            time.sleep(0.005)
        os.kill(pid, signal.SIGKILL)
        return running.result(30)


def test_a_transaction_is_all_or_nothing_and_says_what_was_wrong(nft, shell):
    nft.run("add table inet one\nadd chain inet one c\n")
    with pytest.raises(NftablesError, match=r"No such file or directory|does not exist"):
        nft.run("add table inet two\nadd rule inet one elsewhere accept\n")
    assert nft.run("list tables\n") == "table inet one\n"
    large = "".join(f"add element inet one s {{ {port} }}\n" for port in range(1, 20_000))
    nft.run("add set inet one s { type inet_service; }\n" + large)
    assert shell("nft list set inet one s").count(",") > 19_000


def test_a_child_that_is_killed_in_the_middle_is_named_and_replaced(nft, shell):
    nft.run("add table inet one\n")
    owner = nft.owner
    assert owner is not None
    before = child_of(nft)
    with pytest.raises(NftablesCrashed) as caught:
        killed_in_the_middle(nft, "add table inet two\n")
    assert "nftables was ended in the middle of its work (Killed)" in caught.value.message
    assert "memory" in caught.value.help
    nft.run("add table inet three\n")
    assert child_of(nft) != before
    assert shell("nft list tables").split() == ["table", "inet", "one", "table", "inet", "three"]


def test_rules_of_another_namespace_are_made_there_and_it_comes_back(nft, own_network, wire, shell):
    nft.run("add table inet here\n")
    with opened(wire) as there:
        nft.run("add table inet there\n", namespace=there)
        with pytest.raises(NftablesError):
            nft.run("nonsense\n", namespace=there)
    assert nft.run("list tables\n") == "table inet here\n"
    assert shell(f"nsenter --net={wire} nft list tables") == "table inet there\n"


def test_a_child_that_is_started_from_another_namespace_is_at_home(nft, own_network, wire, shell):
    nft.run("add table inet here\n")
    os.kill(child_of(nft), signal.SIGKILL)
    with opened(wire) as there:
        with pytest.raises(NftablesCrashed):
            nft.run("add table inet there\n", namespace=there)
        nft.run("add table inet there\n", namespace=there)
    nft.run("add table inet again\n")
    assert "again" in shell("nft list tables")


def test_the_child_ends_with_its_daemon(nft):
    nft.run("add table inet one\n")
    pid = child_of(nft)
    nft._child.close()  # as the kernel does when the daemon is killed
    assert os.waitpid(pid, 0) == (pid, 0)


async def test_published_ports_outlive_a_crash_and_new_ones_are_published(lab, shell):
    """The one that is killed in the middle of a publication, too: the table is put right and it goes on."""
    nft = lab.driver._nft
    net = await lab.network("net", subnet="10.201.0.0/24")
    await lab.attach("a1", net, ports=(PortBinding(container_port=80, host_port=8080),))
    pid = child_of(nft)
    os.kill(pid, signal.SIGSTOP)
    until_stopped(pid)

    async with trio.open_nursery() as nursery:

        async def publish():
            await lab.attach("a2", net, ports=(PortBinding(container_port=80, host_port=8082),))

        nursery.start_soon(publish)
        while not nft._lock.locked():  # noqa: ASYNC110 - a thread's
            await trio.sleep(0.005)
        assert (await lab.ask("lan", lab.host_address, 8080)) == f"a1 {lab.lan_address}"
        os.kill(pid, signal.SIGKILL)
    for name, port in (("a1", 8080), ("a2", 8082)):
        assert (await lab.ask("lan", lab.host_address, port)) == f"{name} {lab.lan_address}"
    shell("nft flush ruleset")  # the new child has the socket that owns the table
    assert (await lab.ask("lan", lab.host_address, 8082)).startswith("a2")
    await lab.detach("a1")
    assert (await lab.ask("lan", lab.host_address, 8080)) == "refused"


def send_batch(*parts: tuple[int, int, bytes]) -> None:
    """Have nftables do things in one transaction, the last of which is to be answered: kind, flags, body."""
    batch = struct.pack("=BBH", 0, 0, socket.htons(10))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netfilter:
        netfilter.settimeout(10)
        netfilter.send(
            b"".join(
                struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body
                for sequence, (kind, flags, body) in enumerate(
                    [(16, 1, batch), *parts, (17, 1, batch)]
                )
            )
        )
        assert netfilter.recv(8192)[16:20] == bytes(4), "the kernel refuses it"


def written_by_a_newer_nft() -> None:
    """A set as nft 1.1.3 makes it with ``add set inet newer s { type ipv4_addr; flags interval; }``."""
    family = struct.pack("=BBH", 1, 0, 0)
    table = attribute(1, b"newer\0")
    number = struct.Struct("!I").pack
    about = bytes.fromhex(
        "00040200000003080004040000000100"
    )  # what libnftables 1.0.6 misunderstands
    made = table + attribute(2, b"s\0") + attribute(3, number(4)) + attribute(4, number(7))
    made += attribute(5, number(4)) + attribute(10, number(1)) + attribute(13, about)
    send_batch((0xA00, 0x401, family + table), (0xA09, 0x405, family + made))


@pytest.fixture
def nft_that_crashes(shell) -> bool:
    """Whether this machine's is old enough to crash at what a newer one has written."""
    return "v1.0." in shell("nft --version")


async def test_rules_of_a_newer_nft_end_neither_the_daemon_nor_a_container(
    world, fake_host, shell, nft_that_crashes
):
    net = Network(
        id="5" * 64,
        spec=NetworkSpec(name="net", pools=(AddressPool(subnet="10.201.0.0/24"),)),
        created_at="",
    )
    port = PortBinding(container_port=80, host_port=8080)
    async with BridgeNetwork.open(BridgeConfig(pool_size=0), fake_host) as driver:
        world.driver = driver
        net = await driver.create_network(net)
        sandbox = await world.attach("a1", net, ports=(port,))
        written_by_a_newer_nft()
        assert (await world.ask("lan", world.host_address, 8080)) == f"a1 {world.lan_address}"
        await world.attach(
            "a2", net
        )  # without ports nothing is asked of nft in the host's namespace
        another = PortBinding(container_port=80, host_port=8081)
        if nft_that_crashes:
            with pytest.raises(NftablesCrashed, match="Segmentation fault"):
                await world.attach("a3", net, ports=(another,))
            assert await world.ask("host", "127.0.0.1", 8081) == "refused"
        await world.detach("a2")
    # The next daemon finds them; what was published goes on, what was not is when they are gone.
    async with BridgeNetwork.open(BridgeConfig(pool_size=0), fake_host) as driver:
        world.driver = driver
        notes = await driver.restore([net], [sandbox])
        assert any("nftables crashes" in note for note in notes) == nft_that_crashes
        assert (await world.ask("lan", world.host_address, 8080)) == f"a1 {world.lan_address}"
        remove_what_the_newer_nft_wrote()
        await driver._firewall.repair()
        await world.attach("a3", net, ports=(another,))
        assert (await world.ask("lan", world.host_address, 8081)) == f"a3 {world.lan_address}"
        for name in list(world.sandboxes):
            await world.detach(name)
    assert "linkspan" not in shell("nft list tables")


def remove_what_the_newer_nft_wrote() -> None:
    send_batch((0xA02, 5, struct.pack("=BBH", 1, 0, 0) + attribute(1, b"newer\0")))


async def test_a_daemon_that_cannot_make_its_table_says_why(world, fake_host, nft_that_crashes):
    written_by_a_newer_nft()
    opening = BridgeNetwork.open(BridgeConfig(pool_size=0), fake_host)
    if not nft_that_crashes:
        async with opening:
            return
    with pytest.raises(NotUsable) as caught:
        await opening.__aenter__()
    assert "which a newer nft" not in caught.value.message
    assert "a newer nft has written" in caught.value.message
    assert "remove them" in caught.value.help


async def test_the_child_that_was_started_before_the_loop_is_the_one_that_is_used(
    own_network, fake_host
):
    BridgeNetwork.prepare_process(BridgeConfig(), fake_host.run_dir)
    (early,) = BridgeNetwork._started
    child = child_of(early)
    async with BridgeNetwork.open(BridgeConfig(), fake_host) as driver:
        assert BridgeNetwork._started == []
        assert driver._nft is early
        assert child_of(early) == child
        assert "table inet" in early.run("list tables\n")
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
