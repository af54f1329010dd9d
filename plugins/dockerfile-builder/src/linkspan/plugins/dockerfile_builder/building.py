"""Builds and checks of one driver: from a request to an image."""

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence

import trio

from linkspan.plugins.dockerfile_builder.cache_exchange import (
    cache_document,
    export_cache,
    import_cache,
)
from linkspan.plugins.dockerfile_builder.cache_mounts import CacheMounts
from linkspan.plugins.dockerfile_builder.cache_sources import CacheSources
from linkspan.plugins.dockerfile_builder.client import login_of
from linkspan.plugins.dockerfile_builder.config import DockerfileBuilderConfig
from linkspan.plugins.dockerfile_builder.contexts import Contexts
from linkspan.plugins.dockerfile_builder.emulation import runs_here
from linkspan.plugins.dockerfile_builder.fault import DockerfileError
from linkspan.plugins.dockerfile_builder.image_config import CACHE_KEY, ImageState
from linkspan.plugins.dockerfile_builder.kept_folders import KeptFolders
from linkspan.plugins.dockerfile_builder.layers import LayerMaker, in_thread
from linkspan.plugins.dockerfile_builder.lint import CheckSettings, Finding, diagnostic, lint
from linkspan.plugins.dockerfile_builder.packages import Found, find_packages
from linkspan.plugins.dockerfile_builder.run_step import no_emulator
from linkspan.plugins.dockerfile_builder.solver import SCRATCH, Build, global_scope
from linkspan.plugins.dockerfile_builder.stages import Dockerfile, parse_dockerfile
from linkspan.plugins.dockerfile_builder.steps import StageResult
from linkspan.plugins.dockerfile_builder.stream import BuildStream, silent_stream
from linkspan.sdk.diagnostics import Diagnostic, render
from linkspan.sdk.dockerignore import IgnorePatterns
from linkspan.sdk.drivers.builder import BuildRequest, BuildResult, CacheImport
from linkspan.sdk.errors import LinkspanError, Unsupported
from linkspan.sdk.host import Host, NewImage
from linkspan.sdk.progress import Progress, ProgressSink
from linkspan.sdk.reference import Reference, parse_reference

_FRONTENDS = ("docker/dockerfile", "docker.io/docker/dockerfile")


