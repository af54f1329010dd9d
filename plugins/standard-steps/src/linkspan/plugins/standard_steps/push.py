"""``push``: an image to its registry, by one or several tags."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
import trio

from linkspan.plugins.standard_steps.attestations import Artifact, artifacts_of, refer
from linkspan.plugins.standard_steps.base import StandardStep
from linkspan.plugins.standard_steps.image_names import give_back, id_of, names_now
from linkspan.plugins.standard_steps.indexes import image_ids, members
from linkspan.plugins.standard_steps.platforms import built_together
from linkspan.sdk.drivers.registry import Registry
from linkspan.sdk.drivers.step import StepContext
from linkspan.sdk.errors import Conflict, InvalidArgument, LinkspanError, NotFound
from linkspan.sdk.model.image import Credentials, Descriptor, PushResult
from linkspan.sdk.model.step import StepChange, StepIntent, StepOutcome, StepPlan
from linkspan.sdk.reference import Reference, parse_reference

_WE: Final = Credentials()
_ASK_WITHIN_S: Final = 10.0
"""How long a plan waits for the registry: it must not hang where the registry cannot be reached."""


class PushStep(StandardStep):
    """Tags the image as asked and sends it; a registry that has it already gets nothing."""

    async def plan(self, intent: StepIntent) -> StepPlan:
        """The references that will be pushed, and what the registry has there now.

        Raises:
            NotFound: The image is here, but not how it was made, which is to be said; code ``no_provenance``.
        """
        references = _references(intent)
        image_id = id_of(self.host, intent.settings["image"])
        together = await built_together(self.host, image_id) if image_id else {}
        for each in together.values():
            await self._artifacts(intent, each, references[0], "")
        names = [reference.familiar for reference in references]
        held: dict[str, str | None] = {}
        with trio.move_on_after(_ASK_WITHIN_S):
            for reference in references:
                held[reference.familiar] = await self._held(intent, reference)
        return StepPlan(
            changes=tuple(
                StepChange(action="change", what=f"{name} in its registry", detail=image_id[:19])
                for name in names
            ),
            undo={
                "held": {name: held.get(name) for name in names},
                "image": image_id,
                "images": list(together.values()),
                **names_now(self.host, names),
            },
        )

    async def _held(self, intent: StepIntent, reference: Reference) -> str | None:
        """The digest that a tag has in its registry: empty if it is not there, None if nobody can say."""
        registry: Registry[Any] = self.driver("registry", intent)
        try:
            return (await registry.manifest(reference, _WE)).descriptor.digest
        except NotFound:
            return ""
        except LinkspanError:
            # Whether it can be pushed is found out by pushing.
            return None

    async def apply(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Push.

        Raises:
            NotFound: The image is not here; or its provenance is asked for and not known (code
                ``no_provenance``), and nothing is pushed.
            Unavailable: The registry cannot be reached.
            Unauthenticated, PermissionDenied: It wants other credentials.
        If cancelled: what is in the registry is whole; tags not reached are as they were.
        """
        image = self.host.engine.images.inspect(intent.settings["image"])
        together = await built_together(self.host, image.id)
        digest, pushed = "", ""
        # Asked before anything is sent: what is missing then is missing now.
        for each in together.values():
            await self._artifacts(intent, each, _references(intent)[0], "")
        for reference in _references(intent):
            await self.host.engine.images.tag(image.id, reference.familiar)
            result = await self._push(reference, tuple(together.values()), context)
            context.log(f"pushed {reference.familiar} {result.digest}")
            if not pushed:
                digest = result.digest
                pushed = f"{reference.familiar_name}@{digest}"
        for reference in {each.name: each for each in _references(intent)}.values():
            place = attrs.evolve(reference, tag="", digest=digest)
            top = await self.driver("registry", intent).manifest(place, _WE)
            for each, sent in zip(together.values(), members(top), strict=True):
                await self._attest(intent, each, reference, sent, context)
        return {"image": pushed, "digest": digest}

    async def _push(
        self, reference: Reference, images: Sequence[str], context: StepContext
    ) -> PushResult:
        engine = self.host.engine.images
        if len(images) > 1:
            return await engine.push_index(reference.familiar, images, progress=context.progress)
        return await engine.push(reference.familiar, progress=context.progress)

    async def _artifacts(
        self, intent: StepIntent, image_id: str, reference: Reference, digest: str
    ) -> list[Artifact]:
        provenance = intent.settings.get("provenance", False)
        return await artifacts_of(self.host, image_id, reference, digest, provenance=provenance)

    async def _attest(
        self,
        intent: StepIntent,
        image_id: str,
        reference: Reference,
        sent: Descriptor,
        context: StepContext,
    ) -> None:
        """Send along what is known about an image that was sent."""
        registry: Registry[Any] = self.driver("registry", intent)
        for artifact in await self._artifacts(intent, image_id, reference, sent.digest):
            name = await refer(registry, reference, sent, artifact)
            context.log(f"pushed {artifact.kind} of {sent.digest[:19]} as {name}")

    async def observe(self, intent: StepIntent) -> StepOutcome:
        """Ask the registry whether every tag names this very image."""
        try:
            image = self.host.engine.images.inspect(intent.settings["image"])
        except NotFound:
            return StepOutcome(applied=False, detail="the image is not here any more")
        registry: Registry[Any] = self.driver("registry", intent)
        together = await built_together(self.host, image.id)
        first = ""
        for reference in _references(intent):
            try:
                manifest = await registry.manifest(reference, _WE)
            except LinkspanError as error:
                detail = f"registry asked: {reference.familiar} is not there ({error.message})"
                return StepOutcome(applied=False, detail=detail)
            if await image_ids(registry, reference, manifest) != [*together.values()]:
                return StepOutcome(
                    applied=False, detail=f"registry asked: {reference.familiar} is another image"
                )
            first = first or manifest.descriptor.digest
            for each, sent in zip(together.values(), members(manifest), strict=True):
                missing = await self._unattested(intent, each, reference, sent.digest)
                if missing:
                    detail = f"registry asked: {reference.familiar} has no {missing}"
                    return StepOutcome(applied=False, detail=detail)
        name = _references(intent)[0].familiar_name
        return StepOutcome(
            applied=True,
            outputs={"image": f"{name}@{first}", "digest": first},
            detail="registry asked: it was pushed",
        )

    async def _unattested(
        self, intent: StepIntent, image_id: str, reference: Reference, digest: str
    ) -> str:
        """The kind of a document that the registry misses; empty if it has all."""
        wanted = await self._artifacts(intent, image_id, reference, digest)
        if not wanted:
            return ""
        registry: Registry[Any] = self.driver("registry", intent)
        place = attrs.evolve(reference, tag="", digest=digest)
        there = {each.artifact_type for each in await registry.referrers(place, _WE)}
        return next((each.kind for each in wanted if each.kind not in there), "")

    async def undo(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Put back what each tag named in the registry; a tag that was new there goes, names here as well.

        Raises:
            Conflict: Something stays in the registry, which is named; code ``push_remains``.
        """
        told, remains = [], []
        for reference in _references(intent):
            try:
                told += await self._take_back(intent, reference)
            except LinkspanError as error:
                remains.append(f"{reference.familiar} ({error.message})")
        told += await give_back(self.host, intent.undo, intent.undo["image"])
        if remains:
            raise Conflict(
                f"pushed images stay in their registry: {'; '.join(remains)}",
                code="push_remains",
                help="remove the tags there by hand; undoing again goes on from here",
            )
        return {"detail": "; ".join(told) or "nothing to take back"}

    async def _take_back(self, intent: StepIntent, reference: Reference) -> list[str]:
        """Put one tag of a registry back; what was done, or why it stays."""
        registry: Registry[Any] = self.driver("registry", intent)
        name, before = reference.familiar, intent.undo["held"][reference.familiar]
        try:
            now = await registry.manifest(reference, _WE)
        except NotFound:
            return []
        digest = now.descriptor.digest
        if digest == before:
            return []
        ours = digest == intent.outputs.get("digest")
        if not ours and await image_ids(registry, reference, now) != _sent(intent):
            return [f"{name} stays in its registry: another image was pushed since"]
        if before is None:
            return [f"{name} stays in its registry: it did not say what was there before"]
        if not before:
            await registry.remove_tag(reference, _WE)
            return [f"{name} is gone from its registry"]
        former = attrs.evolve(reference, tag="", digest=before)
        old = await registry.manifest(former, _WE)
        await registry.push_manifest(reference, old.descriptor.media_type, old.data, _WE)
        return [f"{name} is {before[:19]} in its registry again"]


def _references(intent: StepIntent) -> list[Reference]:
    tags: list[str] = intent.settings.get("tags", [])
    image: str = intent.settings["image"]
    if not tags and (image.startswith("sha256:") or "@" in image):
        raise InvalidArgument(
            f"'{image}' names no tag to push to",
            help="tags: [registry.example.test/team/app:1.0]",
        )
    found = [parse_reference(text).with_default_tag() for text in tags or [image]]
    # A digest says which image it is; where it goes is said by the tag.
    return [attrs.evolve(reference, digest="") for reference in found]


def _sent(intent: StepIntent) -> list[str]:
    """Ids of the images that were to be pushed."""
    found: list[str] = intent.undo.get("images") or [intent.undo["image"]]
    return found
