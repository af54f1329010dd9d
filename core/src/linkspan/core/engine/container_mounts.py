"""Mount points of containers: made with them, mounted while they run or are looked into, removed with them."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs
import trio

from linkspan.core.engine.drivers import Drivers
from linkspan.core.engine.images import ImageStore
from linkspan.core.engine.mounts import bundle_mount, wanted_mounts
from linkspan.core.engine.volumes import VolumeStore
from linkspan.sdk.drivers.runtime import BundleMount
from linkspan.sdk.errors import InvalidArgument, NotFound
from linkspan.sdk.model.container import Container, ContainerSpec, Mount, MountPoint
from linkspan.sdk.model.volume import VolumeSpec


class ContainerMounts:
    """Binds, volumes, tmpfs and images in containers.

    An image's file system is a snapshot of the container's own, which is mounted read-only: its layers stay as
    long as the container does, and it goes on when the daemon does not.
    """

    def __init__(
        self, drivers: Drivers, images: ImageStore, volumes: VolumeStore, run_dir: Path
    ) -> None:
        self._drivers = drivers
        self._images = images
        self._volumes = volumes
        self._roots = run_dir / "root"

    def rootfs(self, container_id: str) -> Path:
        """Where a container's root is mounted while it runs."""
        return self._roots / container_id[:12]

    def folders(self) -> Sequence[Path]:
        """All folders at which roots and images were mounted, by this daemon or a former one. Blocks."""
        return list(self._roots.glob("*"))

    # -- made and removed ---------------------------------------------------------------------

    async def points(
        self, spec: ContainerSpec, wanted: Sequence[Mount], made: set[str]
    ) -> tuple[MountPoint, ...]:
        """Mount points of what a container asks for; volumes that are missing are made.

        Args:
            made: Gets the names of the anonymous volumes that were made.

        Raises:
            NotFound: code ``image_not_found``: of an image to be mounted.
        """
        return tuple([await self._point(mount, spec, made) for mount in wanted])

    async def _point(self, mount: Mount, spec: ContainerSpec, made: set[str]) -> MountPoint:
        match mount.type:
            case "tmpfs":
                return MountPoint(type="tmpfs", source="", destination=mount.target)
            case "bind":
                return MountPoint(
                    type="bind",
                    source=mount.source,
                    destination=mount.target,
                    mode=mount.mode_text,
                    read_only=mount.read_only,
                    propagation=mount.propagation or "rprivate",
                )
            case "image":
                return MountPoint(
                    type="image",
                    name=mount.source,
                    source="",
                    destination=mount.target,
                    read_only=True,
                    propagation="rprivate",
                    image_id=self._images.inspect(mount.source).id,
                    subpath=mount.image_subpath,
                )
            case "volume":
                return await self._volume_point(mount, spec, made)

    async def _volume_point(self, mount: Mount, spec: ContainerSpec, made: set[str]) -> MountPoint:
        anonymous = not mount.source
        before = None if anonymous else await self._volumes.find(mount.source)
        volume = before or await self._volumes.create(
            VolumeSpec(
                name=mount.source,
                driver=mount.volume_driver,
                options=mount.volume_options,
                labels=mount.volume_labels,
            )
        )
        if before is None and anonymous:
            made.add(volume.name)
        listed = not anonymous or mount in spec.mounts
        return MountPoint(
            type="volume",
            name=volume.name,
            source=volume.mountpoint,
            destination=mount.target,
            driver=volume.driver,
            # Docker's label for SELinux, which it shows where nothing else was said.
            mode=mount.mode_text or ("z" if listed else ""),
            read_only=mount.read_only,
            anonymous=anonymous,
            subpath=mount.volume_subpath,
        )

    async def prepare(self, container: Container) -> Container:
        """Make the snapshots of the images that a container mounts; it knows where they will be then.

        Raises:
            NotFound: An image is gone.
            OutOfSpace: The disk is full.
        """
        points = list(container.mounts)
        for number, key, point in _images_of(container):
            chain = self._images.inspect(point.image_id).chain_ids
            await self._drivers.snapshots.prepare(key, chain[-1] if chain else "")
            points[number] = attrs.evolve(point, source=str(self._roots / _short(key)))
        return attrs.evolve(container, mounts=tuple(points))

    async def remove(self, container: Container) -> None:
        """Remove a container's snapshots of images."""
        for _, key, _ in _images_of(container):
            await self._drivers.snapshots.remove(key)
            await trio.to_thread.run_sync(remove_folder, self._roots / _short(key))

    # -- mounted ------------------------------------------------------------------------------

    async def mount(self, container: Container) -> tuple[BundleMount, ...]:
        """Prepare a container's mounts; its root is mounted.

        Raises:
            InvalidArgument: A bind's source is missing, or a part of an image lies elsewhere.
            NotFound: There is no such part of an image or volume.
        """
        wanted = {m.target: m for m in wanted_mounts(container.spec, ())}
        found = []
        for number, point in enumerate(container.mounts):
            ask = wanted.get(point.destination)
            match point.type:
                case "volume":
                    point = await self._mount_volume(container, point, ask)
                case "image":
                    point = await self._mount_image(snapshot_key(container.id, number), point)
                case "bind":
                    await trio.to_thread.run_sync(
                        check_bind, point.source, bool(ask and ask.create_source)
                    )
                case "tmpfs":
                    pass
            found.append(bundle_mount(point, ask))
        return tuple(found)

    async def _mount_volume(
        self, container: Container, point: MountPoint, ask: Mount | None
    ) -> MountPoint:
        driver = self._drivers.volume(point.driver)
        await driver.mount(point.name, container.id)
        part = point.subpath or (ask.volume_subpath if ask is not None else "")
        if part:
            source = await driver.mount_part(point.name, container.id, part)
            return attrs.evolve(point, source=str(source))
        if not (ask is not None and ask.no_copy):
            await driver.populate(point.name, self.rootfs(container.id), point.destination)
        return point

    async def _mount_image(self, key: str, point: MountPoint) -> MountPoint:
        # Nobody writes to it, so there is nothing that has to reach the disk.
        await self._drivers.snapshots.mount(key, self._roots / _short(key), volatile=True)
        if not point.subpath:
            return point
        # Nothing of the container runs now that could exchange a folder for a link meanwhile.
        source = await trio.to_thread.run_sync(_part_of_image, point)
        return attrs.evolve(point, source=source)

    async def unmount(self, container: Container) -> None:
        """Unmount the volumes and images of a container that neither runs nor is looked into."""
        for point in container.mounts:
            if point.type == "volume":
                await self._drivers.volume(point.driver).unmount(point.name, container.id)
        for _, key, _ in _images_of(container):
            await self._drivers.snapshots.unmount(key)


