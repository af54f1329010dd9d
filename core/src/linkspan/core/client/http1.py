"""HTTP/1.1 answers from a blocking socket, as far as one client of one daemon needs it (RFC 9112)."""

from __future__ import annotations

from linkspan.core.client.errors import ConnectionLost

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing these takes longer than a short command may
    from _socket import socket as RawSocket
    from collections.abc import Callable, Iterator
    from typing import Final

_MAX_HEAD: Final = 256 * 1024
_READ: Final = 64 * 1024


class Reader:
    """Buffered reading from a socket."""

    def __init__(self, sock: RawSocket) -> None:
        self.sock = sock
        self.buffer = bytearray()
        self.idle: Callable[[], object] | None = None

    def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers (names in lower case) of the next answer that is not 100.

        Raises:
            ConnectionLost: The connection ended before the head was complete.
            ValueError: What came is not HTTP.
        """
        while True:
            while (end := self.buffer.find(b"\r\n\r\n")) < 0:
                if len(self.buffer) > _MAX_HEAD or (
                    len(self.buffer) >= 5 and not self.buffer.startswith(b"HTTP/")
                ):
                    raise ValueError("the answer is not HTTP")
                if not self.fill():
                    raise ConnectionLost("the daemon closed the connection without an answer")
            lines = bytes(self.buffer[:end]).decode("latin-1").split("\r\n")
            del self.buffer[: end + 4]
            version, _, rest = lines[0].partition(" ")
            code = rest[:3]
            if not version.startswith("HTTP/") or not code.isdigit():
                raise ValueError("the answer is not HTTP")
            if code == "100":
                continue
            headers: dict[str, str] = {}
            for line in lines[1:]:
                name, _, value = line.partition(":")
                headers[name.strip().lower()] = value.strip()
            return int(code), headers

    def fill(self) -> bool:
        """Read once more from the socket; False at its end.

        While nothing comes, ``idle`` is called as often as the socket's time-out says.
        """
        while True:
            try:
                data = self.sock.recv(_READ)
            except TimeoutError:
                if self.idle is None:
                    raise
                self.idle()
            else:
                self.buffer += data
                return bool(data)

    def take(self, count: int) -> bytes:
        """Exactly so many bytes.

        Raises:
            ConnectionLost: The connection ended before.
        """
        while len(self.buffer) < count:
            if not self.fill():
                raise ConnectionLost("the daemon went away in the middle of an answer")
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data

    def line(self) -> bytes:
        """Up to and without the next CRLF."""
        while (end := self.buffer.find(b"\r\n")) < 0:
            if not self.fill():
                raise ConnectionLost("the daemon went away in the middle of an answer")
        data = bytes(self.buffer[:end])
        del self.buffer[: end + 2]
        return data

    def body(self, method: str, status: int, headers: dict[str, str]) -> Iterator[bytes]:
        """The pieces of an answer's body (RFC 9112 §6.3)."""
        if method == "HEAD" or status in (204, 304):
            return
        if headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunks()
        elif "content-length" in headers:
            left = int(headers["content-length"])
            while left:
                if not self.buffer and not self.fill():
                    raise ConnectionLost("the daemon went away in the middle of an answer")
                data = bytes(self.buffer[:left])
                del self.buffer[: len(data)]
                left -= len(data)
                yield data
        else:
            while self.buffer or self.fill():
                data = bytes(self.buffer)
                self.buffer.clear()
                yield data

    def _chunks(self) -> Iterator[bytes]:
        while True:
            size = int(self.line().split(b";")[0], 16)
            if size == 0:
                while self.line():
                    pass
                return
            yield self.take(size)
            self.line()
