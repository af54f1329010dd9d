"""Images into one tar: an OCI image layout with Docker's ``manifest.json`` beside it.

Layers go as their blobs are stored, compressed or not: every reader of either format looks at their first
bytes. What images share is in the tar once.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import attrs

from linkspan.core.engine.archive.tar_stream import END, file_header, folder_header, padding
from linkspan.core.engine.blobs import LayerBlobs
from linkspan.core.engine.drivers import Drivers
from linkspan.core.engine.images import ImageStore
from linkspan.sdk.errors import InvalidArgument, NotFound
from linkspan.sdk.image_config import digest_of
from linkspan.sdk.model.image import Descriptor, Image
from linkspan.sdk.platform import match_rank, parse_platform
from linkspan.sdk.reference import parse_reference
from linkspan.sdk.values import define

_NAME = "io.containerd.image.name"
_REF = "org.opencontainers.image.ref.name"


@define
class _Saved:
    """One image with the names under which it was asked for."""

    image: Image
    tags: list[str] = attrs.field(factory=list)
    layers: tuple[Descriptor, ...] = ()
    media_type: str = ""
    manifest: bytes = b""


class Saver:
    """Writes archives."""

    def __init__(self, images: ImageStore, drivers: Drivers, blobs: LayerBlobs) -> None:
        self._images = images
        self._drivers = drivers
        self._blobs = blobs

    @asynccontextmanager
    async def save(
        self, refs: Sequence[str], platform: str
    ) -> AsyncIterator[tuple[Sequence[str], AsyncIterator[bytes]]]:
        """The ids of the images, and the tar; see ``linkspan.sdk.host.Images.save``."""
        wanted = self._wanted(refs, platform)
        names = [n for saved in wanted for n in (saved.image.id, *saved.image.chain_ids)]
        with self._images.lease(names):
            for saved in wanted:
                await self._prepare(saved)
            blobs = [blob.digest for saved in wanted for blob in saved.layers]
            with self._images.lease(blobs):
                async with aclosing(self._write(wanted)) as pieces:
                    yield [saved.image.id for saved in wanted], pieces

    def _wanted(self, refs: Sequence[str], platform: str) -> list[_Saved]:
        if not refs:
            raise InvalidArgument("no images to save were named")
        found: dict[str, _Saved] = {}
        for ref in refs:
            for tag in self._tags(ref):
                image = self._images.find(tag or ref)
                if image is None:
                    raise NotFound(f"No such image: {ref}", code="image_not_found")
                _check_platform(image, platform)
                saved = found.setdefault(image.id, _Saved(image))
                if tag and tag not in saved.tags:
                    saved.tags.append(tag)
        return list(found.values())

    def _tags(self, ref: str) -> Sequence[str]:
        """The tags that a text names; an empty one where it is an id. A bare name means all its tags."""
        image = self._images.find(ref)
        try:
            reference = parse_reference(ref)
        except InvalidArgument:
            return [""]
        if not reference.tag and not reference.digest:
            tags = self._images.tags_of(reference.familiar_name)
            if tags:
                return tags
        if image is not None and reference.with_default_tag().familiar in image.repo_tags:
            return [reference.with_default_tag().familiar]
        return [""]

    async def _prepare(self, saved: _Saved) -> None:
        """Have all blobs, and the manifest that names them."""
        image = saved.image
        saved.layers = tuple(
            [
                await self._blobs.blob(chain, known, packed=False)
                for chain, known in zip(image.chain_ids, image.layers, strict=True)
            ]
        )
        if saved.layers != image.layers:
            image = saved.image = attrs.evolve(image, layers=saved.layers)
            await self._images.update(image)
        saved.media_type, saved.manifest = await self._blobs.manifest(image, saved.layers)

    async def _write(self, wanted: Sequence[_Saved]) -> AsyncGenerator[bytes, None]:
        yield folder_header("blobs") + folder_header("blobs/sha256")
        done: set[str] = set()
        for saved in wanted:
            config = await self._blobs.config(saved.image)
            for blob in (config, *saved.layers):
                if blob.digest not in done:
                    done.add(blob.digest)
                    async with aclosing(self._blob(blob)) as pieces:
                        async for piece in pieces:
                            yield piece
            digest = digest_of(saved.manifest)
            if digest not in done:
                done.add(digest)
                yield _document(_path(digest), saved.manifest)
        index: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
        }
        index["manifests"] = [entry for saved in wanted for entry in _index_entries(saved)]
        yield _document("index.json", _dumps(index))
        yield _document("manifest.json", _dumps([_docker_entry(saved) for saved in wanted]))
        yield _document("oci-layout", _dumps({"imageLayoutVersion": "1.0.0"}))
        if repositories := _repositories(wanted):
            yield _document("repositories", _dumps(repositories))
        yield END

    async def _blob(self, blob: Descriptor) -> AsyncGenerator[bytes, None]:
        info = await self._drivers.content.info(blob.digest)
        yield file_header(_path(blob.digest), info.size_bytes)
        async with self._drivers.content.open_blob(blob.digest) as pieces:
            async for piece in pieces:
                yield piece
        if padding(info.size_bytes):
            yield padding(info.size_bytes)


def _check_platform(image: Image, platform: str) -> None:
    if platform and match_rank(parse_platform(platform), image.config.platform) is None:
        raise NotFound(
            f"no suitable export target found for platform {parse_platform(platform)}",
            code="platform_not_found",
        )


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _document(name: str, data: bytes) -> bytes:
    return file_header(name, len(data)) + data + padding(len(data))


def _index_entries(saved: _Saved) -> list[dict[str, Any]]:
    platform = saved.image.config.platform
    entry: dict[str, Any] = {
        "mediaType": saved.media_type,
        "digest": digest_of(saved.manifest),
        "size": len(saved.manifest),
        "platform": {"architecture": platform.architecture, "os": platform.os},
    }
    if platform.variant:
        entry["platform"]["variant"] = platform.variant
    named = []
    for tag in saved.tags:
        reference = parse_reference(tag)
        notes = {_NAME: str(reference), _REF: reference.tag}
        named.append({**entry, "annotations": notes})
    return named or [entry]


def _docker_entry(saved: _Saved) -> dict[str, Any]:
    return {
        "Config": _path(saved.image.id),
        "RepoTags": saved.tags or None,
        "Layers": [_path(blob.digest) for blob in saved.layers],
    }


def _repositories(wanted: Sequence[_Saved]) -> dict[str, dict[str, str]]:
    """What the oldest readers look for: name → tag → the uppermost layer."""
    found: dict[str, dict[str, str]] = {}
    for saved in wanted:
        for reference in map(parse_reference, saved.tags if saved.layers else ()):
            top = saved.layers[-1].digest.partition(":")[2]
            found.setdefault(reference.familiar_name, {})[reference.tag] = top
    return found
