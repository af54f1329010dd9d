"""The driver: ``<state_dir>/<name>/_data`` with ``volume.json`` beside it, as in Docker's layout."""

import errno
import json
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import trio

from linkspan.plugins.local_volumes.copy_up import copy_up, is_empty, resolve
from linkspan.plugins.local_volumes.mounting import is_mounted, mount, unmount
from linkspan.plugins.local_volumes.options import parse_options
from linkspan.sdk.drivers.base import NoConfig
from linkspan.sdk.drivers.volume import VolumeCap, VolumeDriver
from linkspan.sdk.errors import Conflict, Internal, LinkspanError, NotFound, OutOfSpace
from linkspan.sdk.host import Host
from linkspan.sdk.model.volume import Volume, VolumeSpec, VolumeUsage

NAME = "local"
_DATA = "_data"
_RECORD = "volume.json"
# Folders that begin so are on their way in or out; ``recover`` removes them.
_HALF = "."


class LocalVolumes(VolumeDriver[NoConfig]):
    """Volumes in folders of this machine; see ``linkspan.sdk.drivers.volume``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._volumes: dict[str, Volume] = {}
        self._users: dict[str, set[str]] = {}
        self._turn = trio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(cls, config: NoConfig, host: Host) -> AsyncIterator[Self]:
        """Read what is there."""
        self = cls(host.state_dir)
        self._volumes = await trio.to_thread.run_sync(self._read_all)
        yield self

    @property
    def capabilities(self) -> VolumeCap:
        """It can count."""
        return VolumeCap.USAGE

    async def recover(self) -> None:
        """Remove what a crash left half-made or half-removed."""

        def sweep() -> None:
            for entry in self._folder.iterdir():
                if entry.name.startswith(_HALF):
                    unmount(entry / _DATA)
                    shutil.rmtree(entry, ignore_errors=True)

        await trio.to_thread.run_sync(sweep)

    def _read_all(self) -> dict[str, Volume]:
        found = {}
        for entry in sorted(self._folder.iterdir()):
            if entry.name.startswith(_HALF):
                continue
            try:
                record = json.loads((entry / _RECORD).read_bytes())
            except (OSError, ValueError):
                continue
            found[entry.name] = self._volume(entry.name, record)
        return found

    def _volume(self, name: str, record: Mapping[str, Any]) -> Volume:
        return Volume(
            name=name,
            driver=NAME,
            mountpoint=str(self._folder / name / _DATA),
            created_at=record["created_at"],
            options=record["options"],
            labels=record["labels"],
            anonymous=record["anonymous"],
        )

    async def create(self, spec: VolumeSpec, *, anonymous: bool = False) -> Volume:
        """Make a volume; it appears whole or not at all."""
        parse_options(spec.options)
        async with self._turn:
            before = self._volumes.get(spec.name)
            if before is not None:
                if spec.options and dict(spec.options) != dict(before.options):
                    raise Conflict(
                        f"a volume named {spec.name} exists with other options",
                        code="name_taken",
                        help=f"linkspan volume inspect {spec.name}",
                    )
                return before
            record = {
                "created_at": _now(),
                "options": dict(spec.options),
                "labels": dict(spec.labels),
                "anonymous": anonymous,
            }
            try:
                await trio.to_thread.run_sync(self._make, spec.name, record)
            except OSError as error:
                raise _words(error, f"cannot create volume {spec.name}") from error
            volume = self._volume(spec.name, record)
            self._volumes[spec.name] = volume
            return volume

    def _make(self, name: str, record: Mapping[str, Any]) -> None:
        half = self._folder / f"{_HALF}{name}.{secrets.token_hex(4)}"
        try:
            half.mkdir(mode=0o711)
            (half / _DATA).mkdir(mode=0o755)
            with (half / _RECORD).open("w") as file:
                json.dump(record, file)
                file.flush()
                os.fsync(file.fileno())
            half.rename(self._folder / name)
        except OSError:
            shutil.rmtree(half, ignore_errors=True)
            raise

    async def get(self, name: str) -> Volume:
        """One volume."""
        await trio.lowlevel.checkpoint()
        return self._known(name)

    def _known(self, name: str) -> Volume:
        volume = self._volumes.get(name)
        if volume is None:
            raise NotFound(f"get {name}: no such volume", code="volume_not_found")
        return volume

    async def list(self) -> list[Volume]:
        """All volumes."""
        await trio.lowlevel.checkpoint()
        return list(self._volumes.values())

    async def remove(self, name: str) -> None:
        """Remove a volume; its files may go a moment later."""
        async with self._turn:
            self._known(name)
            if self._users.get(name):
                raise Conflict(f"volume {name} is mounted", code="volume_in_use")
            gone = self._folder / f"{_HALF}{name}.{secrets.token_hex(4)}"

            def take_away() -> None:
                unmount(self._folder / name / _DATA)
                (self._folder / name).rename(gone)

            await trio.to_thread.run_sync(take_away)
            del self._volumes[name]
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(lambda: shutil.rmtree(gone, ignore_errors=True))

    async def mount(self, name: str, container_id: str) -> Path:
        """Make it usable; a folder is, a mount is made with its first user."""
        async with self._turn:
            volume = self._known(name)
            target = Path(volume.mountpoint)
            order = parse_options(volume.options)

            def make() -> None:
                if order is not None and not is_mounted(target):
                    mount(order, target)

            try:
                await trio.to_thread.run_sync(make)
            except OSError as error:
                raise _words(error, f"cannot mount volume {name}") from error
            self._users.setdefault(name, set()).add(container_id)
            return target

    async def unmount(self, name: str, container_id: str) -> None:
        """The container does not use it any more."""
        async with self._turn:
            users = self._users.get(name, set())
            users.discard(container_id)
            if users:
                return
            self._users.pop(name, None)
            volume = self._volumes.get(name)
            if volume is not None and volume.options:
                await trio.to_thread.run_sync(unmount, Path(volume.mountpoint))

    async def populate(self, name: str, root: Path, path: str) -> bool:
        """Copy the image's content into an empty volume."""
        target = Path(self._known(name).mountpoint)

        def copy() -> bool:
            if not is_empty(target):
                return False
            source = resolve(root, path)
            return source is not None and copy_up(source, target)

        async with self._turn:
            try:
                return await trio.to_thread.run_sync(copy)
            except OSError as error:
                await trio.to_thread.run_sync(_empty, target)
                raise _words(error, f"cannot copy {path} into volume {name}") from error

    async def usage(self, name: str) -> VolumeUsage:
        """Bytes on disk of its content."""
        folder = Path(self._known(name).mountpoint)
        return VolumeUsage(size_bytes=await trio.to_thread.run_sync(_count, folder))

    async def gc(self, known: Iterable[str]) -> Mapping[str, str]:
        """Volumes are removed by people only."""
        return {}


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _count(folder: Path) -> int:
    total = 0
    folders = [str(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                info = entry.stat(follow_symlinks=False)
                total += info.st_size
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
    return total


def _now() -> str:
    now = time.time_ns()
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9))
    return f"{whole}.{now % 10**9:09d}Z"


def _words(error: OSError, what: str) -> LinkspanError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutOfSpace(
            f"{what}: no space left on device", help="free space on the data root's disk"
        )
    return Internal(f"{what}: {error.strerror}")
