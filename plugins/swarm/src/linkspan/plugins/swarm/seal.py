"""Seals what nobody should read from a disk: AES-GCM with a key beside the swarm's state (0600)."""

import contextlib
import os
import secrets
from pathlib import Path

import trio

from linkspan.sdk.errors import Internal

KEY_BYTES = 32
NONCE_BYTES = 12


class Seal:
    """Seals and opens.

    Args:
        key_file: Made at the first use.
    """

    def __init__(self, key_file: Path) -> None:
        self._key_file = key_file
        self._key: bytes | None = None

    async def close(self, data: bytes, purpose: str) -> bytes:
        """Sealed data; it opens for the same purpose only.

        Raises:
            Internal: The key cannot be read or written.
        """
        return await trio.to_thread.run_sync(self._close, data, purpose)

    async def open(self, sealed: bytes, purpose: str) -> bytes:
        """The data.

        Raises:
            Internal: It was sealed with another key or for another purpose, or is damaged.
        """
        return await trio.to_thread.run_sync(self._open, sealed, purpose)

    def _close(self, data: bytes, purpose: str) -> bytes:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + AESGCM(self._read_key()).encrypt(nonce, data, purpose.encode())

    def _open(self, sealed: bytes, purpose: str) -> bytes:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce, body = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        try:
            return AESGCM(self._read_key()).decrypt(nonce, body, purpose.encode())
        except (InvalidTag, ValueError) as error:
            raise Internal(
                f"{purpose} cannot be opened: it is damaged, or {self._key_file} is not the key that it "
                "was sealed with",
                code="not_opened",
            ) from error

    def _read_key(self) -> bytes:
        if self._key is not None:
            return self._key
        try:
            with contextlib.suppress(FileExistsError):
                self._make_key()
            key = self._key_file.read_bytes()
        except OSError as error:
            raise Internal(f"the key {self._key_file} cannot be read: {error.strerror}") from error
        if len(key) != KEY_BYTES:
            raise Internal(f"{self._key_file} is no key: it has {len(key)} bytes, not {KEY_BYTES}")
        self._key = key
        return key

    def _make_key(self) -> None:
        """Write the key under another name first: a crash leaves no half of it."""
        if self._key_file.exists():
            return
        self._key_file.parent.mkdir(parents=True, exist_ok=True)
        draft = self._key_file.with_suffix(f".{secrets.token_hex(4)}")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, secrets.token_bytes(KEY_BYTES))
            os.fsync(fd)
        finally:
            os.close(fd)
        try:
            os.link(draft, self._key_file)
        finally:
            draft.unlink()
