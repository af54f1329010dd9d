"""Network namespaces and the links in them, made by one dedicated thread.

The thread enters a namespace for the few calls that need it and goes back. A namespace is kept alive
by a bind mount on a file (as ``ip netns`` does), whose path the runtime gives to the container. A
netlink socket opened inside stays usable outside, so only its opening happens inside.
"""

import errno
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import trio

from linkspan.plugins.bridge_network import rtnetlink
from linkspan.plugins.bridge_network.bridges import Interface
from linkspan.plugins.bridge_network.descriptors import (
    THREAD_NAMESPACE,
    open_thread_namespace,
    opened,
)
from linkspan.plugins.bridge_network.ipam import Address
from linkspan.plugins.bridge_network.nftables import Nftables, NftablesCrashed
from linkspan.plugins.bridge_network.rtnetlink import RtNetlink
from linkspan.plugins.bridge_network.worker import ThreadSpoiled, Worker
from linkspan.sdk import syscalls
from linkspan.sdk.values import frozen

T = TypeVar("T")

RESOLVER_ADDRESS = "127.0.0.11"

_SYSCTLS = {
    # As Docker: ports below 1024 and ping need no capability in a namespace of one's own.
    "net/ipv4/ip_unprivileged_port_start": "0",
    "net/ipv4/ping_group_range": "0 2147483647",
    # Neighbours learn at once that an address has moved.
    "net/ipv4/conf/default/arp_notify": "1",
    # For links to come, so that lo keeps ::1; those in a network with IPv6 have it switched on.
    "net/ipv6/conf/default/disable_ipv6": "1",
    # Addresses are given, not found out; and nobody else has them.
    "net/ipv6/conf/default/accept_ra": "0",
    "net/ipv6/conf/default/autoconf": "0",
    "net/ipv6/conf/default/accept_dad": "0",
}

_WITH_IPV6 = (("net/ipv6/conf/{}/disable_ipv6", "0"),)

# 127.0.0.11:53 leads to the resolver's own ports by rewriting headers, without connection tracking:
# the container's port 53 stays free, and parallel A and AAAA questions do not race for an entry.
_NO_RESOLVER_RULES = """\
add table ip linkspan_dns
delete table ip linkspan_dns
"""
_RESOLVER_RULES = """\
table ip linkspan_dns {{
 chain out {{
  type filter hook output priority -300; policy accept;
  ip daddr {address} udp dport 53 udp dport set {udp}
  ip daddr {address} tcp dport 53 tcp dport set {tcp}
  ip saddr {address} udp sport {udp} udp sport set 53
  ip saddr {address} tcp sport {tcp} tcp sport set 53
 }}
}}
"""


@frozen(kw_only=True)
class LinkPlan:
    """An interface of a container and its port on a bridge.

    Attributes:
        port: Name of the host's end.
        interfaces: Its addresses, with the prefixes of their subnets.
        isolated: Ports of the bridge do not see each other.
        sysctls: Names with ``{}`` for its own (``net/ipv4/conf/{}/log_martians``), and values.
    """

    port: str
    name: str
    bridge: int
    group: int
    mac: str
    mtu: int
    interfaces: tuple[Interface, ...]
    isolated: bool = False
    sysctls: tuple[tuple[str, str], ...] = ()


@frozen
class DefaultRoute:
    """The default route of one family: interface and gateway."""

    name: str
    gateway: Address


Routes = Mapping[int, DefaultRoute]
"""Family (4, 6) → its default route; a family without one leads nowhere."""


@frozen
class ResolverSockets:
    """Where a sandbox's names are asked for; made in its namespace, not blocking."""

    udp: socket.socket
    tcp: socket.socket

    def close(self) -> None:
        """Let go of the namespace."""
        self.udp.close()
        self.tcp.close()


