"""A content store in memory."""

import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import attrs
import trio

from linkspan.sdk.drivers.base import NoConfig
from linkspan.sdk.drivers.content import BlobInfo, Content, ContentCap, Ingest
from linkspan.sdk.errors import (
    Conflict,
    DataLoss,
    InvalidArgument,
    NotFound,
    OutOfSpace,
    TooLarge,
)
from linkspan.sdk.host import Host

# What survives a restart of the driver, by its folder.
_kept: dict[Path, tuple[dict[str, bytes], dict[str, bytearray]]] = {}


@attrs.define
class FakeContent(Content[NoConfig]):
    """Implements the role without files.

    Attributes:
        blobs: Digest → bytes; a test may look and put.
        ingests: Ref → bytes so far.
        space_bytes: What fits; None is endless.
    """

    config_type = NoConfig

    blobs: dict[str, bytes] = attrs.field(factory=dict)
    ingests: dict[str, bytearray] = attrs.field(factory=dict)
    space_bytes: int | None = None
    _held: set[str] = attrs.field(factory=set)

    @classmethod
    @asynccontextmanager
    async def open(cls, config: NoConfig, host: Host) -> AsyncIterator[Self]:
        await trio.lowlevel.checkpoint()
        blobs, ingests = _kept.setdefault(host.state_dir, ({}, {}))
        yield cls(blobs=blobs, ingests=ingests)

    @property
    def capabilities(self) -> ContentCap:
        return ContentCap.NONE

    def check_space(self, more_bytes: int) -> None:
        used = sum(map(len, self.blobs.values())) + sum(map(len, self.ingests.values()))
        if self.space_bytes is not None and used + more_bytes > self.space_bytes:
            raise OutOfSpace("the fake store is full", help="give it more space_bytes")

    @asynccontextmanager
    async def ingest(self, ref: str) -> AsyncIterator[Ingest]:
        await trio.lowlevel.checkpoint()
        if ref in self._held:
            raise Conflict(f"'{ref}' is being written already", code="ingest_held")
        self._held.add(ref)
        try:
            self.ingests.setdefault(ref, bytearray())
            yield FakeIngest(self, ref)
        finally:
            self._held.discard(ref)

    async def put(self, data: bytes) -> str:
        await trio.lowlevel.checkpoint()
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        if digest not in self.blobs:
            self.check_space(len(data))
            self.blobs[digest] = bytes(data)
        return digest

    async def info(self, digest: str) -> BlobInfo:
        await trio.lowlevel.checkpoint()
        return BlobInfo(digest=digest, size_bytes=len(self._blob(digest)))

    async def get(self, digest: str, *, limit_bytes: int = 16 << 20) -> bytes:
        await trio.lowlevel.checkpoint()
        data = self._blob(digest)
        if len(data) > limit_bytes:
            raise TooLarge(f"{digest} has more than {limit_bytes} bytes")
        return data

    @asynccontextmanager
    async def open_blob(
        self, digest: str, *, offset: int = 0
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        await trio.lowlevel.checkpoint()
        data = self._blob(digest)
        if not 0 <= offset <= len(data):
            raise InvalidArgument(f"offset {offset} is outside {digest}, {len(data)} bytes long")
        yield _pieces(data, offset)

    async def delete(self, digest: str) -> None:
        await trio.lowlevel.checkpoint()
        self.blobs.pop(digest, None)

    async def list(self) -> list[BlobInfo]:
        await trio.lowlevel.checkpoint()
        return [BlobInfo(digest=d, size_bytes=len(b)) for d, b in sorted(self.blobs.items())]

    async def gc(self, known: Iterable[str]) -> Mapping[str, str]:
        await trio.lowlevel.checkpoint()
        keep = frozenset(known)
        removed = {d: "no image needs it" for d in self.blobs if d not in keep}
        self.blobs = {d: b for d, b in self.blobs.items() if d in keep}
        return removed

    def _blob(self, digest: str) -> bytes:
        algorithm, _, digits = digest.partition(":")
        if {"sha256": 64, "sha512": 128}.get(algorithm) != len(digits):
            raise InvalidArgument(f"'{digest}' is not a digest", code="bad_digest")
        try:
            return self.blobs[digest]
        except KeyError:
            raise NotFound(f"no such blob: {digest}", code="blob_not_found") from None


@attrs.define
class FakeIngest(Ingest):
    """A blob that is arriving in a ``FakeContent``."""

    _store: FakeContent
    _ref: str
    _over: bool = False

    @property
    def offset(self) -> int:
        return 0 if self._over else len(self._store.ingests[self._ref])

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self._check_open()
        self._store.check_space(len(data))
        self._store.ingests[self._ref] += data

    async def restart(self) -> None:
        await trio.lowlevel.checkpoint()
        self._check_open()
        self._store.ingests[self._ref].clear()

    async def digest(self) -> str:
        await trio.lowlevel.checkpoint()
        self._check_open()
        return f"sha256:{hashlib.sha256(self._store.ingests[self._ref]).hexdigest()}"

    async def discard(self) -> None:
        await trio.lowlevel.checkpoint()
        if not self._over:
            self._over = True
            self._store.ingests.pop(self._ref, None)

    async def commit(
        self, digest: str, *, size_bytes: int | None = None, verified: bool = False
    ) -> None:
        await trio.lowlevel.checkpoint()
        self._check_open()
        data = bytes(self._store.ingests[self._ref])
        algorithm = digest.partition(":")[0]
        if algorithm not in ("sha256", "sha512"):
            raise InvalidArgument(f"'{digest}' is not a digest", code="bad_digest")
        code = ""
        if size_bytes is not None and len(data) != size_bytes:
            code = "size_mismatch"
        elif not verified and f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}" != digest:
            code = "digest_mismatch"
        if code:
            self._store.ingests[self._ref].clear()
            raise DataLoss(f"the data for {digest} differs", code=code, details={"digest": digest})
        del self._store.ingests[self._ref]
        self._store.blobs.setdefault(digest, data)
        self._over = True

    def _check_open(self) -> None:
        if self._over:
            raise Conflict("the ingest is over", code="ingest_over")


async def _pieces(data: bytes, offset: int) -> AsyncIterator[bytes]:
    for start in range(offset, len(data), 1 << 20):
        await trio.lowlevel.checkpoint()
        yield data[start : start + (1 << 20)]
