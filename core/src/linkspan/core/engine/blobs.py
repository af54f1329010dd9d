"""Blobs of layers: those that are stored, and those that are made when somebody first needs them."""

import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from linkspan.core.engine.drivers import Drivers
from linkspan.core.engine.images import ImageStore
from linkspan.core.engine.manifests import ImageManifest, parse_manifest, write_manifest
from linkspan.sdk.errors import DataLoss, NotFound
from linkspan.sdk.media_types import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    OCI_LAYER,
)
from linkspan.sdk.model.image import Descriptor, Image

PLAIN: Final = (OCI_LAYER, DOCKER_LAYER)
_MOST_AT_ONCE: Final = 2


class LayerBlobs:
    """One for the daemon, so that a layer is not compressed twice at the same time."""

    def __init__(self, images: ImageStore, drivers: Drivers, work_dir: Path) -> None:
        self._images = images
        self._drivers = drivers
        self._work_dir = work_dir
        self._limit = trio.CapacityLimiter(_MOST_AT_ONCE)
        self._in_work: dict[str, trio.Lock] = {}
        self._made: dict[str, Descriptor] = {}

    async def blob(self, chain: str, known: Descriptor | None, *, packed: bool) -> Descriptor:
        """The layer's blob; made now if it has none, or it was lost.

        Args:
            packed: It is to travel: a blob that is stored without compression does not do.
        """
        if known is not None and not (packed and known.media_type in PLAIN):
            if await self._is_here(known.digest):
                return known
            known = None
        lock = self._in_work.setdefault(chain, trio.Lock())
        try:
            async with lock:
                made = self._made.get(chain)
                if made is None or not await self._is_here(made.digest):
                    async with self._limit:
                        made = self._made[chain] = await self._make(chain, known)
                return made
        finally:
            if not lock.locked() and not lock.statistics().tasks_waiting:
                self._in_work.pop(chain, None)
                self._made.pop(chain, None)

    async def _is_here(self, digest: str) -> bool:
        try:
            await self._drivers.content.info(digest)
        except NotFound:
            return False
        return True

    async def _make(self, chain: str, stored: Descriptor | None) -> Descriptor:
        async with _scratch(self._work_dir / f"{chain[7:19]}.gz") as scratch:
            try:
                digest, size = await self._drivers.snapshots.compress(chain, scratch)
            except DataLoss:
                # Packed by another program, in a way that cannot be repeated.
                if stored is None or not await self._is_here(stored.digest):
                    raise
                digest, size = await self._compress(stored.digest)
            else:
                await self._store(digest, size, scratch)
        return Descriptor(media_type=DOCKER_LAYER_GZIP, digest=digest, size_bytes=size)

    async def _store(self, digest: str, size: int, scratch: Path) -> None:
        with self._images.lease((digest,)):
            async with self._drivers.content.ingest(digest) as ingest:
                await ingest.restart()
                async with await trio.open_file(scratch, "rb") as file:
                    while data := await file.read(1 << 20):
                        await ingest.write(data)
                await ingest.commit(digest, size_bytes=size)

    async def _compress(self, plain: str) -> tuple[str, int]:
        """Compress a stored blob; where it ends up is known only then."""
        import hashlib

        packer, hasher = zlib.compressobj(1, wbits=31), hashlib.sha256()
        size = 0

        def pack(data: bytes | None) -> bytes:
            out = packer.flush() if data is None else packer.compress(data)
            hasher.update(out)
            return out

        async with self._drivers.content.ingest(f"gzip of {plain}") as ingest:
            await ingest.restart()
            async with self._drivers.content.open_blob(plain) as pieces:
                async for piece in pieces:
                    out = await trio.to_thread.run_sync(pack, piece)
                    size += len(out)
                    await ingest.write(out)
            out = await trio.to_thread.run_sync(pack, None)
            await ingest.write(out)
            digest = "sha256:" + hasher.hexdigest()
            with self._images.lease((digest,)):
                await ingest.commit(digest, verified=True)
        return digest, size + len(out)

    async def config(self, image: Image) -> Descriptor:
        """The config's blob."""
        info = await self._drivers.content.info(image.id)
        return Descriptor(media_type=DOCKER_CONFIG, digest=image.id, size_bytes=info.size_bytes)

    async def manifest(self, image: Image, layers: tuple[Descriptor, ...]) -> tuple[str, bytes]:
        """The stored manifest that fits these blobs, or a new one: its media type and its bytes."""
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
        return DOCKER_MANIFEST, write_manifest(await self.config(image), layers)


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
