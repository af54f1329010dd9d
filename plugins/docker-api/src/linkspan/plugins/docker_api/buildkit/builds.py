"""``POST /build?version=2``: a build whose client is connected by a session, and what it is told."""

import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

import attrs
import trio

from linkspan.plugins.docker_api.build_faults import unplaced
from linkspan.plugins.docker_api.buildkit.outputs import KINDS, Deliver, delivery
from linkspan.plugins.docker_api.buildkit.session import Session, Sessions
from linkspan.plugins.docker_api.buildkit.trace import Trace
from linkspan.plugins.docker_api.document import Document, parse_parameter
from linkspan.plugins.docker_api.streams import error_line, json_line
from linkspan.sdk.drivers.builder import Builder, BuildRequest, BuildResult
from linkspan.sdk.errors import InvalidArgument, LinkspanError, NotFound
from linkspan.sdk.http import Request, Response, Stream, Writer
from linkspan.sdk.progress import Progress
from linkspan.sdk.reference import parse_reference

CLIENT_SESSION: Final = "client-session"
UPLOAD: Final = "upload-request"
_UPLOAD_S: Final = 30.0
_GATHER_S: Final = 0.02


class _Upload:
    """A context that one request brings for another."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self.done = trio.Event()

    async def read(self) -> AsyncIterator[bytes]:
        """The context."""
        try:
            async for piece in self._body:
                yield piece
        finally:
            self.done.set()


class SessionBuilds:
    """The builds of clients with a session.

    Args:
        builder: The daemon's builder, when it is asked for.
    """

    def __init__(self, sessions: Sessions, builder: Callable[[], Builder[Any]]) -> None:
        self._sessions = sessions
        self._builder = builder
        self._running: dict[str, trio.CancelScope] = {}
        self._uploads: dict[str, _Upload] = {}
        self._news = trio.Event()

    def answer(self, request: Request, asked: BuildRequest) -> Stream:
        """The answer to ``POST /build``.

        Args:
            asked: Its parameters.

        Raises:
            InvalidArgument: It names no session, or an output that there is not.
        """
        build = request.query.get("buildid", "")
        if build.startswith(f"{UPLOAD}:"):
            # A client that has its answer goes, though its body has not been read.
            return Stream(run=lambda _: self._take_upload(build, request), headers_at_once=False)
        session = request.query.get("session", "")
        if not session:
            raise InvalidArgument("a build by BuildKit's protocol needs a session")

        outputs = _output_kinds(request.query.get("outputs"))

        async def run(writer: Writer) -> None:
            client = await self._sessions.get(session)
            with_client = attrs.evolve(asked, client=client)
            await self._run(writer, build, with_client, client, outputs)

        return Stream(run=run, headers_at_once=False)

    async def cancel(self, request: Request) -> Response:
        """``POST /build/cancel``: end a build; nothing happens if it has ended."""
        identity = request.query.get("id", "")
        if not identity:
            raise InvalidArgument("build ID not provided")
        if (scope := self._running.get(identity)) is not None:
            scope.cancel()
        return Response()

    async def _take_upload(self, build: str, request: Request) -> None:
        upload = _Upload(request.body())
        self._uploads[build] = upload
        self._news.set()
        try:
            await upload.done.wait()
        finally:
            del self._uploads[build]

    async def _uploaded(self, build: str) -> AsyncIterator[bytes]:
        with trio.move_on_after(_UPLOAD_S):
            while (upload := self._uploads.get(f"{UPLOAD}:{build}")) is None:
                if self._news.is_set():
                    self._news = trio.Event()
                await self._news.wait()
            return upload.read()
        raise NotFound("the client did not send the build's context", code="no_context")

    async def _run(
        self,
        writer: Writer,
        build: str,
        asked: BuildRequest,
        session: Session,
        outputs: Sequence[str],
    ) -> None:
        if asked.remote == UPLOAD:
            asked = attrs.evolve(asked, remote="", context=await self._uploaded(build))
        elif asked.remote in (CLIENT_SESSION, ""):
            asked = attrs.evolve(asked, remote="", context=None)
        told = Told(build)
        asked = attrs.evolve(asked, deliver=_delivery(outputs, session, told))
        kept: list[bytes] = []

        async def tell(trace: bytes) -> None:
            text = base64.b64encode(trace).decode()
            line = json_line({"id": "moby.buildkit.trace", "aux": text})
            if asked.quiet:
                kept.append(line)  # shown should it fail
            else:
                await writer.write(line)

        loud = attrs.evolve(asked, details=True, quiet=False)
        with trio.CancelScope() as scope:
            self._running[build] = scope
            try:
                result = await self._tell_while(
                    told,
                    tell,
                    lambda: run_told(
                        told, session, asked.tags, lambda: self._builder().build(loud, told.take)
                    ),
                )
            except LinkspanError as error:
                await writer.write(*kept, error_line(solve_error(error)))
                return
            finally:
                del self._running[build]
            if result.image_id:
                fact: dict[str, object] = {"id": "moby.image.id", "aux": {"ID": result.image_id}}
                quiet = {"stream": f"{result.image_id}\n"}
                await writer.write(json_line(quiet if asked.quiet else fact))
            return
        await writer.write(error_line(LinkspanError("context canceled", code="cancelled")))

    async def _tell_while(
        self,
        told: "Told",
        tell: Callable[[bytes], Awaitable[None]],
        work: Callable[[], Awaitable[BuildResult]],
    ) -> BuildResult:
        """Do the work, and send what it tells. Raises what the work raises, when all of it is sent."""
        failure: LinkspanError | None = None
        result: BuildResult | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(told.send, tell)
            try:
                result = await work()
            except LinkspanError as error:
                failure = error
            told.end()
        if result is None:
            assert failure is not None
            raise failure
        return result


def _output_kinds(text: str | None) -> tuple[str, ...]:
    """Types of the outputs that a client asks for; none for an image."""
    listed = parse_parameter("outputs", text) if text else None
    kinds = tuple(Document(each).text("Type") for each in listed or ())
    if len(kinds) > 1:
        raise InvalidArgument("multiple outputs are not supported")
    if kinds and kinds[0] not in KINDS:
        raise InvalidArgument(f"unsupported output type: {kinds[0]}")
    return kinds


def _delivery(outputs: Sequence[str], session: Session, told: "Told") -> Deliver | None:
    return delivery(session, outputs[0], 0, told.trace) if outputs else None


class Told:
    """What a build says, until it is sent."""

    def __init__(self, build: str) -> None:
        self.trace = Trace(build)
        self.news = trio.Event()
        self._ended = trio.Event()

    def take(self, progress: Progress) -> None:
        """One step forward."""
        self.trace.take(progress)
        self.news.set()

    def end(self) -> None:
        """There will be no more."""
        self._ended.set()
        self.news.set()

    async def send(self, tell: Callable[[bytes], Awaitable[None]]) -> None:
        """Send all, until the end. What comes in quick succession goes together."""
        while True:
            await self.news.wait()
            with trio.move_on_after(_GATHER_S):
                await self._ended.wait()
            self.news = trio.Event()
            if new := self.trace.message():
                await tell(new)
            if self._ended.is_set():
                return


async def run_told(
    told: Told,
    session: Session,
    tags: tuple[str, ...],
    build: Callable[[], Awaitable[BuildResult]],
) -> BuildResult:
    """Build, and tell what comes of it.

    Args:
        told: The sink of ``build``.

    Raises:
        LinkspanError: It failed, or the client has gone.
    """
    result: BuildResult | None = None
    failure: LinkspanError | None = None

    async def work(scope: trio.CancelScope) -> None:
        nonlocal result, failure
        try:
            result = await build()
            if result.image_id:
                tell_export(told.trace, result, tags)
        except LinkspanError as error:
            failure = error
            told.trace.failed(solve_error(error).message)
        told.news.set()
        scope.cancel()

    async def watch(scope: trio.CancelScope) -> None:
        nonlocal failure
        await session.gone.wait()
        failure = LinkspanError("the client's session has ended", code="session_gone")
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work, nursery.cancel_scope)
        nursery.start_soon(watch, nursery.cancel_scope)
    if result is None:
        assert failure is not None
        raise failure
    return result


def tell_export(trace: Trace, result: BuildResult, tags: tuple[str, ...]) -> None:
    """What BuildKit says when an image is made."""
    names = [str(parse_reference(tag)) for tag in tags]
    trace.exported(
        "exporting to image",
        [
            "exporting layers",
            f"writing image {result.image_id}",
            *(f"naming to {name}" for name in names),
        ],
    )


def solve_error(error: LinkspanError) -> LinkspanError:
    """An error of the builder's in BuildKit's words; it has no exit code, and so the client ends with 1."""
    command, code = error.details.get("command"), error.details.get("exit_code")
    if isinstance(error, InvalidArgument):
        return unplaced(error)
    if error.code != "build_failed" or command is None:
        return error
    return LinkspanError(
        f'process "{command}" did not complete successfully: exit code: {code}',
        code=error.code,
        help=error.help,
    )
