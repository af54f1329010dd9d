"""Driver ``dockerfile`` of role ``builder``."""

import contextlib
import functools
import shutil
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import trio

from linkspan.plugins.dockerfile_builder.cache import StepCache
from linkspan.plugins.dockerfile_builder.cache_mounts import CacheMounts
from linkspan.plugins.dockerfile_builder.config import GIT_FOLDER, DockerfileBuilderConfig
from linkspan.plugins.dockerfile_builder.layers import LayerMaker, in_thread
from linkspan.sdk.diagnostics import Diagnostic
from linkspan.sdk.drivers.builder import (
    Builder,
    BuilderCap,
    BuildRequest,
    BuildResult,
    CacheEntry,
    PruneRequest,
    PruneResult,
)
from linkspan.sdk.host import Host
from linkspan.sdk.progress import ProgressSink

if TYPE_CHECKING:
    from linkspan.plugins.dockerfile_builder.building import Builds
    from linkspan.plugins.dockerfile_builder.kept_folders import KeptFolders
    from linkspan.plugins.dockerfile_builder.pruning import Pruner


class DockerfileBuilder(Builder[DockerfileBuilderConfig]):
    """Builds images from Dockerfiles; semantics are BuildKit's, the stream's text is classic."""

    config_type = DockerfileBuilderConfig

    def __init__(self, config: DockerfileBuilderConfig, host: Host, layers: LayerMaker) -> None:
        self._config = config
        self._host = host
        self._cache_mounts = CacheMounts(host.state_dir / "cache-mounts")
        self._layers = layers

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, config: DockerfileBuilderConfig, host: Host) -> AsyncIterator[Self]:
        """Read the cache's records."""
        cache = StepCache(host.state_dir / "steps.jsonl")
        await in_thread(cache.load)
        limiter = trio.CapacityLimiter(config.max_parallel_steps)
        driver = cls(config, host, LayerMaker(host, cache, limiter))
        try:
            yield driver
        finally:
            if "_clients" in vars(driver):
                driver._clients.close()

    # Most of this package reads and runs Dockerfiles: a daemon that builds nothing does not load it.

    @functools.cached_property
    def _clients(self) -> "KeptFolders":
        from linkspan.plugins.dockerfile_builder.kept_folders import KeptFolders

        return KeptFolders(
            self._host.state_dir,
            max_entries=self._config.max_context_entries,
            max_bytes=self._config.max_context_bytes,
            max_kept_bytes=self._config.max_kept_context_bytes,
        )

    @functools.cached_property
    def _pruner(self) -> "Pruner":
        from linkspan.plugins.dockerfile_builder.pruning import Pruner

        return Pruner(self._layers, self._cache_mounts, self._clients, self._image_layers)

    @functools.cached_property
    def _builds(self) -> "Builds":
        from linkspan.plugins.dockerfile_builder.building import Builds

        return Builds(
            self._config,
            self._host,
            self._layers,
            self._cache_mounts,
            self._clients,
            self._after_build,
        )

    @property
    def capabilities(self) -> BuilderCap:
        """Everything that the contract names."""
        return BuilderCap.TARGET | BuilderCap.CACHE | BuilderCap.CHECK | BuilderCap.PACKAGES

    async def recover(self) -> None:
        """Remove what builds left that a crash cut off; their finished steps stay in the cache."""
        await self._layers.recover()
        await in_thread(self._cache_mounts.recover)
        await in_thread(shutil.rmtree, self._host.state_dir / GIT_FOLDER, ignore_errors=True)

    async def build(self, request: BuildRequest, progress: ProgressSink) -> BuildResult:
        """Build, store and tag an image.

        Raises:
            InvalidArgument: code ``dockerfile``: the Dockerfile or what it names is wrong; the message
                begins with ``file:line``. Also ``dockerfile_unsupported``, ``hostile_context``, and
                ``invalid_reference`` for a tag.
            LinkspanError: code ``build_failed``: a command of RUN returned another status than 0.
            TooLarge: The context is larger than the settings allow.
            OutOfSpace: The disk is full.
        If cancelled or failed: no image or tag appears, running steps are dead and their snapshots
        gone; finished steps stay in the cache.
        """
        return await self._builds.build(request, progress)

    async def check(self, request: BuildRequest) -> tuple[Diagnostic, ...]:
        """Read the Dockerfile and apply the build checks; nothing is built or pulled."""
        return await self._builds.check(request)

    async def preflight(self, request: BuildRequest) -> None:
        """Find commands of a platform that this machine cannot run, unless other machines have run them."""
        if request.platform and not request.cache_from:
            await self._builds.preflight(request)

    def change_config(self, config: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
        """A config with instructions applied. Raises InvalidArgument."""
        from linkspan.plugins.dockerfile_builder.changes import change_config

        return change_config(config, changes)

    async def prune(self, request: PruneRequest) -> PruneResult:
        """Forget steps and cache mounts; layers of images and of running builds stay."""
        from linkspan.plugins.dockerfile_builder.pruning import disk_free

        return await self._pruner.prune(request, lambda: disk_free(self._host.state_dir))

    async def cache_entries(self) -> list[CacheEntry]:
        """Layers of remembered steps, and cache mounts with what they take on the disk."""
        return await self._pruner.entries()

    def _image_layers(self) -> set[str]:
        images = self._host.engine.images.list()
        return {name for image in images for name in image.chain_ids}

    async def _after_build(self) -> None:
        """Write down what was used, and keep to the limit of the settings."""
        cache = self._layers.cache
        await in_thread(cache.save_uses)
        limit = self._config.max_cache_bytes
        if limit and sum(record.size_bytes for record in cache.layers().values()) > limit:
            await self.prune(PruneRequest(max_used_bytes=limit, wants=lambda e: not e.shared))

    async def cached_layers(self) -> list[str]:
        """Layers of remembered steps and running builds, and keys of the snapshots in work."""
        return [*self._layers.cache.layers(), *self._layers.in_use]

    async def gc(self, known: Iterable[str]) -> Mapping[str, str]:
        """Forget the steps whose layer is gone."""
        there = {layer.name for layer in await self._layers.snapshots.layers()}
        gone = [name for name in self._layers.cache.layers() if name not in there]
        keys = self._layers.cache.keys_of(gone)
        await in_thread(self._layers.cache.forget, keys)
        return dict.fromkeys(keys, "its layer is gone")
