"""Layers that arrive in an archive: kept as blobs, unpacked beside what arrives next, named later."""

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Final

import attrs
import trio

from linkspan.core.engine.archive.compression import kind_of
from linkspan.core.engine.drivers import Drivers
from linkspan.core.engine.groups import first_error
from linkspan.core.engine.images import ImageStore
from linkspan.core.engine.names import new_id
from linkspan.sdk.drivers.content import ContentCap
from linkspan.sdk.drivers.snapshots import Applied, ApplyRequest, SnapshotsCap
from linkspan.sdk.errors import DataLoss, InvalidArgument, LinkspanError, NotFound
from linkspan.sdk.media_types import OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD
from linkspan.sdk.model.image import Descriptor
from linkspan.sdk.values import define

_MEDIA_TYPES: Final = {"": OCI_LAYER, "gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD}
_BATCH_BYTES: Final = 1 << 20


@define
class ArrivedLayer:
    """A layer of an archive.

    Attributes:
        diff_id: Empty until it is unpacked, or if that failed.
        ref: Its staging area; empty once it has a name, and for a layer that was here before.
        failure: Why it is no layer.
    """

    blob: Descriptor
    diff_id: str = ""
    ref: str = ""
    failure: LinkspanError | None = None


class ArrivingLayers:
    """The layers of one archive.

    An OCI layout may have blobs that are no layers; so what cannot be unpacked is only remembered.
    """

    def __init__(self, images: ImageStore, drivers: Drivers, leases: ExitStack) -> None:
        self._images = images
        self._drivers = drivers
        self._leases = leases
        self._nursery: trio.Nursery | None = None
        self._batch = new_id()[:12]
        self._unpacked: list[ArrivedLayer] = []
        self._kept: list[str] = []
        self._named: list[str] = []

    def lease(self, *names: str) -> None:
        """Keep blobs and layers until the archive is done with."""
        self._leases.enter_context(self._images.lease(names))

    @asynccontextmanager
    async def unpacking(self) -> AsyncIterator[None]:
        """``take`` works in here; at the end all that was taken is unpacked."""
        try:
            async with trio.open_nursery() as self._nursery:
                yield
        except BaseExceptionGroup as group:
            raise first_error(group) from None

    async def known(self, digest: str) -> ArrivedLayer | None:
        """A layer whose blob is here already, as part of an image."""
        for image in self._images.list():
            for blob, diff_id in zip(image.layers, image.config.diff_ids, strict=False):
                if blob is not None and blob.digest == digest and await self._is_here(digest):
                    self.lease(digest, *image.chain_ids)
                    return ArrivedLayer(blob, diff_id)
        return None

    async def _is_here(self, digest: str) -> bool:
        try:
            await self._drivers.content.info(digest)
        except NotFound:
            return False
        return True

    async def take(
        self, head: bytes, data: AsyncIterator[bytes], *, digest: str | None = None
    ) -> ArrivedLayer:
        """Keep a layer as a blob, and begin to unpack it.

        Args:
            head: Its first bytes, which are in ``data``, too.
            digest: What the archive says it is; verified.

        Raises:
            DataLoss: It has another digest, or the archive is truncated.
            OutOfSpace: The disk is full.
        """
        kind = kind_of(head)
        found, size = await self._keep(data, digest)
        known = await self.known(found)
        if known is not None:
            return known
        layer = ArrivedLayer(
            Descriptor(media_type=_MEDIA_TYPES.get(kind, OCI_LAYER), digest=found, size_bytes=size)
        )
        assert self._nursery is not None
        self._nursery.start_soon(self._unpack, layer)
        return layer

    async def _keep(self, data: AsyncIterator[bytes], digest: str | None) -> tuple[str, int]:
        async with self._drivers.content.ingest(f"load-{new_id()}") as ingest:
            try:
                batch, held = [], 0
                async for piece in data:
                    batch.append(piece)
                    held += len(piece)
                    if held >= _BATCH_BYTES:
                        await ingest.write(b"".join(batch))
                        batch, held = [], 0
                await ingest.write(b"".join(batch))
                found, size = await ingest.digest(), ingest.offset
                if digest is not None and digest != found:
                    raise DataLoss(
                        f"the archive's blob {digest} has the digest {found}",
                        code="digest_mismatch",
                    )
                self.lease(found)
                self._kept.append(found)
                await ingest.commit(found, size_bytes=size, verified=True)
            except BaseException:
                with trio.CancelScope(shield=True):
                    # Nobody goes on with it: the next load has other names.
                    await ingest.discard()
                raise
        return found, size

    async def _unpack(self, layer: ArrivedLayer) -> None:
        ref = f"load-{self._batch}-{len(self._unpacked)}"
        self._unpacked.append(layer)
        try:
            applied = await self._apply(ApplyRequest(ref=ref, digest=layer.blob.digest))
        except (DataLoss, InvalidArgument) as error:
            layer.failure = error
            return
        layer.diff_id, layer.ref = applied.diff_id, ref

    async def _apply(self, request: ApplyRequest) -> Applied:
        """Unpack a stored blob; where it can, the driver reads the blob's file itself."""
        content, snapshots = self._drivers.content, self._drivers.snapshots
        assert request.digest is not None
        info = await content.info(request.digest)
        if (
            ContentCap.LOCAL_PATH in content.capabilities
            and SnapshotsCap.TEE in snapshots.capabilities
        ):
            # Its digest was computed while it arrived.
            whole = attrs.evolve(
                request,
                tee=content.path(request.digest),
                size_bytes=info.size_bytes,
                resume_bytes=info.size_bytes,
                verified=True,
            )
            return await snapshots.apply(whole, _Nothing())
        async with content.open_blob(request.digest) as pieces:
            return await snapshots.apply(request, pieces)

    async def name(self, layer: ArrivedLayer, *, chain: str, parent: str) -> None:
        """Make it the layer ``chain`` on ``parent``. Used at several places, it is unpacked again."""
        snapshots = self._drivers.snapshots
        self.lease(chain, layer.blob.digest)
        try:
            await snapshots.stat(chain)
        except NotFound:
            pass
        else:
            return
        ref, layer.ref = layer.ref, ""
        if not ref:
            ref = f"load-{self._batch}-{chain}"
            await self._apply(
                ApplyRequest(ref=ref, digest=layer.blob.digest, diff_id=layer.diff_id)
            )
        self._named.append(chain)
        await snapshots.commit_applied(ref, name=chain, parent=parent)

    async def discard(self) -> None:
        """Throw away what has no name."""
        for layer in self._unpacked:
            if layer.ref:
                await self._drivers.snapshots.discard(layer.ref)

    async def drop(self) -> None:
        """Remove what has come with the archive, but for what images need."""
        await self._images.drop(list(reversed(self._named)), self._kept)


@asynccontextmanager
async def arriving_layers(images: ImageStore, drivers: Drivers) -> AsyncIterator[ArrivingLayers]:
    """The layers of one archive; what has no name at the end is thrown away."""
    with ExitStack() as leases:
        layers = ArrivingLayers(images, drivers, leases)
        try:
            yield layers
        except BaseException:
            with trio.CancelScope(shield=True):
                await layers.discard()
                leases.close()
                await layers.drop()
            raise
        await layers.discard()


class _Nothing:
    """No more bytes."""

    def __aiter__(self) -> "_Nothing":
        return self

    async def __anext__(self) -> bytes:
        raise StopAsyncIteration
