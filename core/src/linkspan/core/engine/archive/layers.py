"""Layers that arrive in an archive: unpacked and kept as blobs while they arrive, named later."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Self

import attrs
import trio

from linkspan.core.engine.archive.compression import kind_of
from linkspan.core.engine.drivers import Drivers
from linkspan.core.engine.images import ImageStore
from linkspan.core.engine.names import new_id
from linkspan.sdk.drivers.content import ContentCap
from linkspan.sdk.drivers.snapshots import Applied, ApplyRequest, SnapshotsCap
from linkspan.sdk.errors import NotFound
from linkspan.sdk.media_types import OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD
from linkspan.sdk.model.image import Descriptor

_MEDIA_TYPES: Final = {"": OCI_LAYER, "gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD}


@attrs.define
class ArrivedLayer:
    """A layer of an archive.

    Attributes:
        ref: Its staging area; empty once it has a name, and for a layer that was here before.
    """

    blob: Descriptor
    diff_id: str
    ref: str = ""


class ArrivingLayers:
    """The layers of one archive; what has no name at the end is thrown away."""

    def __init__(self, images: ImageStore, drivers: Drivers) -> None:
        self._images = images
        self._drivers = drivers
        self._leases = ExitStack()
        self._batch = new_id()[:12]
        self._arrived: list[ArrivedLayer] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with trio.CancelScope(shield=True):
            for layer in self._arrived:
                if layer.ref:
                    await self._drivers.snapshots.discard(layer.ref)
        self._leases.close()

    async def known(self, digest: str) -> ArrivedLayer | None:
        """A layer whose blob is here already, as part of an image."""
        for image in self._images.list():
            for blob, diff_id in zip(image.layers, image.config.diff_ids, strict=False):
                if blob is not None and blob.digest == digest and await self._is_here(digest):
                    self._leases.enter_context(self._images.lease((digest, *image.chain_ids)))
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
        """Unpack a layer and keep its blob, in one go.

        Args:
            head: Its first bytes, which are in ``data``, too.
            digest: What the archive says it is; verified.

        Raises:
            DataLoss, InvalidArgument, TooLarge, OutOfSpace: As ``Snapshots.apply``.
        """
        ref = f"load-{self._batch}-{len(self._arrived)}"
        applied = await self._apply(ApplyRequest(ref=ref, digest=digest), data)
        layer = ArrivedLayer(
            Descriptor(
                media_type=_MEDIA_TYPES[kind_of(head)],
                digest=applied.digest,
                size_bytes=applied.size_bytes,
            ),
            applied.diff_id,
            ref,
        )
        self._arrived.append(layer)
        return layer

    async def _apply(self, request: ApplyRequest, data: AsyncIterator[bytes]) -> Applied:
        content, snapshots = self._drivers.content, self._drivers.snapshots
        async with content.ingest(request.ref) as ingest:
            await ingest.restart()
            at_once = (
                ContentCap.LOCAL_PATH in content.capabilities
                and SnapshotsCap.TEE in snapshots.capabilities
            )
            try:
                if at_once:
                    applied = await snapshots.apply(attrs.evolve(request, tee=ingest.path), data)
                else:
                    applied = await snapshots.apply(request, _written(ingest.write, data))
                self._leases.enter_context(self._images.lease((applied.digest,)))
                await ingest.commit(applied.digest, size_bytes=applied.size_bytes, verified=at_once)
            except BaseException:
                with trio.CancelScope(shield=True):
                    # Nobody goes on with it: the next load has other names.
                    await ingest.discard()
                    await snapshots.discard(request.ref)
                raise
        return applied

    async def name(self, layer: ArrivedLayer, *, chain: str, parent: str) -> None:
        """Make it the layer ``chain`` on ``parent``. Used at several places, it is unpacked again."""
        snapshots = self._drivers.snapshots
        self._leases.enter_context(self._images.lease((chain, layer.blob.digest)))
        try:
            await snapshots.stat(chain)
        except NotFound:
            pass
        else:
            return
        ref, layer.ref = layer.ref, ""
        if not ref:
            ref = f"load-{self._batch}-{chain}"
            request = ApplyRequest(ref=ref, digest=layer.blob.digest, diff_id=layer.diff_id)
            async with self._drivers.content.open_blob(layer.blob.digest) as pieces:
                await snapshots.apply(request, pieces)
        await snapshots.commit_applied(ref, name=chain, parent=parent)


async def _written(
    write: Callable[[bytes], Awaitable[None]], data: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    async for piece in data:
        await write(piece)
        yield piece
