"""Volumes whose records are in memory; their folders are real, in the host's state folder."""

import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import attrs
import trio

from linkspan.sdk.drivers.volume import VolumeCap, VolumeDriver
from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound
from linkspan.sdk.host import Host
from linkspan.sdk.model.volume import Volume, VolumeSpec, VolumeUsage


@attrs.define
class FakeDisk:
    """What survives the driver: records, and who uses what.

    Attributes:
        failure: Raised by the next ``create``, once; plant OutOfSpace here.
    """

    volumes: dict[str, Volume] = attrs.field(factory=dict)
    users: dict[str, set[str]] = attrs.field(factory=dict)
    failure: Exception | None = None


@attrs.frozen(kw_only=True)
class FakeVolumesConfig:
    """``disk``: the one to use; None makes an empty one."""

    disk: FakeDisk | None = None


class FakeVolumes(VolumeDriver[FakeVolumesConfig]):
    """See the module. The only option it knows is ``colour``."""

    config_type = FakeVolumesConfig

    def __init__(self, disk: FakeDisk, folder: Path) -> None:
        self.disk = disk
        self._folder = folder

    @classmethod
    @asynccontextmanager
    async def open(cls, config: FakeVolumesConfig, host: Host) -> AsyncIterator[Self]:
        yield cls(config.disk or FakeDisk(), host.state_dir / "fake-volumes")

    @property
    def capabilities(self) -> VolumeCap:
        return VolumeCap.USAGE

    async def create(self, spec: VolumeSpec, *, anonymous: bool = False) -> Volume:
        await trio.lowlevel.checkpoint()
        failure, self.disk.failure = self.disk.failure, None
        if failure is not None:
            raise failure
        for option in spec.options:
            if option != "colour":
                raise InvalidArgument(f"invalid option: '{option}'", code="unknown_volume_option")
        known = self.disk.volumes.get(spec.name)
        if known is not None:
            if spec.options and spec.options != known.options:
                raise Conflict(f"volume {spec.name} exists", code="volume_options_differ")
            return known
        data = self._folder / spec.name / "_data"
        data.mkdir(parents=True)
        volume = Volume(
            name=spec.name,
            driver="fake",
            mountpoint=str(data),
            created_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            options=dict(spec.options),
            labels=dict(spec.labels),
            anonymous=anonymous,
        )
        self.disk.volumes[spec.name] = volume
        return volume

    async def get(self, name: str) -> Volume:
        await trio.lowlevel.checkpoint()
        try:
            return self.disk.volumes[name]
        except KeyError:
            raise NotFound(f"no such volume: {name}", code="volume_not_found") from None

    async def list(self) -> list[Volume]:
        await trio.lowlevel.checkpoint()
        return [*self.disk.volumes.values()]

    async def remove(self, name: str) -> None:
        volume = await self.get(name)
        if self.disk.users.get(name):
            raise Conflict(f"volume {name} is in use", code="volume_in_use")
        del self.disk.volumes[name]
        shutil.rmtree(Path(volume.mountpoint).parent)

    async def mount(self, name: str, container_id: str) -> Path:
        volume = await self.get(name)
        self.disk.users.setdefault(name, set()).add(container_id)
        return Path(volume.mountpoint)

    async def mount_part(self, name: str, container_id: str, path: str) -> Path:
        return _part(Path((await self.get(name)).mountpoint), path)

    async def unmount(self, name: str, container_id: str) -> None:
        await trio.lowlevel.checkpoint()
        self.disk.users.get(name, set()).discard(container_id)

    async def populate(self, name: str, root: Path, path: str) -> bool:
        return _copy_up(Path((await self.get(name)).mountpoint), root, path)

    async def usage(self, name: str) -> VolumeUsage:
        return VolumeUsage(size_bytes=_size_bytes(Path((await self.get(name)).mountpoint)))


def _part(folder: Path, path: str) -> Path:
    whole = folder.resolve()
    part = (whole / path).resolve()
    if not part.is_relative_to(whole):
        raise InvalidArgument(f"{path} leads out of the volume")
    if not part.exists():
        raise NotFound(f"cannot access path {part}")
    return part


def _copy_up(target: Path, root: Path, path: str) -> bool:
    source = _inside(root, path)
    if source is None or any(target.iterdir()):
        return False
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    return any(target.iterdir())


def _size_bytes(folder: Path) -> int:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return sum(path.stat().st_size for path in files)


def _inside(root: Path, path: str) -> Path | None:
    """Resolve a path as a process whose root that is would: links never lead out."""
    place = root
    parts = [part for part in path.split("/") if part]
    for _ in range(100):
        if not parts:
            return place if place.is_dir() else None
        part = parts.pop(0)
        if part == "..":
            place = place if place == root else place.parent
        elif part != ".":
            following = place / part
            if following.is_symlink():
                link = str(following.readlink())
                place = root if link.startswith("/") else place
                parts = [word for word in link.split("/") if word] + parts
            else:
                place = following
    return None
