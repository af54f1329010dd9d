"""The drivers ``host`` and ``none``."""

import secrets
import socket
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest

from linkspan.plugins.bridge_network import plain, sandbox_files
from linkspan.plugins.bridge_network.config import BridgeConfig
from linkspan.plugins.bridge_network.driver import BridgeNetwork
from linkspan.plugins.bridge_network.plain import HostNetwork, NoneNetwork
from linkspan.sdk.drivers.base import NoConfig
from linkspan.sdk.drivers.network import AttachRequest
from linkspan.sdk.errors import Conflict, Internal, NotFound, PermissionDenied, Unsupported
from linkspan.sdk.model.network import EndpointSpec, Network, NetworkSpec, PortBinding


def network(name):
    return Network(id=secrets.token_hex(32), spec=NetworkSpec(name=name), created_at="")


def request(net, **changes):
    return AttachRequest(
        container_id=secrets.token_hex(32),
        name="web",
        hostname=changes.pop("hostname", "web"),
        networks=((net, EndpointSpec()),),
        **changes,
    )


def links_in(namespace):
    shown = subprocess.run(
        ["nsenter", f"--net={namespace}", "ip", "-br", "link"],
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.split()[0] for line in shown.stdout.splitlines()]


async def test_a_container_on_the_host_has_its_files_and_no_namespace(
    fake_host, tmp_path, monkeypatch
):
    hosts, resolv_conf = tmp_path / "hosts", tmp_path / "resolv.conf"
    hosts.write_text("127.0.0.1\tlocalhost\n192.0.2.1\tbox\n")
    resolv_conf.write_text("nameserver 127.0.0.53\n")
    monkeypatch.setattr(plain, "_HOST_HOSTS", hosts)
    monkeypatch.setattr(sandbox_files, "HOST_RESOLV_CONF", resolv_conf)
    async with HostNetwork.open(NoConfig(), fake_host) as driver:
        net = await driver.create_network(network("host"))
        ports = (PortBinding(container_port=80, host_port=80),)
        wanted = request(net, hostname="", ports=ports, extra_hosts=("me:host-gateway",))
        sandbox = await driver.attach(wanted)
        assert sandbox.namespace is None
        assert sandbox.ports == ()
        assert [each.network_id for each in sandbox.endpoints] == [net.id]
        text = {name: Path(path).read_text() for name, path in sandbox.files.items()}
        assert text["/etc/hosts"] == hosts.read_text() + "127.0.0.1\tme\n"
        assert "nameserver 127.0.0.53" in text["/etc/resolv.conf"]
        assert text["/etc/hostname"] == socket.gethostname() + "\n"
        await driver.detach(sandbox.container_id)
        await driver.detach(sandbox.container_id)
        assert not Path(sandbox.files["/etc/hosts"]).exists()


async def test_there_is_one_network_of_the_host(fake_host):
    async with HostNetwork.open(NoConfig(), fake_host) as driver:
        first = network("host")
        assert await driver.create_network(first) == first
        assert await driver.create_network(first) == first
        with pytest.raises(PermissionDenied):
            await driver.create_network(network("host2"))


@pytest.mark.system
async def test_a_container_without_network_has_loopback_only(own_network, fake_host):
    async with NoneNetwork.open(NoConfig(), fake_host) as driver:
        net = await driver.create_network(network("none"))
        wanted = request(net)
        sandbox = await driver.attach(wanted)
        with pytest.raises(Conflict):
            await driver.attach(wanted)
        assert links_in(sandbox.namespace) == ["lo"]
        await driver.detach(sandbox.container_id)
        assert not Path(sandbox.namespace).exists()


