"""Which address answers for a reference's domain, and which need no verified TLS; pure."""

import ipaddress
from collections.abc import Iterable

from linkspan.sdk.values import frozen

DOCKER_DOMAIN = "docker.io"
DOCKER_API_HOST = "registry-1.docker.io"
_DOCKER_ALIASES = frozenset({"docker.io", "index.docker.io", DOCKER_API_HOST})


def split_host(authority: str) -> tuple[str, str]:
    """``host:port`` → host without brackets, port or ``""``."""
    if authority.startswith("["):
        host, _, rest = authority[1:].partition("]")
        return host, rest.removeprefix(":")
    host, _, port = authority.partition(":")
    return host, port


def api_authority(domain: str) -> str:
    """The host, with port, that serves ``/v2/`` for a domain."""
    return DOCKER_API_HOST if domain in _DOCKER_ALIASES else domain


def is_docker_hub(domain: str) -> bool:
    """Docker Hub has several names."""
    return domain in _DOCKER_ALIASES


def is_loopback(host: str) -> bool:
    """127.0.0.0/8, ::1 and localhost."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@frozen
class InsecureHosts:
    """Registries that may be talked to without verified TLS: ``host``, ``host:port``, or a CIDR.

    Loopback always may (as in Docker): nobody else hears it.
    """

    entries: frozenset[str]

    @classmethod
    def of(cls, entries: Iterable[str]) -> "InsecureHosts":
        """From the config, where an entry may also be written as a URL."""
        bare = (entry.strip().partition("://")[2] or entry.strip() for entry in entries)
        return cls(frozenset(entry.rstrip("/").lower() for entry in bare if entry))

    def __contains__(self, authority: str) -> bool:
        host, _ = split_host(authority.lower())
        if is_loopback(host) or host in self.entries or authority.lower() in self.entries:
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks())

    def _networks(self) -> Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        for entry in self.entries:
            if "/" in entry:
                try:
                    yield ipaddress.ip_network(entry, strict=False)
                except ValueError:
                    continue
