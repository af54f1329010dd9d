"""Volumes."""

from collections.abc import Mapping

import attrs

from linkspan.sdk.values import frozen


@frozen(kw_only=True)
class VolumeSpec:
    """A volume asked for; an empty name means: choose one (anonymous)."""

    name: str = ""
    driver: str = ""
    options: Mapping[str, str] = attrs.field(factory=dict)
    labels: Mapping[str, str] = attrs.field(factory=dict)


@frozen(kw_only=True)
class Volume:
    """A volume as it is; ``mountpoint`` is a host path, ``created_at`` RFC 3339."""

    name: str
    driver: str
    mountpoint: str
    created_at: str
    options: Mapping[str, str] = attrs.field(factory=dict)
    labels: Mapping[str, str] = attrs.field(factory=dict)
    scope: str = "local"
    anonymous: bool = False


@frozen(kw_only=True)
class VolumeUsage:
    """Size of the content in bytes."""

    size_bytes: int
