"""Role ``registry``: images elsewhere (OCI distribution-spec 1.1).

The driver speaks the protocol: challenges, tokens, retries, ranges, redirects. What is pulled in
which order, and what is kept, is the engine's business. A blob stream repairs itself: a cut
connection goes on with a Range request, a 429 waits as told.
"""

import abc
import enum
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Literal

from linkspan.sdk.drivers.base import Config, Driver
from linkspan.sdk.errors import Unsupported
from linkspan.sdk.model.image import Credentials, Descriptor
from linkspan.sdk.reference import Reference
from linkspan.sdk.stability import Stage, contract
from linkspan.sdk.values import frozen


class RegistryCap(enum.Flag):
    """What this registry client can."""

    NONE = 0
    PUSH = enum.auto()
    REFERRERS = enum.auto()


@frozen(kw_only=True)
class Manifest:
    """A manifest or index: its descriptor and its exact bytes (digest verified)."""

    descriptor: Descriptor
    data: bytes


@frozen(kw_only=True)
class SearchResult:
    """A repository that a search has found (Docker API ImageSearchResponseItem).

    Attributes:
        name: Familiar, as it can be pulled.
    """

    name: str
    description: str = ""
    stars: int = 0
    official: bool = False
    automated: bool = False


BlobSource = Callable[[int], AbstractAsyncContextManager[AsyncIterator[bytes]]]
"""Opens the blob's bytes from an offset; may be called again for a retry."""


@contract(role="registry", version=1, stage=Stage.BETA, since="0.1")
class Registry(Driver[Config], abc.ABC):
    """Resolves, pulls and pushes; see the module.

    Every method raises Unauthenticated or PermissionDenied (bad or missing credentials), NotFound,
    Unavailable (cannot be reached, or 5xx and 429 after all retries) and DataLoss (digest differs).
    If cancelled: nothing is left open.
    """

    @property
    @abc.abstractmethod
    def capabilities(self) -> RegistryCap:
        """What this client can."""

    @abc.abstractmethod
    async def manifest(self, reference: Reference, credentials: Credentials) -> Manifest:
        """Get what a tag or digest names now."""

    @abc.abstractmethod
    def blob(
        self,
        reference: Reference,
        descriptor: Descriptor,
        credentials: Credentials,
        *,
        offset: int = 0,
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Stream a blob from an offset. The digest is verified by the reader, not here."""

    @abc.abstractmethod
    async def push_blob(
        self,
        reference: Reference,
        descriptor: Descriptor,
        source: BlobSource,
        credentials: Credentials,
        *,
        mount_from: tuple[str, ...] = (),
        sent: Callable[[int], None] | None = None,
    ) -> Literal["exists", "mounted", "pushed"]:
        """Upload a blob unless it is there.

        Args:
            mount_from: Repositories of the same host that may have it.
            sent: Called with the bytes sent so far.
        """

    @abc.abstractmethod
    async def push_manifest(
        self, reference: Reference, media_type: str, data: bytes, credentials: Credentials
    ) -> str:
        """Put a manifest under the reference's tag (or its digest); return its digest.

        One with a ``subject`` is among ``referrers`` of that from then on (cap REFERRERS).
        """

    async def referrers(self, reference: Reference, credentials: Credentials) -> list[Descriptor]:
        """Manifests that refer to the reference's digest; none if nothing of it is there.

        Raises also:
            Unsupported: This client cannot ask (cap REFERRERS).
        """
        raise Unsupported("this registry client knows no referrers")

    async def check_push(self, reference: Reference, credentials: Credentials) -> None:
        """Ask whether an image may be pushed to the reference's repository; nothing of it stays there.

        An upload is begun and taken back, or what else proves it. A client that cannot ask does not
        complain.

        Raises also:
            Unsupported: The registry takes no images at all.
            OutOfSpace: It has no room.
        """

    @abc.abstractmethod
    async def tags(self, reference: Reference, credentials: Credentials) -> list[str]:
        """All tags of the repository."""

    async def remove_tag(self, reference: Reference, credentials: Credentials) -> None:
        """Take a tag away; what it names stays under its digest and other tags. Silent if it is not there.

        Raises also:
            Unsupported: Nothing is deleted there, or only whole manifests; code ``delete_not_offered``.
        """
        raise Unsupported("this registry client deletes nothing", code="delete_not_offered")

    @abc.abstractmethod
    async def login(self, credentials: Credentials) -> str:
        """Check credentials with ``server_address``; return an identity token or ``""``."""

    async def remember(self, credentials: Credentials) -> None:
        """Use these credentials from now on for requests to ``server_address`` that bring none; survives restarts.

        Raises:
            Unsupported: This client keeps none.
        """
        raise Unsupported("this registry client keeps no credentials")

    async def remembers(self, server_address: str) -> bool:
        """Whether there are credentials for a server, from whatever source."""
        return False

    async def forget(self, server_address: str) -> None:
        """Undo ``remember``; silent if there is nothing."""

    @abc.abstractmethod
    async def search(
        self, term: str, credentials: Credentials, *, limit: int = 25
    ) -> list[SearchResult]:
        """Repositories that fit a term, the best first. A term may begin with a registry's host.

        Raises also:
            NotFound: code ``search_not_offered``: many registries have no search.
        """
