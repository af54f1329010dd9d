"""The kit for role ``registry``. Subclass ``RegistryConformance``, set ``driver`` and ``remote``.

The registry at the other end is filled and read by a ``Remote``, which goes round the driver:
``HttpRemote`` for any server of the distribution protocol, ``FakeRemote`` for the fake.
"""

import hashlib
import http.client
import json
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import attrs
import pytest
import trio

from linkspan.sdk.drivers.registry import BlobSource, Registry, RegistryCap
from linkspan.sdk.errors import DataLoss, InvalidArgument, LinkspanError, NotFound, Unsupported
from linkspan.sdk.media_types import (
    DOCKER_CONFIG,
    DOCKER_INDEX,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
)
from linkspan.sdk.model.image import Credentials, Descriptor
from linkspan.sdk.reference import Reference, parse_reference
from linkspan.sdk.testing.fakes.registry import FakeRegistry, Pieces
from linkspan.sdk.testing.host import FakeHost

ANONYMOUS = Credentials()
LAYER = bytes(range(256)) * 4096
CONFIG = b'{"architecture":"amd64","os":"linux"}'


class Remote(Protocol):
    """A registry as the kit sees it. ``path`` is a repository on ``domain``."""

    @property
    def domain(self) -> str:
        """Host and port."""

    async def put_blob(self, path: str, data: bytes) -> None:
        """Store a blob."""

    async def put_manifest(self, path: str, name: str, media_type: str, data: bytes) -> None:
        """Store a manifest under a tag or its digest."""

    async def blob(self, path: str, digest: str) -> bytes | None:
        """A blob's bytes; None if the repository has none of this digest."""

    async def manifest(self, path: str, name: str) -> tuple[str, bytes] | None:
        """A manifest's media type and bytes."""


@attrs.frozen
class HttpRemote:
    """A server that speaks the protocol in plain HTTP, driven by the standard library."""

    domain: str

    def _ask(
        self, method: str, target: str, body: bytes | None = None, headers: Any = None
    ) -> tuple[int, Any, bytes]:
        connection = http.client.HTTPConnection(self.domain, timeout=20)
        try:
            connection.request(method, target, body=body, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    async def _run(self, *arguments: Any) -> tuple[int, Any, bytes]:
        return await trio.to_thread.run_sync(self._ask, *arguments)

    async def put_blob(self, path: str, data: bytes) -> None:
        status, headers, _ = await self._run("POST", f"/v2/{path}/blobs/uploads/")
        assert status == 202
        location = headers["Location"]
        target = location[location.index("/v2/") :]
        query = f"{'&' if '?' in target else '?'}digest={sha256(data)}"
        octets = {"Content-Type": "application/octet-stream"}
        status, _, text = await self._run("PUT", target + query, data, octets)
        assert status == 201, text

    async def put_manifest(self, path: str, name: str, media_type: str, data: bytes) -> None:
        headers = {"Content-Type": media_type}
        status, _, text = await self._run("PUT", f"/v2/{path}/manifests/{name}", data, headers)
        assert status == 201, text

    async def blob(self, path: str, digest: str) -> bytes | None:
        status, _, data = await self._run("GET", f"/v2/{path}/blobs/{digest}")
        return data if status == 200 else None

    async def manifest(self, path: str, name: str) -> tuple[str, bytes] | None:
        accept = {"Accept": ", ".join((OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST))}
        status, headers, data = await self._run("GET", f"/v2/{path}/manifests/{name}", None, accept)
        return (headers["Content-Type"], data) if status == 200 else None


@attrs.frozen
class FakeRemote:
    """Looks into a fake."""

    registry: FakeRegistry
    domain: str = "registry.test"

    async def put_blob(self, path: str, data: bytes) -> None:
        self.registry.repository(f"{self.domain}/{path}").blobs[sha256(data)] = data

    async def put_manifest(self, path: str, name: str, media_type: str, data: bytes) -> None:
        tag = "" if ":" in name else name
        self.registry.repository(f"{self.domain}/{path}").put_manifest(tag, media_type, data)

    async def blob(self, path: str, digest: str) -> bytes | None:
        repository = self.registry.repositories.get(f"{self.domain}/{path}")
        return repository.blobs.get(digest) if repository else None

    async def manifest(self, path: str, name: str) -> tuple[str, bytes] | None:
        repository = self.registry.repositories.get(f"{self.domain}/{path}")
        return repository.manifests.get(repository.tags.get(name, name)) if repository else None


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _described(data: bytes, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data)}


