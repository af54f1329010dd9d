"""HTTP/1.1 over sockets: h11 for the protocol, trio for the waiting (RFC 9112).

One task a connection. What a client does (reads slowly, sends half a request, goes away) touches its
own task only. A handler that answers with a whole body runs to its end even if the client has gone:
half a ``docker rm`` would help nobody. Streams are cancelled then.
"""

import logging
import math
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING

import h11
import trio

from linkspan.core.http.body import BodyReader, stalled
from linkspan.core.http.errors import as_linkspan_error, error_response, single_cause
from linkspan.core.http.exchange import ChunkWriter, IncomingRequest
from linkspan.core.http.limits import Limits, Stopping
from linkspan.core.http.listeners import accept_all
from linkspan.core.http.routing import API_VERSION, RouteTable, split_version, version_text
from linkspan.core.http.streams import (
    BODY_RECEIVE_BYTES,
    RECEIVE_BYTES,
    ClientGone,
    SocketDuplex,
    put_parts,
    receive_ready,
    receive_waiting,
    run_for_client,
    send_parts,
)
from linkspan.sdk.http import AnswerError, Hijack, Request, Response, Stream
from linkspan.sdk.lending import Loan
from linkspan.sdk.pipes import put_pieces, write_pieces

if TYPE_CHECKING:
    import ssl

log = logging.getLogger(__name__)

_REASONS = {int(status): status.phrase.encode() for status in HTTPStatus}
_NO_BODY_STATUS = frozenset({204, 304})
# Docker's client sends a build context in thousands of small pieces, each of which would wake us. After some
# in a row, the kernel may gather what follows (it holds some 100 KiB of them) for a moment.
_THIN_BYTES = 32 << 10
_THIN_READS = 8
_GATHER_S = 0.0005
_POURED_BYTES = 8 << 20
_OF_LIMIT = 1 / 16

STANDARD_HEADERS: Mapping[str, str] = {
    "Api-Version": version_text(API_VERSION),
    "Docker-Experimental": "false",
    "Ostype": "linux",
    "Server": "Linkspan (linux)",
}
"""What Docker's daemon sends with every answer."""


