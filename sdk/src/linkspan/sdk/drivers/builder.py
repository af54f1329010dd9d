"""Role ``builder``: a context and a file to an image."""

import abc
import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from linkspan.sdk.build_client import BuildClient, ClientFolder
from linkspan.sdk.diagnostics import Diagnostic
from linkspan.sdk.drivers.base import Config, Driver
from linkspan.sdk.errors import Unsupported
from linkspan.sdk.model.container import Resources
from linkspan.sdk.model.image import Credentials, Package, Platform
from linkspan.sdk.progress import ProgressSink
from linkspan.sdk.stability import Stage, contract
from linkspan.sdk.values import frozen


class BuilderCap(enum.Flag):
    """What this builder can. CHECK: :meth:`Builder.check`; PACKAGES: ``BuildRequest.packages``."""

    NONE = 0
    TARGET = enum.auto()
    CACHE = enum.auto()
    CHECK = enum.auto()
    PACKAGES = enum.auto()


@frozen(kw_only=True)
class CacheImport:
    """An image that carries the steps of another build; ``fresh``: ask its registry even if it is here."""

    reference: str
    fresh: bool = False


@frozen(kw_only=True)
class CacheExport:
    """An image to make that carries the steps of this build.

    Attributes:
        every_stage: Of all stages (one more image each), not only of the result.
        push: Send it to its registry and keep nothing here; else it stays, and ``aux`` tells ``cache``.
    """

    reference: str
    every_stage: bool = False
    push: bool = False


@frozen(kw_only=True)
class BuildRequest:
    """Docker API /build, and the ``build`` verb.

    Attributes:
        context: A folder of this host (not changed), or a tar stream (plain, gzip, …); None: the ``client``'s.
        remote: Address of a git repository, an archive or a build file, instead of ``context``; empty for none.
        file: Path of the build file inside the context.
        tags: References to give to the result.
        network_mode: For RUN: ``default``, ``none``, ``host`` or a network.
        resources: Limits of each command.
        contexts: Name → a folder of this host or of the client, or an image; wins over stages and images of
            that name.
        no_cache_stages: Stages whose steps are run anew.
        cache_from: A cache that cannot be had is a warning, no error.
        cache_from_only: Steps are taken from the images of ``cache_from`` that are here, and from no others.
        details: Tell programs more in ``aux`` of the progress: ``warnings`` (rule, message, file, line), and
            ``step``, ``log``, ``work`` (what is no step) and ``definition`` (the build file) at once, while
            stages run side by side.
        secrets: Id → value, for commands that ask; in no image, cache, history or message.
        packages: Look into the result for what is installed there (cap PACKAGES).
        deliver: Is lent the root of the result, read only, in place of an image: none is stored or named.
        client: Whom to ask for secrets and credentials that are not given, and for context and build file.
    """

    context: Path | AsyncIterator[bytes] | None
    remote: str = ""
    file: str = "Dockerfile"
    tags: tuple[str, ...] = ()
    args: Mapping[str, str | None] = attrs.field(factory=dict)
    labels: Mapping[str, str] = attrs.field(factory=dict)
    target: str = ""
    platform: str = ""
    no_cache: bool = False
    pull: bool = False
    quiet: bool = False
    network_mode: str = "default"
    extra_hosts: tuple[str, ...] = ()
    credentials: Mapping[str, Credentials] = attrs.field(factory=dict)
    resources: Resources = Resources()
    shm_size_bytes: int = 67108864
    squash: bool = False
    secrets: Mapping[str, bytes] = attrs.field(factory=dict, repr=False)
    contexts: Mapping[str, Path | str | ClientFolder] = attrs.field(factory=dict)
    no_cache_stages: tuple[str, ...] = ()
    cache_from: tuple[CacheImport, ...] = ()
    cache_from_only: bool = False
    cache_to: tuple[CacheExport, ...] = ()
    details: bool = False
    packages: bool = False
    client: BuildClient | None = attrs.field(default=None, repr=False)
    deliver: Callable[[Path], Awaitable[None]] | None = None


