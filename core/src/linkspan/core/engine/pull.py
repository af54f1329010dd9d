"""Pulling: resolve, then every layer at once: download, verify, unpack; names last.

Nothing has a name before all of it is here and verified. A layer that two pulls want is fetched once.
What a failed pull has finished stays until the next ``gc``, so that a second try is short.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Self

import attrs
import trio

from linkspan.core.engine.drivers import Drivers
from linkspan.core.engine.groups import first_error
from linkspan.core.engine.images import ImageStore
from linkspan.core.engine.manifests import ImageManifest, Index, parse_manifest
from linkspan.sdk.drivers.content import ContentCap, Ingest
from linkspan.sdk.drivers.registry import Manifest
from linkspan.sdk.drivers.snapshots import ApplyRequest, SnapshotsCap
from linkspan.sdk.errors import DataLoss, InvalidArgument, LinkspanError, NotFound, TooLarge
from linkspan.sdk.image_config import chain_ids, digest_of, parse_image_config
from linkspan.sdk.model.image import Credentials, Descriptor, Image, ImageConfig
from linkspan.sdk.platform import host_platform, parse_platform, select_manifest
from linkspan.sdk.pouring import Pourable
from linkspan.sdk.progress import Progress, ProgressSink
from linkspan.sdk.reference import Reference, parse_reference
from linkspan.sdk.values import frozen

MOST_DOWNLOADS = 4
CONFIG_LIMIT_BYTES = 8 << 20
DEEPEST_INDEX = 4


@frozen(kw_only=True)
class _Target:
    """A resolved image: what the tag named, and the one manifest for our platform."""

    reference: Reference
    named: Manifest
    chosen: Manifest
    manifest: ImageManifest


class Puller:
    """Pulls images; one for the daemon, so that layers in flight are known."""

    def __init__(
        self,
        images: ImageStore,
        drivers: Drivers,
        verify: Callable[[Image], Awaitable[object]],
    ) -> None:
        self._images = images
        self._drivers = drivers
        self._verify = verify
        self._downloads = trio.CapacityLimiter(MOST_DOWNLOADS)
        self._in_flight: dict[str, trio.Lock] = {}

    async def pull(
        self, text: str, *, credentials: Credentials, platform: str, progress: ProgressSink
    ) -> Image:
        """Pull one reference; see ``linkspan.sdk.host.Images.pull``."""
        reference = parse_reference(text).with_default_tag()
        progress(
            Progress(
                status=f"Pulling from {reference.familiar_name.removeprefix(reference.domain + '/')}",
                id=reference.tag or reference.digest,
            )
        )
        target = await self._resolve(reference, credentials, platform)
        before = self._images.find(str(reference))
        config_data = await self._config(target, credentials)
        config = parse_image_config(config_data)
        _check_config(config, target)
        chains = chain_ids(config.diff_ids)
        blobs = [layer.digest for layer in target.manifest.layers]
        stored = (target.named, target.chosen)
        with self._images.lease(
            (*chains, *blobs, digest_of(config_data), *(m.descriptor.digest for m in stored))
        ):
            await self._layers(target, config, chains, credentials, progress)
            image = await self._store(target, config_data, config, chains)
        digest = target.named.descriptor.digest
        same = before is not None and before.id == image.id
        progress(Progress(status=f"Digest: {digest}"))
        what = "Image is up to date" if same else "Downloaded newer image"
        progress(
            Progress(
                status=f"Status: {what} for {reference.familiar}",
                aux={"ID": image.id, "Digest": digest},
            )
        )
        return image

    async def _resolve(
        self, reference: Reference, credentials: Credentials, platform: str
    ) -> _Target:
        registry = self._drivers.registry
        named = chosen = await registry.manifest(reference, credentials)
        for _ in range(DEEPEST_INDEX):
            parsed = parse_manifest(chosen.data, chosen.descriptor.media_type)
            if isinstance(parsed, ImageManifest):
                return _Target(reference=reference, named=named, chosen=chosen, manifest=parsed)
            chosen = await registry.manifest(
                reference.with_digest(_choose(parsed, platform, reference)), credentials
            )
        raise InvalidArgument(f"the index of {reference.familiar} is nested too deep")

    async def _config(self, target: _Target, credentials: Credentials) -> bytes:
        descriptor = target.manifest.config
        try:
            return await self._drivers.content.get(
                descriptor.digest, limit_bytes=CONFIG_LIMIT_BYTES
            )
        except NotFound:
            pass
        if descriptor.size_bytes > CONFIG_LIMIT_BYTES:
            raise TooLarge(f"the config of {target.reference.familiar} is larger than 8 MiB")
        data = bytearray()
        async with self._drivers.registry.blob(target.reference, descriptor, credentials) as chunks:
            async for chunk in chunks:
                data += chunk
                if len(data) > descriptor.size_bytes:
                    break
        if digest_of(bytes(data)) != descriptor.digest:
            raise DataLoss(
                f"the config of {target.reference.familiar} does not match its digest {descriptor.digest}",
                code="digest_mismatch",
            )
        return bytes(data)

    async def _layers(
        self,
        target: _Target,
        config: ImageConfig,
        chains: tuple[str, ...],
        credentials: Credentials,
        progress: ProgressSink,
    ) -> None:
        done = [trio.Event() for _ in chains]
        layers = target.manifest.layers
        for chain, layer in zip(chains, layers, strict=True):
            # One that is here is told by who would fetch it.
            if not await self._have(chain):
                progress(Progress(status="Pulling fs layer", id=short_digest(layer.digest)))

        async def one(at: int) -> None:
            parent = chains[at - 1] if at else ""

            async def parent_ready() -> None:
                if at:
                    await done[at - 1].wait()

            await self._layer(
                target.reference,
                layers[at],
                _Place(
                    name=chains[at], parent=parent, diff_id=config.diff_ids[at], ready=parent_ready
                ),
                credentials,
                progress,
            )
            done[at].set()

        # Largest first: the last one to finish should not be the longest.
        order = sorted(range(len(layers)), key=lambda at: -layers[at].size_bytes)
        try:
            async with trio.open_nursery() as nursery:
                for at in order:
                    nursery.start_soon(one, at)
        except BaseExceptionGroup as group:
            raise first_error(group) from None

    async def _layer(
        self,
        reference: Reference,
        blob: Descriptor,
        place: "_Place",
        credentials: Credentials,
        progress: ProgressSink,
    ) -> None:
        short = short_digest(blob.digest)
        async with self._alone(place.name):
            if await self._have(place.name):
                progress(Progress(status="Already exists", id=short))
                return
            if self._downloads.available_tokens == 0:
                progress(Progress(status="Waiting", id=short))
            try:
                # One layer may stand twice in an image: whoever waits for its parent holds no blob.
                async with self._alone(blob.digest), self._downloads:
                    await self._named_fetch(reference, blob, place, credentials, progress)
                progress(
                    Progress(
                        status="Extracting",
                        id=short,
                        current=blob.size_bytes,
                        total=blob.size_bytes,
                    )
                )
                await place.ready()
            except BaseException:
                with trio.CancelScope(shield=True):
                    await self._drivers.snapshots.discard(place.name)
                raise
            await self._drivers.snapshots.commit_applied(
                place.name, name=place.name, parent=place.parent
            )
            progress(Progress(status="Pull complete", id=short))

    async def _named_fetch(
        self,
        reference: Reference,
        blob: Descriptor,
        place: "_Place",
        credentials: Credentials,
        progress: ProgressSink,
    ) -> None:
        """As ``_fetch``; errors say which layer it was."""
        short = short_digest(blob.digest)
        try:
            await self._fetch(reference, blob, place, credentials, progress)
        except LinkspanError as error:
            if short in error.message:
                raise
            raise type(error)(
                f"layer {short} of {reference.familiar}: {error.message}",
                code=error.code,
                details=error.details,
                help=error.help,
            ) from error

    @asynccontextmanager
    async def _alone(self, name: str) -> AsyncIterator[None]:
        lock = self._in_flight.setdefault(name, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.statistics().tasks_waiting and not lock.locked():
                self._in_flight.pop(name, None)

    async def _have(self, chain: str) -> bool:
        try:
            await self._drivers.snapshots.stat(chain)
        except NotFound:
            return False
        return True

    async def _fetch(
        self,
        reference: Reference,
        blob: Descriptor,
        place: "_Place",
        credentials: Credentials,
        progress: ProgressSink,
    ) -> None:
        """Download and unpack; the blob is kept, so that a push sends the same bytes."""
        content, snapshots = self._drivers.content, self._drivers.snapshots
        request = ApplyRequest(
            ref=place.name,
            media_type=blob.media_type,
            digest=blob.digest,
            size_bytes=blob.size_bytes,
            diff_id=place.diff_id,
        )
        await snapshots.discard(place.name)
        try:
            await content.info(blob.digest)
        except NotFound:
            pass
        else:
            async with content.open_blob(blob.digest) as chunks:
                await snapshots.apply(request, chunks)
            return
        async with content.ingest(blob.digest) as ingest:
            if ingest.offset > blob.size_bytes:
                await ingest.restart()
            count = _Count(blob, ingest.offset, progress)
            if (
                ContentCap.LOCAL_PATH in content.capabilities
                and SnapshotsCap.TEE in snapshots.capabilities
            ):
                request = attrs.evolve(request, tee=ingest.path, resume_bytes=ingest.offset)
                try:
                    async with self._stream(reference, blob, credentials, ingest) as chunks:
                        await snapshots.apply(request, _counted(chunks, count))
                except DataLoss:
                    # What is on disk may be the reason: the next try begins anew.
                    await ingest.restart()
                    raise
                await ingest.commit(blob.digest, size_bytes=blob.size_bytes, verified=True)
                return
            async with self._stream(reference, blob, credentials, ingest) as chunks:
                async for chunk in _counted(chunks, count):
                    await ingest.write(chunk)
            await ingest.commit(blob.digest, size_bytes=blob.size_bytes)
        async with content.open_blob(blob.digest) as chunks:
            await snapshots.apply(request, chunks)

    @asynccontextmanager
    async def _stream(
        self, reference: Reference, blob: Descriptor, credentials: Credentials, ingest: Ingest
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        if ingest.offset == blob.size_bytes:
            yield _nothing()
            return
        async with self._drivers.registry.blob(
            reference, blob, credentials, offset=ingest.offset
        ) as chunks:
            yield chunks

    async def _store(
        self, target: _Target, config_data: bytes, config: ImageConfig, chains: tuple[str, ...]
    ) -> Image:
        for manifest in dict.fromkeys((target.named.data, target.chosen.data)):
            await self._drivers.content.put(manifest)
        image_id = await self._drivers.content.put(config_data)
        sizes = [(await self._drivers.snapshots.stat(chain)).size_bytes for chain in chains]
        manifests = {m.descriptor.digest: m.descriptor for m in (target.chosen, target.named)}
        image = Image(
            id=image_id,
            config=config,
            chain_ids=chains,
            layers=target.manifest.layers,
            size_bytes=sum(sizes),
            manifests=tuple(manifests.values()),
        )
        await self._verify(image)
        reference = target.reference
        digest = target.named.descriptor.digest
        tags = [f"{reference.familiar_name}:{reference.tag}"] if reference.tag else []
        return await self._images.add(
            image, tags=tags, digests=[f"{reference.familiar_name}@{digest}"]
        )


@frozen(kw_only=True)
class _Place:
    """Where a layer belongs; ``ready`` waits for its parent."""

    name: str
    parent: str
    diff_id: str
    ready: Callable[[], Awaitable[None]]


def _choose(index: Index, platform: str, reference: Reference) -> str:
    wanted = parse_platform(platform) if platform else host_platform()
    chosen = select_manifest(wanted, index.manifests)
    if chosen is None:
        raise NotFound(
            f"no matching manifest for {wanted} in the manifest list entries of "
            f"{reference.familiar}",
            code="platform_not_found",
        )
    return chosen.digest


def _check_config(config: ImageConfig, target: _Target) -> None:
    if len(config.diff_ids) != len(target.manifest.layers):
        raise InvalidArgument(
            f"{target.reference.familiar} has {len(target.manifest.layers)} layers, but its config names "
            f"{len(config.diff_ids)}",
            code="bad_manifest",
        )
    if config.platform.os != "linux":
        raise InvalidArgument(
            f"cannot load {config.platform.os} image on linux", code="platform_not_found"
        )


class _Count:
    """Tells how far a blob has come, from time to time."""

    def __init__(self, blob: Descriptor, offset: int, progress: ProgressSink) -> None:
        self._blob = blob
        self._done = self._told = offset
        self._progress = progress

    def add(self, count: int) -> None:
        """So many bytes more; 0 is the end."""
        name = short_digest(self._blob.digest)
        if not count:
            self._progress(Progress(status="Download complete", id=name))
            return
        self._done += count
        if self._done - self._told >= self._blob.size_bytes // 50 + 65536:
            self._told = self._done
            self._progress(
                Progress(
                    status="Downloading",
                    id=name,
                    current=self._done,
                    total=self._blob.size_bytes,
                )
            )


class _Counted:
    """A stream whose bytes are counted."""

    def __init__(self, chunks: AsyncIterator[bytes], count: _Count) -> None:
        self._chunks = chunks
        self._count = count

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            self._count.add(0)
            raise
        if chunk:
            self._count.add(len(chunk))
        return chunk


class _CountedPourable(_Counted):
    """As ``linkspan.sdk.pouring.Pourable``."""

    def __init__(self, chunks: AsyncIterator[bytes], pourable: Pourable, count: _Count) -> None:
        super().__init__(chunks, count)
        self._pourable = pourable

    async def pour(self, pipe: int) -> int:
        poured = await self._pourable.pour(pipe)
        self._count.add(poured)
        return poured


def _counted(chunks: AsyncIterator[bytes], count: _Count) -> AsyncIterator[bytes]:
    if isinstance(chunks, Pourable):
        return _CountedPourable(chunks, chunks, count)
    return _Counted(chunks, count)


async def _nothing() -> AsyncIterator[bytes]:
    for _ in ():
        yield b""


def short_digest(digest: str) -> str:
    """The twelve hex digits that progress lines show."""
    return digest.removeprefix("sha256:")[:12]