@pytest.mark.system
async def test_unknown_namespaces_are_removed_and_living_ones_kept(own_network, fake_host):
    async with NoneNetwork.open(NoConfig(), fake_host) as driver:
        net = await driver.create_network(network("none"))
        kept, lost = [await driver.attach(request(net)) for _ in range(2)]
    async with NoneNetwork.open(NoConfig(), fake_host) as driver:
        assert await driver.restore([net], [kept]) == []
        assert Path(kept.namespace).exists()
        assert not Path(lost.namespace).exists()
        await driver.detach(kept.container_id)
        (note,) = await driver.restore([net], [kept])
        assert "is gone" in note
        await driver.detach(kept.container_id)


@pytest.fixture
def elsewhere(fake_host):
    return attrs.evolve(fake_host, root=fake_host.root / "bridge")


@asynccontextmanager
async def both_drivers(fake_host, elsewhere):
    async with (
        NoneNetwork.open(NoConfig(), fake_host) as none,
        BridgeNetwork.open(BridgeConfig(), elsewhere) as bridge,
    ):
        yield none, bridge


@pytest.mark.system
async def test_a_container_goes_from_no_network_to_a_bridge_and_back(
    own_network, fake_host, elsewhere
):
    async with both_drivers(fake_host, elsewhere) as (none, bridge):
        nothing = await none.create_network(network("none"))
        app = await bridge.create_network(network("app"))
        wanted = request(nothing, hostname="web", dns=("192.0.2.53",))
        before = await none.attach(wanted)
        mounted = Path(before.files["/etc/resolv.conf"]).stat().st_ino
        await none.disconnect(before.container_id, nothing)
        adopted = await bridge.adopt(attrs.evolve(before, endpoints=()), wanted)
        endpoint = await bridge.connect(before.container_id, app, EndpointSpec())
        await none.detach(before.container_id)
        with pytest.raises(NotFound):
            await none.disconnect(before.container_id, nothing)
        assert not Path(before.namespace).exists()
        assert f"{endpoint.ipv4_address}\tweb\n" in Path(adopted.files["/etc/hosts"]).read_text()
        resolv_conf = Path(adopted.files["/etc/resolv.conf"])
        assert "nameserver 127.0.0.11\n" in resolv_conf.read_text()
        assert resolv_conf.stat().st_ino == mounted, "it is mounted in the container"
        shown = links_in(adopted.namespace)
        assert [each.partition("@")[0] for each in shown] == ["lo", "eth0"]

        await bridge.disconnect(before.container_id, app)
        back = await none.adopt(adopted, wanted)
        await bridge.detach(before.container_id)
        await none.connect(before.container_id, nothing, EndpointSpec())
        assert links_in(back.namespace) == ["lo"]
        assert not Path(adopted.files["/etc/hosts"]).exists()
        assert endpoint.ipv4_address not in Path(back.files["/etc/hosts"]).read_text()
        await none.detach(before.container_id)
        assert not Path(back.namespace).exists()


@pytest.mark.system
async def test_what_cannot_be_taken_over_is_left_as_it_was(own_network, fake_host, elsewhere):
    async with both_drivers(fake_host, elsewhere) as (none, bridge):
        nothing = await none.create_network(network("none"))
        wanted = request(nothing)
        sandbox = await none.attach(wanted)
        on_host = attrs.evolve(sandbox, namespace=None)
        gone = attrs.evolve(sandbox, namespace="/proc/self/ns/nothing")
        lost = attrs.evolve(sandbox, files=dict.fromkeys(sandbox.files, "/nothing"))
        for driver in (bridge, none):
            for wrong, error in ((on_host, Unsupported), (gone, Internal), (lost, Internal)):
                if driver is none:
                    wrong = attrs.evolve(wrong, container_id=secrets.token_hex(32))
                with pytest.raises(error):
                    await driver.adopt(wrong, wanted)
        assert Path(sandbox.namespace).exists()
        assert list((elsewhere.run_dir / "sandboxes").iterdir()) == []
        assert len(list((fake_host.run_dir / "netns").iterdir())) == 1
        await none.detach(sandbox.container_id)
