"""A server on a unix socket of its own, and a client that speaks raw bytes."""

import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from linkspan.core.http import RouteTable, open_unix_listener, serve_http
from linkspan.sdk.http import Handler


@attrs.frozen
class Reply:
    status: int
    reason: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class RawClient:
    """One connection. Reads answers by the book, so that wrong framing shows."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.buffer = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def more(self) -> None:
        data = await self.stream.receive_some(65536)
        if not data:
            raise EOFError(self.buffer)
        self.buffer += data

    async def until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            await self.more()
        taken, _, self.buffer = self.buffer.partition(mark)
        return taken

    async def exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            await self.more()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    async def head(self) -> tuple[int, str, dict[str, str]]:
        lines = (await self.until(b"\r\n\r\n")).decode().split("\r\n")
        _, status, reason = (lines[0] + " ").split(" ", 2)
        headers = dict(line.split(": ", 1) for line in lines[1:])
        return int(status), reason.strip(), {k.lower(): v for k, v in headers.items()}

    async def chunk(self) -> bytes:
        size = int(await self.until(b"\r\n"), 16)
        data = await self.exactly(size)
        assert await self.exactly(2) == b"\r\n"
        return data

    async def reply(self, *, head_only: bool = False) -> Reply:
        status, reason, headers = await self.head()
        body = b""
        if head_only or status in (204, 304) or status < 200:
            pass
        elif headers.get("transfer-encoding") == "chunked":
            while data := await self.chunk():
                body += data
        else:
            body = await self.exactly(int(headers["content-length"]))
        return Reply(status, reason, headers, body)

    async def ask(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: str = "",
        head_only: bool = False,
    ) -> Reply:
        length = f"Content-Length: {len(body)}\r\n" if body or method == "POST" else ""
        await self.send(
            f"{method} {target} HTTP/1.1\r\nHost: d\r\n{length}{headers}\r\n".encode() + body
        )
        return await self.reply(head_only=head_only)

    async def closed(self) -> bool:
        return self.buffer == b"" and await self.stream.receive_some(1) == b""


@attrs.define
class Served:
    path: Path
    routes: RouteTable
    nursery: trio.Nursery
    clients: list[RawClient] = attrs.field(factory=list)

    def add(self, method: str, pattern: str, handler: Handler) -> None:
        self.routes.add(method, pattern, handler)

    async def start(self, **settings: Any) -> None:
        listener = await open_unix_listener(self.path)

        async def run(task_status: Any) -> None:
            await serve_http([listener], self.routes, task_status=task_status, **settings)

        await self.nursery.start(run)

    async def client(self) -> RawClient:
        client = RawClient(await trio.open_unix_socket(str(self.path)))
        self.clients.append(client)
        return client


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    with tempfile.TemporaryDirectory(prefix="ls") as folder:
        async with trio.open_nursery() as nursery:
            server = Served(Path(folder) / "http.sock", RouteTable(), nursery)
            yield server
            nursery.cancel_scope.cancel()
        for client in server.clients:
            await trio.aclose_forcefully(client.stream)
