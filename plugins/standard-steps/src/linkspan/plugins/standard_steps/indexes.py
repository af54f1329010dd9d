"""Manifests in a registry: of which images they are."""

import json
from typing import Any

import attrs

from linkspan.sdk.drivers.registry import Manifest, Registry
from linkspan.sdk.errors import NotFound
from linkspan.sdk.media_types import INDEXES
from linkspan.sdk.model.image import Credentials, Descriptor
from linkspan.sdk.reference import Reference


def members(manifest: Manifest) -> list[Descriptor]:
    """The manifests of an index, in its order; of an image just its own; none if it cannot be read."""
    if manifest.descriptor.media_type not in INDEXES:
        return [manifest.descriptor]
    try:
        return [
            Descriptor(
                media_type=str(each["mediaType"]),
                digest=str(each["digest"]),
                size_bytes=int(each["size"]),
            )
            for each in json.loads(manifest.data)["manifests"]
        ]
    except (ValueError, KeyError, TypeError):
        return []


async def image_ids(registry: Registry[Any], reference: Reference, manifest: Manifest) -> list[str]:
    """Ids of the images of a manifest or index, in its order; an empty one for what is no image, or gone."""
    if manifest.descriptor.media_type not in INDEXES:
        return [_config_digest(manifest.data)]
    found = []
    for each in members(manifest):
        place = attrs.evolve(reference, tag="", digest=each.digest)
        try:
            found.append(_config_digest((await registry.manifest(place, Credentials())).data))
        except NotFound:
            found.append("")
    return found


def _config_digest(manifest: bytes) -> str:
    try:
        config = json.loads(manifest).get("config", {})
    except ValueError:
        return ""
    return str(config.get("digest", ""))
