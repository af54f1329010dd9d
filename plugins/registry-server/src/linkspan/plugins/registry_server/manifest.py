"""What a manifest must be before it is stored; pure. Unknown kinds are stored as they are."""

import json
from collections.abc import Mapping
from typing import Any

import attrs

from linkspan.plugins.registry_server.names import check_digest
from linkspan.plugins.registry_server.refusal import manifest_invalid
from linkspan.sdk.media_types import DOCKER_MANIFEST, INDEXES, MANIFESTS, OCI_MANIFEST, SCHEMA1

_NOT_DISTRIBUTED = ("nondistributable", "foreign")


@attrs.frozen(kw_only=True)
class CheckedManifest:
    """Facts about a manifest.

    Attributes:
        blobs: Digests that the repository must have.
        subject: The digest it refers to; empty if it refers to nothing.
        artifact_type: Of the referrer's descriptor (spec.md "Listing Referrers"); may be empty.
    """

    media_type: str
    blobs: tuple[str, ...]
    subject: str
    artifact_type: str
    annotations: Mapping[str, str]

    def referrer(self, digest: str, size_bytes: int) -> dict[str, Any]:
        """Its descriptor in the list of referrers."""
        found: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": digest,
            "size": size_bytes,
        }
        if self.artifact_type:
            found["artifactType"] = self.artifact_type
        if self.annotations:
            found["annotations"] = dict(self.annotations)
        return found


def check_manifest(data: bytes, content_type: str) -> CheckedManifest:
    """Read a manifest or index, or MANIFEST_INVALID."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise manifest_invalid("the manifest is not valid JSON") from error
    if not isinstance(document, dict):
        raise manifest_invalid("the manifest is not a JSON object")
    media_type = _media_type(document, content_type.partition(";")[0].strip())
    return CheckedManifest(
        media_type=media_type,
        blobs=_blobs(document, media_type),
        subject=_subject(document),
        artifact_type=_artifact_type(document, media_type),
        annotations=_annotations(document),
    )


def _media_type(document: Mapping[str, Any], header: str) -> str:
    inside = document.get("mediaType")
    if inside is not None and not isinstance(inside, str):
        raise manifest_invalid("mediaType is not a string")
    found = header or inside or ""
    if not found:
        raise manifest_invalid("the manifest has no media type")
    if inside and inside != found:
        raise manifest_invalid(f"sent as '{found}', but mediaType is '{inside}'")
    if found in SCHEMA1 or document.get("schemaVersion") == 1:
        raise manifest_invalid("Docker schema 1 is not supported")
    if found in INDEXES + MANIFESTS:
        if document.get("schemaVersion") != 2:
            raise manifest_invalid("schemaVersion is not 2")
        wanted, other = ("manifests", "layers") if found in INDEXES else ("layers", "manifests")
        if not isinstance(document.get(wanted), list) or other in document:
            raise manifest_invalid(f"'{wanted}' is missing, or '{other}' is there as well")
    return found


def _digest(descriptor: Any, where: str) -> str:
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    if not isinstance(digest, str):
        raise manifest_invalid(f"{where} has no digest")
    check_digest(digest)
    return digest


def _blobs(document: Mapping[str, Any], media_type: str) -> tuple[str, ...]:
    if media_type not in (OCI_MANIFEST, DOCKER_MANIFEST):
        # An index may be sparse: the manifests that nobody here needs are left out.
        return ()
    found = [_digest(document.get("config"), "config")]
    for at, layer in enumerate(document["layers"]):
        digest = _digest(layer, f"layers[{at}]")
        kind = layer.get("mediaType")
        if not (isinstance(kind, str) and any(word in kind for word in _NOT_DISTRIBUTED)):
            found.append(digest)
    return tuple(dict.fromkeys(found))


def _subject(document: Mapping[str, Any]) -> str:
    subject = document.get("subject")
    return "" if subject is None else _digest(subject, "subject")


def _artifact_type(document: Mapping[str, Any], media_type: str) -> str:
    found = document.get("artifactType")
    if not found and media_type in MANIFESTS:
        config = document.get("config")
        found = config.get("mediaType") if isinstance(config, dict) else None
    return found if isinstance(found, str) else ""


def _annotations(document: Mapping[str, Any]) -> Mapping[str, str]:
    found = document.get("annotations")
    if not isinstance(found, dict):
        return {}
    return {str(k): v for k, v in found.items() if isinstance(v, str)}
