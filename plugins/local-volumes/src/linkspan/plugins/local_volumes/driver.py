"""The ``local`` volumes: folders below the driver's state folder."""

import weakref
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import trio

from linkspan.plugins.local_volumes.store import VolumeFolders
from linkspan.sdk.drivers.base import NoConfig
from linkspan.sdk.drivers.volume import VolumeCap, VolumeDriver
from linkspan.sdk.host import Host
from linkspan.sdk.model.volume import Volume, VolumeSpec, VolumeUsage


class LocalVolumes(VolumeDriver[NoConfig]):
    """See the module. What one name is asked is done one after the other; names do not wait for each other."""

    def __init__(self, folders: VolumeFolders) -> None:
        self._folders = folders
        self._locks: weakref.WeakValueDictionary[str, trio.Lock] = weakref.WeakValueDictionary()

    @classmethod
    @asynccontextmanager
    async def open(cls, config: NoConfig, host: Host) -> AsyncIterator[Self]:
        """Make the folders."""
        yield cls(await trio.to_thread.run_sync(VolumeFolders, host.state_dir, host.run_dir))

    def _lock(self, name: str) -> trio.Lock:
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = trio.Lock()
        return lock

    @property
    def capabilities(self) -> VolumeCap:
        """USAGE."""
        return VolumeCap.USAGE

    async def recover(self) -> None:
        """Finish what a crash cut off."""
        await trio.to_thread.run_sync(self._folders.recover)

    async def create(self, spec: VolumeSpec, *, anonymous: bool = False) -> Volume:
        """See the contract. If cancelled: it exists or not, nothing between."""
        async with self._lock(spec.name):
            return await trio.to_thread.run_sync(
                lambda: self._folders.create(spec, anonymous=anonymous)
            )

    async def get(self, name: str) -> Volume:
        """See the contract."""
        return await trio.to_thread.run_sync(self._folders.read, name)

    async def list(self) -> list[Volume]:
        """See the contract."""
        return await trio.to_thread.run_sync(lambda: [*self._folders.all()])

    async def remove(self, name: str) -> None:
        """See the contract. If cancelled: it is there or gone."""
        async with self._lock(name):
            await trio.to_thread.run_sync(self._folders.remove, name)

    async def mount(self, name: str, container_id: str) -> Path:
        """See the contract."""
        async with self._lock(name):
            return await trio.to_thread.run_sync(self._folders.mount, name, container_id)

    async def mount_part(self, name: str, container_id: str, path: str) -> Path:
        """See the contract."""
        async with self._lock(name):
            return await trio.to_thread.run_sync(self._folders.mount_part, name, container_id, path)

    async def unmount(self, name: str, container_id: str) -> None:
        """See the contract."""
        async with self._lock(name):
            await trio.to_thread.run_sync(self._folders.unmount, name, container_id)

    async def gc(self, known: Iterable[str]) -> Mapping[str, str]:
        """Forget users that no longer exist: a crash fell between their end and ``unmount``."""
        strangers = await trio.to_thread.run_sync(self._folders.users_except, frozenset(known))
        for name, container_id in strangers:
            await self.unmount(name, container_id)
        return {container_id: f"used volume {name}" for name, container_id in strangers}

    async def populate(self, name: str, root: Path, path: str) -> bool:
        """See the contract. If cancelled: the copy is finished first, as a half one would stay for good."""
        async with self._lock(name):
            return await trio.to_thread.run_sync(self._folders.populate, name, root, path)

    async def usage(self, name: str) -> VolumeUsage:
        """See the contract."""
        return await trio.to_thread.run_sync(self._folders.usage, name)
