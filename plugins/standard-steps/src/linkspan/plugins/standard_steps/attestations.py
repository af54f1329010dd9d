"""What is said about a pushed image, beside it in its registry: artifacts that refer to it (OCI 1.1)."""

import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs

from linkspan.plugins.standard_steps.provenance import (
    IN_TOTO,
    PREDICATE,
    PREDICATE_TYPE,
    statement,
)
from linkspan.plugins.standard_steps.spdx import SPDX
from linkspan.sdk.drivers.registry import Registry
from linkspan.sdk.errors import NotFound
from linkspan.sdk.host import Host
from linkspan.sdk.media_types import OCI_MANIFEST
from linkspan.sdk.model.image import Credentials, Descriptor
from linkspan.sdk.reference import Reference

_EMPTY: Final = b"{}"
_EMPTY_TYPE: Final = "application/vnd.oci.empty.v1+json"
_WE: Final = Credentials()


@attrs.frozen(kw_only=True)
class Artifact:
    """A document that is to refer to an image.

    Attributes:
        kind: Media type of the document and of the artifact.
        annotations: Of the artifact and of its document.
    """

    kind: str
    data: bytes
    annotations: Mapping[str, str] = attrs.field(factory=dict)


async def artifacts_of(
    host: Host, image_id: str, reference: Reference, digest: str, *, provenance: bool
) -> list[Artifact]:
    """What there is to say about an image: its packages if they are known, and how it was made if asked.

    Raises:
        NotFound: Nobody knows how it was made; code ``no_provenance``.
    """
    known = {a.media_type: a.data for a in await host.engine.images.attachments(image_id)}
    found = [Artifact(kind=SPDX, data=known[SPDX])] if SPDX in known else []
    if not provenance:
        return found
    if PREDICATE not in known:
        raise NotFound(
            f"nothing is known about how {image_id[:19]} was made",
            code="no_provenance",
            help="build it on this machine with `uses: build`, or push without `provenance`",
        )
    data = statement(known[PREDICATE], {reference.familiar: digest})
    notes = {"in-toto.io/predicate-type": PREDICATE_TYPE}
    return [*found, Artifact(kind=IN_TOTO, data=data, annotations=notes)]


async def refer(
    registry: Registry[Any], reference: Reference, subject: Descriptor, artifact: Artifact
) -> str:
    """Push a document so that it refers to an image there; the digest of its manifest.

    Raises:
        LinkspanError: As ``Registry``.
    If cancelled: blobs may be there, which the registry cleans up.
    """
    for data in (_EMPTY, artifact.data):
        blob = Descriptor(media_type="", digest=_digest(data), size_bytes=len(data))
        await registry.push_blob(reference, blob, _source(data), _WE)
    annotations = {"annotations": dict(artifact.annotations)} if artifact.annotations else {}
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact.kind,
        "config": _described(_EMPTY_TYPE, _EMPTY),
        "layers": [{**_described(artifact.kind, artifact.data), **annotations}],
        "subject": {
            "mediaType": subject.media_type,
            "digest": subject.digest,
            "size": subject.size_bytes,
        },
        **annotations,
    }
    manifest = json.dumps(document).encode()
    place = attrs.evolve(reference, tag="", digest=_digest(manifest))
    return await registry.push_manifest(place, OCI_MANIFEST, manifest, _WE)


def _described(media_type: str, data: bytes) -> Mapping[str, Any]:
    return {"mediaType": media_type, "digest": _digest(data), "size": len(data)}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _source(data: bytes) -> Any:
    @asynccontextmanager
    async def open_at(offset: int) -> AsyncIterator[AsyncIterator[bytes]]:
        async def parts() -> AsyncIterator[bytes]:
            yield data[offset:]

        yield parts()

    return open_at
