"""One request as it arrives, and an answer of unknown length as it leaves (RFC 9112, chunks)."""

from collections.abc import AsyncIterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, Self, cast
from urllib.parse import parse_qsl, unquote

import h11
import trio

from linkspan.core.http.routing import API_VERSION
from linkspan.core.http.streams import send_from_pipe
from linkspan.sdk.errors import TooLarge
from linkspan.sdk.http import JSON, AnswerError, Request, Stream
from linkspan.sdk.lending import Loan

_EMPTY: Mapping[str, Any] = MappingProxyType({})
_MOST_PARAMETERS = 1000


class Connection(Protocol):
    """What both need of the connection that they belong to."""

    @property
    def peer_uid(self) -> int | None:
        """The client's user, if it is known."""

    @property
    def socket(self) -> trio.socket.SocketType:
        """The client."""

    @property
    def h11(self) -> h11.Connection:
        """The protocol's state."""

    async def receive_body(self) -> bytes:
        """The next piece of the request's body; nothing at its end."""

    async def pour_body(self, pipe: int) -> int:
        """Put the next piece into a pipe; how much it was."""

    async def lend_body(self) -> Loan | None:
        """Let another process read what has not arrived yet; None if all of it has."""

    async def send(self, parts: Sequence[bytes]) -> None:
        """Send all of them."""

    def response_head(self, status: int, headers: Mapping[str, str]) -> bytes:
        """The head of the answer."""


class IncomingRequest(Request):
    """A request whose body is read from the connection while the handler runs."""

    def __init__(
        self, connection: Connection, method: str, target: str, headers: dict[str, str]
    ) -> None:
        self._connection = connection
        path, _, query = target.partition("?")
        if path[:1] != "/":  # absolute-form (RFC 9112 section 3.2.2): drop scheme and authority
            _, _, rest = path.partition("://")
            path = "/" + rest.partition("/")[2]
        self.method = method
        self.raw_path = unquote(path) if "%" in path else path
        self.path = self.raw_path
        self.params = _EMPTY
        self.headers = headers
        self.api_version = API_VERSION
        self.peer_uid = connection.peer_uid
        self.query = self.query_all = _EMPTY
        if query:
            values: dict[str, tuple[str, ...]] = {}
            for name, value in _fields(query):
                values[name] = (*values.get(name, ()), value)
            self.query_all = values
            # Docker's server takes the first, and docker-py sends the name of a Dockerfile before its text.
            self.query = {name: many[0] for name, many in values.items()}

    def body(self) -> AsyncIterator[bytes]:
        """See ``Request.body``. Raises AnswerError (400, 408) for a broken or stalled body."""
        return _Body(self._connection)

    async def read(self, *, limit_bytes: int = 8 << 20) -> bytes:
        """See ``Request.read``."""
        announced = self.headers.get("content-length", "")
        if announced.isdigit() and (len(announced) > 18 or int(announced) > limit_bytes):
            raise _too_large(limit_bytes)
        parts, size = [], 0
        while data := await self._connection.receive_body():
            size += len(data)
            if size > limit_bytes:
                raise _too_large(limit_bytes)
            parts.append(data)
        return b"".join(parts)


def _fields(query: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS)
    except ValueError:
        raise AnswerError(
            f"bad request: more than {_MOST_PARAMETERS} parameters", status=400, code="bad_request"
        ) from None


class _Body:
    """A request's body as it arrives; it may be left unread."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        data = await self._connection.receive_body()
        if not data:
            raise StopAsyncIteration
        return data

    async def pour(self, pipe: int) -> int:
        """See ``linkspan.sdk.pouring.Pourable``."""
        return await self._connection.pour_body(pipe)

    async def lend(self) -> Loan | None:
        """See ``linkspan.sdk.lending.Lendable``."""
        return await self._connection.lend_body()


def _too_large(limit_bytes: int) -> TooLarge:
    return TooLarge(f"the request's body has more than {limit_bytes} bytes")


class _Parts:
    """Stands for the bytes of one chunk inside h11, which only asks for their length."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


class ChunkWriter:
    """Implements ``linkspan.sdk.http.Writer``; the head goes with the first chunk, or by ``start``.

    Attributes:
        torn: A chunk has been begun and not ended: nothing may follow.
    """

    def __init__(self, connection: Connection, stream: Stream) -> None:
        self._connection = connection
        self._stream = stream
        self.started = False
        self.torn = False

    def head(self) -> bytes:
        """The head, which may be asked for once."""
        self.started = True
        headers = {"Content-Type": JSON, **self._stream.headers}
        return self._connection.response_head(self._stream.status, headers)

    async def start(self) -> None:
        """Send the head now if it has not been sent."""
        if not self.started:
            await self._connection.send([self.head()])

    async def write(self, *parts: bytes) -> None:
        """See ``Writer.write``."""
        size = sum(map(len, parts))
        if not size:
            # A chunk of no bytes would end the body (RFC 9112 section 7.1).
            await self.start()
            return
        before, after = self._framing(size)
        self.torn = True
        await self._connection.send([*before, *parts, *after])
        self.torn = False
        await trio.lowlevel.checkpoint()

    async def write_from_pipe(self, pipe: int, count: int) -> None:
        """See ``Writer.write_from_pipe``."""
        before, after = self._framing(count)
        self.torn = True
        await self._connection.send(before)
        await send_from_pipe(self._connection.socket, pipe, count)
        await self._connection.send(after)
        self.torn = False

    def _framing(self, size: int) -> tuple[list[bytes], list[bytes]]:
        """What stands before and behind the bytes of a chunk; the head, too, if it has not been sent."""
        before, after = [] if self.started else [self.head()], list[bytes]()
        data = h11.Data(data=cast(bytes, _Parts(size)))
        framed: list[Any] = self._connection.h11.send_with_data_passthrough(data) or []
        to = before
        for piece in framed:
            if isinstance(piece, _Parts):
                to = after
            else:
                to.append(piece)
        return before, after
