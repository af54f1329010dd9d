"""Mirrors of Docker Hub, and searching, against registries that answer by script."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trio

from linkspan.plugins.distribution_registry.addresses import InsecureHosts
from linkspan.plugins.distribution_registry.client import DistributionClient
from linkspan.plugins.distribution_registry.config import DistributionConfig
from linkspan.plugins.distribution_registry.search import split_term
from linkspan.sdk.drivers.registry import SearchResult
from linkspan.sdk.errors import DataLoss, NotFound
from linkspan.sdk.media_types import OCI_CONFIG, OCI_MANIFEST
from linkspan.sdk.model.image import Credentials
from linkspan.sdk.reference import parse_reference

MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": "sha256:" + "a" * 64, "size": 2},
        "layers": [],
    }
).encode()
SECRET = Credentials(username="me", password="of-docker-hub")


class Body(httpx.AsyncByteStream):
    """A body that is still to be read."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        await trio.lowlevel.checkpoint()
        yield self._data


class Hosts:
    """Answers by host; remembers who was asked, and with which credentials."""

    def __init__(self, **answers: httpx.Response | Exception) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        self.asked.append((host, request.headers.get("authorization", "")))
        answer = self.answers[host.partition(".")[0].replace("-", "_")]
        if isinstance(answer, Exception):
            raise answer
        headers = {k: v for k, v in answer.headers.items() if k != "content-length"}
        return httpx.Response(answer.status_code, headers=headers, stream=Body(answer.content))


def client_of(hosts: Hosts, *mirrors: str) -> DistributionClient:
    config = DistributionConfig(
        docker_config=Path("/nonexistent/config.json"), retry_delay_s=0.001, attempts=2
    )
    return DistributionClient(
        config,
        InsecureHosts.of(()),
        mirrors=mirrors,
        base=httpx.MockTransport(hosts),
    )


def manifest() -> httpx.Response:
    return httpx.Response(200, headers={"Content-Type": OCI_MANIFEST}, content=MANIFEST)


async def test_a_mirror_is_asked_first_and_sees_no_credentials() -> None:
    hosts = Hosts(mirror=manifest(), registry_1=httpx.Response(500))
    client = client_of(hosts, "https://mirror.test/")
    found = await client.manifest(parse_reference("busybox:1"), SECRET)
    assert found.data == MANIFEST
    assert hosts.asked == [("mirror.test", "")]
    await client.aclose()


@pytest.mark.parametrize(
    "fault",
    [
        httpx.Response(404),
        httpx.Response(500),
        httpx.Response(401, headers={"WWW-Authenticate": 'Basic realm="x"'}),
        httpx.Response(200, headers={"Content-Type": OCI_MANIFEST}, content=b"{}"),
        httpx.ConnectError("no"),
    ],
)
async def test_whatever_a_mirror_does_wrong_the_origin_is_asked_then(
    fault: httpx.Response | Exception,
) -> None:
    hosts = Hosts(mirror=fault, second=httpx.Response(404), registry_1=manifest())
    client = client_of(hosts, "https://mirror.test/", "http://second.test/")
    found = await client.manifest(parse_reference("busybox:1"), Credentials())
    assert found.data == MANIFEST
    assert [host for host, _ in hosts.asked][-2:] == ["second.test", "registry-1.docker.io"]
    await client.aclose()


async def test_a_mirror_that_does_not_answer_is_left_in_peace_for_a_while(
    autojump_clock: object,
) -> None:
    hosts = Hosts(mirror=httpx.ConnectError("no"), registry_1=manifest())
    client = client_of(hosts, "https://mirror.test/")
    await client.manifest(parse_reference("busybox:1"), Credentials())
    hosts.asked.clear()
    await client.manifest(parse_reference("busybox:1"), Credentials())
    assert [host for host, _ in hosts.asked] == ["registry-1.docker.io"]
    await client.aclose()


async def test_other_registries_have_no_mirrors() -> None:
    hosts = Hosts(mirror=httpx.Response(500), other=manifest())
    client = client_of(hosts, "https://mirror.test/")
    await client.manifest(parse_reference("other.test/busybox:1"), Credentials())
    assert [host for host, _ in hosts.asked] == ["other.test"]
    await client.aclose()


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ("nginx", ("docker.io", "nginx")),
        ("team/app", ("docker.io", "team/app")),
        ("library/nginx", ("docker.io", "nginx")),
        ("r.test/team/app", ("r.test", "team/app")),
        ("localhost/app", ("localhost", "app")),
        ("r:5000/app", ("r:5000", "app")),
    ],
)
def test_a_term_may_name_a_registry(term: str, expected: tuple[str, str]) -> None:
    assert split_term(term) == expected


async def test_a_search_gives_names_that_can_be_pulled() -> None:
    items = [{"name": "team/app", "description": None, "star_count": 3, "is_official": True}]
    answer = httpx.Response(200, json={"results": items})
    client = client_of(Hosts(r=answer, index=answer))
    assert await client.search("r.test/app", 10, Credentials()) == [
        SearchResult(name="r.test/team/app", stars=3, official=True)
    ]
    assert (await client.search("app", 10, Credentials()))[0].name == "team/app"
    await client.aclose()


async def test_a_registry_without_search_or_sense_is_named() -> None:
    client = client_of(Hosts(r=httpx.Response(404), bad=httpx.Response(200, content=b"[1]")))
    with pytest.raises(NotFound, match=r"r\.test has no search"):
        await client.search("r.test/app", 10, Credentials())
    with pytest.raises(DataLoss, match=r"bad\.test"):
        await client.search("bad.test/app", 10, Credentials())
    await client.aclose()
