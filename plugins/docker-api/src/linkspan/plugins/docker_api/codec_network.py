"""Networks, endpoints and published ports between JSON and the model."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from linkspan.plugins.docker_api.document import Document
from linkspan.sdk.errors import InvalidArgument, NotFound
from linkspan.sdk.model.container import Container
from linkspan.sdk.model.network import (
    AddressPool,
    Endpoint,
    Network,
    NetworkSpec,
    PortBinding,
    Protocol,
)

PREDEFINED = ("bridge", "host", "none")
"""Networks that are there by themselves."""

_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/([a-zA-Z]+))?")
_PROTOCOLS: Mapping[str, Protocol] = {"tcp": "tcp", "udp": "udp", "sctp": "sctp"}


def parse_port(text: str) -> tuple[int, int, Protocol]:
    """``80/tcp`` or ``8000-8010/udp`` as first port, last port, protocol.

    Raises:
        InvalidArgument: Not a port (Docker's text).
    """
    match = _PORT.fullmatch(text)
    if match is None:
        raise InvalidArgument(f'invalid port specification: "{text}"')
    first, last = int(match[1]), int(match[2] or match[1])
    protocol = _PROTOCOLS.get((match[3] or "tcp").lower())
    if protocol is None:
        raise InvalidArgument(f"invalid proto: {match[3]}")
    if not first <= last <= 65535:
        raise InvalidArgument(f'invalid port specification: "{text}"')
    return first, last, protocol


def decode_port_bindings(body: Document) -> tuple[PortBinding, ...]:
    """HostConfig.PortBindings: ``{"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}``."""
    found = []
    for text in body.value:
        port, last, protocol = parse_port(text)
        if port != last or not port:
            raise InvalidArgument(f'invalid port specification: "{text}"')
        bindings = list(body.documents(text))
        if body.value[text] is None:
            continue
        for binding in bindings or [Document({})]:
            host_port, host_end = _host_port(binding.text("HostPort"))
            found.append(
                PortBinding(
                    container_port=port,
                    protocol=protocol,
                    host_ip=binding.text("HostIp"),
                    host_port=host_port,
                    host_port_end=host_end,
                )
            )
    return tuple(found)


def _host_port(text: str) -> tuple[int, int]:
    if not text or text == "0":
        return 0, 0
    match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text)
    if match is None or not 0 < int(match[1]) <= int(match[2] or match[1]) <= 65535:
        raise InvalidArgument(f'invalid port specification: "{text}"')
    first, last = int(match[1]), int(match[2] or match[1])
    return first, 0 if first == last else last


def encode_port_bindings(ports: Sequence[PortBinding]) -> dict[str, Any]:
    """HostConfig.PortBindings, as they were asked for."""
    out: dict[str, Any] = {}
    for port in ports:
        text = str(port.host_port or "")
        if port.host_port_end:
            text = f"{port.host_port}-{port.host_port_end}"
        binding = {"HostIp": port.host_ip, "HostPort": text}
        out.setdefault(f"{port.container_port}/{port.protocol}", []).append(binding)
    return out


def host_addresses(port: PortBinding) -> tuple[str, ...]:
    """Where a published port listens; both families if no address was asked for."""
    return (port.host_ip,) if port.host_ip else ("0.0.0.0", "::")  # noqa: S104 - shown, not bound


def encode_ports(container: Container) -> dict[str, Any]:
    """NetworkSettings.Ports: what is published, and ``null`` for what is only exposed."""
    out: dict[str, Any] = {}
    if not container.state.running:
        return out
    for text in container.exposed_ports:
        out[text if "/" in text else f"{text}/tcp"] = None
    for port in container.ports:
        if not port.host_port:
            continue  # opened at the container's own address: the host has none for it
        key = f"{port.container_port}/{port.protocol}"
        out[key] = [
            *(out.get(key) or ()),
            *({"HostIp": ip, "HostPort": str(port.host_port)} for ip in host_addresses(port)),
        ]
    return out


def encode_port_list(container: Container) -> list[dict[str, Any]]:
    """The ports column of ``docker ps``."""
    out: list[dict[str, Any]] = []
    for key, bindings in encode_ports(container).items():
        numbers, _, protocol = key.partition("/")
        if not numbers.isdecimal():
            continue
        if not bindings:
            out.append({"PrivatePort": int(numbers), "Type": protocol})
        for binding in bindings or ():
            out.append(
                {
                    "IP": binding["HostIp"],
                    "PrivatePort": int(numbers),
                    "PublicPort": int(binding["HostPort"]),
                    "Type": protocol,
                }
            )
    return sorted(out, key=lambda p: (p["PrivatePort"], p["Type"], p.get("IP", "")))


def _is_enabled(body: Document, field: str, *, default: bool) -> bool:
    """Whether a network has a family: the field says it, or an option where there is no field."""
    option = f"com.docker.network.enable_{field.removeprefix('Enable').lower()}"
    text = body.text_map("Options").get(option)
    if text is None or field in body:
        return body.flag(field, default=default)
    if text.lower() not in ("1", "t", "true", "0", "f", "false"):
        raise InvalidArgument(f'driver-opt "{option}" is not a valid bool')
    return text.lower() in ("1", "t", "true")


def decode_network(body: Document) -> NetworkSpec:
    """NetworkCreateRequest."""
    ipam = body.document("IPAM")
    return NetworkSpec(
        name=body.text("Name"),
        driver=_driver_meant(body.text("Driver") or "bridge"),
        internal=body.flag("Internal"),
        attachable=body.flag("Attachable"),
        ingress=body.flag("Ingress"),
        enable_ipv4=_is_enabled(body, "EnableIPv4", default=True),
        enable_ipv6=_is_enabled(body, "EnableIPv6", default=False),
        config_only=body.flag("ConfigOnly"),
        config_from=body.document("ConfigFrom").text("Network"),
        pools=tuple(
            AddressPool(
                subnet=pool.text("Subnet"),
                ip_range=pool.text("IPRange"),
                gateway=pool.text("Gateway"),
                auxiliary=pool.text_map(
                    "AuxiliaryAddresses" if "AuxiliaryAddresses" in pool else "AuxAddress"
                ),
            )
            for pool in ipam.documents("Config")
        ),
        ipam_driver=ipam.text("Driver") or "default",
        ipam_options=ipam.text_map("Options") if "Options" in ipam else None,
        options=body.text_map("Options"),
        labels=body.text_map("Labels"),
    )


def _driver_meant(name: str) -> str:
    """Ours of Docker's name of a driver; see ``driver_shown``."""
    if name == "none":
        raise NotFound('plugin "none" not found', code="driver_not_found")
    return "none" if name == "null" else name


def driver_shown(driver: str) -> str:
    """Docker's name of a driver: that of the network ``none`` is ``null``."""
    return "null" if driver == "none" else driver


def _ipam_options(network: Network) -> dict[str, str] | None:
    """As they were sent; a swarm does not keep that they were sent empty."""
    options = network.spec.ipam_options
    return None if options is None or (network.scope == "swarm" and not options) else dict(options)


def encode_network(
    network: Network, endpoints: Mapping[str, Endpoint], names: Mapping[str, str]
) -> dict[str, Any]:
    """A network; ``names`` are the containers' by id."""
    spec = network.spec
    return {
        "Name": spec.name,
        "Id": network.id,
        "Created": network.created_at,
        "Scope": network.scope,
        "Driver": driver_shown(spec.driver),
        "EnableIPv4": spec.enable_ipv4,
        "EnableIPv6": spec.enable_ipv6,
        "IPAM": {
            "Driver": spec.ipam_driver,
            "Options": _ipam_options(network),
            "Config": [_encode_pool(pool) for pool in spec.pools] or _no_pools(spec),
        },
        "Internal": spec.internal,
        "Attachable": spec.attachable,
        "Ingress": spec.ingress,
        "ConfigFrom": {"Network": spec.config_from},
        "ConfigOnly": spec.config_only,
        "Containers": {
            container_id: {
                "Name": names.get(container_id, ""),
                "EndpointID": endpoint.id,
                "MacAddress": endpoint.mac_address,
                "IPv4Address": _with_prefix(endpoint.ipv4_address, endpoint.ipv4_prefix),
                "IPv6Address": _with_prefix(endpoint.ipv6_address, endpoint.ipv6_prefix),
            }
            for container_id, endpoint in endpoints.items()
        },
        "Options": {**(_OPTIONS_OF_DEFAULT if spec.name == "bridge" else {}), **spec.options},
        "Labels": dict(spec.labels),
    }


_OPTIONS_OF_DEFAULT = {
    "com.docker.network.bridge.default_bridge": "true",
    "com.docker.network.bridge.enable_icc": "true",
    "com.docker.network.bridge.enable_ip_masquerade": "true",
    "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",  # noqa: S104 - shown, not bound
    "com.docker.network.driver.mtu": "1500",
}
"""What the default network is like without any options: Docker says it there."""


def _no_pools(spec: NetworkSpec) -> list[Any] | None:
    return None if spec.name in PREDEFINED else []


def _with_prefix(address: str, prefix: int) -> str:
    return f"{address}/{prefix}" if address else ""


def _encode_pool(pool: AddressPool) -> dict[str, Any]:
    out: dict[str, Any] = {"Subnet": pool.subnet}
    if pool.ip_range:
        out["IPRange"] = pool.ip_range
    if pool.gateway:
        out["Gateway"] = pool.gateway
    if pool.auxiliary:
        out["AuxiliaryAddresses"] = dict(pool.auxiliary)
    return out


def encode_attachment(network: Network, endpoint: Endpoint | None) -> dict[str, Any]:
    """A NetworkAttachment of a task; without ``endpoint`` it has no address there."""
    spec = network.spec
    driver: dict[str, Any] = {"Name": driver_shown(spec.driver)}
    if spec.options:
        driver["Options"] = dict(spec.options)
    addressing: dict[str, Any] = {"Driver": {"Name": spec.ipam_driver}}
    told: dict[str, Any] = {
        "Name": spec.name,
        "Labels": dict(spec.labels),
        "DriverConfiguration": driver,
        **({"Internal": True} if spec.internal else {}),
        **({"Attachable": True} if spec.attachable else {}),
        "Scope": "swarm",
    }
    pools = [_encode_pool(pool) for pool in spec.pools]
    out: dict[str, Any] = {
        "Network": {
            "ID": network.id,
            # Networks never change.
            "Version": {"Index": 1},
            "CreatedAt": network.created_at,
            "UpdatedAt": network.created_at,
            "Spec": {**told, "IPAMOptions": addressing},
            "DriverState": driver,
            "IPAMOptions": {**addressing, **({"Configs": pools} if pools else {})},
        }
    }
    found = (
        [
            _with_prefix(endpoint.ipv4_address, endpoint.ipv4_prefix),
            _with_prefix(endpoint.ipv6_address, endpoint.ipv6_prefix),
        ]
        if endpoint
        else []
    )
    addresses = [address for address in found if address]
    return {**out, "Addresses": addresses} if addresses else out
