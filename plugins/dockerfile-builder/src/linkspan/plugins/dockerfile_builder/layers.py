"""Makes layers: a writable snapshot, some work in it, a commit; or the same out of the cache."""

import contextlib
import functools
import os
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import attrs
import trio

from linkspan.plugins.dockerfile_builder.cache import StepCache, StepRecord, step_key
from linkspan.plugins.dockerfile_builder.cache_sources import CacheSources
from linkspan.plugins.dockerfile_builder.secret_files import remove_secrets
from linkspan.sdk.clock import rfc3339
from linkspan.sdk.drivers.snapshots import Layer, Snapshots
from linkspan.sdk.errors import Conflict, NotFound, OutOfSpace
from linkspan.sdk.files import is_full
from linkspan.sdk.host import Host

if TYPE_CHECKING:
    from linkspan.plugins.dockerfile_builder.target import Target
    from linkspan.plugins.dockerfile_builder.tree import Tree

T = TypeVar("T")

_MOST_CONFIGS: Final = 4096


async def in_thread(function: Callable[..., T], *args: object, **named: object) -> T:
    """Run blocking file work in a worker thread; it looks for cancellation itself.

    Raises:
        OutOfSpace: The disk is full.
    """
    try:
        return await trio.to_thread.run_sync(functools.partial(function, *args, **named))
    except OSError as error:
        if is_full(error):
            raise OutOfSpace(
                "no space left on the disk while building",
                help="remove images with linkspan rmi, or empty the build cache: docker builder prune",
            ) from error
        raise


