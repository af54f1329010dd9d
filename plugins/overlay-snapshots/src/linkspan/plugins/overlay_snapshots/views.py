"""Layers as read-only folders, for as long as somebody looks."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from linkspan.plugins.overlay_snapshots.holds import Holds
from linkspan.plugins.overlay_snapshots.overlay_mount import (
    mount_overlay,
    mounted_overlays,
    unmount,
)
from linkspan.plugins.overlay_snapshots.store import Store
from linkspan.plugins.overlay_snapshots.threads import in_thread


@attrs.define
class _View:
    target: Path
    users: int = 0


class Views:
    """Mounts of layers; one that several look at is mounted once."""

    def __init__(self, store: Store, holds: Holds, folder: Path) -> None:
        self._store = store
        self._holds = holds
        self._folder = folder
        self._views: dict[str, _View] = {}

    @asynccontextmanager
    async def view(self, name: str) -> AsyncIterator[Path]:
        """A layer with all its parents. Raises NotFound."""
        self._store.top(name)
        with self._holds.pin(name):
            async with self._holds.alone("view", name):
                view = self._views.get(name)
                if view is None:
                    target = self._folder / self._store.new_id()
                    await in_thread(self._mount, name, target)
                    view = self._views[name] = _View(target)
                view.users += 1
            try:
                yield view.target
            finally:
                view.users -= 1
                if not view.users:
                    del self._views[name]
                    with trio.CancelScope(shield=True):
                        await in_thread(_unmount_view, view.target)

    @asynccontextmanager
    async def below(self, parent: str) -> AsyncIterator[Path]:
        """What a snapshot on a layer, or on nothing, stands on."""
        if not parent:
            yield self._store.empty
            return
        async with self.view(parent) as lower:
            yield lower

    def _mount(self, name: str, target: Path) -> None:
        target.mkdir(parents=True)
        mount_overlay(target, [self._store.empty, *self._store.lowers(name)])

    def unmount_old(self) -> None:
        """Unmount those of a former daemon. Blocks."""
        in_use = {view.target for view in self._views.values()}
        for overlay in reversed(mounted_overlays()):
            if overlay.target.parent == self._folder and overlay.target not in in_use:
                _unmount_view(overlay.target)


def _unmount_view(target: Path) -> None:
    unmount(target)
    with contextlib.suppress(OSError):
        target.rmdir()
