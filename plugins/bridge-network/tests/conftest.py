"""A small world for system tests: host, neighbour and containers, each in a namespace of its own.

The main thread, and so the driver's threads, live in the namespace ``host``; ``lan`` is a machine on
the same wire. The machine's own network is never touched. Links and addresses are made by ``ip``, not
by the code under test.
"""

import ctypes
import errno
import os
import secrets
import socket
import subprocess
import threading  # noqa: TID251 - only its barrier
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from linkspan.plugins.bridge_network.config import BridgeConfig
from linkspan.plugins.bridge_network.driver import BridgeNetwork
from linkspan.sdk.drivers.network import AttachRequest, Sandbox
from linkspan.sdk.model.network import AddressPool, EndpointSpec, Network, NetworkSpec, PortBinding
from linkspan.sdk.testing.host import FakeHost

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
HOST = "198.51.100.2"
LAN = "198.51.100.9"
HOST6 = "2001:db8:5::2"
LAN6 = "2001:db8:5::9"


def _check(result: int) -> None:
    assert result == 0, os.strerror(ctypes.get_errno())


@contextmanager
def _inside(path: str) -> Iterator[None]:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(there, _CLONE_NEWNET))
        yield
    finally:
        _check(_libc.setns(home, _CLONE_NEWNET))
        os.close(there)
        os.close(home)


def run(command: str) -> str:
    """Run a command in the host's namespace; return what it prints."""
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@pytest.fixture
def shell() -> Callable[[str], str]:
    return run


