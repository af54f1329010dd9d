"""Mirrors of Docker Hub, and searching, against registries that answer by script."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trio
from registry_script import MANIFEST

from linkspan.plugins.distribution_registry.addresses import InsecureHosts
from linkspan.plugins.distribution_registry.client import DistributionClient
from linkspan.plugins.distribution_registry.config import DistributionConfig
from linkspan.plugins.distribution_registry.search import split_term
from linkspan.sdk.drivers.registry import SearchResult
from linkspan.sdk.errors import DataLoss, NotFound, Unavailable
from linkspan.sdk.media_types import OCI_MANIFEST
from linkspan.sdk.model.image import Credentials, Descriptor
from linkspan.sdk.reference import parse_reference

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


async def test_a_mirror_is_asked_for_all_tags_too_and_the_origin_if_it_has_none() -> None:
    tags = httpx.Response(200, json={"name": "library/busybox", "tags": ["1", "2"]})
    for answers, asked in (
        ({"mirror": tags, "registry_1": httpx.Response(500)}, ["mirror.test"]),
        (
            {"mirror": httpx.Response(404), "registry_1": tags},
            ["mirror.test", "registry-1.docker.io"],
        ),
    ):
        hosts = Hosts(**answers)
        found = await client_of(hosts, "https://mirror.test/").tags(
            parse_reference("busybox"), Credentials()
        )
        assert found == ["1", "2"]
        assert [host for host, _ in hosts.asked] == asked


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


LAYER = bytes(range(256)) * 400
DESCRIPTOR = Descriptor(
    media_type="application/vnd.oci.image.layer.v1.tar",
    digest="sha256:" + hashlib.sha256(LAYER).hexdigest(),
    size_bytes=len(LAYER),
)


class Broken(httpx.AsyncByteStream):
    """A body that breaks off."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        await trio.lowlevel.checkpoint()
        yield self._data
        raise httpx.ReadError("reset")


class Mirrored:
    """Hosts that have LAYER; those with a number break off after so many bytes of every answer."""

    def __init__(self, **breaks: int | None) -> None:
        self._breaks = breaks
        self.asked: list[tuple[str, int, bool]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host.partition(".")[0]
        wanted = request.headers.get("range", "bytes=0-")
        offset = int(wanted.removeprefix("bytes=").removesuffix("-"))
        self.asked.append((host, offset, "authorization" in request.headers))
        headers = {"Content-Range": f"bytes {offset}-{len(LAYER) - 1}/{len(LAYER)}"}
        limit = self._breaks[host.replace("-", "_")]
        body = Body(LAYER[offset:]) if limit is None else Broken(LAYER[offset : offset + limit])
        return httpx.Response(206 if offset else 200, headers=headers, stream=body)


async def read(client: DistributionClient, offset: int) -> bytes:
    busybox = parse_reference("busybox:1")
    async with client.blob(busybox, DESCRIPTOR, SECRET, offset) as parts:
        return b"".join([part async for part in parts])


async def test_a_mirror_that_breaks_in_the_middle_of_a_blob_is_relieved_at_that_byte() -> None:
    hosts = Mirrored(mirror=20_000, second=30_000, registry_1=None)
    client = client_of(hosts, "https://mirror.test/", "https://second.test/")  # type: ignore[arg-type]
    assert await read(client, 1000) == LAYER[1000:]
    assert [(host, at) for host, at, _ in hosts.asked] == [
        ("mirror", 1000),
        ("mirror", 21_000),
        ("second", 41_000),
        ("second", 71_000),
        ("registry-1", 101_000),
    ]
    await client.aclose()


async def test_a_mirror_that_broke_off_is_left_in_peace_for_the_other_layers() -> None:
    hosts = Mirrored(mirror=10, registry_1=None)
    client = client_of(hosts, "https://mirror.test/")  # type: ignore[arg-type]
    for _ in range(2):
        assert await read(client, 0) == LAYER
    assert [host for host, _, _ in hosts.asked] == ["mirror", "mirror", "registry-1", "registry-1"]
    await client.aclose()


async def test_when_the_origin_breaks_off_too_its_fault_is_told() -> None:
    hosts = Mirrored(mirror=10, registry_1=0)
    client = client_of(hosts, "https://mirror.test/")  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match=r"after 20 of 102400 bytes"):
        await read(client, 0)
    await client.aclose()