def snapshot_keys(container: Container) -> list[str]:
    """Keys of all snapshots that a container needs: of its root and of images."""
    return [container.id, *(key for _, key, _ in _images_of(container))]


def snapshot_key(container_id: str, number: int) -> str:
    """Key of the snapshot of an image that is the ``number``-th mount of a container."""
    return f"{container_id}.{number}"


def owner_of(name: str) -> str:
    """Id of the container, or its beginning, from a snapshot's key or the name of its folder."""
    return name.partition(".")[0]


def _short(key: str) -> str:
    container_id, _, number = key.partition(".")
    return f"{container_id[:12]}.{number}"


def _images_of(container: Container) -> Iterator[tuple[int, str, MountPoint]]:
    for number, point in enumerate(container.mounts):
        if point.type == "image":
            yield number, snapshot_key(container.id, number), point


def _part_of_image(point: MountPoint) -> str:
    root = Path(point.source).resolve()
    try:
        found = (root / point.subpath).resolve(strict=True)
    except (OSError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it leads in a circle"
        raise NotFound(
            f"cannot access path {point.subpath} of image {point.name}: {why}",
            code="subpath_not_found",
        ) from error
    if not found.is_relative_to(root):
        raise InvalidArgument(
            f"subpath {point.subpath} of image {point.name} leads out of the image",
            code="bad_subpath",
        )
    return str(found)


def check_bind(source: str, create: bool) -> None:
    """Make a bind's source if it may be made. Raises InvalidArgument (code ``invalid_mount``)."""
    path = Path(source)
    if path.exists():
        return
    if not create:
        raise InvalidArgument(
            f'invalid mount config for type "bind": bind source path does not exist: {source}',
            code="invalid_mount",
        )
    path.mkdir(parents=True, exist_ok=True)


def remove_folder(path: Path) -> None:
    """Remove a folder if it is there, empty, and nothing is mounted on it. Blocks."""
    try:
        path.rmdir()
    except OSError:
        return


def mounts_of_others(
    inspect: Callable[[str], Container], spec: ContainerSpec, wanted: Sequence[Mount]
) -> tuple[MountPoint, ...]:
    """Mounts of other containers (``--volumes-from``); own targets win. Raises NotFound, InvalidArgument."""
    taken = {mount.target for mount in wanted}
    found: list[MountPoint] = []
    for text in spec.volumes_from:
        ref, _, mode = text.partition(":")
        if not ref:
            raise InvalidArgument("volumes-from specification cannot be an empty string")
        if mode not in ("", "ro", "rw", "z", "Z", "ro,z", "ro,Z", "rw,z", "rw,Z"):
            raise InvalidArgument(f"invalid mode: {mode}", code="invalid_mount")
        for point in inspect(ref).mounts:
            if point.destination not in taken and point.type != "tmpfs":
                taken.add(point.destination)
                read_only = point.read_only or mode.startswith("ro")
                found.append(attrs.evolve(point, read_only=read_only, anonymous=False))
    return tuple(found)
