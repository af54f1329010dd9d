"""The client against a registry that answers by script: what it sends, and what it makes of answers."""

import functools
import hashlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio
import trio.testing

from linkspan.plugins.distribution_registry.addresses import InsecureHosts
from linkspan.plugins.distribution_registry.client import DistributionClient
from linkspan.plugins.distribution_registry.config import DistributionConfig
from linkspan.sdk.errors import (
    DataLoss,
    InvalidArgument,
    LinkspanError,
    NotFound,
    OutOfSpace,
    PermissionDenied,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from linkspan.sdk.media_types import DOCKER_INDEX, OCI_CONFIG, OCI_MANIFEST
from linkspan.sdk.model.image import Credentials, Descriptor
from linkspan.sdk.reference import parse_reference
from linkspan.sdk.testing.conformance.registry import source_of

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


# --- manifests


async def test_a_manifest_is_asked_with_all_media_types_and_verified() -> None:
    script = Script([manifest_answer()])
    found = await client_of(script).manifest(APP, ANONYMOUS)
    assert found.data == MANIFEST
    request = script.requests[0]
    assert str(request.url) == "https://r.test/v2/team/app/manifests/1"
    assert OCI_MANIFEST in request.headers["accept"]
    assert DOCKER_INDEX in request.headers["accept"]
    assert request.headers["accept-encoding"] == "identity"
    assert "authorization" not in request.headers


async def test_docker_hub_is_asked_at_its_api_host() -> None:
    script = Script([manifest_answer()])
    await client_of(script).manifest(parse_reference("app"), ANONYMOUS)
    url = "https://registry-1.docker.io/v2/library/app/manifests/latest"
    assert str(script.requests[0].url) == url


async def test_a_manifest_with_a_wrong_digest_is_data_loss() -> None:
    absent = "sha256:" + "0" * 64
    with pytest.raises(DataLoss, match="does not match its digest") as caught:
        await client_of(Script([manifest_answer(digest=absent)])).manifest(APP, ANONYMOUS)
    assert caught.value.details["expected"] == absent
    with pytest.raises(DataLoss):
        await client_of(Script([manifest_answer()])).manifest(APP.with_digest(absent), ANONYMOUS)


async def test_a_huge_manifest_is_refused_while_it_is_read() -> None:
    script = Script([httpx.Response(200, stream=Body(*[bytes(1 << 20)] * 64))])
    with pytest.raises(TooLarge, match="8388608 bytes"):
        await client_of(script).manifest(APP, ANONYMOUS)


async def test_a_wrong_content_type_is_refused() -> None:
    script = Script([manifest_answer(content_type="text/html")])
    with pytest.raises(DataLoss, match="sent as 'text/html' but calls itself"):
        await client_of(script).manifest(APP, ANONYMOUS)
    script = Script([manifest_answer(b'{"layers": []}', content_type="text/html")])
    with pytest.raises(Unsupported, match='"text/html"'):
        await client_of(script).manifest(APP, ANONYMOUS)


async def test_a_reference_without_a_usable_host_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        await client_of(Script([manifest_answer()])).manifest(
            parse_reference("a_b.com/app"), ANONYMOUS
        )


# --- refusals


@pytest.mark.parametrize(
    ("answer", "error", "code", "text"),
    [
        (
            error_answer(404, "MANIFEST_UNKNOWN", "manifest unknown"),
            NotFound,
            "manifest_unknown",
            "manifest for r.test/team/app:1 not found: manifest unknown: manifest unknown",
        ),
        (
            httpx.Response(404, text="<html>"),
            NotFound,
            "manifest_unknown",
            "manifest for r.test/team/app:1 not found: manifest unknown: manifest unknown",
        ),
        (
            error_answer(404, "NAME_UNKNOWN", "repository name not known to registry"),
            NotFound,
            "repository_unknown",
            "repository r.test/team/app not found: name unknown: "
            "repository name not known to registry",
        ),
        (
            error_answer(401, "UNAUTHORIZED", "authentication required"),
            Unauthenticated,
            "registry_access_denied",
            "pull access denied for r.test/team/app, repository does not exist or may require "
            "'docker login': unauthorized: authentication required",
        ),
        (
            error_answer(403, "DENIED", "requested access to the resource is denied"),
            PermissionDenied,
            "registry_access_denied",
            "pull access denied for r.test/team/app, repository does not exist or may require "
            "'docker login': denied: requested access to the resource is denied",
        ),
        (
            error_answer(400, "NAME_INVALID", "invalid repository name"),
            InvalidArgument,
            "name_invalid",
            "cannot pull r.test/team/app:1: name invalid: invalid repository name (status 400)",
        ),
        (
            error_answer(405, "UNSUPPORTED", "the operation is unsupported"),
            Unsupported,
            "unsupported",
            "cannot pull r.test/team/app:1: unsupported: the operation is unsupported (status 405)",
        ),
    ],
)
async def test_a_refusal_has_dockers_words(
    answer: httpx.Response, error: type[LinkspanError], code: str, text: str
) -> None:
    script = Script([answer])
    with pytest.raises(error) as caught:
        await client_of(script).manifest(APP, ANONYMOUS)
    assert (caught.value.message, caught.value.code) == (text, code)
    assert len(script.requests) == 1, "a refusal is not tried again"


async def test_a_push_is_denied_in_the_same_words() -> None:
    script = Script([error_answer(403, "DENIED", "requested access to the resource is denied")])
    with pytest.raises(PermissionDenied, match=r"^push access denied for r\.test/team/app, "):
        await client_of(script).push_manifest(APP, OCI_MANIFEST, MANIFEST, ANONYMOUS)


async def test_a_tag_is_taken_away_and_one_that_is_not_there_is_no_failure() -> None:
    script = Script([httpx.Response(202), error_answer(404, "MANIFEST_UNKNOWN", "unknown")])
    client = client_of(script)
    await client.remove_tag(APP, ANONYMOUS)
    await client.remove_tag(APP, ANONYMOUS)
    assert script.asked == [f"DELETE /v2/team/app/manifests/{APP.tag}"] * 2


@pytest.mark.parametrize(
    ("status", "code"),
    [(405, "UNSUPPORTED"), (400, "DIGEST_INVALID"), (404, "PAGE_NOT_FOUND")],
)
async def test_a_registry_that_takes_no_tag_away_is_told_from_one_that_refuses_us(
    status: int, code: str
) -> None:
    with pytest.raises(Unsupported, match=r"r\.test/team/app") as caught:
        await client_of(Script([error_answer(status, code, "no")])).remove_tag(APP, ANONYMOUS)
    assert caught.value.code == "delete_not_offered"
    with pytest.raises(PermissionDenied, match=r"^delete access denied for r\.test/team/app, "):
        await client_of(Script([error_answer(403, "DENIED", "no")])).remove_tag(APP, ANONYMOUS)


async def test_a_push_is_asked_for_and_taken_back() -> None:
    begun = httpx.Response(202, headers={"Location": "/v2/team/app/blobs/uploads/7?state=x"})
    script = Script([begun, httpx.Response(204)])
    await client_of(script).check_push(APP, ANONYMOUS)
    uploads = "/v2/team/app/blobs/uploads/"
    assert script.asked == [f"POST {uploads}", f"DELETE {uploads}7"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (error_answer(403, "DENIED", "read only"), PermissionDenied),
        (error_answer(405, "UNSUPPORTED", "read only"), Unsupported),
        (error_answer(507, "FULL", "no room"), OutOfSpace),
    ],
)
async def test_a_push_that_is_not_allowed_is_told_without_trying_it(
    answer: httpx.Response, error: type[LinkspanError]
) -> None:
    script = Script([answer])
    with pytest.raises(error, match="push"):
        await client_of(script).check_push(APP, ANONYMOUS)
    assert len(script.requests) == 1


