"""Layers as tars again, as they are or packed."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self

import trio

from linkspan.plugins.overlay_snapshots.holds import Holds
from linkspan.plugins.overlay_snapshots.jobs_client import Job, JobServer, pipe_from_child
from linkspan.plugins.overlay_snapshots.store import LayerRecord, Store
from linkspan.sdk.errors import DataLoss

_PIECE_BYTES: Final = 1 << 20


class Packing:
    """Packs layers; the methods are those of the contract.

    Args:
        packers: How many children pack at a time.
    """

    def __init__(
        self, store: Store, holds: Holds, jobs: JobServer, packers: trio.CapacityLimiter
    ) -> None:
        self._store = store
        self._holds = holds
        self._jobs = jobs
        self._packers = packers

    @asynccontextmanager
    async def export(self, name: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The layer's own tar."""
        layer = self._store.top(name)
        reading, writing = pipe_from_child()
        ends = [reading, writing]
        try:
            with self._holds.pin(name):
                task = {"folder": str(self._store.diff(layer))}
                async with self._jobs.job("export", task, [writing]) as job:
                    os.close(writing)
                    ends.remove(writing)
                    yield _Export(reading, job, layer)
        finally:
            for fd in ends:
                os.close(fd)

    async def compress(self, name: str, target: Path) -> tuple[str, int]:
        """Write the layer's tar, gzipped, to a new file; return its digest and size."""
        layer = self._store.top(name)
        task = {"folder": str(self._store.diff(layer)), "target": str(target)}
        try:
            with self._holds.pin(name):
                async with self._packers:
                    result = await self._jobs.run("compress", task)
            _check_diff_id(layer, result["diff_id"])
        except BaseException:
            with trio.CancelScope(shield=True):
                await trio.Path(target).unlink(missing_ok=True)
            raise
        return result["digest"], result["size_bytes"]


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


def _check_diff_id(layer: LayerRecord, found: str) -> None:
    if found != layer.diff_id:
        raise DataLoss(
            f"the layer {layer.diff_id} cannot be packed again as it was: that gives {found}",
            code="diff_id_mismatch",
            details={"expected": layer.diff_id, "found": found},
            help="it was pulled, and packed by another program; pull it again to have its blob",
        )
