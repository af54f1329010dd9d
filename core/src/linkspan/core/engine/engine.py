"""The engine: containers, images, networks, volumes and events in one; ``linkspan.sdk.host.Engine``."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from linkspan.core.engine.container_mounts import ContainerMounts
from linkspan.core.engine.containers import ContainerStore
from linkspan.core.engine.drivers import Drivers
from linkspan.core.engine.images import ImageStore, tag_names
from linkspan.core.engine.lifecycle import Lifecycle
from linkspan.core.engine.membership import Membership
from linkspan.core.engine.networks import NetworkStore
from linkspan.core.engine.snapshot_run import SnapshotRunner
from linkspan.core.engine.supervisor import Supervisor
from linkspan.core.engine.volumes import VolumeStore
from linkspan.core.events.bus import EventBus
from linkspan.core.plugins.hooks import HookRunner
from linkspan.core.store.records import Records
from linkspan.sdk.events import Event, image_event
from linkspan.sdk.host import NewImage, StepRun
from linkspan.sdk.model.image import Credentials, Image, PushResult, RemovedImage
from linkspan.sdk.model.network import Endpoint, EndpointSpec, Network, NetworkSpec
from linkspan.sdk.model.process import Chunk
from linkspan.sdk.model.volume import VolumeSpec
from linkspan.sdk.progress import ProgressSink, ignore_progress
from linkspan.sdk.reference import parse_reference

if TYPE_CHECKING:  # imported with the first image that comes or goes
    from linkspan.core.engine.archive.imports import Importer
    from linkspan.core.engine.archive.load import Loader
    from linkspan.core.engine.archive.save import Saver
    from linkspan.core.engine.blobs import LayerBlobs
    from linkspan.core.engine.pull import Puller
    from linkspan.core.engine.push import Pusher

log = logging.getLogger("linkspan.engine")

ANONYMOUS = Credentials()
GC_INTERVAL_S = 1800.0


class EngineEvents:
    """Events with their listeners; implements ``linkspan.sdk.host.Events``."""

    def __init__(self, bus: EventBus, hooks: HookRunner, supervisor: Supervisor) -> None:
        self._bus = bus
        self._hooks = hooks
        self._supervisor = supervisor

    def publish(self, event: Event) -> None:
        """Tell everybody; never waits."""
        self._bus.publish(event)
        if self._hooks.has("linkspan_event"):
            self._supervisor.spawn(
                lambda: self._hooks.notify("linkspan_event", event=event),
                name="hook linkspan_event",
            )

    def subscribe(
        self, *, since_ns: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """From now on, or from a time."""
        return self._bus.subscribe(since_ns=since_ns)

    def recent(self, *, since_ns: int | None = None) -> Sequence[Event]:
        """See ``linkspan.sdk.host.Events``."""
        return self._bus.recent(since_ns=since_ns)


class EngineImages:
    """Images with pull and push; implements ``linkspan.sdk.host.Images``."""

    def __init__(
        self,
        store: ImageStore,
        drivers: Drivers,
        hooks: HookRunner,
        publish: Callable[[Event], None],
        notify: Callable[..., None],
        work_dir: Path,
    ) -> None:
        self._store = store
        self._drivers = drivers
        self._hooks = hooks
        self._publish = publish
        self._notify = notify
        self._work_dir = work_dir
        self.inspect = store.inspect
        self.list = store.list
        self.tag = store.tag
        self.attach = store.attach
        self.attachments = store.attachments

    async def _verify(self, image: Image) -> None:
        await self._hooks.intercept("linkspan_verify_image", image)

    @cached_property
    def _blobs(self) -> "LayerBlobs":
        from linkspan.core.engine.blobs import LayerBlobs

        return LayerBlobs(self._store, self._drivers, self._work_dir)

    @cached_property
    def _puller(self) -> "Puller":
        from linkspan.core.engine.pull import Puller

        return Puller(self._store, self._drivers, self._verify)

    @cached_property
    def _pusher(self) -> "Pusher":
        from linkspan.core.engine.push import Pusher

        return Pusher(self._store, self._drivers, self._blobs)

    @cached_property
    def _saver(self) -> "Saver":
        from linkspan.core.engine.archive.save import Saver

        return Saver(self._store, self._drivers, self._blobs)

    @cached_property
    def _loader(self) -> "Loader":
        from linkspan.core.engine.archive.load import Loader

        return Loader(self._store, self._drivers)

    @cached_property
    def _importer(self) -> "Importer":
        from linkspan.core.engine.archive.imports import Importer

        return Importer(self._store, self._drivers)

    async def pull(
        self,
        reference: str,
        *,
        credentials: Credentials = ANONYMOUS,
        platform: str = "",
        progress: ProgressSink = ignore_progress,
    ) -> Image:
        """Get an image from its registry."""
        reference = await self._hooks.intercept("linkspan_before_image_pull", reference)
        image = await self._puller.pull(
            reference, credentials=credentials, platform=platform, progress=progress
        )
        self._tell_of_registry("pull", image, reference)
        self._notify("linkspan_image_pulled", image=image)
        return image

    async def push(
        self,
        reference: str,
        *,
        credentials: Credentials = ANONYMOUS,
        progress: ProgressSink = ignore_progress,
    ) -> PushResult:
        """Send an image to its registry."""
        result = await self._pusher.push(reference, credentials=credentials, progress=progress)
        self._tell_of_registry("push", self._store.inspect(reference), reference)
        return result

    async def push_index(
        self,
        reference: str,
        refs: Sequence[str],
        *,
        credentials: Credentials = ANONYMOUS,
        progress: ProgressSink = ignore_progress,
    ) -> PushResult:
        """Send images of several platforms under one name."""
        result = await self._pusher.push_index(
            reference, refs, credentials=credentials, progress=progress
        )
        self._tell_of_registry("push", self._store.inspect(refs[0]), reference)
        return result

    async def remove(
        self, ref: str, *, force: bool = False, prune_parents: bool = True
    ) -> Sequence[RemovedImage]:
        """Untag or delete."""
        removed = await self._store.remove(ref, force=force, prune_parents=prune_parents)
        for item in removed:
            if item.deleted:
                self._notify("linkspan_image_removed", image_id=item.deleted)
        return removed

    async def add(self, new: NewImage, *, tags: Sequence[str] = ()) -> Image:
        """Store an image made here."""
        return await self._store.add_new(new, tags=tags)

    @asynccontextmanager
    async def save(
        self, refs: Sequence[str], *, platform: str = ""
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Images as one tar."""
        async with self._saver.save(refs, platform) as (image_ids, pieces):
            for image_id in image_ids:
                self._publish(image_event("save", self._store.inspect(image_id)))
            yield pieces

    async def load(
        self,
        source: AsyncIterator[bytes],
        *,
        platform: str = "",
        progress: ProgressSink = ignore_progress,
    ) -> Sequence[Image]:
        """Take in a tar of images."""
        images = await self._loader.load(source, platform, progress)
        for image in images:
            self._publish(image_event("load", image))
        return images

    async def import_files(
        self,
        source: AsyncIterator[bytes],
        *,
        reference: str = "",
        changes: Sequence[str] = (),
        message: str = "",
        platform: str = "",
    ) -> Image:
        """Make an image of a tar of files."""
        image = await self._importer.import_files(
            source, reference=reference, changes=changes, message=message, platform=platform
        )
        if reference:
            self._publish(image_event("tag", image, *tag_names([reference])))
        self._publish(image_event("import", image))
        return image

    def _tell_of_registry(self, action: str, image: Image, text: str) -> None:
        """Docker's actor is the whole reference, its name the repository."""
        reference = parse_reference(text).with_default_tag()
        name, whole = reference.familiar_name, reference.familiar
        self._publish(image_event(action, image, name, actor_id=whole))


