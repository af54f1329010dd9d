"""What images take on disk, and what of it they share."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from linkspan.sdk.host import Host
from linkspan.sdk.model.image import Image


@attrs.frozen(kw_only=True)
class LayerUsage:
    """Sizes of layers in bytes, and how many images stand on each."""

    sizes: Mapping[str, int]
    images: Mapping[str, int]

    @classmethod
    async def of(cls, host: Host, images: Sequence[Image]) -> "LayerUsage":
        """Ask the snapshots driver, once for all."""
        sizes = {layer.name: layer.size_bytes for layer in await host.driver("snapshots").layers()}
        # An image may have a layer only once under one name, but let us not depend on it.
        counted = Counter(chain for image in images for chain in set(image.chain_ids))
        return cls(sizes={chain: sizes.get(chain, 0) for chain in counted}, images=counted)

    @property
    def total_bytes(self) -> int:
        """Of all layers that images stand on, each once."""
        return sum(self.sizes.values())

    def shared_bytes(self, image: Image) -> int:
        """Of an image's layers that other images have, too."""
        return sum(self.sizes[c] for c in set(image.chain_ids) if self.images[c] > 1)


def encode_manifests(image: Image, users: Iterable[str]) -> list[dict[str, Any]]:
    """``Manifests`` of a summary (API 1.47): the one image that is here."""
    blobs = sum(blob.size_bytes for blob in image.layers if blob is not None)
    platform = image.config.platform
    shown = {"architecture": platform.architecture, "os": platform.os}
    if platform.variant:
        shown["variant"] = platform.variant
    return [
        {
            "ID": descriptor.digest,
            "Descriptor": {
                "mediaType": descriptor.media_type,
                "digest": descriptor.digest,
                "size": descriptor.size_bytes,
            },
            "Available": True,
            "Size": {"Content": blobs, "Total": blobs + image.size_bytes},
            "Kind": "image",
            "ImageData": {
                "Platform": shown,
                "Containers": list(users),
                "Size": {"Unpacked": image.size_bytes},
            },
        }
        for descriptor in image.manifests[:1]
    ]
