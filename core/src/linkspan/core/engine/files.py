"""Files of containers, running or not: look, copy in and out, export, differences."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from linkspan.core.engine.drivers import Drivers
from linkspan.core.engine.entry import Entry, refuse_if_removing
from linkspan.core.engine.lifecycle import Lifecycle
from linkspan.sdk.drivers.runtime import BundleMount
from linkspan.sdk.errors import NotFound
from linkspan.sdk.model.container import Container
from linkspan.sdk.model.files import Change, PathStat, Tree, TreeMount

MOUNT_POINTS = (
    "/.dockerenv",
    "/dev",
    "/dev/console",
    "/dev/mqueue",
    "/dev/pts",
    "/dev/shm",  # noqa: S108 - a path in the container
    "/etc/hostname",
    "/etc/hosts",
    "/etc/mtab",
    "/etc/resolv.conf",
    "/proc",
    "/run/secrets",
    "/sys",
)
"""What is made in every root; nobody's change, and no image's content."""


class ContainerFiles:
    """What ``docker cp``, ``export`` and ``diff`` ask for."""

    def __init__(self, drivers: Drivers, lifecycle: Lifecycle) -> None:
        self._drivers = drivers
        self._life = lifecycle

    async def stat(self, entry: Entry, ref: str, path: str) -> PathStat:
        """What a path is. Raises NotFound."""
        async with self._tree(entry) as tree:
            try:
                return await self._drivers.snapshots.stat_path(tree, path)
            except NotFound as error:
                raise _not_there(error, ref, path) from error

    @asynccontextmanager
    async def read(
        self, entry: Entry, ref: str, path: str
    ) -> AsyncIterator[tuple[PathStat, AsyncIterator[bytes]]]:
        """A path as a tar. Raises NotFound."""
        async with self._tree(entry) as tree:
            opened = self._drivers.snapshots.read_path(tree, path)
            async with _named(opened, ref, path) as found:
                self._life.tell("archive-path", entry.container)
                yield found

    async def write(
        self,
        entry: Entry,
        ref: str,
        path: str,
        source: AsyncIterator[bytes],
        *,
        keep_kind: bool,
        copy_owner: bool,
    ) -> None:
        """Unpack a tar into a folder."""
        async with self._tree(entry) as tree:
            try:
                await self._drivers.snapshots.write_path(
                    tree,
                    path,
                    source,
                    keep_kind=keep_kind,
                    owner=entry.container.user if copy_owner else "",
                )
            except NotFound as error:
                raise _not_there(error, ref, path) from error
        self._life.tell("extract-to-dir", entry.container)

    async def remove(
        self, entry: Entry, ref: str, path: str, names: Sequence[str]
    ) -> Sequence[str]:
        """Remove files and empty folders below a folder; what stays."""
        async with self._tree(entry) as tree:
            try:
                return await self._drivers.snapshots.remove_paths(tree, path, names)
            except NotFound as error:
                raise _not_there(error, ref, path) from error

    @asynccontextmanager
    async def export(self, entry: Entry) -> AsyncIterator[AsyncIterator[bytes]]:
        """The whole root, without what is mounted in it."""
        async with self._mounted(entry, volumes=False):
            tree = Tree(folder=self._life.mounts.rootfs(entry.container.id))
            async with self._drivers.snapshots.read_path(tree, "") as (_, archive):
                self._life.tell("export", entry.container)
                yield archive

    async def changes(self, entry: Entry) -> Sequence[Change]:
        """What differs from the image."""
        return await self._drivers.snapshots.changes(entry.container.id, ignore=MOUNT_POINTS)

    @asynccontextmanager
    async def _tree(self, entry: Entry) -> AsyncIterator[Tree]:
        async with self._mounted(entry, volumes=True) as mounts:
            container = entry.container
            yield Tree(
                folder=self._life.mounts.rootfs(container.id),
                pid=container.state.pid,
                mounts=_tree_mounts(container, mounts),
                read_only=container.spec.read_only,
            )

    @asynccontextmanager
    async def _mounted(
        self, entry: Entry, *, volumes: bool
    ) -> AsyncIterator[tuple[BundleMount, ...]]:
        """Have the root mounted, as long as somebody looks; what runs has it mounted anyway."""
        mounts: tuple[BundleMount, ...] = ()
        async with entry.lock:
            refuse_if_removing(entry)
            entry.readers += 1
            container = entry.container
            try:
                if not container.state.running:
                    await self._drivers.snapshots.mount(
                        container.id, self._life.mounts.rootfs(container.id)
                    )
                    if volumes:
                        mounts = await self._life.mounts.mount(container)
            except BaseException:
                await self._left(entry)
                raise
        try:
            yield mounts
        finally:
            with trio.CancelScope(shield=True):
                async with entry.lock:
                    await self._left(entry)

    async def _left(self, entry: Entry) -> None:
        entry.readers -= 1
        if not entry.removed.is_set():
            await self._life.release(entry)


def _tree_mounts(container: Container, prepared: Sequence[BundleMount]) -> tuple[TreeMount, ...]:
    """Volumes and binds, and for a running container its tmpfs and the files of its network."""
    sources = {mount.destination: mount.source for mount in prepared if mount.type == "bind"}
    found = [
        TreeMount(
            destination=point.destination,
            source=sources.get(point.destination, ""),
            read_only=point.read_only,
        )
        for point in container.mounts
    ]
    found += [TreeMount(destination=path) for path in container.files]
    return tuple(found)


def _not_there(error: NotFound, ref: str, path: str) -> NotFound:
    """Docker's words, which clients look for."""
    if error.code != "path_not_found":
        return error
    return NotFound(
        f"Could not find the file {path} in container {ref}",
        code=error.code,
        details={"container": ref, "path": path},
    )


@asynccontextmanager
async def _named(
    opened: AbstractAsyncContextManager[tuple[PathStat, AsyncIterator[bytes]]], ref: str, path: str
) -> AsyncIterator[tuple[PathStat, AsyncIterator[bytes]]]:
    try:
        found = await opened.__aenter__()
    except NotFound as error:
        raise _not_there(error, ref, path) from error
    try:
        yield found
    except BaseException as error:
        if not await opened.__aexit__(type(error), error, error.__traceback__):
            raise
    else:
        await opened.__aexit__(None, None, None)
