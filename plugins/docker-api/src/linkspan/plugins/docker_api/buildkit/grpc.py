"""gRPC over HTTP/2: calls of the other side's methods, and answers to its calls.

A message is a flag (compressed or not), a length of four bytes and the bytes; what became of a call stands in the
trailers.
"""

import base64
import math
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final
from urllib.parse import quote, unquote

import trio

from linkspan.plugins.docker_api.buildkit.http2 import (
    Connection,
    Headers,
    SentHeaders,
    Stream,
    StreamClosed,
)
from linkspan.plugins.docker_api.buildkit.wire import WireError, message
from linkspan.sdk.errors import LinkspanError

OK: Final = 0
CANCELLED: Final = 1
UNKNOWN: Final = 2
INVALID_ARGUMENT: Final = 3
DEADLINE_EXCEEDED: Final = 4
NOT_FOUND: Final = 5
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14

MAX_MESSAGE_BYTES: Final = 16 << 20
_HEAD: Final = struct.Struct(">BI")
_HEAD_BYTES: Final = _HEAD.size
_UNARY_S: Final = 30.0
_LEFT_S: Final = 10.0
_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_SAFE: Final = "".join(chr(c) for c in range(0x20, 0x7F) if c != 0x25)


class GrpcError(LinkspanError):
    """A call that failed.

    Attributes:
        status: gRPC's number.
        rich: More of it: messages ``google.protobuf.Any``.
    """

    default_code = "grpc"

    def __init__(self, status: int, text: str, rich: Sequence[bytes] = ()) -> None:
        super().__init__(text or f"the call failed with status {status}")
        self.status = status
        self.rich = rich


def framed(*messages: bytes) -> bytes:
    """Messages as they travel."""
    return b"".join(b"\0" + len(each).to_bytes(4, "big") + each for each in messages)


@contextmanager
def one_error() -> Iterator[None]:
    """For a nursery whose tasks serve one call: of one that breaks, all of them tell, and the first is enough."""
    try:
        yield
    except BaseExceptionGroup as group:
        known, others = group.split((LinkspanError, trio.BrokenResourceError))
        if known is None or others is not None:
            raise
        first: BaseException = known
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None


class _Messages:
    """Cuts messages out of data."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._needed = _HEAD_BYTES

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are complete now. Raises GrpcError."""
        self._pieces.append(data)
        self._size += len(data)
        if self._size < self._needed:
            return []
        data = b"".join(self._pieces)
        found: list[bytes] = []
        at, end = 0, len(data)
        self._needed = _HEAD_BYTES
        unpack = _HEAD.unpack_from
        while end - at >= _HEAD_BYTES:
            compressed, size = unpack(data, at)
            if compressed:
                raise GrpcError(UNIMPLEMENTED, "a message is compressed, which was not agreed on")
            if size > MAX_MESSAGE_BYTES:
                raise GrpcError(RESOURCE_EXHAUSTED, f"a message has {size} bytes")
            following = at + _HEAD_BYTES + size
            if following > end:
                self._needed = following - at
                break
            found.append(data[at + _HEAD_BYTES : following])
            at = following
        self._pieces, self._size = [data[at:]], end - at
        return found

    @property
    def is_cut_off(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._size > 0


class Call:
    """One call, seen from either side.

    Attributes:
        metadata: What the caller sent with it (only where we are called).
        begun: The head of our answer has been sent.
        is_left: Nobody waits for its end.
    """

    def __init__(self, stream: Stream, metadata: Headers, *, ours: bool) -> None:
        self._stream = stream
        self._messages = _Messages()
        self._ours = ours
        self.begun = False
        self.is_left = False
        self.metadata = metadata

    async def send(self, *messages: bytes) -> None:
        """Send messages. Raises GrpcError."""
        try:
            if not self._ours and not self.begun:
                await self.begin()
            await self._stream.send(framed(*messages))
        except StreamClosed as error:
            if self._ours and self._stream.ended_in:
                self._check_status()  # it has said why it takes no more
            raise GrpcError(UNAVAILABLE, str(error)) from error

    async def begin(self) -> None:
        """Send the head of our answer."""
        self.begun = True
        await self._stream.send_headers([(":status", "200"), ("content-type", "application/grpc")])

    async def end(self) -> None:
        """There is nothing more to send for us who call. Raises GrpcError."""
        try:
            await self._stream.send(b"", end=True)
        except StreamClosed as error:
            raise GrpcError(UNAVAILABLE, str(error)) from error

    async def receive(self) -> list[bytes]:
        """The messages that are there, as soon as there is one; none at the end.

        Raises:
            GrpcError: The call failed.
        """
        try:
            if self._ours:
                _check_head(await self._stream.headers())
            while data := await self._stream.receive():
                if found := self._messages.feed(data):
                    return found
        except StreamClosed as error:
            raise GrpcError(UNAVAILABLE, str(error)) from error
        if self._ours:
            self._check_status()
        if self._messages.is_cut_off:
            raise GrpcError(INTERNAL, "a message is cut off")
        return []

    async def leave(self) -> None:
        """End a call whose answer is of no interest any more, without waiting for its end. Raises GrpcError."""
        await self.end()
        self.is_left = True
        self._stream.drain_soon(_LEFT_S)

    def _check_status(self) -> None:
        text = self._stream.trailers.get("grpc-status", "")
        if not text.isdigit():
            raise GrpcError(UNKNOWN, "the call ended without a status")
        if int(text) != OK:
            raise GrpcError(int(text), unquote(self._stream.trailers.get("grpc-message", "")))

    async def one(self) -> bytes:
        """The only message of this side.

        Raises:
            GrpcError: The call failed, or there are none or more.
        """
        found = await self.receive()
        while found and (more := await self.receive()):
            found += more
        if len(found) != 1:
            raise GrpcError(INTERNAL, f"{len(found)} messages came where there is one")
        return found[0]


def _check_head(head: Headers) -> None:
    if head.get(":status") != "200":
        raise GrpcError(UNAVAILABLE, f"the client answered with HTTP status {head.get(':status')}")


@asynccontextmanager
async def calling(
    connection: Connection, method: str, metadata: SentHeaders = ()
) -> AsyncIterator[Call]:
    """A call of the other side's method; given up if it is left before its end.

    Args:
        method: ``/package.Service/Method``.
        metadata: Sent with it.

    Raises:
        GrpcError: It failed.
    """
    try:
        stream = await connection.open(
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", method),
                (":authority", "localhost"),
                ("content-type", "application/grpc"),
                ("te", "trailers"),
                *metadata,
            ]
        )
    except StreamClosed as error:
        raise GrpcError(UNAVAILABLE, str(error)) from error
    call = Call(stream, {}, ours=True)
    try:
        yield call
    finally:
        if not call.is_left:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await stream.reset()


