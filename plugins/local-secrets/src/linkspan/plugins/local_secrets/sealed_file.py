"""The driver ``file``: all secrets in one sealed file."""

import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self, TypeVar

import attrs
import trio

from linkspan.sdk.clock import rfc3339
from linkspan.sdk.drivers.secrets import SecretInfo, Secrets, SecretsCap, check_value
from linkspan.sdk.errors import DataLoss, NotFound, OutOfSpace
from linkspan.sdk.files import is_full, replace_file
from linkspan.sdk.host import Host
from linkspan.sdk.values import frozen

_MAGIC: Final = b"linkspan-secrets-1\n"
_NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32

T = TypeVar("T")


@frozen(kw_only=True)
class SealedFileConfig:
    """``[secrets.file]``.

    Attributes:
        key-file: Where the key lies, 32 bytes; made when it is missing. Without it: beside the sealed file.
    """

    key_file: str = ""


@frozen(kw_only=True)
class _Entry:
    value: str
    updated_at: str


class SealedFile(Secrets[SealedFileConfig]):
    """Reads and writes the whole file each time: there are few secrets, and others may change it."""

    config_type = SealedFileConfig

    def __init__(self, folder: Path, key_file: Path) -> None:
        self._path = folder / "secrets.sealed"
        self._key_path = key_file
        self._lock = trio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(cls, config: SealedFileConfig, host: Host) -> AsyncIterator[Self]:
        """Nothing is read: a daemon without secrets has neither file nor key."""
        key_file = Path(config.key_file) if config.key_file else host.state_dir / "key"
        yield cls(host.state_dir, key_file)

    @property
    def capabilities(self) -> SecretsCap:
        """WRITE."""
        return SecretsCap.WRITE

    async def get(self, key: str) -> str:
        """See the contract."""
        entries = await self._locked(self._read)
        if key not in entries:
            raise self._missing(key)
        return entries[key].value

    def _missing(self, key: str) -> NotFound:
        return NotFound(
            f"there is no secret '{key}'",
            code="secret_not_found",
            help=f"linkspan workflow secret set {key}",
        )

    async def put(self, key: str, value: str) -> None:
        """See the contract. If cancelled: the old value or the new one."""
        check_value(value)

        def change() -> None:
            entries = self._read()
            entries[key] = _Entry(value=value, updated_at=rfc3339())
            self._write(entries)

        await self._locked(change)

    async def delete(self, key: str) -> None:
        """See the contract. If cancelled: it is there or gone."""

        def change() -> None:
            entries = self._read()
            if key not in entries:
                raise self._missing(key)
            del entries[key]
            self._write(entries)

        await self._locked(change)

    async def list(self) -> list[SecretInfo]:
        """See the contract."""
        entries = await self._locked(self._read)
        return [
            SecretInfo(key=key, updated_at=entry.updated_at)
            for key, entry in sorted(entries.items())
        ]

    async def _locked(self, work: Callable[[], T]) -> T:
        async with self._lock:
            return await trio.to_thread.run_sync(work)

    def _read(self) -> dict[str, _Entry]:
        # A tenth of a second to import, and most daemons have no secrets.
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            sealed = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        head, nonce = sealed[: len(_MAGIC)], sealed[len(_MAGIC) :][:_NONCE_BYTES]
        try:
            plain = AESGCM(self._key()).decrypt(nonce, sealed[len(_MAGIC) + _NONCE_BYTES :], head)
            if head != _MAGIC:
                raise ValueError("another version")
        except (InvalidTag, ValueError) as error:
            raise DataLoss(
                f"the secrets in {self._path} cannot be opened with the key in {self._key_path}",
                help="bring back the key that they were sealed with, or remove the file",
            ) from error
        entries = json.loads(plain)
        return {key: _Entry(**entry) for key, entry in entries.items()}

    def _key(self) -> bytes:
        try:
            return self._key_path.read_bytes()
        except FileNotFoundError:
            if self._path.exists():
                raise DataLoss(
                    f"the key {self._key_path} is gone, and {self._path} is sealed with it",
                    help="bring the key back, or remove the file",
                ) from None
        key = secrets.token_bytes(_KEY_BYTES)
        self._replace(self._key_path, key)
        return key

    def _write(self, entries: dict[str, _Entry]) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        plain = json.dumps({key: attrs.asdict(entry) for key, entry in entries.items()}).encode()
        nonce = secrets.token_bytes(_NONCE_BYTES)
        self._replace(
            self._path, _MAGIC + nonce + AESGCM(self._key()).encrypt(nonce, plain, _MAGIC)
        )

    def _replace(self, path: Path, data: bytes) -> None:
        """A crash leaves the old content or the new one."""
        try:
            replace_file(path, data, durable=True)
        except OSError as error:
            if is_full(error):
                raise OutOfSpace(f"no space left for {path}") from error
            raise
