"""What goes on in the background: thrown away folders are removed, layers are written to the disk itself."""

import logging
import os
from collections.abc import Callable
from typing import Any, Final

import trio

from linkspan.plugins.overlay_snapshots.jobs_client import JobServer
from linkspan.plugins.overlay_snapshots.store import Store
from linkspan.plugins.overlay_snapshots.threads import in_thread
from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.host import Host
from linkspan.sdk.lull import Lull

_log = logging.getLogger(__name__)

_LEAST_FREE: Final = 0.1
"""With less of the disk free, what is removed is removed at once."""
_REMOVED_AT_ONCE: Final = 16
_RETRY_DELAY_S: Final = 10.0


class Upkeep:
    """Two tasks; both wait for a lull.

    Args:
        is_unpacking: Whether a layer is being unpacked now.
    """

    def __init__(self, store: Store, jobs: JobServer, is_unpacking: Callable[[], bool]) -> None:
        self._store = store
        self._jobs = jobs
        self._is_unpacking = is_unpacking
        self._tasks: list[trio.CancelScope] = []
        self._removal = trio.CancelScope()
        self.trash_filled = Lull(self._must_not_remove, pause_s=0.1, latest_s=10.0)
        # A pull is answered before its layers are written to the disk itself.
        self.layer_made = Lull(is_unpacking)

    async def start(self, host: Host) -> None:
        """Begin."""
        await host.start_task(self._empty_trash, name="snapshots: empty trash")
        await host.start_task(self._sync_layers, name="snapshots: sync layers")
        self.trash_filled.stir()

    def end(self) -> None:
        """End: they need the helper process, which is about to end."""
        for scope in self._tasks:
            scope.cancel()

    def make_way(self) -> None:
        """Unpacking begins: what is being removed waits, unless the disk is full."""
        if self._must_not_remove():
            self._removal.cancel()

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
                await self.trash_filled.wait()
                folders = [str(path) for path in await in_thread(self._store.trash)]
                if not folders:
                    continue
                if len(folders) > _REMOVED_AT_ONCE:
                    del folders[_REMOVED_AT_ONCE:]
                    self.trash_filled.stir()
                # Where unpacking has gone on for so long that it did not wait, it does not give way either.
                removal = trio.CancelScope()
                self._removal = trio.CancelScope() if self._is_unpacking() else removal
                try:
                    with removal:
                        await self._jobs.run("remove", {"folders": folders})
                    if removal.cancelled_caught:
                        self.trash_filled.stir()
                except LinkspanError as error:
                    if scope.cancel_called:
                        # The helper process has ended with the driver; the next start goes on.
                        return
                    _log.warning("removing files failed", extra={"error": str(error)})
                    await trio.sleep(_RETRY_DELAY_S)
                    self.trash_filled.stir()

    async def _sync_layers(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        with trio.CancelScope() as scope:
            self._tasks.append(scope)
            task_status.started()
            while True:
                await self.layer_made.wait()
                await in_thread(self._store.sync)