async def call_once(connection: Connection, method: str, request: bytes) -> bytes:
    """A call with one message each way.

    Raises:
        GrpcError: It failed, or took too long.
    """
    with trio.move_on_after(_UNARY_S):
        async with calling(connection, method) as call:
            await call.send(request)
            await call.end()
            return await call.one()
    raise GrpcError(DEADLINE_EXCEEDED, f"the client did not answer {method} in time")


Method = Callable[[Call], Awaitable[None]]


def serve(methods: Mapping[str, Method]) -> Callable[[Stream], Awaitable[None]]:
    """Answers the calls of a connection.

    Args:
        methods: By ``/package.Service/Method``. What they raise becomes the call's status.
    """

    async def handle(stream: Stream) -> None:
        head = await stream.headers()
        call = Call(stream, head, ours=False)
        status, text, rich = await _outcome(methods.get(head.get(":path", "")), call)
        if not call.begun:
            await call.begin()
        trailers = [("grpc-status", str(status))]
        if text:
            trailers.append(("grpc-message", quote(text, safe=_SAFE)))
        if rich:
            details = base64.b64encode(message({1: status, 2: text, 3: rich})).decode()
            trailers.append(("grpc-status-details-bin", details.rstrip("=")))
        await stream.send_headers(trailers, end=True)

    return handle


async def _outcome(method: Method | None, call: Call) -> tuple[int, str, Sequence[bytes]]:
    """Status and message of a call that has ended, and what more there is to it."""
    name = call.metadata.get(":path", "")
    if method is None:
        service, _, short = name.strip("/").rpartition("/")
        return UNIMPLEMENTED, f"unknown method {short} for service {service}", ()
    with trio.move_on_after(_timeout_s(call.metadata.get("grpc-timeout", ""))):
        try:
            await method(call)
        except GrpcError as error:
            return error.status, error.message, error.rich
        except WireError as error:
            return INVALID_ARGUMENT, f"the request of {name} cannot be read: {error}", ()
        except LinkspanError as error:
            return _status_of(error), error.message, ()
        return OK, "", ()
    return DEADLINE_EXCEEDED, "context deadline exceeded", ()


def _status_of(error: LinkspanError) -> int:
    return {400: INVALID_ARGUMENT, 404: NOT_FOUND, 501: UNIMPLEMENTED}.get(
        error.http_status, UNKNOWN
    )


def _timeout_s(text: str) -> float:
    unit = _UNITS.get(text[-1:], 0.0)
    return int(text[:-1]) * unit if unit and text[:-1].isdigit() else math.inf
