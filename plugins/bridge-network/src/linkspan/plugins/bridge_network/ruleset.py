"""The firewall table of a daemon, as text for nftables.

Chains and rules are constant; what changes are elements of maps and sets, so that publishing a port
or making a network touches nothing else. The bridges of a daemon are one *link group*: rules name
the group, so a new bridge is isolated from its first moment. Only balanced ports have a chain each.

A packet from outside to a published port is rewritten in ``publish`` and let through in ``inbound``
because it was rewritten (``ct status dnat``); everything else into a bridge is dropped, save replies
and traffic within the bridge.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter

from linkspan.plugins.bridge_network.ipam import Address
from linkspan.sdk.model.network import Backend
from linkspan.sdk.values import frozen

_PORT = "inet_proto . inet_service"
_CONTAINERS: Mapping[str, str] = {
    "pub4": f"map {{ type {_PORT} : ipv4_addr . inet_service; }}",
    "pub4_addr": f"map {{ type ipv4_addr . {_PORT} : ipv4_addr . inet_service; }}",
    "pub6": f"map {{ type {_PORT} : ipv6_addr . inet_service; }}",
    "pub6_addr": f"map {{ type ipv6_addr . {_PORT} : ipv6_addr . inet_service; }}",
    "balance4": f"map {{ type {_PORT} : verdict; }}",
    "balance4_addr": f"map {{ type ipv4_addr . {_PORT} : verdict; }}",
    "refuse4": f"set {{ type {_PORT}; }}",
    "refuse4_addr": f"set {{ type ipv4_addr . {_PORT}; }}",
    "pair": "map { type ifname . ifname : verdict; }",
    "snat4": "map { type ifname : ipv4_addr; }",
    "snat6": "map { type ifname : ipv6_addr; }",
    "masq4": "set { type ifname; }",
    "masq6": "set { type ifname; }",
    "internal": "set { type ifname; }",
    "trusted": "set { type ifname . ifname; }",
    "open4": "set { type ifname; }",
    "open6": "set { type ifname; }",
    "routed4": f"set {{ type ipv4_addr . {_PORT}; }}",
    "routed6": f"set {{ type ipv6_addr . {_PORT}; }}",
    "subnet4": "set { type ipv4_addr; flags interval; }",
    "subnet6": "set { type ipv6_addr; flags interval; }",
}
"""Everything that changes is in these."""

_CHAINS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "publish": (
        "",
        (
            "dnat ip to ip daddr . meta l4proto . th dport map @pub4_addr",
            "ip daddr . meta l4proto . th dport vmap @balance4_addr",
            # Link-local clients are asked by the device they come from: the relay answers them.
            "ip6 saddr fe80::/10 return",
            "dnat ip6 to ip6 daddr . meta l4proto . th dport map @pub6_addr",
            "meta nfproto ipv4 dnat ip to meta l4proto . th dport map @pub4",
            "meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @pub6",
            "meta nfproto ipv4 meta l4proto . th dport vmap @balance4",
        ),
    ),
    "inbound": (
        "",
        (
            "ct state established,related accept",
            "ct status dnat accept",
            "oifname . iifname @trusted accept",
            "meta nfproto ipv4 oifname @open4 accept",
            "meta nfproto ipv6 oifname @open6 accept",
            "ip daddr . meta l4proto . th dport @routed4 accept",
            "ip6 daddr . meta l4proto . th dport @routed6 accept",
            "counter drop",
        ),
    ),
    "refuse": (
        "",
        (
            "fib daddr type != local return",
            "meta l4proto tcp reject with tcp reset",
            "reject",
        ),
    ),
    "early": (
        "type filter hook prerouting priority raw; policy accept;",
        (
            "iifgroup @G@ ip daddr 127.0.0.0/8 counter drop",
            "iifgroup @G@ ip saddr 127.0.0.0/8 counter drop",
            # The kernel drops these itself, but br_netfilter would rewrite them before that.
            'iif != "lo" ip6 daddr ::1 counter drop',
            'iif != "lo" ip daddr 127.0.0.0/8 ip daddr . meta l4proto . th dport @pub4_addr'
            " counter drop",
        ),
    ),
    "prerouting": (
        "type nat hook prerouting priority dstnat; policy accept;",
        (
            "ip daddr 127.0.0.0/8 return",
            "ip6 daddr ::1 return",
            "iifname @internal return",
            "fib daddr type local jump publish",
        ),
    ),
    "output": (
        "type nat hook output priority -100; policy accept;",
        # A reply to ::1 cannot be brought home from a bridge: the relay answers there.
        ("ip6 daddr ::1 return", "fib daddr type local jump publish"),
    ),
    "input": (
        "type filter hook input priority filter; policy accept;",
        (
            "ip daddr . meta l4proto . th dport @refuse4_addr jump refuse",
            "meta nfproto ipv4 meta l4proto . th dport @refuse4 jump refuse",
        ),
    ),
    "postrouting": (
        "type nat hook postrouting priority srcnat; policy accept;",
        (
            "oifgroup @G@ ct status dnat fib saddr type local masquerade",
            "oifgroup @G@ ct status dnat ip saddr @subnet4 masquerade",
            "oifgroup @G@ ct status dnat ip6 saddr @subnet6 masquerade",
            "iifgroup != @G@ return",
            "oifgroup @G@ return",
            "snat ip to iifname map @snat4",
            "snat ip6 to iifname map @snat6",
            "meta nfproto ipv4 iifname @masq4 masquerade",
            "meta nfproto ipv6 iifname @masq6 masquerade",
        ),
    ),
    "forward": (
        "type filter hook forward priority filter; policy accept;",
        (
            "meta nfproto ipv4 iifgroup != @G@ oifgroup != @G@ @FOREIGN4@",
            "meta nfproto ipv6 iifgroup != @G@ oifgroup != @G@ @FOREIGN6@",
            "tcp flags syn / syn,rst tcp option maxseg size set rt mtu",
            "iifgroup @G@ ct status dnat iifname != @internal oifname != @internal accept",
            "iifname . oifname vmap @pair",
            "iifname @internal counter drop",
            "oifname @internal counter drop",
            "oifgroup @G@ jump inbound",
            "iifgroup @G@ ct state invalid counter drop",
        ),
    ),
}
"""Chain → hook, and its rules. Chains that are jumped to come first."""


@frozen(kw_only=True)
class Contents:
    """What is in the table already: names of its chains, and of its maps and sets."""

    chains: frozenset[str] = frozenset()
    containers: frozenset[str] = frozenset()


@frozen
class Element:
    """An element of a map or set; ``value`` is empty for a set. Deleted by its key alone."""

    container: str
    key: str
    value: str = ""


@frozen(kw_only=True)
class FamilyRules:
    """What the table knows of one address family of a network.

    Attributes:
        masquerade: Containers have the host's address outside.
        source: Or this one.
        unprotected: Everybody may reach every port of its containers.
    """

    subnets: tuple[str, ...]
    masquerade: bool = True
    source: str = ""
    unprotected: bool = False


@frozen(kw_only=True)
class BridgeRules:
    """What the table knows of a network.

    Attributes:
        trusted: Interfaces of the host from which containers are reached directly.
    """

    bridge: str
    internal: bool
    icc: bool
    ipv4: FamilyRules | None
    ipv6: FamilyRules | None = None
    trusted: tuple[str, ...] = ()

    def elements(self) -> list[Element]:
        """The network's elements."""
        name = f'"{self.bridge}"'
        found = [Element("pair", f"{name} . {name}", "accept" if self.icc else "drop")]
        if self.internal:
            found.append(Element("internal", name))
        found += [Element("trusted", f'{name} . "{interface}"') for interface in self.trusted]
        for version, family in ((4, self.ipv4), (6, self.ipv6)):
            if family is not None:
                found += self._of_family(name, version, family)
        return found

    def _of_family(self, name: str, version: int, family: FamilyRules) -> list[Element]:
        found = [Element(f"subnet{version}", subnet) for subnet in family.subnets]
        if self.internal:
            return found
        if family.source:
            found.append(Element(f"snat{version}", name, family.source))
        elif family.masquerade:
            found.append(Element(f"masq{version}", name))
        if family.unprotected:
            found.append(Element(f"open{version}", name))
        return found


