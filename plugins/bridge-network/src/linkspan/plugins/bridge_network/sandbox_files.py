"""``/etc/hosts``, ``/etc/resolv.conf`` and ``/etc/hostname`` of a container.

They are bind mounted into the container, so they are written *in place*: a renamed file would not be
seen. Users may edit them, so a change touches only lines (or a file) that are as we wrote them.
"""

import ipaddress
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from ipaddress import IPv4Address
from pathlib import Path

import attrs

from linkspan.sdk.drivers.network import AttachRequest
from linkspan.sdk.errors import Internal, InvalidArgument, LinkspanError, OutOfSpace
from linkspan.sdk.files import is_full, write_file
from linkspan.sdk.values import frozen

HOST_RESOLV_CONF = Path("/etc/resolv.conf")
_BEHIND_STUB = Path("/run/systemd/resolve/resolv.conf")
_PUBLIC_SERVERS = ("8.8.8.8", "8.8.4.4")
HOST_GATEWAY = "host-gateway"
_IPV6_LINKS = Path("/proc/net/if_inet6")
_IPV6_NAMES = (
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::\tip6-localnet",
    "ff00::\tip6-mcastprefix",
    "ff02::1\tip6-allnodes",
    "ff02::2\tip6-allrouters",
)


@frozen(kw_only=True)
class ResolverSettings:
    """The parts of a resolv.conf (resolv.conf(5))."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def text(self) -> str:
        """As a file."""
        lines = ["# Written by Linkspan."]
        lines += [f"nameserver {server}" for server in self.servers]
        if self.search:
            lines.append(f"search {' '.join(self.search)}")
        if self.options:
            lines.append(f"options {' '.join(self.options)}")
        return "\n".join(lines) + "\n"


def parse_resolv_conf(text: str) -> ResolverSettings:
    """Read a resolv.conf; what is not understood is passed over."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        match line.split():
            case ["nameserver", server, *_]:
                servers.append(server)
            case ["search" | "domain", *domains]:
                search = tuple(domains)
            case ["options", *more]:
                options += more
            case _:
                pass
    return ResolverSettings(servers=tuple(servers), search=search, options=tuple(options))


def host_settings() -> ResolverSettings:
    """What the host itself uses; empty if it has no file."""
    try:
        found = HOST_RESOLV_CONF.stat()
        return _read_settings(HOST_RESOLV_CONF, found.st_ino, found.st_mtime_ns, found.st_size)
    except OSError:
        return ResolverSettings()


@lru_cache(maxsize=4)
def _read_settings(path: Path, *_version: int) -> ResolverSettings:
    return parse_resolv_conf(path.read_text(errors="replace"))


def with_wishes(
    host: ResolverSettings, *, dns: Sequence[str], search: Sequence[str], options: Sequence[str]
) -> ResolverSettings:
    """The host's settings, where the container has no wishes; the search domain ``.`` means none."""
    domains = tuple(search) or host.search
    return ResolverSettings(
        servers=tuple(dns) or host.servers,
        search=() if domains == (".",) else domains,
        options=tuple(options) or host.options,
    )


def wished_settings(request: AttachRequest) -> ResolverSettings:
    """The host's settings with a container's wishes."""
    return with_wishes(
        host_settings(), dns=request.dns, search=request.dns_search, options=request.dns_options
    )


def reachable_from_container(settings: ResolverSettings, *, ipv6: bool) -> ResolverSettings:
    """Drop servers that a container cannot reach: loopback ones, and without IPv6 those.

    If none is left, those behind systemd-resolved's stub are taken, and at last Google's public
    ones, as Docker does (moby daemon/libnetwork/internal/resolvconf).
    """
    servers = tuple(server for server in settings.servers if _is_reachable(server, ipv6=ipv6))
    if not servers and settings.servers and _BEHIND_STUB.exists():
        behind = parse_resolv_conf(_BEHIND_STUB.read_text(errors="replace"))
        servers = tuple(server for server in behind.servers if _is_reachable(server, ipv6=ipv6))
    return attrs.evolve(settings, servers=servers or _PUBLIC_SERVERS)