class EngineNetworks:
    """Networks and who is in them; implements ``linkspan.sdk.host.Networks``."""

    def __init__(
        self, store: NetworkStore, membership: Membership, notify: Callable[..., None]
    ) -> None:
        self._store = store
        self._membership = membership
        self._notify = notify
        self.inspect = store.inspect
        self.list = store.list

    async def create(self, spec: NetworkSpec) -> Network:
        """Make a network."""
        network = await self._store.create(spec)
        self._notify("linkspan_network_created", network=network)
        return network

    async def remove(self, ref: str) -> None:
        """Remove a network."""
        network = self._store.inspect(ref)
        await self._store.remove(ref)
        self._notify("linkspan_network_removed", network=network)

    async def connect(
        self,
        ref: str,
        container: str,
        spec: EndpointSpec = EndpointSpec(),  # noqa: B008
    ) -> None:
        """Put a container into it."""
        await self._membership.connect(self._store.inspect(ref), container, spec)

    async def disconnect(self, ref: str, container: str, *, force: bool = False) -> None:
        """Take a container out of it."""
        await self._membership.disconnect(self._store.inspect(ref), container, force=force)

    def endpoints(self, ref: str) -> Mapping[str, Endpoint]:
        """Container id → endpoint of the running containers in it."""
        return self._store.endpoints(ref)