def published(
    *, host: Address, protocol: str, host_port: int, container: Address, port: int
) -> Element:
    """The element of a published port; a wildcard is every address of the host of that family."""
    value = f"{container} . {port}"
    name = f"pub{host.version}"
    if int(host) == 0:
        return Element(name, f"{protocol} . {host_port}", value)
    return Element(f"{name}_addr", f"{host} . {protocol} . {host_port}", value)


def opened(*, container: Address, protocol: str, port: int) -> Element:
    """The element of a port that is reached at the container's own address (gateway mode routed)."""
    return Element(f"routed{container.version}", f"{container} . {protocol} . {port}")


@frozen(kw_only=True)
class BalancedPort:
    """A host port whose connections are spread; without backends they are refused at once.

    Whatever it has, what is led to no backend is refused by the host and never becomes a connection that
    is tracked: the client's next try is led anew.
    """

    host_ip: Address
    protocol: str
    host_port: int
    backends: tuple[Backend, ...] = ()

    @property
    def chain(self) -> str:
        """The name of its own chain."""
        where = "" if int(self.host_ip) == 0 else "_" + str(self.host_ip).replace(".", "_")
        return f"balance_{self.protocol}_{self.host_port}{where}"

    def _element(self, container: str, value: str = "") -> Element:
        key = f"{self.protocol} . {self.host_port}"
        if int(self.host_ip) == 0:
            return Element(f"{container}4", key, value)
        return Element(f"{container}4_addr", f"{self.host_ip} . {key}", value)

    def _rules(self, table: str) -> str:
        """Rules of its chain.

        The last one needs no map: while the kernel takes new rules in place of old ones, a packet that has
        begun with the old ones may find nothing in their map. A first packet that no rule leads anywhere
        would be the host's, and so would be all that the client sends after it.
        """
        lead = (
            f"add rule inet {table} {self.chain} meta nfproto ipv4"
            f" meta l4proto {self.protocol} dnat ip to "
        )
        first = self.backends[0]
        text = f"{lead}{first.address}:{first.port}\n"
        if len(self.backends) > 1:
            choices = ", ".join(
                f"{number} : {backend.address} . {backend.port}"
                for number, backend in enumerate(self.backends)
            )
            text = f"{lead}numgen inc mod {len(self.backends)} map {{ {choices} }}\n{text}"
        return text

    def change(self, table: str, before: "BalancedPort | None") -> str:
        """Commands that make it so, given what is there. One transaction: no connection falls between."""
        text = add(table, [self._element("refuse")]) if before is None else ""
        was_led = before is not None and bool(before.backends)
        if self.backends:
            verb = "flush" if was_led else "add"
            text += f"{verb} chain inet {table} {self.chain}\n{self._rules(table)}"
            if not was_led:
                text += add(table, [self._element("balance", f"goto {self.chain}")])
        elif was_led:
            text += self._leading_nowhere(table)
        return text

    def removal(self, table: str) -> str:
        """Commands that take it away."""
        text = self._leading_nowhere(table) if self.backends else ""
        return text + delete(table, [self._element("refuse")])

    def _leading_nowhere(self, table: str) -> str:
        return (
            delete(table, [self._element("balance")]) + f"delete chain inet {table} {self.chain}\n"
        )


