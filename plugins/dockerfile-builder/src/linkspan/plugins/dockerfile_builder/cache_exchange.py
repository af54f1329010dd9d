"""The cache carried from one machine to another, inside images.

An image that carries the cache has one more key in its config: which steps made which of its layers. Who has
the image has the layers, and so can take these steps as done. An inline cache is the built image itself; a
cache image is made beside it, one for each stage if all are wanted.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from linkspan.plugins.dockerfile_builder.cache import StepRecord
from linkspan.plugins.dockerfile_builder.image_config import CACHE_KEY, ImageState
from linkspan.plugins.dockerfile_builder.layers import LayerMaker, in_thread
from linkspan.sdk.drivers.builder import CacheImport
from linkspan.sdk.errors import LinkspanError, NotFound
from linkspan.sdk.host import Host, NewImage
from linkspan.sdk.model.image import Credentials, Image
from linkspan.sdk.reference import DOCKER_DOMAIN, parse_reference

_VERSION: Final = 1
_MAX_STEPS: Final = 10_000
_MAX_MORE: Final = 100


@attrs.frozen(kw_only=True)
class CarriedStage:
    """A finished stage whose steps are to be carried."""

    state: ImageState
    chain: tuple[str, ...]


def cache_document(
    used: Mapping[str, StepRecord], chain: Sequence[str], more: Sequence[str] = ()
) -> dict[str, Any]:
    """The value of the config's key.

    Args:
        used: Steps of the build by their keys.
        chain: The image's layers; steps that made others are left out.
        more: References of further images that carry steps.
    """
    place = {name: index for index, name in enumerate(chain)}
    steps = [
        [key, place[record.layer] if record.layer else -1, record.created, record.step, record.also]
        for key, record in sorted(used.items())
        if not record.layer or record.layer in place
    ]
    return {"version": _VERSION, "steps": steps, "more": list(more)}


async def export_cache(
    host: Host,
    used: Mapping[str, StepRecord],
    stages: Sequence[CarriedStage],
    reference: str,
) -> list[str]:
    """Make the images that carry the steps of some stages, the last one first; return their references.

    Raises:
        InvalidArgument: The reference cannot be read.
    """
    base = parse_reference(reference).with_default_tag()
    names = [str(base)]
    names += [f"{base}-{number}" for number in range(1, len(stages))]
    for index, stage in enumerate(reversed(stages)):
        more = names[1:] if index == 0 else ()
        document = cache_document(used, stage.chain, more)
        await host.engine.images.add(
            NewImage(config=stage.state.serialize({CACHE_KEY: document}), chain_ids=stage.chain),
            tags=[names[index]],
        )
    return names


async def import_cache(
    host: Host,
    layers: LayerMaker,
    wanted: CacheImport,
    login: Callable[[str], Awaitable[Credentials]],
) -> int:
    """Take the steps that an image carries as done; return how many are new here.

    Raises:
        LinkspanError: The image cannot be had, or carries no cache.
    """
    count, pending, seen = 0, [wanted.reference], set[str]()
    while pending and len(seen) <= _MAX_MORE:
        reference = pending.pop()
        if reference in seen:
            continue
        seen.add(reference)
        image, pulled = await _image(host, reference, login, fresh=wanted.fresh)
        document = image.config.raw.get(CACHE_KEY)
        if not isinstance(document, dict) or document.get("version") != _VERSION:
            raise NotFound(f"the image {reference} carries no build cache", code="no_build_cache")
        records = await _records(layers, image, document)
        fresh = {key: record for key, record in records.items() if layers.cache.get(key) is None}
        await in_thread(layers.cache.put_all, fresh)
        count += len(fresh)
        pending += [name for name in document.get("more") or () if isinstance(name, str)]
        if pulled:
            # Its layers stay, since the cache needs them; nobody asked for the image itself.
            await host.engine.images.remove(reference)
    return count


async def _image(
    host: Host, reference: str, login: Callable[[str], Awaitable[Credentials]], *, fresh: bool
) -> tuple[Image, bool]:
    """The image, and whether it was brought here for this."""
    images = host.engine.images
    try:
        here: Image | None = images.inspect(reference)
    except LinkspanError:
        here = None
    if here is not None and not fresh:
        return here, False
    parsed = parse_reference(reference).with_default_tag()
    try:
        image = await images.pull(str(parsed), credentials=await login(parsed.domain))
    except LinkspanError:
        if here is None:
            raise
        return here, False
    return image, here is None


async def _records(
    layers: LayerMaker, image: Image, document: Mapping[str, Any]
) -> dict[str, StepRecord]:
    """Key → record. What the image says is not trusted further than that its layers are its own."""
    found: dict[str, StepRecord] = {}
    steps = document.get("steps")
    for entry in (steps if isinstance(steps, list) else [])[:_MAX_STEPS]:
        match entry:
            case [str(key), int(index), str(created), str(step), str(also)] if (
                -1 <= index < len(image.chain_ids)
            ):
                record = StepRecord(created=created, step=step, also=also)
                if index >= 0:
                    name = image.chain_ids[index]
                    layer = await layers.snapshots.stat(name)
                    record = attrs.evolve(
                        record,
                        layer=name,
                        diff_id=layer.diff_id,
                        size_bytes=layer.size_bytes,
                        parent=layer.parent,
                    )
                found[key] = record
            case _:
                continue
    return found


def login_for(credentials: Mapping[str, Credentials], domain: str) -> Credentials:
    """What the client has given for a registry; none at all if it has given nothing."""
    names = [domain]
    if domain == DOCKER_DOMAIN:
        names += ["https://index.docker.io/v1/", "index.docker.io"]
    for name in names:
        if name in credentials:
            return credentials[name]
    return Credentials()