def describe(data: bytes, media_type: str = OCI_LAYER_GZIP) -> Descriptor:
    """The descriptor of some bytes."""
    return Descriptor(media_type=media_type, digest=sha256(data), size_bytes=len(data))


def source_of(data: bytes, *, piece_bytes: int = 1 << 20) -> BlobSource:
    """Opens bytes at an offset, as a content store does."""

    @asynccontextmanager
    async def open_at(offset: int) -> AsyncIterator[AsyncIterator[bytes]]:
        yield Pieces(data[offset:], piece_bytes)

    return open_at


def image_manifest(*, docker: bool = False, layers: tuple[bytes, ...] = (LAYER,)) -> bytes:
    """An image manifest of ``CONFIG`` and layers."""
    kinds = (
        (DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER_GZIP)
        if docker
        else (OCI_MANIFEST, OCI_CONFIG, OCI_LAYER_GZIP)
    )
    document = {
        "schemaVersion": 2,
        "mediaType": kinds[0],
        "config": {"mediaType": kinds[1], "digest": sha256(CONFIG), "size": len(CONFIG)},
        "layers": [
            {"mediaType": kinds[2], "digest": sha256(layer), "size": len(layer)} for layer in layers
        ],
    }
    return json.dumps(document, indent=3).encode()


def index_of(manifest: bytes, *, docker: bool = False) -> bytes:
    """An index with one image."""
    document = {
        "schemaVersion": 2,
        "mediaType": DOCKER_INDEX if docker else OCI_INDEX,
        "manifests": [
            {
                "mediaType": DOCKER_MANIFEST if docker else OCI_MANIFEST,
                "digest": sha256(manifest),
                "size": len(manifest),
                "platform": {"os": "linux", "architecture": "amd64"},
            }
        ],
    }
    return json.dumps(document).encode()