async def test_a_missing_blob_of_a_manifest_has_its_own_code() -> None:
    script = Script([error_answer(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry")])
    with pytest.raises(NotFound) as caught:
        await client_of(script).push_manifest(APP, OCI_MANIFEST, MANIFEST, ANONYMOUS)
    assert caught.value.code == "manifest_blob_unknown"


# --- retries


async def test_a_busy_registry_is_asked_again_after_the_time_it_names(
    autojump_clock: trio.testing.MockClock,
) -> None:
    busy = error_answer(429, "TOOMANYREQUESTS", "slow down", {"Retry-After": "17"})
    script = Script([busy, manifest_answer()])
    began = trio.current_time()
    await client_of(script).manifest(APP, ANONYMOUS)
    assert trio.current_time() - began == pytest.approx(17.0)
    assert len(script.requests) == 2


async def test_a_registry_that_asks_for_an_hour_is_not_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    script = Script([error_answer(429, "TOOMANYREQUESTS", "enough", {"Retry-After": "3600"})])
    with pytest.raises(Unavailable, match="asks to wait 3600 s") as caught:
        await client_of(script).manifest(APP, ANONYMOUS)
    assert caught.value.code == "too_many_requests"
    assert caught.value.details["retry_after_s"] == 3600.0
    assert len(script.requests) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_a_failing_registry_is_tried_five_times_with_growing_waits(
    autojump_clock: trio.testing.MockClock, status: int
) -> None:
    script = Script([lambda _: httpx.Response(status)])
    began = trio.current_time()
    with pytest.raises((Unavailable, InvalidArgument)):
        await client_of(script).manifest(APP, ANONYMOUS)
    assert len(script.requests) == 5
    assert 0.5 * 7.5 <= trio.current_time() - began <= 7.5


async def test_a_registry_that_comes_back_is_enough(
    autojump_clock: trio.testing.MockClock,
) -> None:
    answers = [httpx.ReadError("reset"), httpx.Response(503), httpx.ConnectTimeout("")]
    script = Script([*answers, manifest_answer()])
    assert (await client_of(script).manifest(APP, ANONYMOUS)).data == MANIFEST


async def test_a_manifest_that_breaks_off_is_asked_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cut = httpx.Response(200, stream=Body(MANIFEST[:10], httpx.ReadError("reset")))
    assert (await client_of(Script([cut, manifest_answer()])).manifest(APP, ANONYMOUS)).data == (
        MANIFEST
    )


async def test_a_bad_certificate_is_not_tried_again() -> None:
    error = httpx.ConnectError("tls")
    cause = ssl.SSLCertVerificationError(1, "certificate verify failed")
    cause.verify_message = "self-signed certificate"
    error.__cause__ = cause
    script = Script([error])
    with pytest.raises(Unavailable, match="tls: failed to verify certificate: self-signed"):
        await client_of(script).manifest(APP, ANONYMOUS)
    assert len(script.requests) == 1


# --- who we are

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


async def test_basic_credentials_are_sent_only_when_asked() -> None:
    script = Script([challenge(BASIC), manifest_answer(), manifest_answer()])
    client = client_of(script)
    await client.manifest(APP, USER)
    await client.manifest(APP, USER)
    sent = [r.headers.get("authorization") for r in script.requests]
    assert sent == [None, "Basic bWU6c2VjcmV0", "Basic bWU6c2VjcmV0"]


async def test_a_token_is_fetched_and_kept() -> None:
    script = Script([challenge(BEARER), token("t1"), manifest_answer(), manifest_answer()])
    client = client_of(script)
    await client.manifest(APP, USER)
    await client.manifest(APP, USER)
    asked = script.requests[1]
    assert asked.url.host == "auth.test"
    assert asked.url.params["service"] == "r.test"
    assert asked.url.params["scope"] == "repository:team/app:pull"
    assert asked.url.params["account"] == "me"
    assert asked.headers["authorization"] == "Basic bWU6c2VjcmV0"
    assert [r.headers.get("authorization") for r in script.requests[2:]] == ["Bearer t1"] * 2


async def test_anonymous_tokens_carry_no_credentials() -> None:
    script = Script([challenge(BEARER), token("t1"), manifest_answer()])
    await client_of(script).manifest(APP, ANONYMOUS)
    assert "authorization" not in script.requests[1].headers
    assert "account" not in script.requests[1].url.params


async def test_many_requests_at_once_fetch_one_token() -> None:
    fetched = 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal fetched
        await trio.lowlevel.checkpoint()
        if request.url.host == "auth.test":
            fetched += 1
            return token("t1")
        if request.headers.get("authorization") == "Bearer t1":
            return manifest_answer()
        return challenge(BEARER)

    client = client_of(Script([answer]))
    await client.manifest(APP, USER)
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(client.manifest, APP, USER)
    assert fetched == 1


async def test_an_expired_token_is_replaced(autojump_clock: trio.testing.MockClock) -> None:
    script = Script(
        [
            challenge(BEARER),
            token("t1", expires_in=300),
            manifest_answer(),
            token("t2"),
            manifest_answer(),
        ]
    )
    client = client_of(script)
    await client.manifest(APP, USER)
    await trio.sleep(301)
    await client.manifest(APP, USER)
    assert script.requests[-1].headers["authorization"] == "Bearer t2"


async def test_a_revoked_token_is_replaced_once() -> None:
    script = Script(
        [
            challenge(BEARER),
            token("t1"),
            manifest_answer(),
            challenge(BEARER),
            token("t2"),
            manifest_answer(),
        ]
    )
    client = client_of(script)
    await client.manifest(APP, USER)
    await client.manifest(APP, USER)
    assert script.requests[-1].headers["authorization"] == "Bearer t2"


async def test_a_registry_that_never_is_content_gets_two_requests() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return token("t") if request.url.host == "auth.test" else challenge(BEARER)

    script = Script([answer])
    with pytest.raises(Unauthenticated, match="pull access denied"):
        await client_of(script).manifest(APP, USER)
    assert len([r for r in script.requests if r.url.host == "r.test"]) == 2


async def test_a_wrong_password_is_named_and_not_tried_again() -> None:
    script = Script([challenge(BEARER), httpx.Response(401)])
    with pytest.raises(Unauthenticated, match="incorrect username or password") as caught:
        await client_of(script).manifest(APP, USER)
    assert caught.value.help == "docker login r.test"
    assert len(script.requests) == 2


async def test_basic_without_credentials_is_refused_at_once() -> None:
    script = Script([challenge(BASIC)])
    with pytest.raises(Unauthenticated):
        await client_of(script).manifest(APP, ANONYMOUS)
    assert len(script.requests) == 1


async def test_an_identity_token_is_exchanged() -> None:
    script = Script(
        [challenge(BEARER), httpx.Response(200, json={"access_token": "t"}), manifest_answer()]
    )
    await client_of(script).manifest(APP, Credentials(identity_token="idt"))
    assert script.requests[1].method == "POST"
    form = httpx.QueryParams(script.bodies[1].decode())
    assert form["grant_type"] == "refresh_token"
    assert form["refresh_token"] == "idt"
    assert script.requests[2].headers["authorization"] == "Bearer t"


async def test_a_registry_token_is_sent_as_it_is() -> None:
    script = Script([manifest_answer()])
    await client_of(script).manifest(APP, Credentials(registry_token="rt"))
    assert script.requests[0].headers["authorization"] == "Bearer rt"


async def test_credentials_of_another_host_are_not_sent() -> None:
    theirs = Credentials(username="me", password="secret", server_address="other.test")
    script = Script([challenge(BASIC)])
    with pytest.raises(Unauthenticated):
        await client_of(script).manifest(APP, theirs)
    assert all("authorization" not in r.headers for r in script.requests)


async def test_the_config_file_is_used_when_a_caller_has_no_credentials(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"auths": {"r.test": {"auth": "bWU6c2VjcmV0"}}}))
    script = Script([challenge(BASIC), manifest_answer()])
    await client_of(script, DistributionConfig(docker_config=path)).manifest(APP, ANONYMOUS)
    assert script.requests[1].headers["authorization"] == "Basic bWU6c2VjcmV0"


@pytest.mark.parametrize("realm", ["http://auth.test/token", "ftp://auth.test", "/token"])
async def test_a_realm_without_tls_gets_nothing(realm: str) -> None:
    script = Script([challenge({"WWW-Authenticate": f'Bearer realm="{realm}"'})])
    with pytest.raises(PermissionDenied) as caught:
        await client_of(script).manifest(APP, USER)
    assert caught.value.code == "insecure_realm"
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [httpx.Response(200, text="no"), httpx.Response(200, json={}), httpx.Response(200, json=[1])],
)
async def test_a_token_server_without_a_token_is_named(answer: httpx.Response) -> None:
    script = Script([challenge(BEARER), answer])
    with pytest.raises(Unavailable, match=r"token server auth\.test gave no token"):
        await client_of(script).manifest(APP, USER)


