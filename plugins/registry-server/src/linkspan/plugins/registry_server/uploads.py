"""Blobs that are arriving: sessions in memory, bytes in files, hashed while they come."""

import hashlib
import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import trio

from linkspan.plugins.registry_server.names import check_digest
from linkspan.plugins.registry_server.refusal import (
    RefusalError,
    digest_invalid,
    full_disk_refused,
    upload_unknown,
)

MAX_UPLOADS = 1024
_PIECE_BYTES = 1 << 20
Receive = Callable[[], Awaitable[bytes]]
"""Gives the next piece of a body, ``b""`` at its end."""

InThread = Callable[..., Awaitable[Any]]


@attrs.define(eq=False)
class Upload:
    """A session.

    Attributes:
        size_bytes: What has been written and hashed.
        lock: Held by the request that adds to it.
    """

    id: str
    repository: str
    path: Path
    fd: int
    algorithm: str
    hasher: Any
    touched_at: float
    size_bytes: int = 0
    lock: trio.Lock = attrs.field(factory=trio.Lock)
    dropped: bool = False

    def append(self, data: bytes) -> None:
        """Write and hash; blocks. A failed write leaves the file as long as it was."""
        view = memoryview(data)
        written = 0
        while written < len(view):
            written += os.pwrite(self.fd, view[written:], self.size_bytes + written)
        self.hasher.update(data)
        self.size_bytes += len(data)

    def digest(self, algorithm: str) -> str:
        """Of all that was written; blocks. Another algorithm than expected reads the file again."""
        hasher = self.hasher
        if algorithm != self.algorithm:
            hasher = hashlib.new(algorithm)
            for offset in range(0, self.size_bytes, _PIECE_BYTES):
                hasher.update(os.pread(self.fd, _PIECE_BYTES, offset))
        return f"{algorithm}:{hasher.hexdigest()}"


class Uploads:
    """All sessions of the server; they do not outlive it."""

    def __init__(self, folder: Path, in_thread: InThread, *, expiry_s: float) -> None:
        self._folder = folder
        self._in_thread = in_thread
        self._expiry_s = expiry_s
        self._sessions: dict[str, Upload] = {}

    async def begin(self, repository: str, algorithm: str = "sha256") -> Upload:
        """Open a session. TOOMANYREQUESTS beyond 1024; 507 if the disk is full."""
        if len(self._sessions) >= MAX_UPLOADS:
            raise RefusalError(
                429, "TOOMANYREQUESTS", "too many open uploads", headers={"Retry-After": "5"}
            )
        session = secrets.token_hex(16)
        path = self._folder / session
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with full_disk_refused():
            fd = await self._in_thread(os.open, path, flags, 0o600)
        upload = Upload(
            id=session,
            repository=repository,
            path=path,
            fd=fd,
            algorithm=algorithm,
            hasher=hashlib.new(algorithm),
            touched_at=trio.current_time(),
        )
        self._sessions[session] = upload
        return upload

    def get(self, repository: str, session: str) -> Upload:
        """A session of a repository. BLOB_UPLOAD_UNKNOWN."""
        upload = self._sessions.get(session)
        if upload is None or upload.repository != repository:
            raise upload_unknown(session)
        upload.touched_at = trio.current_time()
        return upload

    async def write(self, upload: Upload, receive: Receive) -> None:
        """Append a body. What has arrived before a cut stays; a full disk drops the session."""
        with full_disk_refused():
            try:
                while data := await receive():
                    await self._in_thread(upload.append, data)
                    upload.touched_at = trio.current_time()
            except OSError:
                await self.drop(upload)
                raise

    async def finish(self, upload: Upload, digest: str) -> Path:
        """Verify and sync; the file is then the caller's. DIGEST_INVALID drops the session."""
        algorithm, _ = check_digest(digest)
        found = await self._in_thread(upload.digest, algorithm)
        if found != digest:
            await self.drop(upload)
            raise digest_invalid(
                "provided digest did not match uploaded content",
                {"expected": digest, "found": found},
            )
        with full_disk_refused():
            try:
                await self._in_thread(os.fsync, upload.fd)
            except OSError:
                await self.drop(upload)
                raise
        self._forget(upload)
        return upload.path

    def _forget(self, upload: Upload) -> None:
        if not upload.dropped:
            upload.dropped = True
            self._sessions.pop(upload.id, None)
            os.close(upload.fd)

    async def drop(self, upload: Upload) -> None:
        """End a session and remove its bytes; also while cancelled."""
        self._forget(upload)
        with trio.CancelScope(shield=True):
            await self._in_thread(_unlink, upload.path)

    async def expire(self) -> None:
        """Drop sessions without news; runs until it is cancelled."""
        while True:
            await trio.sleep(min(60.0, self._expiry_s))
            oldest = trio.current_time() - self._expiry_s
            for upload in list(self._sessions.values()):
                if upload.touched_at < oldest and not upload.lock.locked():
                    await self.drop(upload)

    def close(self) -> None:
        """Close all files; the next start removes them."""
        for upload in list(self._sessions.values()):
            self._forget(upload)


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)
