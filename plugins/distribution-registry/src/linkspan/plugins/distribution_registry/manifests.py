"""What a manifest's answer is: its kind, its digest; pure."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from linkspan.sdk.drivers.registry import Manifest
from linkspan.sdk.errors import DataLoss, Unsupported
from linkspan.sdk.media_types import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    INDEXES,
    MANIFESTS,
    OCI_INDEX,
    OCI_MANIFEST,
    SCHEMA1,
)
from linkspan.sdk.model.image import Descriptor
from linkspan.sdk.reference import Reference

ACCEPT = ", ".join((OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST))
_VAGUE = frozenset({"", "application/json", "text/plain", "application/octet-stream"})
_ALGORITHMS = {"sha256": hashlib.sha256, "sha384": hashlib.sha384, "sha512": hashlib.sha512}


def digest_of(data: bytes, like: str = "sha256:") -> str:
    """Digest with the algorithm of another digest; sha256 if that is not known here."""
    algorithm = like.partition(":")[0]
    make = _ALGORITHMS.get(algorithm)
    if make is None:
        algorithm, make = "sha256", hashlib.sha256
    return f"{algorithm}:{make(data).hexdigest()}"


def read_manifest(
    reference: Reference, data: bytes, *, content_type: str, digest_header: str
) -> Manifest:
    """Verify the digest, find out the kind.

    Raises:
        DataLoss: The bytes are not those of the digest, or contradict their own type.
        Unsupported: code ``schema1``, or a kind that is no image.
    """
    wanted = reference.digest or digest_header
    digest = digest_of(data, wanted)
    if wanted and digest != wanted and wanted.partition(":")[0] in _ALGORITHMS:
        raise DataLoss(
            f"manifest of {reference.familiar} does not match its digest: "
            f"expected {wanted}, got {digest}",
            code="digest_mismatch",
            details={"expected": wanted, "found": digest},
        )
    media_type = _media_type(reference, data, content_type.partition(";")[0].strip().lower())
    return Manifest(
        descriptor=Descriptor(media_type=media_type, digest=digest, size_bytes=len(data)),
        data=data,
    )


def _media_type(reference: Reference, data: bytes, header: str) -> str:
    document = _object(reference, data)
    inside = document.get("mediaType")
    inside = inside if isinstance(inside, str) else ""
    if header in SCHEMA1 or "fsLayers" in document or document.get("schemaVersion") == 1:
        raise Unsupported(
            "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been "
            f"removed. Suggest the author of {reference.familiar} to upgrade the image to the OCI "
            "Format or Docker Image manifest v2, schema 2. More information at "
            "https://docs.docker.com/go/deprecated-image-specs/",
            code="schema1",
        )
    if "manifests" in document and ("layers" in document or "config" in document):
        raise _invalid(reference, "it is an index and an image at the same time")
    shape = _shape(document)
    found = inside if header in _VAGUE else header
    found = found or shape
    if inside and found != inside:
        raise _invalid(reference, f"it is sent as '{header}' but calls itself '{inside}'")
    if found not in INDEXES + MANIFESTS:
        raise Unsupported(
            f'Encountered remote "{found or "unknown"}" when fetching {reference.familiar}: '
            "it is not an image",
            code="not_an_image",
        )
    if shape != (OCI_INDEX if found in INDEXES else OCI_MANIFEST):
        raise _invalid(reference, f"it is sent as '{found}' but has another form")
    return found


def _shape(document: Mapping[str, Any]) -> str:
    if isinstance(document.get("manifests"), list):
        return OCI_INDEX
    return OCI_MANIFEST if isinstance(document.get("layers"), list) else ""


def _object(reference: Reference, data: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _invalid(reference, "it is not JSON") from error
    if not isinstance(document, dict):
        raise _invalid(reference, "it is not a JSON object")
    return document


def _invalid(reference: Reference, why: str) -> DataLoss:
    return DataLoss(f"manifest of {reference.familiar} is invalid: {why}", code="manifest_invalid")
