"""Who the client says it is, and to whom."""

import json
from pathlib import Path

import httpx
import pytest
import trio
import trio.testing
from registry_script import (
    ANONYMOUS,
    APP,
    BASIC,
    BEARER,
    USER,
    Body,
    Script,
    challenge,
    client_of,
    manifest_answer,
    token,
)

from linkspan.plugins.distribution_registry.config import DistributionConfig
from linkspan.sdk.errors import (
    InvalidArgument,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from linkspan.sdk.model.image import Credentials

# --- who we are


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
