"""A container in networks, between JSON (EndpointSettings, NetworkSettings) and the model."""

from collections.abc import Mapping
from typing import Any

import attrs

from linkspan.plugins.docker_api.codec_network import PREDEFINED, encode_ports
from linkspan.plugins.docker_api.document import Document
from linkspan.plugins.docker_api.versions import Version
from linkspan.sdk.model.container import Container
from linkspan.sdk.model.network import Endpoint, EndpointSpec

_NOWHERE = Endpoint(id="", network_id="", network_name="")


def decode_endpoint(body: Document) -> EndpointSpec:
    """EndpointSettings: how a container wants to be in a network."""
    ipam = body.document("IPAMConfig")
    return EndpointSpec(
        ipv4_address=ipam.text("IPv4Address"),
        ipv6_address=ipam.text("IPv6Address"),
        link_local_addresses=ipam.texts("LinkLocalIPs"),
        mac_address=body.text("MacAddress"),
        aliases=body.texts("Aliases"),
        links=body.texts("Links"),
        driver_options=body.text_map("DriverOpts"),
        gateway_priority=body.number("GwPriority"),
    )


def encode_endpoint(spec: EndpointSpec, endpoint: Endpoint) -> dict[str, Any]:
    """EndpointSettings."""
    ipam: dict[str, Any] = {}
    if spec.ipv4_address:
        ipam["IPv4Address"] = spec.ipv4_address
    if spec.ipv6_address:
        ipam["IPv6Address"] = spec.ipv6_address
    if spec.link_local_addresses:
        ipam["LinkLocalIPs"] = list(spec.link_local_addresses)
    return {
        "IPAMConfig": ipam or None,
        "Links": list(spec.links) or None,
        "Aliases": list(spec.aliases) or None,
        "DriverOpts": dict(spec.driver_options) or None,
        "GwPriority": spec.gateway_priority,
        "MacAddress": endpoint.mac_address or (spec.mac_address if not endpoint.id else ""),
        "NetworkID": endpoint.network_id,
        "EndpointID": endpoint.id,
        "Gateway": endpoint.gateway,
        "IPAddress": endpoint.ipv4_address,
        "IPPrefixLen": endpoint.ipv4_prefix,
        "IPv6Gateway": endpoint.ipv6_gateway,
        "GlobalIPv6Address": endpoint.ipv6_address,
        "GlobalIPv6PrefixLen": endpoint.ipv6_prefix,
        "DNSNames": list(endpoint.names) or None,
    }


def encode_container_networks(
    container: Container, network_ids: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """NetworkSettings.Networks: those it is in, and those it will be in when it starts.

    Args:
        network_ids: Ids by name, of networks that it has left by ending.
    """
    found = _container_networks(container, network_ids or {})
    if "bridge" in found:
        # The links of the default network are the container's own (HostConfig.Links), and there are no names.
        found["bridge"] |= {"Links": None, "DNSNames": None}
    return found


def _container_networks(container: Container, network_ids: Mapping[str, str]) -> dict[str, Any]:
    spec = container.spec
    out: dict[str, Any] = {}
    for endpoint in container.endpoints:
        wanted = spec.networks.get(endpoint.network_name, endpoint.spec)
        out[endpoint.network_name] = encode_endpoint(wanted, endpoint)
    if spec.network_mode.startswith("container:") or container.state.running:
        return out
    for name in spec.wanted_networks:
        known = name in out or any(e.network_id == name for e in container.endpoints)
        if not known:
            wanted = spec.networks.get(name, EndpointSpec())
            # Names are given when it is connected, by hand or by its first start.
            named = name not in PREDEFINED and (container.state.started_at or wanted.by_hand)
            nowhere = attrs.evolve(
                _NOWHERE,
                network_id=network_ids.get(name, ""),
                names=_names(container, wanted) if named else (),
            )
            out[name] = encode_endpoint(wanted, nowhere)
    return out


def _names(container: Container, wanted: EndpointSpec) -> tuple[str, ...]:
    """What it will be called in a network."""
    names = (container.name, *wanted.aliases, container.short_id, container.hostname)
    return tuple(dict.fromkeys(name for name in names if name))


def encode_network_settings(
    container: Container, *, version: Version, network_ids: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """NetworkSettings, with the old copies of the default bridge's addresses at the top."""
    networks = encode_container_networks(container, network_ids)
    if version < (1, 45):
        _add_own_names(networks, container)
    first: Mapping[str, Any] = networks.get("bridge") or {}
    sandbox_id, sandbox_key = _sandbox(container)
    return {
        "Bridge": "",
        "SandboxID": sandbox_id,
        "SandboxKey": sandbox_key,
        "Ports": encode_ports(container),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": first.get("EndpointID", ""),
        "Gateway": first.get("Gateway", ""),
        "GlobalIPv6Address": first.get("GlobalIPv6Address", ""),
        "GlobalIPv6PrefixLen": first.get("GlobalIPv6PrefixLen", 0),
        "IPAddress": first.get("IPAddress", ""),
        "IPPrefixLen": first.get("IPPrefixLen", 0),
        "IPv6Gateway": first.get("IPv6Gateway", ""),
        "MacAddress": first.get("MacAddress", ""),
        "Networks": networks,
    }


def _add_own_names(networks: dict[str, Any], container: Container) -> None:
    """Before ``DNSNames``, a container's own names stood among its aliases."""
    own = (container.short_id, container.hostname)
    for name, settings in networks.items():
        if name not in PREDEFINED:
            settings["Aliases"] = list(dict.fromkeys((*(settings["Aliases"] or ()), *own)))


def _sandbox(container: Container) -> tuple[str, str]:
    """Id and path of its network namespace; of one that it joined, that of the other says it."""
    mode = container.spec.network_mode
    if mode.startswith("container:") or not container.state.running:
        return "", ""
    key = "/proc/1/ns/net" if mode == "host" else container.sandbox_key
    return (container.id if key else ""), key
