"""The driver ``distribution``; HTTP is imported when a registry is first asked."""

import contextlib
import importlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, Literal, Self

import attrs
import trio

from linkspan.plugins.distribution_registry.addresses import InsecureHosts
from linkspan.plugins.distribution_registry.config import DistributionConfig
from linkspan.plugins.distribution_registry.docker_config import DockerConfig
from linkspan.sdk.drivers.registry import (
    BlobSource,
    Manifest,
    Registry,
    RegistryCap,
    SearchResult,
)
from linkspan.sdk.host import Host
from linkspan.sdk.model.image import Credentials, Descriptor
from linkspan.sdk.reference import Reference


class DistributionRegistry(Registry[DistributionConfig]):
    """Registries that speak the distribution protocol: Docker Hub, Harbor, Quay, our own.

    Credentials that a caller leaves empty are looked up in Docker's config file. Registries on
    loopback, and those in the daemon's ``insecure-registries``, may be without (verified) TLS. What comes
    from Docker Hub is first asked of the daemon's ``registry-mirrors``.
    """

    config_type: ClassVar[type[Any]] = DistributionConfig

    def __init__(self, config: DistributionConfig, insecure: InsecureHosts, host: Host) -> None:
        self._config = config
        self._insecure = insecure
        self._host = host
        self._made: Any = None
        self._lock = trio.Lock()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, config: DistributionConfig, host: Host) -> AsyncIterator[Self]:
        """See ``Driver.open``; nothing is contacted yet."""
        driver = cls(config, InsecureHosts.of(host.daemon.insecure_registries), host)
        try:
            yield driver
        finally:
            if driver._made is not None:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 2.0):
                    await driver._made.aclose()

    @property
    def capabilities(self) -> RegistryCap:
        """Everything that the contract names."""
        return RegistryCap.PUSH | RegistryCap.REFERRERS

    async def _client(self) -> Any:
        """httpx takes 80 ms to import, which a daemon that pulls nothing never pays."""
        async with self._lock:
            if self._made is None:
                name = f"{__package__}.client"
                module = await trio.to_thread.run_sync(importlib.import_module, name)
                made = module.DistributionClient(
                    self._config, self._insecure, mirrors=self._host.daemon.registry_mirrors
                )
                await self._host.start_task(made.close_unused, name="registries: close unused")
                self._made = made
            return self._made

    async def manifest(self, reference: Reference, credentials: Credentials) -> Manifest:
        """See ``Registry.manifest``.

        Raises also:
            TooLarge: It is larger than ``manifest-limit``.
            Unsupported: Docker schema 1 (code ``schema1``), or no image at all.
        """
        client = await self._client()
        found: Manifest = await client.manifest(reference, credentials)
        return found

    def blob(
        self,
        reference: Reference,
        descriptor: Descriptor,
        credentials: Credentials,
        *,
        offset: int = 0,
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """See ``Registry.blob``; pieces are as the network gave them, up to 64 KiB."""
        return self._blob(reference, descriptor, credentials, offset)

    @contextlib.asynccontextmanager
    async def _blob(
        self, reference: Reference, descriptor: Descriptor, credentials: Credentials, offset: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        client = await self._client()
        async with client.blob(reference, descriptor, credentials, offset) as parts:
            yield parts

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
        """See ``Registry.push_blob``; at most three repositories are tried for a mount."""
        client = await self._client()
        outcome: Literal["exists", "mounted", "pushed"] = await client.push_blob(
            reference, descriptor, source, credentials, mount_from, sent
        )
        return outcome

    async def check_push(self, reference: Reference, credentials: Credentials) -> None:
        """See ``Registry.check_push``; an upload is begun and cancelled."""
        await (await self._client()).check_push(reference, credentials)

    async def push_manifest(
        self, reference: Reference, media_type: str, data: bytes, credentials: Credentials
    ) -> str:
        """See ``Registry.push_manifest``.

        Raises also:
            NotFound: code ``manifest_blob_unknown``: the registry misses a blob; push it again.
        """
        client = await self._client()
        digest: str = await client.push_manifest(reference, media_type, data, credentials)
        return digest

    async def referrers(self, reference: Reference, credentials: Credentials) -> list[Descriptor]:
        """See ``Registry.referrers``; registries without that list have a tag for it, as the protocol says."""
        found: list[Descriptor] = await (await self._client()).referrers(reference, credentials)
        return found

    async def remove_tag(self, reference: Reference, credentials: Credentials) -> None:
        """See ``Registry.remove_tag``."""
        await (await self._client()).remove_tag(reference, credentials)

    async def tags(self, reference: Reference, credentials: Credentials) -> list[str]:
        """See ``Registry.tags``."""
        client = await self._client()
        found: list[str] = await client.tags(reference, credentials)
        return found

    async def login(self, credentials: Credentials) -> str:
        """See ``Registry.login``."""
        client = await self._client()
        token: str = await client.login(credentials)
        return token

    async def remember(self, credentials: Credentials) -> None:
        """In Docker's config file, or by its helper."""
        await DockerConfig(self._config.docker_config).store(credentials)

    async def remembers(self, server_address: str) -> bool:
        """See ``Registry.remembers``."""
        found = await DockerConfig(self._config.docker_config).credentials(server_address, "")
        return attrs.evolve(found, server_address="") != Credentials()

    async def forget(self, server_address: str) -> None:
        """See ``Registry.forget``."""
        await DockerConfig(self._config.docker_config).erase(server_address)

    async def search(
        self, term: str, credentials: Credentials, *, limit: int = 25
    ) -> list[SearchResult]:
        """See ``Registry.search``."""
        client = await self._client()
        found: list[SearchResult] = await client.search(term, limit, credentials)
        return found
