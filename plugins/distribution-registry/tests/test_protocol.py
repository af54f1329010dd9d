"""The client against a registry that answers by script: what it sends, and what it makes of answers."""

import functools
import ssl

import httpx
import pytest
import trio
import trio.testing
from registry_script import (
    ANONYMOUS,
    APP,
    MANIFEST,
    Body,
    Script,
    client_of,
    error_answer,
    manifest_answer,
)

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
from linkspan.sdk.media_types import DOCKER_INDEX, OCI_MANIFEST
from linkspan.sdk.model.image import Credentials
from linkspan.sdk.reference import parse_reference

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
