"""The daemon dies and comes back: containers' networking goes on, and nothing is left or lost."""

import json
import os
import platform
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from linkspan.plugins.bridge_network.config import BridgeConfig
from linkspan.plugins.bridge_network.driver import BridgeNetwork
from linkspan.sdk.drivers.network import Sandbox
from linkspan.sdk.errors import Conflict
from linkspan.sdk.model.network import (
    AddressPool,
    Endpoint,
    EndpointSpec,
    Network,
    NetworkSpec,
    PortBinding,
)

pytestmark = pytest.mark.system


def network_of(record):
    spec = record["spec"]
    pools = tuple(AddressPool(**pool) for pool in spec["pools"])
    return Network(**{**record, "spec": NetworkSpec(**{**spec, "pools": pools})})


def sandbox_of(record):
    endpoints = tuple(
        Endpoint(**{**each, "spec": EndpointSpec(**each["spec"]), "names": tuple(each["names"])})
        for each in record["endpoints"]
    )
    ports = tuple(PortBinding(**port) for port in record["ports"])
    return Sandbox(**{**record, "endpoints": endpoints, "ports": ports})


def keepers(folder):
    """Pids of the keepers that belong to a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text().split("\0")
        except OSError:
            continue
        if str(folder) in " ".join(words) and any(word.endswith("keeper.py") for word in words):
            found.append(int(path.parent.name))
    return found


async def kill_keeper(folder):
    """Kill it, and wait until it is gone; return its pid."""
    with trio.fail_after(30):  # a process that has just begun shows no words yet
        while not (found := keepers(folder)):  # noqa: ASYNC110
            await trio.sleep(0.01)
    kill(found)
    (pid,) = found
    return pid


def kill(pids):
    for pid in pids:
        descriptor = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        select.select([descriptor], [], [], 5)
        os.close(descriptor)


@pytest.fixture
def records(wire, tmp_path):
    """Networks and sandboxes by name, of a daemon that was killed."""
    yield killed_daemon(tmp_path)
    kill(keepers(tmp_path))
    for left in (tmp_path / "run/netns").iterdir():  # where a test brought no daemon back
        subprocess.run(["umount", "-l", left], check=False, capture_output=True)


def killed_daemon(tmp_path):
    script = Path(__file__).with_name("killed_daemon.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == -9, done.stderr
    made = json.loads(done.stdout)
    return (
        [network_of(each) for each in made["networks"]],
        {name: sandbox_of(each) for name, each in made["sandboxes"].items()},
    )


@pytest.fixture
async def survivors(records, world):
    """The world with the living containers, before the daemon comes back."""
    _, world.sandboxes = records
    for name, sandbox in world.sandboxes.items():
        world.places[name] = sandbox.namespace
        world.serve(name)
    return world


@pytest.fixture
async def restored(records, survivors, fake_host):
    """The world with the daemon back in it."""
    async with BridgeNetwork.open(BridgeConfig(), fake_host) as driver:
        survivors.driver = driver
        assert await driver.restore(records[0], records[1].values()) == []
        yield survivors
        for name in list(survivors.sandboxes):
            await survivors.detach(name)


async def asked(lab, place, address, port, **how):
    return (await lab.ask(place, address, port, **how)).split()[0]


def links():
    done = subprocess.run(["ip", "-j", "link"], capture_output=True, text=True, check=True)
    return [link["ifname"] for link in json.loads(done.stdout)]


async def check_reachability(lab):
    host, ephemeral = lab.host_address, lab.sandboxes["web"].ports[1].host_port
    assert await asked(lab, "lan", host, 8080) == "web"
    assert await asked(lab, "host", "127.0.0.1", ephemeral) == "web"
    assert await asked(lab, "web", lab.address("db"), 81, wait_s=0.6) == "timeout"
    assert await asked(lab, "cache", lab.address("db"), 81) == "db"


async def test_networking_goes_on_without_the_daemon_and_when_it_is_back(
    records, survivors, fake_host
):
    lab = survivors
    await check_reachability(lab)
    stream = await lab.connect("lan", lab.host_address, 8080)
    async with stream:
        assert (await stream.receive_some()).startswith(b"web")
        async with BridgeNetwork.open(BridgeConfig(), fake_host) as driver:
            await check_reachability(lab)
            await driver.restore(records[0], records[1].values())
            await check_reachability(lab)
            await stream.send_all(b"still there?")
            with trio.fail_after(20):
                assert await stream.receive_some() == b"still there?"
            for sandbox in lab.sandboxes.values():
                await driver.detach(sandbox.container_id)


async def test_balanced_ports_lead_to_the_backends_that_live(restored):
    found = [await asked(restored, "lan", restored.host_address, 9000) for _ in range(4)]
    assert sorted(found) == ["cache", "cache", "db", "db"]


async def test_ports_are_reserved_again(restored, records):
    for host_port in (8080, 9000):
        with pytest.raises(OSError, match="in use"):
            restored.listen("host", "", host_port)
        port = PortBinding(container_port=80, host_port=host_port)
        with pytest.raises(Conflict) as caught:
            await restored.attach("thief", records[0][0], ports=(port,))
        assert caught.value.code == "port_taken"


async def test_addresses_are_taken_again(restored, records):
    taken = EndpointSpec(ipv4_address=restored.address("db"))
    with pytest.raises(Conflict) as caught:
        await restored.attach("thief", (records[0][1], taken))
    assert caught.value.code == "address_taken"


async def test_ports_stay_reserved_while_there_is_no_daemon(survivors):
    with pytest.raises(OSError, match="in use"):
        survivors.listen("host", "", 8080)
    with pytest.raises(OSError, match="in use"):
        survivors.listen("host", "::", 8080)


async def test_a_port_that_another_process_took_meanwhile_is_reported(
    records, survivors, fake_host
):
    await kill_keeper(fake_host.run_dir)
    survivors.listen("host", "", 8080)
    async with BridgeNetwork.open(BridgeConfig(), fake_host) as driver:
        (note,) = await driver.restore(records[0], records[1].values())
        assert "web" in note
        assert "8080" in note
        for sandbox in survivors.sandboxes.values():
            await driver.detach(sandbox.container_id)


async def test_names_are_answered_again_and_known_to_new_containers(restored, records):
    question = b"\0\7\1\0\0\1\0\0\0\0\0\0\2db\0\0\1\0\1"
    await restored.attach("new", records[0][1])
    for place in ("cache", "new"):
        with trio.socket.from_stdlib_socket(restored.socket(place, "udp")) as sock:
            await sock.connect(("127.0.0.11", 53))
            await sock.send(question)
            with trio.fail_after(20):
                answer = await sock.recv(512)
        assert ".".join(map(str, answer[-4:])) == restored.address("db")


async def test_what_no_record_knows_is_removed(restored, fake_host):
    """Behaviour 30."""
    known = restored.sandboxes.values()
    assert await asked(restored, "lan", restored.host_address, 8090) == "refused"
    folders = {path.name for path in (fake_host.run_dir / "sandboxes").iterdir()}
    assert folders == {each.container_id for each in known}
    files = {str(path) for path in (fake_host.run_dir / "netns").iterdir()}
    pooled = len(files) - len(known)
    assert {each.namespace for each in known} <= files
    assert pooled <= BridgeConfig().pool_size
    ports = [name for name in links() if name.startswith("lsv")]
    assert len(ports) <= len(known) + BridgeConfig().pool_size
    assert [name for name in links() if name.startswith("br-")] == ["br-111111111111"]


async def test_a_bridge_that_was_deleted_meanwhile_is_made_again(records, survivors, fake_host):
    subprocess.run(["ip", "link", "del", "br-111111111111"], check=True)
    async with BridgeNetwork.open(BridgeConfig(), fake_host) as driver:
        notes = await driver.restore(records[0], records[1].values())
        assert len(notes) == 3, "the bridge, and the two containers on it"
        assert await asked(survivors, "cache", survivors.address("db"), 81) == "db"
        for sandbox in survivors.sandboxes.values():
            await driver.detach(sandbox.container_id)


async def test_a_bridge_whose_name_another_took_meanwhile_is_left_to_it(world, fake_host):
    async with BridgeNetwork.open(BridgeConfig(), fake_host) as driver:
        world.driver = driver
        default = await world.network("bridge")
    assert links() == ["lo", "eth0"]
    for words in ("add linkspan0 type bridge", "set linkspan0 up"):
        subprocess.run(["ip", "link", *words.split()], check=True)
    subprocess.run(["ip", "address", "add", "10.49.65.1/24", "dev", "linkspan0"], check=True)
    async with BridgeNetwork.open(BridgeConfig(), fake_host) as driver:
        world.driver = driver
        taken, made = await driver.restore([default], [])
        assert "linkspan0 is another's now" in taken
        assert "made the bridge lsbr-" in made
        await world.attach("web", default)
        assert await asked(world, "host", world.address("web"), 80) == "web"
        (own,) = (name for name in links() if name.startswith("lsbr-"))
        subprocess.run(["ip", "link", "del", "linkspan0"], check=True)
        assert await driver.restore([default], []) == [], "the one that is in use is kept"
        assert own in links()
        assert "linkspan0" not in links()
        subprocess.run(["ip", "link", "add", "linkspan0", "type", "bridge"], check=True)
        await world.detach("web")
    assert links() == ["lo", "eth0", "linkspan0"]


async def test_a_subnet_that_another_took_meanwhile_is_told(world, fake_host):
    async with BridgeNetwork.open(BridgeConfig(), fake_host) as driver:
        world.driver = driver
        mine = await world.network("mine", subnet="10.49.64.0/20")
        other = await world.network("other", subnet="10.50.0.0/24")
    subprocess.run(["ip", "link", "add", "theirs", "type", "bridge"], check=True)
    subprocess.run(["ip", "address", "add", "10.49.65.1/24", "dev", "theirs"], check=True)
    async with BridgeNetwork.open(BridgeConfig(), fake_host) as driver:
        notes = await driver.restore([mine, other], [])
    assert [note for note in notes if "made the bridge" not in note] == [
        "10.49.64.0/20 of network mine is also used elsewhere on this machine (10.49.65.0/24):"
        " containers in it may not be reached"
    ]


async def test_a_flush_of_all_rules_changes_nothing_daemon_or_not(records, survivors, fake_host):
    """Behaviour 28."""
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    await check_reachability(survivors)
    async with BridgeNetwork.open(BridgeConfig(), fake_host) as driver:
        await driver.restore(records[0], records[1].values())
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        await check_reachability(survivors)
        for sandbox in survivors.sandboxes.values():
            await driver.detach(sandbox.container_id)


async def test_rules_outlive_the_daemon_and_its_keeper(records, survivors, fake_host):
    """Behaviour 30."""
    release = tuple(int(part) for part in re.findall(r"\d+", platform.release())[:2])
    if release < (6, 9):
        pytest.skip("a table of this kernel goes with its owner")
    await kill_keeper(fake_host.run_dir)
    await check_reachability(survivors)
    subprocess.run(["nft", "flush", "ruleset"], check=True)  # now they are anybody's
    async with BridgeNetwork.open(BridgeConfig(), fake_host) as driver:
        await driver.restore(records[0], records[1].values())
        await check_reachability(survivors)
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        await check_reachability(survivors)
        for sandbox in survivors.sandboxes.values():
            await driver.detach(sandbox.container_id)


async def test_a_keeper_that_was_killed_is_started_again_with_all_it_held(restored, fake_host):
    before = await kill_keeper(fake_host.run_dir)
    port = PortBinding(container_port=80, host_port=8085)
    net = restored.driver._networks.all()[0].network
    await restored.attach("new", net, ports=(port,))
    with trio.fail_after(5):  # a process that has just begun shows no words yet
        while not (found := keepers(fake_host.run_dir)):  # noqa: ASYNC110
            await trio.sleep(0.01)
    assert found != [before]
    assert await asked(restored, "host", "::1", 8085) == "new"
    assert await asked(restored, "host", "::1", 8080) == "web"


async def test_relayed_connections_go_on_while_the_daemon_restarts(records, survivors, fake_host):
    """Behaviour 29."""
    lab = survivors
    stream = await lab.connect("host", "::1", 8080)
    async with stream:
        assert (await stream.receive_some()).startswith(b"web")
        async with BridgeNetwork.open(BridgeConfig(), fake_host) as driver:
            await driver.restore(records[0], records[1].values())
            await stream.send_all(b"still there?")
            with trio.fail_after(20):
                assert await stream.receive_some() == b"still there?"
            for sandbox in lab.sandboxes.values():
                await driver.detach(sandbox.container_id)


async def test_a_daemon_that_ends_without_containers_leaves_nothing(restored, records, fake_host):
    await restored.attach("last", *records[0])
    for name in list(restored.sandboxes):
        await restored.detach(name)
    await restored.driver._close()
    restored.driver._close = trio.lowlevel.checkpoint
    assert links() == ["lo", "eth0"]
    assert list((fake_host.run_dir / "netns").iterdir()) == []
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    assert tables.stdout == ""
    with trio.fail_after(30):  # it ends by itself when it is told
        while keepers(fake_host.run_dir):  # noqa: ASYNC110
            await trio.sleep(0.01)
