"""Another firewall on the host drops what it does not know."""

import io
import shutil
import subprocess
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from linkspan.plugins.bridge_network.config import BridgeConfig
from linkspan.plugins.bridge_network.driver import BridgeNetwork
from linkspan.plugins.bridge_network.table import Table
from linkspan.sdk.errors import Conflict
from linkspan.sdk.model.network import AddressPool, PortBinding

pytestmark = pytest.mark.system

NO_ROUTE = "No route to host"


@pytest.fixture(params=["FORWARD", "DOCKER-USER"])
def chain(request, wire, shell):
    """Where others may put rules; the policy is DROP as Docker sets it."""
    shell("iptables -P FORWARD DROP")
    if request.param == "DOCKER-USER":
        shell("iptables -N DOCKER-USER")
        shell("iptables -A FORWARD -j DOCKER-USER")
    return request.param


async def test_our_packets_pass_and_nothing_is_left_behind(chain, world, fake_host, shell):
    before = shell("iptables -S")
    lab = world
    async with BridgeNetwork.open(BridgeConfig(pool_size=0), fake_host) as driver:
        lab.driver = driver
        net = await lab.network("net", subnet="10.201.0.0/24")
        other = await lab.network("other", subnet="10.202.0.0/24")
        await lab.attach("a1", net, ports=(PortBinding(container_port=80, host_port=8080),))
        await lab.attach("a2", net)
        await lab.attach("b1", other)
        lab.listen("lan", lab.lan_address, 7000)
        with trio.fail_after(60):
            while shell(f"iptables -S {chain}").count("devgroup") < 2:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert (await lab.ask("lan", lab.host_address, 8080)) == f"a1 {lab.lan_address}"
        assert (await lab.ask("a1", lab.lan_address, 7000)).startswith("lan")
        assert (await lab.ask("a2", "10.201.0.2", 81)).startswith("a1")
        assert await lab.ask("b1", "10.201.0.2", 81, wait_s=0.6) == "timeout"
        for name in list(lab.sandboxes):
            await lab.detach(name)
    assert shell("iptables -S") == before


async def until_async(look, *, for_s):
    """Wait for what blocks, in a thread."""
    with trio.fail_after(for_s):
        while not await trio.to_thread.run_sync(look):  # noqa: ASYNC110 - a program tells nobody
            await trio.sleep(0.1)


async def until(look):
    with trio.fail_after(60):
        while not await look():  # noqa: ASYNC110 - other programs tell nobody
            await trio.sleep(0.02)


async def test_exceptions_come_back_at_once_when_somebody_has_flushed_them(world, lab, shell):
    """Behaviours 26, 31: for both families."""
    pools = (AddressPool(subnet="10.201.0.0/24"), AddressPool(subnet="fd55:1::/64"))
    net = await lab.network("net", enable_ipv6=True, pools=pools)
    await lab.attach("a1", net, ports=(PortBinding(container_port=80, host_port=8080),))

    async def passes():
        four = await lab.ask("lan", lab.host_address, 8080, wait_s=0.5)
        six = await lab.ask("lan", lab.host_address6, 8080, wait_s=0.5)
        return [four, six] == [f"a1 {lab.lan_address}", f"a1 {lab.lan_address6}"]

    for program in ("iptables", "ip6tables"):
        shell(f"{program} -P FORWARD DROP")
    await until(passes)
    for program in ("iptables", "ip6tables"):
        shell(f"{program} -F FORWARD")
    await until(passes)


