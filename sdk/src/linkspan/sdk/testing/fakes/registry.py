"""Registries in memory."""

import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal, Self

import attrs
import trio

from linkspan.sdk.drivers.base import NoConfig
from linkspan.sdk.drivers.registry import BlobSource, Manifest, Registry, RegistryCap, SearchResult
from linkspan.sdk.errors import (
    DataLoss,
    InvalidArgument,
    LinkspanError,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)
from linkspan.sdk.host import Host
from linkspan.sdk.model.image import Credentials, Descriptor
from linkspan.sdk.reference import Reference

PIECE_BYTES = 64 << 10


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


@attrs.define
class FakeRepository:
    """What a repository of a fake registry holds.

    Attributes:
        manifests: Digest → media type and bytes.
        tags: Tag → digest.
    """

    blobs: dict[str, bytes] = attrs.field(factory=dict)
    manifests: dict[str, tuple[str, bytes]] = attrs.field(factory=dict)
    tags: dict[str, str] = attrs.field(factory=dict)

    def put_manifest(self, tag: str, media_type: str, data: bytes) -> str:
        """Store a manifest, under a tag if one is given."""
        digest = digest_of(data)
        self.manifests[digest] = (media_type, data)
        if tag:
            self.tags[tag] = digest
        return digest


@attrs.define
class FakeRegistry(Registry[NoConfig]):
    """Implements the role without a network.

    Attributes:
        repositories: ``domain/path`` → repository; a test may look and put.
        password: If set, every request needs a user with this password.
        fault: If set, every request fails with it.
        read_only: Whether pushes are refused.
    """

    config_type = NoConfig

    repositories: dict[str, FakeRepository] = attrs.field(factory=dict)
    password: str = ""
    fault: LinkspanError | None = None
    read_only: bool = False
    remembered: dict[str, Credentials] = attrs.field(factory=dict)

    @classmethod
    @asynccontextmanager
    async def open(cls, config: NoConfig, host: Host) -> AsyncIterator[Self]:
        await trio.lowlevel.checkpoint()
        yield cls()

    @property
    def capabilities(self) -> RegistryCap:
        return RegistryCap.PUSH | RegistryCap.REFERRERS

    def repository(self, name: str) -> FakeRepository:
        """The repository ``domain/path``, made if it is missing."""
        return self.repositories.setdefault(name, FakeRepository())

    async def _admit(self, credentials: Credentials) -> None:
        await trio.lowlevel.checkpoint()
        if self.fault is not None:
            raise self.fault
        if self.password and credentials.password != self.password:
            raise Unauthenticated("access denied", code="registry_access_denied")

    def _known(self, reference: Reference) -> FakeRepository:
        found = self.repositories.get(reference.name)
        if found is None:
            raise NotFound(
                f"repository {reference.familiar_name} not found", code="repository_unknown"
            )
        return found

    async def manifest(self, reference: Reference, credentials: Credentials) -> Manifest:
        await self._admit(credentials)
        reference = reference.with_default_tag()
        repository = self._known(reference)
        digest = reference.digest or repository.tags.get(reference.tag, "")
        if digest not in repository.manifests:
            raise NotFound(f"manifest for {reference.familiar} not found", code="manifest_unknown")
        media_type, data = repository.manifests[digest]
        return Manifest(
            descriptor=Descriptor(media_type=media_type, digest=digest, size_bytes=len(data)),
            data=data,
        )

    @asynccontextmanager
    async def blob(
        self,
        reference: Reference,
        descriptor: Descriptor,
        credentials: Credentials,
        *,
        offset: int = 0,
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        await self._admit(credentials)
        data = self._known(reference).blobs.get(descriptor.digest)
        if data is None:
            raise NotFound(f"blob {descriptor.digest} not found", code="blob_unknown")
        if not 0 <= offset <= descriptor.size_bytes:
            raise InvalidArgument(f"offset {offset} is not inside the blob")
        if len(data) != descriptor.size_bytes:
            raise DataLoss(
                f"blob {descriptor.digest} has another size: {len(data)}", code="blob_invalid"
            )
        yield Pieces(data[offset:])

    async def push_blob(
        self,
        reference: Reference,
        descriptor: Descriptor,
        source: BlobSource,
        credentials: Credentials,
        *,
        mount_from: tuple[str, ...] = (),
        sent: Callable[[int], None] | None = None,
    ) -> Literal["exists", "mounted", "pushed"]:
        await self._admit(credentials)
        self._allow_push(reference)
        repository = self.repository(reference.name)
        if descriptor.digest in repository.blobs:
            return "exists"
        for name in mount_from:
            other = self.repositories.get(f"{reference.domain}/{name}")
            if other is not None and descriptor.digest in other.blobs:
                repository.blobs[descriptor.digest] = other.blobs[descriptor.digest]
                return "mounted"
        data = b""
        async with source(0) as parts:
            async for part in parts:
                data += part
                if sent is not None:
                    sent(len(data))
        algorithm = descriptor.digest.partition(":")[0]
        if digest_of(data, algorithm) != descriptor.digest or len(data) != descriptor.size_bytes:
            raise DataLoss("the blob is not what its descriptor says", code="digest_mismatch")
        repository.blobs[descriptor.digest] = data
        return "pushed"

    async def push_manifest(
        self, reference: Reference, media_type: str, data: bytes, credentials: Credentials
    ) -> str:
        await self._admit(credentials)
        self._allow_push(reference)
        if reference.digest and not reference.tag and digest_of(data) != reference.digest:
            raise DataLoss("the manifest has another digest", code="digest_mismatch")
        tag = "" if reference.digest and not reference.tag else reference.tag or "latest"
        return self.repository(reference.name).put_manifest(tag, media_type, data)

    async def referrers(self, reference: Reference, credentials: Credentials) -> list[Descriptor]:
        await self._admit(credentials)
        repository = self.repositories.get(reference.name, FakeRepository())
        found = []
        for digest, (media_type, data) in repository.manifests.items():
            document = json.loads(data)
            if (document.get("subject") or {}).get("digest") == reference.digest:
                found.append(
                    Descriptor(
                        media_type=media_type,
                        digest=digest,
                        size_bytes=len(data),
                        annotations=document.get("annotations") or {},
                        artifact_type=document.get("artifactType", ""),
                    )
                )
        return found

    async def check_push(self, reference: Reference, credentials: Credentials) -> None:
        await self._admit(credentials)
        self._allow_push(reference)

    def _allow_push(self, reference: Reference) -> None:
        if self.read_only:
            raise PermissionDenied(
                f"push access denied for {reference.familiar_name}", code="registry_access_denied"
            )

    async def remove_tag(self, reference: Reference, credentials: Credentials) -> None:
        await self._admit(credentials)
        self._allow_push(reference)
        found = self.repositories.get(reference.name)
        if found is not None:
            found.tags.pop(reference.with_default_tag().tag, None)

    async def tags(self, reference: Reference, credentials: Credentials) -> list[str]:
        await self._admit(credentials)
        return sorted(self._known(reference).tags)

    async def search(
        self, term: str, credentials: Credentials, *, limit: int = 25
    ) -> list[SearchResult]:
        """Repositories that have the term in their name."""
        await trio.lowlevel.checkpoint()
        names = sorted(name for name in self.repositories if term in name)
        return [SearchResult(name=name) for name in names[:limit]]

    async def login(self, credentials: Credentials) -> str:
        await self._admit(credentials)
        return ""

    async def remember(self, credentials: Credentials) -> None:
        await trio.lowlevel.checkpoint()
        self.remembered[credentials.server_address] = credentials

    async def remembers(self, server_address: str) -> bool:
        await trio.lowlevel.checkpoint()
        return server_address in self.remembered

    async def forget(self, server_address: str) -> None:
        await trio.lowlevel.checkpoint()
        self.remembered.pop(server_address, None)


class Pieces(AsyncIterator[bytes]):
    """Bytes in pieces; no generator, so that a reader may leave in the middle."""

    def __init__(self, data: bytes, piece_bytes: int = PIECE_BYTES) -> None:
        self._data = data
        self._piece_bytes = piece_bytes
        self._at = 0

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if self._at >= len(self._data):
            raise StopAsyncIteration
        piece = self._data[self._at : self._at + self._piece_bytes]
        self._at += len(piece)
        return piece
