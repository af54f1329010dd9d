"""Manifests and indexes: reading what a registry sends, writing what we push (OCI image-spec)."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.media_types import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    INDEXES,
    MANIFESTS,
    OCI_CONFIG,
    OCI_INDEX,
)
from linkspan.sdk.model.image import Descriptor, Platform
from linkspan.sdk.values import frozen


@frozen(kw_only=True)
class ImageManifest:
    """One image: its config and layers, bottom first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


@frozen(kw_only=True)
class Index:
    """Several images; descriptors without a manifest's media type are left out."""

    manifests: tuple[Descriptor, ...]


def _bad(why: str) -> InvalidArgument:
    return InvalidArgument(f"the manifest is invalid: {why}", code="bad_manifest")


def _descriptor(document: Any) -> Descriptor:
    if not isinstance(document, dict):
        raise _bad("a descriptor is no object")
    try:
        digest, size = document["digest"], document["size"]
    except KeyError as error:
        raise _bad(f"a descriptor has no {error}") from error
    if not isinstance(digest, str) or not isinstance(size, int) or size < 0:
        raise _bad("a descriptor's digest or size has the wrong type")
    if not digest.startswith("sha256:") or len(digest) != 71:
        raise _bad(f"digest '{digest[:80]}' is not a sha256 digest")
    platform = document.get("platform")
    return Descriptor(
        media_type=str(document.get("mediaType", "")),
        digest=digest,
        size_bytes=size,
        urls=tuple(document.get("urls") or ()),
        annotations=dict(document.get("annotations") or {}),
        platform=_platform(platform) if isinstance(platform, dict) else None,
    )


def _platform(document: Mapping[str, Any]) -> Platform:
    return Platform(
        os=str(document.get("os", "")),
        architecture=str(document.get("architecture", "")),
        variant=str(document.get("variant", "")),
        os_version=str(document.get("os.version", "")),
    )


def parse_manifest(data: bytes, media_type: str) -> ImageManifest | Index:
    """Read a manifest or an index.

    Raises:
        InvalidArgument: code ``bad_manifest``, or ``schema1``.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _bad(f"it is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise _bad("it is no JSON object")
    kind = media_type if media_type in (*INDEXES, *MANIFESTS) else document.get("mediaType", "")
    has_index, has_image = "manifests" in document, "layers" in document and "config" in document
    if has_index and has_image:
        raise _bad("it is both an index and an image")
    if document.get("schemaVersion") == 1 or "fsLayers" in document:
        raise InvalidArgument(
            "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed",
            code="schema1",
            help="ask the image's author to push it in the OCI format",
        )
    if has_index and kind not in MANIFESTS:
        found = [_descriptor(item) for item in document["manifests"]]
        return Index(manifests=tuple(d for d in found if d.media_type in (*MANIFESTS, *INDEXES)))
    if has_image and kind not in INDEXES:
        config = _descriptor(document["config"])
        if config.media_type not in (OCI_CONFIG, DOCKER_CONFIG, "application/octet-stream", ""):
            raise InvalidArgument(
                f'Encountered remote "{config.media_type}" when fetching: it is no container image',
                code="not_an_image",
            )
        return ImageManifest(
            config=config, layers=tuple(_descriptor(item) for item in document["layers"])
        )
    raise _bad(f"its content does not fit its media type '{media_type}'")


def write_manifest(config: Descriptor, layers: Sequence[Descriptor]) -> bytes:
    """A Docker schema 2 manifest: every registry and client reads it."""
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": _document(config),
            "layers": [_document(layer) for layer in layers],
        },
        indent=3,
    ).encode()


def write_index(manifests: Sequence[Descriptor]) -> bytes:
    """An OCI index of manifests, each with its platform."""
    entries = [{**_document(each), "platform": _platform_document(each)} for each in manifests]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return json.dumps(document, indent=3).encode()


def _platform_document(descriptor: Descriptor) -> dict[str, str]:
    platform = descriptor.platform or Platform()
    found = {
        "architecture": platform.architecture,
        "os": platform.os,
        "os.version": platform.os_version,
        "variant": platform.variant,
    }
    return {key: value for key, value in found.items() if value}


def _document(descriptor: Descriptor) -> dict[str, Any]:
    return {
        "mediaType": descriptor.media_type,
        "size": descriptor.size_bytes,
        "digest": descriptor.digest,
    }
