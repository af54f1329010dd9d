"""POST /build: Docker's classic build stream. What it says comes from the builder."""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import attrs

from linkspan.plugins.docker_api import build_parcel
from linkspan.plugins.docker_api.build_cache import decode_prune
from linkspan.plugins.docker_api.build_faults import unplaced
from linkspan.plugins.docker_api.codec_image import registry_config
from linkspan.plugins.docker_api.codec_resources import decode_ulimits
from linkspan.plugins.docker_api.document import Document, map_parameter, parse_parameter
from linkspan.plugins.docker_api.prune_events import tell_pruned
from linkspan.plugins.docker_api.streams import run_with_progress
from linkspan.sdk.diagnostics import Diagnostic, render
from linkspan.sdk.drivers.builder import Builder, BuildRequest, CacheImport, PruneResult
from linkspan.sdk.errors import InvalidArgument, NotFound, Unsupported
from linkspan.sdk.host import Host
from linkspan.sdk.http import AnswerError, Hijack, Request, Response, Stream, Writer, json_response
from linkspan.sdk.model.container import Resources
from linkspan.sdk.progress import ProgressSink

if TYPE_CHECKING:
    from linkspan.plugins.docker_api.buildkit.builds import SessionBuilds
    from linkspan.plugins.docker_api.buildkit.control import Control
    from linkspan.plugins.docker_api.buildkit.session import Sessions


class BuildRoutes:
    """Builds images with the daemon's builder."""

    def __init__(self, host: Host) -> None:
        self._host = host

    @property
    def _builder(self) -> Builder[Any]:
        driver: Builder[Any] = self._host.driver("builder")
        return driver

    @cached_property
    def _sessions(self) -> "Sessions":
        # Few clients speak BuildKit's protocol: what does is loaded when one comes.
        from linkspan.plugins.docker_api.buildkit.session import Sessions

        return Sessions()

    @cached_property
    def _session_builds(self) -> "SessionBuilds":
        from linkspan.plugins.docker_api.buildkit.builds import SessionBuilds

        return SessionBuilds(self._sessions, lambda: self._builder)

    async def session(self, request: Request) -> Hijack:
        """POST /session: from here on the client answers, and we ask (gRPC)."""
        if request.headers.get("upgrade", "").lower() != "h2c":
            raise InvalidArgument("no upgrade proto in request")
        return Hijack(
            run=lambda duplex: self._sessions.run(duplex, request.headers),
            content_type="",
            upgrade="h2c",
        )

    @cached_property
    def _control(self) -> "Control":
        from linkspan.plugins.docker_api.buildkit.control import Control

        return Control(self._sessions, lambda: self._builder, self._host.daemon.version)

    async def grpc(self, request: Request) -> Hijack:
        """POST /grpc: BuildKit's services for buildx (gRPC)."""
        if request.headers.get("upgrade", "").lower() != "h2c":
            raise AnswerError("no upgrade proto in request", status=500, code="no_upgrade")
        return Hijack(run=self._control.run, content_type="", upgrade="h2c")

    async def cancel(self, request: Request) -> Response:
        """POST /build/cancel."""
        return await self._session_builds.cancel(request)

    async def build(self, request: Request) -> Stream:
        """POST /build: JSON lines out; a context as tar in, or a session that is asked for it."""
        asked = decode_build(request)
        if request.query.get("version") == "2":
            return self._session_builds.answer(request, asked)
        # Docker's classic builder looks into these images and nowhere else.
        asked = attrs.evolve(asked, cache_from_only=bool(asked.cache_from))
        return self._stream(asked, placed=False)

    async def build_more(self, request: Request) -> Stream | Response:
        """POST /linkspan/v1/build: as /build, with what Docker has no words for.

        Parameters beside those of /build: ``folder``, a path that the daemon reads itself, and ``folderid``
        (see :func:`~.build_parcel.folder_here`); ``details`` for more in ``aux``; ``check`` to have the file
        checked only. The body may be a parcel (:mod:`~.build_parcel`).
        """
        asked = decode_build(request)
        if request.headers.get("content-type") == build_parcel.CONTENT_TYPE:
            document, rest = await build_parcel.unpack(request.body())
            asked = await build_parcel.apply(document, attrs.evolve(asked, context=rest))
        if request.query.get("folder"):
            folder = await build_parcel.folder_here(
                request.query["folder"], request.query.get("folderid", "")
            )
            asked = attrs.evolve(asked, context=folder)
        if request.flag("check"):
            found = await self._builder.check(asked)
            return json_response({"warnings": [_encode_diagnostic(fault) for fault in found]})
        return self._stream(attrs.evolve(asked, details=request.flag("details")))

    def _stream(self, asked: BuildRequest, *, placed: bool = True) -> Stream:
        """``placed``: whether faults name their place, ``file:line``, as Docker's do not."""
        builder = self._builder

        async def work(progress: ProgressSink) -> None:
            try:
                await builder.build(asked, progress)
            except InvalidArgument as error:
                if placed or (other := unplaced(error)) is error:
                    raise
                raise other from error

        async def run(writer: Writer) -> None:
            await run_with_progress(writer, work)

        return Stream(run=run, headers_at_once=False)

    async def prune(self, request: Request) -> Response:
        """POST /build/prune."""
        asked = decode_prune(request)
        try:
            builder = self._builder
        except NotFound:
            result = PruneResult()  # no builder, no cache: `docker system prune` asks all the same
        else:
            result = await builder.prune(asked)
        tell_pruned(self._host, "builder", result.freed_bytes)
        return json_response(
            {"CachesDeleted": list(result.removed) or None, "SpaceReclaimed": result.freed_bytes}
        )


