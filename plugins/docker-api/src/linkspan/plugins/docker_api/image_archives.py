"""/images/get, /images/load, import and /commit: images in and out of tars, and out of containers."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from linkspan.plugins.docker_api.codec_health import decode_healthcheck, encode_healthcheck
from linkspan.plugins.docker_api.document import Document
from linkspan.plugins.docker_api.download import as_url, download
from linkspan.plugins.docker_api.routing import read_document
from linkspan.plugins.docker_api.streams import run_with_progress
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.host import CommitSpec, Host, Images
from linkspan.sdk.http import JSON, Request, Response, Stream, Writer, json_response, parse_json
from linkspan.sdk.platform import parse_platform
from linkspan.sdk.progress import Progress, ProgressSink
from linkspan.sdk.reference import parse_reference

_TAG = re.compile(r"[\w][\w.-]{0,127}", re.ASCII)


class ImageArchiveRoutes:
    """``docker save``, ``load`` and ``commit``."""

    def __init__(self, host: Host) -> None:
        self._images = host.engine.images
        self._containers = host.engine.containers

    async def save(self, request: Request) -> Stream:
        """GET /images/get and /images/{name}/get."""
        name = request.params.get("name")
        refs: Sequence[str] = [name] if name else request.query_all.get("names", ())
        platform = platform_of(request)

        async def run(writer: Writer) -> None:
            async with self._images.save(refs, platform=platform) as archive:
                async for piece in archive:
                    await writer.write(piece)

        return Stream(run=run, headers={"Content-Type": "application/x-tar"}, headers_at_once=False)

    async def load(self, request: Request) -> Stream:
        """POST /images/load."""
        quiet = request.flag("quiet", True)
        platform = platform_of(request)

        async def work(progress: ProgressSink) -> None:
            def tell(step: Progress) -> None:
                if step.stream or not quiet:
                    progress(step)

            await self._images.load(request.body(), platform=platform, progress=tell)

        return progress_stream(work, errors_inside=True)

    async def commit(self, request: Request) -> Response:
        """POST /commit."""
        config = await read_document(request, required=False)
        repository = request.query.get("repo", "")
        spec = CommitSpec(
            reference=join_tag(repository, request.query.get("tag", "")) if repository else "",
            author=request.query.get("author", ""),
            message=request.query.get("comment", ""),
            changes=_changes(request),
            config=_image_fields(config),
            pause=request.flag("pause", True),
        )
        image = await self._containers.commit(request.query.get("container", ""), spec)
        return json_response({"Id": image.id}, status=201)


def _image_fields(config: Document) -> Mapping[str, Any]:
    """What of a container's config belongs into an image's; what is not given is left out.

    Raises:
        InvalidArgument: A value has another type.
    """
    health = config.document("Healthcheck")
    fields: dict[str, Any] = {
        "User": config.text("User"),
        "ExposedPorts": {port: {} for port in config.keys_of("ExposedPorts")},
        "Env": list(config.texts("Env")),
        "Entrypoint": list(config.words("Entrypoint") or ()),
        "Cmd": list(config.words("Cmd") or ()),
        "Volumes": {path: {} for path in config.keys_of("Volumes")},
        "WorkingDir": config.text("WorkingDir"),
        "Labels": config.text_map("Labels"),
        "StopSignal": config.text("StopSignal"),
        "Healthcheck": encode_healthcheck(decode_healthcheck(health)) if health else None,
        "OnBuild": list(config.texts("OnBuild")),
        "Shell": list(config.texts("Shell")),
    }
    return {key: value for key, value in fields.items() if value}


def _changes(request: Request) -> tuple[str, ...]:
    found = request.query_all.get("changes", ())
    return tuple(line for text in found for line in text.splitlines() if line.strip())


def platform_of(request: Request) -> str:
    """The ``platform`` parameter: ``os/arch``, or JSON from API 1.48 on."""
    return read_platform(request.query.get("platform", ""))


def read_platform(text: str) -> str:
    """``os/arch`` of that, or of its JSON. Raises InvalidArgument."""
    if not text.startswith("{"):
        if text:
            parse_platform(text)
        return text
    try:
        document = parse_json(text)
    except ValueError as error:
        raise InvalidArgument(f"failed to parse platform: {error}") from error
    names = [str(document.get(key) or "") for key in ("os", "architecture", "variant")]
    if not all(names[:2]):
        raise InvalidArgument("both OS and Architecture must be provided")
    return "/".join(filter(None, names))


def import_stream(images: Images, request: Request) -> Stream:
    """POST /images/create with ``fromSrc``: the body (``-``), or what a URL leads to."""
    source = request.query["fromSrc"]
    url = "" if source == "-" else as_url(source)
    repository = request.query.get("repo", "")
    reference = join_tag(repository, request.query.get("tag", "")) if repository else ""

    async def work(progress: ProgressSink) -> None:
        if not url:
            await keep(request.body(), progress)
            return
        async with download(url) as pieces:
            progress(Progress(status=f"Downloading from {url}"))
            await keep(pieces, progress)

    async def keep(pieces: AsyncIterator[bytes], progress: ProgressSink) -> None:
        image = await images.import_files(
            pieces,
            reference=reference,
            changes=_changes(request),
            message=request.query.get("message", ""),
            platform=platform_of(request),
        )
        progress(Progress(status=image.id))

    return progress_stream(work)


def progress_stream(work: Any, *, hold: int = 0, errors_inside: bool = False) -> Stream:
    """JSON lines of what long work says; see ``run_with_progress``."""

    async def run(writer: Writer) -> None:
        await run_with_progress(writer, work, hold=hold, errors_inside=errors_inside)

    return Stream(run=run, headers={"Content-Type": JSON}, headers_at_once=False)


def join_tag(name: str, tag: str) -> str:
    """A name and the ``tag`` parameter, which may be a digest.

    Raises:
        InvalidArgument: There is no name.
    """
    if not name:
        raise InvalidArgument("invalid reference format", code="invalid_reference")
    if tag and ":" not in tag and not _TAG.fullmatch(tag):
        raise InvalidArgument("invalid tag format", code="invalid_reference")
    if not tag:
        return name
    if tag.startswith("sha256:"):
        return f"{name.partition('@')[0]}@{tag}"
    reference = parse_reference(name)
    return name if reference.digest else f"{name.removesuffix(f':{reference.tag}')}:{tag}"