async def test_an_endless_token_is_not_read() -> None:
    endless = httpx.Response(200, stream=Body(*[bytes(1 << 20)] * 8))
    with pytest.raises(Unavailable, match="more than a token"):
        await client_of(Script([challenge(BEARER), endless])).manifest(APP, USER)


async def test_login_returns_the_identity_token() -> None:
    credentials = Credentials(username="me", password="secret", server_address="https://r.test/v1/")
    script = Script(
        [
            challenge(BEARER),
            token("t"),
            httpx.Response(200, json={}),
            token("t", refresh_token="idt"),
        ]
    )
    assert await client_of(script).login(credentials) == "idt"


@pytest.mark.parametrize("address", ["::/0", "\n", "../..", "r.test:99999"])
async def test_login_somewhere_that_is_no_host_is_refused(address: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid server address"):
        await client_of(Script([])).login(Credentials(username="a", server_address=address))


async def test_login_with_a_wrong_password_fails() -> None:
    credentials = Credentials(username="me", password="wrong", server_address="r.test")
    with pytest.raises(Unauthenticated, match="failed with status: 401"):
        await client_of(Script([challenge(BASIC)])).login(credentials)


# --- redirects


def redirect(location: str, status: int = 307) -> httpx.Response:
    return httpx.Response(status, headers={"Location": location})


async def test_a_blob_is_fetched_where_the_registry_says_without_our_token() -> None:
    script = Script(
        [
            challenge(BASIC),
            redirect("https://cdn.test/x?signature=1"),
            httpx.Response(200, stream=Body(LAYER)),
        ]
    )
    assert await read(client_of(script).blob(APP, describe(LAYER), USER, 0)) == LAYER
    assert "authorization" in script.requests[1].headers
    assert "authorization" not in script.requests[2].headers
    assert str(script.requests[2].url) == "https://cdn.test/x?signature=1"


async def test_a_redirect_on_the_same_host_keeps_the_token() -> None:
    script = Script([redirect("/other/1"), manifest_answer()])
    await client_of(script).manifest(APP, Credentials(registry_token="rt"))
    assert str(script.requests[1].url) == "https://r.test/other/1"
    assert script.requests[1].headers["authorization"] == "Bearer rt"


async def test_a_token_does_not_come_back_after_a_detour() -> None:
    script = Script(
        [redirect("https://evil.test/"), redirect("https://r.test/x"), manifest_answer()]
    )
    await client_of(script).manifest(APP, Credentials(registry_token="rt"))
    assert [("authorization" in r.headers) for r in script.requests] == [True, False, False]


async def test_a_redirect_to_plain_http_is_not_followed() -> None:
    script = Script([redirect("http://cdn.test/x")])
    with pytest.raises(PermissionDenied) as caught:
        await read(client_of(script).blob(APP, describe(LAYER), ANONYMOUS, 0))
    assert caught.value.code == "insecure_redirect"
    assert len(script.requests) == 1


async def test_a_redirect_loop_ends() -> None:
    script = Script([lambda _: redirect("/again")])
    with pytest.raises(Unavailable) as caught:
        await client_of(script).manifest(APP, ANONYMOUS)
    assert caught.value.code == "redirect_loop"
    assert len(script.requests) == 11


@pytest.mark.parametrize("location", ["file:///etc/passwd", "gopher://x/"])
async def test_a_redirect_to_elsewhere_is_refused(location: str) -> None:
    with pytest.raises(Unavailable) as caught:
        await client_of(Script([redirect(location)])).manifest(APP, ANONYMOUS)
    assert caught.value.code == "bad_redirect"


async def test_a_401_of_another_host_changes_nothing_for_ours() -> None:
    script = Script([redirect("https://cdn.test/x"), challenge(BASIC)])
    with pytest.raises(Unauthenticated):
        await read(client_of(script).blob(APP, describe(LAYER), USER, 0))
    assert all("authorization" not in r.headers for r in script.requests)


# --- downloads


def ranged(data: bytes, start: int, *parts: bytes | Exception) -> httpx.Response:
    headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
    return httpx.Response(206, headers=headers, stream=Body(*(parts or (data[start:],))))


async def test_a_cut_download_goes_on_where_it_stopped(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cut = httpx.RemoteProtocolError("peer closed connection")
    script = Script(
        [
            httpx.Response(200, stream=Body(LAYER[:1000], cut)),
            ranged(LAYER, 1000, LAYER[1000:1500], httpx.ReadTimeout("silent")),
            ranged(LAYER, 1500),
        ]
    )
    assert await read(client_of(script).blob(APP, describe(LAYER), ANONYMOUS, 0)) == LAYER
    asked = [r.headers.get("range") for r in script.requests]
    assert asked == [None, "bytes=1000-", "bytes=1500-"]


async def test_a_registry_without_ranges_begins_anew(
    autojump_clock: trio.testing.MockClock,
) -> None:
    script = Script(
        [
            httpx.Response(200, stream=Body(LAYER[:1000], httpx.ReadError("reset"))),
            httpx.Response(200, stream=Body(LAYER[:700], LAYER[700:])),
        ]
    )
    assert await read(client_of(script).blob(APP, describe(LAYER), ANONYMOUS, 0)) == LAYER


async def test_a_download_may_begin_in_the_middle() -> None:
    script = Script([ranged(LAYER, 4000)])
    found = await read(client_of(script).blob(APP, describe(LAYER), ANONYMOUS, 4000))
    assert found == LAYER[4000:]


async def test_a_download_without_progress_is_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if "range" in request.headers:
            return ranged(LAYER, 1000, httpx.ReadError("reset"))
        return httpx.Response(200, stream=Body(LAYER[:1000], httpx.ReadError("reset")))

    with pytest.raises(Unavailable, match="after 1000 of") as caught:
        await read(client_of(Script([answer])).blob(APP, describe(LAYER), ANONYMOUS, 0))
    assert caught.value.code == "download_interrupted"


async def test_progress_renews_the_patience(autojump_clock: trio.testing.MockClock) -> None:
    """A line that breaks every hundred bytes still gets everything."""
    data = LAYER[:2000]

    def answer(request: httpx.Request) -> httpx.Response:
        start = int(request.headers.get("range", "bytes=0-")[6:-1])
        if start == 0:
            return httpx.Response(200, stream=Body(data[:100], httpx.ReadError("reset")))
        return ranged(data, start, data[start : start + 100], httpx.ReadError("reset"))

    assert await read(client_of(Script([answer])).blob(APP, describe(data), ANONYMOUS, 0)) == data


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, stream=Body(LAYER, b"more")),
        httpx.Response(200, headers={"Content-Length": str(len(LAYER) + 1)}, stream=Body(LAYER)),
        httpx.Response(200, headers={"Content-Length": "3"}, stream=Body(b"abc")),
    ],
    ids=["longer", "longer by its head", "shorter by its head"],
)
async def test_a_blob_of_another_length_is_data_loss(answer: httpx.Response) -> None:
    with pytest.raises(DataLoss) as caught:
        await read(client_of(Script([answer])).blob(APP, describe(LAYER), ANONYMOUS, 0))
    assert caught.value.code == "blob_invalid"


