"""Which names lead to which addresses in a network."""

import random
from collections.abc import Iterable

from linkspan.plugins.bridge_network.ipam import Address


class Zone:
    """The names of a network, in lower case, without a final dot. Only living endpoints are in it.

    Each name is known with and without the network's name behind it.
    """

    def __init__(self, network: str) -> None:
        self._suffix = f".{network.lower()}"
        self._holders: dict[str, dict[str, tuple[Address, ...]]] = {}
        self._endpoints: dict[str, tuple[tuple[str, ...], tuple[Address, ...]]] = {}
        self._reverse: dict[Address, str] = {}

    def add(self, endpoint: str, names: Iterable[str], addresses: Iterable[Address]) -> None:
        """Make an endpoint known; the first name is the one that its addresses lead back to."""
        short = list(dict.fromkeys(name.lower() for name in names if name))
        known = (*short, *(name + self._suffix for name in short))
        has = tuple(addresses)
        self._endpoints[endpoint] = (known, has)
        for name in known:
            self._holders.setdefault(name, {})[endpoint] = has
        if short:
            self._reverse.update(dict.fromkeys(has, short[0] + self._suffix))

    def remove(self, endpoint: str) -> None:
        """Forget an endpoint; silent if it is unknown."""
        known, addresses = self._endpoints.pop(endpoint, ((), ()))
        for name in known:
            del self._holders[name][endpoint]
            if not self._holders[name]:
                del self._holders[name]
        for address in addresses:
            self._reverse.pop(address, None)

    def resolve(self, name: str) -> list[Address]:
        """Addresses of a name, both families, in random order; empty if it is unknown."""
        holders = self._holders.get(name, {}).values()
        addresses = list(dict.fromkeys(address for each in holders for address in each))
        random.shuffle(addresses)
        return addresses

    def reverse(self, address: Address) -> str:
        """The name of an address; empty if it is unknown."""
        return self._reverse.get(address, "")
