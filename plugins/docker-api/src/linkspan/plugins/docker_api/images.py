"""/images: list, pull, push, tag, look at, remove."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import trio

from linkspan.plugins.docker_api.codec_image import (
    encode_history,
    encode_image,
    encode_image_summary,
    registry_auth,
)
from linkspan.plugins.docker_api.filters import Filters, read_filters
from linkspan.plugins.docker_api.graph_driver import graph_driver
from linkspan.plugins.docker_api.image_archives import (
    import_stream,
    join_tag,
    platform_of,
    progress_stream,
    read_platform,
)
from linkspan.plugins.docker_api.image_usage import LayerUsage, encode_manifests
from linkspan.plugins.docker_api.prune_events import tell_pruned
from linkspan.plugins.docker_api.timestamps import epoch_s
from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound, PermissionDenied
from linkspan.sdk.glob import PatternError, filename_glob
from linkspan.sdk.host import Host
from linkspan.sdk.http import Request, Response, Stream, json_response
from linkspan.sdk.model.container import ContainerFilter
from linkspan.sdk.model.image import Image, RemovedImage
from linkspan.sdk.platform import match_rank, other_platform, parse_platform
from linkspan.sdk.progress import Progress, ProgressSink
from linkspan.sdk.reference import DOCKER_DOMAIN, parse_reference

_FILTERS = ("before", "dangling", "label", "label!", "reference", "since", "until")


class ImageRoutes:
    """Images of this machine, and their way to and from registries."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._images = host.engine.images
        self._containers = host.engine.containers
        self._pruning = trio.Lock()

    async def list(self, request: Request) -> Response:
        """GET /images/json."""
        filters = read_filters(request, _FILTERS)
        if request.api_version < (1, 41) and request.query.get("filter"):
            # How clients of API 1.24 asked for a name.
            filters = filters.also("reference", request.query["filter"])
        everything = self._images.list()
        found = [i for i in everything if self._passes(i, filters, everything)]
        if not request.flag("all") and "dangling" not in filters:
            # Steps of a build that stand between two images are not shown.
            found = [
                i for i in found if i.repo_tags or i.repo_digests or not _is_parent(i, everything)
            ]
        found = list(self._between(found, filters))
        if "reference" in filters:
            # As in Docker: of what was found, only the names that were asked for are shown.
            found = [_with_names(image, filters.all("reference")) for image in found]
        return json_response(await self._summaries(request, found, everything))

    async def _summaries(
        self, request: Request, found: Sequence[Image], everything: Sequence[Image]
    ) -> Sequence[Mapping[str, Any]]:
        usage = None
        if request.flag("shared-size") and request.api_version >= (1, 42):
            usage = await LayerUsage.of(self._host, everything)
        with_manifests = request.flag("manifests")
        users = self._containers.list(ContainerFilter(all=True)) if with_manifests else ()
        out = []
        for image in found:
            item = encode_image_summary(
                image,
                containers=-1,
                version=request.api_version,
                shared_bytes=usage.shared_bytes(image) if usage is not None else -1,
            )
            if with_manifests:
                item["Manifests"] = encode_manifests(
                    image, [c.id for c in users if c.image_id == image.id]
                )
            out.append(item)
        return out

    def _passes(self, image: Image, filters: Filters, everything: Sequence[Image]) -> bool:
        dangling = filters.flag("dangling")
        if dangling is not None and dangling is not _is_dangling(image, everything):
            return False
        until = filters.until_s()
        if until is not None and epoch_s(image.config.created) >= until:
            return False
        return filters.labels(image.config.labels) and (
            "reference" not in filters
            or bool(_named((*image.repo_tags, *image.repo_digests), filters.all("reference")))
        )

    def _between(self, found: Sequence[Image], filters: Filters) -> Sequence[Image]:
        for ref in filters.all("before"):
            edge = self._images.inspect(ref)
            found = [i for i in found if _created(i) < _created(edge)]
        for ref in filters.all("since"):
            edge = self._images.inspect(ref)
            found = [i for i in found if _created(i) > _created(edge)]
        return found

    async def pull(self, request: Request) -> Stream:
        """POST /images/create."""
        if request.query.get("fromSrc"):
            return import_stream(self._images, request)
        name, tag = request.query.get("fromImage", ""), request.query.get("tag", "")
        reference = join_tag(name, tag)
        credentials = registry_auth(request, lenient=True)
        if platform := request.query.get("platform", ""):
            parse_platform(platform)
        parsed = parse_reference(reference)
        if (parsed.domain, parsed.path) == (DOCKER_DOMAIN, "library/scratch"):
            raise PermissionDenied("'scratch' is a reserved name", code="reserved_name")

        async def work(progress: ProgressSink) -> None:
            texts = [reference]
            if not parsed.tag and not parsed.digest:
                driver = self._host.driver("registry")
                texts = [f"{reference}:{t}" for t in await driver.tags(parsed, credentials)]
            for text in texts:
                await self._images.pull(
                    text, credentials=credentials, platform=platform, progress=progress
                )

        return progress_stream(work, hold=1)

    async def push(self, request: Request) -> Stream:
        """POST /images/{name}/push; without a tag, all tags of the repository."""
        name = request.params["name"]
        credentials = registry_auth(request, lenient=False)
        texts = [join_tag(name, request.query["tag"])] if request.query.get("tag") else []
        platform = platform_of(request)

        async def work(progress: ProgressSink) -> None:
            # The client prints this before any error, also that there is no such image.
            progress(
                Progress(status=f"The push refers to repository [{parse_reference(name).name}]")
            )
            for text in texts or self._tags(name):
                if platform:
                    self._check_platform(text, platform)
                await self._images.push(text, credentials=credentials, progress=progress)

        return progress_stream(work)

    def _tags(self, name: str) -> Sequence[str]:
        reference = parse_reference(name)
        if reference.tag or reference.digest:
            return [name]
        found = [
            tag
            for image in self._images.list()
            for tag in image.repo_tags
            if parse_reference(tag).name == reference.name
        ]
        if not found:
            raise NotFound(
                f"An image does not exist locally with the tag: {reference.familiar_name}"
            )
        return sorted(found)

    async def tag(self, request: Request) -> Response:
        """POST /images/{name}/tag."""
        repository = request.query.get("repo", "")
        await self._images.tag(
            request.params["name"], join_tag(repository, request.query.get("tag", ""))
        )
        return Response(status=201)

    async def inspect(self, request: Request) -> Response:
        """GET /images/{name}/json."""
        manifests = request.flag("manifests") and request.api_version >= (1, 48)
        if manifests and platform_of(request):
            raise InvalidArgument(
                "conflicting options: manifests and platform options cannot both be set"
            )
        image = self._of_platform(request)
        stored = graph_driver(self._host, image.chain_ids[-1] if image.chain_ids else "")
        version = request.api_version
        if request.headers.get("user-agent", "").startswith("docker-compose/1."):
            # It speaks the newest version, but knows the fields of an old one only.
            version = min(version, (1, 44))
        out = encode_image(image, graph_driver=stored, api_version=version)
        if manifests:
            everybody = self._containers.list(ContainerFilter(all=True))
            out["Manifests"] = encode_manifests(
                image, [c.id for c in everybody if c.image_id == image.id]
            )
        return json_response(out)

    def _of_platform(self, request: Request) -> Image:
        """The image that is named, if it is for the platform that is."""
        return self._check_platform(request.params["name"], platform_of(request))

    def _check_platform(self, name: str, text: str) -> Image:
        """An image, which is for a platform if one is given. Raises NotFound."""
        image = self._images.inspect(name)
        if text and match_rank(parse_platform(text), image.config.platform) is None:
            raise other_platform(
                name, image.config.platform, parse_platform(text), code="platform_not_found"
            )
        return image

    async def history(self, request: Request) -> Response:
        """GET /images/{name}/history."""
        image = self._of_platform(request)
        snapshots = self._host.driver("snapshots")
        sizes = {}
        for chain in image.chain_ids:
            sizes[chain] = (await snapshots.stat(chain)).size_bytes
        return json_response(encode_history(image, sizes))

    async def remove(self, request: Request) -> Response:
        """DELETE /images/{name}."""
        platforms = request.query_all.get("platforms", ())
        if len(platforms) > 1:
            raise InvalidArgument("an image here is for one platform: ask for one of them")
        for text in platforms:
            self._check_platform(request.params["name"], read_platform(text))
        removed = await self._images.remove(
            request.params["name"],
            force=request.flag("force"),
            prune_parents=not request.flag("noprune"),
        )
        return json_response([_encode_removed(item) for item in removed])

    async def prune(self, request: Request) -> Response:
        """POST /images/prune: dangling images, or with ``dangling=false`` all that no container uses."""
        filters = read_filters(request, ("dangling", "label", "label!", "until"))
        dangling_only, until = filters.flag("dangling") is not False, filters.until_s()
        if self._pruning.locked():
            raise Conflict("a prune operation is already running")
        removed: list[RemovedImage] = []
        async with self._pruning:
            usage = await LayerUsage.of(self._host, self._images.list())
            used = {c.image_id for c in self._containers.list(ContainerFilter(all=True))}
            for image in list(self._images.list()):
                if image.id in used or not self._is_prunable(image, filters, dangling_only, until):
                    continue
                for reference in (*image.repo_tags, image.id) if image.repo_tags else (image.id,):
                    try:
                        gone = await self._images.remove(reference)
                    except (Conflict, NotFound):
                        # Used again, or gone with its last tag.
                        continue
                    removed.extend(gone)
        # Layers that other images have stay; so do the images' sizes not add up.
        reclaimed = sum(usage.sizes.get(item.deleted, 0) for item in removed)
        tell_pruned(self._host, "image", reclaimed)
        items = [_encode_removed(item) for item in removed]
        return json_response({"ImagesDeleted": items or None, "SpaceReclaimed": reclaimed})

    def _is_prunable(
        self, image: Image, filters: Filters, dangling_only: bool, until: float | None
    ) -> bool:
        everything = self._images.list()
        return (
            (not dangling_only or _is_dangling(image, everything))
            and filters.labels(image.config.labels)
            and (until is None or epoch_s(image.config.created) < until)
        )


