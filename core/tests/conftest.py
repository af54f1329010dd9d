"""A daemon on a unix socket that answers what a test has told it, in processes of its own.

Each connection is served by a fork, so that a handler may take its time while others go on; what was
asked is written to a file, one JSON document a request.
"""

import json
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import pytest

Handler = Callable[["Request", "Connection"], None]


class Request(NamedTuple):
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    def __init__(self, sock: socket.socket, folder: Path) -> None:
        self.sock = sock
        self.folder = folder

    def answer(
        self, status: int = 200, document: Any = None, headers: dict[str, str] | None = None
    ) -> None:
        body = b"" if document is None else json.dumps(document).encode()
        self.head(status, {"Content-Length": str(len(body)), **(headers or {})}, body)

    def head(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        lines = [f"HTTP/1.1 {status} X", *(f"{k}: {v}" for k, v in headers.items())]
        self.sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def stream(self, *documents: Any) -> None:
        self.head(200, {"Transfer-Encoding": "chunked"})
        for document in documents:
            self.chunk(json.dumps(document).encode() + b"\r\n")
        self.sock.sendall(b"0\r\n\r\n")

    def chunk(self, data: bytes) -> None:
        self.sock.sendall(b"%x\r\n%b\r\n" % (len(data), data))

    def upgrade(self) -> None:
        self.head(101, {"Connection": "Upgrade", "Upgrade": "tcp"})

    def frame(self, stream: int, data: bytes) -> None:
        self.sock.sendall(bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data)

    def tell(self, event: str) -> None:
        (self.folder / f"event-{event}").touch()

    def await_event(self, event: str) -> None:
        until = time.monotonic() + 10
        while not (self.folder / f"event-{event}").exists():
            assert time.monotonic() < until, f"'{event}' did not happen"
            time.sleep(0.005)


class FakeDaemon:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket_path = folder / "d.sock"
        self.url = f"unix://{self.socket_path}"
        self._routes: dict[tuple[str, str], Any] = {}
        self._log = folder / "requests"

    def on(self, method: str, path: str, answer: Any = None, status: int = 200) -> None:
        """Answer a path (below the version) with a document, or let a handler do it."""
        self._routes[method, path] = answer if callable(answer) else (status, answer)

    @property
    def requests(self) -> list[Request]:
        if not self._log.exists():
            return []
        found = []
        for line in self._log.read_text().splitlines():
            method, path, query, headers, body = json.loads(line)
            found.append(Request(method, path, query, headers, body.encode("latin-1")))
        return found

    def asked(self, method: str, path: str) -> Request:
        return next(r for r in self.requests if (r.method, r.path) == (method, path))

    @contextmanager
    def running(self) -> Iterator[None]:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.socket_path))
        listener.listen(16)
        pid = os.fork()
        if pid == 0:
            self._serve(listener)
        os.setpgid(pid, pid)  # here too: whoever comes first
        try:
            yield
        finally:
            listener.close()
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self.socket_path.unlink()

    def _serve(self, listener: socket.socket) -> None:
        os.setpgid(0, 0)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            while True:
                sock, _ = listener.accept()
                if os.fork() == 0:
                    self._handle(sock)
                    sock.close()
                    os._exit(0)
                sock.close()
        except BaseException:  # noqa: BLE001 - shown, since nobody else sees it
            traceback.print_exc()
        finally:
            os._exit(1)

    def _handle(self, sock: socket.socket) -> None:
        try:
            request = _read(sock)
            if request is None:
                return
            record = [*request[:4], request.body.decode("latin-1")]
            with self._log.open("a") as log:
                log.write(json.dumps(record) + "\n")
            connection = Connection(sock, self.folder)
            answer = self._routes.get((request.method, request.path))
            if answer is None:
                message = f"no such route: {request.method} {request.path}"
                connection.answer(404, {"message": message})
            elif callable(answer):
                answer(request, connection)
            else:
                connection.answer(*answer)
        except (BrokenPipeError, ConnectionResetError):
            pass
        except BaseException:  # noqa: BLE001 - shown, since nobody else sees it
            traceback.print_exc()


def _read(sock: socket.socket) -> Request | None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        while not body.endswith(b"0\r\n\r\n"):
            body += sock.recv(65536)
        body = _dechunk(body)
    while len(body) < int(headers.get("content-length", 0)):
        body += sock.recv(65536)
    parts = urlsplit(target)
    path = parts.path.removeprefix("/v1.50")
    return Request(method, path, dict(parse_qsl(parts.query)), headers, body)


def _dechunk(data: bytes) -> bytes:
    out = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        count = int(size, 16)
        out += data[:count]
        data = data[count + 2 :]
    return out


@pytest.fixture
def fake(tmp_path: Path) -> FakeDaemon:
    """A fake daemon; give it routes, then enter ``running()``."""
    folder = tmp_path / "fake"
    folder.mkdir()
    return FakeDaemon(folder)