def _encode_diagnostic(fault: Diagnostic) -> dict[str, object]:
    return {
        "id": fault.id,
        "severity": fault.severity,
        "headline": fault.headline,
        "file": fault.file,
        "line": fault.primary.span.line if fault.primary else None,
        "text": render(fault),
    }


def decode_build(request: Request) -> BuildRequest:
    """The parameters of /build.

    Raises:
        InvalidArgument: A value is malformed.
        Unsupported: Squashing is asked for.
    """
    query = request.query
    if query.get("version") not in (None, "", "1", "2"):
        raise InvalidArgument(f"invalid version {query['version']}")
    if query.get("version") != "2" and _is_given(query.get("outputs")):
        raise Unsupported("build outputs (--output) are not supported; the result is an image")
    if request.flag("squash"):
        raise Unsupported("squashing (--squash) is not supported")
    if (isolation := query.get("isolation", "")) not in ("", "default"):
        raise InvalidArgument(f'unsupported isolation: "{isolation}"')
    if any(request.query_all.get("securityopt", ())):
        raise InvalidArgument("security options are not supported on linux")
    # The CLI repeats the parameter; the specification says it is one list.
    hosts = [host for text in request.query_all.get("extrahosts", ()) for host in text.split(",")]
    return BuildRequest(
        context=request.body(),
        remote=query.get("remote", ""),
        file=query.get("dockerfile") or "Dockerfile",
        tags=tuple(tag for tag in request.query_all.get("t", ()) if tag),
        args=map_parameter("buildargs", query.get("buildargs")),
        labels=_labels(query.get("labels")),
        target=query.get("target", ""),
        platform=query.get("platform", ""),
        no_cache=request.flag("nocache"),
        pull=request.flag("pull"),
        quiet=request.flag("q"),
        network_mode=query.get("networkmode") or "default",
        cache_from=_cache_from(query.get("cachefrom")),
        extra_hosts=tuple(host for host in hosts if host),
        credentials=registry_config(request),
        resources=_resources(request),
        shm_size_bytes=request.number("shmsize", 0) or 67108864,
    )


def _resources(request: Request) -> Resources:
    """Limits of the commands; numbers as in ``HostConfig``."""
    ulimits = request.query.get("ulimits")
    listed = parse_parameter("ulimits", ulimits) if ulimits else None
    return Resources(
        memory_bytes=request.number("memory", 0),
        memory_swap_bytes=request.number("memswap", 0),
        cpu_shares=request.number("cpushares", 0),
        cpu_period_us=request.number("cpuperiod", 0),
        cpu_quota_us=request.number("cpuquota", 0),
        cpuset_cpus=request.query.get("cpusetcpus", ""),
        cpuset_mems=request.query.get("cpusetmems", ""),
        cgroup_parent=request.query.get("cgroupparent", ""),
        ulimits=decode_ulimits(Document({"Ulimits": listed})),
    )


def _is_given(text: str | None) -> bool:
    return bool(text) and parse_parameter("outputs", text or "") not in (None, [], {})


def _cache_from(text: str | None) -> tuple[CacheImport, ...]:
    names = parse_parameter("cachefrom", text) if text else None
    if names is not None and not (
        isinstance(names, list) and all(isinstance(name, str) for name in names)
    ):
        raise InvalidArgument("parameter 'cachefrom' must be a list of strings")
    return tuple(CacheImport(reference=name) for name in names or () if name)


def _labels(text: str | None) -> Mapping[str, str]:
    found = map_parameter("labels", text)
    if any(value is None for value in found.values()):
        raise InvalidArgument("parameter 'labels' must be an object of strings")
    return {name: value for name, value in found.items() if value is not None}
