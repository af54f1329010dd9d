"""Requests to the daemon, one connection each."""

from __future__ import annotations

from linkspan.core.client import quick_json
from linkspan.core.client.errors import ApiError, ConnectionLost, Unreachable
from linkspan.core.client.http1 import Reader
from linkspan.core.client.transport import connect

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing these takes longer than a short command may
    from _socket import socket as RawSocket
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from socket import socket as Socket
    from typing import Any, Final

    from linkspan.core.client.address import Address

    Starter = Callable[[Address], None]
    """Starts the daemon of an address and returns when it answers."""

    Query = Mapping[str, object]

API_VERSION: Final = "1.50"
_JSON: Final = "application/json"
_DEFAULT_SILENCE_S: Final = 60.0


_UNRESERVED: Final = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
)


def segment(text: str) -> str:
    """A name or reference as one part of a path, or a value of a query (RFC 3986 §2.3).

    Not by urllib.parse: importing that takes longer than a short command may.
    """
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in text.encode())


class Answer:
    """An answer whose body is not read yet; closes its connection when it is left."""

    def __init__(
        self, sock: RawSocket, reader: Reader, method: str, status: int, headers: dict[str, str]
    ) -> None:
        self.sock = sock
        self.reader = reader
        self.status = status
        self.headers = headers
        self._pieces = reader.body(method, status, headers)

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()

    def while_silent(self, call: Callable[[], object], every_s: float) -> None:
        """From now on do this again and again while a piece of the body is awaited."""
        self.reader.idle = call
        self.sock.settimeout(every_s)

    def pieces(self) -> Iterator[bytes]:
        """The body as it comes."""
        return self._pieces

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self._pieces)

    def json(self) -> Any:
        """The whole body as JSON; None if it is empty."""
        body = self.read()
        return quick_json.loads(body) if body.strip() else None

    def json_lines(self) -> Iterator[Any]:
        """JSON values as they come, one a line or one directly after the other."""
        buffer = ""
        for piece in self._text():
            buffer = (buffer + piece).lstrip()
            while buffer:
                try:
                    value, end = quick_json.first(buffer)
                except ValueError:
                    break
                yield value
                buffer = buffer[end:].lstrip()

    def _text(self) -> Iterator[str]:
        import codecs

        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        for piece in self._pieces:
            yield decode(piece)


