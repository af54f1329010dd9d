"""Secrets in memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import attrs
import trio

from linkspan.sdk.drivers.secrets import SecretInfo, Secrets, SecretsCap, check_value
from linkspan.sdk.errors import NotFound
from linkspan.sdk.host import Host


@attrs.frozen(kw_only=True)
class FakeSecretsConfig:
    """``values``: where they are; a test may look and change. None makes an empty one."""

    values: dict[str, str] | None = None


class FakeSecrets(Secrets[FakeSecretsConfig]):
    """See the module.

    Attributes:
        failure: Raised by the next ``get``, once.
    """

    config_type = FakeSecretsConfig

    def __init__(self, values: dict[str, str]) -> None:
        self.values = values
        self.failure: Exception | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, config: FakeSecretsConfig, host: Host) -> AsyncIterator[Self]:
        yield cls({} if config.values is None else config.values)

    @property
    def capabilities(self) -> SecretsCap:
        return SecretsCap.WRITE

    async def get(self, key: str) -> str:
        await trio.lowlevel.checkpoint()
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        if key not in self.values:
            raise NotFound(f"there is no secret '{key}'", code="secret_not_found")
        return self.values[key]

    async def put(self, key: str, value: str) -> None:
        await trio.lowlevel.checkpoint()
        check_value(value)
        self.values[key] = value

    async def delete(self, key: str) -> None:
        await self.get(key)
        del self.values[key]

    async def list(self) -> list[SecretInfo]:
        await trio.lowlevel.checkpoint()
        return [SecretInfo(key=key) for key in sorted(self.values)]