@pytest.fixture
def own_network() -> Iterator[None]:
    """Put this process, and all threads that the test starts, into a namespace of its own."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.unshare(_CLONE_NEWNET))
        _gather_threads()
        yield
    finally:
        _check(_libc.setns(home, _CLONE_NEWNET))
        _gather_threads()
        os.close(home)


def _gather_threads() -> None:
    """Bring the threads that trio keeps for a while to the namespace of the main thread.

    Whoever borrowed one of them later would be elsewhere: a program that the next test starts would
    listen in the namespace of this one.
    """
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    number = len(list(Path("/proc/self/task").iterdir()))
    all_there = threading.Barrier(number, timeout=30)

    def come() -> None:
        _check(_libc.setns(here, _CLONE_NEWNET))
        all_there.wait()  # so that each of them is borrowed once

    async def gather() -> None:
        limiter = trio.CapacityLimiter(number)
        async with trio.open_nursery() as nursery:
            for _ in range(number):
                nursery.start_soon(partial(trio.to_thread.run_sync, come, limiter=limiter))

    try:
        trio.run(gather)
    finally:
        os.close(here)


@pytest.fixture
def wire(own_network: None) -> Iterator[str]:
    """A host with the address HOST and a neighbour LAN; the path of the neighbour's namespace.

    The neighbour routes the containers' addresses through the host, as an attacker would.
    """
    run("ip link set lo up")
    lan = subprocess.Popen(["unshare", "--net", "sleep", "600"])
    try:
        path = f"/proc/{lan.pid}/ns/net"
        own = Path("/proc/thread-self/ns/net").readlink()
        while Path(path).readlink() == own:
            pass
        run(f"ip link add eth0 type veth peer name eth0 netns {lan.pid}")
        run(f"ip addr add {HOST}/24 dev eth0")
        run(f"ip addr add {HOST6}/64 dev eth0 nodad")
        run("ip link set eth0 up")
        run("ip route add default via 198.51.100.1")
        for command in (
            "ip link set lo up",
            f"ip addr add {LAN}/24 dev eth0",
            f"ip addr add {LAN6}/64 dev eth0 nodad",
            "ip link set eth0 up",
            f"ip route add 10.0.0.0/8 via {HOST}",
            f"ip route add fd00::/8 via {HOST6}",
        ):
            run(f"nsenter --net={path} {command}")
        yield path
    finally:
        lan.kill()
        lan.wait()


async def _bind_patiently(sock: trio.socket.SocketType, port: int) -> None:
    """A child that somebody has forked has all sockets until it runs its program, closed ones, too."""
    while True:
        try:
            return await sock.bind(("", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        await trio.sleep(0.01)


def _plain(address: str) -> str:
    """An IPv4 address that a socket for both families writes as an IPv6 one, as it is."""
    return address.removeprefix("::ffff:")


@attrs.define(eq=False)
class Lab:
    """The world with a driver in it.

    Attributes:
        places: Name → path of a namespace; the host has none.
    """

    nursery: trio.Nursery
    places: dict[str, str]
    driver: BridgeNetwork = attrs.field(init=False)
    sandboxes: dict[str, Sandbox] = attrs.field(factory=dict)
    host_address: str = HOST
    lan_address: str = LAN
    host_address6: str = HOST6
    lan_address6: str = LAN6

    async def network(self, name: str, *, subnet: str = "", **spec: object) -> Network:
        if subnet:
            spec["pools"] = (AddressPool(subnet=subnet),)
        wanted = NetworkSpec(name=name, **spec)  # type: ignore[arg-type]
        return await self.driver.create_network(
            Network(id=secrets.token_hex(32), spec=wanted, created_at="")
        )

    async def attach(
        self,
        name: str,
        *networks: Network | tuple[Network, EndpointSpec],
        ports: tuple[PortBinding, ...] = (),
        serving: bool = True,
        **wishes: object,
    ) -> Sandbox:
        """A container that answers ``<name> <address of the client>`` on tcp 80, 81 and udp 80."""
        sandbox = await self.driver.attach(
            AttachRequest(
                container_id=secrets.token_hex(32),
                name=name,
                hostname=name,
                networks=tuple(
                    n if isinstance(n, tuple) else (n, EndpointSpec()) for n in networks
                ),
                ports=ports,
                **wishes,  # type: ignore[arg-type]
            )
        )
        self.sandboxes[name] = sandbox
        assert sandbox.namespace
        self.places[name] = sandbox.namespace
        if serving:
            self.serve(name)
        return sandbox

    def serve(self, name: str) -> None:
        for port in (80, 81):
            self.nursery.start_soon(self._serve_tcp, name, self._listen(name, "::", port))
        self.nursery.start_soon(self._serve_udp, name, self._listen(name, "::", 80, "udp"))

    def listen(self, place: str, address: str, port: int) -> None:
        """A server somewhere, as in containers."""
        listener = self._listen(place, address, port)
        self.nursery.start_soon(self._serve_tcp, place, listener)

    async def detach(self, name: str) -> None:
        await self.driver.detach(self.sandboxes.pop(name).container_id)
        del self.places[name]

    def address(self, name: str) -> str:
        return self.sandboxes[name].endpoints[0].ipv4_address

    def socket(self, place: str, protocol: str = "tcp", address: str = "") -> socket.socket:
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        if place == "host":
            return socket.socket(family, kind)
        with _inside(self.places[place]):
            return socket.socket(family, kind)

    def raw_socket(self, place: str) -> "socket.socket":
        """For whole frames."""
        with _inside(self.places[place]):
            return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))

    def icmp6_socket(self, place: str) -> "socket.socket":
        """For messages to neighbours."""
        with _inside(self.places[place]):
            return socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)

    def exec(self, place: str, command: str) -> str:
        return run(f"nsenter --net={self.places[place]} {command}")

    async def connect(self, place: str, address: str, port: int) -> trio.SocketStream:
        sock = trio.socket.from_stdlib_socket(self.socket(place, address=address))
        await sock.connect((address, port))
        return trio.SocketStream(sock)

    async def ask(
        self,
        place: str,
        address: str,
        port: int,
        protocol: str = "tcp",
        *,
        source_port: int = 0,
        wait_s: float = 15.0,
    ) -> str:
        """What is answered; ``timeout``, ``refused``, or the error's name.

        The wait is for busy machines; where no answer is expected, a short one does.
        """
        made = self.socket(place, protocol, address)
        with trio.socket.from_stdlib_socket(made) as sock:
            try:
                with trio.fail_after(wait_s):
                    if source_port:
                        await _bind_patiently(sock, source_port)
                    await sock.connect((address, port))
                    if protocol == "udp":
                        await sock.send(b"?")
                    return (await sock.recv(100)).decode()
            except trio.TooSlowError:
                return "timeout"
            except ConnectionRefusedError:
                return "refused"
            except OSError as error:
                return error.strerror or str(error)

    async def check(self, rows: Iterable[tuple[str, str, int, str, str]]) -> None:
        """Ask all at once; each row is (from, address, port, protocol, answer)."""
        answers = {}

        async def ask(place: str, address: str, port: int, protocol: str, expected: str) -> None:
            wait_s = 0.6 if expected == "timeout" else 15
            answer = await self.ask(place, address, port, protocol, wait_s=wait_s)
            answers[place, address, port, protocol] = answer

        async with trio.open_nursery() as nursery:
            for row in rows:
                nursery.start_soon(ask, *row)
        assert answers == {row[:4]: row[4] for row in rows}

    def _listen(
        self, place: str, address: str, port: int, protocol: str = "tcp"
    ) -> trio.socket.SocketType:
        sock = self.socket(place, protocol, address)
        if ":" in address:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if protocol == "tcp":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address, port))
        except OSError:
            sock.close()
            raise
        if protocol == "tcp":
            sock.listen(64)
        return trio.socket.from_stdlib_socket(sock)

    async def _serve_tcp(self, name: str, sock: trio.socket.SocketType) -> None:
        async def answer(stream: trio.SocketStream) -> None:
            """Answer once, then echo."""
            peer = _plain(stream.socket.getpeername()[0])
            try:
                await stream.send_all(f"{name} {peer}".encode())
                async for data in stream:
                    await stream.send_all(data)
            except trio.BrokenResourceError:
                return

        await trio.serve_listeners(answer, [trio.SocketListener(sock)])

    async def _serve_udp(self, name: str, sock: trio.socket.SocketType) -> None:
        with sock:
            while True:
                _, peer = await sock.recvfrom(100)
                await sock.sendto(f"{name} {_plain(peer[0])}".encode(), peer)


@pytest.fixture
async def world(wire: str) -> AsyncIterator[Lab]:
    """The world before a driver is in it."""
    async with trio.open_nursery() as nursery:
        yield Lab(nursery=nursery, places={"lan": wire})
        nursery.cancel_scope.cancel()


@pytest.fixture
async def lab(world: Lab, fake_host: FakeHost) -> AsyncIterator[Lab]:
    async with BridgeNetwork.open(BridgeConfig(), fake_host) as driver:
        world.driver = driver
        yield world
        for name in list(world.sandboxes):
            await world.detach(name)
