"""Images of the engine in memory, and of the registries that it knows."""

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import attrs
import trio

from linkspan.sdk.clock import rfc3339
from linkspan.sdk.errors import (
    Conflict,
    InvalidArgument,
    NotFound,
    Unsupported,
)
from linkspan.sdk.events import Event
from linkspan.sdk.host import NewImage
from linkspan.sdk.image_config import parse_image_config
from linkspan.sdk.model.container import (
    Container,
)
from linkspan.sdk.model.image import (
    Attachment,
    Credentials,
    Image,
    ImageConfig,
    PushResult,
    RemovedImage,
)
from linkspan.sdk.progress import Progress, ProgressSink, ignore_progress
from linkspan.sdk.reference import parse_reference
from linkspan.sdk.testing.fakes.engine_events import FakeEvents

_ANONYMOUS = Credentials()
_NO_LAYERS = "images of the fake engine have no layers"


def make_image(*tags: str, command: tuple[str, ...] = ("sleep", "1000"), **config: Any) -> Image:
    """An image for tests.

    Args:
        tags: ``app:1``.
        config: Further fields of ``ImageConfig``.
    """
    layers = ("sha256:" + hashlib.sha256(b"layer").hexdigest(),)
    digest = hashlib.sha256(json.dumps([tags, command, str(config)]).encode()).hexdigest()
    return Image(
        id=f"sha256:{digest}",
        config=ImageConfig(created=rfc3339(), command=command, diff_ids=layers, **config),
        repo_tags=tags,
        chain_ids=layers,
        size_bytes=1000,
    )


Users = Callable[[str], Sequence[Container]]
"""Containers that use an image, by its id."""