def load(
    table: str,
    group: int,
    elements: Iterable[Element],
    balanced: Sequence[BalancedPort],
    *,
    found: Contents,
    keep_apart: frozenset[int] = frozenset(),
) -> str:
    """Commands that give the table, which is there, what it is to hold, and nothing else.

    The table itself is not made anew: it may be owned, and no packet shall find it missing.

    Args:
        found: What is in it; of this and of other versions of ours.
        keep_apart: Families (4, 6) of which the host forwards nothing but ours.
    """
    text = f"flush table inet {table}\n"
    kinds = {name: definition.partition(" ")[0] for name, definition in _CONTAINERS.items()}
    for name in sorted(found.containers & kinds.keys()):
        text += f"flush {kinds[name]} inet {table} {name}\n"
    # Who has begun with the old rules finds a new chain empty; one that stays has both.
    lasting = _CHAINS.keys() | {port.chain for port in balanced}
    for name in sorted(found.chains - lasting):
        text += f"delete chain inet {table} {name}\n"
    for name in sorted(found.containers - kinds.keys()):
        text += f"delete set inet {table} {name}\n"
    for name, definition in _CONTAINERS.items():
        kind, _, rest = definition.partition(" ")
        text += f"add {kind} inet {table} {name} {rest}\n"
    for name, (hook, _) in _CHAINS.items():
        text += f"add chain inet {table} {name}" + (f" {{ {hook} }}\n" if hook else "\n")
    verdicts = {
        f"@FOREIGN{version}@": "counter drop" if version in keep_apart else "accept"
        for version in (4, 6)
    }
    for name, (_, rules) in _CHAINS.items():
        for rule in rules:
            ready = rule.replace("@G@", f"{group:#x}")
            for mark, verdict in verdicts.items():
                ready = ready.replace(mark, verdict)
            text += f"add rule inet {table} {name} {ready}\n"
    text += add(table, elements)
    return text + "".join(port.change(table, None) for port in balanced)


def add(table: str, elements: Iterable[Element]) -> str:
    """Commands that add elements. An existing key with another value makes them fail."""
    return _commands("add", table, elements)


def delete(table: str, elements: Iterable[Element]) -> str:
    """Commands that delete elements by key."""
    return _commands("delete", table, [Element(e.container, e.key) for e in elements])


def _commands(verb: str, table: str, elements: Iterable[Element]) -> str:
    by_container = attrgetter("container")
    text = ""
    for container, group in groupby(sorted(elements, key=by_container), by_container):
        inside = ", ".join(f"{e.key} : {e.value}" if e.value else e.key for e in group)
        text += f"{verb} element inet {table} {container} {{ {inside} }}\n"
    return text
