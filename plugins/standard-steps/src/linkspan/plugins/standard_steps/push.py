"""``push``: an image to its registry, by one or several tags."""

import json
from collections.abc import Mapping
from typing import Any

import attrs

from linkspan.plugins.standard_steps.base import StandardStep
from linkspan.sdk.drivers.registry import Registry
from linkspan.sdk.drivers.step import StepContext
from linkspan.sdk.errors import InvalidArgument, LinkspanError, NotFound
from linkspan.sdk.model.image import Credentials
from linkspan.sdk.model.step import StepChange, StepIntent, StepOutcome, StepPlan
from linkspan.sdk.reference import Reference, parse_reference


class PushStep(StandardStep):
    """Tags the image as asked and sends it; a registry that has it already gets nothing."""

    async def plan(self, intent: StepIntent) -> StepPlan:
        """The references that will be pushed."""
        return StepPlan(
            changes=tuple(
                StepChange(action="change", what=f"{reference.familiar} in its registry")
                for reference in _references(intent)
            )
        )

    async def apply(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Push.

        Raises:
            NotFound: The image is not here.
            Unavailable: The registry cannot be reached.
            Unauthenticated, PermissionDenied: It wants other credentials.
        If cancelled: what is in the registry is whole; tags not reached are as they were.
        """
        image = self.host.engine.images.inspect(intent.settings["image"])
        digest, pushed = "", ""
        for reference in _references(intent):
            await self.host.engine.images.tag(image.id, reference.familiar)
            result = await self.host.engine.images.push(
                reference.familiar, progress=context.progress
            )
            context.log(f"pushed {reference.familiar} {result.digest}")
            if not pushed:
                digest = result.digest
                pushed = f"{reference.familiar_name}@{digest}"
        return {"image": pushed, "digest": digest}

    async def observe(self, intent: StepIntent) -> StepOutcome:
        """Ask the registry whether every tag names this very image."""
        try:
            image = self.host.engine.images.inspect(intent.settings["image"])
        except NotFound:
            return StepOutcome(applied=False, detail="the image is not here any more")
        registry: Registry[Any] = self.driver("registry", intent)
        first = ""
        for reference in _references(intent):
            try:
                manifest = await registry.manifest(reference, Credentials())
            except LinkspanError as error:
                detail = f"registry asked: {reference.familiar} is not there ({error.message})"
                return StepOutcome(applied=False, detail=detail)
            if _config_digest(manifest.data) != image.id:
                return StepOutcome(
                    applied=False, detail=f"registry asked: {reference.familiar} is another image"
                )
            first = first or manifest.descriptor.digest
        name = _references(intent)[0].familiar_name
        return StepOutcome(
            applied=True,
            outputs={"image": f"{name}@{first}", "digest": first},
            detail="registry asked: it was pushed",
        )


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


def _config_digest(manifest: bytes) -> str:
    """The image's id as a manifest says it; empty for an index."""
    try:
        config = json.loads(manifest).get("config", {})
    except ValueError:
        return ""
    return str(config.get("digest", ""))
