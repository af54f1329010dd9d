"""Manifests that refer to others (distribution-spec 1.1 "Listing Referrers"; a tag where that is unknown)."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from linkspan.sdk.errors import DataLoss
from linkspan.sdk.media_types import OCI_INDEX
from linkspan.sdk.model.image import Descriptor

_TAG_DIGITS = 64


def subject_of(manifest: bytes) -> str:
    """The digest that a manifest refers to; empty if it refers to nothing."""
    # Most refer to nothing, and need not be read for that.
    document = json.loads(manifest) if b'"subject"' in manifest else {}
    subject = document.get("subject") if isinstance(document, dict) else None
    return str(subject.get("digest", "")) if isinstance(subject, dict) else ""


def referrers_tag(digest: str) -> str:
    """The tag of the list of what refers to a digest, in registries that keep no such list themselves."""
    algorithm, _, digits = digest.partition(":")
    return f"{algorithm}-{digits[:_TAG_DIGITS]}"


def described(media_type: str, digest: str, manifest: bytes) -> dict[str, Any]:
    """A manifest as such a list has it."""
    document = json.loads(manifest)
    kind = document.get("artifactType") or document.get("config", {}).get("mediaType", "")
    found = {
        "mediaType": media_type,
        "digest": digest,
        "size": len(manifest),
        "artifactType": kind,
        "annotations": document.get("annotations"),
    }
    return {key: value for key, value in found.items() if value}


def with_referrer(index: bytes, added: Mapping[str, Any]) -> bytes:
    """A list with one more manifest.

    Args:
        index: As it is; empty if there is none yet.
        added: From ``described``.

    Raises:
        DataLoss: It is no list.
    """
    found = [each for each in _entries(index) if each.get("digest") != added["digest"]]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*found, added]}
    return json.dumps(document, indent=2).encode()


def read_referrers(index: bytes) -> list[Descriptor]:
    """What is in a list. Raises DataLoss."""
    try:
        return [
            Descriptor(
                media_type=str(each.get("mediaType", "")),
                digest=str(each["digest"]),
                size_bytes=int(each["size"]),
                annotations=dict(each.get("annotations") or {}),
                artifact_type=str(each.get("artifactType", "")),
            )
            for each in _entries(index)
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable() from error


def _entries(index: bytes) -> Sequence[Mapping[str, Any]]:
    try:
        found = json.loads(index)["manifests"] if index else []
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unreadable() from error
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise _unreadable()
    return found


def _unreadable() -> DataLoss:
    return DataLoss("the registry's list of referrers cannot be read", code="referrers_invalid")