@frozen(kw_only=True)
class BaseImage:
    """An image that a build began with, or copied from.

    Attributes:
        name: As the build file names it, arguments put in.
        digest: Of its manifest; empty if it never was in a registry.
    """

    name: str
    image_id: str
    digest: str = ""
    platform: Platform = Platform()


@frozen(kw_only=True)
class BuildResult:
    """The image; ``cached_steps`` of ``steps`` were taken from the cache.

    Attributes:
        image_id: Empty if the result was delivered elsewhere.
        bases: Images that went into it.
        packages: What is installed in it, if that was asked.
        unread: Databases of packages in it that this builder cannot read; a sentence each.
    """

    image_id: str
    steps: int
    cached_steps: int
    bases: tuple[BaseImage, ...] = ()
    packages: tuple[Package, ...] = ()
    unread: tuple[str, ...] = ()


@frozen(kw_only=True)
class CacheEntry:
    """One thing that the builder keeps (Docker API BuildCache).

    Attributes:
        kind: ``regular`` (a layer), ``exec.cachemount`` or ``source.local`` (what a client sent).
        in_use: A build that runs now needs it.
        shared: An image has it, too: removing it frees nothing.
        created_at, used_at: Seconds since the epoch.
        uses: How often it saved work.
    """

    id: str
    parent: str = ""
    kind: str = "regular"
    description: str = ""
    size_bytes: int = 0
    in_use: bool = False
    shared: bool = False
    created_at: float = 0.0
    used_at: float = 0.0
    uses: int = 0


@frozen(kw_only=True)
class PruneRequest:
    """What may go, and when it is enough; without limits, all that may go does.

    Attributes:
        wants: Whether an entry may go. Entries in use never do.
        keep_bytes: Never go below so much.
        max_used_bytes: Stop when no more than this is used.
        min_free_bytes: Stop when so much of the disk is free.
    """

    wants: Callable[[CacheEntry], bool] = lambda _: True
    keep_bytes: int = 0
    max_used_bytes: int | None = None
    min_free_bytes: int | None = None


@frozen(kw_only=True)
class PruneResult:
    """Ids of the entries that went, and the bytes that became free."""

    removed: tuple[str, ...] = ()
    freed_bytes: int = 0


@contract(role="builder", version=1, stage=Stage.BETA, since="0.1")
class Builder(Driver[Config], abc.ABC):
    """Builds images."""

    @property
    @abc.abstractmethod
    def capabilities(self) -> BuilderCap:
        """What this builder can."""

    @abc.abstractmethod
    async def build(self, request: BuildRequest, progress: ProgressSink) -> BuildResult:
        """Build, store and tag an image.

        Raises:
            InvalidArgument: The file or context is wrong; code ``dockerfile``; names file and line.
            LinkspanError: code ``build_failed`` (a command ended with another status than 0).
        If cancelled or failed: no image, tag or container is left; finished steps stay in the cache.
        """

    async def check(self, request: BuildRequest) -> tuple[Diagnostic, ...]:
        """Read the build file and say what is likely a mistake; nothing is built (cap CHECK).

        Raises:
            InvalidArgument: As ``build``: the file cannot be read at all.
            Unsupported: The builder has no checks.
        """
        raise Unsupported("this builder has no checks")

    async def preflight(self, request: BuildRequest) -> None:
        """Raise what would make the build fail, as far as it can be known at once; nothing is built or pulled.

        Raises:
            InvalidArgument: As ``build``.
        """

    @abc.abstractmethod
    def change_config(self, config: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
        """An image's config (section ``config``) with single instructions applied, as commit takes them.

        Raises:
            InvalidArgument: An instruction is wrong, or would need a build.
        """

    @abc.abstractmethod
    async def prune(self, request: PruneRequest) -> PruneResult:
        """Forget entries of the cache, those first that were not used for the longest time."""

    @abc.abstractmethod
    async def cache_entries(self) -> list[CacheEntry]:
        """What the cache holds, oldest use first."""

    @abc.abstractmethod
    async def cached_layers(self) -> list[str]:
        """Layers of the cache and of running builds, and keys of snapshots in work: ``gc`` keeps them."""
