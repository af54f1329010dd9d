"""The content driver ``local``."""

import hashlib
import logging
import os
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final, Self

import trio

from linkspan.plugins.local_content.blobs import BlobFolder
from linkspan.plugins.local_content.config import LocalContentConfig
from linkspan.plugins.local_content.files import full_disk_named
from linkspan.plugins.local_content.ingest import LocalIngest
from linkspan.sdk.drivers.content import BlobInfo, Content, ContentCap, Ingest
from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound, TooLarge
from linkspan.sdk.host import Host
from linkspan.sdk.lull import Lull

_log = logging.getLogger(__name__)

_PIECE_BYTES: Final = 1 << 20


class LocalContent(Content[LocalContentConfig]):
    """Blobs as files of this machine."""

    config_type = LocalContentConfig

    def __init__(self, config: LocalContentConfig, root: Path) -> None:
        self._config = config
        self._folder = BlobFolder(root)
        self._held: set[str] = set()
        # A pull is over and answered before its blobs are written to the disk itself.
        self._new_blobs = Lull(lambda: bool(self._held))

    @classmethod
    @asynccontextmanager
    async def open(cls, config: LocalContentConfig, host: Host) -> AsyncIterator[Self]:
        """Make the folders and start the task that syncs.

        Raises:
            OutOfSpace: The disk is full.
        """
        self = cls(config, host.state_dir)
        await trio.to_thread.run_sync(self._folder.make)
        await host.start_task(self._sync_new, name="content: sync new blobs")
        yield self

    @property
    def capabilities(self) -> ContentCap:
        """Blobs are local files."""
        return ContentCap.LOCAL_PATH

    async def recover(self) -> None:
        """Remove blobs whose bytes did not reach the disk before the machine went down."""
        torn = await trio.to_thread.run_sync(self._folder.drop_torn)
        for digest in torn:
            _log.warning("blob lost in a crash of the machine", extra={"digest": digest})
        self._new_blobs.stir()

    @asynccontextmanager
    async def ingest(self, ref: str) -> AsyncIterator[Ingest]:
        """Begin or continue an ingest; see the contract.

        Raises:
            Conflict: Somebody else holds this ref now.
            OutOfSpace: The disk is full.
        If cancelled: what was written stays for the next try.
        """
        if ref in self._held:
            raise Conflict(
                f"'{ref}' is being written already", code="ingest_held", details={"ref": ref}
            )
        self._held.add(ref)
        try:
            path = self._ingest_path(ref)
            fd = await trio.to_thread.run_sync(self._open_ingest, path)
            ingest = LocalIngest(self._folder, path, fd)
            try:
                yield ingest
            finally:
                ingest.close()
                self._new_blobs.stir()
        finally:
            self._held.discard(ref)

    def _ingest_path(self, ref: str) -> Path:
        return self._folder.ingests / hashlib.sha256(ref.encode()).hexdigest()

    def _open_ingest(self, path: Path) -> int:
        with full_disk_named(path.parent):
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    async def put(self, data: bytes) -> str:
        """Store small bytes.

        Raises:
            OutOfSpace: The disk is full.
        If cancelled: it is stored or not.
        """
        digest = await trio.to_thread.run_sync(self._put, data)
        self._new_blobs.stir()
        return digest

    def _put(self, data: bytes) -> str:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        if self._folder.path(digest).exists():
            return digest
        # The name is unlike that of any ingest, and unlike that of another thread's put.
        scratch = self._folder.ingests / f"put-{os.urandom(8).hex()}"
        try:
            with full_disk_named(scratch.parent):
                scratch.write_bytes(data)
            self._folder.adopt(scratch, digest)
        finally:
            scratch.unlink(missing_ok=True)
        return digest

    async def info(self, digest: str) -> BlobInfo:
        """Size of a blob. Raises NotFound."""
        try:
            status = await trio.to_thread.run_sync(os.stat, self._folder.path(digest))
        except FileNotFoundError:
            raise _no_blob(digest) from None
        return BlobInfo(digest=digest, size_bytes=status.st_size)

    async def get(self, digest: str, *, limit_bytes: int = 16 << 20) -> bytes:
        """A small blob as a whole.

        Raises:
            NotFound: There is no such blob.
            TooLarge: It is larger than the limit.
        """
        return await trio.to_thread.run_sync(self._get, digest, limit_bytes)

    def _get(self, digest: str, limit_bytes: int) -> bytes:
        try:
            with self._folder.path(digest).open("rb") as file:
                data = file.read(limit_bytes + 1)
        except FileNotFoundError:
            raise _no_blob(digest) from None
        if len(data) > limit_bytes:
            raise TooLarge(
                f"{digest} has more than {limit_bytes} bytes", details={"digest": digest}
            )
        return data

    def open_blob(
        self, digest: str, *, offset: int = 0
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Stream a blob, also one that is deleted meanwhile.

        Raises:
            NotFound: There is no such blob.
            InvalidArgument: The offset is negative or behind the end.
        """
        return self._open_blob(digest, offset)

    @asynccontextmanager
    async def _open_blob(self, digest: str, offset: int) -> AsyncIterator[AsyncIterator[bytes]]:
        path = self._folder.path(digest)
        try:
            fd = await trio.to_thread.run_sync(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _no_blob(digest) from None
        try:
            size = os.fstat(fd).st_size
            if not 0 <= offset <= size:
                raise InvalidArgument(f"offset {offset} is outside {digest}, {size} bytes long")
            yield _Pieces(fd, offset)
        finally:
            os.close(fd)

    async def delete(self, digest: str) -> None:
        """Remove a blob; silent if there is none."""
        await trio.to_thread.run_sync(self._folder.delete, digest)

    async def list(self) -> list[BlobInfo]:
        """All blobs, by digest."""
        return await trio.to_thread.run_sync(self._folder.infos)

    def path(self, digest: str) -> Path:
        """The blob's file; may not exist. Must not be changed."""
        return self._folder.path(digest)

    async def gc(self, known: Iterable[str]) -> Mapping[str, str]:
        """Remove blobs that are not known, and unfinished downloads that nobody goes on with."""
        return await trio.to_thread.run_sync(self._gc, frozenset(known), frozenset(self._held))

    def _gc(self, known: frozenset[str], held: frozenset[str]) -> dict[str, str]:
        removed = {}
        now_s = time.time()
        for blob in self._folder.infos():
            if blob.digest not in known and (
                self._folder.age_s(blob.digest, now_s) >= self._config.grace_s
            ):
                self._folder.delete(blob.digest)
                removed[blob.digest] = "no image needs it"
        in_use = {self._ingest_path(ref) for ref in held}
        for path in self._folder.ingests.iterdir():
            if path in in_use:
                continue
            if now_s - path.stat().st_mtime >= self._config.ingest_expiry_s:
                path.unlink(missing_ok=True)
                removed[path.name] = "unfinished download, not touched for long"
        return removed

    async def _sync_new(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while True:
            await self._new_blobs.wait()
            await trio.to_thread.run_sync(self._folder.sync_new)


class _Pieces:
    """Iterates over a file; each read is one hop to a worker thread."""

    def __init__(self, fd: int, offset: int) -> None:
        self._fd = fd
        self._offset = offset

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        data = await trio.to_thread.run_sync(os.pread, self._fd, _PIECE_BYTES, self._offset)
        if not data:
            raise StopAsyncIteration
        self._offset += len(data)
        return data


def _no_blob(digest: str) -> NotFound:
    return NotFound(f"no such blob: {digest}", code="blob_not_found", details={"digest": digest})
