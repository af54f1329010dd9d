"""The images that a build takes its steps from, if it is to take them from nowhere else."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from linkspan.plugins.dockerfile_builder.cache import StepRecord
from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.host import Images
from linkspan.sdk.model.image import Image


@attrs.frozen
class CacheSources:
    """Which steps may be taken from the cache.

    Attributes:
        images: Those whose steps alone may; None: any step may.
    """

    images: tuple[Image, ...] | None = None

    @classmethod
    def of(cls, images: Images, references: Sequence[str]) -> "CacheSources":
        """Those of these images that are here; the others have no steps to take."""
        found = []
        for reference in references:
            try:
                found.append(images.inspect(reference))
            except LinkspanError:
                continue
        return cls(tuple(found))

    def has(self, record: StepRecord) -> bool:
        """Whether a step may be taken. One that has made no layer is the same in all images."""
        if self.images is None:
            return True
        return record.layer in self.layers() if record.layer else bool(self.images)

    def layers(self) -> Iterator[str]:
        """Names of the layers of the images."""
        return (name for image in self.images or () for name in image.chain_ids)

    def begin_with(self, history: Sequence[Mapping[str, Any]], chain: Sequence[str]) -> bool:
        """Whether one of the images began with these steps and layers. Not to be asked if any step may."""
        words = [entry.get("created_by") for entry in history]
        for image in self.images or ():
            told = image.config.raw.get("history") or []
            first = [entry.get("created_by") for entry in told[: len(words)]]
            if first == words and list(image.chain_ids[: len(chain)]) == list(chain):
                return True
        return False
