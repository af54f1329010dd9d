"""Beside firewalld and ufw, the real ones, in the namespace of the tests' host."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import trio

from linkspan.plugins.bridge_network.config import BridgeConfig
from linkspan.plugins.bridge_network.driver import BridgeNetwork
from linkspan.sdk.model.network import AddressPool, PortBinding

pytestmark = pytest.mark.system

_FAILED = 251
"""What firewall-cmd ends with where firewalld cannot load its rules: the kernel lacks what they use."""
_ANYBODY = "<allow user='*'/><allow own='*'/>"
_ANYTHING = "".join(
    f"<allow {way}_type='{kind}'/>"
    for way in ("send", "receive")
    for kind in ("method_call", "method_return", "error", "signal")
)
_BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth>
<policy context="default">{policy}</policy></busconfig>"""


class Programs:
    """firewalld on a bus of its own, with configuration of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bus = folder / "bus"
        self._firewall: subprocess.Popen[bytes] | None = None
        config = folder / "bus.conf"
        config.write_text(_BUS.format(path=self._bus, policy=_ANYBODY + _ANYTHING))
        self._daemon = self._run(
            "dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile"
        )
        self.address = f"unix:path={self._bus}"

    def _run(self, *words: str) -> "subprocess.Popen[bytes]":
        with (self._folder / f"{words[0]}.log").open("a") as log:
            return subprocess.Popen(words, stdout=log, stderr=log)

    async def start(self) -> None:
        await until(lambda: self._bus.exists())
        (self._folder / "etc").mkdir(exist_ok=True)
        files = [
            "--system-config",
            f"{self._folder}/etc",
            "--log-file",
            f"{self._folder}/firewalld.log",
        ]
        self._firewall = self._run(
            "firewalld", "--nofork", "--nopid", "--log-target", "file", *files
        )
        await until(lambda: self.asked("--state").returncode in (0, _FAILED))
        if self.asked("--state").returncode == _FAILED:
            pytest.skip(
                "firewalld fails here: " + (self._folder / "firewalld.log").read_text()[-500:]
            )

    async def stop(self) -> None:
        assert self._firewall is not None
        self._firewall.terminate()
        await trio.to_thread.run_sync(self._firewall.wait, 60)

    def asked(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["firewall-cmd", *words], capture_output=True, text=True, check=False, timeout=120
        )

    async def tell(self, *words: str) -> str:
        done = await trio.to_thread.run_sync(lambda: self.asked(*words))
        assert done.returncode == 0, done.stderr + (self._folder / "firewalld.log").read_text()
        return done.stdout.strip()

    def end(self) -> None:
        for each in (self._firewall, self._daemon):
            if each is not None:
                each.terminate()
                each.wait(60)


async def until(holds, *, for_s: float = 60):
    """Wait until something that nobody tells of is so; it may be asked asynchronously."""
    with trio.fail_after(for_s):
        while not (await found if hasattr(found := holds(), "__await__") else found):  # noqa: ASYNC110
            await trio.sleep(0.05)


@pytest.fixture
def firewalld(wire, monkeypatch):
    folder = Path(tempfile.mkdtemp(prefix="lsf-"))  # short: a socket's path has little room
    programs = Programs(folder)
    # The driver looks for the bus where firewall-cmd does.
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", programs.address)
    yield programs
    programs.end()
    shutil.rmtree(folder)


NO_ROUTE = "No route to host"
BOTH = (AddressPool(subnet="10.201.0.0/24"), AddressPool(subnet="fd55:1::/64"))


class Checked:
    """A driver with a container that publishes a port, on both families, and another network."""

    def __init__(self, lab):
        self.lab = lab

    async def prepare(self) -> None:
        lab = self.lab
        self.net = await lab.network("net", enable_ipv6=True, pools=BOTH)
        other = await lab.network("other", subnet="10.202.0.0/24")
        await lab.attach("a1", self.net, ports=(PortBinding(container_port=80, host_port=8080),))
        await lab.attach("a2", self.net)
        await lab.attach("b1", other)
        lab.listen("lan", "::", 7000)

    async def holds(self) -> bool:
        """Ports are published, containers reach out and each other, networks are apart."""
        lab = self.lab

        async def asks(place: str, address: str, port: int) -> str:
            return await lab.ask(place, address, port, wait_s=1)

        return (
            await asks("lan", lab.host_address, 8080) == f"a1 {lab.lan_address}"
            and await asks("lan", lab.host_address6, 8080) == f"a1 {lab.lan_address6}"
            and await asks("a1", lab.lan_address, 7000) == f"lan {lab.host_address}"
            and await asks("a1", lab.lan_address6, 7000) == f"lan {lab.host_address6}"
            and (await asks("a2", lab.host_address, 8080)).startswith("a1")
            and (await asks("a2", lab.address("a1"), 81)).startswith("a1")
            and (await asks("host", "127.0.0.1", 8080)).startswith("a1")
        )

    async def is_closed(self) -> None:
        lab = self.lab
        for place in ("b1", "lan"):
            answer = await lab.ask(place, lab.address("a1"), 81, wait_s=0.6)
            assert answer in ("timeout", NO_ROUTE), place


async def test_firewalld_comes_reloads_and_goes_and_containers_are_reached_and_reach_out(
    world, fake_host, firewalld
):
    """Behaviour 26."""
    async with BridgeNetwork.open(BridgeConfig(pool_size=0), fake_host) as driver:
        world.driver = driver
        checked = Checked(world)
        await checked.prepare()
        await until(checked.holds)
        await firewalld.start()
        await until(checked.holds)
        await checked.is_closed()
        for order in ("--reload", "--complete-reload"):
            await firewalld.tell(order)
            await until(checked.holds)
            await checked.is_closed()
        # A network that is made now is let through from its first moment, and forgotten with it.
        later = await world.network("later", subnet="10.203.0.0/24")
        await world.attach("c1", later)
        assert (await world.ask("c1", world.lan_address, 7000)) == f"lan {world.host_address}"
        bridges = (await firewalld.tell("--zone=linkspan", "--list-interfaces")).split()
        assert len(bridges) == 3
        await world.detach("c1")
        await driver.remove_network(later)
        await until(
            lambda: firewalld.asked("--zone=linkspan", "--list-interfaces").stdout.count("br-") == 2
        )
        await firewalld.stop()
        await until(checked.holds)
        await firewalld.start()
        await until(checked.holds)
        for name in list(world.sandboxes):
            await world.detach(name)
    assert await firewalld.tell("--zone=linkspan", "--list-interfaces") == ""


async def test_a_bridge_that_somebody_has_put_into_a_zone_stays_there(world, fake_host, firewalld):
    """And what firewalld drops then is dropped: the zone is what lets containers out."""
    await firewalld.start()
    async with BridgeNetwork.open(BridgeConfig(pool_size=0), fake_host) as driver:
        world.driver = driver
        checked = Checked(world)
        await checked.prepare()
        assert await checked.holds(), "the zone is there before the network's first packet"
        bridge = driver._networks.get(checked.net).bridge
        await firewalld.tell("--zone=drop", f"--change-interface={bridge}")
        await driver._tell_firewalld()
        assert await firewalld.tell(f"--get-zone-of-interface={bridge}") == "drop"
        assert await world.ask("a1", world.lan_address, 7000, wait_s=0.6) == "timeout"
        assert (await world.ask("lan", world.host_address, 8080)) == f"a1 {world.lan_address}"
        for name in list(world.sandboxes):
            await world.detach(name)


@pytest.fixture
def ufw(wire, tmp_path):
    """ufw with configuration of its own, in a mount namespace in which it takes the place of the machine's."""
    for name in ("etc/ufw", "etc/default"):
        shutil.copytree(f"/{name}", tmp_path / name, symlinks=True)
    binds = "; ".join(
        f"mount --bind {tmp_path}/{name} /{name}" for name in ("etc/ufw", "etc/default")
    )

    def asked(*words: str) -> "subprocess.CompletedProcess[str]":
        command = ["unshare", "--mount", "sh", "-ec", f'{binds}; exec ufw "$@"', "ufw", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    if (tried := asked("--force", "enable")).returncode != 0:
        pytest.skip(f"ufw cannot load its rules here: {tried.stdout}{tried.stderr}")
    assert asked("disable").returncode == 0

    async def tell(*words: str) -> None:
        done = await trio.to_thread.run_sync(lambda: asked(*words))
        assert done.returncode == 0, done.stdout + done.stderr

    return tell


async def test_ufw_comes_reloads_and_goes_and_containers_are_reached_and_reach_out(
    world, fake_host, ufw, shell
):
    """Behaviour 26."""
    async with BridgeNetwork.open(BridgeConfig(pool_size=0), fake_host) as driver:
        world.driver = driver
        checked = Checked(world)
        await checked.prepare()
        await until(checked.holds)
        await ufw("--force", "enable")
        assert "-P FORWARD DROP" in shell("iptables -S FORWARD")
        assert "-P FORWARD DROP" in shell("ip6tables -S FORWARD")
        await until(checked.holds)
        await checked.is_closed()
        await ufw("reload")
        assert "-P FORWARD DROP" in shell("iptables -S FORWARD")
        await until(checked.holds)
        await checked.is_closed()
        await ufw("disable")
        await until(checked.holds)
        for name in list(world.sandboxes):
            await world.detach(name)
    assert "linkspan" not in shell("iptables-save") + shell("ip6tables-save") + shell(
        "nft list tables"
    )
