"""/exec: further processes in a running container.

A session runs in a task of its own, so that it outlives its client: one that detaches, or whose
terminal is lost, leaves the process running, as in Docker.
"""

from typing import Any

import attrs
import trio

from linkspan.plugins.docker_api.codec_creation import decode_console_size, decode_exec
from linkspan.plugins.docker_api.container_streams import read_size
from linkspan.plugins.docker_api.detach_keys import parse_detach_keys
from linkspan.plugins.docker_api.routing import read_document
from linkspan.plugins.docker_api.streams import exchange, frame_header, stream_type
from linkspan.sdk.errors import Conflict, LinkspanError, NotFound
from linkspan.sdk.host import ExecStreams, Host
from linkspan.sdk.http import Answer, Duplex, Hijack, Request, Response, json_response
from linkspan.sdk.model.container import Exec
from linkspan.sdk.model.process import StreamKind


@attrs.define
class _Session:
    """A running session.

    Attributes:
        left: Set when no client reads it any more.
        ended: Set when its exit code is known.
    """

    left: trio.Event = attrs.field(factory=trio.Event)
    ended: trio.Event = attrs.field(factory=trio.Event)
    output_ended: bool = False


class ExecRoutes:
    """Exec sessions."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._containers = host.engine.containers

    async def create(self, request: Request) -> Response:
        """POST /containers/{id}/exec."""
        spec = decode_exec(await read_document(request, required=False))
        parse_detach_keys(spec.detach_keys, called="escape")
        made = await self._containers.exec_create(request.params["id"], spec)
        return json_response({"Id": made.id}, status=201)

    async def start(self, request: Request) -> Answer:
        """POST /exec/{id}/start."""
        body = await read_document(request, required=False)
        session = self._containers.exec_inspect(request.params["id"])
        if session.running or session.exit_code is not None:
            state = "is already running" if session.running else "has already run"
            raise Conflict(f"Error: Exec command {session.id} {state}")
        size = decode_console_size(body) if session.spec.tty else (0, 0)
        if body.flag("Detach"):
            held = _Session()
            held.left.set()
            process = await self._launch(session, held)
            await process.started()
            if any(size):
                await self._containers.exec_resize(session.id, *size)
            return Response()

        # Frames go by what is said here, as in Docker: docker-py begins sessions with a terminal and reads
        # frames.
        tty = body.flag("Tty")

        async def run(duplex: Duplex) -> None:
            await self._converse(session, duplex, size, framed=not tty)

        return Hijack(run=run, content_type=stream_type(request, tty=tty))

    async def _launch(self, session: Exec, held: _Session) -> ExecStreams:
        """Start the session's task. Raises what exec_start raises."""
        name = f"exec {session.id[:12]}"
        outcome = await self._host.start_task(self._hold, session, held, name=name)
        if isinstance(outcome, LinkspanError):
            raise outcome
        return outcome  # type: ignore[return-value]

    async def _hold(
        self, session: Exec, held: _Session, *, task_status: trio.TaskStatus[object]
    ) -> None:
        """Keep the process while a client reads it, and read for a client that left."""
        started = False
        try:
            async with self._containers.exec_start(session.id) as process:
                started = True
                task_status.started(process)
                await held.left.wait()
                if not held.output_ended:
                    # Who leaves a terminal leaves its program as it is, as in Docker.
                    if session.spec.attach_stdin and not session.spec.tty:
                        await process.close_stdin()
                    while await process.receive() is not None:
                        pass
                await process.wait()
        except LinkspanError as error:
            # An error is the client's; raised here, it would have the task started again.
            if not started:
                task_status.started(error)
        finally:
            held.ended.set()

    async def _converse(
        self, session: Exec, duplex: Duplex, size: tuple[int, int], *, framed: bool
    ) -> None:
        spec = session.spec
        held = _Session()
        try:
            process = await self._launch(session, held)
        except LinkspanError as error:
            if isinstance(error, NotFound | Conflict):
                raise
            # Docker has hijacked by now: what the runtime says is output, the exit code tells the rest.
            text = f"{error.message}\r\n".encode()
            head = (frame_header(StreamKind.STDOUT, len(text)),) if framed else ()
            await duplex.send(*head, text)
            return
        try:
            if any(size):
                await self._containers.exec_resize(session.id, *size)
            await duplex.start()
            held.output_ended = await exchange(
                duplex,
                process,
                tty=spec.tty,
                stdin=spec.attach_stdin,
                streams=_streams(session),
                keys=parse_detach_keys(spec.detach_keys),
                framed=framed,
                leaves=spec.tty,
            )
        finally:
            held.left.set()
        if held.output_ended:
            # The CLI asks for the exit code as soon as the stream ends.
            await held.ended.wait()

    async def resize(self, request: Request) -> Response:
        """POST /exec/{id}/resize."""
        await self._containers.exec_resize(request.params["id"], *read_size(request))
        return Response()

    async def inspect(self, request: Request) -> Response:
        """GET /exec/{id}/json."""
        return json_response(encode_exec(self._containers.exec_inspect(request.params["id"])))


def _streams(session: Exec) -> frozenset[StreamKind]:
    spec = session.spec
    found = set()
    if spec.attach_stdout or spec.tty:
        found.add(StreamKind.STDOUT)
    if spec.attach_stderr:
        found.add(StreamKind.STDERR)
    return frozenset(found)


def encode_exec(session: Exec) -> dict[str, Any]:
    """ExecInspectResponse."""
    spec = session.spec
    return {
        "ID": session.id,
        "Running": session.running,
        "ExitCode": session.exit_code,
        "ProcessConfig": {
            "tty": spec.tty,
            "entrypoint": spec.command[0],
            "arguments": list(spec.command[1:]),
            "privileged": spec.privileged,
            "user": spec.user,
        },
        "OpenStdin": spec.attach_stdin,
        "OpenStderr": spec.attach_stderr,
        "OpenStdout": spec.attach_stdout,
        "CanRemove": False,
        "ContainerID": session.container_id,
        "DetachKeys": spec.detach_keys,
        "Pid": session.pid,
    }
