"""A running registry and a plain HTTP client of it."""

import http.client
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from linkspan.plugins.registry_server.component import serve_registry
from linkspan.plugins.registry_server.config import RegistryServerConfig
from linkspan.sdk.testing.host import FakeHost


@attrs.frozen
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@attrs.frozen
class Api:
    """Asks with the standard library's client, in a thread; one connection a request."""

    address: str
    root: Path

    def ask(self, method: str, target: str, body: Any, headers: Mapping[str, str]) -> Answer:
        connection = http.client.HTTPConnection(self.address, timeout=20)
        try:
            connection.request(method, target, body=body, headers=dict(headers))
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())  # type: ignore[arg-type]
        finally:
            connection.close()

    async def __call__(self, method: str, target: str, body: Any = None, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await trio.to_thread.run_sync(self.ask, method, target, body, named)

    async def connect(self) -> trio.SocketStream:
        host, _, port = self.address.rpartition(":")
        return await trio.open_tcp_stream(host, int(port))

    def uploads(self) -> list[Path]:
        return list((self.root / "uploads").iterdir())

    def blobs(self) -> set[str]:
        return {path.name for path in (self.root / "blobs" / "sha256").iterdir()}


StartRegistry = Callable[..., Any]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[StartRegistry]:
    """Starts a registry with settings; all share one folder."""
    async with trio.open_nursery() as nursery:

        async def start(**settings: Any) -> Api:
            host = FakeHost(root=tmp_path, nursery=nursery)
            config = RegistryServerConfig(**{"listen": "127.0.0.1:0", "drain_s": 0.1, **settings})
            address = await nursery.start(serve_registry, config, host)
            return Api(address, tmp_path / "state" / "registry")

        yield start
        nursery.cancel_scope.cancel()


@pytest.fixture
async def api(start: StartRegistry) -> Api:
    return await start()  # type: ignore[no-any-return]
