"""Fields that an answer has in some versions of the API only (Docker's version history)."""

from collections.abc import Iterable, Mapping
from typing import Any

Version = tuple[int, int]

NEWEST: Version = (1, 50)
NEVER: Version = (9, 99)


def fields_of(
    version: Version, fields: Iterable[tuple[str, Version, Version, Any]]
) -> Mapping[str, Any]:
    """Those of the fields that a version has.

    Args:
        fields: Name, first version with it, first version without it again, value.
    """
    return {name: value for name, since, until, value in fields if since <= version < until}


INFO = (
    ("KernelMemory", (1, 24), (1, 42), True),
    ("BridgeNfIptables", (1, 24), (1, 50), False),
    ("BridgeNfIp6tables", (1, 24), (1, 50), False),
    ("FirewallBackend", (1, 49), NEVER, {"Driver": "nftables"}),
)
"""Of GET /info."""

REGISTRY_CONFIG = (
    ("AllowNondistributableArtifactsCIDRs", (1, 24), (1, 47), None),
    ("AllowNondistributableArtifactsHostnames", (1, 24), (1, 47), None),
)
"""Of GET /info, RegistryConfig."""

IMAGE_CONFIG_OF_CONTAINERS = (
    ("Hostname", (1, 24), (1, 50), ""),
    ("Domainname", (1, 24), (1, 50), ""),
    ("AttachStdin", (1, 24), (1, 50), False),
    ("AttachStdout", (1, 24), (1, 50), False),
    ("AttachStderr", (1, 24), (1, 50), False),
    ("Tty", (1, 24), (1, 50), False),
    ("OpenStdin", (1, 24), (1, 50), False),
    ("StdinOnce", (1, 24), (1, 50), False),
    ("Image", (1, 24), (1, 50), ""),
)
"""Of an image's Config: what only containers can have, and images never had."""
