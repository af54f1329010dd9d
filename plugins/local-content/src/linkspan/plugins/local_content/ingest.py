"""A blob that is arriving: a file ``ingest/<hash of its ref>`` that grows."""

import hashlib
import os
from pathlib import Path

import trio

from linkspan.plugins.local_content.blobs import BlobFolder
from linkspan.plugins.local_content.digests import split_digest
from linkspan.plugins.local_content.files import append, full_disk_named, hash_range
from linkspan.sdk.drivers.content import Ingest
from linkspan.sdk.errors import Conflict, DataLoss


class LocalIngest(Ingest):
    """See the contract. sha256 is computed while bytes are written.

    What others wrote into the file (a former try, a child of the snapshots driver) is hashed at
    ``commit``, unless the caller vouches for it.
    """

    def __init__(self, folder: BlobFolder, path: Path, fd: int) -> None:
        self._folder = folder
        self._path = path
        self._fd = fd
        self._hasher = hashlib.sha256()
        self._hashed = 0
        self._open = True

    @property
    def offset(self) -> int:
        """Bytes that are here already."""
        return os.fstat(self._fd).st_size if self._open else 0

    @property
    def path(self) -> Path:
        """The file it grows in."""
        return self._path

    async def write(self, data: bytes) -> None:
        """Append.

        Raises:
            OutOfSpace: The disk is full; nothing of ``data`` is kept.
            Conflict: It is committed.
        If cancelled: all of ``data`` is written.
        """
        self._check_open()
        await trio.to_thread.run_sync(self._write, data)

    def _write(self, data: bytes) -> None:
        offset = self.offset
        with full_disk_named(self._path.parent):
            append(self._fd, data, offset)
        if self._hashed == offset:
            self._hasher.update(data)
            self._hashed += len(data)

    async def restart(self) -> None:
        """Throw away what is here.

        Raises:
            Conflict: It is committed.
        """
        self._check_open()
        await trio.to_thread.run_sync(os.ftruncate, self._fd, 0)
        self._hasher, self._hashed = hashlib.sha256(), 0

    async def digest(self) -> str:
        """sha256 of what is here.

        Raises:
            Conflict: It is committed.
        """
        self._check_open()
        return await trio.to_thread.run_sync(self._digest, "sha256", self.offset)

    async def discard(self) -> None:
        """Remove the file; silent if it is committed."""
        if self._open:
            self._open = False
            await trio.to_thread.run_sync(lambda: self._path.unlink(missing_ok=True))

    async def commit(
        self, digest: str, *, size_bytes: int | None = None, verified: bool = False
    ) -> None:
        """Make it a blob; see the contract.

        Raises:
            DataLoss: code ``digest_mismatch`` or ``size_mismatch``; the ingest is thrown away.
            InvalidArgument: ``digest`` is no digest.
            OutOfSpace: The disk is full; the ingest stays.
            Conflict: It is committed.
        If cancelled: either the blob is there or the ingest is as it was.
        """
        self._check_open()
        await trio.to_thread.run_sync(self._commit, digest, size_bytes, verified)

    def _commit(self, digest: str, size_bytes: int | None, verified: bool) -> None:
        algorithm, _ = split_digest(digest)
        size = self.offset
        if size_bytes is not None and size != size_bytes:
            raise self._thrown_away(
                f"{digest} has {size} bytes instead of {size_bytes}", "size_mismatch", digest
            )
        if not verified:
            found = self._digest(algorithm, size)
            if found != digest:
                raise self._thrown_away(
                    f"the data for {digest} has the digest {found}", "digest_mismatch", digest
                )
        self._folder.adopt(self._path, digest)
        self._open = False

    def _digest(self, algorithm: str, size: int) -> str:
        if algorithm != "sha256":
            other = hashlib.new(algorithm)
            hash_range(self._fd, other, 0, size)
            return f"{algorithm}:{other.hexdigest()}"
        self._hashed = hash_range(self._fd, self._hasher, self._hashed, size)
        return f"sha256:{self._hasher.hexdigest()}"

    def _thrown_away(self, message: str, code: str, digest: str) -> DataLoss:
        os.ftruncate(self._fd, 0)
        self._hasher, self._hashed = hashlib.sha256(), 0
        return DataLoss(message, code=code, details={"digest": digest})

    def close(self) -> None:
        """End of the driver's ``ingest`` context."""
        self._open = False
        os.close(self._fd)

    def _check_open(self) -> None:
        if not self._open:
            raise Conflict("the ingest is over", code="ingest_over")
