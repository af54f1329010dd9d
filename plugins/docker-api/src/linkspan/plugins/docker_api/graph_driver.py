"""``GraphDriver`` of containers and images: where their files lie."""

from typing import Any

from linkspan.sdk.errors import NotFound
from linkspan.sdk.host import Host


def graph_driver(host: Host, name: str) -> dict[str, Any]:
    """What the snapshots driver says of a container's root or an image's uppermost layer."""
    try:
        folders = host.driver("snapshots").describe(name)
    except NotFound:
        folders = {}
    return {"Data": dict(folders) or None, "Name": host.daemon.drivers.get("snapshots", "")}
