"""Containers by the names that they have in a network, for who asks from outside of it."""

from typing import Final

from linkspan.sdk.errors import LinkspanError, NotFound
from linkspan.sdk.host import Host

_SERVICE: Final = "com.docker.swarm.service.name"


def addresses(host: Host, network: str, name: str) -> list[str]:
    """Addresses of what is called so in a network: a container, an alias, the tasks of a service.

    Raises:
        NotFound: There is no such network.
    """
    found = []
    for container_id, endpoint in host.engine.networks.endpoints(network).items():
        try:
            container = host.engine.containers.inspect(container_id)
        except NotFound:
            continue  # it has just gone
        called = {
            container.name,
            container.labels.get(_SERVICE, ""),
            *endpoint.names,
            *endpoint.spec.aliases,
        }
        address = endpoint.ipv4_address or endpoint.ipv6_address
        if name in called and address:
            found.append(address)
    return found


def split_name(host: Host, name: str) -> tuple[str, str]:
    """``web.front`` as ``(web, front)``; without a network if this machine has none so called."""
    first, _, network = name.rpartition(".")
    if not first or network.isdecimal() or ":" in name:
        return name, ""  # one word, or an address
    try:
        host.engine.networks.inspect(network)
    except LinkspanError:
        return name, ""
    return first, network
