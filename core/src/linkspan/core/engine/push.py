"""Pushing: blobs as they are stored, a few at a time; then the manifest, by the same bytes if known."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import attrs
import trio

from linkspan.core.engine.drivers import Drivers
from linkspan.core.engine.images import ImageStore
from linkspan.core.engine.manifests import ImageManifest, parse_manifest, write_manifest
from linkspan.core.engine.pull import first_error, short_digest
from linkspan.sdk.drivers.registry import BlobSource
from linkspan.sdk.errors import NotFound
from linkspan.sdk.image_config import digest_of
from linkspan.sdk.media_types import DOCKER_CONFIG, DOCKER_LAYER_GZIP, DOCKER_MANIFEST
from linkspan.sdk.model.image import Credentials, Descriptor, Image, PushResult
from linkspan.sdk.progress import Progress, ProgressSink
from linkspan.sdk.reference import Reference, parse_reference

MOST_UPLOADS = 3


class Pusher:
    """Pushes images; makes blobs of layers that have none yet."""

    def __init__(self, images: ImageStore, drivers: Drivers, work_dir: Path) -> None:
        self._images = images
        self._drivers = drivers
        self._work_dir = work_dir
        self._compressing = trio.Lock()

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
        progress(Progress(status=f"The push refers to repository [{reference.name}]"))
        with self._images.lease((image.id, *image.chain_ids)):
            return await self._push(reference, image, credentials, progress)

    async def _push(
        self, reference: Reference, image: Image, credentials: Credentials, progress: ProgressSink
    ) -> PushResult:
        layers = await self._blobs(reference, image, credentials, progress)
        media_type, data = await self._manifest(image, layers)
        try:
            digest = await self._drivers.registry.push_manifest(
                reference, media_type, data, credentials
            )
        except NotFound as error:
            if error.code != "manifest_blob_unknown":
                raise
            # The registry lost a blob between its answer and now (its own clean-up): once more.
            image = attrs.evolve(image, layers=layers)
            await self._blobs(reference, image, credentials, progress)
            digest = await self._drivers.registry.push_manifest(
                reference, media_type, data, credentials
            )
        await self._remember(image, reference, layers, media_type, data)
        tag = reference.tag or reference.digest
        progress(Progress(status=f"{tag}: digest: {digest} size: {len(data)}"))
        progress(Progress(aux={"Tag": tag, "Digest": digest, "Size": len(data)}))
        return PushResult(
            reference=f"{reference.familiar_name}@{digest}", digest=digest, size_bytes=len(data)
        )

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
                blob = await self._blob(image.chain_ids[at], blobs[at])
                blobs[at] = blob
                await self._upload(reference, blob, name, sources, credentials, progress)

        async def config() -> None:
            descriptor = await self._config_blob(image)
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

    async def _blob(self, chain: str, known: Descriptor | None) -> Descriptor:
        """The layer's blob; compressed now if it has none, or it was lost."""
        if known is not None:
            try:
                await self._drivers.content.info(known.digest)
            except NotFound:
                pass
            else:
                return known
        async with self._compressing, _scratch(self._work_dir / f"{chain[7:19]}.gz") as scratch:
            digest, size = await self._drivers.snapshots.compress(chain, scratch)
            with self._images.lease((digest,)):
                async with self._drivers.content.ingest(digest) as ingest:
                    await ingest.restart()
                    async with await trio.open_file(scratch, "rb") as file:
                        while data := await file.read(1 << 20):
                            await ingest.write(data)
                    await ingest.commit(digest, size_bytes=size)
        return Descriptor(media_type=DOCKER_LAYER_GZIP, digest=digest, size_bytes=size)

    async def _config_blob(self, image: Image) -> Descriptor:
        info = await self._drivers.content.info(image.id)
        return Descriptor(media_type=DOCKER_CONFIG, digest=image.id, size_bytes=info.size_bytes)

    async def _manifest(self, image: Image, layers: tuple[Descriptor, ...]) -> tuple[str, bytes]:
        """The stored manifest that fits these blobs, or a new one."""
        for descriptor in image.manifests:
            try:
                data = await self._drivers.content.get(descriptor.digest)
            except NotFound:
                continue
            parsed = parse_manifest(data, descriptor.media_type)
            if isinstance(parsed, ImageManifest) and [x.digest for x in parsed.layers] == [
                x.digest for x in layers
            ]:
                return descriptor.media_type, data
        return DOCKER_MANIFEST, write_manifest(await self._config_blob(image), layers)

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


def _repositories(image: Image, reference: Reference) -> tuple[str, ...]:
    """Other repositories of the same host that had the image once: blobs may be mounted from them."""
    found = []
    for text in image.repo_digests:
        other = parse_reference(text)
        if other.domain == reference.domain and other.path != reference.path:
            found.append(other.path)
    return tuple(dict.fromkeys(found))


@asynccontextmanager
async def _scratch(path: Path) -> AsyncIterator[Path]:
    """A file that is gone afterwards, whatever happens."""
    await trio.to_thread.run_sync(lambda: path.parent.mkdir(parents=True, exist_ok=True))
    await trio.to_thread.run_sync(lambda: path.unlink(missing_ok=True))
    try:
        yield path
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(lambda: path.unlink(missing_ok=True))
