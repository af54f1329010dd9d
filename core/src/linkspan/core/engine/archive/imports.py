"""An image of one layer, out of a tar of a root file system."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from linkspan.core.engine.archive.compression import LAYER_KINDS, PEEK_BYTES, plain
from linkspan.core.engine.archive.layers import arriving_layers
from linkspan.core.engine.drivers import Drivers
from linkspan.core.engine.images import ImageStore, tag_names
from linkspan.sdk.clock import rfc3339
from linkspan.sdk.image_config import parse_image_config
from linkspan.sdk.model.image import Image
from linkspan.sdk.platform import host_platform, parse_platform


class Importer:
    """Imports root file systems."""

    def __init__(self, images: ImageStore, drivers: Drivers) -> None:
        self._images = images
        self._drivers = drivers

    async def import_files(
        self,
        source: AsyncIterator[bytes],
        *,
        reference: str,
        changes: Sequence[str],
        message: str,
        platform: str,
    ) -> Image:
        """See ``linkspan.sdk.host.Images.import_files``."""
        tags = tag_names([reference] if reference else [])
        wanted = parse_platform(platform) if platform else host_platform()
        section: dict[str, Any] = {}
        if changes:
            section = self._drivers.get("builder").change_config({}, changes)
        async with arriving_layers(self._images, self._drivers) as layers:
            async with (
                layers.unpacking(),
                aclosing(plain(source, keep=LAYER_KINDS)) as pieces,
                _peeked(pieces) as (head, whole),
            ):
                layer = await layers.take(head, whole)
            if layer.failure is not None:
                raise layer.failure
            chain = layer.diff_id
            await layers.name(layer, chain=chain, parent="")
            created = rfc3339()
            document: dict[str, Any] = {
                "architecture": wanted.architecture,
                "os": wanted.os,
                "created": created,
                "config": section,
                "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
                "history": [{"created": created, "comment": message or "Imported from -"}],
            }
            if wanted.variant:
                document["variant"] = wanted.variant
            data = json.dumps(document, separators=(",", ":")).encode()
            config = parse_image_config(data)
            size = (await self._drivers.snapshots.stat(chain)).size_bytes
            image_id = await self._drivers.content.put(data)
            with self._images.lease((image_id,)):
                return await self._images.add(
                    Image(
                        id=image_id,
                        config=config,
                        chain_ids=(chain,),
                        layers=(layer.blob,),
                        size_bytes=size,
                    ),
                    tags=tags,
                )


@asynccontextmanager
async def _peeked(
    source: AsyncIterator[bytes],
) -> AsyncIterator[tuple[bytes, AsyncIterator[bytes]]]:
    """The first bytes, and all of them."""
    head = b""
    async for piece in source:
        head += piece
        if len(head) >= PEEK_BYTES:
            break

    async def whole() -> AsyncGenerator[bytes, None]:
        if head:
            yield head
        async for piece in source:
            yield piece

    async with aclosing(whole()) as everything:
        yield head[:PEEK_BYTES], everything