class Namespaces:
    """Makes, changes and drops network namespaces; each method is one job of the thread.

    Args:
        nft: Makes the name service's rules; started in the daemon's namespace.
    """

    def __init__(self, folder: Path, nft: Nftables) -> None:
        self._folder = folder
        self._nft = nft
        folder.mkdir(parents=True, exist_ok=True)
        self._worker = Worker("linkspan-netns")
        self._home: int | None = None
        self._netlink: RtNetlink | None = None

    async def close(self) -> None:
        """End the thread; the namespaces stay."""
        with trio.CancelScope(shield=True):
            await self._worker.run(self._close)
            await self._worker.close()

    def path(self, name: str) -> str:
        """The file of a namespace."""
        return str(self._folder / name)

    async def create(
        self,
        name: str,
        links: Iterable[LinkPlan] = (),
        *,
        routes: Routes | None = None,
        resolver: bool = False,
    ) -> tuple[str, ResolverSockets | None]:
        """Make a namespace with its links, up; return its path and the sockets asked for.

        Raises:
            OSError: The kernel refused; nothing is left.
        """
        return await self._worker.run(self._create, name, tuple(links), routes or {}, resolver)

    async def hold(self, path: str, name: str) -> str:
        """Keep a living namespace that somebody else made under a name of our own; return that path.

        Raises:
            OSError: There is none; nothing is left.
        """
        await self._worker.run(self._hold, path, self.path(name))
        return self.path(name)

    async def furnish(self, path: str, links: Iterable[LinkPlan], routes: Routes) -> None:
        """Give a bare namespace its links and its default routes.

        Raises:
            OSError: The kernel refused; some links may be there.
        """
        await self._worker.run(self._furnish, path, tuple(links), routes)

    async def add_link(self, path: str, link: LinkPlan) -> None:
        """Add a link to a namespace, up, without touching its routes."""
        await self._worker.run(self._add_link, path, link)

    async def remove_link(self, path: str, name: str) -> None:
        """Take a link away, and its port on the bridge; silent if it is gone."""
        await self._worker.run(self._remove_link, path, name)

    async def set_routes(self, path: str, routes: Routes) -> None:
        """Set the default routes; those of families that have none are taken away."""
        await self._worker.run(self._set_routes, path, routes)

    async def open_resolver(self, path: str) -> ResolverSockets:
        """Make the sockets of the name service in a living namespace."""
        return await self._worker.run(self._inside, path, lambda: self._open_resolver(anew=True))

    async def open_socket(
        self, path: str, kind: socket.SocketKind, family: socket.AddressFamily
    ) -> socket.socket:
        """Make a socket in a namespace; it stays there. Not blocking."""
        return await self._worker.run(self._inside, path, lambda: _socket(kind, family))

    async def drop(self, paths: Iterable[str]) -> None:
        """Let namespaces go: the kernel takes their links away some time later."""
        await self._worker.run(self._drop, tuple(paths))

    async def send(self, *messages: rtnetlink.Message) -> None:
        """Send rtnetlink messages in the daemon's namespace."""
        await self._worker.run(lambda: self._home_netlink().send(*messages))

    async def links(self) -> list[rtnetlink.Link]:
        """All links of the daemon's namespace."""
        return await self._worker.run(lambda: self._home_netlink().links())

    async def addresses(self) -> list[tuple[int, Interface]]:
        """All addresses of the daemon's namespace."""
        return await self._worker.run(lambda: self._home_netlink().addresses())

    async def routes(self) -> list[rtnetlink.Route]:
        """All routes of the daemon's namespace."""
        return await self._worker.run(lambda: self._home_netlink().routes())

    async def set_sysctl(self, name: str, value: str) -> str:
        """Set a sysctl (``net/ipv4/…``) of the daemon's namespace; return what it was."""
        return await self._worker.run(_set_sysctl, name, value)

    async def sysctl(self, name: str) -> str:
        """Read a sysctl of the daemon's namespace; empty if there is none of that name."""
        return await self._worker.run(_sysctl, name)

    def files(self) -> list[str]:
        """Paths of all namespace files, living or not."""
        return [str(path) for path in self._folder.iterdir()]

    # In the thread from here on.

    def _home_netlink(self) -> RtNetlink:
        if self._netlink is None:
            self._netlink = RtNetlink()
        return self._netlink

    def _home_descriptor(self) -> int:
        if self._home is None:
            self._home = open_thread_namespace()
        return self._home

    def _close(self) -> None:
        if self._netlink is not None:
            self._netlink.close()
        if self._home is not None:
            os.close(self._home)

    @contextmanager
    def _elsewhere(self) -> Iterator[None]:
        home = self._home_descriptor()
        try:
            yield
        finally:
            try:
                syscalls.setns(home, syscalls.CLONE_NEWNET)
            except OSError as error:
                raise ThreadSpoiled("cannot leave a network namespace") from error

    def _inside(self, path: str, work: Callable[[], T]) -> T:
        with opened(path) as descriptor, self._elsewhere():
            syscalls.setns(descriptor, syscalls.CLONE_NEWNET)
            return work()

    def _create(
        self,
        name: str,
        links: tuple[LinkPlan, ...],
        routes: Routes,
        resolver: bool,
    ) -> tuple[str, ResolverSockets | None]:
        path = self.path(name)
        sockets: ResolverSockets | None = None
        try:
            sockets = self._create_bare(path, resolver)
            self._furnish(path, links, routes)
        except BaseException:
            if sockets is not None:
                sockets.close()
            self._drop((path,))
            raise
        return path, sockets

    def _create_bare(self, path: str, resolver: bool) -> ResolverSockets | None:
        with self._elsewhere():
            syscalls.unshare(syscalls.CLONE_NEWNET)
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            syscalls.mount(THREAD_NAMESPACE, path, "", syscalls.MS_BIND)
            for sysctl, value in _SYSCTLS.items():
                with suppress(FileNotFoundError):  # no IPv6 in this kernel
                    _write_sysctl(sysctl, value)
            with RtNetlink() as inner:
                inner.send(rtnetlink.link_up(1))  # lo, without which 127.0.0.11 is no address
            return self._open_resolver(anew=False) if resolver else None

    def _hold(self, path: str, own: str) -> None:
        os.close(os.open(own, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            syscalls.mount(path, own, "", syscalls.MS_BIND)
        except BaseException:
            Path(own).unlink()
            raise

    def _open_resolver(self, *, anew: bool) -> ResolverSockets:
        """Sockets and rules; ``anew`` replaces rules that are there, at the price of some ten milliseconds."""
        udp, tcp = _socket(socket.SOCK_DGRAM), _socket(socket.SOCK_STREAM)
        try:
            udp.bind((RESOLVER_ADDRESS, 0))
            tcp.bind((RESOLVER_ADDRESS, 0))
            tcp.listen(64)
            rules = _RESOLVER_RULES.format(
                address=RESOLVER_ADDRESS, udp=udp.getsockname()[1], tcp=tcp.getsockname()[1]
            )
            with opened(THREAD_NAMESPACE) as here:
                try:
                    self._nft.run(_NO_RESOLVER_RULES + rules if anew else rules, namespace=here)
                except NftablesCrashed:  # at somebody else's rules, it may be: here are none
                    self._nft.run(_NO_RESOLVER_RULES + rules, namespace=here)
        except BaseException:
            udp.close()
            tcp.close()
            raise
        return ResolverSockets(udp, tcp)

    def _furnish(self, path: str, links: tuple[LinkPlan, ...], routes: Routes) -> None:
        if not links:
            return
        with self._inside(path, RtNetlink) as inner, opened(path) as descriptor:
            for link in links:
                self._join(inner, descriptor, link)
            for route in routes.values():
                index = inner.link(route.name).index
                inner.send(rtnetlink.default_route(index, route.gateway))

    def _join(self, inner: RtNetlink, namespace: int, link: LinkPlan) -> None:
        self._home_netlink().send(
            rtnetlink.veth(
                link.port,
                master=link.bridge,
                group=link.group,
                mtu=link.mtu,
                peer=link.name,
                peer_mac=link.mac,
                namespace=namespace,
            ),
            rtnetlink.bridge_port(link.port, isolated=link.isolated),
        )
        index = inner.link(link.name).index
        has_ipv6 = any(interface.version == 6 for interface in link.interfaces)
        sysctls = (*(_WITH_IPV6 if has_ipv6 else ()), *link.sysctls)
        if sysctls:
            with self._elsewhere():
                syscalls.setns(namespace, syscalls.CLONE_NEWNET)
                for sysctl, value in sysctls:
                    _set_sysctl(sysctl.format(link.name), value)
        addresses = [rtnetlink.address(index, interface) for interface in link.interfaces]
        inner.send(*addresses, rtnetlink.link_up(index))
        # The port, and with the first port the bridge, get their carrier with that, but the kernel
        # only notes it for later; until then they send nothing. Asking for a link makes it so now.
        self._home_netlink().link(link.port)
        self._home_netlink().link(index=link.bridge)

    def _add_link(self, path: str, link: LinkPlan) -> None:
        try:
            self._furnish(path, (link,), {})
        except BaseException:
            self._remove_link(path, link.name)
            raise

    def _remove_link(self, path: str, name: str) -> None:
        with self._inside(path, RtNetlink) as inner:
            _delete_link(inner, name)

    def _set_routes(self, path: str, routes: Routes) -> None:
        with self._inside(path, RtNetlink) as inner:
            for version in (4, 6):
                route = routes.get(version)
                if route is None or version == 6:
                    # An IPv6 route would not be replaced by one over another interface, but joined.
                    _delete_route(inner, version)
                if route is not None:
                    index = inner.link(route.name).index
                    inner.send(rtnetlink.default_route(index, route.gateway))

    def _drop(self, paths: tuple[str, ...]) -> None:
        for path in paths:
            try:
                syscalls.unmount(path, syscalls.MNT_DETACH)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOENT):  # not a mount; gone
                    raise
            with suppress(FileNotFoundError):
                Path(path).unlink()


def _delete_route(inner: RtNetlink, version: int) -> None:
    try:
        inner.send(rtnetlink.delete_default_route(version))
    except OSError as error:
        if error.errno not in (errno.ESRCH, errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
            raise


def _delete_link(inner: RtNetlink, name: str) -> None:
    try:
        inner.send(rtnetlink.delete_link(name))
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise


def _set_sysctl(name: str, value: str) -> str:
    # /proc/sys/net shows the namespace of the thread that opens it.
    before = Path("/proc/sys", name).read_text().strip()
    if before != value:
        _write_sysctl(name, value)
    return before


def _write_sysctl(name: str, value: str) -> None:
    fd = os.open(f"/proc/sys/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def _sysctl(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except FileNotFoundError:
        return ""


def _socket(
    kind: socket.SocketKind, family: socket.AddressFamily = socket.AF_INET
) -> socket.socket:
    made = socket.socket(family, kind)
    made.setblocking(False)
    return made