@contextlib.contextmanager
def bare_errors() -> Iterator[None]:
    """The first error of a group of tasks as it is: the others are but its consequence."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from error.__cause__


class LayerMaker:
    """Lent to all builds of one driver.

    Args:
        limiter: How many steps may work at once.
    """

    def __init__(self, host: Host, cache: StepCache, limiter: trio.CapacityLimiter) -> None:
        self._host = host
        self.cache = cache
        self._limiter = limiter
        self._running: dict[str, trio.Event] = {}
        self._snapshots_in_use: set[str] = set()
        self._leases: list[set[str]] = []
        self._configs: dict[str, None] = {}

    @property
    def snapshots(self) -> Snapshots[object]:
        """The chosen driver."""
        driver: Snapshots[object] = self._host.driver("snapshots")
        return driver

    @property
    def in_use(self) -> frozenset[str]:
        """Keys of the snapshots that steps write to now, and layers that running builds hold."""
        return frozenset(self._snapshots_in_use).union(*self._leases)

    def seen_again(self, image_id: str) -> bool:
        """Whether a step that only changes the config has given this image since the daemon began.

        Nothing is saved by knowing it: people see that the step is the one of the last build.
        """
        again = image_id in self._configs
        self._configs.pop(image_id, None)
        self._configs[image_id] = None
        if len(self._configs) > _MOST_CONFIGS:
            del self._configs[next(iter(self._configs))]
        return again

    @contextlib.contextmanager
    def lease(self) -> Iterator[set[str]]:
        """A set for a build to name its layers in: ``prune`` leaves them alone meanwhile."""
        names: set[str] = set()
        self._leases.append(names)
        try:
            yield names
        finally:
            # By identity: equal sets are not the same lease.
            self._leases = [lease for lease in self._leases if lease is not names]

    async def lookup(self, key: str) -> StepRecord | None:
        """A remembered step whose layer is still there."""
        record = self.cache.get(key)
        if record is None:
            return None
        if not record.layer:
            self.cache.mark_used(key)
            return record
        try:
            await self.snapshots.stat(record.layer)
        except NotFound:
            await in_thread(self.cache.forget, [key])
            return None
        self.cache.mark_used(key)
        return record

    async def once(
        self,
        key: str,
        make: Callable[[], Awaitable[StepRecord]],
        *,
        use_cache: bool,
        sources: CacheSources,
        step: str,
    ) -> tuple[StepRecord, bool]:
        """The step's result, and whether it came from the cache.

        ``step`` tells people what it is. The same step in two builds runs once; the second waits, and
        makes it itself should the first fail or be cancelled.
        """
        refused = None
        while use_cache:
            record = await self.lookup(key)
            if record is not None and not sources.has(record):
                refused, record = record, await self._lookup_other(key, sources)
            if record is not None:
                return record, True
            if refused is not None:
                break
            running = self._running.get(key)
            if running is None:
                break
            await running.wait()
        done = trio.Event()
        self._running[key] = done
        try:
            async with self._limiter:
                record = attrs.evolve(await make(), step=step, made_at=time.time())
            await self.remember(key, record)
            if refused is not None:
                await self.remember(_other(key, refused.layer), refused)
        finally:
            if self._running.get(key) is done:
                del self._running[key]
            done.set()
        return record, False

    async def _lookup_other(self, key: str, sources: CacheSources) -> StepRecord | None:
        """A result that a later one has taken the place of, and that may be taken."""
        for layer in sources.layers():
            record = await self.lookup(_other(key, layer))
            if record is not None:
                return record
        return None

    async def remember(self, key: str, record: StepRecord) -> None:
        """Put a result into the cache."""
        await in_thread(self.cache.put, key, record)

    @contextlib.asynccontextmanager
    async def snapshot(self, parent: str) -> AsyncIterator[str]:
        """A writable snapshot; gone afterwards unless it was committed."""
        key = f"build-{uuid.uuid4().hex[:24]}"
        note = self._notes / key
        self._snapshots_in_use.add(key)
        # Found by `recover` should the daemon die before the end.
        await in_thread(_touch, note)
        try:
            await self.snapshots.prepare(key, parent)
            yield key
        finally:
            with trio.CancelScope(shield=True):
                await self.snapshots.remove(key)
                await in_thread(note.unlink)
            self._snapshots_in_use.discard(key)

    async def recover(self) -> None:
        """Remove the snapshots and mount points of steps that a crash cut off."""
        for name in await in_thread(_names, self._secrets):
            await in_thread(remove_secrets, self._secrets / name)
        for key in await in_thread(_names, self._notes):
            await self.snapshots.remove(key)
            await in_thread((self._notes / key).unlink)
        for name in await in_thread(_names, self._mounts):
            with contextlib.suppress(OSError):
                await in_thread((self._mounts / name).rmdir)

    @property
    def _notes(self) -> Path:
        return self._host.state_dir / "in-work"

    @property
    def _secrets(self) -> Path:
        return self._host.run_dir / "secrets"

    @property
    def _mounts(self) -> Path:
        return self._host.run_dir / "mnt"

    async def commit(self, key: str, parent: str) -> StepRecord:
        """Make a snapshot a layer."""
        layer: Layer = await self.snapshots.commit(key, parent=parent)
        return StepRecord(
            layer=layer.name,
            diff_id=layer.diff_id,
            size_bytes=layer.size_bytes,
            created=rfc3339(),
            parent=parent,
        )

    async def write(
        self, parent: str, work: "Callable[[Target], None]", *, apart: bool = False
    ) -> StepRecord:
        """A layer of what ``work`` writes; no layer if it changes nothing.

        Args:
            parent: The layer below.
            work: Blocking; runs in a worker thread.
            apart: Write onto an empty root instead (``--link``).
        """
        async with self.snapshot("" if apart else parent) as key:
            async with self._mounted(key) as folder:
                changed = await in_thread(_work, folder, work)
            if not changed:
                return StepRecord(created=rfc3339())
            return await self.commit(key, parent)

    @contextlib.asynccontextmanager
    async def scratch_root(self, parent: str) -> AsyncIterator[Path]:
        """A mounted root on a layer (or on nothing) that is thrown away afterwards."""
        async with self.snapshot(parent) as key, self._mounted(key) as folder:
            yield folder

    def new_secret_folder(self) -> Path:
        """A place for the secrets of one step; ``recover`` finds it."""
        return self._secrets / uuid.uuid4().hex[:24]

    @contextlib.asynccontextmanager
    async def _mounted(self, key: str) -> AsyncIterator[Path]:
        folder = self._mounts / key
        await self.snapshots.mount(key, folder, volatile=True)
        try:
            yield folder
        finally:
            with trio.CancelScope(shield=True):
                await self.snapshots.unmount(key)
                with contextlib.suppress(OSError):
                    await in_thread(os.rmdir, folder)

    @contextlib.asynccontextmanager
    async def root(self, top: str) -> AsyncIterator[Path]:
        """A stage's file system as a folder, read only; an empty name is an empty one."""
        lent = self.snapshots.view(top) if top else self.scratch_root("")
        async with lent as folder:
            yield folder

    @contextlib.asynccontextmanager
    async def tree(self, top: str) -> "AsyncIterator[Tree]":
        """A stage's or image's file system to read from; an empty name is an empty one."""
        from linkspan.plugins.dockerfile_builder.tree import EmptyTree, FolderTree

        if not top:
            yield EmptyTree()
            return
        async with self.snapshots.view(top) as folder:
            tree = await in_thread(FolderTree, folder)
            try:
                yield tree
            finally:
                tree.close()

    async def remove_layer(self, name: str) -> bool:
        """Remove a layer; False if something stands on it."""
        try:
            await self.snapshots.remove_layer(name)
        except Conflict:
            return False
        except NotFound:
            return True
        return True


def _other(key: str, layer: str) -> str:
    """The key of a step's result when a later one has its own."""
    return step_key(op="other", key=key, layer=layer)


def _touch(path: Path) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.touch()


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []


def _work(folder: Path, work: "Callable[[Target], None]") -> bool:
    from linkspan.plugins.dockerfile_builder.target import Target

    target = Target(folder, trio.from_thread.check_cancelled)
    try:
        work(target)
    finally:
        target.close()
    return target.changed
