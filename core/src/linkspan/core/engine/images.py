"""Images of this machine: names, what they stand on, and their end (Docker's rules).

One writer: every change goes through ``_write``, which keeps the record, then the memory. Blobs and
layers belong to their drivers; which of them are still needed is decided here.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

import attrs
import trio

from linkspan.core.engine.drivers import Drivers
from linkspan.core.engine.names import by_prefix
from linkspan.core.store.records import Records
from linkspan.sdk.clock import epoch_ns, rfc3339
from linkspan.sdk.errors import Conflict, InvalidArgument, LinkspanError, NotFound
from linkspan.sdk.events import Event, image_event
from linkspan.sdk.host import NewImage
from linkspan.sdk.image_config import chain_ids, digest_of, parse_image_config
from linkspan.sdk.model.container import Container
from linkspan.sdk.model.image import Attachment, Descriptor, Image, ImageConfig, RemovedImage
from linkspan.sdk.reference import Reference, parse_reference

log = logging.getLogger("linkspan.images")

KIND = "image"
Effects = list[RemovedImage]


class ImageStore:
    """What images there are, by id, tag and digest reference."""

    def __init__(
        self, records: Records, drivers: Drivers, publish: Callable[[Event], None]
    ) -> None:
        self._records = records
        self._drivers = drivers
        self._publish = publish
        self._images: dict[str, Image] = {}
        self._names: dict[str, str] = {}
        self._turn = trio.Lock()
        # What a running pull, push or build needs, though no image names it yet.
        self._leases: Counter[str] = Counter()
        self.containers_of: Callable[[str], Sequence[Container]] = lambda _: ()

    async def load(self) -> list[str]:
        """Read the records; return what had to be dropped, a sentence each."""
        said = []
        for key, image in (await self._records.load(KIND, Image)).items():
            try:
                config = parse_image_config(await self._drivers.content.get(key))
                for chain in image.chain_ids:
                    await self._drivers.snapshots.stat(chain)
            except LinkspanError as error:
                # A layer that was not durable before a power cut is unpacked again by the next pull.
                said.append(f"image {', '.join(image.repo_tags) or key[:19]} was dropped: {error}")
                await self._records.delete(KIND, key)
                continue
            self._remember(attrs.evolve(image, config=config))
        return said

    def _remember(self, image: Image) -> None:
        self._images[image.id] = image
        for name in (*image.repo_tags, *image.repo_digests):
            self._names[name] = image.id

    async def _write(self, image: Image) -> None:
        # The config is a blob of its own; the record need not repeat it.
        await self._records.put(KIND, image.id, attrs.evolve(image, config=ImageConfig()))
        before = self._images.get(image.id)
        if before is not None:
            for name in (*before.repo_tags, *before.repo_digests):
                if self._names.get(name) == image.id:
                    del self._names[name]
        self._remember(image)

    @contextmanager
    def lease(self, names: Iterable[str]) -> Iterator[None]:
        """Keep layers and blobs from being removed while they are worked with."""
        held = list(names)
        self._leases.update(held)
        try:
            yield
        finally:
            self._leases.subtract(held)
            for name in held:
                if self._leases[name] <= 0:
                    del self._leases[name]

    def list(self) -> Sequence[Image]:
        """All images, newest first."""
        return sorted(self._images.values(), key=lambda i: epoch_ns(i.config.created), reverse=True)

    def find(self, ref: str) -> Image | None:
        """An image by id, reference or unique id prefix, in Docker's order; None if there is none.

        Raises:
            InvalidArgument: The text is no reference, or a prefix of several ids.
        """
        if ref in self._images:
            return self._images[ref]
        if f"sha256:{ref}" in self._images:
            return self._images[f"sha256:{ref}"]
        ids = [i.removeprefix("sha256:") for i in self._images]
        if ref.startswith("sha256:"):
            found = by_prefix(ref.removeprefix("sha256:"), ids)
            return self._images[f"sha256:{found}"] if found else None
        reference: Reference | None = None
        try:
            reference = parse_reference(ref).with_default_tag()
        except InvalidArgument:
            if by_prefix(ref, ids) is None:
                raise
        if reference is not None:
            named = self._by_reference(reference)
            if named is not None:
                return named
        found = by_prefix(ref, ids)
        return self._images[f"sha256:{found}"] if found else None

    def _by_reference(self, reference: Reference) -> Image | None:
        if reference.digest:
            # With both, the digest decides.
            found = self._names.get(f"{reference.familiar_name}@{reference.digest}")
        else:
            found = self._names.get(reference.familiar)
        return self._images[found] if found else None

    def holder(self, tag: str) -> Image | None:
        """The image that has a familiar reference now."""
        found = self._names.get(tag)
        return self._images[found] if found else None

    def tags_of(self, name: str) -> Sequence[str]:
        """All tags of a familiar repository name."""
        return sorted(n for n in self._names if n.rpartition(":")[0] == name and "@" not in n)

    def inspect(self, ref: str) -> Image:
        """One image.

        Raises:
            NotFound: code ``image_not_found``.
        """
        image = self.find(ref)
        if image is None:
            shown = ref
            if not ref.startswith("sha256:"):
                shown = parse_reference(ref).with_default_tag().familiar
            raise NotFound(
                f"No such image: {shown}", code="image_not_found", details={"image": shown}
            )
        return image

    async def add(
        self, image: Image, *, tags: Sequence[str] = (), digests: Sequence[str] = ()
    ) -> Image:
        """Store an image, or add names to the one that is there."""
        async with self._turn:
            before = self._images.get(image.id)
            if before is not None:
                image = attrs.evolve(
                    image,
                    repo_tags=before.repo_tags,
                    repo_digests=before.repo_digests,
                    layers=_known(image.layers, before.layers),
                    manifests=tuple(
                        {m.digest: m for m in (*before.manifests, *image.manifests)}.values()
                    ),
                    attachments=before.attachments,
                    parent=before.parent or image.parent,
                    last_tagged_at=before.last_tagged_at,
                )
            added = tuple(d for d in digests if d not in image.repo_digests)
            await self._write(attrs.evolve(image, repo_digests=(*image.repo_digests, *added)))
            for tag in tags:
                await self._tag(image.id, tag)
            return self._images[image.id]

    async def add_new(self, new: NewImage, *, tags: Sequence[str] = ()) -> Image:
        """Store what a builder made.

        Raises:
            InvalidArgument: The config's diff ids are not those of the layers.
        """
        config = parse_image_config(new.config)
        if chain_ids(config.diff_ids) != new.chain_ids:
            raise InvalidArgument(
                "the image's config does not name the layers it was given", code="bad_image_config"
            )
        names = tag_names(tags)
        with self.lease((digest_of(new.config), *new.chain_ids)):
            layers = [await self._drivers.snapshots.stat(name) for name in new.chain_ids]
            image_id = await self._drivers.content.put(new.config)
            image = Image(
                id=image_id,
                config=config,
                chain_ids=new.chain_ids,
                layers=self._blobs_of(new.chain_ids),
                size_bytes=sum(layer.size_bytes for layer in layers),
                parent=new.parent,
            )
            known = image_id in self._images
            image = await self.add(image, tags=names)
        if not known:
            self._publish(image_event("create", image, image_id))
        for name in names:
            self._publish(image_event("tag", image, name))
        return image

    def _blobs_of(self, chains: Sequence[str]) -> tuple[Descriptor | None, ...]:
        """Blobs that other images have for the same layers: they need not be made again."""
        known = {
            chain: blob
            for image in self._images.values()
            for chain, blob in zip(image.chain_ids, image.layers, strict=False)
            if blob is not None
        }
        return tuple(known.get(chain) for chain in chains)

    async def tag(self, ref: str, reference: str) -> None:
        """Give an image one more name; taken from the image that had it."""
        name = _tag_name(reference)
        async with self._turn:
            image = self.inspect(ref)
            await self._tag(image.id, name)
        self._publish(image_event("tag", image, name))

    async def _tag(self, image_id: str, name: str) -> None:
        holder = self._names.get(name)
        if holder == image_id:
            return
        if holder is not None:
            other = self._images[holder]
            await self._write(
                attrs.evolve(other, repo_tags=tuple(t for t in other.repo_tags if t != name))
            )
        image = self._images[image_id]
        await self._write(
            attrs.evolve(image, repo_tags=(*image.repo_tags, name), last_tagged_at=rfc3339())
        )

    async def update(self, image: Image) -> None:
        """Write an image whose blobs or digests are known now."""
        async with self._turn:
            current = self._images.get(image.id)
            if current is None:
                return
            digests = tuple(dict.fromkeys((*current.repo_digests, *image.repo_digests)))
            await self._write(
                attrs.evolve(
                    current, layers=image.layers, manifests=image.manifests, repo_digests=digests
                )
            )

    async def add_digest(self, image_id: str, name: str) -> None:
        """Know an image by the digest of an index that it is in, too."""
        async with self._turn:
            current = self._images.get(image_id)
            if current is not None and name not in current.repo_digests:
                digests = (*current.repo_digests, name)
                await self._write(attrs.evolve(current, repo_digests=digests))

    async def attach(self, ref: str, attachment: Attachment) -> None:
        """Keep a document with an image, in place of the one of its media type."""
        kind, digest = attachment.media_type, digest_of(attachment.data)
        with self.lease((digest,)):
            await self._drivers.content.put(attachment.data)
            async with self._turn:
                image = self.inspect(ref)
                before = {each.media_type: each for each in image.attachments}
                after = {
                    **before,
                    kind: Descriptor(
                        media_type=kind, digest=digest, size_bytes=len(attachment.data)
                    ),
                }
                await self._write(attrs.evolve(image, attachments=tuple(after.values())))
        if kind in before:
            await self.drop((), [before[kind].digest])

    async def attachments(self, ref: str) -> Sequence[Attachment]:
        """What is attached to an image."""
        return [
            Attachment(
                media_type=each.media_type, data=await self._drivers.content.get(each.digest)
            )
            for each in self.inspect(ref).attachments
        ]

    async def remove(
        self, ref: str, *, force: bool = False, prune_parents: bool = True
    ) -> Sequence[RemovedImage]:
        """Untag, and delete what has no name and no user left."""
        async with self._turn:
            image = self.inspect(ref)
            by_id = self._is_id(ref, image)
            effects: Effects = []
            if not by_id:
                left = self._names_without(image, ref)
                if left:
                    await self._untag(image, left, effects)
                    return effects
            self._refuse_if_in_use(image, ref, by_id=by_id, force=force)
            await self._untag(image, (), effects)
            in_use = any(c.state.running for c in self.containers_of(image.id))
            if not in_use and not self._has_children(image.id):
                await self._delete(image.id, effects, prune_parents=prune_parents)
            return effects

    def _is_id(self, ref: str, image: Image) -> bool:
        bare = ref.removeprefix("sha256:")
        if not image.id.removeprefix("sha256:").startswith(bare):
            return False
        # A name of twelve hex digits that is also a tag: the tag wins.
        return f"{bare}:latest" not in image.repo_tags

    def _names_without(self, image: Image, ref: str) -> tuple[str, ...]:
        reference = parse_reference(ref).with_default_tag()
        gone = {reference.familiar, f"{reference.familiar_name}@{reference.digest}"}
        tags = tuple(t for t in image.repo_tags if t not in gone)
        same_repository = any(t.rpartition(":")[0] == reference.familiar_name for t in tags)
        digests = tuple(
            d
            for d in image.repo_digests
            if d not in gone and (same_repository or d.partition("@")[0] != reference.familiar_name)
        )
        return (*tags, *digests)

    async def _untag(self, image: Image, keep: Sequence[str], effects: Effects) -> None:
        names = (*image.repo_tags, *image.repo_digests)
        gone = sorted(name for name in names if name not in keep)
        await self._write(
            attrs.evolve(
                image,
                repo_tags=tuple(t for t in image.repo_tags if t in keep),
                repo_digests=tuple(d for d in image.repo_digests if d in keep),
            )
        )
        effects += [RemovedImage(untagged=name) for name in gone]
        # A tag's digest goes with it, and is no event of its own.
        for name in [name for name in gone if name in image.repo_tags] or gone[:1]:
            self._publish(image_event("untag", image, name))

    def _refuse_if_in_use(self, image: Image, ref: str, *, by_id: bool, force: bool) -> None:
        short = image.id.removeprefix("sha256:")[:12]
        if by_id and self._has_children(image.id):
            raise _in_use(short, "cannot be forced", "image has dependent child images")
        if by_id and not force and not _is_single(image):
            raise _in_use(short, "must be forced", "image is referenced in multiple repositories")
        users = self.containers_of(image.id)
        running = next((c for c in users if c.state.running), None)
        if running is not None:
            if by_id:
                raise _in_use(
                    short,
                    "cannot be forced",
                    f"image is being used by running container {running.short_id}",
                )
            if not force:
                raise _reference_in_use(ref, running.short_id, short)
        elif users and not force:
            if not by_id:
                raise _reference_in_use(ref, users[0].short_id, short)
            raise _in_use(
                short,
                "must be forced",
                f"image is being used by stopped container {users[0].short_id}",
            )

    def _has_children(self, image_id: str) -> bool:
        return any(image.parent == image_id for image in self._images.values())

    async def _delete(self, image_id: str, effects: Effects, *, prune_parents: bool) -> None:
        image = self._images[image_id]
        await self._records.delete(KIND, image_id)
        del self._images[image_id]
        effects.append(RemovedImage(deleted=image_id))
        self._publish(
            Event(type="image", action="delete", actor_id=image_id, attributes={"name": image_id})
        )
        await self._free(image, effects)
        parent = self._images.get(image.parent)
        if (
            prune_parents
            and parent is not None
            and not parent.repo_tags
            and not parent.repo_digests
            and not self.containers_of(parent.id)
            and not self._has_children(parent.id)
        ):
            await self._delete(parent.id, effects, prune_parents=True)

    async def _free(self, image: Image, effects: Effects) -> None:
        layers, blobs = await self.needed()
        for chain in reversed(image.chain_ids):
            if chain in layers:
                break
            try:
                await self._drivers.snapshots.remove_layer(chain)
            except Conflict:
                # A container that outlived its image stands on it; gc takes it later.
                break
            effects.append(RemovedImage(deleted=chain))
        mine = {
            image.id,
            *(b.digest for b in image.layers if b),
            *(m.digest for m in (*image.manifests, *image.attachments)),
        }
        for digest in mine - blobs:
            await self._drivers.content.delete(digest)

    async def needed(self) -> tuple[set[str], set[str]]:
        """Layers and blobs that images, leases or the builder's cache still need."""
        layers = {chain for image in self._images.values() for chain in image.chain_ids}
        blobs = set(self._images)
        for image in self._images.values():
            blobs.update(blob.digest for blob in image.layers if blob)
            blobs.update(each.digest for each in (*image.manifests, *image.attachments))
        layers.update(self._leases)
        blobs.update(self._leases)
        for name in self._drivers.names("builder"):
            layers.update(await self._drivers.get("builder", name).cached_layers())
        return layers, blobs

    async def drop(self, chains: Sequence[str], blobs: Iterable[str]) -> None:
        """Remove layers, the upper ones first, and blobs, as far as nothing needs them."""
        async with self._turn:
            layers, needed = await self.needed()
            for chain in chains:
                if chain not in layers:
                    with suppress(Conflict):
                        await self._drivers.snapshots.remove_layer(chain)
            for digest in set(blobs) - needed:
                await self._drivers.content.delete(digest)

    async def gc(self, snapshots: Iterable[str], *, at_once: bool) -> dict[str, str]:
        """Remove layers, snapshots and blobs that nothing needs; what was removed → why.

        Args:
            snapshots: Keys of the snapshots in use.
            at_once: Also blobs that are new: what a failed pull has left for its next try.
        """
        async with self._turn:
            layers, blobs = await self.needed()
            removed = dict(await self._drivers.snapshots.gc([*layers, *snapshots]))
            removed |= await self._drivers.content.gc(blobs)
            for blob in await self._drivers.content.list() if at_once else ():
                if blob.digest not in blobs:
                    await self._drivers.content.delete(blob.digest)
                    removed[blob.digest] = "blob of no image"
            return removed