@pytest.mark.parametrize(
    "header",
    ["bytes 2000-4095/4096", "bytes 1000-4095/9999", "nonsense", ""],
)
async def test_another_range_than_asked_is_data_loss(header: str) -> None:
    answer = httpx.Response(206, headers={"Content-Range": header}, stream=Body(LAYER))
    with pytest.raises(DataLoss):
        await read(client_of(Script([answer])).blob(APP, describe(LAYER), ANONYMOUS, 1000))


async def test_a_foreign_layer_comes_from_its_own_address() -> None:
    foreign = describe(LAYER, urls=("file:///etc/passwd", "https://vendor.test/layer"))
    script = Script([httpx.Response(404), httpx.Response(200, stream=Body(LAYER))])
    client = client_of(script)
    assert await read(client.blob(APP, foreign, Credentials(registry_token="rt"), 0)) == LAYER
    assert script.asked[-1] == "GET /layer"
    assert "authorization" not in script.requests[-1].headers


# --- uploads


def upload_answers(**override: object) -> dict[str, object]:
    return {
        "HEAD": httpx.Response(404),
        "POST": httpx.Response(202, headers={"Location": "/v2/team/app/blobs/uploads/u1?state=a"}),
        "PUT": httpx.Response(201),
        "DELETE": httpx.Response(204),
        "GET": httpx.Response(404),
        **override,
    }


