"""From tars to layers: unpacked into a staging area, then named."""

import os
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import Any

import attrs
import trio

from linkspan.plugins.overlay_snapshots.config import OverlaySnapshotsConfig
from linkspan.plugins.overlay_snapshots.holds import Holds
from linkspan.plugins.overlay_snapshots.jobs_client import JobServer
from linkspan.plugins.overlay_snapshots.store import LayerRecord, SnapshotRecord, Store, layer_of
from linkspan.plugins.overlay_snapshots.threads import in_thread
from linkspan.plugins.overlay_snapshots.upkeep import Upkeep
from linkspan.plugins.overlay_snapshots.views import Views
from linkspan.sdk.drivers.snapshots import Applied, ApplyRequest, Layer
from linkspan.sdk.errors import Conflict, LinkspanError, NotFound
from linkspan.sdk.image_config import chain_ids


@attrs.define
class _Staging:
    id: str
    applied: Applied | None = None
    settle: bool = False


class Applying:
    """Makes layers of tars; the methods are those of the contract.

    Args:
        unpackers, packers: How many children unpack and pack at a time.
    """

    def __init__(
        self,
        config: OverlaySnapshotsConfig,
        store: Store,
        holds: Holds,
        views: Views,
        jobs: JobServer,
        upkeep: Upkeep,
        *,
        unpackers: trio.CapacityLimiter,
        packers: trio.CapacityLimiter,
    ) -> None:
        self._config = config
        self._store = store
        self._holds = holds
        self._views = views
        self._jobs = jobs
        self._upkeep = upkeep
        self._unpackers = unpackers
        self._packers = packers
        self._staging: dict[str, _Staging] = {}

    async def apply(self, request: ApplyRequest, source: AsyncIterator[bytes]) -> Applied:
        """Unpack a tar in a chrooted child; see the contract."""
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
                self._upkeep.make_way()
                folder = await in_thread(self._store.make_staging, staging.id)
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
        """Name an applied layer; see the contract."""
        if name in self._store.layers:
            await self.discard(ref)
            return layer_of(self._store.layers[name])
        staging = self._staging.get(ref)
        if staging is None or staging.applied is None:
            raise NotFound(
                f"no layer is unpacked as '{ref}'", code="staging_not_found", details={"ref": ref}
            )
        self._store.require(parent)
        del self._staging[ref]
        try:
            with self._holds.pin(parent):
                if staging.settle:
                    await self._settle(staging, parent)
                return await self.add_layer(
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
        async with self._views.below(parent) as lower:
            await self._jobs.run("settle", {"folder": folder, "lower": str(lower)})

    async def add_layer(self, record: LayerRecord) -> Layer:
        """Make a staging area a layer, unless another task was faster."""
        await in_thread(self._store.finish_layer, record)
        known = self._store.layers.setdefault(record.name, record)
        if known is not record:
            await in_thread(self._store.drop_layer, record)
            self._upkeep.trash_filled.stir()
        self._upkeep.layer_made.stir()
        return layer_of(known)

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
        await in_thread(self._store.drop_staging, staging.id)
        self._upkeep.trash_filled.stir()

    async def copy(self, snapshot: SnapshotRecord, parent: str, ignore: Collection[str]) -> Layer:
        """Make a layer that is like a snapshot's own content; one child packs, another unpacks."""
        ref = f"copy-{self._store.new_id()}"
        staging = self._staging[ref] = _Staging(self._store.new_id())
        try:
            async with self._packers:
                folder = await in_thread(self._store.make_staging, staging.id)
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