class RegistryConformance:
    """What every registry driver must do.

    Attributes:
        driver: It.
        deletes_tags: Whether the other end takes a single tag away.
    """

    driver: type[Registry[Any]]
    deletes_tags = True

    @pytest.fixture
    def config(self) -> Any:
        return self.driver.config_type()

    @pytest.fixture
    async def registry(self, config: Any, fake_host: FakeHost) -> AsyncIterator[Registry[Any]]:
        async with self.driver.open(config, fake_host) as registry:
            yield registry

    @pytest.fixture
    async def remote(self, registry: Registry[Any]) -> Remote:
        """The other end; a subclass supplies it."""
        raise NotImplementedError("override the fixture 'remote'")

    def reference(self, remote: Remote, tail: str) -> Reference:
        return parse_reference(f"{remote.domain}/{tail}")

    async def fill(self, remote: Remote, path: str, *, docker: bool = False) -> bytes:
        """An image ``path:1``."""
        manifest = image_manifest(docker=docker)
        await remote.put_blob(path, LAYER)
        await remote.put_blob(path, CONFIG)
        media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
        await remote.put_manifest(path, "1", media_type, manifest)
        return manifest

    async def read(self, parts: AbstractAsyncContextManager[AsyncIterator[bytes]]) -> bytes:
        async with parts as opened:
            return b"".join([part async for part in opened])

    @pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
    async def test_a_tag_gives_the_manifests_exact_bytes(
        self, registry: Registry[Any], remote: Remote, docker: bool
    ) -> None:
        data = await self.fill(remote, "team/app", docker=docker)
        found = await registry.manifest(self.reference(remote, "team/app:1"), ANONYMOUS)
        assert found.data == data
        assert found.descriptor == describe(data, DOCKER_MANIFEST if docker else OCI_MANIFEST)

    @pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
    async def test_an_index_is_given_as_it_is(
        self, registry: Registry[Any], remote: Remote, docker: bool
    ) -> None:
        index = index_of(await self.fill(remote, "app", docker=docker), docker=docker)
        media_type = DOCKER_INDEX if docker else OCI_INDEX
        await remote.put_manifest("app", "all", media_type, index)
        found = await registry.manifest(self.reference(remote, "app:all"), ANONYMOUS)
        assert (found.data, found.descriptor) == (index, describe(index, media_type))

    async def test_a_digest_gives_the_manifest_too(
        self, registry: Registry[Any], remote: Remote
    ) -> None:
        data = await self.fill(remote, "app")
        reference = self.reference(remote, f"app@{sha256(data)}")
        assert (await registry.manifest(reference, ANONYMOUS)).data == data

    async def test_what_is_not_there_is_not_found(
        self, registry: Registry[Any], remote: Remote
    ) -> None:
        await self.fill(remote, "app")
        absent = describe(b"absent")
        for tail in ("app:nope", f"app@{absent.digest}", "none/such:1"):
            with pytest.raises(NotFound):
                await registry.manifest(self.reference(remote, tail), ANONYMOUS)
        with pytest.raises(NotFound):
            await self.read(registry.blob(self.reference(remote, "app:1"), absent, ANONYMOUS))

    async def test_a_blob_streams_from_any_offset(
        self, registry: Registry[Any], remote: Remote
    ) -> None:
        await self.fill(remote, "app")
        reference, layer = self.reference(remote, "app:1"), describe(LAYER)
        assert await self.read(registry.blob(reference, layer, ANONYMOUS)) == LAYER
        for offset in (1, 1000, len(LAYER) - 1, len(LAYER)):
            found = await self.read(registry.blob(reference, layer, ANONYMOUS, offset=offset))
            assert found == LAYER[offset:]
        with pytest.raises(InvalidArgument):
            await self.read(registry.blob(reference, layer, ANONYMOUS, offset=len(LAYER) + 1))

    async def test_an_empty_blob_streams(self, registry: Registry[Any], remote: Remote) -> None:
        await remote.put_blob("app", b"")
        reference = self.reference(remote, "app:1")
        assert await self.read(registry.blob(reference, describe(b""), ANONYMOUS)) == b""

    async def test_a_blob_of_another_size_is_refused(
        self, registry: Registry[Any], remote: Remote
    ) -> None:
        await self.fill(remote, "app")
        for size in (len(LAYER) - 1, len(LAYER) + 1):
            lying = attrs.evolve(describe(LAYER), size_bytes=size)
            with pytest.raises(DataLoss):
                await self.read(registry.blob(self.reference(remote, "app:1"), lying, ANONYMOUS))

    async def test_a_stream_may_be_left_in_the_middle(
        self, registry: Registry[Any], remote: Remote
    ) -> None:
        await self.fill(remote, "app")
        reference, layer = self.reference(remote, "app:1"), describe(LAYER)
        for _ in range(5):
            async with registry.blob(reference, layer, ANONYMOUS) as parts:
                assert await anext(parts)
        assert await self.read(registry.blob(reference, layer, ANONYMOUS)) == LAYER

    async def test_blobs_stream_side_by_side(self, registry: Registry[Any], remote: Remote) -> None:
        blobs = [bytes([number]) * 300_000 for number in range(8)]
        for blob in blobs:
            await remote.put_blob("app", blob)
        reference = self.reference(remote, "app:1")
        found: dict[int, bytes] = {}

        async def pull(number: int) -> None:
            blob = describe(blobs[number])
            found[number] = await self.read(registry.blob(reference, blob, ANONYMOUS))

        async with trio.open_nursery() as nursery:
            for number in range(len(blobs)):
                nursery.start_soon(pull, number)
        assert [found[number] for number in range(len(blobs))] == blobs

    @pytest.mark.parametrize("size", [0, 1, 256 << 10, 3 << 20])
    async def test_a_blob_is_pushed_once(
        self, registry: Registry[Any], remote: Remote, size: int
    ) -> None:
        data = os.urandom(size)
        reference, sent = self.reference(remote, "team/new:1"), [0]
        for expected in ("pushed", "exists"):
            outcome = await registry.push_blob(
                reference, describe(data), source_of(data), ANONYMOUS, sent=sent.append
            )
            assert outcome == expected
        assert await remote.blob("team/new", sha256(data)) == data
        assert sent == sorted(sent)
        assert sent[-1] == size

    async def test_whether_a_push_is_allowed_can_be_asked_and_leaves_nothing(
        self, registry: Registry[Any], remote: Remote
    ) -> None:
        reference = self.reference(remote, "team/asked:1")
        for _ in range(2):
            await registry.check_push(reference, ANONYMOUS)
        with pytest.raises(NotFound):
            await registry.manifest(reference, ANONYMOUS)
        with pytest.raises(NotFound):
            await registry.tags(reference, ANONYMOUS)

    async def test_a_blob_is_mounted_from_another_repository(
        self, registry: Registry[Any], remote: Remote
    ) -> None:
        await self.fill(remote, "base")
        outcome = await registry.push_blob(
            self.reference(remote, "team/child:1"),
            describe(LAYER),
            source_of(LAYER),
            ANONYMOUS,
            mount_from=("none/such", "base"),
        )
        assert outcome == "mounted"
        assert await remote.blob("team/child", sha256(LAYER)) == LAYER

    async def test_a_blob_that_cannot_be_mounted_is_pushed(
        self, registry: Registry[Any], remote: Remote
    ) -> None:
        outcome = await registry.push_blob(
            self.reference(remote, "team/child:1"),
            describe(LAYER),
            source_of(LAYER),
            ANONYMOUS,
            mount_from=("none/such",),
        )
        assert outcome == "pushed"
        assert await remote.blob("team/child", sha256(LAYER)) == LAYER

    @pytest.mark.parametrize(
        "wrong", [LAYER[:-1] + b"x", LAYER[:-1], b"x" + LAYER], ids=["other", "short", "long"]
    )
    async def test_bytes_that_are_not_the_blob_never_become_it(
        self, registry: Registry[Any], remote: Remote, wrong: bytes
    ) -> None:
        reference = self.reference(remote, "app:1")
        with pytest.raises(LinkspanError):
            await registry.push_blob(reference, describe(LAYER), source_of(wrong), ANONYMOUS)
        assert await remote.blob("app", sha256(LAYER)) is None
        assert await remote.blob("app", sha256(wrong)) is None

    async def test_a_cancelled_push_leaves_no_blob(
        self, registry: Registry[Any], remote: Remote
    ) -> None:
        reference = self.reference(remote, "app:1")
        with trio.CancelScope() as scope:

            def stop(sent: int) -> None:
                if sent >= 256 << 10:
                    scope.cancel()

            await registry.push_blob(
                reference,
                describe(LAYER),
                source_of(LAYER, piece_bytes=64 << 10),
                ANONYMOUS,
                sent=stop,
            )
        assert scope.cancelled_caught
        assert await remote.blob("app", sha256(LAYER)) is None
        assert (
            await registry.push_blob(reference, describe(LAYER), source_of(LAYER), ANONYMOUS)
            == "pushed"
        )

    async def test_two_pushes_of_one_blob_at_once_both_hold(
        self, registry: Registry[Any], remote: Remote
    ) -> None:
        reference = self.reference(remote, "app:1")

        async def push() -> None:
            await registry.push_blob(reference, describe(LAYER), source_of(LAYER), ANONYMOUS)

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(push)
        assert await remote.blob("app", sha256(LAYER)) == LAYER

    @pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
    async def test_a_pushed_image_can_be_pulled(
        self, registry: Registry[Any], remote: Remote, docker: bool
    ) -> None:
        reference = self.reference(remote, "team/app:2")
        for blob in (LAYER, CONFIG):
            await registry.push_blob(reference, describe(blob), source_of(blob), ANONYMOUS)
        data = image_manifest(docker=docker)
        media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
        assert await registry.push_manifest(reference, media_type, data, ANONYMOUS) == sha256(data)
        assert await remote.manifest("team/app", "2") == (media_type, data)
        assert (await registry.manifest(reference, ANONYMOUS)).data == data

    async def test_a_manifest_is_pushed_by_its_digest(
        self, registry: Registry[Any], remote: Remote
    ) -> None:
        data = await self.fill(remote, "app")
        other = image_manifest(layers=(LAYER, LAYER))
        reference = self.reference(remote, f"app@{sha256(other)}")
        assert await registry.push_manifest(reference, OCI_MANIFEST, other, ANONYMOUS) == sha256(
            other
        )
        assert await remote.manifest("app", sha256(other)) == (OCI_MANIFEST, other)
        with pytest.raises(DataLoss):
            await registry.push_manifest(reference, OCI_MANIFEST, data, ANONYMOUS)

    async def test_what_refers_to_a_manifest_is_listed(
        self, registry: Registry[Any], remote: Remote
    ) -> None:
        if RegistryCap.REFERRERS not in registry.capabilities:
            pytest.skip("this client knows no referrers")
        data = await self.fill(remote, "app")
        subject = self.reference(remote, f"app@{sha256(data)}")
        assert await registry.referrers(subject, ANONYMOUS) == []
        await remote.put_blob("app", b"{}")
        for number in range(2):
            document = {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "artifactType": f"application/vnd.test.{number}+json",
                "config": _described(b"{}", "application/vnd.oci.empty.v1+json"),
                "layers": [_described(b"{}", "application/vnd.oci.empty.v1+json")],
                "subject": _described(data, OCI_MANIFEST),
                "annotations": {"about": "this"},
            }
            referrer = json.dumps(document).encode()
            reference = self.reference(remote, f"app@{sha256(referrer)}")
            for _ in range(2):
                await registry.push_manifest(reference, OCI_MANIFEST, referrer, ANONYMOUS)
        found = await registry.referrers(subject, ANONYMOUS)
        kinds = sorted(each.artifact_type for each in found)
        assert kinds == ["application/vnd.test.0+json", "application/vnd.test.1+json"]
        assert {each.annotations["about"] for each in found} == {"this"}
        assert sha256(referrer) in {each.digest for each in found}
        nothing = self.reference(remote, f"none/such@{sha256(data)}")
        assert await registry.referrers(nothing, ANONYMOUS) == []

    async def test_a_tag_moves_to_what_is_pushed_last(
        self, registry: Registry[Any], remote: Remote
    ) -> None:
        await self.fill(remote, "app")
        other = image_manifest(layers=(LAYER, LAYER))
        reference = self.reference(remote, "app:1")
        await registry.push_manifest(reference, OCI_MANIFEST, other, ANONYMOUS)
        assert (await registry.manifest(reference, ANONYMOUS)).data == other

    async def test_a_tag_that_is_taken_away_takes_nothing_else_along(
        self, registry: Registry[Any], remote: Remote
    ) -> None:
        data = await self.fill(remote, "app")
        await remote.put_manifest("app", "other", OCI_MANIFEST, data)
        reference = self.reference(remote, "app:1")
        if not self.deletes_tags:
            with pytest.raises(Unsupported) as caught:
                await registry.remove_tag(reference, ANONYMOUS)
            assert caught.value.code == "delete_not_offered"
            assert (await registry.manifest(reference, ANONYMOUS)).data == data
            return
        await registry.remove_tag(reference, ANONYMOUS)
        await registry.remove_tag(self.reference(remote, "none/such:1"), ANONYMOUS)
        with pytest.raises(NotFound):
            await registry.manifest(reference, ANONYMOUS)
        for left in ("app:other", f"app@{sha256(data)}"):
            found = await registry.manifest(self.reference(remote, left), ANONYMOUS)
            assert found.data == data

    async def test_all_tags_are_listed(self, registry: Registry[Any], remote: Remote) -> None:
        data = await self.fill(remote, "app")
        for tag in ("2", "latest", "1.0-rc1"):
            await remote.put_manifest("app", tag, OCI_MANIFEST, data)
        found = await registry.tags(self.reference(remote, "app"), ANONYMOUS)
        assert sorted(found) == ["1", "1.0-rc1", "2", "latest"]
        with pytest.raises(NotFound):
            await registry.tags(self.reference(remote, "none/such"), ANONYMOUS)

    async def test_a_registry_without_users_takes_any_login(
        self, registry: Registry[Any], remote: Remote
    ) -> None:
        credentials = Credentials(username="u", password="p", server_address=remote.domain)
        assert await registry.login(credentials) == ""