class Api:
    """The daemon's HTTP API."""

    def __init__(
        self,
        address: Address,
        *,
        start: Starter | None = None,
        silence_s: float | None = _DEFAULT_SILENCE_S,
    ) -> None:
        """Make a client; nothing is connected yet.

        Args:
            address: Of the daemon.
            start: Called when no daemon answers and the address allows it.
            silence_s: How long an answer may take to begin; None for ever.
        """
        self.address = address
        self.silence_s = silence_s
        self._start = start

    def get(self, path: str, query: Query | None = None) -> Any:
        """GET, as JSON."""
        with self.open("GET", path, query) as answer:
            return answer.json()

    def post(self, path: str, query: Query | None = None, body: object = None) -> Any:
        """POST a JSON body, answer as JSON."""
        with self.open("POST", path, query, body) as answer:
            return answer.json()

    def delete(self, path: str, query: Query | None = None) -> Any:
        """DELETE, answer as JSON."""
        with self.open("DELETE", path, query) as answer:
            return answer.json()

    def open(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        upload: Iterable[bytes] | None = None,
        silence_s: float | None = -1,
        accept: tuple[int, ...] = (),
    ) -> Answer:
        """Send a request and read the head of its answer.

        Args:
            method: HTTP method.
            path: Below the version, ``/containers/json``; or ``/linkspan/…``, which has no version.
            query: Values that are None are left out, booleans become ``1`` and ``0``, mappings JSON.
            body: Sent as JSON, unless None.
            headers: More headers.
            upload: A body sent in chunks while it is made.
            silence_s: How long the answer may take to begin; -1 for the client's own, None for ever.
            accept: Statuses of 400 and more that are no error.

        Raises:
            Unreachable: No daemon answers.
            ApiError: The daemon refused.
            ConnectionLost: It went away.
        """
        sock = self.connect()
        try:
            self._send(sock, method, path, query, body, headers or {}, upload)
            sock.settimeout(self.silence_s if silence_s == -1 else silence_s)
            reader = Reader(sock)
            status, answered = self._head(reader)
            sock.settimeout(None)
            answer = Answer(sock, reader, method, status, answered)
            if status >= 400 and status not in accept:
                raise self._error(answer)
        except BaseException:
            sock.close()
            raise
        return answer

    def hijack(
        self, path: str, query: Query | None = None, body: object = None
    ) -> tuple[Socket, bytes, dict[str, str]]:
        """POST, then take the connection over as a raw two-way stream (API: attach, exec start).

        Returns:
            The socket, what came behind the answer's head already, and the answer's headers.
        """
        import socket

        upgrade = {"Connection": "Upgrade", "Upgrade": "tcp"}
        answer = self.open("POST", path, query, body, headers=upgrade)
        sock = answer.sock
        if not isinstance(sock, socket.socket):
            sock = socket.socket(fileno=sock.detach())
        return sock, bytes(answer.reader.buffer), answer.headers

    def connect(self) -> RawSocket:
        """A new connection; the daemon is started where that is allowed.

        Raises:
            Unreachable: No daemon answers.
        """
        try:
            return connect(self.address)
        except Unreachable as exc:
            if exc.cause not in ("no-socket", "refused") or self._start is None:
                raise
            if not self.address.autostart:
                raise
        self._start(self.address)
        return connect(self.address)

    def _send(
        self,
        sock: RawSocket,
        method: str,
        path: str,
        query: Query | None,
        body: object,
        headers: Mapping[str, str],
        upload: Iterable[bytes] | None,
    ) -> None:
        lines = [f"{method} {self._target(path, query)} HTTP/1.1", "Host: linkspan"]
        lines.extend(f"{name}: {value}" for name, value in headers.items())
        if not any(name.lower() == "connection" for name in headers):
            lines.append("Connection: close")
        data = b""
        if upload is not None:
            lines.append("Transfer-Encoding: chunked")
        elif body is not None:
            data = quick_json.dumps(body).encode()
            lines.append(f"Content-Type: {_JSON}")
            lines.append(f"Content-Length: {len(data)}")
        elif method in ("POST", "PUT"):
            lines.append("Content-Length: 0")
        head = "\r\n".join(lines).encode() + b"\r\n\r\n"
        try:
            sock.sendall(head + data)
            if upload is not None:
                for piece in upload:
                    if piece:
                        sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
                sock.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            # A daemon that refuses a long body answers and closes: the answer says why.
            return

    def _target(self, path: str, query: Query | None) -> str:
        pairs = []
        for key, value in (query or {}).items():
            for item in value if isinstance(value, (list, tuple)) else [value]:
                if item is None:
                    continue
                if isinstance(item, bool):
                    pairs.append((key, "1" if item else "0"))
                elif isinstance(item, dict):
                    pairs.append((key, quick_json.dumps(item)))
                else:
                    pairs.append((key, str(item)))
        prefix = "" if path.startswith(("/linkspan/", "/_ping", "/version")) else f"/v{API_VERSION}"
        if not pairs:
            return f"{prefix}{path}"
        asked = "&".join(f"{key}={segment(text)}" for key, text in pairs)
        return f"{prefix}{path}{'&' if '?' in path else '?'}{asked}"

    def _head(self, reader: Reader) -> tuple[int, dict[str, str]]:
        try:
            return reader.head()
        except TimeoutError as exc:
            reason = f"the daemon took the request and says nothing for {self.silence_s:g}s"
            help_text = "linkspan daemon status"
            raise Unreachable(self.address.url, "silent", reason, help_text) from exc
        except ConnectionResetError as exc:
            raise ConnectionLost("the daemon closed the connection without an answer") from exc
        except ValueError as exc:
            reason = "something else listens there: the answer is not HTTP"
            raise Unreachable(self.address.url, "version", reason) from exc

    def _error(self, answer: Answer) -> ApiError | Unreachable:
        body = answer.read()
        answer.close()
        try:
            document = quick_json.loads(body)
        except ValueError:
            document = {}
        if not isinstance(document, dict):
            document = {}
        message = str(document.get("message") or body.decode("utf-8", "replace").strip())
        if answer.status == 400 and "client version" in message:
            reason = f"it speaks another version of the API: {message}"
            return Unreachable(self.address.url, "version", reason, "linkspan version")
        details = document.get("details")
        return ApiError(
            answer.status,
            message or f"HTTP status {answer.status}",
            code=str(document.get("code") or ""),
            details=details if isinstance(details, dict) else None,
            help=str(document.get("help") or ""),
        )
