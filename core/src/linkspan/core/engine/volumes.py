"""Volumes: which driver has which, who uses them."""

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence

import attrs

from linkspan.core.engine.drivers import Drivers
from linkspan.core.engine.names import NAME
from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound
from linkspan.sdk.events import Event
from linkspan.sdk.model.container import Container
from linkspan.sdk.model.volume import Volume, VolumeSpec


class VolumeStore:
    """Volumes over all open drivers. The drivers hold the truth."""

    def __init__(
        self,
        drivers: Drivers,
        publish: Callable[[Event], None],
        before_create: Callable[[VolumeSpec], Awaitable[VolumeSpec]],
    ) -> None:
        self._drivers = drivers
        self._publish = publish
        self._before_create = before_create
        self.containers: Callable[[], Sequence[Container]] = lambda: ()
        self.notify: Callable[..., None] = lambda _hook, **_facts: None

    async def create(self, spec: VolumeSpec) -> Volume:
        """Make a volume, or return the one of this name."""
        spec = await self._before_create(spec)
        anonymous = not spec.name
        if anonymous:
            spec = attrs.evolve(spec, name=secrets.token_hex(32))
        elif len(spec.name) == 1:
            raise InvalidArgument(
                f"create {spec.name}: volume name is too short, names should be at least two "
                "alphanumeric characters",
                code="invalid_name",
            )
        elif NAME.fullmatch(spec.name) is None:
            raise InvalidArgument(_bad_name(spec.name), code="invalid_name")
        try:
            driver = self._drivers.volume(spec.driver or None)
        except NotFound as error:
            raise NotFound(
                f"create {spec.name}: error looking up volume plugin {spec.driver}: "
                f'plugin "{spec.driver}" not found',
                code=error.code,
                help=error.help,
            ) from error
        before = None if anonymous else await self.find(spec.name)
        if before is not None and spec.driver and before.driver != spec.driver:
            raise Conflict(
                f"a volume named {spec.name} already exists with the {before.driver} driver",
                code="name_taken",
            )
        if before is not None:
            return before
        volume = await driver.create(spec, anonymous=anonymous)
        self._publish(_event("create", volume))
        self.notify("linkspan_volume_created", volume=volume)
        return volume

    async def find(self, name: str) -> Volume | None:
        """A volume by name, or None; what cannot be a name is none."""
        if NAME.fullmatch(name) is None:
            return None
        for driver in self._drivers.names("volume"):
            try:
                return await self._drivers.volume(driver).get(name)
            except NotFound:
                continue
        return None

    async def inspect(self, name: str) -> Volume:
        """A volume by name.

        Raises:
            NotFound: code ``volume_not_found``.
        """
        volume = await self.find(name)
        if volume is None:
            raise NotFound(f"get {name}: no such volume", code="volume_not_found")
        return volume

    async def list(self) -> Sequence[Volume]:
        """All volumes by name."""
        found: list[Volume] = []
        for driver in self._drivers.names("volume"):
            found += await self._drivers.volume(driver).list()
        return sorted(found, key=lambda volume: volume.name)

    def users(self, name: str) -> Sequence[str]:
        """Ids of the containers that have it, running or not."""
        return [c.id for c in self.containers() if any(m.name == name for m in c.mounts)]

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume; with ``force`` a missing one is no error."""
        volume = await self.find(name)
        if volume is None:
            if force:
                return
            raise NotFound(f"get {name}: no such volume", code="volume_not_found")
        users = self.users(name)
        if users:
            raise Conflict(
                f"remove {name}: volume is in use - [{', '.join(users)}]",
                code="volume_in_use",
                help="remove the containers first",
            )
        await self._drivers.volume(volume.driver).remove(name)
        self._publish(_event("destroy", volume))
        self.notify("linkspan_volume_removed", name=name)

    def tell_mounted(self, container: Container) -> None:
        """Tell of a container's volumes that it has them now."""
        for point in container.mounts:
            if point.type == "volume":
                facts = {
                    "container": container.id,
                    "destination": point.destination,
                    "driver": point.driver,
                    "propagation": point.propagation,
                    "read/write": str(not point.read_only).lower(),
                }
                self._publish(_volume_event("mount", point.name, facts))

    def tell_unmounted(self, container: Container) -> None:
        """Tell of a container's volumes that it has them no more."""
        for point in container.mounts:
            if point.type == "volume":
                facts = {"container": container.id, "driver": point.driver}
                self._publish(_volume_event("unmount", point.name, facts))


def _event(action: str, volume: Volume) -> Event:
    return _volume_event(action, volume.name, {"driver": volume.driver})


def _volume_event(action: str, name: str, attributes: Mapping[str, str]) -> Event:
    return Event(type="volume", action=action, actor_id=name, attributes=attributes)


def _bad_name(name: str) -> str:
    """Docker's words."""
    if len(name) == 1:
        return (
            f"create {name}: volume name is too short, names should be at least two alphanumeric "
            "characters"
        )
    return (
        f'create {name}: "{name}" includes invalid characters for a local volume name, only '
        '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use '
        "absolute path"
    )
