"""Containers by name and id: what the API, the orchestrator and steps call."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import attrs
import trio

from linkspan.core.engine.checks import check_platform, check_spec, platform_warnings
from linkspan.core.engine.commit import Committer
from linkspan.core.engine.container_mounts import (
    check_bind,
    mounts_of_others,
    owner_of,
    snapshot_keys,
)
from linkspan.core.engine.creation import resolve
from linkspan.core.engine.drivers import Drivers
from linkspan.core.engine.entry import Attachment, Entry, Waiter, refuse_if_removing
from linkspan.core.engine.execs import Execs
from linkspan.core.engine.files import ContainerFiles
from linkspan.core.engine.images import ImageStore
from linkspan.core.engine.joining import with_ids
from linkspan.core.engine.lifecycle import KIND, Lifecycle
from linkspan.core.engine.linking import living_links, with_link_ids
from linkspan.core.engine.mounts import wanted_mounts
from linkspan.core.engine.names import by_prefix, check_name, is_id, not_found
from linkspan.core.engine.networks import NetworkStore
from linkspan.core.engine.selection import tests_of
from linkspan.core.engine.volumes import VolumeStore
from linkspan.core.plugins.hooks import HookRunner
from linkspan.core.store.records import Records
from linkspan.sdk.drivers.runtime import ExecProcess, RuntimeStats
from linkspan.sdk.errors import Conflict, InvalidArgument, LinkspanError, NotFound, NotModified
from linkspan.sdk.host import CommitSpec, WaitCondition
from linkspan.sdk.links import links_of, with_renamed, without_link
from linkspan.sdk.model.container import (
    Container,
    ContainerFilter,
    ContainerSpec,
    ContainerStatus,
    Exec,
    ExecSpec,
    Resources,
    RestartPolicy,
)
from linkspan.sdk.model.files import Change, PathStat
from linkspan.sdk.model.image import Image
from linkspan.sdk.model.process import LogQuery, LogRecord
from linkspan.sdk.names import free_name

_NO_NEW_NAME: Final = "Error when allocating new name"


class ContainerStore:
    """All containers; implements ``linkspan.sdk.host.Containers``."""

    def __init__(
        self,
        *,
        records: Records,
        drivers: Drivers,
        images: ImageStore,
        networks: NetworkStore,
        volumes: VolumeStore,
        hooks: HookRunner,
        lifecycle: Lifecycle,
    ) -> None:
        self._records = records
        self._drivers = drivers
        self._images = images
        self._networks = networks
        self._volumes = volumes
        self._hooks = hooks
        self._life = lifecycle
        self._entries: dict[str, Entry] = {}
        self._names: dict[str, str] = {}
        self._execs = Execs(drivers, hooks, lifecycle.tell, find=self.find)
        self._files = ContainerFiles(drivers, lifecycle)
        self._committer = Committer(drivers, images, lifecycle)
        lifecycle.entry_of = self.find
        lifecycle.forget = self._forget

    # -- finding ------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read the records."""
        for container in (await self._records.load(KIND, Container)).values():
            self._entries[container.id] = Entry(container)
            self._names[container.name] = container.id
        for container in self.all():
            self._life.links.note(container)

    async def recover(self) -> Sequence[str]:
        """Go on from what runs; say what was repaired."""
        found = {r.container_id: r for r in await self._drivers.runtime.recovered()}
        said = []
        for entry in list(self._entries.values()):
            said.append(await self._life.recover(entry, found.get(entry.container.id)))
        for container_id in found.keys() - self._entries.keys():
            await self._drivers.runtime.delete(container_id)
            said.append(f"container {container_id[:12]}, which nobody knows, was ended")
        await self._drivers.runtime.gc(list(self._entries))
        for name in self._drivers.names("volume"):
            await self._drivers.volume(name).gc(list(self._entries))
        await self._remove_unknown_roots()
        return [text for text in said if text]

    async def _remove_unknown_roots(self) -> None:
        """Roots of containers whose removal a crash cut short; their records went first."""
        for key in await self._drivers.snapshots.keys():
            owner = owner_of(key)
            if is_id(owner) and owner not in self._entries:
                await self._drivers.snapshots.remove(key)

    async def remove_old_folders(self) -> None:
        """Remove the empty folders at which roots of a former daemon were mounted."""
        await self._life.remove_old_folders()

    async def start_wanted(self) -> None:
        """Start containers whose restart policy wants them to run."""
        for entry in list(self._entries.values()):
            await self._life.restart_after_boot(entry)

    def all(self) -> Sequence[Container]:
        """Every container, oldest first."""
        return [entry.container for entry in self._entries.values()]

    def using_image(self, image_id: str) -> Sequence[Container]:
        """Containers made from an image, or that have it mounted."""
        return [
            c
            for c in self.all()
            if c.image_id == image_id or any(m.image_id == image_id for m in c.mounts)
        ]

    def snapshots(self) -> Sequence[str]:
        """Keys of all snapshots that containers need."""
        return [key for container in self.all() for key in snapshot_keys(container)]

    def find(self, ref: str) -> Entry | None:
        """By id, name or unique id prefix; None if there is none."""
        if ref in self._entries:
            return self._entries[ref]
        named = self._names.get(ref.removeprefix("/"))
        if named is not None:
            return self._entries[named]
        found = by_prefix(ref, self._entries)
        return self._entries[found] if found else None

    def entry(self, ref: str) -> Entry:
        """As ``find``. Raises NotFound, InvalidArgument."""
        if not ref:
            raise InvalidArgument('invalid name or ID supplied: ""')
        entry = self.find(ref)
        if entry is None:
            raise not_found("container", ref)
        return entry

    def inspect(self, ref: str) -> Container:
        """What it is now."""
        return self.entry(ref).container

    def list(self, query: ContainerFilter = ContainerFilter()) -> Sequence[Container]:  # noqa: B008
        """Containers, newest first."""
        found = [entry.container for entry in reversed(self._entries.values())]
        for test in tests_of(query, self._descends):
            found = [container for container in found if test(container)]
        return found[: query.limit] if query.limit else found

    def _descends(self, container: Container, ancestors: tuple[str, ...]) -> bool:
        """Whether its image is one of some images, or was built on one."""
        wanted = {image.id for ref in ancestors if (image := self._images.find(ref)) is not None}
        image = self._images.find(container.image_id)
        while image is not None:
            if image.id in wanted:
                return True
            image = self._images.find(image.parent) if image.parent else None
        return False

    # -- making and removing ------------------------------------------------------------------

    async def create(self, spec: ContainerSpec, *, name: str = "") -> Container:
        """Make a container; see ``linkspan.sdk.host.Containers``."""
        spec = await self._hooks.intercept("linkspan_before_container_create", spec)
        image = self._images.inspect(spec.image)
        check_platform(spec, image)
        spec = with_link_ids(self.find, with_ids(self.find, spec))
        chosen = check_name(name, "container") if name else free_name(self._names)
        container = resolve(spec, image, chosen)
        warnings = (*platform_warnings(spec, image), *self._drivers.runtime.check(spec))
        if spec.network_mode == "host" and (spec.ports or spec.publish_all):
            warnings += ("Published ports are discarded when using host network mode",)
        container = attrs.evolve(container, warnings=warnings)
        wanted = wanted_mounts(spec, image.config.volumes)
        for mount in wanted:
            if mount.type == "bind" and not mount.create_source:
                await trio.to_thread.run_sync(check_bind, mount.source, False)
        self._networks.check_choices(spec)
        if chosen in self._names:
            other = self._names[chosen]
            raise Conflict(
                f'Conflict. The container name "/{chosen}" is already in use by container "{other}". '
                "You have to remove (or rename) that container to be able to reuse that name.",
                code="name_taken",
                help=f"linkspan rm {chosen}",
            )
        # From here on the name is ours, so that of two creates at once one gets the conflict.
        self._names[chosen] = container.id
        made: set[str] = set()
        try:
            mounts = await self._life.mounts.points(spec, wanted, made)
            container = attrs.evolve(
                container, mounts=(*mounts, *mounts_of_others(self.inspect, spec, wanted))
            )
            await self._drivers.snapshots.prepare(
                container.id, image.chain_ids[-1] if image.chain_ids else ""
            )
            container = await self._life.mounts.prepare(container)
            await self._records.put(KIND, container.id, container)
        except BaseException:
            self._names.pop(chosen, None)
            with trio.CancelScope(shield=True):
                await self._drivers.snapshots.remove(container.id)
                await self._life.mounts.remove(container)
                for volume in made:
                    await self._volumes.remove(volume, force=True)
            raise
        self._entries[container.id] = Entry(container)
        self._life.links.note(container)
        self._life.tell("create", container)
        self._life.notify("linkspan_container_created", container=container)
        return container

    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove a container."""
        await self._life.remove(self.entry(ref), force=force, volumes=volumes)

    def _forget(self, entry: Entry) -> None:
        self._entries.pop(entry.container.id, None)
        self._life.links.forget(entry.container)
        if self._names.get(entry.container.name) == entry.container.id:
            del self._names[entry.container.name]

    async def rename(self, ref: str, name: str) -> None:
        """Give it another name."""
        entry = self.entry(ref)
        try:
            chosen = check_name(name, "container")
        except InvalidArgument as error:
            raise InvalidArgument(f"{_NO_NEW_NAME}: {error.message}", code=error.code) from error
        if chosen == entry.container.name:
            raise InvalidArgument("Renaming a container with the same name as its current name")
        if chosen in self._names:
            raise Conflict(
                f'{_NO_NEW_NAME}: Conflict. The container name "/{chosen}" is already in use by container '
                f'"{self._names[chosen]}". You have to remove (or rename) that container to be able to '
                "reuse that name.",
                code="name_taken",
            )
        old = entry.container.name
        self._names[chosen] = entry.container.id
        try:
            async with entry.lock:
                refuse_if_removing(entry)
                await self._life.save(entry, _renamed(entry.container, chosen))
        except BaseException:
            del self._names[chosen]
            raise
        self._names.pop(old, None)
        await self._networks.rename(entry.container)
        for other in self._life.links.linkers(entry.container.id):
            async with other.lock:
                await self._relink(other, with_renamed(other.container.spec, old, chosen))
        self._life.tell("rename", entry.container, oldName=f"/{old}")

    # -- running ------------------------------------------------------------------------------

    async def start(self, ref: str) -> None:
        """Start it."""
        self._drivers.runtime.stir()
        await self._life.start(self.entry(ref))

    async def stop(self, ref: str, *, timeout_s: float | None = None, signal: str = "") -> None:
        """Stop it."""
        await self._life.stop(self.entry(ref), timeout_s, signal)

    async def restart(self, ref: str, *, timeout_s: float | None = None, signal: str = "") -> None:
        """Stop and start."""
        entry = self.entry(ref)
        if entry.container.state.running or entry.status is ContainerStatus.RESTARTING:
            with contextlib.suppress(NotModified):  # it has ended by itself meanwhile
                await self._life.stop(entry, timeout_s, signal)
        await self._life.start(entry)
        self._life.tell("restart", entry.container)

    async def kill(self, ref: str, signal: str = "SIGKILL") -> None:
        """Send a signal."""
        await self._life.kill(self.entry(ref), signal)

    async def pause(self, ref: str) -> None:
        """Freeze."""
        await self._life.pause(self.entry(ref), freeze=True)

    async def unpause(self, ref: str) -> None:
        """Thaw."""
        await self._life.pause(self.entry(ref), freeze=False)

    async def update(
        self, ref: str, *, resources: Resources | None = None, restart: RestartPolicy | None = None
    ) -> Sequence[str]:
        """Change limits or the restart policy; return warnings."""
        entry = self.entry(ref)
        async with entry.lock:
            refuse_if_removing(entry)
            spec = entry.container.spec
            if resources is not None:
                spec = attrs.evolve(spec, resources=resources)
            if restart is not None:
                if spec.auto_remove and restart.name != "no":
                    raise Conflict(
                        f"Cannot update container {entry.container.id}: Restart policy cannot be updated"
                        " because AutoRemove is enabled for the container"
                    )
                spec = attrs.evolve(spec, restart=restart)
            check_spec(spec)
            before = self._drivers.runtime.check(entry.container.spec)
            warnings = [w for w in self._drivers.runtime.check(spec) if w not in before]
            if resources is not None and entry.container.state.running:
                await self._drivers.runtime.update(entry.container.id, resources)
            await self._life.save(entry, attrs.evolve(entry.container, spec=spec))
        self._life.tell("update", entry.container)
        return warnings

    async def unlink(self, ref: str, alias: str) -> None:
        """See ``linkspan.sdk.host.Containers.unlink``."""
        entry = self.entry(ref)
        async with entry.lock:
            refuse_if_removing(entry)
            await self._relink(entry, without_link(entry.container.spec, alias))

    async def _relink(self, entry: Entry, spec: ContainerSpec) -> None:
        """Keep other links, and let what runs see them."""
        if entry.removing or spec is entry.container.spec:
            return
        endpoints = tuple(
            attrs.evolve(endpoint, spec=attrs.evolve(endpoint.spec, links=links_of(spec)))
            if endpoint.network_name == "bridge"
            else endpoint
            for endpoint in entry.container.endpoints
        )
        await self._life.save(entry, attrs.evolve(entry.container, spec=spec, endpoints=endpoints))
        await self._networks.relink(entry.container, living_links(self.find, spec))

    def waiter(self, ref: str, condition: WaitCondition = "not-running") -> Waiter:
        """Begin to wait now."""
        return Waiter(self.entry(ref), condition)

    # -- streams ------------------------------------------------------------------------------

    def attach(self, ref: str) -> Attachment:
        """Join its streams; from the first byte if it does not run yet."""
        self._drivers.runtime.stir()
        entry = self.entry(ref)
        self._life.tell("attach", entry.container)
        return Attachment(entry, self._drivers.runtime)

    async def resize(self, ref: str, height: int, width: int) -> None:
        """Tell its terminal the size."""
        entry = self.entry(ref)
        if not entry.container.state.running:
            raise Conflict(f"container {entry.container.id} is not running", code="not_running")
        await self._drivers.runtime.resize(entry.container.id, height, width)
        self._life.tell("resize", entry.container, height=str(height), width=str(width))

    @asynccontextmanager
    async def logs(self, ref: str, query: LogQuery) -> AsyncIterator[AsyncIterator[LogRecord]]:
        """What it wrote."""
        container = self.inspect(ref)
        if container.spec.log_driver == "none":
            raise LinkspanError("configured logging driver does not support reading", code="no_log")
        if not container.state.started_at:
            yield _no_records()
            return
        async with self._drivers.runtime.logs(container.id, query) as records:
            yield records

    async def pids(self, ref: str) -> Sequence[int]:
        """Host pids of its processes."""
        container = self.inspect(ref)
        if not container.state.running:
            raise Conflict(f"container {container.id} is not running", code="not_running")
        return await self._drivers.runtime.pids(container.id)

    async def stats(self, ref: str) -> RuntimeStats:
        """Its counters now."""
        return await self._drivers.runtime.stats(self.inspect(ref).id)

    async def size(self, ref: str) -> tuple[int, int]:
        """Bytes of its own content, and with its image."""
        container = self.inspect(ref)
        own = await self._drivers.snapshots.usage(container.id)
        image = self._images.find(container.image_id)
        return own, own + (image.size_bytes if image else 0)

    # -- files --------------------------------------------------------------------------------

    async def stat_path(self, ref: str, path: str) -> PathStat:
        """What a path is."""
        return await self._files.stat(self.entry(ref), ref, path)

    def read_path(
        self, ref: str, path: str
    ) -> AbstractAsyncContextManager[tuple[PathStat, AsyncIterator[bytes]]]:
        """A path as a tar."""
        return self._files.read(self.entry(ref), ref, path)

    async def write_path(
        self,
        ref: str,
        path: str,
        source: AsyncIterator[bytes],
        *,
        keep_kind: bool = False,
        copy_owner: bool = False,
    ) -> None:
        """Unpack a tar into a folder."""
        await self._files.write(
            self.entry(ref), ref, path, source, keep_kind=keep_kind, copy_owner=copy_owner
        )

    async def remove_paths(self, ref: str, path: str, names: Sequence[str]) -> Sequence[str]:
        """Remove files and empty folders below a folder; what stays."""
        return await self._files.remove(self.entry(ref), ref, path, names)

    def export(self, ref: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The root as a tar."""
        return self._files.export(self.entry(ref))

    async def changes(self, ref: str) -> Sequence[Change]:
        """What differs from the image."""
        return await self._files.changes(self.entry(ref))

    async def commit(self, ref: str, spec: CommitSpec = CommitSpec()) -> Image:  # noqa: B008
        """Make an image of it."""
        return await self._committer.commit(self.entry(ref), spec)

    # -- exec ---------------------------------------------------------------------------------

    async def exec_create(self, ref: str, spec: ExecSpec) -> Exec:
        """Prepare a session."""
        self._drivers.runtime.stir()
        return await self._execs.create(self.entry(ref), spec)

    def exec_start(self, exec_id: str) -> AbstractAsyncContextManager[ExecProcess]:
        """Run it."""
        container_id = self._execs.inspect(exec_id).container_id
        entry = self._entries.get(container_id)
        if entry is None:
            raise NotFound(f"No such container: {container_id}")
        return self._execs.start(exec_id, entry.container)

    def exec_ids(self, ref: str) -> Sequence[str]:
        """Sessions in it that have not ended."""
        return self._execs.of(self.entry(ref).container.id)

    def exec_inspect(self, exec_id: str) -> Exec:
        """What it is now."""
        return self._execs.inspect(exec_id)

    async def exec_resize(self, exec_id: str, height: int, width: int) -> None:
        """Tell its terminal the size."""
        await self._execs.resize(exec_id, height, width)


async def _no_records() -> AsyncIterator[LogRecord]:
    for _ in ():
        yield _


def _renamed(container: Container, name: str) -> Container:
    """With its new name, also in the networks that it is in: there it comes first."""
    endpoints = tuple(
        attrs.evolve(e, names=(name, *e.names[1:])) if e.names[:1] == (container.name,) else e
        for e in container.endpoints
    )
    return attrs.evolve(container, name=name, endpoints=endpoints)