def _created(image: Image) -> float:
    return epoch_s(image.config.created)


def _is_parent(image: Image, everything: Sequence[Image]) -> bool:
    return any(other.parent == image.id for other in everything)


def _is_dangling(image: Image, everything: Sequence[Image]) -> bool:
    return not image.repo_tags and not image.repo_digests and not _is_parent(image, everything)


def matches_reference(reference: str, pattern: str) -> bool:
    """A familiar reference against ``repository[:tag]``; ``*`` takes no ``/`` (path.Match of Go)."""
    try:
        glob = filename_glob(pattern)
    except PatternError as error:
        raise InvalidArgument(f"invalid filter 'reference': {error}") from error
    parsed = parse_reference(reference)
    return any(map(glob.matches, (reference, parsed.familiar_name, str(parsed), parsed.name)))


def _encode_removed(item: RemovedImage) -> Mapping[str, str]:
    return {"Untagged": item.untagged} if item.untagged else {"Deleted": item.deleted}


def _named(names: Sequence[str], patterns: Sequence[str]) -> tuple[str, ...]:
    return tuple(n for n in names if any(matches_reference(n, pattern) for pattern in patterns))


def _with_names(image: Image, patterns: Sequence[str]) -> Image:
    return attrs.evolve(
        image,
        repo_tags=_named(image.repo_tags, patterns),
        repo_digests=_named(image.repo_digests, patterns),
    )
