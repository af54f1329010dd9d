"""``build``: an image from a context in the workspace."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import trio

from linkspan.plugins.standard_steps.base import StandardStep
from linkspan.plugins.standard_steps.image_names import drop_if_new, id_of, names_now, take_back
from linkspan.plugins.standard_steps.places import inside
from linkspan.plugins.standard_steps.platforms import keep_together, wanted_platforms
from linkspan.plugins.standard_steps.provenance import PREDICATE, predicate
from linkspan.plugins.standard_steps.spdx import SPDX, created_of, sbom
from linkspan.sdk.clock import rfc3339
from linkspan.sdk.drivers.builder import (
    Builder,
    BuilderCap,
    BuildRequest,
    BuildResult,
    CacheExport,
    CacheImport,
)
from linkspan.sdk.drivers.step import StepContext
from linkspan.sdk.errors import NotFound, Unsupported
from linkspan.sdk.model.image import Attachment
from linkspan.sdk.model.step import StepChange, StepIntent, StepOutcome, StepPlan
from linkspan.sdk.reference import parse_reference
from linkspan.sdk.units import counted


class BuildStep(StandardStep):
    """Builds with the chosen builder; finished layers of a build that was cut off are in its cache."""

    async def plan(self, intent: StepIntent) -> StepPlan:
        """The tags that will name the new image, and where its steps are kept for others.

        Raises:
            InvalidArgument: This machine cannot run its commands for one of the platforms.
        """
        tags = _tags(intent)
        platforms = wanted_platforms(intent.settings)
        await self._preflight(intent, platforms)
        which = ", ".join(filter(None, platforms))
        made = tuple(StepChange(action="create", what=f"image {tag}", detail=which) for tag in tags)
        kept = tuple(
            StepChange(action="change", what=f"{export.reference} in its registry", detail="cache")
            for export in _cache_to(intent)
        )
        return StepPlan(
            changes=(made or (StepChange(action="create", what="image", detail=which),)) + kept,
            undo=names_now(self.host, tags),
        )

    async def _preflight(self, intent: StepIntent, platforms: Sequence[str]) -> None:
        """Ask the builder before anything is built; files that another step will write are not there yet."""
        builder: Builder[Any] = self.driver("builder", intent)
        context = intent.workspace / intent.settings["context"]
        file = context / intent.settings["file"]
        for platform in filter(None, platforms):
            if await trio.to_thread.run_sync(file.is_file):
                await builder.preflight(_request(intent, platform))

    async def apply(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Build and tag.

        Raises:
            NotFound: There is no such folder in the workspace; code ``context_not_found``.
            InvalidArgument: The file is wrong, or the context leads out of the workspace.
            LinkspanError: A command of the file failed; code ``build_failed``.
        If cancelled: no image is left; finished layers stay in the cache.
        """
        tags = _tags(intent)
        platforms = wanted_platforms(intent.settings)
        images: dict[str, str] = {}
        try:
            for platform in platforms:
                if len(platforms) > 1:
                    context.log(f"building for {platform}")
                images[platform] = await self._build(intent, platform, context)
        except BaseException:
            with trio.CancelScope(shield=True):
                for image_id in images.values() if intent.undo else ():
                    await drop_if_new(self.host, intent.undo, image_id)
            raise
        # This machine's own, if it is among them, else the one that was named last.
        main = images[platforms[-1]]
        for tag in tags if len(platforms) > 1 else ():
            await self.host.engine.images.tag(main, tag)
        await keep_together(self.host, main, images)
        named = {platform: image_id for platform, image_id in images.items() if platform}
        return {"id": main, "image": tags[0] if tags else main, "images": named}

    async def _build(self, intent: StepIntent, platform: str, context: StepContext) -> str:
        """Build for one platform; the image's id."""
        request = _request(intent, platform)
        builder: Builder[Any] = self.driver("builder", intent)
        if request.packages and BuilderCap.PACKAGES not in builder.capabilities:
            raise Unsupported("the builder cannot look for packages", help="sbom: false")
        started = rfc3339()
        result = await builder.build(request, context.progress)
        context.log(f"{result.steps} steps, {result.cached_steps} of them cached")
        await self._tell_how(intent, request, result, started)
        if request.packages:
            await self._list_packages(result, _tags(intent), context)
        return result.image_id

    async def _tell_how(
        self, intent: StepIntent, request: BuildRequest, result: BuildResult, started: str
    ) -> None:
        """Keep with the image how it was made, for whoever pushes it with its provenance."""
        daemon = self.host.daemon
        data = predicate(
            intent,
            request,
            result.bases,
            daemon=daemon.id,
            version=daemon.version,
            started=started,
            finished=rfc3339(),
        )
        known = Attachment(media_type=PREDICATE, data=data)
        await self.host.engine.images.attach(result.image_id, known)

    async def _list_packages(
        self, result: BuildResult, tags: Sequence[str], context: StepContext
    ) -> None:
        """Keep with the image what is installed in it; ``push`` sends it along."""
        for fault in result.unread:
            context.log(f"not in the SBOM: {fault}")
        images = self.host.engine.images
        write = partial(
            sbom,
            result.image_id,
            tags[0] if tags else result.image_id,
            result.packages,
            tool=f"linkspan-{self.host.daemon.version}",
            comment="; ".join(result.unread),
        )
        before = [a for a in await images.attachments(result.image_id) if a.media_type == SPDX]
        # One that says the same stays: a registry that has it need not keep it twice.
        if not any(write(created=created_of(each.data)) == each.data for each in before):
            data = write(created=f"{rfc3339()[:19]}Z")
            await images.attach(result.image_id, Attachment(media_type=SPDX, data=data))
        count = len(result.packages)
        context.log(f"SBOM: {counted(count, 'package')}")

    async def observe(self, intent: StepIntent) -> StepOutcome:
        """Nothing says of which sources an image was made; of unchanged ones it is the one that is here."""
        made: str = intent.outputs.get("id", "")
        wanted = dict.fromkeys((made, *_tags(intent)), made)
        wanted |= {image_id: image_id for image_id in intent.outputs.get("images", {}).values()}
        if made and all(id_of(self.host, name) == found for name, found in wanted.items()):
            return StepOutcome(applied=True, outputs=intent.outputs, detail="the image is here")
        return StepOutcome(applied=False, detail="built again; finished layers are in the cache")

    async def undo(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Give the tags back; an image that was not here before goes, what it gave to a cache stays."""
        return await take_back(self.host, intent)


def _request(intent: StepIntent, platform: str) -> BuildRequest:
    """The request for one platform; of several, the tags are given in the end."""
    settings = intent.settings
    return BuildRequest(
        context=_context(intent),
        file=settings["file"],
        tags=() if len(settings.get("platforms", ())) > 1 else _tags(intent),
        args=settings.get("args", {}),
        labels=settings.get("labels", {}),
        target=settings.get("target", ""),
        no_cache=settings.get("no-cache", False),
        pull=settings.get("pull", False),
        platform=platform,
        cache_from=tuple(
            # Whoever else builds may have pushed a newer one since.
            CacheImport(reference=_reference(name), fresh=True)
            for name in settings.get("cache-from", [])
        ),
        cache_to=_cache_to(intent),
        secrets={
            name: str(value).encode() for name, value in settings.get("secret-mounts", {}).items()
        },
        packages=settings.get("sbom", False),
    )


def _tags(intent: StepIntent) -> tuple[str, ...]:
    tags: list[str] = intent.settings.get("tags", [])
    return tuple(_reference(tag) for tag in tags)


def _cache_to(intent: StepIntent) -> tuple[CacheExport, ...]:
    """The steps of all stages: what a later build shares is often not in the result."""
    name: str = intent.settings.get("cache-to", "")
    return (CacheExport(reference=_reference(name), every_stage=True, push=True),) if name else ()


def _reference(name: str) -> str:
    return parse_reference(name).with_default_tag().familiar


def _context(intent: StepIntent) -> Path:
    """The context's folder; a link may not lead the builder out of the workspace."""
    name: str = intent.settings["context"]
    folder = inside(intent.workspace, name, "the context")
    if not folder.is_dir():
        raise NotFound(
            f"there is no folder '{name}' in the workspace",
            code="context_not_found",
            help="'context' is relative to the folder of the pipeline",
        )
    return folder