class Builds:
    """Lent to the driver, which says what each method does.

    Args:
        after: Called when an image is made.
    """

    def __init__(
        self,
        config: DockerfileBuilderConfig,
        host: Host,
        layers: LayerMaker,
        cache_mounts: CacheMounts,
        clients: KeptFolders,
        after: Callable[[], Awaitable[None]],
    ) -> None:
        self._config = config
        self._host = host
        self._layers = layers
        self._cache_mounts = cache_mounts
        self._after = after
        self._contexts = Contexts(config, host, clients)

    async def build(self, request: BuildRequest, progress: ProgressSink) -> BuildResult:
        """Build, store and tag an image."""
        tags = tuple(parse_reference(tag).with_default_tag() for tag in request.tags)
        if request.squash:
            raise Unsupported("squash is not supported", help="build without --squash")
        stream = BuildStream(progress, quiet=request.quiet, details=request.details)
        async with (
            self._contexts.named(request, stream) as contexts,
            self._contexts.main(request, stream) as (context, text, ignored),
        ):
            stream.event(definition={"file": request.file, "text": text})
            dockerfile = _parse(text, request.file)
            findings = self._lint(dockerfile, request, ignored)
            try:
                with self._layers.lease() as lease:
                    _warn(dockerfile, stream)
                    stream.event(warnings=[_told(found, dockerfile) for found in findings])
                    sources = await self._import_caches(request, stream)
                    build = Build(
                        request=request,
                        dockerfile=dockerfile,
                        context=context,
                        contexts=contexts,
                        host=self._host,
                        layers=self._layers,
                        cache_mounts=self._cache_mounts,
                        lease=lease,
                        stream=stream,
                        max_archive_bytes=self._config.max_archive_bytes,
                        cache_sources=sources,
                    )
                    result = await build.run()
                    found = await self._packages(result.top) if request.packages else Found((), ())
                    image_id = ""
                    if request.deliver is not None:
                        async with self._layers.root(result.top) as root:
                            await request.deliver(root)
                    else:
                        image_id = await self._store(build, result, tags)
                    await self._export_caches(request, build, stream)
            except DockerfileError as error:
                stream.failed(render(error.diagnostic(text)))
                raise
            except LinkspanError:
                stream.failed()
                raise
        await self._after()
        if image_id:
            stream.finish(image_id, tuple(tag.familiar for tag in tags))
        return BuildResult(
            image_id=image_id,
            steps=build.steps,
            cached_steps=build.cached_steps,
            bases=build.bases(),
            packages=found.packages,
            unread=found.unread,
        )

    async def _store(self, build: Build, result: StageResult, tags: Sequence[Reference]) -> str:
        """Make an image of the result; its id."""
        carried = {}
        if build.request.args.get("BUILDKIT_INLINE_CACHE") in ("1", "true"):
            carried[CACHE_KEY] = cache_document(build.used, result.chain)
        image = await self._host.engine.images.add(
            NewImage(config=result.state.serialize(carried), chain_ids=result.chain),
            tags=[str(tag) for tag in tags],
        )
        if carried:
            build.stream.send(Progress(aux={"ID": image.id}))
        return image.id

    async def _packages(self, top: str) -> Found:
        async with self._layers.tree(top) as tree:
            return await in_thread(find_packages, tree)

    async def _import_caches(self, request: BuildRequest, stream: BuildStream) -> CacheSources:
        """Take over what other machines have done; what cannot be had is but a warning."""
        imports, sources = request.cache_from, CacheSources()
        if request.cache_from_only:
            sources = CacheSources.of(
                self._host.engine.images, [wanted.reference for wanted in imports]
            )
            carrying = (i for i in sources.images or () if CACHE_KEY in i.config.raw)
            imports = tuple(CacheImport(reference=image.id) for image in carrying)
        for wanted in imports:
            try:
                await import_cache(
                    self._host,
                    self._layers,
                    wanted,
                    functools.partial(login_of, request),
                )
            except LinkspanError as error:
                stream.say(
                    f"[Warning] the cache of {wanted.reference} is not used: {error.message}\n"
                )
        return sources

    async def _export_caches(
        self, request: BuildRequest, build: Build, stream: BuildStream
    ) -> None:
        images = self._host.engine.images
        for export in request.cache_to:
            stages = build.finished_stages()
            names = await export_cache(
                self._host,
                build.used,
                stages if export.every_stage else stages[-1:],
                export.reference,
            )
            if not export.push:
                stream.send(Progress(aux={"cache": names}))
                continue
            try:
                for name in names:
                    login = await login_of(request, parse_reference(name).domain)
                    await images.push(name, credentials=login, progress=stream.send)
            finally:
                with trio.CancelScope(shield=True):
                    for name in names:
                        await images.remove(name)

    async def check(self, request: BuildRequest) -> tuple[Diagnostic, ...]:
        """Read the Dockerfile and apply the build checks; nothing is built or pulled."""
        async with self._contexts.main(request) as (_, text, ignored):
            dockerfile = _parse(text, request.file)
            dockerfile.target(request.target)
            try:
                findings = self._lint(dockerfile, request, ignored, strict=False)
            except DockerfileError as error:
                return (error.diagnostic(text),)
            return tuple(diagnostic(finding, dockerfile) for finding in findings)

    async def preflight(self, request: BuildRequest) -> None:
        """Find commands that this machine cannot run. Nothing is built or pulled."""
        async with (
            self._contexts.named(request) as contexts,
            self._contexts.main(request) as (context, text, _),
        ):
            build = Build(
                request=request,
                dockerfile=_parse(text, request.file),
                context=context,
                contexts=contexts,
                host=self._host,
                layers=self._layers,
                cache_mounts=self._cache_mounts,
                lease=set(),
                stream=silent_stream(),
                max_archive_bytes=self._config.max_archive_bytes,
            )
            for instruction, platform in build.commands():
                if not await in_thread(runs_here, platform):
                    raise no_emulator(instruction, platform)

    def _lint(
        self,
        dockerfile: Dockerfile,
        request: BuildRequest,
        ignored: IgnorePatterns,
        *,
        strict: bool = True,
    ) -> list[Finding]:
        """The findings of the build checks.

        Raises:
            DockerfileError: There are some, and ``error=true`` is set; unless not ``strict``.
        """
        asked = request.args.get("BUILDKIT_DOCKERFILE_CHECK") or dockerfile.check
        settings = CheckSettings.parse(asked, dockerfile.file)
        findings = lint(
            dockerfile,
            settings=settings,
            scope=global_scope(request, dockerfile),
            environment_of=self._environment_of,
            ignored=ignored,
        )
        if findings and settings.error and strict:
            rules = ", ".join(sorted({finding.rule for finding in findings}))
            raise DockerfileError(
                f"lint violation found for rules: {rules}",
                file=dockerfile.file,
                line=findings[0].line,
            )
        return findings

    def _environment_of(self, image: str) -> Mapping[str, str] | None:
        """The variables of an image of this machine."""
        if image == SCRATCH:
            return ImageState.scratch("", "").environment()
        try:
            found = self._host.engine.images.inspect(image)
        except LinkspanError:
            return None
        return ImageState.from_document(found.config.raw).environment()


def _parse(text: str, file: str) -> Dockerfile:
    if not text:
        raise DockerfileError(f"the Dockerfile ({file}) cannot be empty", file=file)
    dockerfile = parse_dockerfile(text, file)
    frontend = dockerfile.syntax.split()[0] if dockerfile.syntax else ""
    name, _, version = frontend.partition(":")
    if frontend and not (
        name in _FRONTENDS and (version or "1").partition(".")[0] in ("1", "latest")
    ):
        raise DockerfileError(
            f"the frontend '{frontend}' is not supported",
            file=file,
            code="dockerfile_unsupported",
            diagnostic_id="LS0204",
            help="remove the line '# syntax=', or use docker/dockerfile:1",
        )
    return dockerfile


def _warn(dockerfile: Dockerfile, stream: BuildStream) -> None:
    for warning in dockerfile.warnings:
        if warning.startswith("Empty continuation"):
            stream.say(f"\x1b[91m[WARNING]: {warning}\n\x1b[0m")


def _told(finding: Finding, dockerfile: Dockerfile) -> dict[str, object]:
    """A finding for a program."""
    return {
        "rule": finding.rule,
        "message": finding.message,
        "file": dockerfile.file,
        "line": finding.line,
    }
