"""Role ``state``: the cluster's ordered key-value store.

Keys are text with ``/`` between parts, values are bytes. One counter, the *revision*, rises by one
with every committed transaction; each entry knows the revision that wrote it last. Watchers see every
change after their revision, in order, exactly once.
"""

import abc
import enum
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from linkspan.sdk.drivers.base import Config, Driver
from linkspan.sdk.stability import Stage, contract
from linkspan.sdk.values import frozen


class StateCap(enum.Flag):
    """SHARED: several daemons may open the same store."""

    NONE = 0
    SHARED = enum.auto()


@frozen(kw_only=True)
class Entry:
    """A key, its value, and the revision that wrote it last."""

    key: str
    value: bytes
    revision: int


@frozen(kw_only=True)
class Put:
    """Write a key. ``if_revision``: only if its revision is this; 0 means: only if it is absent."""

    key: str
    value: bytes
    if_revision: int | None = None
    lease: str = ""


@frozen(kw_only=True)
class Delete:
    """Remove a key; silent if it is absent unless ``if_revision`` is given."""

    key: str
    if_revision: int | None = None


Operation = Put | Delete


@frozen(kw_only=True)
class ChangeEvent:
    """A committed change; ``value`` None means deleted."""

    key: str
    value: bytes | None
    revision: int


@contract(role="state", version=1, stage=Stage.BETA, since="0.1")
class State(Driver[Config], abc.ABC):
    """Keeps the cluster's truth; see the module.

    A value is at most 1 MiB, a transaction at most 1,000 operations, each on a key of its own; a key has
    1 to 1,024 bytes (InvalidArgument beyond).
    """

    @property
    @abc.abstractmethod
    def capabilities(self) -> StateCap:
        """What this store can."""

    @abc.abstractmethod
    async def get(self, key: str) -> Entry | None:
        """The entry, or None."""

    @abc.abstractmethod
    async def list(self, prefix: str) -> tuple[list[Entry], int]:
        """All entries below a prefix, by key, and the revision they are of."""

    @abc.abstractmethod
    async def commit(self, *operations: Operation) -> int:
        """All or nothing, durable when it returns; return the revision.

        Without operations nothing is written, and the revision stays.

        Raises:
            Conflict: code ``revision``: a condition does not hold; nothing was written.
            NotFound: code ``lease_unknown``: nobody holds the lease of a ``Put`` now.
            OutOfSpace: The disk is full; nothing was written.
        If cancelled: read to learn whether it was committed.
        """

    @abc.abstractmethod
    def watch(
        self, prefix: str, *, after_revision: int
    ) -> AbstractAsyncContextManager[AsyncIterator[ChangeEvent]]:
        """Changes below a prefix after a revision.

        Raises:
            Unavailable: code ``compacted``: that revision is too old; list again.
        """

    @abc.abstractmethod
    def lease(self, name: str, *, ttl_s: float) -> AbstractAsyncContextManager[None]:
        """A lease kept alive while the context lasts; its keys go when it ends or its holder dies.

        Raises:
            Conflict: Somebody holds it.
        """

    @abc.abstractmethod
    async def compact(self, revision: int) -> None:
        """Forget history before a revision; current entries stay."""
