"""``POST /grpc``: the services of a BuildKit daemon that buildx uses, for the builder of this one.

A client opens a session, asks ``Control/Solve`` with the outputs that it wants, and meanwhile runs its build
through ``LLBBridge``: ``Solve`` names the frontend and its options, ``Return`` says which result is meant. What
happens it hears from ``Control/Status``.
"""

import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
import trio

from linkspan.plugins.docker_api.buildkit.builds import Told, run_told, solve_error
from linkspan.plugins.docker_api.buildkit.carried import CarriedConnection
from linkspan.plugins.docker_api.buildkit.checks import LINT, lint_result
from linkspan.plugins.docker_api.buildkit.definitions import definition_of
from linkspan.plugins.docker_api.buildkit.frontend import (
    build_request,
    check_frontend,
    check_solve,
    uploaded_context,
)
from linkspan.plugins.docker_api.buildkit.grpc import (
    NOT_FOUND,
    UNIMPLEMENTED,
    UNKNOWN,
    Call,
    GrpcError,
    Method,
    serve,
)
from linkspan.plugins.docker_api.buildkit.http2 import Connection
from linkspan.plugins.docker_api.buildkit.outputs import KINDS, delivery
from linkspan.plugins.docker_api.buildkit.places import error_details
from linkspan.plugins.docker_api.buildkit.session import Session, Sessions
from linkspan.plugins.docker_api.buildkit.wire import Message, message, timestamp
from linkspan.sdk.drivers.builder import (
    Builder,
    BuildRequest,
    BuildResult,
    CacheEntry,
    PruneRequest,
)
from linkspan.sdk.errors import LinkspanError, Unsupported
from linkspan.sdk.http import Duplex
from linkspan.sdk.platform import host_platform, normalize_platform
from linkspan.sdk.reference import parse_reference

_CONTROL: Final = "/moby.buildkit.v1.Control/"
_BRIDGE: Final = "/moby.buildkit.v1.frontend.LLBBridge/"
_BUILD: Final = "buildkit-controlapi-buildid"
_APPEAR_S: Final = 10.0
_WORKER: Final = "linkspan"
# What of the bridge is there, in the words of its table of capabilities.
_CAPABILITIES: Final = (
    "solve.base",
    "return",
    "returnmap",
    "importcaches",
    "proto.refarray",
    "reference.output",
    "frontend.inputs",
    "gateway.solve.metadata",
    "gateway.solve.evaluate",
    "gateway.evaluate",
    "frontend.caps",
)
_INTO_IMAGES: Final = ("moby", "docker", "image")


@attrs.define(eq=False)
class _Build:
    """One build, by the name that its client gave.

    Attributes:
        asked: ``Control/Solve`` has come.
        returned: The client has said which result it means, or what failed.
    """

    ref: str
    told: Told
    asked: trio.Event = attrs.field(factory=trio.Event)
    returned: trio.Event = attrs.field(factory=trio.Event)
    solve: Message = attrs.field(factory=lambda: Message(b""))
    session: Session | None = None
    results: dict[str, BuildResult] = attrs.field(factory=dict)
    chosen: str = ""
    failure: GrpcError | None = None

    def exporters(self) -> list[tuple[str, dict[str, str]]]:
        """Type and attributes of each output."""
        listed = [(each.text(1), each.text_map(2)) for each in map(Message, self.solve.all(13))]
        if not listed and self.solve.text(3):
            listed = [(self.solve.text(3), self.solve.text_map(4))]
        return listed

    def tags(self) -> tuple[str, ...]:
        """Names that the result gets."""
        return tuple(
            name
            for kind, values in self.exporters()
            if kind in _INTO_IMAGES
            for name in values.get("name", "").split(",")
            if name
        )


