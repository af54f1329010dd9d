"""HTTP/1.1 on a socket: h11 reads and frames, files go out by sendfile.

Rules: a client gets ``head_timeout_s`` for a head, and must send or take at least 64 KiB (or all
that is left) in every ``idle_timeout_s``; beyond ``max_connections`` the answer is 503. So a slow
client holds one connection for a bounded time, and never a thread. When serving ends, requests in flight
have ``drain_s`` to end, too.
"""

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote

import attrs
import h11
import trio

from linkspan.plugins.registry_server.config import RegistryServerConfig
from linkspan.plugins.registry_server.refusal import RefusalError

log = logging.getLogger(__name__)

HEAD_LIMIT_BYTES = 64 << 10
PIECE_BYTES = 1 << 20
_LEAST_BYTES = 64 << 10
_RECEIVE_BYTES = 256 << 10
_HEAD_PIECE_BYTES = 16 << 10
_DRAIN_BYTES = 1 << 20
_LINGER_S = 2.0
_SENDFILE_BYTES = 4 << 20
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Length: 0\r\n\r\n"
)


class ClientGoneError(Exception):
    """The client has left, or was too slow; there is nobody to answer."""


@attrs.frozen
class _FileSlice:
    """Stands for bytes that h11 frames and sendfile sends."""

    length: int

    def __len__(self) -> int:
        return self.length


@attrs.frozen(kw_only=True)
class Head:
    """A request's head; header names in lower case, the path decoded."""

    method: str
    path: str
    query: Mapping[str, str]
    query_all: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]


