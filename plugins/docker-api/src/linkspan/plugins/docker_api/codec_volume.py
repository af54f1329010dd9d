"""Volumes between JSON and the model."""

from typing import Any

from linkspan.plugins.docker_api.document import Document
from linkspan.sdk.errors import Unsupported
from linkspan.sdk.model.volume import Volume, VolumeSpec


def decode_volume(body: Document) -> VolumeSpec:
    """VolumeCreateOptions."""
    if "ClusterVolumeSpec" in body:
        raise Unsupported("cluster volumes (CSI) are not supported")
    return VolumeSpec(
        name=body.text("Name"),
        driver=body.text("Driver"),
        options=body.text_map("DriverOpts"),
        labels=body.text_map("Labels"),
    )


_ANONYMOUS = "com.docker.volume.anonymous"


def shown_labels(volume: Volume) -> dict[str, str]:
    """Its labels; Docker marks with one that nobody named it."""
    return {**({_ANONYMOUS: ""} if volume.anonymous else {}), **volume.labels}


def encode_volume(volume: Volume) -> dict[str, Any]:
    """A Volume."""
    return {
        "CreatedAt": volume.created_at,
        "Driver": volume.driver,
        "Labels": shown_labels(volume) or None,
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": dict(volume.options) or None,
        "Scope": volume.scope,
    }