def by_method(answers: dict[str, object]) -> Script:
    def answer(request: httpx.Request) -> httpx.Response:
        found = answers[request.method]
        if isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, httpx.Response)
        return found

    return Script([answer])


async def push(script: Script, data: bytes = LAYER, **more: object) -> str:
    arguments = {"mount_from": (), "sent": None, **more}
    return await client_of(script).push_blob(
        APP,
        describe(data),
        source_of(data, piece_bytes=700),
        ANONYMOUS,
        **arguments,  # type: ignore[arg-type]
    )


async def test_a_blob_goes_out_in_one_put_with_its_length() -> None:
    script = by_method(upload_answers())
    assert await push(script) == "pushed"
    assert [r.method for r in script.requests] == ["HEAD", "POST", "PUT"]
    put = script.requests[-1]
    assert put.url.params["digest"] == sha256(LAYER)
    assert put.url.params["state"] == "a"
    assert put.headers["content-length"] == str(len(LAYER))
    assert "transfer-encoding" not in put.headers
    assert script.bodies[-1] == LAYER


async def test_a_broken_upload_goes_on_where_the_registry_stopped(
    autojump_clock: trio.testing.MockClock,
) -> None:
    location = {"Location": "/v2/team/app/blobs/uploads/u1?state=b", "Range": "0-999"}
    script = by_method(
        upload_answers(
            PUT=[httpx.WriteError("reset"), httpx.Response(201)],
            GET=httpx.Response(204, headers=location),
            PATCH=httpx.Response(
                202, headers={"Location": "/v2/team/app/blobs/uploads/u1?state=c"}
            ),
        )
    )
    assert await push(script) == "pushed"
    assert [r.method for r in script.requests] == [
        "HEAD", "POST", "PUT", "HEAD", "GET", "PATCH", "PUT",
    ]  # fmt: skip
    patch, put = script.requests[-2:]
    assert patch.headers["content-range"] == f"1000-{len(LAYER) - 1}"
    assert script.bodies[-2] == LAYER[1000:]
    assert put.url.params["state"] == "c"
    assert script.bodies[-1] == b""


