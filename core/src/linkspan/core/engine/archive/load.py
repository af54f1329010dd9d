"""Archives of images into the store: Docker's (``manifest.json``) and OCI image layouts.

The tar is read once. Layers are unpacked as they come, before it is known whose they are; documents are
kept. At the end the manifest says which layers make which image, everything is compared, and names come
last.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, Final

import attrs

from linkspan.core.engine.archive.compression import PEEK_BYTES, plain
from linkspan.core.engine.archive.layers import ArrivedLayer, ArrivingLayers, arriving_layers
from linkspan.core.engine.archive.tar_stream import Member, TarStream, bad_archive, inside
from linkspan.core.engine.drivers import Drivers
from linkspan.core.engine.images import ImageStore, tag_names
from linkspan.core.engine.manifests import ImageManifest, Index, parse_manifest
from linkspan.sdk.errors import DataLoss, InvalidArgument, NotFound
from linkspan.sdk.image_config import chain_ids, digest_of, parse_image_config
from linkspan.sdk.model.image import Descriptor, Image, ImageConfig
from linkspan.sdk.platform import host_platform, match_rank, parse_platform, select_manifest
from linkspan.sdk.progress import Progress, ProgressSink
from linkspan.sdk.values import frozen

_DOCUMENT_LIMIT_BYTES: Final = 8 << 20
_DOCUMENTS_LIMIT_BYTES: Final = 128 << 20
_DEEPEST_INDEX: Final = 4
_LINK_HOPS: Final = 10
_DOCUMENTS: Final = (".json", "/json", "/VERSION", "oci-layout", "repositories")
_NAME: Final = "io.containerd.image.name"
_REF: Final = "org.opencontainers.image.ref.name"


@frozen(kw_only=True)
class _Found:
    """An image as an archive describes it: paths of its parts, and its names.

    Attributes:
        manifest: Of an OCI layout, to be kept: its descriptor and its bytes.
    """

    config: str
    layers: tuple[str, ...]
    tags: tuple[str, ...]
    manifest: tuple[Descriptor, bytes] | None = None


class Loader:
    """Reads archives."""

    def __init__(self, images: ImageStore, drivers: Drivers) -> None:
        self._images = images
        self._drivers = drivers

    async def load(
        self, source: AsyncIterator[bytes], platform: str, progress: ProgressSink
    ) -> Sequence[Image]:
        """See ``linkspan.sdk.host.Images.load``."""
        async with arriving_layers(self._images, self._drivers) as layers:
            contents = _Contents(layers, progress)
            async with layers.unpacking(), aclosing(plain(source)) as pieces:
                await contents.read(TarStream(pieces))
            images = []
            for found in contents.images(platform):
                images.append(await self._image(found, contents, layers, platform, progress))
            return images

    async def _image(
        self,
        found: _Found,
        contents: "_Contents",
        layers: ArrivingLayers,
        platform: str,
        progress: ProgressSink,
    ) -> Image:
        data = contents.document(found.config)
        config = parse_image_config(data)
        _check_platform(config, platform)
        arrived = [contents.layer(path) for path in found.layers]
        _check_layers(config, arrived)
        tags = tag_names(found.tags)
        chains = chain_ids(config.diff_ids)
        with self._images.lease((*chains, digest_of(data))):
            for at, layer in enumerate(arrived):
                await layers.name(layer, chain=chains[at], parent=chains[at - 1] if at else "")
            image_id = await self._drivers.content.put(data)
            sizes = [(await self._drivers.snapshots.stat(chain)).size_bytes for chain in chains]
            manifests: tuple[Descriptor, ...] = ()
            if found.manifest is not None:
                await self._drivers.content.put(found.manifest[1])
                manifests = (found.manifest[0],)
            self._tell_renamed(tags, image_id, progress)
            image = await self._images.add(
                Image(
                    id=image_id,
                    config=config,
                    chain_ids=chains,
                    layers=tuple(layer.blob for layer in arrived),
                    size_bytes=sum(sizes),
                    manifests=manifests,
                ),
                tags=tags,
            )
        for tag in tags:
            progress(Progress(stream=f"Loaded image: {tag}\n"))
        if not tags:
            progress(Progress(stream=f"Loaded image ID: {image_id}\n"))
        return image

    def _tell_renamed(self, tags: Sequence[str], image_id: str, progress: ProgressSink) -> None:
        for tag in tags:
            before = self._images.holder(tag)
            if before is not None and before.id != image_id:
                text = f"The image {tag} already exists, renaming the old one with ID {before.id}"
                progress(Progress(stream=f"{text} to empty string\n"))


def _check_platform(config: ImageConfig, platform: str) -> None:
    if config.platform.os != "linux":
        raise InvalidArgument(
            f"cannot load {config.platform.os} image on linux", code="platform_not_found"
        )
    if platform and match_rank(parse_platform(platform), config.platform) is None:
        raise NotFound(
            f"the archive's image is for {config.platform}, not for {parse_platform(platform)}",
            code="platform_not_found",
        )


def _check_layers(config: ImageConfig, arrived: Sequence[ArrivedLayer]) -> None:
    if len(arrived) != len(config.diff_ids):
        raise bad_archive(
            f"layers length mismatch: expected {len(config.diff_ids)}, got {len(arrived)}"
        )
    for at, (layer, diff_id) in enumerate(zip(arrived, config.diff_ids, strict=True)):
        if layer.diff_id != diff_id:
            raise DataLoss(
                f'invalid diffID for layer {at}: expected "{diff_id}", got "{layer.diff_id}"',
                code="diff_id_mismatch",
            )


class _Contents:
    """What was in the archive: documents by path, layers by path, links."""

    def __init__(self, layers: ArrivingLayers, progress: ProgressSink) -> None:
        self._layers = layers
        self._progress = progress
        self._documents: dict[str, bytes] = {}
        self._documents_bytes = 0
        self._arrived: dict[str, ArrivedLayer] = {}
        self._links: dict[str, str] = {}

    # -- reading ------------------------------------------------------------------------------

    async def read(self, tar: TarStream) -> None:
        """Take everything in.

        Raises:
            DataLoss, InvalidArgument: It is no archive, or is truncated.
        """
        while (member := await tar.next()) is not None:
            if member.link:
                self._links[member.name] = member.link
            elif member.is_file:
                await self._file(tar, member)

    async def _file(self, tar: TarStream, member: Member) -> None:
        head = await tar.peek(PEEK_BYTES)
        if _is_document(member, head):
            self._documents_bytes += member.size_bytes
            if self._documents_bytes > _DOCUMENTS_LIMIT_BYTES:
                raise bad_archive("its documents are too large")
            self._documents[member.name] = await tar.read(_DOCUMENT_LIMIT_BYTES)
            return
        digest = _digest_of_path(member.name)
        known = await self._layers.known(digest) if digest else None
        if known is not None:
            self._arrived[member.name] = known
            return
        async with aclosing(self._counted(tar, member)) as pieces:
            self._arrived[member.name] = await self._layers.take(head, pieces, digest=digest)

    async def _counted(self, tar: TarStream, member: Member) -> AsyncGenerator[bytes, None]:
        name = _short(member.name)
        done = told = 0
        async for piece in tar.data():
            done += len(piece)
            if done - told >= member.size_bytes // 50 + 65536 or done == member.size_bytes:
                told = done
                self._progress(
                    Progress(status="Loading layer", id=name, current=done, total=member.size_bytes)
                )
            yield piece

    # -- what is in it ------------------------------------------------------------------------

    def images(self, platform: str) -> Sequence[_Found]:
        """All images that the archive describes.

        Raises:
            InvalidArgument: Nothing does, or wrongly.
        """
        if "manifest.json" in self._documents:
            return self._docker_images()
        if "index.json" in self._documents:
            return self._layout_images(platform)
        raise bad_archive("does not contain a manifest.json")

    def document(self, path: str) -> bytes:
        """A document. Raises InvalidArgument if there is none."""
        found = self._documents.get(self._resolved(path))
        if found is None:
            raise bad_archive(f"'{path}' is missing")
        digest = _digest_of_path(self._resolved(path))
        if digest and digest_of(found) != digest:
            raise DataLoss(f"'{path}' does not match its digest", code="digest_mismatch")
        return found

    def layer(self, path: str) -> ArrivedLayer:
        """A layer. Raises what was wrong with it."""
        found = self._arrived.get(self._resolved(path))
        if found is None:
            raise bad_archive(f"layer '{path}' is missing")
        if found.failure is not None:
            raise found.failure
        return found

    def _resolved(self, path: str) -> str:
        place = inside(path)
        for _ in range(_LINK_HOPS):
            if place not in self._links:
                return place
            place = self._links[place]
        raise bad_archive(f"'{path}' is a loop of links")

    def _docker_images(self) -> Sequence[_Found]:
        entries = _json(self._documents["manifest.json"], "manifest.json")
        if entries is None:
            raise InvalidArgument(
                "invalid manifest, manifest cannot be null (but can be [])", code="bad_archive"
            )
        if not isinstance(entries, list):
            raise bad_archive("manifest.json is no list")
        kept = self._manifests_by_config()
        found = []
        for entry in entries:
            if not isinstance(entry, dict) or not isinstance(entry.get("Config"), str):
                raise bad_archive("an entry of manifest.json has no Config")
            config = self._resolved(entry["Config"])
            found.append(
                _Found(
                    config=config,
                    layers=_texts(entry.get("Layers"), "Layers"),
                    tags=_texts(entry.get("RepoTags"), "RepoTags"),
                    manifest=kept.get(_digest_of_path(config) or ""),
                )
            )
        return found

    def _manifests_by_config(self) -> dict[str, tuple[Descriptor, bytes]]:
        """Manifests of the layout beside it, so that a push sends the same bytes again."""
        if "index.json" not in self._documents:
            return {}
        kept = {}
        index = parse_manifest(self._documents["index.json"], "")
        for descriptor in index.manifests if isinstance(index, Index) else ():
            data = self._documents.get(_path_of_digest(descriptor.digest))
            if data is None or digest_of(data) != descriptor.digest:
                continue
            parsed = parse_manifest(data, descriptor.media_type)
            if isinstance(parsed, ImageManifest):
                kept[parsed.config.digest] = (_bare(descriptor), data)
        return kept

    def _layout_images(self, platform: str) -> Sequence[_Found]:
        index = parse_manifest(self._documents["index.json"], "")
        if not isinstance(index, Index):
            raise bad_archive("index.json is no index")
        by_digest: dict[str, list[str]] = {}
        for descriptor in index.manifests:
            by_digest.setdefault(descriptor.digest, []).extend(_names(descriptor))
        first = {descriptor.digest: descriptor for descriptor in reversed(index.manifests)}
        return [
            self._layout_image(first[digest], tuple(dict.fromkeys(names)), platform)
            for digest, names in by_digest.items()
        ]

    def _layout_image(self, descriptor: Descriptor, tags: tuple[str, ...], platform: str) -> _Found:
        wanted = parse_platform(platform) if platform else host_platform()
        for _ in range(_DEEPEST_INDEX):
            data = self.document(_path_of_digest(descriptor.digest))
            parsed = parse_manifest(data, descriptor.media_type)
            if isinstance(parsed, ImageManifest):
                return _Found(
                    config=_path_of_digest(parsed.config.digest),
                    layers=tuple(_path_of_digest(layer.digest) for layer in parsed.layers),
                    tags=tags,
                    manifest=(_bare(descriptor), data),
                )
            chosen = select_manifest(wanted, parsed.manifests)
            if chosen is None:
                raise NotFound(f"the archive has no image for {wanted}", code="platform_not_found")
            descriptor = chosen
        raise bad_archive("its index is nested too deep")


def _is_document(member: Member, head: bytes) -> bool:
    if head[257:262] == b"ustar":
        return False
    return member.size_bytes == 0 or head[:1] in b"{[" or member.name.endswith(_DOCUMENTS)


def _digest_of_path(path: str) -> str | None:
    """The digest that a path of an OCI layout's blob names."""
    parts = path.split("/")
    if len(parts) == 3 and parts[:2] == ["blobs", "sha256"] and len(parts[2]) == 64:
        return f"sha256:{parts[2]}"
    return None


def _path_of_digest(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _short(path: str) -> str:
    """Twelve digits for progress lines: of the blob, or of the folder that old archives have."""
    digest = _digest_of_path(path)
    return (digest.removeprefix("sha256:") if digest else path.partition("/")[0])[:12]


def _bare(descriptor: Descriptor) -> Descriptor:
    return attrs.evolve(descriptor, annotations={}, platform=None)


def _names(descriptor: Descriptor) -> list[str]:
    """The names that an index gives an image; a tag alone is none."""
    notes = descriptor.annotations
    if _NAME in notes:
        return [notes[_NAME]]
    ref = notes.get(_REF, "")
    return [ref] if ":" in ref or "/" in ref else []


def _texts(value: Any, what: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise bad_archive(f"{what} of manifest.json is no list of texts")
    return tuple(value)


def _json(data: bytes, name: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise bad_archive(f"{name} is no JSON: {error}") from error
