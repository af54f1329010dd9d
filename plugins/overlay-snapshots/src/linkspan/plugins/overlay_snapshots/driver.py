"""The snapshots driver ``overlay``."""

import errno
import hashlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import Self

import trio

from linkspan.plugins.overlay_snapshots.applying import Applying
from linkspan.plugins.overlay_snapshots.config import OverlaySnapshotsConfig
from linkspan.plugins.overlay_snapshots.faults import from_os_error
from linkspan.plugins.overlay_snapshots.holds import Holds
from linkspan.plugins.overlay_snapshots.jobs_client import JobServer
from linkspan.plugins.overlay_snapshots.overlay_mount import (
    check_usable,
    is_mount_point,
    mount_overlay,
    mounted_overlays,
    unmount,
)
from linkspan.plugins.overlay_snapshots.packing import Packing
from linkspan.plugins.overlay_snapshots.store import LayerRecord, SnapshotRecord, Store, layer_of
from linkspan.plugins.overlay_snapshots.threads import in_thread
from linkspan.plugins.overlay_snapshots.tree_files import TreeFiles
from linkspan.plugins.overlay_snapshots.upkeep import Upkeep
from linkspan.plugins.overlay_snapshots.views import Views
from linkspan.sdk.drivers.snapshots import (
    Applied,
    ApplyRequest,
    Layer,
    Snapshots,
    SnapshotsCap,
)
from linkspan.sdk.errors import Conflict, InvalidArgument, NotUsable
from linkspan.sdk.host import Host
from linkspan.sdk.image_config import chain_ids
from linkspan.sdk.machine import boot_id
from linkspan.sdk.model.files import Change, PathStat, Tree

_log = logging.getLogger(__name__)