class Control:
    """Serves connections of buildx.

    Args:
        builder: The daemon's builder, when it is asked for.
        version: Of this daemon.
    """

    def __init__(
        self, sessions: Sessions, builder: Callable[[], Builder[Any]], version: str
    ) -> None:
        self._sessions = sessions
        self._builder = builder
        self._version = version
        self._builds: dict[str, _Build] = {}
        self._news = trio.Event()

    async def run(self, duplex: Duplex) -> None:
        """Serve one connection to its end."""
        control: dict[str, Method] = {
            "Info": self._info,
            "ListWorkers": self._list_workers,
            "Session": self._session,
            "Solve": self._solve,
            "Status": self._status,
            "DiskUsage": self._disk_usage,
            "Prune": self._prune,
            "ListenBuildHistory": self._listen_history,
        }
        bridge: dict[str, Method] = {
            "Ping": self._ping,
            "Solve": self._solve_frontend,
            "Evaluate": self._evaluate,
            "Return": self._return,
        }
        methods = {f"{_CONTROL}{name}": method for name, method in control.items()}
        methods |= {f"{_BRIDGE}{name}": method for name, method in bridge.items()}
        await Connection(duplex, is_client=False, handle=serve(methods)).run()

    # Control

    async def _info(self, call: Call) -> None:
        await call.one()
        await call.send(message({1: [self._version_record()]}))

    def _version_record(self) -> bytes:
        return message({1: "linkspan", 2: f"v{self._version}"})

    async def _list_workers(self, call: Call) -> None:
        await call.one()
        await call.send(message({1: [self._worker()]}))

    def _worker(self) -> bytes:
        host = normalize_platform(host_platform())
        platform = message({1: host.architecture, 2: host.os, 3: host.variant})
        labels = {"org.mobyproject.buildkit.worker.executor": "oci"}
        return message({1: _WORKER, 2: labels, 3: [platform], 5: [self._version_record()]})

    async def _session(self, call: Call) -> None:
        """As ``POST /session``, in a call: several builds share what such a session has."""
        carried = CarriedConnection(call)
        await carried.start()
        await self._sessions.run(carried, call.metadata)

    async def _solve(self, call: Call) -> None:
        asked = Message(await call.one())
        build = self._build(asked.text(1))
        if build.asked.is_set():
            raise GrpcError(UNKNOWN, f"the build {build.ref} exists already")
        build.solve = asked
        try:
            check_solve(asked)
            kinds = [kind for kind, _ in build.exporters()]
            for kind in kinds:
                if kind not in (*_INTO_IMAGES, *KINDS):
                    raise Unsupported(f"exporter {kind!r} could not be found")
            if len(kinds) > 1:
                raise Unsupported("one output is made at a time")
            build.session = await self._sessions.get(asked.text(5))
            build.asked.set()
            if frontend := asked.text(6):
                inputs = asked.data_map(10)
                build.chosen = await self._run(build, frontend, asked.text_map(7), [], inputs)
            else:
                if asked.data(2):
                    raise Unsupported(
                        "only Dockerfiles are built, no definitions of other frontends"
                    )
                await build.returned.wait()
            if build.failure is not None:
                raise build.failure
            result = build.results.get(build.chosen)
            await call.send(message({1: _exported(build, result) if result else {}}))
        finally:
            build.told.end()
            build.asked.set()
            self._builds.pop(build.ref, None)

    def _build(self, ref: str) -> _Build:
        """The build of that name; new if it is unknown: its status may be asked for before it is."""
        build = self._builds.get(ref)
        if build is None:
            build = self._builds[ref] = _Build(ref, Told(ref))
        return build

    async def _status(self, call: Call) -> None:
        ref = Message(await call.one()).text(1)
        build = await self._expected(ref)
        if build is None:
            raise GrpcError(NOT_FOUND, f"no such build: {ref}")
        await build.told.send(call.send)

    async def _expected(self, ref: str) -> _Build | None:
        """A build that is asked for now or in a moment: a client's calls may overtake each other."""
        build = self._build(ref)
        try:
            with trio.move_on_after(_APPEAR_S):
                await build.asked.wait()
        finally:
            if not build.asked.is_set():
                self._builds.pop(ref, None)
        return build if build.asked.is_set() else None

    async def _disk_usage(self, call: Call) -> None:
        await call.one()
        entries = await self._builder().cache_entries()
        await call.send(message({1: [_usage(entry) for entry in entries]}))

    async def _prune(self, call: Call) -> None:
        asked = Message(await call.one())
        everything = bool(asked.number(2))
        newest = time.time() - asked.number(3) / 1e9
        before = {entry.id: entry for entry in await self._builder().cache_entries()}
        result = await self._builder().prune(
            PruneRequest(
                wants=lambda e: (everything or not e.shared) and e.used_at <= newest,
                keep_bytes=asked.number(4),
                max_used_bytes=asked.number(5) or None,
                min_free_bytes=asked.number(6) or None,
            )
        )
        await call.send(*(_usage(before[name]) for name in result.removed if name in before))

    async def _listen_history(self, call: Call) -> None:
        """No builds are remembered: there is nothing to tell, and whoever listens waits for what never comes."""
        asked = Message(await call.one())
        await call.begin()
        if not asked.number(3):
            await trio.sleep_forever()

    # LLBBridge

    async def _bridged(self, call: Call) -> _Build:
        """The build that a call of the bridge belongs to."""
        ref = call.metadata.get(_BUILD, "")
        build = await self._expected(ref)
        if build is None or build.session is None:
            raise GrpcError(NOT_FOUND, f"no such job {ref}")
        return build

    async def _ping(self, call: Call) -> None:
        await call.one()
        await self._bridged(call)
        known = [message({1: name, 2: 1}) for name in _CAPABILITIES]
        await call.send(message({1: known, 3: [self._worker()]}))

    async def _solve_frontend(self, call: Call) -> None:
        asked = Message(await call.one())
        build = await self._bridged(call)
        if not asked.text(2):
            raise Unsupported("only Dockerfiles are built, no definitions of other frontends")
        values = asked.text_map(3)
        if wanted := values.get("requestid"):
            await call.send(message({3: await self._requested(build, wanted, values)}))
            return
        imports = [Message(each) for each in asked.all(12)]
        name = await self._run(build, asked.text(2), values, imports, asked.data_map(13))
        reference = message({1: name, 2: definition_of(build.results[name].image_id)})
        await call.send(message({1: name, 3: message({3: reference})}))

    async def _requested(self, build: _Build, what: str, values: Mapping[str, str]) -> bytes:
        """A question about the build file, in place of a build."""
        if what != LINT:
            raise GrpcError(UNIMPLEMENTED, f"unsupported request {what}")
        request = attrs.evolve(build_request(values, [], {}), client=build.session)
        return lint_result(await self._builder().check(request))

    async def _run(
        self,
        build: _Build,
        frontend: str,
        values: Mapping[str, str],
        imports: list[Message],
        inputs: Mapping[str, bytes],
    ) -> str:
        """Build; the name of the result."""
        check_frontend(frontend, values)
        session = build.session
        assert session is not None
        request = build_request(values, imports, inputs)
        args = dict(request.args)
        if any(each.text(1) == "inline" for each in self._cache_exports(build)):
            args["BUILDKIT_INLINE_CACHE"] = "1"
        request = attrs.evolve(request, client=session, tags=build.tags(), args=args)
        for number, (kind, _) in enumerate(build.exporters()):
            if kind in KINDS:
                deliver = delivery(session, kind, number, build.told.trace)
                request = attrs.evolve(request, deliver=deliver)
        if path := uploaded_context(values):
            request = attrs.evolve(request, context=session.uploaded(path))
        try:
            result = await run_told(
                build.told, session, request.tags, lambda: self._start(build, request)
            )
        except LinkspanError as error:
            place = error_details(error.details, build.told.trace.definition)
            raise GrpcError(
                UNKNOWN, solve_error(error).message, [place] if place else ()
            ) from error
        name = uuid.uuid4().hex
        build.results[name] = result
        return name

    async def _start(self, build: _Build, request: BuildRequest) -> BuildResult:
        return await self._builder().build(request, build.told.take)

    def _cache_exports(self, build: _Build) -> list[Message]:
        return [Message(each) for each in Message(build.solve.data(8)).all(4)]

    async def _evaluate(self, call: Call) -> None:
        """Nothing to do: results are complete when the client hears of them."""
        await call.one()
        await self._bridged(call)
        await call.send(b"")

    async def _return(self, call: Call) -> None:
        asked = Message(await call.one())
        build = await self._bridged(call)
        if asked.data(2):
            status = Message(asked.data(2))
            build.failure = GrpcError(status.number(1) or UNKNOWN, status.text(2), status.all(3))
        else:
            result = Message(asked.data(1))
            build.chosen = Message(result.data(3)).text(1) or result.text(1)
        build.returned.set()
        await call.send(b"")


def _exported(build: _Build, result: BuildResult) -> dict[str, str]:
    """What the client hears of the image."""
    if not result.image_id:
        return {}
    names = [str(parse_reference(tag)) for tag in build.tags()]
    return {
        "containerimage.config.digest": result.image_id,
        "containerimage.digest": result.image_id,
        **({"image.name": ",".join(names)} if names else {}),
    }


def _usage(entry: CacheEntry) -> bytes:
    return message(
        {
            1: entry.id,
            3: entry.in_use,
            4: entry.size_bytes,
            6: timestamp(entry.created_at),
            7: timestamp(entry.used_at) if entry.used_at else None,
            8: entry.uses,
            9: entry.description,
            10: entry.kind,
            11: entry.shared,
            12: [entry.parent] if entry.parent else None,
        }
    )
