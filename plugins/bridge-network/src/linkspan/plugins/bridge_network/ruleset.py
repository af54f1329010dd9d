"""The firewall table of a daemon, as text for nftables.

Chains and rules are constant; what changes are elements of maps and sets, so that publishing a port
or making a network touches nothing else. The bridges of a daemon are one *link group*: rules name
the group, so a new bridge is isolated from its first moment. Only balanced ports have a chain each.

A packet from outside to a published port is rewritten in ``publish`` and let through in ``inbound``
because it was rewritten (``ct status dnat``); everything else into a bridge is dropped, save replies
and traffic within the bridge.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address
from itertools import groupby
from operator import attrgetter

import attrs

from linkspan.sdk.model.network import Backend

_TABLE = """\
table inet @T@ {
 map pub4 { type inet_proto . inet_service : ipv4_addr . inet_service; }
 map pub4_addr { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
 map balance4 { type inet_proto . inet_service : verdict; }
 map balance4_addr { type ipv4_addr . inet_proto . inet_service : verdict; }
 set refuse4 { type inet_proto . inet_service; }
 set refuse4_addr { type ipv4_addr . inet_proto . inet_service; }
 map pair { type ifname . ifname : verdict; }
 map snat4 { type ifname : ipv4_addr; }
 set masq4 { type ifname; }
 set internal { type ifname; }
 set subnet4 {
  type ipv4_addr
  flags interval
 }
 chain early {
  type filter hook prerouting priority raw; policy accept;
  iifgroup @G@ ip daddr 127.0.0.0/8 counter drop
  iifgroup @G@ ip saddr 127.0.0.0/8 counter drop
  iif != "lo" ip daddr 127.0.0.0/8 ip daddr . meta l4proto . th dport @pub4_addr counter drop
 }
 chain publish {
  dnat ip to ip daddr . meta l4proto . th dport map @pub4_addr
  ip daddr . meta l4proto . th dport vmap @balance4_addr
  meta nfproto ipv4 dnat ip to meta l4proto . th dport map @pub4
  meta nfproto ipv4 meta l4proto . th dport vmap @balance4
 }
 chain prerouting {
  type nat hook prerouting priority dstnat; policy accept;
  ip daddr 127.0.0.0/8 return
  iifname @internal return
  fib daddr type local jump publish
 }
 chain output {
  type nat hook output priority -100; policy accept;
  fib daddr type local jump publish
 }
 chain input {
  type filter hook input priority filter; policy accept;
  ip daddr . meta l4proto . th dport @refuse4_addr jump refuse
  meta nfproto ipv4 meta l4proto . th dport @refuse4 jump refuse
 }
 chain refuse {
  fib daddr type != local return
  meta l4proto tcp reject with tcp reset
  reject
 }
 chain postrouting {
  type nat hook postrouting priority srcnat; policy accept;
  oifgroup @G@ ct status dnat fib saddr type local masquerade
  oifgroup @G@ ct status dnat ip saddr @subnet4 masquerade
  iifgroup != @G@ return
  oifgroup @G@ return
  snat ip to iifname map @snat4
  meta nfproto ipv4 iifname @masq4 masquerade
 }
 chain forward {
  type filter hook forward priority filter; policy accept;
  iifgroup != @G@ oifgroup != @G@ accept
  tcp flags syn / syn,rst tcp option maxseg size set rt mtu
  iifgroup @G@ ct status dnat iifname != @internal oifname != @internal accept
  iifname . oifname vmap @pair
  iifname @internal counter drop
  oifname @internal counter drop
  oifgroup @G@ jump inbound
  iifgroup @G@ ct state invalid counter drop
 }
 chain inbound {
  ct state established,related accept
  ct status dnat accept
  counter drop
 }
}
"""


@attrs.frozen
class Element:
    """An element of a map or set; ``value`` is empty for a set. Deleted by its key alone."""

    container: str
    key: str
    value: str = ""


@attrs.frozen(kw_only=True)
class BridgeRules:
    """What the table knows of a network."""

    bridge: str
    subnet: str
    internal: bool
    icc: bool
    masquerade: bool
    source: str = ""

    def elements(self) -> list[Element]:
        """The network's elements."""
        name = f'"{self.bridge}"'
        found = [
            Element("pair", f"{name} . {name}", "accept" if self.icc else "drop"),
            Element("subnet4", self.subnet),
        ]
        if self.internal:
            found.append(Element("internal", name))
        elif self.source:
            found.append(Element("snat4", name, self.source))
        elif self.masquerade:
            found.append(Element("masq4", name))
        return found


def published(
    *, host_ip: IPv4Address, protocol: str, host_port: int, address: IPv4Address, port: int
) -> Element:
    """The element of a published port; ``0.0.0.0`` is every address of the host."""
    value = f"{address} . {port}"
    if int(host_ip) == 0:
        return Element("pub4", f"{protocol} . {host_port}", value)
    return Element("pub4_addr", f"{host_ip} . {protocol} . {host_port}", value)


@attrs.frozen(kw_only=True)
class BalancedPort:
    """A host port whose connections are spread; without backends they are refused at once."""

    host_ip: IPv4Address
    protocol: str
    host_port: int
    backends: tuple[Backend, ...] = ()

    @property
    def _chain(self) -> str:
        where = "" if int(self.host_ip) == 0 else "_" + str(self.host_ip).replace(".", "_")
        return f"balance_{self.protocol}_{self.host_port}{where}"

    def _element(self, container: str, value: str = "") -> Element:
        key = f"{self.protocol} . {self.host_port}"
        if int(self.host_ip) == 0:
            return Element(f"{container}4", key, value)
        return Element(f"{container}4_addr", f"{self.host_ip} . {key}", value)

    def _setup(self, table: str) -> str:
        if not self.backends:
            return add(table, [self._element("refuse")])
        choices = ", ".join(
            f"{number} : {backend.address} . {backend.port}"
            for number, backend in enumerate(self.backends)
        )
        spread = f"numgen inc mod {len(self.backends)} map {{ {choices} }}"
        return (
            f"add rule inet {table} {self._chain} meta nfproto ipv4"
            f" meta l4proto {self.protocol} dnat ip to {spread}\n"
            + add(table, [self._element("balance", f"goto {self._chain}")])
        )

    def change(self, table: str, before: "BalancedPort | None") -> str:
        """Commands that make it so, given what is there. One transaction: no connection falls between."""
        text = ""
        if before is not None and bool(before.backends) != bool(self.backends):
            text += before.removal(table)
            before = None
        if before is None:
            if self.backends:
                text += f"add chain inet {table} {self._chain}\n"
            return text + self._setup(table)
        if not self.backends:
            return ""
        return f"flush chain inet {table} {self._chain}\n{self._setup(table)}"

    def removal(self, table: str) -> str:
        """Commands that take it away."""
        if not self.backends:
            return delete(table, [self._element("refuse")])
        return (
            delete(table, [self._element("balance")]) + f"delete chain inet {table} {self._chain}\n"
        )


def load(
    table: str, group: int, elements: Iterable[Element], balanced: Iterable[BalancedPort]
) -> str:
    """Commands that make the table anew with all it holds, whatever was there before."""
    text = f"add table inet {table}\ndelete table inet {table}\n"
    text += _TABLE.replace("@T@", table).replace("@G@", f"{group:#x}")
    text += add(table, elements)
    return text + "".join(port.change(table, None) for port in balanced)


def drop(table: str) -> str:
    """Commands that take the table away, whether it is there or not."""
    return f"add table inet {table}\ndelete table inet {table}\n"


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
