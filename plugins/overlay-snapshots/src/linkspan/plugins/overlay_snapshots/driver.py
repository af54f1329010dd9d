"""The snapshots driver ``overlay``."""

import collections
import contextlib
import errno
import hashlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import attrs
import trio

from linkspan.plugins.overlay_snapshots.config import OverlaySnapshotsConfig
from linkspan.plugins.overlay_snapshots.faults import from_os_error
from linkspan.plugins.overlay_snapshots.jobs_client import (
    Job,
    JobServer,
    pipe_from_child,
)
from linkspan.plugins.overlay_snapshots.overlay_mount import (
    check_usable,
    is_mount_point,
    mount_overlay,
    mounted_overlays,
    unmount,
)
from linkspan.plugins.overlay_snapshots.store import LayerRecord, SnapshotRecord, Store
from linkspan.plugins.overlay_snapshots.tree_files import TreeFiles
from linkspan.sdk.drivers.snapshots import (
    Applied,
    ApplyRequest,
    Layer,
    Snapshots,
    SnapshotsCap,
)
from linkspan.sdk.errors import (
    Conflict,
    DataLoss,
    InvalidArgument,
    LinkspanError,
    NotFound,
    NotUsable,
)
from linkspan.sdk.host import Host
from linkspan.sdk.image_config import chain_ids
from linkspan.sdk.lull import Lull
from linkspan.sdk.model.files import Change, PathStat, Tree

_log = logging.getLogger(__name__)

T = TypeVar("T")

_LEAST_FREE: Final = 0.1
"""With less of the disk free, what is removed is removed at once."""
_REMOVED_AT_ONCE: Final = 16
_RETRY_DELAY_S: Final = 10.0
_PIECE_BYTES: Final = 1 << 20


@attrs.define
class _Staging:
    id: str
    applied: Applied | None = None
    settle: bool = False


@attrs.define
class _View:
    target: Path
    users: int = 0


