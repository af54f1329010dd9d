"""The plugin's routes on a fake engine, asked without HTTP."""

import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import attrs
import pytest
import trio

from linkspan.plugins.docker_api.plugin import linkspan_register_routes
from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.http import (
    Answer,
    AnswerError,
    Duplex,
    Handler,
    Hijack,
    Request,
    Response,
    Stream,
)
from linkspan.sdk.testing.fakes.engine import FakeEngine
from linkspan.sdk.testing.fakes.engine_images import make_image
from linkspan.sdk.testing.fakes.machine import FakeMachine
from linkspan.sdk.testing.fakes.runtime import FakeRuntime
from linkspan.sdk.testing.host import FakeHost


class FakeRequest(Request):
    def __init__(self, method: str, target: str, body: bytes, headers: dict[str, str]) -> None:
        parts = urlsplit(target)
        self.method = method
        version = re.match(r"/v(\d+)\.(\d+)(/.*)", parts.path)
        self.api_version = (int(version[1]), int(version[2])) if version else (1, 50)
        self.path = version[3] if version else parts.path
        self.params = {}
        values: dict[str, tuple[str, ...]] = {}
        for key, value in parse_qsl(parts.query, keep_blank_values=True):
            values[key] = (*values.get(key, ()), value)
        self.query_all = values
        self.query = {key: many[0] for key, many in values.items()}
        self.headers = {key.lower(): value for key, value in headers.items()}
        self.peer_uid = 0
        self._body = body

    async def body(self) -> AsyncIterator[bytes]:
        yield self._body

    async def read(self, *, limit_bytes: int = 8 << 20) -> bytes:
        return self._body


class FakeDuplex(Duplex):
    """A taken-over connection; the test types into it and reads what comes."""

    def __init__(self) -> None:
        self._type, self._input = trio.open_memory_channel[bytes](100)
        self.output = b""
        self.started = trio.Event()
        self._more = trio.Event()

    async def start(self) -> None:
        self.started.set()
        await trio.lowlevel.checkpoint()

    async def receive(self) -> bytes:
        await self.start()
        try:
            return await self._input.receive()
        except trio.EndOfChannel:
            return b""

    async def send(self, *parts: bytes) -> None:
        await self.start()
        self.output += b"".join(parts)
        self._more.set()
        self._more = trio.Event()

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()

    def type(self, data: bytes) -> None:
        self._type.send_nowait(data)

    def end_input(self) -> None:
        self._type.close()

    async def until(self, wanted: bytes) -> bytes:
        while wanted not in self.output:
            await self._more.wait()
        return self.output


class FakeWriter:
    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.more = trio.Event()

    async def write(self, *parts: bytes) -> None:
        self.chunks.append(b"".join(parts))
        self.more.set()
        self.more = trio.Event()
        await trio.lowlevel.checkpoint()

    async def write_from_pipe(self, pipe: int, count: int) -> None:
        await self.write(os.read(pipe, count))

    @property
    def data(self) -> bytes:
        return b"".join(self.chunks)

    async def until(self, wanted: bytes) -> bytes:
        while wanted not in self.data:
            await self.more.wait()
        return self.data


@attrs.frozen
class Reply:
    status: int
    body: bytes
    headers: Any

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        return str(self.json["message"])

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines() if line.strip()]


class FakeRouter:
    """Matches as the core's does: literal paths first, then the most literal pattern."""

    def __init__(self) -> None:
        self.routes: list[tuple[int, str, str, re.Pattern[str], Handler]] = []

    def add(self, method: str, pattern: str, handler: Handler) -> None:
        regex = re.sub(r"\{(\w+):path\}", r"(?P<\1>.+)", pattern)
        regex = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", regex)
        literal = -sum("{" not in part for part in pattern.split("/") if part)
        rank = literal + 100 * ("{" in pattern)
        self.routes.append((rank, method, pattern, re.compile(regex), handler))
        self.routes.sort(key=lambda route: route[0])

    def find(self, request: FakeRequest) -> Handler:
        for _, method, _, regex, handler in self.routes:
            match = regex.fullmatch(request.path)
            if match and method == request.method:
                request.params = match.groupdict()
                return handler
        raise AssertionError(f"no route for {request.method} {request.path}")


def as_reply(error: LinkspanError) -> Reply:
    status = error.status if isinstance(error, AnswerError) else error.http_status
    return Reply(status, json.dumps({"message": error.message}).encode(), {})


def bare(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


@attrs.define
class Api:
    host: FakeHost
    engine: FakeEngine
    machine: FakeMachine
    router: FakeRouter
    nursery: trio.Nursery

    async def answer(
        self, method: str, target: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        data = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        request = FakeRequest(method, target, data, headers or {})
        return await self.router.find(request)(request)

    async def ask(self, method: str, target: str, body: Any = None, **headers: str) -> Reply:
        """The whole answer; a stream is read to its end."""
        try:
            answer = await self.answer(method, target, body, headers)
            if isinstance(answer, Response):
                return Reply(answer.status, answer.body, answer.headers)
            if isinstance(answer, Stream):
                writer = FakeWriter()
                await answer.run(writer)
                return Reply(answer.status, writer.data, answer.headers)
            duplex = FakeDuplex()
            await answer.run(duplex)
            return Reply(101, duplex.output, {"Content-Type": answer.content_type})
        except Exception as error:
            cause = bare(error)
            if isinstance(cause, LinkspanError):
                return as_reply(cause)
            raise

    async def watch(self, method: str, target: str, body: Any = None) -> FakeWriter:
        """Start a stream that does not end by itself."""
        answer = await self.answer(method, target, body)
        assert isinstance(answer, Stream)
        writer = FakeWriter()
        self.nursery.start_soon(answer.run, writer)
        return writer

    async def take_over(
        self, method: str, target: str, body: Any = None
    ) -> tuple[FakeDuplex, trio.Event, Hijack]:
        """Take a connection over; the event is set when our side has ended."""
        answer = await self.answer(method, target, body)
        assert isinstance(answer, Hijack)
        duplex, ended = FakeDuplex(), trio.Event()

        async def run(hijack: Hijack = answer) -> None:
            await hijack.run(duplex)
            ended.set()

        self.nursery.start_soon(run)
        await duplex.started.wait()
        return duplex, ended, answer

    async def create(self, *command: str, name: str = "web", **fields: Any) -> str:
        body = {"Image": "app:1", "Cmd": list(command) or None, **fields}
        reply = await self.ask("POST", f"/containers/create?name={name}", body)
        assert reply.status == 201, reply.body
        return str(reply.json["Id"])

    async def start(self, *command: str, name: str = "web", **fields: Any) -> str:
        container = await self.create(*command, name=name, **fields)
        assert (await self.ask("POST", f"/containers/{container}/start")).status == 204
        return container


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with trio.open_nursery() as nursery:
        machine = FakeMachine(nursery)
        engine = FakeEngine(machine)
        engine.images.put(make_image("app:1", labels={"from": "image"}, exposed_ports=("80/tcp",)))
        host = FakeHost(root=tmp_path, nursery=nursery, fake_engine=engine)
        host.drivers["runtime", ""] = FakeRuntime(machine)
        router = FakeRouter()
        linkspan_register_routes(router, host)
        yield Api(host, engine, machine, router, nursery)
        nursery.cancel_scope.cancel()