class Engine:
    """Everything a client can ask for on one machine."""

    def __init__(
        self,
        *,
        records: Records,
        drivers: Drivers,
        hooks: HookRunner,
        supervisor: Supervisor,
        bus: EventBus,
        data_root: Path,
        exec_root: Path,
        bridge_address: str = "",
    ) -> None:
        self._drivers = drivers
        self.events = EngineEvents(bus, hooks, supervisor)
        publish = self.events.publish

        async def before_network(spec: NetworkSpec) -> NetworkSpec:
            return await hooks.intercept("linkspan_before_network_create", spec)

        async def before_volume(spec: VolumeSpec) -> VolumeSpec:
            return await hooks.intercept("linkspan_before_volume_create", spec)

        self._image_store = ImageStore(records, drivers, publish)
        self._network_store = NetworkStore(
            records, drivers, publish, before_network, bridge_address
        )
        self.volumes = VolumeStore(drivers, publish, before_volume)
        lifecycle = Lifecycle(
            records=records,
            drivers=drivers,
            networks=self._network_store,
            volumes=self.volumes,
            hooks=hooks,
            supervisor=supervisor,
            publish=publish,
            mounts=ContainerMounts(drivers, self._image_store, self.volumes, exec_root),
        )
        self.containers = ContainerStore(
            records=records,
            drivers=drivers,
            images=self._image_store,
            networks=self._network_store,
            volumes=self.volumes,
            hooks=hooks,
            lifecycle=lifecycle,
        )
        self.images = EngineImages(
            self._image_store, drivers, hooks, publish, lifecycle.notify, data_root / "tmp"
        )
        membership = Membership(self._network_store, lifecycle, self.containers.entry)
        self.networks = EngineNetworks(self._network_store, membership, lifecycle.notify)
        self._snapshot_runner = SnapshotRunner(
            drivers, self._network_store, supervisor, exec_root, self.containers.find
        )
        self._image_store.containers_of = self.containers.using_image
        self._network_store.containers = self.containers.all
        self.volumes.containers = self.containers.all
        self.volumes.notify = lifecycle.notify

    async def recover(self) -> Sequence[str]:
        """After the drivers are open: read the records, repair, go on; say what was repaired."""
        await self._network_store.load()
        await self.containers.load()
        said = [*await self._network_store.restore()]
        said += await self.containers.recover()
        said += await self._image_store.load()
        return said

    async def remove_old_folders(self) -> None:
        """Once every driver has recovered, and before there are requests."""
        await self.containers.remove_old_folders()

    async def run_in_snapshot(self, run: StepRun, output: Callable[[Chunk], None]) -> int:
        """Run a process in a snapshot."""
        return await self._snapshot_runner.run(run, output)

    async def gc(self) -> Mapping[str, str]:
        """Remove layers and blobs that nobody needs."""
        return await self._gc(at_once=True)

    async def gc_when_due(self) -> None:
        """From now on, remove again and again what nobody needs and what is no longer new."""
        while True:
            await trio.sleep(GC_INTERVAL_S)
            await self._gc(at_once=False)

    async def _gc(self, *, at_once: bool) -> Mapping[str, str]:
        snapshots = self.containers.snapshots()
        removed = await self._image_store.gc(snapshots, at_once=at_once)
        if removed:
            log.info("removed what nobody needs", extra={"count": len(removed)})
        return removed
