"""What the core itself reads from the configuration.

The tables of drivers and components are described by the plugins (a driver's ``config_type``); here
are only the daemon's own settings and the choice of a driver for each role.
"""

import ipaddress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import attrs

from linkspan.sdk.values import frozen

DEFAULT_CONFIG: Final = Path("/etc/linkspan.toml")
DEFAULT_CONFIG_DIR: Final = Path("/etc/linkspan.d")
DEFAULT_HOST: Final = "unix:///run/linkspan/linkspan.sock"

DEFAULT_DRIVERS: Final = MappingProxyType(
    {
        "runtime": "oci",
        "content": "local",
        "snapshots": "overlay",
        "registry": "distribution",
        "builder": "dockerfile",
        "network": "bridge",
        "volume": "local",
        "orchestrator": "swarm",
        "scheduler": "spread",
        "state": "sqlite",
        "secrets": "file",
    }
)
"""The roles that are filled by one chosen driver, each with its default."""

NAMED_DRIVER_ROLES: Final = ("step",)
"""The roles whose drivers are asked for by name, each time: none is chosen."""


def _address(instance: object, _field: "attrs.Attribute[Any]", value: tuple[str, ...]) -> None:
    files = [getattr(instance, name, None) for name in ("tls_ca_cert", "tls_cert", "tls_key")]
    for address in value:
        if address.startswith("tcp://"):
            if not getattr(instance, "tls_verify", False) or None in files:
                raise ValueError(
                    f"{address} is plain TCP, which anybody could use; it takes tls-verify, "
                    "tls-ca-cert, tls-cert and tls-key"
                )
            continue
        if not address.startswith("unix:///") or len(address) == len("unix:///"):
            raise ValueError(
                f"'{address}' is not of the form unix:///absolute/path or tcp://HOST:PORT"
            )
    if not value:
        raise ValueError("at least one address is needed")


def _absolute(_instance: object, _field: "attrs.Attribute[Any]", value: Path) -> None:
    if not value.is_absolute():
        raise ValueError(f"'{value}' is not an absolute path")


def _interface_address(
    _instance: object, _field: "attrs.Attribute[Any]", value: str | None
) -> None:
    if value is None:
        return
    try:
        address = ipaddress.ip_interface(value)
    except ValueError:
        raise ValueError(
            f"'{value}' is not an address with a prefix, such as 172.30.0.1/16"
        ) from None
    if "/" not in value or address.ip == address.network.network_address:
        raise ValueError(
            f"'{value}' must be a host's address with its prefix, such as 172.30.0.1/16"
        )


def _positive(_instance: object, _field: "attrs.Attribute[Any]", value: float) -> None:
    if value <= 0:
        raise ValueError("must be more than 0")


def _not_negative(_instance: object, _field: "attrs.Attribute[Any]", value: float) -> None:
    if value < 0:
        raise ValueError("must not be less than 0")


def _mirror_urls(_: object, __: object, value: tuple[str, ...]) -> None:
    for url in value:
        scheme, _, rest = url.partition("://")
        host, _, path = rest.partition("/")
        if scheme not in ("http", "https") or not host or path or set(rest) & set("?#@ "):
            raise ValueError(f"'{url}' is not of the form https://HOST[:PORT]")


def _labels(_: object, __: object, value: tuple[str, ...]) -> None:
    found: dict[str, str] = {}
    for label in value:
        key, equals, _text = label.partition("=")
        if not equals or not key or " " in key:
            raise ValueError(f"'{label}' is not of the form KEY=VALUE")
        if key.lower().startswith(("com.docker.", "io.docker.", "org.dockerproject.")):
            raise ValueError(f"'{label}': Docker keeps names that begin like this to itself")
        if found.setdefault(key, label) != label:
            raise ValueError(f"conflict labels for {label} and {found[key]}")


def _generic_resources(_: object, __: object, value: tuple[str, ...]) -> None:
    if not value:
        return
    from linkspan.sdk.errors import InvalidArgument
    from linkspan.sdk.generic_resources import parse_generic_resources

    try:
        parse_generic_resources(value)
    except InvalidArgument as error:
        raise ValueError(error.message) from error


@frozen(kw_only=True)
class DaemonConfig:
    """The daemon: where it listens, where it keeps things.

    Attributes:
        host: Addresses of the API, unix:///absolute/path, or tcp://HOST:PORT with all of the next four.
        tls_verify: Clients of TCP must show a certificate of the authority.
        tls_ca_cert: The authority's certificates, PEM.
        tls_cert: The daemon's certificate, PEM.
        tls_key: Its key, PEM.
        data_root: Images, volumes, container records: what must survive a reboot.
        exec_root: Sockets, pid files, bundles: what a reboot may clear.
        autostart: Whether a command starts the daemon when none answers.
        group: The group that may open the socket, if it exists on this machine.
        insecure_registries: Registries (host:port or CIDR) that may be asked over plain HTTP or
            with unknown certificates.
        registry_mirrors: URLs of registries that are asked before Docker Hub.
        labels: Of this daemon, ``key=value``: what ``docker info`` shows and ``engine.labels.key`` asks for.
        node_generic_resources: What tasks may reserve on this node, ``gpu=NAME`` once for each or ``ssd=3``.
        bip: The default bridge's own address with its prefix; the network driver chooses one when
            it is not set.
        log_level: The least severe message that is logged.
        shutdown_timeout_s: How long requests in flight may take to end when the daemon stops, and then
            plugins to hear of it.
    """

    host: tuple[str, ...] = attrs.field(default=(DEFAULT_HOST,), validator=_address)
    tls_verify: bool = False
    tls_ca_cert: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    data_root: Path = attrs.field(default=Path("/var/lib/linkspan"), validator=_absolute)
    exec_root: Path = attrs.field(default=Path("/run/linkspan"), validator=_absolute)
    autostart: bool = True
    group: str = "linkspan"
    insecure_registries: tuple[str, ...] = ()
    registry_mirrors: tuple[str, ...] = attrs.field(default=(), validator=_mirror_urls)
    labels: tuple[str, ...] = attrs.field(default=(), validator=_labels)
    node_generic_resources: tuple[str, ...] = attrs.field(default=(), validator=_generic_resources)
    bip: str | None = attrs.field(default=None, validator=_interface_address)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    shutdown_timeout_s: float = attrs.field(default=15.0, validator=_positive)


@frozen(kw_only=True)
class PluginsConfig:
    """Which plugins may take part.

    Attributes:
        disable: Plugins that are listed but never loaded.
        enable_alpha: Plugins of stage alpha that are switched on.
        hook_timeout_s: How long one listener may take for one event.
        hook_max_failures: Failures in a row after which a listener is muted.
        block_timeout_s: How long a plugin's code may keep the daemon's event loop from turning before it
            is broken off; 0 for ever.
    """

    disable: tuple[str, ...] = ()
    enable_alpha: tuple[str, ...] = ()
    hook_timeout_s: float = attrs.field(default=5.0, validator=_positive)
    hook_max_failures: int = attrs.field(default=5, validator=_positive)
    block_timeout_s: float = attrs.field(default=10.0, validator=_not_negative)


@frozen
class RoleConfig:
    """The choice for one role.

    Attributes:
        driver: The chosen driver's name; empty in a role whose drivers are asked for by name.
        tables: Each driver's own table, as plain TOML values.
    """

    driver: str
    tables: MappingProxyType[str, Any]