async def serve_http(
    listeners: Sequence[trio.SocketListener],
    router: RouteTable,
    *,
    limits: Limits | None = None,
    encrypted: "Sequence[tuple[list[trio.SocketListener], ssl.SSLContext]]" = (),
    headers: Mapping[str, str] = STANDARD_HEADERS,
    on_request: Callable[[Request], None] | None = None,
    stopping: Stopping | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled or stopped; the listeners are closed then.

    Args:
        encrypted: Listeners of TCP, each with what its clients must show.
        headers: Sent with every answer.
        on_request: Called for each request before its handler; must be quick and not raise.
        stopping: When and how to stop in order; returns when the last connection has ended.
    """
    stopping = stopping or Stopping(trio.Event(), 0.0)
    server = _Server(router, limits or Limits(), dict(headers), on_request)
    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            for listener in listeners:
                accepting.start_soon(accept_all, listener, server.serve_local, connections)
            for places, context in encrypted:
                from linkspan.core.http.tls import serve_encrypted

                await accepting.start(
                    serve_encrypted, places, context, server.serve_remote, connections
                )
            task_status.started()
            await stopping.begun.wait()
            accepting.cancel_scope.cancel()
        server.stop()
        connections.cancel_scope.deadline = trio.current_time() + stopping.grace_s


class _Server:
    def __init__(
        self,
        router: RouteTable,
        limits: Limits,
        headers: dict[str, str],
        on_request: Callable[[Request], None] | None,
    ) -> None:
        self.router = router
        self.limits = limits
        self.headers = headers
        self.on_request = on_request
        self.open_connections = 0
        self.stopping = False
        self._cut_at_stop: set[trio.CancelScope] = set()

    def stop(self) -> None:
        """Close what is idle, end what would not end; connections end with their requests."""
        self.stopping = True
        for scope in self._cut_at_stop:
            scope.cancel()

    @contextmanager
    def cut_at_stop(self, deadline: float = math.inf) -> Iterator[trio.CancelScope]:
        """A scope that is cancelled when the server stops, now if it does already."""
        with trio.CancelScope(deadline=deadline) as scope:
            self._cut_at_stop.add(scope)
            try:
                if self.stopping:
                    scope.cancel()
                yield scope
            finally:
                self._cut_at_stop.discard(scope)

    async def serve_remote(self, stream: trio.SocketStream) -> None:
        """As ``serve_local``, for whoever is no user of this machine."""
        await self._serve(_Connection(stream.socket, self, None))

    async def serve_local(self, sock: trio.socket.SocketType) -> None:
        """Serve one connection to its end, and close it; never raises but Cancelled."""
        await self._serve(_Connection(sock, self, _peer_uid(sock)))

    async def _serve(self, connection: "_Connection") -> None:
        try:
            if self.open_connections >= self.limits.connections:
                await connection.refuse(503, "too many connections")
                return
            self.open_connections += 1
            try:
                await connection.serve()
            finally:
                self.open_connections -= 1
        except ClientGone:
            pass
        except Exception:
            log.exception("connection failed")
        finally:
            connection.socket.close()


class _Connection:
    """One client: requests after each other, until it or we close."""

    def __init__(self, sock: trio.socket.SocketType, server: _Server, peer_uid: int | None) -> None:
        self.socket = sock
        self.server = server
        self.limits = server.limits
        self.h11 = self._new_cycle()
        self.peer_uid = peer_uid
        self._body = BodyReader(0, b"")
        self._ahead = b""  # a piece of body that came with the head
        self._is_new = True
        self._thin_reads = 0

    def _new_cycle(self, rest: bytes = b"") -> h11.Connection:
        """For one request and its answer; bodies are read beside it, so it serves once."""
        cycle = h11.Connection(h11.SERVER, max_incomplete_event_size=self.limits.head_bytes)
        if rest:
            cycle.receive_data(rest)
        return cycle

    async def serve(self) -> None:
        """Requests until somebody closes; a broken one is answered and ends the connection."""
        try:
            while True:
                request = await self._next_request()
                if request is None or not await self._answer(request):
                    return
                self.h11 = self._new_cycle(self._body.rest)
        except h11.RemoteProtocolError as error:
            # h11 shows the bytes of a bad line as Python writes them: nobody's help.
            why = str(error).partition(": bytearray(")[0]
            await self.refuse(error.error_status_hint, f"bad request: {why}")
        except AnswerError as error:
            await self.refuse(error.status, error.message)

    async def refuse(self, status: int, message: str) -> None:
        """Answer an error where no request could be read, and close."""
        if self.h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            response = error_response(AnswerError(message, status=status, code="bad_request"))
            await self._send_response(response, head_only=False, close=True)
            await self._linger()

    async def send(self, parts: Sequence[bytes]) -> None:
        """Send bytes as they are. Raises ClientGone."""
        await send_parts(self.socket, parts)

    # Requests

    async def _next_request(self) -> IncomingRequest | None:
        """The next head; None if the client closed or was idle for too long."""
        started = False
        deadline = trio.current_time() + self.limits.idle_timeout_s
        while True:
            event = self.h11.next_event()
            if event is h11.NEED_DATA:
                if self.h11.trailing_data[0] and not started:
                    started, deadline = True, trio.current_time() + self.limits.head_timeout_s
                if (data := self._first_bytes()) is not None:
                    self.h11.receive_data(data)
                    continue
                between = self.server.cut_at_stop if not started else _until
                with between(deadline) as waiting:
                    self.h11.receive_data(await receive_waiting(self.socket, RECEIVE_BYTES))
                if waiting.cancelled_caught:
                    if started:
                        await self.refuse(408, "the request's headers took too long")
                    return None
            elif isinstance(event, h11.Request):
                break
            else:  # ConnectionClosed
                return None
        if event.http_version not in (b"1.1", b"1.0"):
            version = event.http_version.decode("latin-1")
            raise AnswerError(f"HTTP/{version} is not spoken here: use HTTP/1.1", status=505)
        headers: dict[str, str] = {}
        for name, value in event.headers:
            key, text = name.decode("latin-1"), value.decode("latin-1")
            headers[key] = f"{headers[key]},{text}" if key in headers else text
        # What came with the head is taken at once, so that most requests are known to be complete.
        self._body = BodyReader(_body_length(headers), self.h11.trailing_data[0])
        self._ahead = self._body.available()
        target = event.target.decode("latin-1")
        return IncomingRequest(self, event.method.decode("latin-1"), target, headers)

    def _first_bytes(self) -> bytes | None:
        """What a client has sent by the time that it is served; most have sent their request.

        Asked for once a connection: who always has more to say must not keep others waiting.
        """
        if not self._is_new or self.server.stopping:
            return None
        self._is_new = False
        return receive_ready(self.socket, RECEIVE_BYTES)

    async def receive_body(self) -> bytes:
        """The next piece of the request's body, ``b""`` at its end."""
        if self._ahead:
            data, self._ahead = self._ahead, b""
            return data
        return await self._body.next(self._receive_for_body)

    async def pour_body(self, pipe: int) -> int:
        """Put the next megabytes of the body into a pipe; 0 at its end.

        One time limit for all of them, seldom put off: each time costs as much as a piece.
        """
        if self._ahead:
            ahead, self._ahead = memoryview(self._ahead), b""
            await write_pieces(pipe, [ahead])
            return len(ahead)
        body, limit_s, poured = self._body, self.limits.body_idle_timeout_s, 0
        await self._go_on()
        put_off = trio.current_time() + limit_s * _OF_LIMIT
        with trio.move_on_after(limit_s) as waiting:
            while poured < _POURED_BYTES and (pieces := await body.next_pieces(self._receive_some)):
                poured += sum(map(len, pieces))
                if left := put_pieces(pipe, pieces):
                    waiting.deadline = math.inf  # it is not the client that we wait for
                    await write_pieces(pipe, left)
                    put_off = 0.0
                if (now := trio.current_time()) > put_off:
                    waiting.deadline, put_off = now + limit_s, now + limit_s * _OF_LIMIT
            return poured
        raise stalled()

    async def lend_body(self) -> Loan | None:
        """See ``Lendable.lend``: None for a body that is here already."""
        if self._body.done:
            return None
        await self._go_on()
        ahead, self._ahead = self._ahead, b""
        return self._body.lend(self.socket.fileno(), self.limits.body_idle_timeout_s, ahead)

    async def _receive_for_body(self) -> bytes:
        await self._go_on()
        with trio.move_on_after(self.limits.body_idle_timeout_s):
            return await self._receive_some()
        raise stalled()

    async def _go_on(self) -> None:
        """Tell a client that waits with its body to send it."""
        if self.h11.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[])
            await self.send([self.h11.send(go_on) or b""])

    async def _receive_some(self) -> bytes:
        if self._thin_reads > _THIN_READS:
            await trio.sleep(_GATHER_S)
        data = await receive_waiting(self.socket, BODY_RECEIVE_BYTES)
        self._thin_reads = self._thin_reads + 1 if len(data) < _THIN_BYTES else 0
        return data

    # Answers

    async def _answer(self, request: IncomingRequest) -> bool:
        """Handle one request; True if the connection can take another."""
        began = time.perf_counter()
        pattern = ""
        try:
            request.api_version, request.path = split_version(request.raw_path)
            match = self.server.router.find(request.method, request.path)
            request.params, pattern = match.params, match.pattern
            if self.server.on_request is not None:
                self.server.on_request(request)
            answer = await match.handler(request)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a handler raises is an answer
            answer = self._error_answer(error, request)
        status = 101 if isinstance(answer, Hijack) else answer.status
        try:
            if isinstance(answer, Response):
                return await self._respond(answer, request)
            if isinstance(answer, Stream):
                return await self._stream(answer, request)
            return await self._hijack(answer, request)
        finally:
            if log.isEnabledFor(logging.DEBUG):
                log.debug(
                    "request",
                    extra={
                        "method": request.method,
                        "route": pattern or request.path,
                        "status": status,
                        "duration_s": time.perf_counter() - began,
                    },
                )

    def _error_answer(self, error: Exception | SystemExit, request: IncomingRequest) -> Response:
        cause = single_cause(error)
        if isinstance(cause, ClientGone):
            raise cause from error
        return error_response(as_linkspan_error(error, f"{request.method} {request.raw_path}"))

    def response_head(
        self, status: int, headers: Mapping[str, str], *, length: int | None = None
    ) -> bytes:
        """The bytes of a head; chunked if no length is given and the client speaks HTTP/1.1."""
        merged = {**self.server.headers, **headers}
        if length is not None and status not in _NO_BODY_STATUS:
            merged.setdefault("Content-Length", str(length))
        return self.h11.send(_head(status, tuple(merged.items()))) or b""

    async def _send_response(self, response: Response, *, head_only: bool, close: bool) -> None:
        headers = {**response.headers, "Connection": "close"} if close else response.headers
        parts = [self.response_head(response.status, headers, length=len(response.body))]
        if response.body and not head_only and response.status not in _NO_BODY_STATUS:
            parts += self.h11.send_with_data_passthrough(h11.Data(data=response.body)) or []
        parts.append(self.h11.send(h11.EndOfMessage()) or b"")
        if rest := put_parts(self.socket, parts):
            with trio.move_on_after(self.limits.send_timeout_s) as sending:
                await send_parts(self.socket, rest)
            if sending.cancelled_caught:
                raise ClientGone("the client takes no answer")

    async def _respond(self, response: Response, request: IncomingRequest) -> bool:
        close = not await self._discard_body() or self.server.stopping
        await self._send_response(response, head_only=request.method == "HEAD", close=close)
        return await self._finished()

    async def _discard_body(self) -> bool:
        """Throw away what the handler did not read; False if it is too much or not to be had."""
        size, self._ahead, most = len(self._ahead), b"", self.limits.unread_body_bytes
        if self._body.done:
            return True
        if self.h11.they_are_waiting_for_100_continue or self._body.known_left > most:
            return False
        try:
            with trio.move_on_after(self.limits.linger_s) as discarding:
                while data := await self.receive_body():
                    size += len(data)
                    if size > most:
                        return False
        except AnswerError:
            return False
        return not discarding.cancelled_caught

    async def _finished(self) -> bool:
        """After an answer: True if the connection goes on."""
        if not self._body.done:
            await self._linger()
            return False
        return self.h11.our_state is h11.DONE

    async def _linger(self) -> None:
        """Close our side and read on for a moment: a reset would destroy the answer on its way."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
            with trio.move_on_after(self.limits.linger_s):
                while await self.socket.recv(RECEIVE_BYTES):
                    pass
        except OSError:
            return

    async def _stream(self, stream: Stream, request: IncomingRequest) -> bool:
        writer = ChunkWriter(self, stream)
        if request.method == "HEAD":
            await self.send([writer.head(), self.h11.send(h11.EndOfMessage()) or b""])
            return await self._finished()
        if stream.headers_at_once:
            await writer.start()
        following = self.server.cut_at_stop if stream.at_stop != "finish" else _until
        try:
            with following() as scope:
                await run_for_client(
                    self.socket, lambda: stream.run(writer), half_closed_is_gone=self._body.done
                )
        except (Exception, SystemExit) as error:  # noqa: BLE001 - as for handlers
            if not writer.started:
                return await self._respond(self._error_answer(error, request), request)
            if not isinstance(error, ClientGone):
                # The status is sent already; an end without the last chunk tells the client.
                self._log_broken(error, request)
            return False
        if writer.torn or (scope.cancelled_caught and stream.at_stop == "break"):
            return False
        await writer.start()
        unread = not await self._discard_body()
        await self.send([self.h11.send(h11.EndOfMessage()) or b""])
        return await self._finished() and not unread

    def _log_broken(self, error: Exception | SystemExit, request: IncomingRequest) -> None:
        what = f"{request.method} {request.raw_path}"
        reason = as_linkspan_error(error, what).message
        log.warning("stream broke off", extra={"request": what, "reason": reason})

    async def _hijack(self, hijack: Hijack, request: IncomingRequest) -> bool:
        """Hand the connection over; True if it was not taken and can take another request."""
        await self._discard_body()
        head = self._hijack_head(hijack, request)
        duplex = SocketDuplex(self.socket, head, already=self._body.rest)
        try:
            with self.server.cut_at_stop():
                await run_for_client(
                    self.socket, lambda: hijack.run(duplex), half_closed_is_gone=False
                )
        except ClientGone:
            return False
        except (Exception, SystemExit) as error:  # noqa: BLE001 - as for handlers
            if not duplex.started:
                return await self._respond(self._error_answer(error, request), request)
            self._log_broken(error, request)
        await duplex.start()
        # Data that the process did not take would make the kernel answer a close with a reset.
        await self._linger()
        return False

    def _hijack_head(self, hijack: Hijack, request: IncomingRequest) -> bytes:
        """101 if the client asked to upgrade, Docker's old raw 200 if not (h11 would make it chunked)."""
        headers = {**self.server.headers, **hijack.headers}
        if hijack.content_type:
            headers["Content-Type"] = hijack.content_type
        if "upgrade" in request.headers:
            line = "HTTP/1.1 101 UPGRADED\r\n"
            headers |= {"Connection": "Upgrade", "Upgrade": hijack.upgrade}
        else:
            line = "HTTP/1.1 200 OK\r\n"
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        return "".join([line, *lines, "\r\n"]).encode("latin-1")


@lru_cache(256)
def _head(status: int, headers: tuple[tuple[str, str], ...]) -> h11.Response:
    """A checked head. Most answers have one that was sent before, and to check it is half of the work."""
    return h11.Response(status_code=status, headers=list(headers), reason=_REASONS.get(status, b""))


def _until(deadline: float = math.inf) -> trio.CancelScope:
    """As ``_Server.cut_at_stop``, for what a stop lets go on."""
    return trio.CancelScope(deadline=deadline)


def _body_length(headers: Mapping[str, str]) -> int | None:
    """Of a request's body, None if it comes in chunks; h11 has checked each of the two fields.

    Raises:
        AnswerError: It has both: whoever passed it on may have read another end than we would (RFC 9112,
            section 6.1).
    """
    if "transfer-encoding" in headers:
        if "content-length" in headers:
            raise AnswerError("bad request: Content-Length beside Transfer-Encoding", status=400)
        return None
    return int(headers.get("content-length", "0"))


def _peer_uid(sock: trio.socket.SocketType) -> int | None:
    """The client's user on a unix socket (SO_PEERCRED, unix(7)); None elsewhere."""
    if sock.family != socket.AF_UNIX:
        return None
    packed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", packed)
    return int(uid)
