"""``remove-image``: an image off this machine."""

from collections.abc import Mapping
from typing import Any

from linkspan.plugins.standard_steps.base import StandardStep
from linkspan.sdk.drivers.step import StepContext
from linkspan.sdk.errors import Conflict, NotFound
from linkspan.sdk.model.step import StepChange, StepIntent, StepOutcome, StepPlan


class RemoveImageStep(StandardStep):
    """Untags an image; the last tag takes its layers along, unless a container uses them."""

    async def plan(self, intent: StepIntent) -> StepPlan:
        """The image that will be gone."""
        image = intent.settings["image"]
        here = self._is_here(image)
        return StepPlan(
            changes=(StepChange(action="destroy" if here else "none", what=f"image {image}"),)
        )

    def _is_here(self, image: str) -> bool:
        try:
            self.host.engine.images.inspect(image)
        except NotFound:
            return False
        return True

    async def apply(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Remove; an image that is not here is no failure, nor one in use with ``unless-used``.

        Raises:
            Conflict: A container uses it, or it has several names and ``force`` is not set.
        If cancelled: it is here or gone, nothing between.
        """
        image = intent.settings["image"]
        try:
            effects = await self.host.engine.images.remove(
                image, force=intent.settings.get("force", False)
            )
        except NotFound:
            context.log(f"{image} is not here")
            return {"removed": []}
        except Conflict as conflict:
            if not intent.settings.get("unless-used", False):
                raise
            context.log(f"{image} stays: {conflict.message}")
            return {"removed": []}
        for effect in effects:
            word = f"untagged {effect.untagged}" if effect.untagged else f"deleted {effect.deleted}"
            context.log(word)
        return {"removed": [effect.untagged or effect.deleted for effect in effects]}

    async def observe(self, intent: StepIntent) -> StepOutcome:
        """Look whether it is here."""
        if self._is_here(intent.settings["image"]):
            return StepOutcome(applied=False, detail="the image is here still")
        return StepOutcome(applied=True, outputs={"removed": []}, detail="the image is gone")
