"""Role ``secrets``: values that pipelines are granted and that never touch a log."""

import abc
import enum

from linkspan.sdk.drivers.base import Config, Driver
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.stability import Stage, contract
from linkspan.sdk.values import frozen

SECRET_LIMIT_BYTES = 64 * 1024
"""The longest value, in UTF-8."""


class SecretsCap(enum.Flag):
    """What this driver can."""

    NONE = 0
    WRITE = enum.auto()


@frozen(kw_only=True)
class SecretInfo:
    """A secret without its value; ``updated_at`` is RFC 3339, empty if unknown."""

    key: str
    updated_at: str = ""


@contract(role="secrets", version=1, stage=Stage.BETA, since="0.2")
class Secrets(Driver[Config], abc.ABC):
    """Keeps values by key: ``[A-Za-z_][A-Za-z0-9_.-]{0,127}`` (the caller has checked).

    A value is text of 1 byte to 64 KiB without NUL. No method shows a value in an error, and none writes one
    where others than root may read it.
    """

    @property
    @abc.abstractmethod
    def capabilities(self) -> SecretsCap:
        """What this driver can."""

    @abc.abstractmethod
    async def get(self, key: str) -> str:
        """The value.

        Raises:
            NotFound: There is none; code ``secret_not_found``.
            Unavailable: Where it is kept cannot be asked now.
            DataLoss: What is kept cannot be read any more.
        """

    @abc.abstractmethod
    async def put(self, key: str, value: str) -> None:
        """Keep a value, in place of the one that was there; it survives a crash from then on.

        Raises:
            Unsupported: Without WRITE.
            InvalidArgument: The value is empty, too long, or has a NUL.
            OutOfSpace: The disk is full; the old value is kept.
        """

    @abc.abstractmethod
    async def delete(self, key: str) -> None:
        """Forget it.

        Raises:
            Unsupported: Without WRITE.
            NotFound: There is none.
        """

    @abc.abstractmethod
    async def list(self) -> list[SecretInfo]:
        """What there is, by key, without values."""


def check_value(value: str) -> None:
    """Raise InvalidArgument unless a value can be kept; the message does not have it."""
    size = len(value.encode())
    if not 0 < size <= SECRET_LIMIT_BYTES:
        raise InvalidArgument(f"a secret has 1 to {SECRET_LIMIT_BYTES} bytes, not {size}")
    if "\0" in value:
        raise InvalidArgument("a secret cannot have a NUL in it")