class FakeImages:
    """Images by reference.

    Attributes:
        remote: What registries have: familiar reference with tag → image; pulls take from it, pushes put
            into it.
        failure: Raised by the next pull or push, after its first word.
    """

    def __init__(self, events: FakeEvents, users: Users) -> None:
        self._events = events
        self._users = users
        self._local: dict[str, Image] = {}
        self._attached: dict[str, dict[str, Attachment]] = {}
        self.remote: dict[str, Image] = {}
        self.failure: Exception | None = None

    def put(self, image: Image) -> Image:
        """Have an image here; its tags are taken from others."""
        for other in list(self._local.values()):
            kept = tuple(t for t in other.repo_tags if t not in image.repo_tags)
            self._local[other.id] = attrs.evolve(other, repo_tags=kept)
        self._local[image.id] = image
        return image

    def list(self) -> Sequence[Image]:
        return sorted(self._local.values(), key=lambda i: i.config.created, reverse=True)

    def _find(self, ref: str) -> Image | None:
        for image in self._local.values():
            digits = image.id.removeprefix("sha256:")
            if ref == image.id or (len(ref) > 3 and digits.startswith(ref.removeprefix("sha256:"))):
                return image
        try:
            reference = parse_reference(ref).with_default_tag()
        except InvalidArgument:
            return None
        tag = attrs.evolve(reference, digest="").familiar if reference.tag else ""
        digest = f"{reference.familiar_name}@{reference.digest}"
        for image in self._local.values():
            if tag in image.repo_tags or (reference.digest and digest in image.repo_digests):
                return image
        return None

    def inspect(self, ref: str) -> Image:
        image = self._find(ref)
        if image is None:
            raise NotFound(f"No such image: {ref}", code="image_not_found")
        return image

    async def pull(
        self,
        reference: str,
        *,
        credentials: Credentials = _ANONYMOUS,
        platform: str = "",
        progress: ProgressSink = ignore_progress,
    ) -> Image:
        parsed = parse_reference(reference).with_default_tag()
        progress(Progress(status=f"Pulling from {parsed.path}", id=parsed.tag or parsed.digest))
        await self._fail()
        wanted = attrs.evolve(parsed, digest="").familiar if parsed.tag else parsed.familiar
        found = self.remote.get(wanted)
        if found is None:
            raise NotFound(
                f"manifest for {wanted} not found: manifest unknown: manifest unknown",
                code="manifest_unknown",
            )
        layer = found.chain_ids[0].removeprefix("sha256:")[:12] if found.chain_ids else ""
        progress(Progress(status="Pulling fs layer", id=layer))
        await trio.lowlevel.checkpoint()
        progress(Progress(status="Downloading", id=layer, current=500, total=1000))
        progress(Progress(status="Downloading", id=layer, current=1000, total=1000))
        progress(Progress(status="Pull complete", id=layer))
        same = self._find(wanted) is not None
        digest = f"sha256:{hashlib.sha256(found.id.encode()).hexdigest()}"
        image = self.put(
            attrs.evolve(
                found, repo_tags=(wanted,), repo_digests=(f"{parsed.familiar_name}@{digest}",)
            )
        )
        progress(Progress(status=f"Digest: {digest}"))
        what = "Image is up to date" if same else "Downloaded newer image"
        progress(Progress(status=f"Status: {what} for {wanted}"))
        self._tell("pull", image)
        return image

    async def push(
        self,
        reference: str,
        *,
        credentials: Credentials = _ANONYMOUS,
        progress: ProgressSink = ignore_progress,
    ) -> PushResult:
        parsed = parse_reference(reference).with_default_tag()
        image = self._find(reference)
        if image is None:
            raise NotFound(f"An image does not exist locally with the tag: {parsed.familiar_name}")
        progress(Progress(status=f"The push refers to repository [{parsed.name}]"))
        await self._fail()
        digest = f"sha256:{hashlib.sha256(image.id.encode()).hexdigest()}"
        self.remote[parsed.familiar] = image
        self._local[image.id] = attrs.evolve(
            image, repo_digests=(*image.repo_digests, f"{parsed.familiar_name}@{digest}")
        )
        progress(Progress(status=f"{parsed.tag}: digest: {digest} size: 527"))
        progress(Progress(aux={"Tag": parsed.tag, "Digest": digest, "Size": 527}))
        self._tell("push", image)
        return PushResult(reference=reference, digest=digest, size_bytes=527)

    async def push_index(
        self,
        reference: str,
        refs: Sequence[str],
        *,
        credentials: Credentials = _ANONYMOUS,
        progress: ProgressSink = ignore_progress,
    ) -> PushResult:
        parsed = parse_reference(reference).with_default_tag()
        images = [self.inspect(ref) for ref in refs]
        await self._fail()
        self.remote[parsed.familiar] = images[0]
        together = "".join(image.id for image in images)
        digest = f"sha256:{hashlib.sha256(together.encode()).hexdigest()}"
        self._tell("push", images[0])
        return PushResult(reference=reference, digest=digest, size_bytes=527)

    async def _fail(self) -> None:
        await trio.lowlevel.checkpoint()
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure

    async def tag(self, ref: str, reference: str) -> None:
        image = self.inspect(ref)
        name = parse_reference(reference).with_default_tag().familiar
        await trio.lowlevel.checkpoint()
        self.put(attrs.evolve(image, repo_tags=(*image.repo_tags, name)))
        self._tell("tag", image)

    async def remove(
        self, ref: str, *, force: bool = False, prune_parents: bool = True
    ) -> Sequence[RemovedImage]:
        image = self.inspect(ref)
        await trio.lowlevel.checkpoint()
        by_id = image.id.removeprefix("sha256:").startswith(ref.removeprefix("sha256:"))
        tags = image.repo_tags if by_id else (parse_reference(ref).with_default_tag().familiar,)
        left = tuple(t for t in image.repo_tags if t not in tags)
        users = self._users(image.id)
        if not left and users and not force:
            raise Conflict(
                f"conflict: unable to delete {image.id[7:19]} (must be forced) - image is being used by "
                f"container {users[0].short_id}",
                code="image_in_use",
            )
        removed = [RemovedImage(untagged=tag) for tag in tags]
        if left or users:
            self._local[image.id] = attrs.evolve(image, repo_tags=left)
        else:
            del self._local[image.id]
            removed.append(RemovedImage(deleted=image.id))
        return removed

    async def add(self, new: NewImage, *, tags: Sequence[str] = ()) -> Image:
        await trio.lowlevel.checkpoint()
        return self.put(
            Image(
                id=f"sha256:{hashlib.sha256(new.config).hexdigest()}",
                config=parse_image_config(new.config),
                repo_tags=tuple(parse_reference(t).with_default_tag().familiar for t in tags),
                chain_ids=new.chain_ids,
                parent=new.parent,
            )
        )

    async def attach(self, ref: str, attachment: Attachment) -> None:
        kept = self._attached.setdefault(self.inspect(ref).id, {})
        kept[attachment.media_type] = attachment
        await trio.lowlevel.checkpoint()

    async def attachments(self, ref: str) -> Sequence[Attachment]:
        await trio.lowlevel.checkpoint()
        return list(self._attached.get(self.inspect(ref).id, {}).values())

    def save(
        self, refs: Sequence[str], *, platform: str = ""
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        raise Unsupported(_NO_LAYERS)

    async def load(
        self,
        source: AsyncIterator[bytes],
        *,
        platform: str = "",
        progress: ProgressSink = ignore_progress,
    ) -> Sequence[Image]:
        raise Unsupported(_NO_LAYERS)

    async def import_files(
        self,
        source: AsyncIterator[bytes],
        *,
        reference: str = "",
        changes: Sequence[str] = (),
        message: str = "",
        platform: str = "",
    ) -> Image:
        raise Unsupported(_NO_LAYERS)

    def _tell(self, action: str, image: Image) -> None:
        name = image.repo_tags[0] if image.repo_tags else image.id
        self._events.publish(
            Event(type="image", action=action, actor_id=name, attributes={"name": name})
        )
