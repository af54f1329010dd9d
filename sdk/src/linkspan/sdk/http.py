"""Requests and answers of the daemon's HTTP API, as routes see them.

A plugin adds routes in ``linkspan_register_routes``. A handler takes a ``Request`` and returns one of
``Response`` (a whole body), ``Stream`` (chunked, written while it runs) or ``Hijack`` (the connection
becomes a raw two-way stream, as Docker's attach and exec need). A raised LinkspanError is answered
with its status.
"""

import abc
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import attrs

from linkspan.sdk.errors import InvalidArgument, LinkspanError
from linkspan.sdk.values import frozen

JSON = "application/json"


_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(data: bytes | str) -> Any:
    """JSON as Go's servers read it: what is no text, as half of a surrogate pair, becomes U+FFFD.

    Nothing else could be written to a file, a database or another program afterwards.

    Raises:
        ValueError: It is no JSON, or nested too deeply.
    """
    text = data if isinstance(data, str) else data.decode("utf-8", "replace")
    try:
        value = json.loads(text, parse_constant=_no_constant)
        return _as_text(value) if _HALF_PAIR.search(text) else value
    except RecursionError:
        raise ValueError("exceeded max depth") from None
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        # Python's own words are about a setting of its interpreter.
        why = "a number has too many digits" if "digits" in str(error) else str(error)
        raise ValueError(why) from None


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


def _as_text(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    if isinstance(value, dict):
        return {_as_text(key): _as_text(item) for key, item in value.items()}
    return value


class AnswerError(LinkspanError):
    """An error answered with a status of its own, where a protocol asks for another than the class's."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
        help: str = "",  # noqa: A002 - as in LinkspanError
    ) -> None:
        super().__init__(message, code=code, details=details, help=help)
        self.status = status


@frozen(kw_only=True)
class Response:
    """An answer whose body is at hand."""

    status: int = 200
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = b""


class Writer(Protocol):
    """The body of a chunked answer."""

    async def write(self, *parts: bytes) -> None:
        """Send parts as one chunk, now. Raises trio.BrokenResourceError when the client has gone."""

    async def write_from_pipe(self, pipe: int, count: int) -> None:
        """As ``write``, with so many bytes that are in a pipe; on a unix socket they are not copied."""


@runtime_checkable
class PipeSource(Protocol):
    """Bytes that come out of a pipe; an iterator over them may be one, too."""

    @property
    def pipe(self) -> int:
        """The read end's descriptor."""

    def taken(self) -> bytes:
        """Bytes that were taken out already; they come first, and once."""

    async def ready(self) -> int:
        """Wait until there are more bytes, and say how many; 0 at the end. Raises as the iterator does."""


async def write_all(writer: Writer, source: AsyncIterator[bytes]) -> None:
    """Write a body out of a source, as cheaply as both can."""
    if not isinstance(source, PipeSource):
        async for piece in source:
            await writer.write(piece)
        return
    if taken := source.taken():
        await writer.write(taken)
    while count := await source.ready():
        await writer.write_from_pipe(source.pipe, count)


@frozen(kw_only=True)
class Stream:
    """A chunked answer; ``run`` is cancelled when the client goes.

    Attributes:
        headers_at_once: Send the headers before ``run`` begins (clients wait for them). Otherwise they
            go with the first chunk, and an error raised before it is answered as any error is.
        at_stop: What happens when the daemon stops. ``finish``: it may come to its end. For what waits for
            something that may never come, ``run`` is cancelled: ``end`` ends the answer in order (events,
            new lines of a log), ``break`` breaks it off since it would mean something (a result).
    """

    run: Callable[[Writer], Awaitable[None]]
    status: int = 200
    headers: Mapping[str, str] = attrs.field(factory=dict)
    headers_at_once: bool = True
    at_stop: Literal["finish", "end", "break"] = "finish"


class Duplex(abc.ABC):
    """A connection that was taken over: the first call of any method sends the head."""

    @abc.abstractmethod
    async def start(self) -> None:
        """Send the head now if it has not been sent: the client waits for it."""

    @abc.abstractmethod
    async def receive(self) -> bytes:
        """Next bytes; ``b""`` when the client has closed its side."""

    @abc.abstractmethod
    async def send(self, *parts: bytes) -> None:
        """Send parts in one go. Raises trio.BrokenResourceError when the client has gone."""

    @abc.abstractmethod
    async def send_eof(self) -> None:
        """Close our side for writing."""


@frozen(kw_only=True)
class Hijack:
    """Answer 101 if the client asks to upgrade, else 200, and hand over the connection.

    An error that ``run`` raises before it has used the connection is answered as any error is.

    Attributes:
        content_type: Empty for none.
        upgrade: The protocol that a 101 names.
        headers: More of them.
    """

    run: Callable[[Duplex], Awaitable[None]]
    content_type: str = "application/vnd.docker.raw-stream"
    upgrade: str = "tcp"
    headers: Mapping[str, str] = attrs.field(factory=dict)


Answer = Response | Stream | Hijack


class Request(abc.ABC):
    """What a client asks.

    Attributes:
        path: Decoded, without an API version prefix.
        params: Parts of the path that the route names.
        query: Last value of each parameter.
        query_all: All values.
        headers: Names in lower case.
        api_version: From ``/v1.43/…``; the newest one if the path has none.
        peer_uid: The client's user on a unix socket; None elsewhere.
    """

    method: str
    path: str
    params: Mapping[str, str]
    query: Mapping[str, str]
    query_all: Mapping[str, tuple[str, ...]]
    headers: Mapping[str, str]
    api_version: tuple[int, int]
    peer_uid: int | None

    @abc.abstractmethod
    def body(self) -> AsyncIterator[bytes]:
        """The body as it arrives; may be read once."""

    @abc.abstractmethod
    async def read(self, *, limit_bytes: int = 8 << 20) -> bytes:
        """The whole body. Raises TooLarge."""

    async def json(self, *, limit_bytes: int = 8 << 20, required: bool = True) -> Any:
        """The body as JSON; None if it is empty and not required.

        Raises:
            InvalidArgument: Not JSON, or empty though required.
        """
        data = await self.read(limit_bytes=limit_bytes)
        if not data.strip():
            if required:
                raise InvalidArgument("invalid JSON: got EOF while reading request body")
            return None
        try:
            return parse_json(data)
        except ValueError as error:
            raise InvalidArgument(f"invalid JSON: {error}") from error

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean parameter as Docker reads it: not empty, ``0``, ``no``, ``false`` or ``none``."""
        value = self.query.get(name)
        if value is None:
            return default
        return value.strip().lower() not in ("", "0", "no", "false", "none")

    def number(self, name: str, default: int) -> int:
        """A whole-number parameter. Raises InvalidArgument."""
        value = self.query.get(name)
        if value is None or value == "":
            return default
        try:
            return int(value)
        except ValueError as error:
            raise InvalidArgument(f"parameter '{name}' must be a number, not '{value}'") from error


Handler = Callable[[Request], Awaitable[Answer]]


class Router(Protocol):
    """Where routes are added."""

    def add(self, method: str, pattern: str, handler: Handler) -> None:
        """Add a route.

        Args:
            pattern: ``/containers/{id}/json``; ``{name:path}`` takes slashes, too. Paths are matched
                with and without ``/v1.NN`` in front.
        """


def json_response(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """An answer in JSON, compact, with the newline that Docker's has.

    Names of files may be no text; what is not is shown as ``?``.
    """
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    body = text.encode("utf-8", "replace") + b"\n"
    return Response(status=status, headers={"Content-Type": JSON, **(headers or {})}, body=body)
