"""``tag``: more names for an image of this machine."""

from collections.abc import Mapping
from typing import Any

from linkspan.plugins.standard_steps.base import StandardStep
from linkspan.plugins.standard_steps.image_names import give_back, id_of, names_now
from linkspan.sdk.drivers.step import StepContext
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.step import StepChange, StepIntent, StepOutcome, StepPlan
from linkspan.sdk.reference import parse_reference


class TagStep(StandardStep):
    """Gives an image names; a name that another image had is taken from it, and given back by undo."""

    async def plan(self, intent: StepIntent) -> StepPlan:
        """Which names are new and which move."""
        image = id_of(self.host, intent.settings["image"])
        undo = names_now(self.host, _tags(intent))
        changes = []
        for tag, holder in undo["before"].items():
            same = holder != "" and holder == image
            # With the image, so that a plan is stale when the name of it means another.
            after = image[:19] or "new image"
            detail = "" if same else f"{holder[:19]} → {after}" if holder else after
            action: Any = "none" if same else "change" if holder else "create"
            changes.append(StepChange(action=action, what=f"name {tag}", detail=detail))
        return StepPlan(changes=tuple(changes), undo=undo)

    async def apply(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Tag.

        Raises:
            NotFound: The image is not here.
            InvalidArgument: A name is not a reference, or has a digest.
        If cancelled: each name is with the old image or the new one.
        """
        image = self.host.engine.images.inspect(intent.settings["image"])
        for tag in _tags(intent):
            if id_of(self.host, tag) != image.id:
                await self.host.engine.images.tag(image.id, tag)
                context.log(f"{tag} is {image.id}")
        return self._outputs(intent, image.id)

    def _outputs(self, intent: StepIntent, image: str) -> dict[str, Any]:
        return {"id": image, "image": _tags(intent)[0]}

    async def observe(self, intent: StepIntent) -> StepOutcome:
        """Look whether every name is the image's."""
        image = id_of(self.host, intent.settings["image"])
        if not image:
            return StepOutcome(applied=False, detail="the image is not here")
        for tag in _tags(intent):
            if id_of(self.host, tag) != image:
                return StepOutcome(applied=False, detail=f"{tag} is not this image's name yet")
        return StepOutcome(
            applied=True, outputs=self._outputs(intent, image), detail="every name is there"
        )

    async def undo(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Give each name back to the image that had it; a name that was new goes."""
        made = intent.outputs.get("id") or id_of(self.host, intent.settings["image"])
        told = await give_back(self.host, intent.undo, made)
        return {"detail": "; ".join(told) or "nothing to take back"}


def _tags(intent: StepIntent) -> list[str]:
    tags: list[str] = intent.settings["tags"]
    if not tags:
        raise InvalidArgument("'tags' names nothing", help="tags: [app:1.0]")
    found = [parse_reference(text).with_default_tag() for text in tags]
    for text, reference in zip(tags, found, strict=True):
        if reference.digest:
            raise InvalidArgument(f"'{text}' has a digest, and a digest cannot be given")
    return [reference.familiar for reference in found]