async def test_an_upload_that_the_registry_lost_begins_anew(
    autojump_clock: trio.testing.MockClock,
) -> None:
    script = by_method(upload_answers(PUT=[httpx.ReadError("reset"), httpx.Response(201)]))
    assert await push(script) == "pushed"
    assert script.bodies[-1] == LAYER
    assert [r.method for r in script.requests].count("POST") == 2


async def test_an_upload_whose_answer_got_lost_is_not_repeated(
    autojump_clock: trio.testing.MockClock,
) -> None:
    script = by_method(
        upload_answers(
            HEAD=[httpx.Response(404), httpx.Response(200)], PUT=httpx.ReadError("reset")
        )
    )
    assert await push(script) == "pushed"
    assert [r.method for r in script.requests].count("PUT") == 1


async def test_an_upload_is_given_up_after_five_failures(
    autojump_clock: trio.testing.MockClock,
) -> None:
    script = by_method(upload_answers(PUT=httpx.Response(503)))
    with pytest.raises(Unavailable) as caught:
        await push(script)
    assert caught.value.code == "upload_interrupted"
    assert [r.method for r in script.requests].count("PUT") == 5
    assert script.requests[-1].method == "DELETE", "the session is given back"


async def test_a_full_registry_is_not_tried_again() -> None:
    for answer in (
        httpx.Response(507),
        error_answer(500, "UNKNOWN", "write /data: no space left on device"),
    ):
        script = by_method(upload_answers(PUT=answer))
        with pytest.raises(OutOfSpace) as caught:
            await push(script)
        assert caught.value.code == "registry_full"
        assert [r.method for r in script.requests].count("PUT") == 1