class Exchange:
    """One request and its answer."""

    def __init__(self, connection: "_Connection", head: Head) -> None:
        self._connection = connection
        self.head = head
        self.answered = False

    async def receive(self) -> bytes:
        """The next piece of the body, up to 1 MiB; ``b""`` at its end.

        Raises:
            ClientGoneError: It broke off, or came too slowly.
        """
        return await self._connection.receive_body()

    async def read(self, limit_bytes: int) -> bytes:
        """The whole body, or SIZE_INVALID."""
        parts: list[bytes] = []
        size = 0
        while part := await self.receive():
            size += len(part)
            if size > limit_bytes:
                raise RefusalError(
                    413,
                    "SIZE_INVALID",
                    f"the body is larger than {limit_bytes} bytes",
                    close=True,
                )
            parts.append(part)
        return b"".join(parts)

    async def respond(
        self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> None:
        """Answer with bytes; a HEAD gets the head alone."""
        self.answered = True
        await self._connection.send_head(
            status, {**(headers or {}), "Content-Length": str(len(body))}
        )
        await self._connection.send_body(b"" if self.head.method == "HEAD" else body)

    async def respond_file(
        self, status: int, headers: Mapping[str, str], fd: int, offset: int, length: int
    ) -> None:
        """Answer with a part of an open file."""
        self.answered = True
        await self._connection.send_head(status, {**headers, "Content-Length": str(length)})
        if self.head.method == "HEAD":
            await self._connection.send_body(b"")
        else:
            await self._connection.send_file(fd, offset, length)


Handler = Callable[[Exchange], Awaitable[None]]
InThread = Callable[..., Awaitable[Any]]


class _Connection:
    """A client's connection; requests come one after the other."""

    def __init__(
        self, stream: trio.SocketStream, config: RegistryServerConfig, in_thread: InThread
    ) -> None:
        self._stream = stream
        self._config = config
        self._in_thread = in_thread
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT_BYTES)
        self._fresh = True
        self._pending = b""

    # --- receiving

    async def next_head(self) -> Head | None:
        """The next request; None when the client has nothing more to ask.

        Raises:
            RefusalError: It cannot be read as HTTP, or its head came too slowly.
        """
        config = self._config
        patience_s = config.head_timeout_s if self._fresh else config.idle_timeout_s
        began = self._fresh or bool(self._http.trailing_data[0])
        self._fresh = False
        with trio.move_on_after(config.head_timeout_s if began else patience_s) as scope:
            while True:
                try:
                    event = self._http.next_event()
                except h11.RemoteProtocolError as error:
                    raise RefusalError(
                        error.error_status_hint, "UNSUPPORTED", str(error), close=True
                    ) from error
                if event is h11.NEED_DATA:
                    # Small pieces: h11 limits what is incomplete, not what has come at once.
                    data = await self._receive_some(_HEAD_PIECE_BYTES)
                    if data and not began:
                        began = True
                        scope.deadline = trio.current_time() + config.head_timeout_s
                    self._http.receive_data(data)
                elif isinstance(event, h11.Request):
                    return _head_of(event)
                else:
                    return None
        if began:
            raise RefusalError(408, "UNSUPPORTED", "the request's head came too slowly", close=True)
        return None

    async def _receive_some(self, most_bytes: int = _RECEIVE_BYTES) -> bytes:
        try:
            return bytes(await self._stream.receive_some(most_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ClientGoneError from error

    async def receive_body(self) -> bytes:
        """See ``Exchange.receive``."""
        if self._http.their_state is not h11.SEND_BODY:
            if self._http.their_state in (h11.ERROR, h11.CLOSED):
                raise ClientGoneError
            return b""  # The end was reached before, or there is no body.
        if self._http.they_are_waiting_for_100_continue:
            await self._send(
                self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b""
            )
        parts: list[bytes] = []
        size = 0
        with trio.move_on_after(self._config.idle_timeout_s):
            while size < PIECE_BYTES:
                try:
                    event = self._next_body_event()
                    if event is h11.NEED_DATA:
                        self._http.receive_data(await self._receive_some())
                        continue
                except ClientGoneError:
                    if not parts:
                        raise
                    break  # What has come is worth keeping; the next call fails again.
                if not isinstance(event, h11.Data):
                    break
                parts.append(bytes(event.data))
                size += len(event.data)
            return b"".join(parts)
        if size < _LEAST_BYTES:
            raise ClientGoneError
        return b"".join(parts)

    def _next_body_event(self) -> Any:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as error:
            raise ClientGoneError from error

    # --- sending

    async def _send(self, data: bytes) -> None:
        with trio.move_on_after(self._config.idle_timeout_s):
            try:
                await self._stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise ClientGoneError from error
            return
        raise ClientGoneError

    async def send_head(self, status: int, headers: Mapping[str, str]) -> None:
        """Buffered until the body follows, so that short answers are one packet."""
        reason = HTTPStatus(status).phrase.encode("ascii")
        response = h11.Response(status_code=status, headers=list(headers.items()), reason=reason)
        self._pending = self._http.send(response) or b""

    async def send_body(self, body: bytes) -> None:
        """Head, body, end."""
        data = self._pending
        if body:
            data += self._http.send(h11.Data(data=body)) or b""
        data += self._http.send(h11.EndOfMessage()) or b""
        await self._send(data)

    async def send_file(self, fd: int, offset: int, length: int) -> None:
        """Head, then a file's part from the page cache to the socket, in a worker thread."""
        await self._send(self._pending)
        if length:
            self._http.send_with_data_passthrough(
                h11.Data(data=_FileSlice(length))  # type: ignore[arg-type]
            )
        end = offset + length
        socket = self._stream.socket
        least = offset
        with trio.move_on_after(self._config.idle_timeout_s) as scope:
            while offset < end:
                count = min(_SENDFILE_BYTES, end - offset)
                try:
                    sent = await self._in_thread(os.sendfile, socket.fileno(), fd, offset, count)
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(socket)
                    continue
                except OSError as error:
                    raise ClientGoneError from error
                if sent == 0:
                    raise ClientGoneError
                offset += sent
                if offset - least >= _LEAST_BYTES:
                    least = offset
                    scope.deadline = trio.current_time() + self._config.idle_timeout_s
        if scope.cancelled_caught:
            raise ClientGoneError
        self._http.send(h11.EndOfMessage())

    async def finish(self) -> bool:
        """After an answer: whether the connection can be used again."""
        drained = 0
        while self._http.their_state is h11.SEND_BODY and drained < _DRAIN_BYTES:
            if self._http.they_are_waiting_for_100_continue:
                return False
            drained += len(await self.receive_body())
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            return True
        return False

    async def linger(self) -> None:
        """Let the client read our last answer before the connection is reset under it."""
        with trio.move_on_after(_LINGER_S), contextlib.suppress(Exception):
            await self._stream.send_eof()
            while await self._stream.receive_some(_RECEIVE_BYTES):
                pass

    @property
    def can_answer(self) -> bool:
        """Whether no answer has begun."""
        return self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE)


def _head_of(event: h11.Request) -> Head:
    target = event.target.decode("ascii", errors="replace")
    path, _, query = target.partition("?")
    pairs = tuple(parse_qsl(query, keep_blank_values=True, max_num_fields=100))
    return Head(
        method=event.method.decode("ascii"),
        path=unquote(path),
        query=dict(pairs),
        query_all=pairs,
        headers={k.decode("ascii"): v.decode("latin-1") for k, v in event.headers},
    )


class Server:
    """Serves a handler on listeners."""

    def __init__(self, handler: Handler, config: RegistryServerConfig, in_thread: InThread) -> None:
        self._handler = handler
        self._config = config
        self._in_thread = in_thread
        self._connections = 0
        self._stopping = False
        self._alive: set[trio.CancelScope] = set()
        self._between_requests: set[trio.CancelScope] = set()

    async def serve(self, listeners: list[trio.SocketListener]) -> None:
        """Accept until cancelled; the listeners are closed then.

        If cancelled: connections that rest are closed at once, the others after the answer to the request
        that is under way, and all after ``drain_s``.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stop_when_cancelled)
            await trio.serve_listeners(self._serve_one, listeners)

    async def _stop_when_cancelled(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self._stopping = True
            for scope in self._between_requests:
                scope.cancel()
            for scope in self._alive:
                scope.deadline = trio.current_time() + self._config.drain_s

    @contextlib.contextmanager
    def _draining(self) -> Iterator[None]:
        """What goes on when serving is cancelled, but not for ever."""
        with trio.CancelScope(shield=True) as scope:
            self._alive.add(scope)
            try:
                yield
            finally:
                self._alive.discard(scope)
        if scope.cancelled_caught:
            log.warning("a request was cut off: it took too long to end")

    @contextlib.contextmanager
    def _between(self) -> Iterator[None]:
        """Between requests a connection may be closed."""
        with trio.CancelScope() as scope:
            self._between_requests.add(scope)
            try:
                yield
            finally:
                self._between_requests.discard(scope)

    async def _serve_one(self, stream: trio.SocketStream) -> None:
        async with self._counted() as admitted:
            try:
                if admitted:
                    with self._draining():
                        await self._converse(_Connection(stream, self._config, self._in_thread))
                else:
                    with trio.move_on_after(1.0):
                        await stream.send_all(_BUSY)
            except (ClientGoneError, trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            finally:
                with trio.move_on_after(0.1, shield=True):
                    await stream.aclose()

    @contextlib.asynccontextmanager
    async def _counted(self) -> AsyncIterator[bool]:
        self._connections += 1
        try:
            yield self._connections <= self._config.max_connections
        finally:
            self._connections -= 1

    async def _converse(self, connection: _Connection) -> None:
        while not self._stopping:
            head = None
            try:
                with self._between():
                    head = await connection.next_head()
            except RefusalError as error:
                head = Head(method="GET", path="", query={}, query_all=(), headers={})
                if connection.can_answer:
                    await _refuse(Exchange(connection, head), error)
                break
            if head is None:
                return
            again = await self._answer(connection, Exchange(connection, head))
            if not again or not await connection.finish():
                break
        else:
            return
        await connection.linger()

    async def _answer(self, connection: _Connection, exchange: Exchange) -> bool:
        """Run the handler; whether the connection may live on."""
        try:
            await self._handler(exchange)
        except RefusalError as error:
            if exchange.answered:
                raise ClientGoneError from error
            await _refuse(exchange, error)
            return not error.close
        except (ClientGoneError, trio.BrokenResourceError, trio.ClosedResourceError):
            raise
        except Exception:
            log.exception(
                "registry request failed",
                extra={"method": exchange.head.method, "path": exchange.head.path},
            )
            if exchange.answered:
                raise ClientGoneError from None
            await _refuse(exchange, RefusalError(500, "UNKNOWN", "internal error", close=True))
            return False
        return True


async def _refuse(exchange: Exchange, error: RefusalError) -> None:
    headers = {
        "Content-Type": "application/json",
        "Docker-Distribution-Api-Version": "registry/2.0",
        **error.headers,
    }
    if error.close:
        headers["Connection"] = "close"
    await exchange.respond(error.status, headers, error.body())
