"""Pushing: blobs as they are stored, a few at a time; then the manifest, by the same bytes if known."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager

import attrs
import trio

from linkspan.core.engine.blobs import LayerBlobs
from linkspan.core.engine.drivers import Drivers
from linkspan.core.engine.groups import first_error
from linkspan.core.engine.images import ImageStore
from linkspan.core.engine.manifests import write_index
from linkspan.core.engine.pull import short_digest
from linkspan.sdk.drivers.registry import BlobSource
from linkspan.sdk.errors import NotFound
from linkspan.sdk.image_config import digest_of
from linkspan.sdk.media_types import OCI_INDEX
from linkspan.sdk.model.image import Credentials, Descriptor, Image, PushResult
from linkspan.sdk.progress import Progress, ProgressSink
from linkspan.sdk.reference import Reference, parse_reference

MOST_UPLOADS = 3


class Pusher:
    """Pushes images; makes blobs of layers that have none yet."""

    def __init__(self, images: ImageStore, drivers: Drivers, blobs: LayerBlobs) -> None:
        self._images = images
        self._drivers = drivers
        self._layer_blobs = blobs

    async def push(
        self, text: str, *, credentials: Credentials, progress: ProgressSink
    ) -> PushResult:
        """Push one reference; see ``linkspan.sdk.host.Images.push``."""
        reference = parse_reference(text).with_default_tag()
        image = self._images.find(str(reference))
        if image is None:
            raise NotFound(
                f"An image does not exist locally with the tag: {reference.familiar_name}",
                code="image_not_found",
            )
        with self._images.lease((image.id, *image.chain_ids)):
            sent = await self._push(reference, image, credentials, progress)
        return _done(reference, sent, progress)

    async def push_index(
        self, text: str, refs: Sequence[str], *, credentials: Credentials, progress: ProgressSink
    ) -> PushResult:
        """Push images of several platforms as one; see ``linkspan.sdk.host.Images.push_index``."""
        reference = parse_reference(text).with_default_tag()
        images = [self._images.inspect(ref) for ref in refs]
        with self._images.lease(name for i in images for name in (i.id, *i.chain_ids)):
            entries = []
            for image in images:
                bare = attrs.evolve(reference, tag="", digest="")
                sent = await self._push(bare, image, credentials, progress)
                entries.append(attrs.evolve(sent, platform=image.config.platform))
            data = write_index(entries)
            digest = await self._drivers.registry.push_manifest(
                reference, OCI_INDEX, data, credentials
            )
            holder = self._images.holder(reference.familiar)
            if holder is not None and holder.id in [image.id for image in images]:
                await self._images.add_digest(holder.id, f"{reference.familiar_name}@{digest}")
        sent = Descriptor(media_type=OCI_INDEX, digest=digest, size_bytes=len(data))
        return _done(reference, sent, progress)

    async def _push(
        self, reference: Reference, image: Image, credentials: Credentials, progress: ProgressSink
    ) -> Descriptor:
        """Send an image; without a tag its manifest goes by its digest."""
        layers = await self._blobs(reference, image, credentials, progress)
        media_type, data = await self._layer_blobs.manifest(image, layers)
        place = reference
        if not reference.tag and not reference.digest:
            place = attrs.evolve(reference, digest=digest_of(data))
        try:
            digest = await self._drivers.registry.push_manifest(
                place, media_type, data, credentials
            )
        except NotFound as error:
            if error.code != "manifest_blob_unknown":
                raise
            # The registry lost a blob between its answer and now (its own clean-up): once more.
            image = attrs.evolve(image, layers=layers)
            await self._blobs(reference, image, credentials, progress)
            digest = await self._drivers.registry.push_manifest(
                place, media_type, data, credentials
            )
        await self._remember(image, reference, layers, media_type, data)
        return Descriptor(media_type=media_type, digest=digest, size_bytes=len(data))

    async def _blobs(
        self, reference: Reference, image: Image, credentials: Credentials, progress: ProgressSink
    ) -> tuple[Descriptor, ...]:
        """Upload the config and every layer; return the layers' blobs, bottom first."""
        blobs: list[Descriptor | None] = list(image.layers)
        sources = _repositories(image, reference)
        limit = trio.CapacityLimiter(MOST_UPLOADS)

        async def layer(at: int) -> None:
            name = short_digest(image.config.diff_ids[at])
            progress(Progress(status="Preparing", id=name))
            async with limit:
                blob = await self._layer_blobs.blob(image.chain_ids[at], blobs[at], packed=True)
                blobs[at] = blob
                await self._upload(reference, blob, name, sources, credentials, progress)

        async def config() -> None:
            descriptor = await self._layer_blobs.config(image)
            await self._drivers.registry.push_blob(
                reference, descriptor, self._source(descriptor.digest), credentials
            )

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(config)
                for at in range(len(blobs)):
                    nursery.start_soon(layer, at)
        except BaseExceptionGroup as group:
            raise first_error(group) from None
        return tuple(blob for blob in blobs if blob is not None)

    async def _upload(
        self,
        reference: Reference,
        blob: Descriptor,
        name: str,
        sources: tuple[str, ...],
        credentials: Credentials,
        progress: ProgressSink,
    ) -> None:
        told = 0

        def sent(count: int) -> None:
            nonlocal told
            if count - told >= blob.size_bytes // 50 + 65536:
                told = count
                progress(Progress(status="Pushing", id=name, current=count, total=blob.size_bytes))

        how = await self._drivers.registry.push_blob(
            reference,
            blob,
            self._source(blob.digest),
            credentials,
            mount_from=sources,
            sent=sent,
        )
        words = {
            "exists": "Layer already exists",
            "mounted": f"Mounted from {sources[0]}" if sources else "Mounted",
            "pushed": "Pushed",
        }
        progress(Progress(status=words[how], id=name))

    def _source(self, digest: str) -> BlobSource:
        def open_at(offset: int) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
            return self._drivers.content.open_blob(digest, offset=offset)

        return open_at

    async def _remember(
        self,
        image: Image,
        reference: Reference,
        layers: tuple[Descriptor, ...],
        media_type: str,
        data: bytes,
    ) -> None:
        digest = digest_of(data)
        with self._images.lease((digest,)):
            await self._drivers.content.put(data)
            manifests = {m.digest: m for m in image.manifests}
            manifests[digest] = Descriptor(
                media_type=media_type, digest=digest, size_bytes=len(data)
            )
            await self._images.update(
                attrs.evolve(
                    image,
                    layers=layers,
                    manifests=tuple(manifests.values()),
                    repo_digests=(f"{reference.familiar_name}@{digest}",),
                )
            )


def _done(reference: Reference, sent: Descriptor, progress: ProgressSink) -> PushResult:
    """Say what was put there, in Docker's words."""
    tag = reference.tag or reference.digest
    progress(Progress(status=f"{tag}: digest: {sent.digest} size: {sent.size_bytes}"))
    progress(Progress(aux={"Tag": tag, "Digest": sent.digest, "Size": sent.size_bytes}))
    return PushResult(
        reference=f"{reference.familiar_name}@{sent.digest}",
        digest=sent.digest,
        size_bytes=sent.size_bytes,
    )


def _repositories(image: Image, reference: Reference) -> tuple[str, ...]:
    """Other repositories of the same host that had the image once: blobs may be mounted from them."""
    found = []
    for text in image.repo_digests:
        other = parse_reference(text)
        if other.domain == reference.domain and other.path != reference.path:
            found.append(other.path)
    return tuple(dict.fromkeys(found))