class OverlaySnapshots(Snapshots[OverlaySnapshotsConfig]):
    """Layers are folders; overlayfs puts them together."""

    config_type = OverlaySnapshotsConfig

    def __init__(self, config: OverlaySnapshotsConfig, host: Host, jobs: JobServer) -> None:
        self._config = config
        self._jobs = jobs
        self._files = TreeFiles(jobs)
        self._store = Store(host.state_dir.resolve())
        self._holds = Holds()
        self._views = Views(self._store, self._holds, host.run_dir.resolve() / "views")
        self._mounts: dict[str, Path] = {}
        unpackers = trio.CapacityLimiter(config.slots)
        self._packers = trio.CapacityLimiter(config.slots)
        self._upkeep = Upkeep(self._store, jobs, lambda: bool(unpackers.borrowed_tokens))
        self._packing = Packing(self._store, self._holds, jobs, self._packers)
        self._applying = Applying(
            config,
            self._store,
            self._holds,
            self._views,
            jobs,
            self._upkeep,
            unpackers=unpackers,
            packers=self._packers,
        )

    @classmethod
    @asynccontextmanager
    async def open(cls, config: OverlaySnapshotsConfig, host: Host) -> AsyncIterator[Self]:
        """Read the records and start the helper process.

        Raises:
            NotUsable: Not root, no overlayfs, or the state folder cannot carry one.
            OutOfSpace: The disk is full.
        """
        await in_thread(_check_machine, host.state_dir.resolve(), host.run_dir / "usable")
        async with JobServer.open() as jobs:
            self = cls(config, host, jobs)
            await in_thread(self._store.load)
            await in_thread(self._learn_mounts)
            await self._upkeep.start(host)
            try:
                yield self
            finally:
                self._upkeep.end()

    @property
    def capabilities(self) -> SnapshotsCap:
        """The child that unpacks writes the blob, too."""
        return SnapshotsCap.TEE

    async def recover(self) -> None:
        """Forget layers whose files did not reach the disk before the machine went down.

        What stands on them stays and can be used again once they are unpacked again. Views of a former
        daemon are unmounted; snapshots that are mounted stay so.
        """
        for layer in await in_thread(self._store.torn_layers):
            _log.warning("layer lost in a crash of the machine", extra={"layer": layer.name})
            del self._store.layers[layer.name]
            await in_thread(self._store.drop_layer, layer)
        await in_thread(self._views.unmount_old)
        self._upkeep.trash_filled.stir()
        self._upkeep.layer_made.stir()

    # Layers

    async def apply(self, request: ApplyRequest, source: AsyncIterator[bytes]) -> Applied:
        """Unpack a tar in a chrooted child; see the contract.

        Raises:
            Conflict: The ref is being applied, or is applied.
            DataLoss, InvalidArgument, TooLarge, OutOfSpace: As the contract says.
        If cancelled or failed: the staging area is gone; what was written to ``tee`` stays.
        """
        return await self._applying.apply(request, source)

    async def commit_applied(self, ref: str, *, name: str, parent: str) -> Layer:
        """Name an applied layer; see the contract.

        Raises:
            NotFound: No such staging area or parent.
            InvalidArgument: A hard link leads nowhere, or a parent's file is where a folder is needed; the
                staging area is gone.
            OutOfSpace: The disk is full; the staging area is gone.
        If cancelled: it is named, or the staging area is gone.
        """
        return await self._applying.commit_applied(ref, name=name, parent=parent)

    async def discard(self, ref: str) -> None:
        """Throw a staging area away; silent if there is none, or if it is still being unpacked."""
        await self._applying.discard(ref)

    async def stat(self, name: str) -> Layer:
        """Raises NotFound, also if a layer below it is missing."""
        await trio.lowlevel.checkpoint()
        return layer_of(self._store.top(name))

    async def layers(self) -> list[Layer]:
        """All layers that can be used."""
        await trio.lowlevel.checkpoint()
        return [
            layer_of(layer)
            for name, layer in self._store.layers.items()
            if self._store.chain(name) is not None
        ]

    async def remove_layer(self, name: str) -> None:
        """Remove a layer; silent if there is none.

        Raises:
            Conflict: A layer or a snapshot stands on it, or it is being read.
        If cancelled: gone from listings; files go later.
        """
        layer = self._store.layers.get(name)
        if layer is None:
            await trio.lowlevel.checkpoint()
            return
        users = self._store.users(name)
        if users or self._holds.is_pinned(name):
            raise Conflict(
                f"layer {name} is in use" + (f" by {users[0]}" if users else ""),
                code="layer_in_use",
                details={"users": users},
            )
        del self._store.layers[name]
        await in_thread(self._store.drop_layer, layer)
        self._upkeep.trash_filled.stir()

    # Snapshots

    async def prepare(self, key: str, parent: str) -> None:
        """Make a writable snapshot; see the contract.

        Raises:
            Conflict: The key exists.
            NotFound: The parent does not.
            OutOfSpace: The disk is full.
        If cancelled: the snapshot exists or not.
        """
        if key in self._store.snapshots:
            raise Conflict(f"snapshot '{key}' exists", code="snapshot_exists", details={"key": key})
        self._store.require(parent)
        folder_id = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:20]
        snapshot = SnapshotRecord(id=folder_id, key=key, parent=parent)
        # Known at once, so that nobody takes the key or the parent meanwhile.
        self._store.snapshots[key] = snapshot
        async with self._holds.alone("snapshot", key):
            try:
                await in_thread(self._store.make_snapshot, snapshot)
            except BaseException:
                self._store.snapshots.pop(key, None)
                raise

    async def mount(
        self,
        key: str,
        target: Path,
        *,
        volatile: bool = False,
        then: Callable[[Path], object] | None = None,
    ) -> None:
        """Mount a snapshot; see the contract.

        Raises:
            NotFound: No such key, or a layer below it is missing.
            Conflict: It is mounted somewhere else.
        If cancelled: it is mounted or not.
        """
        async with self._holds.alone("snapshot", key):
            snapshot = self._store.snapshot(key)
            self._store.require(snapshot.parent)
            await in_thread(self._mount, snapshot, target, volatile, then)

    def _mount(
        self,
        snapshot: SnapshotRecord,
        target: Path,
        volatile: bool,
        then: Callable[[Path], object] | None,
    ) -> None:
        self._mount_once(snapshot, target, volatile)
        if then is not None:
            then(target)

    def _mount_once(self, snapshot: SnapshotRecord, target: Path, volatile: bool) -> None:
        mounted_at = self._mounts.get(snapshot.key)
        if mounted_at is not None and is_mount_point(mounted_at):
            if mounted_at == Path(os.path.realpath(target)):
                return
            raise Conflict(
                f"snapshot '{snapshot.key}' is mounted at {mounted_at}",
                code="snapshot_mounted",
                details={"target": str(mounted_at)},
            )
        target = self._made(target)
        mount_overlay(
            target,
            self._store.lowers(snapshot.parent) or [self._store.empty],
            upper=self._store.upper(snapshot),
            work=self._store.work(snapshot),
            volatile=volatile,
        )
        self._mounts[snapshot.key] = target

    def _made(self, target: Path) -> Path:
        """Make a folder to mount at; its path without links."""
        try:
            target.mkdir()
        except (FileExistsError, FileNotFoundError):
            target.mkdir(parents=True, exist_ok=True)
            return Path(os.path.realpath(target))
        return _real_folder(target.parent) / target.name

    async def unmount(self, key: str) -> None:
        """Unmount it wherever it is; silent if it is not mounted or not there.

        If cancelled: it is unmounted.
        """
        with trio.CancelScope(shield=True):
            async with self._holds.alone("snapshot", key):
                await self._unmount(key)

    async def _unmount(self, key: str, *, lazily: bool = True) -> None:
        target = self._mounts.get(key)
        if target is None:
            await trio.lowlevel.checkpoint()
            return
        await trio.to_thread.run_sync(lambda: unmount(target, lazily=lazily))
        self._mounts.pop(key, None)

    async def commit(
        self, key: str, *, parent: str, keep: bool = False, ignore: Collection[str] = ()
    ) -> Layer:
        """Make a snapshot's own content a layer; see the contract.

        Raises:
            NotFound: No such key, or its parent is missing.
            InvalidArgument: It was prepared on another parent, or has a name that no layer can have.
            Conflict: It is mounted and in use.
            OutOfSpace: The disk is full.
        If cancelled: the snapshot is as it was (unmounted), or it is a layer.
        """
        async with self._holds.alone("snapshot", key):
            snapshot = self._store.snapshot(key)
            if snapshot.parent not in ("", parent):
                raise InvalidArgument(
                    f"snapshot '{key}' stands on {snapshot.parent}, not on {parent or 'nothing'}"
                )
            self._store.require(parent)
            if keep:
                return await self._applying.copy(snapshot, parent, ignore)
            return await self._commit(snapshot, parent)

    async def _commit(self, snapshot: SnapshotRecord, parent: str) -> Layer:
        key = snapshot.key
        try:
            await self._unmount(key, lazily=False)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise from_os_error(error) from error
            raise Conflict(
                f"snapshot '{key}' is mounted at {self._mounts[key]} and in use",
                code="snapshot_in_use",
                help="end what runs in it",
            ) from error
        task = {
            "folder": str(self._store.upper(snapshot)),
            "lowers": [str(path) for path in self._store.lowers(snapshot.parent)],
        }
        async with self._packers:
            measured = await self._jobs.run("measure", task)
        diff_id = measured["diff_id"]
        name = chain_ids([parent, diff_id])[1] if parent else diff_id
        with trio.CancelScope(shield=True), self._holds.pin(parent):
            layer = await self._adopt(snapshot, parent, name, diff_id, measured["size_bytes"])
        return layer

    async def _adopt(
        self, snapshot: SnapshotRecord, parent: str, name: str, diff_id: str, size_bytes: int
    ) -> Layer:
        known = self._store.layers.get(name)
        if known is not None:
            await self._drop_snapshot(snapshot)
            return layer_of(known)
        folder_id = self._store.new_id()
        await in_thread(self._store.adopt_upper, snapshot, folder_id)
        del self._store.snapshots[snapshot.key]
        self._upkeep.trash_filled.stir()
        return await self._applying.add_layer(
            LayerRecord(
                id=folder_id,
                name=name,
                parent=parent,
                diff_id=diff_id,
                size_bytes=size_bytes,
            )
        )

    async def keys(self) -> list[str]:
        """Keys of all snapshots."""
        await trio.lowlevel.checkpoint()
        return list(self._store.snapshots)

    async def remove(self, key: str) -> None:
        """Unmount and remove a snapshot; silent if there is none. Its files go later.

        If cancelled: gone, or as it was.
        """
        async with self._holds.alone("snapshot", key):
            snapshot = self._store.snapshots.get(key)
            if snapshot is None:
                return
            with trio.CancelScope(shield=True):
                await self._unmount(key)
                await self._drop_snapshot(snapshot)

    async def _drop_snapshot(self, snapshot: SnapshotRecord) -> None:
        self._store.snapshots.pop(snapshot.key, None)
        await in_thread(self._store.drop_snapshot, snapshot)
        self._upkeep.trash_filled.stir()

    async def changes(self, key: str, *, ignore: Collection[str] = ()) -> list[Change]:
        """What a snapshot has that its layer has not, by path.

        Raises:
            NotFound: No such key.
        """
        snapshot = self._store.snapshot(key)
        upper = str(self._store.upper(snapshot))
        async with self._views.below(snapshot.parent) as lower:
            task = {"folder": upper, "lower": str(lower), "ignore": list(ignore)}
            found = await self._jobs.run("compare", task)
        return [Change(path=path, kind=kind) for path, kind in found]

    async def usage(self, key: str) -> int:
        """Bytes of a snapshot's own content.

        Raises:
            NotFound: No such key.
        """
        folder = self._store.upper(self._store.snapshot(key))
        return int(await self._jobs.run("usage", {"folder": str(folder)}))

    def describe(self, name: str) -> Mapping[str, str]:
        """Folders of a snapshot or layer by overlay2's names; see the contract."""
        mounted = self._mounts.get(name)
        return self._store.describe(name, mounted_at=mounted)

    # Files of containers

    async def stat_path(self, tree: Tree, path: str) -> PathStat:
        """What a path is. Raises NotFound."""
        return await self._files.stat(tree, path)

    def read_path(
        self, tree: Tree, path: str
    ) -> AbstractAsyncContextManager[tuple[PathStat, AsyncIterator[bytes]]]:
        """A file, or a folder with all in it, as a tar; see the contract. Raises NotFound."""
        return self._files.read(tree, path)

    async def write_path(
        self,
        tree: Tree,
        path: str,
        source: AsyncIterator[bytes],
        *,
        keep_kind: bool = False,
        owner: str = "",
    ) -> None:
        """Unpack a tar into a folder; see the contract.

        Raises:
            NotFound, InvalidArgument, PermissionDenied, DataLoss, OutOfSpace: As the contract says.
        If cancelled or failed: what was unpacked so far stays.
        """
        await self._files.write(tree, path, source, keep_kind=keep_kind, owner=owner)

    async def remove_paths(self, tree: Tree, path: str, names: Sequence[str]) -> Sequence[str]:
        """Remove files and empty folders below a folder; see the contract.

        Raises:
            NotFound, InvalidArgument, PermissionDenied: As the contract says.
        If cancelled or failed: what was removed so far is gone.
        """
        return await self._files.remove(tree, path, names)

    # Reading layers

    def view(self, name: str) -> AbstractAsyncContextManager[Path]:
        """A layer with all its parents as a read-only folder; see the contract.

        Raises:
            NotFound: No such layer.
        """
        return self._views.view(name)

    def export(self, name: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The layer's own tar; see the contract.

        Raises:
            NotFound: No such layer.
            DataLoss: At the end of the stream: these bytes have another digest than the layer's diff id.
                A layer that was pulled was packed by another program: send its stored blob instead.
        """
        return self._packing.export(name)

    async def compress(self, name: str, target: Path) -> tuple[str, int]:
        """Write the layer's tar, gzipped, to a new file; see the contract.

        Raises:
            NotFound: No such layer.
            DataLoss: As in ``export``; the file is gone.
            OutOfSpace: The disk is full; the file is gone.
        If cancelled: the file is gone.
        """
        return await self._packing.compress(name, target)

    # Cleaning up

    async def gc(self, known: Iterable[str]) -> Mapping[str, str]:
        """Remove layers and snapshots that are neither known nor below something known, nor new.

        Args:
            known: Keys of snapshots and names of layers.
        """
        keep = set(known)
        removed: dict[str, str] = {}
        for snapshot in list(self._store.snapshots.values()):
            if snapshot.key not in keep and await self._is_old(snapshot):
                await self.remove(snapshot.key)
                removed[snapshot.key] = "snapshot that nothing knows"
        # Children first; a layer below one that stays is in use.
        layers = sorted(self._store.layers.values(), key=self._depth, reverse=True)
        for layer in layers:
            if layer.name in keep or not await self._is_old(layer):
                continue
            try:
                await self.remove_layer(layer.name)
            except Conflict:
                continue
            removed[layer.name] = "layer that nothing knows"
        return removed

    async def _is_old(self, record: LayerRecord | SnapshotRecord) -> bool:
        return await in_thread(self._store.age_s, record) >= self._config.grace_s

    def _depth(self, layer: LayerRecord) -> int:
        depth = 0
        below: LayerRecord | None = layer
        while below is not None:
            depth += 1
            below = self._store.layers.get(below.parent)
        return depth

    def _learn_mounts(self) -> None:
        keys = {str(self._store.upper(s)): key for key, s in self._store.snapshots.items()}
        for overlay in mounted_overlays():
            key = keys.get(overlay.upper)
            if key is not None:
                self._mounts[key] = overlay.target


@lru_cache(16)
def _real_folder(folder: Path) -> Path:
    """A driver's caller mounts in a few folders of its own: what leads to them is looked up once."""
    return Path(os.path.realpath(folder))


def _check_machine(state_dir: Path, mark: Path) -> None:
    """A mount is tried once a boot and file system: to undo it waits for the kernel.

    Args:
        mark: The file that remembers a try that went well.
    """
    if os.geteuid() != 0:
        raise NotUsable("overlay snapshots need root", help="run the daemon with sudo")
    if set(str(state_dir)) & set(",:\\"):
        raise NotUsable(f"overlayfs cannot have a folder named {state_dir}")
    if "\toverlay\n" not in Path("/proc/filesystems").read_text():
        raise NotUsable("this kernel has no overlayfs", help="modprobe overlay")
    boot = boot_id()
    tried = f"{boot} {state_dir.stat().st_dev}"
    if mark.exists() and mark.read_text() == tried:
        return
    reason = check_usable(state_dir / "probe")
    if reason:
        raise NotUsable(reason, help="put data-root on a disk with ext4, xfs or btrfs")
    mark.write_text(tried)