def _is_reachable(server: str, *, ipv6: bool) -> bool:
    try:
        address = ipaddress.ip_address(server)
    except ValueError:
        return False
    # A link-local server is one on a link of the host's.
    known = address.version == 4 or (ipv6 and not address.is_link_local)
    return known and not address.is_loopback


def parse_extra_hosts(
    extra_hosts: Iterable[str], gateway: IPv4Address | None
) -> list[tuple[str, str]]:
    """Address and name of each ``name:address``; ``host-gateway`` is the host.

    Raises:
        InvalidArgument: Not of that form, or there is no gateway.
    """
    found = []
    for text in extra_hosts:
        name, colon, address = text.partition(":")
        if not name or not colon:
            raise InvalidArgument(f"invalid extra host '{text}'", help="write name:address")
        if address == HOST_GATEWAY:
            if gateway is None:
                raise InvalidArgument(
                    f"invalid extra host '{text}': there is no default network to reach the host by"
                )
            address = str(gateway)
        try:
            ipaddress.ip_address(address.strip("[]"))
        except ValueError as error:
            raise InvalidArgument(f"invalid extra host '{text}': {error}") from error
        found.append((address.strip("[]"), name))
    return found


def failure(error: OSError, container: str) -> LinkspanError:
    """What to raise when the kernel or the disk refused something a sandbox needs."""
    if is_full(error):
        return OutOfSpace(f"network of container {container}: {error}", help="free some disk space")
    return Internal(f"network of container {container}: {error}")


def hosts_text(
    own: Iterable[tuple[str, str]], more: Iterable[tuple[str, str]], *, ipv6: bool = True
) -> str:
    """A hosts file: localhost, then ``own`` lines (address, names) and ``more``."""
    lines = ["127.0.0.1\tlocalhost"]
    if ipv6 and _kernel_has_ipv6():  # then loopback has ::1, also where no network has IPv6
        lines += _IPV6_NAMES
    lines += [f"{address}\t{names}" for address, names in (*more, *own)]
    return "\n".join(lines) + "\n"


@cache
def _kernel_has_ipv6() -> bool:
    return _IPV6_LINKS.exists()


def own_names(hostname: str, domainname: str) -> str:
    """The names of a container in its own hosts file."""
    if domainname:
        return f"{hostname}.{domainname} {hostname}"
    short, dot, _ = hostname.partition(".")
    return f"{hostname} {short}" if dot and short else hostname


class SandboxFiles:
    """The folder with a container's files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mapping(self) -> dict[str, str]:
        """Path in the container → file on the host."""
        names = ("hosts", "resolv.conf", "hostname")
        return {f"/etc/{name}": str(self.folder / name) for name in names}

    def write(self, *, hosts: str, resolv_conf: str, hostname: str) -> None:
        """Write all three."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, text in (
            ("hosts", hosts),
            ("resolv.conf", resolv_conf),
            ("hostname", hostname + "\n"),
        ):
            write_file(f"{self.folder}/{name}", text.encode())

    def share(self, others: Mapping[str, str]) -> None:
        """Give the files of another folder, by their paths in the container, names in this one, too."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for inside, own in self.mapping().items():
            os.link(others[inside], own)

    def add_hosts(self, lines: Iterable[tuple[str, str]]) -> None:
        """Append lines to the hosts file."""
        with (self.folder / "hosts").open("a") as file:
            file.write("".join(f"{address}\t{names}\n" for address, names in lines))

    def remove_hosts(self, lines: Iterable[tuple[str, str]]) -> None:
        """Take lines out of the hosts file, once each, if they are as we wrote them."""
        path = self.folder / "hosts"
        kept = path.read_text().splitlines(keepends=True)
        for address, names in lines:
            line = f"{address}\t{names}\n"
            if line in kept:
                kept.remove(line)
        _write_in_place(path, "".join(kept))

    def change_resolv_conf(self, before: str, after: str) -> bool:
        """Write another resolv.conf unless somebody has changed it; say whether it was written."""
        path = self.folder / "resolv.conf"
        if path.read_text() != before:
            return False
        _write_in_place(path, after)
        return True


def _write_in_place(path: Path, text: str) -> None:
    with path.open("r+") as file:
        file.write(text)
        file.truncate()
