"""Role ``content``: blobs by digest.

A blob appears only complete and verified. What is still arriving is an *ingest*, named by a free
text (usually the digest) and kept over a crash, so that a download goes on where it stopped.
"""

import abc
import enum
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from linkspan.sdk.drivers.base import Config, Driver
from linkspan.sdk.errors import Unsupported
from linkspan.sdk.stability import Stage, contract
from linkspan.sdk.values import frozen


class ContentCap(enum.Flag):
    """LOCAL_PATH: blobs and ingests are files of this machine (``path``, ``Ingest.path``)."""

    NONE = 0
    LOCAL_PATH = enum.auto()


@frozen(kw_only=True)
class BlobInfo:
    """A stored blob."""

    digest: str
    size_bytes: int


class Ingest(abc.ABC):
    """A blob that is arriving."""

    @property
    @abc.abstractmethod
    def offset(self) -> int:
        """Bytes that are here already."""

    @property
    def path(self) -> Path:
        """The file it grows in (cap LOCAL_PATH); a driver's child may append to it."""
        raise Unsupported("this content store has no local files")

    @abc.abstractmethod
    async def write(self, data: bytes) -> None:
        """Append.

        Raises:
            OutOfSpace: The disk is full.
        """

    @abc.abstractmethod
    async def restart(self) -> None:
        """Throw away what is here; offset is 0 again."""

    @abc.abstractmethod
    async def digest(self) -> str:
        """sha256 of what is here, for who does not know it before (``commit`` it as verified)."""

    @abc.abstractmethod
    async def discard(self) -> None:
        """Throw it away: nothing stays for a next try. Nothing may follow."""

    @abc.abstractmethod
    async def commit(
        self, digest: str, *, size_bytes: int | None = None, verified: bool = False
    ) -> None:
        """Make it a blob. Idempotent when the blob exists.

        Args:
            verified: The caller has hashed all bytes itself.

        Raises:
            DataLoss: Digest or size differ; the ingest is thrown away.
        """


@contract(role="content", version=1, stage=Stage.BETA, since="0.1")
class Content(Driver[Config], abc.ABC):
    """Keeps blobs; see the module."""

    @property
    @abc.abstractmethod
    def capabilities(self) -> ContentCap:
        """What this store can."""

    @abc.abstractmethod
    def ingest(self, ref: str) -> AbstractAsyncContextManager[Ingest]:
        """Begin or continue an ingest. Left without ``commit``, its bytes stay for the next try.

        Raises:
            Conflict: Somebody else holds this ref now.
        """

    @abc.abstractmethod
    async def put(self, data: bytes) -> str:
        """Store small bytes (manifest, config); return their digest."""

    @abc.abstractmethod
    async def info(self, digest: str) -> BlobInfo:
        """Raises NotFound."""

    @abc.abstractmethod
    async def get(self, digest: str, *, limit_bytes: int = 16 << 20) -> bytes:
        """A small blob as a whole.

        Raises:
            NotFound: There is no such blob.
            TooLarge: It is larger than the limit.
        """

    @abc.abstractmethod
    def open_blob(
        self, digest: str, *, offset: int = 0
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Stream a blob in pieces of at most 1 MiB. Raises NotFound."""

    @abc.abstractmethod
    async def delete(self, digest: str) -> None:
        """Remove a blob; silent if there is none."""

    @abc.abstractmethod
    async def list(self) -> list[BlobInfo]:
        """All blobs."""

    def path(self, digest: str) -> Path:
        """The blob's file (cap LOCAL_PATH); may not exist. Must not be changed."""
        raise Unsupported("this content store has no local files")
