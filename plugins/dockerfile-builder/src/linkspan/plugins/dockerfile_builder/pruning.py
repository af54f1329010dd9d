"""What the cache holds, as people see it, and its removal: the longest unused first."""

import collections
import heapq
import os
from collections.abc import Callable, Iterable, Sequence

from linkspan.plugins.dockerfile_builder.cache_mounts import CacheFolder, CacheMounts
from linkspan.plugins.dockerfile_builder.kept_folders import KeptFolder, KeptFolders
from linkspan.plugins.dockerfile_builder.layers import LayerMaker, in_thread
from linkspan.sdk.drivers.builder import CacheEntry, PruneRequest, PruneResult
from linkspan.sdk.values import frozen

_MOUNT_KIND = "exec.cachemount"
_CLIENT_KIND = "source.local"


@frozen(kw_only=True)
class _Kept:
    """An entry, and what it is made of: the records of one layer, the folder of a cache mount, or neither."""

    entry: CacheEntry
    keys: tuple[str, ...] = ()
    layer: str = ""
    parent: str = ""
    folder: str = ""


class _LeavesFirst:
    """The wanted entries, oldest first; a layer's turn comes when nothing stands on it any more."""

    def __init__(self, wanted: Sequence[_Kept], parents: Iterable[str]) -> None:
        self._wanted = wanted
        self._above = collections.Counter(parents)
        self._rank = {kept.layer: rank for rank, kept in enumerate(wanted) if kept.layer}
        self._free = [rank for rank, kept in enumerate(wanted) if self._is_free(kept)]
        heapq.heapify(self._free)

    def _is_free(self, kept: _Kept) -> bool:
        # A layer that images have stays: only the records about it go.
        return not kept.layer or kept.entry.shared or not self._above[kept.layer]

    def next(self) -> _Kept | None:
        """The next one to try; None at the end."""
        return self._wanted[heapq.heappop(self._free)] if self._free else None

    def removed(self, kept: _Kept) -> None:
        """It is gone: perhaps the one below may go now."""
        if not kept.layer or kept.entry.shared:
            return
        self._above[kept.parent] -= 1
        rank = self._rank.get(kept.parent)
        if (
            rank is not None
            and not self._above[kept.parent]
            and not self._wanted[rank].entry.shared
        ):
            heapq.heappush(self._free, rank)


class Pruner:
    """Looks into the cache and empties it.

    Args:
        image_layers: Names of the layers that images have.
    """

    def __init__(
        self,
        layers: LayerMaker,
        mounts: CacheMounts,
        clients: KeptFolders,
        image_layers: Callable[[], set[str]],
    ) -> None:
        self._clients = clients
        self._layers = layers
        self._mounts = mounts
        self._image_layers = image_layers

    async def entries(self) -> list[CacheEntry]:
        """All entries, oldest use first."""
        return [kept.entry for kept in await self._kept()]

    async def prune(self, request: PruneRequest, free_bytes: Callable[[], int]) -> PruneResult:
        """Remove entries until the request's limits are met.

        Args:
            free_bytes: Of the disk. Blocking.
        """
        kept = await self._kept()
        used = sum(k.entry.size_bytes for k in kept if not k.entry.shared)
        wanted = [k for k in kept if not k.entry.in_use and request.wants(k.entry)]
        queue = _LeavesFirst(
            wanted, [layer.parent for layer in await self._layers.snapshots.layers()]
        )
        removed: list[str] = []
        freed = 0
        while (candidate := queue.next()) is not None:
            if await in_thread(_is_enough, request, used - freed, free_bytes):
                break
            if await self._remove(candidate):
                removed.append(candidate.entry.id)
                freed += 0 if candidate.entry.shared else candidate.entry.size_bytes
                queue.removed(candidate)
        return PruneResult(removed=tuple(removed), freed_bytes=freed)

    async def _remove(self, kept: _Kept) -> bool:
        if kept.entry.kind == _CLIENT_KIND:
            return self._clients.remove(kept.entry.id)
        if kept.folder:
            return await in_thread(self._mounts.remove, kept.folder)
        if kept.layer in self._layers.in_use:
            return False
        if kept.layer and not kept.entry.shared and not await self._layers.remove_layer(kept.layer):
            return False
        await in_thread(self._layers.cache.forget, kept.keys)
        return True

    async def _kept(self) -> list[_Kept]:
        in_use, of_images = self._layers.in_use, self._image_layers()
        grouped: dict[str, list[str]] = {}
        records = self._layers.cache.records()
        for key, record in records.items():
            grouped.setdefault(record.layer or key, []).append(key)
        kept = []
        for name, keys in grouped.items():
            record = records[keys[0]]
            uses = [self._layers.cache.use_of(key) for key in keys]
            entry = CacheEntry(
                id=short_id(name),
                parent=short_id(record.parent) if record.parent else "",
                description=record.step,
                size_bytes=record.size_bytes,
                in_use=bool(record.layer) and record.layer in in_use,
                shared=record.layer in of_images,
                created_at=record.made_at,
                used_at=max(use.at for use in uses),
                uses=sum(use.count for use in uses),
            )
            kept.append(
                _Kept(entry=entry, keys=tuple(keys), layer=record.layer, parent=record.parent)
            )
        kept += _of_mounts(await in_thread(self._mounts.folders))
        kept += map(_of_client, self._clients.folders())
        return sorted(kept, key=lambda k: (k.entry.used_at, k.entry.id))


def short_id(name: str) -> str:
    """An id as Docker writes them: 25 characters."""
    return name.removeprefix("sha256:")[:25]


def _of_mounts(folders: Sequence[CacheFolder]) -> list[_Kept]:
    return [
        _Kept(
            entry=CacheEntry(
                id=f"{folder.key.partition('/')[0][:22]}-{folder.key.partition('/')[2]}",
                kind=_MOUNT_KIND,
                description=f"cache mount {folder.id}",
                size_bytes=folder.size_bytes,
                in_use=folder.in_use,
                created_at=folder.created,
                used_at=folder.used,
            ),
            folder=folder.key,
        )
        for folder in folders
    ]


def _of_client(folder: KeptFolder) -> _Kept:
    entry = CacheEntry(
        id=folder.id,
        kind=_CLIENT_KIND,
        description=f"local source for {folder.name}",
        size_bytes=folder.size_bytes,
        in_use=folder.in_use,
        created_at=folder.created,
        used_at=folder.used,
        uses=folder.uses,
    )
    return _Kept(entry=entry)


def _is_enough(request: PruneRequest, used: int, free_bytes: Callable[[], int]) -> bool:
    """Whether nothing more need go, or may go."""
    if request.keep_bytes and used <= request.keep_bytes:
        return True
    if request.max_used_bytes is None and request.min_free_bytes is None:
        return False
    if request.max_used_bytes is not None and used > request.max_used_bytes:
        return False
    return request.min_free_bytes is None or free_bytes() >= request.min_free_bytes


def disk_free(folder: str | os.PathLike[str]) -> int:
    """Bytes that are free where a folder lies. Blocking."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