def tag_names(tags: Sequence[str]) -> list[str]:
    """Tags as they are stored. Raises InvalidArgument."""
    return [_tag_name(tag) for tag in tags]


def _known(
    new: Sequence[Descriptor | None], old: Sequence[Descriptor | None]
) -> tuple[Descriptor | None, ...]:
    if len(new) != len(old):
        return tuple(new)
    return tuple(n or o for n, o in zip(new, old, strict=True))


def _tag_name(text: str) -> str:
    reference = parse_reference(text)
    if reference.digest:
        raise InvalidArgument("refusing to create a tag with a digest reference")
    if reference.familiar_name == "sha256":
        raise InvalidArgument("refusing to create an ambiguous tag using digest algorithm as name")
    return reference.with_default_tag().familiar


def _is_single(image: Image) -> bool:
    """Whether removing by id loses no name that somebody may not have meant (moby, isSingleReference)."""
    digests = {name.partition("@")[0] for name in image.repo_digests}
    if len(image.repo_tags) + len(image.repo_digests) <= 1:
        return True
    if len(image.repo_tags) > 1 or len(digests) != 1:
        return False
    return not image.repo_tags or image.repo_tags[0].rpartition(":")[0] in digests


def _in_use(short: str, how: str, why: str) -> Conflict:
    return Conflict(f"conflict: unable to delete {short} ({how}) - {why}", code="image_in_use")


def _reference_in_use(ref: str, container: str, image: str) -> Conflict:
    return Conflict(
        f'conflict: unable to remove repository reference "{ref}" (must force) - container {container} '
        f"is using its referenced image {image}",
        code="image_in_use",
    )