async def test_a_mount_that_fails_becomes_an_upload() -> None:
    script = by_method(upload_answers())
    assert await push(script, mount_from=("base",)) == "pushed"
    mount = script.requests[1]
    assert (mount.url.params["mount"], mount.url.params["from"]) == (sha256(LAYER), "base")
    assert [r.method for r in script.requests] == ["HEAD", "POST", "PUT"], "its session is used"


async def test_the_token_of_a_mount_reads_the_other_repository() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "auth.test":
            return token("t")
        if "authorization" not in request.headers:
            return challenge(BEARER)
        return httpx.Response(404 if request.method == "HEAD" else 201)

    script = Script([answer])
    assert await push(script, mount_from=("base",)) == "mounted"
    asked = [r.url.params.get_list("scope") for r in script.requests if r.url.host == "auth.test"]
    assert asked == [
        ["repository:team/app:pull,push"],
        ["repository:base:pull", "repository:team/app:pull,push"],
    ]


async def test_a_registry_that_stores_under_another_digest_is_data_loss() -> None:
    wrong = {"Docker-Content-Digest": "sha256:" + "0" * 64}
    with pytest.raises(DataLoss):
        await push(by_method(upload_answers(PUT=httpx.Response(201, headers=wrong))))
    script = Script([httpx.Response(201, headers=wrong)])
    with pytest.raises(DataLoss):
        await client_of(script).push_manifest(APP, OCI_MANIFEST, MANIFEST, ANONYMOUS)


# --- tags


def tags_page(*tags: str, link: str = "") -> httpx.Response:
    headers = {"Link": f'<{link}>; rel="next"'} if link else {}
    return httpx.Response(200, json={"name": "team/app", "tags": list(tags)}, headers=headers)


async def test_tags_are_read_over_all_pages() -> None:
    script = Script([tags_page("a", "b", link="/v2/team/app/tags/list?last=b&n=2"), tags_page("c")])
    assert await client_of(script).tags(APP, ANONYMOUS) == ["a", "b", "c"]
    assert script.requests[1].url.params["last"] == "b"