class OverlaySnapshots(Snapshots[OverlaySnapshotsConfig]):
    """Layers are folders; overlayfs puts them together."""

    config_type = OverlaySnapshotsConfig

    def __init__(self, config: OverlaySnapshotsConfig, host: Host, jobs: JobServer) -> None:
        self._config = config
        self._jobs = jobs
        self._files = TreeFiles(jobs)
        self._store = Store(host.state_dir.resolve())
        self._views_dir = host.run_dir.resolve() / "views"
        self._staging: dict[str, _Staging] = {}
        self._mounts: dict[str, Path] = {}
        self._views: dict[str, _View] = {}
        self._pinned: collections.Counter[str] = collections.Counter()
        self._locks: dict[tuple[str, str], trio.Lock] = {}
        self._unpackers = trio.CapacityLimiter(config.slots)
        self._packers = trio.CapacityLimiter(config.slots)
        self._tasks: list[trio.CancelScope] = []
        self._removal = trio.CancelScope()
        self._trash_filled = Lull(self._must_not_remove, pause_s=0.1, latest_s=10.0)
        # A pull is answered before its layers are written to the disk itself.
        self._layer_made = Lull(self._is_unpacking)

    @classmethod
    @asynccontextmanager
    async def open(cls, config: OverlaySnapshotsConfig, host: Host) -> AsyncIterator[Self]:
        """Read the records and start the helper process.

        Raises:
            NotUsable: Not root, no overlayfs, or the state folder cannot carry one.
            OutOfSpace: The disk is full.
        """
        await _in_thread(_check_machine, host.state_dir.resolve())
        async with JobServer.open() as jobs:
            self = cls(config, host, jobs)
            await _in_thread(self._store.load)
            await _in_thread(self._learn_mounts)
            await host.start_task(self._empty_trash, name="snapshots: empty trash")
            await host.start_task(self._sync_layers, name="snapshots: sync layers")
            self._trash_filled.stir()
            try:
                yield self
            finally:
                # They need the helper process, which is about to end.
                for scope in self._tasks:
                    scope.cancel()

    @property
    def capabilities(self) -> SnapshotsCap:
        """The child that unpacks writes the blob, too."""
        return SnapshotsCap.TEE

    async def recover(self) -> None:
        """Forget layers whose files did not reach the disk before the machine went down.

        What stands on them stays and can be used again once they are unpacked again. Views of a former
        daemon are unmounted; snapshots that are mounted stay so.
        """
        for layer in await _in_thread(self._store.torn_layers):
            _log.warning("layer lost in a crash of the machine", extra={"layer": layer.name})
            del self._store.layers[layer.name]
            await _in_thread(self._store.drop_layer, layer)
        await _in_thread(self._unmount_old_views)
        self._trash_filled.stir()
        self._layer_made.stir()

    # Layers

    async def apply(self, request: ApplyRequest, source: AsyncIterator[bytes]) -> Applied:
        """Unpack a tar in a chrooted child; see the contract.

        Raises:
            Conflict: The ref is being applied, or is applied.
            DataLoss, InvalidArgument, TooLarge, OutOfSpace: As the contract says.
        If cancelled or failed: the staging area is gone; what was written to ``tee`` stays.
        """
        if request.ref in self._staging:
            raise Conflict(
                f"a layer is being unpacked as '{request.ref}'",
                code="ref_in_use",
                details={"ref": request.ref},
            )
        staging = _Staging(self._store.new_id())
        self._staging[request.ref] = staging
        try:
            async with self._unpackers:
                if self._must_not_remove():
                    self._removal.cancel()
                folder = await _in_thread(self._store.make_staging, staging.id)
                result = await self._unpack(request, folder, source)
        except BaseException:
            del self._staging[request.ref]
            with trio.CancelScope(shield=True):
                await self._drop_staging(staging)
            raise
        return self._applied(staging, request.ref, result)

    def _applied(self, staging: _Staging, ref: str, result: Mapping[str, Any]) -> Applied:
        staging.settle = result["settle"]
        staging.applied = Applied(
            ref=ref,
            digest=result["digest"],
            size_bytes=result["size_bytes"],
            diff_id=result["diff_id"],
            unpacked_bytes=result["unpacked_bytes"],
        )
        return staging.applied

    async def _unpack(
        self, request: ApplyRequest, folder: Path, source: AsyncIterator[bytes]
    ) -> dict[str, Any]:
        return dict(await self._jobs.fed("unpack", self._unpack_task(request, folder), source))

    def _unpack_task(self, request: ApplyRequest, folder: Path) -> dict[str, Any]:
        config = self._config
        limit_bytes = min(request.limit_bytes or config.layer_limit_bytes, config.layer_limit_bytes)
        return {
            "folder": str(folder),
            "digest": request.digest,
            "size_bytes": request.size_bytes,
            "diff_id": request.diff_id,
            "tee": None if request.tee is None else str(request.tee),
            "resume_bytes": request.resume_bytes if request.tee is not None else 0,
            "verified": request.verified
            and request.tee is not None
            and request.digest is not None
            and request.resume_bytes == request.size_bytes,
            "limits": [limit_bytes, config.entry_limit, config.ratio_limit],
        }

    async def commit_applied(self, ref: str, *, name: str, parent: str) -> Layer:
        """Name an applied layer; see the contract.

        Raises:
            NotFound: No such staging area or parent.
            InvalidArgument: A hard link leads nowhere, or a parent's file is where a folder is needed; the
                staging area is gone.
            OutOfSpace: The disk is full; the staging area is gone.
        If cancelled: it is named, or the staging area is gone.
        """
        if name in self._store.layers:
            await self.discard(ref)
            return _layer(self._store.layers[name])
        staging = self._staging.get(ref)
        if staging is None or staging.applied is None:
            raise NotFound(
                f"no layer is unpacked as '{ref}'", code="staging_not_found", details={"ref": ref}
            )
        self._chain(parent)
        del self._staging[ref]
        try:
            with self._pin(parent):
                if staging.settle:
                    await self._settle(staging, parent)
                return await self._add_layer(
                    LayerRecord(
                        id=staging.id,
                        name=name,
                        parent=parent,
                        diff_id=staging.applied.diff_id,
                        size_bytes=staging.applied.unpacked_bytes,
                    )
                )
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._drop_staging(staging)
            raise

    async def _settle(self, staging: _Staging, parent: str) -> None:
        folder = str(self._store.root / "staging" / staging.id)
        async with self._lower_tree(parent) as lower:
            await self._jobs.run("settle", {"folder": folder, "lower": str(lower)})

    async def _add_layer(self, record: LayerRecord) -> Layer:
        """Make a staging area a layer, unless another task was faster."""
        await _in_thread(self._store.finish_layer, record)
        known = self._store.layers.setdefault(record.name, record)
        if known is not record:
            await _in_thread(self._store.drop_layer, record)
            self._trash_filled.stir()
        self._layer_made.stir()
        return _layer(known)

    async def discard(self, ref: str) -> None:
        """Throw a staging area away; silent if there is none, or if it is still being unpacked."""
        staging = self._staging.get(ref)
        if staging is None or staging.applied is None:
            await trio.lowlevel.checkpoint()
            return
        del self._staging[ref]
        with trio.CancelScope(shield=True):
            await self._drop_staging(staging)

    async def _drop_staging(self, staging: _Staging) -> None:
        await _in_thread(self._store.drop_staging, staging.id)
        self._trash_filled.stir()

    async def stat(self, name: str) -> Layer:
        """Raises NotFound, also if a layer below it is missing."""
        await trio.lowlevel.checkpoint()
        return _layer(self._top(name))

    async def layers(self) -> list[Layer]:
        """All layers that can be used."""
        await trio.lowlevel.checkpoint()
        return [
            _layer(layer)
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
        if users or self._pinned[name]:
            raise Conflict(
                f"layer {name} is in use" + (f" by {users[0]}" if users else ""),
                code="layer_in_use",
                details={"users": users},
            )
        del self._store.layers[name]
        await _in_thread(self._store.drop_layer, layer)
        self._trash_filled.stir()

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
        self._chain(parent)
        folder_id = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:20]
        snapshot = SnapshotRecord(id=folder_id, key=key, parent=parent)
        # Known at once, so that nobody takes the key or the parent meanwhile.
        self._store.snapshots[key] = snapshot
        async with self._alone("snapshot", key):
            try:
                await _in_thread(self._store.make_snapshot, snapshot)
            except BaseException:
                self._store.snapshots.pop(key, None)
                raise

    async def mount(self, key: str, target: Path, *, volatile: bool = False) -> None:
        """Mount a snapshot; see the contract.

        Raises:
            NotFound: No such key, or a layer below it is missing.
            Conflict: It is mounted somewhere else.
        If cancelled: it is mounted or not.
        """
        async with self._alone("snapshot", key):
            snapshot = self._snapshot(key)
            self._chain(snapshot.parent)
            await _in_thread(self._mount, snapshot, target, volatile)

    def _mount(self, snapshot: SnapshotRecord, target: Path, volatile: bool) -> None:
        mounted_at = self._mounts.get(snapshot.key)
        if mounted_at is not None and is_mount_point(mounted_at):
            if mounted_at == Path(os.path.realpath(target)):
                return
            raise Conflict(
                f"snapshot '{snapshot.key}' is mounted at {mounted_at}",
                code="snapshot_mounted",
                details={"target": str(mounted_at)},
            )
        target.mkdir(parents=True, exist_ok=True)
        target = Path(os.path.realpath(target))
        mount_overlay(
            target,
            self._store.lowers(snapshot.parent) or [self._store.empty],
            upper=self._store.upper(snapshot),
            work=self._store.work(snapshot),
            volatile=volatile,
        )
        self._mounts[snapshot.key] = target

    async def unmount(self, key: str) -> None:
        """Unmount it wherever it is; silent if it is not mounted or not there.

        If cancelled: it is unmounted.
        """
        with trio.CancelScope(shield=True):
            async with self._alone("snapshot", key):
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
        async with self._alone("snapshot", key):
            snapshot = self._snapshot(key)
            if snapshot.parent not in ("", parent):
                raise InvalidArgument(
                    f"snapshot '{key}' stands on {snapshot.parent}, not on {parent or 'nothing'}"
                )
            self._chain(parent)
            if keep:
                return await self._copy(snapshot, parent, ignore)
            return await self._commit(snapshot, parent)

    async def _copy(self, snapshot: SnapshotRecord, parent: str, ignore: Collection[str]) -> Layer:
        """Make a layer that is like a snapshot's own content; one child packs, another unpacks."""
        ref = f"copy-{self._store.new_id()}"
        staging = self._staging[ref] = _Staging(self._store.new_id())
        try:
            async with self._packers:
                folder = await _in_thread(self._store.make_staging, staging.id)
                packing = {
                    "folder": str(self._store.upper(snapshot)),
                    "lowers": [str(path) for path in self._store.lowers(snapshot.parent)],
                    "ignore": list(ignore),
                }
                unpacking = self._unpack_task(ApplyRequest(ref=ref), folder)
                result = await self._pack_and_unpack(packing, unpacking)
        except BaseException:
            del self._staging[ref]
            with trio.CancelScope(shield=True):
                await self._drop_staging(staging)
            raise
        self._applied(staging, ref, result)
        diff_id = result["diff_id"]
        name = chain_ids([parent, diff_id])[1] if parent else diff_id
        return await self.commit_applied(ref, name=name, parent=parent)

    async def _pack_and_unpack(
        self, packing: Mapping[str, Any], unpacking: Mapping[str, Any]
    ) -> dict[str, Any]:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        ends = [reading, writing]
        try:
            async with self._jobs.job("unpack", unpacking, [reading]) as unpacker:
                os.close(ends.pop(0))
                async with self._jobs.job("pack", packing, [writing]) as packer:
                    os.close(ends.pop(0))
                    packed = await packer.answer()
                    result = await unpacker.answer()
        finally:
            for fd in ends:
                os.close(fd)
        if isinstance(result, LinkspanError):
            raise result
        if isinstance(packed, LinkspanError):
            raise packed
        return dict(result)

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
        with trio.CancelScope(shield=True), self._pin(parent):
            layer = await self._adopt(snapshot, parent, name, diff_id, measured["size_bytes"])
        return layer

    async def _adopt(
        self, snapshot: SnapshotRecord, parent: str, name: str, diff_id: str, size_bytes: int
    ) -> Layer:
        known = self._store.layers.get(name)
        if known is not None:
            await self._drop_snapshot(snapshot)
            return _layer(known)
        folder_id = self._store.new_id()
        await _in_thread(self._store.adopt_upper, snapshot, folder_id)
        del self._store.snapshots[snapshot.key]
        self._trash_filled.stir()
        return await self._add_layer(
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
        async with self._alone("snapshot", key):
            snapshot = self._store.snapshots.get(key)
            if snapshot is None:
                return
            with trio.CancelScope(shield=True):
                await self._unmount(key)
                await self._drop_snapshot(snapshot)

    async def _drop_snapshot(self, snapshot: SnapshotRecord) -> None:
        self._store.snapshots.pop(snapshot.key, None)
        await _in_thread(self._store.drop_snapshot, snapshot)
        self._trash_filled.stir()

    async def changes(self, key: str, *, ignore: Collection[str] = ()) -> list[Change]:
        """What a snapshot has that its layer has not, by path.

        Raises:
            NotFound: No such key.
        """
        snapshot = self._snapshot(key)
        upper = str(self._store.upper(snapshot))
        async with self._lower_tree(snapshot.parent) as lower:
            task = {"folder": upper, "lower": str(lower), "ignore": list(ignore)}
            found = await self._jobs.run("compare", task)
        return [Change(path=path, kind=kind) for path, kind in found]

    async def usage(self, key: str) -> int:
        """Bytes of a snapshot's own content.

        Raises:
            NotFound: No such key.
        """
        folder = self._store.upper(self._snapshot(key))
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

    # Reading layers

    def view(self, name: str) -> AbstractAsyncContextManager[Path]:
        """A layer with all its parents as a read-only folder; see the contract.

        Raises:
            NotFound: No such layer.
        """
        return self._view(name)

    @asynccontextmanager
    async def _view(self, name: str) -> AsyncIterator[Path]:
        self._top(name)
        with self._pin(name):
            async with self._alone("view", name):
                view = self._views.get(name)
                if view is None:
                    target = self._views_dir / self._store.new_id()
                    await _in_thread(self._mount_view, name, target)
                    view = self._views[name] = _View(target)
                view.users += 1
            try:
                yield view.target
            finally:
                view.users -= 1
                if not view.users:
                    del self._views[name]
                    with trio.CancelScope(shield=True):
                        await _in_thread(_unmount_view, view.target)

    def _mount_view(self, name: str, target: Path) -> None:
        target.mkdir(parents=True)
        mount_overlay(target, [self._store.empty, *self._store.lowers(name)])

    def export(self, name: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The layer's own tar; see the contract.

        Raises:
            NotFound: No such layer.
            DataLoss: At the end of the stream: these bytes have another digest than the layer's diff id.
                A layer that was pulled was packed by another program: send its stored blob instead.
        """
        return self._export(name)

    @asynccontextmanager
    async def _export(self, name: str) -> AsyncIterator[AsyncIterator[bytes]]:
        layer = self._top(name)
        reading, writing = pipe_from_child()
        ends = [reading, writing]
        try:
            with self._pin(name):
                task = {"folder": str(self._store.diff(layer))}
                async with self._jobs.job("export", task, [writing]) as job:
                    os.close(writing)
                    ends.remove(writing)
                    yield _Export(reading, job, layer)
        finally:
            for fd in ends:
                os.close(fd)

    async def compress(self, name: str, target: Path) -> tuple[str, int]:
        """Write the layer's tar, gzipped, to a new file; see the contract.

        Raises:
            NotFound: No such layer.
            DataLoss: As in ``export``; the file is gone.
            OutOfSpace: The disk is full; the file is gone.
        If cancelled: the file is gone.
        """
        layer = self._top(name)
        task = {"folder": str(self._store.diff(layer)), "target": str(target)}
        try:
            with self._pin(name):
                async with self._packers:
                    result = await self._jobs.run("compress", task)
            _check_diff_id(layer, result["diff_id"])
        except BaseException:
            with trio.CancelScope(shield=True):
                await trio.Path(target).unlink(missing_ok=True)
            raise
        return result["digest"], result["size_bytes"]

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
        return await _in_thread(self._store.age_s, record) >= self._config.grace_s

    def _depth(self, layer: LayerRecord) -> int:
        depth = 0
        below: LayerRecord | None = layer
        while below is not None:
            depth += 1
            below = self._store.layers.get(below.parent)
        return depth

    def _is_unpacking(self) -> bool:
        return bool(self._unpackers.borrowed_tokens)

    def _must_not_remove(self) -> bool:
        """Making thousands of files and removing thousands at the same time takes longer than both."""
        if not self._is_unpacking():
            return False
        disk = os.statvfs(self._store.root)
        return disk.f_bavail >= _LEAST_FREE * disk.f_blocks

    async def _empty_trash(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        with trio.CancelScope() as scope:
            self._tasks.append(scope)
            task_status.started()
            while True:
                await self._trash_filled.wait()
                folders = [str(path) for path in await _in_thread(self._store.trash)]
                if not folders:
                    continue
                if len(folders) > _REMOVED_AT_ONCE:
                    del folders[_REMOVED_AT_ONCE:]
                    self._trash_filled.stir()
                # Where unpacking has gone on for so long that it did not wait, it does not give way either.
                removal = trio.CancelScope()
                self._removal = trio.CancelScope() if self._is_unpacking() else removal
                try:
                    with removal:
                        await self._jobs.run("remove", {"folders": folders})
                    if removal.cancelled_caught:
                        self._trash_filled.stir()
                except LinkspanError as error:
                    if scope.cancel_called:
                        # The helper process has ended with the driver; the next start goes on.
                        return
                    _log.warning("removing files failed", extra={"error": str(error)})
                    await trio.sleep(_RETRY_DELAY_S)
                    self._trash_filled.stir()

    async def _sync_layers(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        with trio.CancelScope() as scope:
            self._tasks.append(scope)
            task_status.started()
            while True:
                await self._layer_made.wait()
                await _in_thread(self._store.sync)

    def _learn_mounts(self) -> None:
        keys = {str(self._store.upper(s)): key for key, s in self._store.snapshots.items()}
        for overlay in mounted_overlays():
            key = keys.get(overlay.upper)
            if key is not None:
                self._mounts[key] = overlay.target

    def _unmount_old_views(self) -> None:
        in_use = {view.target for view in self._views.values()}
        for overlay in reversed(mounted_overlays()):
            if overlay.target.parent == self._views_dir and overlay.target not in in_use:
                _unmount_view(overlay.target)

    # Looking up

    def _chain(self, name: str) -> None:
        """Raises NotFound if a layer, or one below it, is missing."""
        if self._store.chain(name) is None:
            raise _no_layer(name)

    def _top(self, name: str) -> LayerRecord:
        chain = self._store.chain(name)
        if not chain:
            raise _no_layer(name)
        return chain[0]

    def _snapshot(self, key: str) -> SnapshotRecord:
        snapshot = self._store.snapshots.get(key)
        if snapshot is None:
            raise NotFound(
                f"no such snapshot: {key}", code="snapshot_not_found", details={"key": key}
            )
        return snapshot

    @asynccontextmanager
    async def _lower_tree(self, parent: str) -> AsyncIterator[Path]:
        if not parent:
            yield self._store.empty
            return
        async with self.view(parent) as lower:
            yield lower

    @contextlib.contextmanager
    def _pin(self, name: str) -> Iterator[None]:
        """Keep a layer from being removed."""
        self._pinned[name] += 1
        try:
            yield
        finally:
            self._pinned[name] -= 1
            if not self._pinned[name]:
                del self._pinned[name]

    @asynccontextmanager
    async def _alone(self, kind: str, name: str) -> AsyncIterator[None]:
        lock = self._locks.setdefault((kind, name), trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked() and not lock.statistics().tasks_waiting:
                self._locks.pop((kind, name), None)


class _Export:
    """The bytes of a layer's tar as a child writes them."""

    def __init__(self, reading: int, job: Job, layer: LayerRecord) -> None:
        self._reading = reading
        self._job = job
        self._layer = layer

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.wait_readable(self._reading)
        data = os.read(self._reading, _PIECE_BYTES)
        if not data:
            _check_diff_id(self._layer, (await self._job.result())["diff_id"])
            raise StopAsyncIteration
        return data


async def _in_thread(work: Callable[..., T], *arguments: Any) -> T:
    try:
        return await trio.to_thread.run_sync(work, *arguments)
    except OSError as error:
        raise from_os_error(error) from error


def _check_machine(state_dir: Path) -> None:
    if os.geteuid() != 0:
        raise NotUsable("overlay snapshots need root", help="run the daemon with sudo")
    if set(str(state_dir)) & set(",:\\"):
        raise NotUsable(f"overlayfs cannot have a folder named {state_dir}")
    if "\toverlay\n" not in Path("/proc/filesystems").read_text():
        raise NotUsable("this kernel has no overlayfs", help="modprobe overlay")
    reason = check_usable(state_dir / "probe")
    if reason:
        raise NotUsable(reason, help="put data-root on a disk with ext4, xfs or btrfs")


def _unmount_view(target: Path) -> None:
    unmount(target)
    with contextlib.suppress(OSError):
        target.rmdir()


def _check_diff_id(layer: LayerRecord, found: str) -> None:
    if found != layer.diff_id:
        raise DataLoss(
            f"the layer {layer.diff_id} cannot be packed again as it was: that gives {found}",
            code="diff_id_mismatch",
            details={"expected": layer.diff_id, "found": found},
            help="it was pulled, and packed by another program; pull it again to have its blob",
        )


def _layer(record: LayerRecord) -> Layer:
    return Layer(
        name=record.name,
        parent=record.parent,
        diff_id=record.diff_id,
        size_bytes=record.size_bytes,
    )


def _no_layer(name: str) -> NotFound:
    return NotFound(f"no such layer: {name}", code="layer_not_found", details={"layer": name})
