"""Which names lead to which addresses in a network."""

import random
from collections.abc import Iterable
from ipaddress import IPv4Address


class Zone:
    """The names of a network, in lower case, without a final dot. Only living endpoints are in it.

    Each name is known with and without the network's name behind it.
    """

    def __init__(self, network: str) -> None:
        self._suffix = f".{network.lower()}"
        self._holders: dict[str, dict[str, IPv4Address]] = {}
        self._endpoints: dict[str, tuple[tuple[str, ...], IPv4Address]] = {}
        self._reverse: dict[IPv4Address, str] = {}

    def add(self, endpoint: str, names: Iterable[str], address: IPv4Address) -> None:
        """Make an endpoint known; the first name is the one that its address leads back to."""
        short = list(dict.fromkeys(name.lower() for name in names if name))
        known = (*short, *(name + self._suffix for name in short))
        self._endpoints[endpoint] = (known, address)
        for name in known:
            self._holders.setdefault(name, {})[endpoint] = address
        if short:
            self._reverse[address] = short[0] + self._suffix

    def remove(self, endpoint: str) -> None:
        """Forget an endpoint; silent if it is unknown."""
        known, address = self._endpoints.pop(endpoint, ((), None))
        for name in known:
            del self._holders[name][endpoint]
            if not self._holders[name]:
                del self._holders[name]
        if address is not None:
            self._reverse.pop(address, None)

    def resolve(self, name: str) -> list[IPv4Address]:
        """Addresses of a name, in random order; empty if it is unknown."""
        addresses = list(dict.fromkeys(self._holders.get(name, {}).values()))
        random.shuffle(addresses)
        return addresses

    def reverse(self, address: IPv4Address) -> str:
        """The name of an address; empty if it is unknown."""
        return self._reverse.get(address, "")
