"""Volumes and ports of a pipeline, from Compose's short texts."""

import re
from pathlib import Path
from typing import Final

from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.container import Mount
from linkspan.sdk.model.network import PortBinding, Protocol

_PORT: Final = re.compile(
    r"(?:(?:(?P<ip>[0-9.]+|\[[0-9a-fA-F:]+\]):)?(?P<host>[0-9]{1,5})?:)?(?P<port>[0-9]{1,5})"
    r"(?:/(?P<protocol>tcp|udp|sctp))?"
)
_PROTOCOLS: Final[dict[str, Protocol]] = {"tcp": "tcp", "udp": "udp", "sctp": "sctp"}


def mount_of(text: str, workspace: Path, driver: str = "") -> Mount:
    """``NAME:/path``, ``./folder:/path``, ``/folder:/path`` or ``/path``, with ``:ro`` or without.

    Args:
        text: The volume.
        workspace: What ``./`` is relative to.
        driver: Of a volume; empty for the usual one.

    Raises:
        InvalidArgument: It has another form, or leads out of the workspace; code ``volume``.
    """
    source, _, rest = text.partition(":")
    if not rest:
        source, rest = "", source
    target, _, mode = rest.partition(":")
    if not target.startswith("/") or mode not in ("", "ro", "rw"):
        raise InvalidArgument(
            f"'{text}' is not a volume",
            code="volume",
            help='write "name:/path", "./folder:/path" or "name:/path:ro"',
        )
    read_only = mode == "ro"
    if source.startswith("."):
        folder = (workspace / source).resolve()
        if not folder.is_relative_to(workspace.resolve()):
            raise InvalidArgument(f"the volume '{text}' leads out of the workspace", code="volume")
        return Mount(type="bind", source=str(folder), target=target, read_only=read_only)
    kind = "bind" if source.startswith("/") else "volume"
    if kind == "bind":
        return Mount(type="bind", source=source, target=target, read_only=read_only)
    return Mount(
        type="volume", source=source, target=target, read_only=read_only, volume_driver=driver
    )


def port_of(text: str) -> PortBinding:
    """``8080:80``, ``127.0.0.1:8080:80`` or ``80/udp``.

    Raises:
        InvalidArgument: It has another form; code ``port``.
    """
    match = _PORT.fullmatch(text)
    if match is None or not all(int(match[name] or 1) < 65536 for name in ("host", "port")):
        raise InvalidArgument(
            f"'{text}' is not a port", code="port", help='write "8080:80" or "80/udp"'
        )
    return PortBinding(
        container_port=int(match["port"]),
        protocol=_PROTOCOLS[match["protocol"] or "tcp"],
        host_ip=(match["ip"] or "").strip("[]"),
        host_port=int(match["host"] or 0),
    )
