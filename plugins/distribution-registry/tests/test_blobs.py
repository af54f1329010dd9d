"""Where blobs are fetched, and how they go out."""

import httpx
import pytest
import trio
import trio.testing
from registry_script import (
    ANONYMOUS,
    APP,
    BASIC,
    BEARER,
    LAYER,
    MANIFEST,
    USER,
    Body,
    Script,
    challenge,
    client_of,
    describe,
    error_answer,
    manifest_answer,
    read,
    sha256,
    token,
)

from linkspan.sdk.errors import (
    DataLoss,
    OutOfSpace,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from linkspan.sdk.media_types import OCI_MANIFEST
from linkspan.sdk.model.image import Credentials
from linkspan.sdk.testing.conformance.registry import source_of

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
