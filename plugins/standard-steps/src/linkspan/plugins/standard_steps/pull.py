"""``pull``: an image from its registry."""

from collections.abc import Mapping
from typing import Any

import attrs

from linkspan.plugins.standard_steps.base import StandardStep
from linkspan.plugins.standard_steps.image_names import names_now, take_back
from linkspan.sdk.drivers.step import StepContext
from linkspan.sdk.model.step import StepChange, StepIntent, StepOutcome, StepPlan
from linkspan.sdk.reference import parse_reference


class PullStep(StandardStep):
    """Gets what the reference names now."""

    async def plan(self, intent: StepIntent) -> StepPlan:
        """The image that will be here."""
        return StepPlan(
            changes=(StepChange(action="create", what=f"image {intent.settings['image']}"),),
            undo=names_now(self.host, _names(intent.settings["image"])),
        )

    async def apply(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Pull.

        Raises:
            NotFound: The registry has no such image.
            Unavailable: It cannot be reached.
        If cancelled: nothing half-made is left.
        """
        reference = intent.settings["image"]
        image = await self.host.engine.images.pull(
            reference, platform=intent.settings.get("platform", ""), progress=context.progress
        )
        digests = image.repo_digests
        context.log(f"{reference} is {image.id}")
        return {"id": image.id, "image": digests[0] if digests else reference}

    async def observe(self, intent: StepIntent) -> StepOutcome:
        """A tag may have moved: only another pull tells. What is here is not sent again."""
        return StepOutcome(applied=False, detail="pulled again; layers that are here are kept")

    async def undo(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Give the reference back to the image that had it; an image that was not here before goes."""
        return await take_back(self.host, intent)


def _names(text: str) -> list[str]:
    """What a pull may give: the tag, and the digest if one is asked for."""
    reference = parse_reference(text).with_default_tag()
    names = [attrs.evolve(reference, digest="").familiar] if reference.tag else []
    return [*names, f"{reference.familiar_name}@{reference.digest}"] if reference.digest else names
