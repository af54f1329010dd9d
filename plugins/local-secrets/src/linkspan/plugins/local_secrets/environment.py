"""The driver ``env``: secrets from the daemon's environment."""

import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from linkspan.sdk.drivers.secrets import SecretInfo, Secrets, SecretsCap
from linkspan.sdk.errors import NotFound, Unsupported
from linkspan.sdk.host import Host
from linkspan.sdk.values import frozen


@frozen(kw_only=True)
class EnvironmentConfig:
    """``[secrets.env]``.

    Attributes:
        prefix: What the variables begin with; what does not begin so is never read.
    """

    prefix: str = "LINKSPAN_SECRET_"


class Environment(Secrets[EnvironmentConfig]):
    """Reads ``<prefix><KEY>``, where ``-`` and ``.`` of a key are ``_``; an empty variable is none."""

    config_type = EnvironmentConfig

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    @classmethod
    @asynccontextmanager
    async def open(cls, config: EnvironmentConfig, host: Host) -> AsyncIterator[Self]:
        """Nothing is acquired."""
        yield cls(config.prefix)

    @property
    def capabilities(self) -> SecretsCap:
        """None: it cannot be written."""
        return SecretsCap.NONE

    def _name(self, key: str) -> str:
        return self._prefix + re.sub(r"[.-]", "_", key)

    async def get(self, key: str) -> str:
        """See the contract."""
        value = os.environ.get(self._name(key), "")
        if not value:
            raise NotFound(
                f"there is no secret '{key}' in the daemon's environment",
                code="secret_not_found",
                help=f"start the daemon with {self._name(key)} set",
            )
        return value

    async def put(self, key: str, value: str) -> None:
        """Refused."""
        raise self._read_only()

    async def delete(self, key: str) -> None:
        """Refused."""
        raise self._read_only()

    def _read_only(self) -> Unsupported:
        return Unsupported("the daemon's environment is set where the daemon is started")

    async def list(self) -> list[SecretInfo]:
        """The variables that begin with the prefix."""
        size = len(self._prefix)
        names = (name[size:] for name in os.environ if name.startswith(self._prefix))
        return [SecretInfo(key=name) for name in sorted(names) if name]