async def test_a_list_of_tags_in_a_circle_ends() -> None:
    script = Script([lambda _: tags_page("a", link="/v2/team/app/tags/list?n=1")])
    assert await client_of(script).tags(APP, ANONYMOUS) == ["a"]
    assert len(script.requests) == 2


async def test_the_next_page_on_another_host_is_not_asked() -> None:
    script = Script([tags_page("a", link="https://evil.test/v2/x")])
    assert await client_of(script).tags(APP, Credentials(registry_token="rt")) == ["a"]
    assert len(script.requests) == 1


@pytest.mark.parametrize("body", [{"tags": "a"}, {"tags": [1]}, [], "x"])
async def test_a_list_of_tags_that_is_none_is_data_loss(body: object) -> None:
    with pytest.raises(DataLoss):
        await client_of(Script([httpx.Response(200, json=body)])).tags(APP, ANONYMOUS)


async def test_a_repository_without_tags_has_none() -> None:
    script = Script([httpx.Response(200, json={"name": "x", "tags": None})])
    assert await client_of(script).tags(APP, ANONYMOUS) == []


# --- insecure registries


async def test_loopback_is_asked_in_plain_http_and_remembered() -> None:
    script = Script([httpx.Response(200), manifest_answer(), manifest_answer()])
    client = client_of(script)
    for _ in range(2):
        await client.manifest(parse_reference("127.0.0.1:5000/app:1"), ANONYMOUS)
    assert [r.url.scheme for r in script.requests] == ["http"] * 3
    assert script.asked[0] == "GET /v2/"


async def test_a_tls_registry_on_loopback_is_found() -> None:
    script = Script([httpx.Response(400), httpx.Response(200), manifest_answer()])
    await client_of(script).manifest(parse_reference("localhost:5000/app:1"), ANONYMOUS)
    assert [r.url.scheme for r in script.requests] == ["http", "https", "https"]


async def test_an_insecure_registry_is_asked_with_tls_first() -> None:
    error = httpx.ConnectError("tls")
    cause = ssl.SSLError(1, "wrong version number")
    cause.reason = "WRONG_VERSION_NUMBER"
    error.__cause__ = cause
    script = Script([error, httpx.Response(200), manifest_answer()])
    client = client_of(script, None, "registry.test")
    await client.manifest(parse_reference("registry.test:5000/app:1"), ANONYMOUS)
    assert [r.url.scheme for r in script.requests] == ["https", "http", "http"]


async def test_no_other_registry_is_asked_in_plain_http() -> None:
    script = Script([httpx.ConnectError("refused")])
    with pytest.raises(Unavailable):
        await client_of(script, DistributionConfig(retry_delay_s=0.0)).manifest(APP, ANONYMOUS)
    assert {r.url.scheme for r in script.requests} == {"https"}


async def test_a_registry_that_changed_to_tls_is_found_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.scheme == "http" and changed:
            return httpx.Response(400)
        return httpx.Response(200) if request.url.path == "/v2/" else manifest_answer()

    changed = False
    client = client_of(Script([answer]))
    reference = parse_reference("localhost:5000/app:1")
    await client.manifest(reference, ANONYMOUS)
    changed = True
    with pytest.raises(InvalidArgument):
        await client.manifest(reference, ANONYMOUS)
    await client.manifest(reference, ANONYMOUS)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "nonsense://x"])
async def test_a_proxy_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    client = DistributionClient(DistributionConfig(), InsecureHosts.of([]))
    with pytest.raises(Unsupported) as caught:
        await client.manifest(APP, ANONYMOUS)
    assert caught.value.code == "proxy_unusable"


async def test_a_proxy_is_used_for_others_and_never_for_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    config = DistributionConfig(retry_delay_s=0.0)
    client = DistributionClient(config, InsecureHosts.of([]))
    asked: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        asked.append(await stream.receive_some(1000))
        await stream.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    async with trio.open_nursery() as nursery:
        serve_it = functools.partial(trio.serve_tcp, serve, 0, host="127.0.0.1")
        listeners = await nursery.start(serve_it)
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises((NotFound, Unavailable)):
            await client.manifest(parse_reference(f"127.0.0.1:{port}/app:1"), ANONYMOUS)
        nursery.cancel_scope.cancel()
    assert asked[0].startswith(b"GET /v2/ HTTP/1.1"), "no proxy in between"
    with pytest.raises(Unavailable, match="connection refused"):
        await client.manifest(APP, ANONYMOUS)
    await client.aclose()
