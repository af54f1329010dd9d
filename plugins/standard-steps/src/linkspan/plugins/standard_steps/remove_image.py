"""``remove-image``: an image off this machine."""

from collections.abc import Mapping
from typing import Any

from linkspan.plugins.standard_steps.base import StandardStep
from linkspan.plugins.standard_steps.image_names import id_of
from linkspan.sdk.drivers.step import StepContext
from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound
from linkspan.sdk.model.image import Image
from linkspan.sdk.model.step import StepChange, StepIntent, StepOutcome, StepPlan
from linkspan.sdk.reference import parse_reference


class RemoveImageStep(StandardStep):
    """Untags an image; the last tag takes its layers along, unless a container uses them."""

    async def plan(self, intent: StepIntent) -> StepPlan:
        """The image that will be gone, or only one of its names."""
        ref: str = intent.settings["image"]
        try:
            image = self.host.engine.images.inspect(ref)
        except NotFound:
            return StepPlan(changes=(StepChange(action="none", what=f"image {ref}"),))
        names = _names_taken(image, ref)
        undo = {"id": image.id, "names": names} if names else {}
        if len(names) < len(image.repo_tags):
            return StepPlan(
                changes=(
                    StepChange(action="change", what=f"name {ref}", detail="the image stays"),
                ),
                undo=undo,
            )
        return StepPlan(changes=(StepChange(action="destroy", what=f"image {ref}"),), undo=undo)

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
        if id_of(self.host, intent.settings["image"]):
            return StepOutcome(applied=False, detail="the image is here still")
        return StepOutcome(applied=True, outputs={"removed": []}, detail="the image is gone")

    async def undo(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Give the names back to the image if it is still here; what is gone is named."""
        image: str = intent.undo["id"]
        told = []
        for name in intent.undo["names"]:
            holder = id_of(self.host, name)
            if holder == image:
                continue
            if holder:
                told.append(f"{name} stays: it was given to {holder[:19]} since")
            elif id_of(self.host, image):
                await self.host.engine.images.tag(image, name)
                told.append(f"{name} is {image[:19]} again")
            else:
                told.append(f"cannot be taken back: {name}; its image {image[:19]} is gone")
        return {"detail": "; ".join(told) or "nothing to take back"}


def _names_taken(image: Image, ref: str) -> list[str]:
    """The tags that go: the one that is named, or all of an image that is named by its id."""
    try:
        reference = parse_reference(ref).with_default_tag()
    except InvalidArgument:
        return list(image.repo_tags)
    if reference.familiar in image.repo_tags:
        return [reference.familiar]
    return [] if reference.digest else list(image.repo_tags)