@pytest.fixture
def dockerd(wire):
    """Starts and stops a real Docker daemon in the host's namespace."""
    folder = tempfile.mkdtemp(prefix="lsd-")  # short: a socket's path has little room
    running = []

    def start():
        words = ["dockerd", "--data-root", f"{folder}/d", "--exec-root", f"{folder}/e"]
        words += ["--pidfile", f"{folder}/pid", "-H", f"unix://{folder}/s"]
        words += ["--bip", "10.240.0.1/24", "--storage-driver", "vfs"]
        with Path(folder, "log").open("w") as log:
            running.append(subprocess.Popen(words, stdout=log, stderr=log))

    def stop():
        running[-1].terminate()
        assert running.pop().wait(30) == 0, Path(folder, "log").read_text()

    def docker(*words, check=True):
        done = subprocess.run(
            ["docker", "-H", f"unix://{folder}/s", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done

    yield start, stop, docker
    for each in running:
        each.terminate()
        each.wait(30)
    shutil.rmtree(folder, ignore_errors=True)


async def test_a_docker_daemon_comes_and_goes_and_published_ports_go_on(lab, dockerd, shell):
    """Behaviours 26, 27."""
    start, stop, _ = dockerd
    net = await lab.network("net", subnet="10.201.0.0/24")
    other = await lab.network("other", subnet="10.202.0.0/24")
    await lab.attach("a1", net, ports=(PortBinding(container_port=80, host_port=8080),))
    await lab.attach("b1", other)
    lab.listen("lan", lab.lan_address, 7000)

    async def is_up():
        return "DOCKER-USER" in shell("iptables -S")

    async def all_is_well():
        inward = await lab.ask("lan", lab.host_address, 8080, wait_s=0.5)
        outward = await lab.ask("a1", lab.lan_address, 7000, wait_s=0.5)
        return inward.startswith("a1") and outward.startswith("lan")

    assert await all_is_well()
    shell("sysctl -qw net.ipv4.ip_forward=0")  # Docker drops what it forwards if it has begun to
    for _ in range(2):
        start()
        with trio.fail_after(60):
            while not await is_up():  # noqa: ASYNC110
                await trio.sleep(0.05)
        await until(all_is_well)
        assert "-P FORWARD DROP" in shell("iptables -S FORWARD")
        assert await lab.ask("b1", lab.address("a1"), 81, wait_s=0.6) == "timeout"
        await trio.to_thread.run_sync(stop)
        await until(all_is_well)


@pytest.fixture
def archive(tmp_path):
    """A root file system that is busybox alone."""
    path = tmp_path / "root.tar"
    with tarfile.open(path, "w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        page = tarfile.TarInfo("www/index.html")
        page.size = 4
        tar.addfile(page, io.BytesIO(b"dock"))
    return path


async def test_what_docker_has_published_goes_on_when_we_come_and_go(
    world, fake_host, dockerd, archive, shell
):
    """Behaviour 27, the other way round: and the port is refused to our containers."""
    start, _, docker = dockerd
    shell(
        "sysctl -qw net.ipv4.ip_forward=1"
    )  # as a host that forwards already, which we leave alone
    start()
    await until_async(lambda: docker("version", check=False).returncode == 0, for_s=60)
    await trio.to_thread.run_sync(docker, "import", str(archive), "web")
    words = ("/bin/busybox", "httpd", "-f", "-p", "80", "-h", "/www")
    run = ("run", "-d", "--name", "web", "-p", "9090:80", "web", *words)
    done = await trio.to_thread.run_sync(lambda: docker(*run, check=False))
    if done.returncode:
        pytest.skip(f"Docker runs no containers here: {done.stderr}")

    async def answers():
        with trio.move_on_after(15):
            with suppress(OSError):
                async with await world.connect("lan", world.host_address, 9090) as stream:
                    await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
                    return b"200 OK" in await stream.receive_some()
        return False

    await until(answers)
    async with BridgeNetwork.open(BridgeConfig(pool_size=0), fake_host) as driver:
        world.driver = driver
        net = await world.network("net", subnet="10.201.0.0/24")
        await world.attach("a1", net, ports=(PortBinding(container_port=80, host_port=8080),))
        for _ in range(3):
            assert await answers()
        with pytest.raises(Conflict, match="9090"):
            await world.attach("a2", net, ports=(PortBinding(container_port=80, host_port=9090),))
        await until(lambda: passes(world))
        await world.detach("a1")
    assert await answers()
    await trio.to_thread.run_sync(docker, "rm", "-f", "web")


async def passes(lab):
    answer = await lab.ask("lan", lab.host_address, 8080, wait_s=0.5)
    return answer == f"a1 {lab.lan_address}"


async def test_a_table_that_others_can_flush_is_loaded_again_at_once(
    world, fake_host, shell, monkeypatch
):
    """Behaviour 28 where the kernel knows no owners."""
    monkeypatch.setattr(Table, "_own", lambda *_: False)
    async with BridgeNetwork.open(BridgeConfig(pool_size=0), fake_host) as driver:
        world.driver = driver
        net = await world.network("net", subnet="10.201.0.0/24")
        other = await world.network("other", subnet="10.202.0.0/24")
        await world.attach("a1", net, ports=(PortBinding(container_port=80, host_port=8080),))
        await world.attach("b1", other)

        async def is_there():
            answer = await world.ask("lan", world.host_address, 8080, wait_s=0.5)
            return answer == f"a1 {world.lan_address}"

        shell("nft flush ruleset")
        await until(is_there)
        assert await world.ask("b1", world.address("a1"), 81, wait_s=0.6) == "timeout"
        for name in list(world.sandboxes):
            await world.detach(name)
    assert "linkspan" not in shell("nft list tables")


async def test_containers_stay_apart_when_bridged_frames_begin_to_pass_the_firewall(lab, shell):
    """Behaviours 12, 23, 80: and a published port is reached before and after, by ``::1`` too."""
    switches = [f"net.bridge.bridge-nf-call-{name}" for name in ("iptables", "ip6tables")]

    def switch(value):
        for name in switches:
            shell(f"sysctl -qw {name}={value}")

    switch("0")
    options = {"com.docker.network.bridge.enable_icc": "false"}
    net = await lab.network("net", subnet="10.201.0.0/24", options=options)
    await lab.attach("a1", net, ports=(PortBinding(container_port=80, host_port=8080),))
    await lab.attach("a2", net)

    async def check():
        assert await lab.ask("a2", lab.address("a1"), 80, wait_s=0.6) in ("timeout", NO_ROUTE)
        for place in ("a2", "a1"):
            assert (await lab.ask(place, lab.host_address, 8080)).startswith("a1")
        for address in ("127.0.0.1", "::1"):
            assert (await lab.ask("host", address, 8080)).startswith("a1")

    await check()
    await lab.driver._endpoints.keep_apart()
    for value in ("1", "0"):
        switch(value)
        await lab.driver._endpoints.keep_apart()
        await check()
