"""A registry that answers a client by script, and a client that asks it."""

import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import attrs
import httpx
import trio
import trio.testing

from linkspan.plugins.distribution_registry.addresses import InsecureHosts
from linkspan.plugins.distribution_registry.client import DistributionClient
from linkspan.plugins.distribution_registry.config import DistributionConfig
from linkspan.sdk.media_types import OCI_CONFIG, OCI_MANIFEST
from linkspan.sdk.model.image import Credentials, Descriptor
from linkspan.sdk.reference import parse_reference

Handler = Callable[[httpx.Request], httpx.Response | Awaitable[httpx.Response]]

MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {
            "mediaType": OCI_CONFIG,
            "digest": "sha256:" + "a" * 64,
            "size": 2,
        },
        "layers": [],
    }
).encode()


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def describe(data: bytes, **more: Any) -> Descriptor:
    return Descriptor(
        media_type="application/vnd.oci.image.layer.v1.tar",
        digest=sha256(data),
        size_bytes=len(data),
        **more,
    )


class Body(httpx.AsyncByteStream):
    """A body in parts; an exception among them breaks the connection there."""

    def __init__(self, *parts: bytes | Exception) -> None:
        self._parts = parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            await trio.lowlevel.checkpoint()
            if isinstance(part, Exception):
                raise part
            yield part


def fresh(answer: httpx.Response) -> httpx.Response:
    """The same answer, not yet read."""
    stream = Body(answer.content) if answer.is_stream_consumed else answer.stream
    assert isinstance(stream, Body)
    return httpx.Response(answer.status_code, headers=answer.headers, stream=stream)


@attrs.define
class Script:
    """Answers in order; the last one stays. Keeps what was asked."""

    answers: list[Handler | httpx.Response | Exception]
    requests: list[httpx.Request] = attrs.field(factory=list)
    bodies: list[bytes] = attrs.field(factory=list)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        body = b"".join([part async for part in request.stream])  # type: ignore[union-attr]
        self.requests.append(request)
        self.bodies.append(body)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, httpx.Response):
            return fresh(answer)
        made = answer(request)
        return fresh(made if isinstance(made, httpx.Response) else await made)

    @property
    def asked(self) -> list[str]:
        return [f"{r.method} {r.url.path}" for r in self.requests]


def manifest_answer(
    data: bytes = MANIFEST, *, content_type: str = OCI_MANIFEST, digest: str | None = None
) -> httpx.Response:
    headers = {"Content-Type": content_type}
    if digest != "":
        headers["Docker-Content-Digest"] = digest or sha256(data)
    return httpx.Response(200, headers=headers, stream=Body(data))


def error_answer(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None
) -> httpx.Response:
    body = json.dumps({"errors": [{"code": code, "message": message, "detail": None}]}).encode()
    return httpx.Response(status, headers=dict(headers or {}), stream=Body(body))


def client_of(
    handler: Handler | Script, config: DistributionConfig | None = None, *insecure: str
) -> DistributionClient:
    return DistributionClient(
        config or DistributionConfig(docker_config=Path("/nonexistent/config.json")),
        InsecureHosts.of(insecure),
        base=httpx.MockTransport(handler),  # type: ignore[arg-type]
    )


ANONYMOUS = Credentials()
APP = parse_reference("r.test/team/app:1")
LAYER = bytes(range(256)) * 16


async def read(parts: AbstractAsyncContextManager[AsyncIterator[bytes]]) -> bytes:
    async with parts as opened:
        return b"".join([part async for part in opened])


BASIC = {"WWW-Authenticate": 'Basic realm="r"'}
BEARER = {
    "WWW-Authenticate": 'Bearer realm="https://auth.test/token",service="r.test",'
    'scope="repository:team/app:pull"'
}
USER = Credentials(username="me", password="secret")


def challenge(headers: dict[str, str]) -> httpx.Response:
    return error_answer(401, "UNAUTHORIZED", "authentication required", headers)


def token(value: str, **more: object) -> httpx.Response:
    return httpx.Response(200, json={"token": value, **more})
