"""Volumes on disk, in Docker's layout: ``volumes/NAME/_data``, and ``volumes/NAME/volume.json`` beside it.

A volume is made in a folder of its own and renamed into place; it is removed by renaming it away first. So
``kill -9`` leaves either all of it or nothing that has its name. Who uses a volume is kept as empty files in
the run folder: that survives a restart of the daemon, and is forgotten by a reboot, as the mounts are.

All methods block; the driver calls them in a worker thread, one at a time for each name.
"""

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from linkspan.plugins.local_volumes import copying, mounting
from linkspan.sdk.errors import (
    Conflict,
    Internal,
    InvalidArgument,
    LinkspanError,
    NotFound,
    OutOfSpace,
)
from linkspan.sdk.files import is_full
from linkspan.sdk.model.volume import Volume, VolumeSpec, VolumeUsage

DRIVER: Final = "local"
_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_NAME_BYTES: Final = 255  # a folder has it, and no Linux file system takes more
_DATA: Final = "_data"
_RECORD: Final = "volume.json"
_POPULATING: Final = "populating"


class VolumeFolders:
    """See the module."""

    def __init__(self, state_dir: Path, run_dir: Path) -> None:
        self._volumes = state_dir / "volumes"
        self._making = state_dir / "making"
        self._users = run_dir / "users"
        self._parts = run_dir / "parts"
        for folder in (self._volumes, self._making, self._users, self._parts):
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)

    def _folder(self, name: str) -> Path:
        if _NAME.fullmatch(name) is None:
            raise InvalidArgument(
                f"'{name}' is not a volume name: [a-zA-Z0-9][a-zA-Z0-9_.-]*", code="invalid_name"
            )
        return self._volumes / name

    def data(self, name: str) -> Path:
        """The folder that containers see."""
        return self._folder(name) / _DATA

    def read(self, name: str) -> Volume:
        """Raises NotFound."""
        if len(name) > _NAME_BYTES:
            raise NotFound(f"no such volume: {name}", code="volume_not_found")
        try:
            record = json.loads((self._folder(name) / _RECORD).read_text())
        except FileNotFoundError:
            raise NotFound(f"no such volume: {name}", code="volume_not_found") from None
        except ValueError as exc:
            raise Internal(
                f"the record of volume {name} cannot be read: {exc}", code="volume_broken"
            ) from exc
        return Volume(**record, driver=DRIVER, mountpoint=str(self.data(name)))

    def all(self) -> Iterator[Volume]:
        """All that can be read; a broken one does not hide the others."""
        for folder in sorted(self._volumes.iterdir()):
            with contextlib.suppress(LinkspanError):
                yield self.read(folder.name)

    def create(self, spec: VolumeSpec, *, anonymous: bool) -> Volume:
        """Make it, or return the one that is there."""
        if len(spec.name) > _NAME_BYTES:
            raise InvalidArgument(
                f"create {spec.name}: volume name is too long: it has {len(spec.name)} characters, "
                f"not at most {_NAME_BYTES}",
                code="invalid_name",
            )
        try:
            mounting.parse_options(dict(spec.options))
        except InvalidArgument as exc:
            raise InvalidArgument(
                f"create {spec.name}: {exc.message}",
                code=exc.code,
                details=exc.details,
                help=exc.help,
            ) from None
        final = self._folder(spec.name)
        with contextlib.suppress(NotFound):
            return self._same(self.read(spec.name), spec)
        record = {
            "name": spec.name,
            "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "options": dict(spec.options),
            "labels": dict(spec.labels),
            "anonymous": anonymous,
        }
        folder = self._making / secrets.token_hex(8)
        try:
            (folder / _DATA).mkdir(mode=0o755, parents=True)
            folder.chmod(0o711)
            (folder / _RECORD).write_text(json.dumps(record))
            folder.rename(final)
        except OSError as exc:
            shutil.rmtree(folder, ignore_errors=True)
            if exc.errno in (errno.ENOTEMPTY, errno.EEXIST):  # another daemon was faster
                return self._same(self.read(spec.name), spec)
            raise disk_error(exc, f"cannot make volume {spec.name}") from exc
        return self.read(spec.name)

    def _same(self, volume: Volume, spec: VolumeSpec) -> Volume:
        if spec.options and dict(spec.options) != dict(volume.options):
            raise Conflict(
                f"volume {spec.name} exists with other options",
                code="volume_options_differ",
                details={"name": spec.name, "options": dict(volume.options)},
                help=f"linkspan volume inspect {spec.name}",
            )
        return volume

    def remove(self, name: str) -> None:
        """Remove it with its content."""
        self.read(name)
        users = self.users(name)
        if users:
            raise Conflict(
                f"volume {name} is in use by {', '.join(user[:12] for user in users)}",
                code="volume_in_use",
                details={"name": name, "users": users},
            )
        data = self.data(name)
        if mounting.is_mounted(data):
            mounting.unmount(data)
        leaving = self._making / secrets.token_hex(8)
        self._folder(name).rename(leaving)
        shutil.rmtree(leaving, ignore_errors=True)
        shutil.rmtree(self._users / name, ignore_errors=True)

    def users(self, name: str) -> list[str]:
        """Containers that have it mounted."""
        try:
            return sorted(entry.name for entry in (self._users / name).iterdir())
        except FileNotFoundError:
            return []

    def mount(self, name: str, container_id: str) -> Path:
        """Note a user; the first one of a volume with a device makes its mount."""
        volume = self.read(name)
        data = self.data(name)
        what = mounting.parse_options(dict(volume.options))
        if what is not None and not mounting.is_mounted(data):
            try:
                mounting.mount(what, data)
            except OSError as exc:
                raise InvalidArgument(
                    f"volume {name}: cannot mount {what.device}: {exc.strerror}",
                    code="volume_mount_failed",
                    details={"name": name, "device": what.device},
                ) from exc
        users = self._users / name
        try:
            users.mkdir(mode=0o700, exist_ok=True)
            (users / container_id).touch()
        except OSError as exc:
            raise disk_error(exc, f"cannot note who uses volume {name}") from exc
        return data

    def mount_part(self, name: str, container_id: str, path: str) -> Path:
        """Bind a folder or file of a volume to a place of its own."""
        try:
            opened = copying.open_within(self.data(name), path)
        except OSError as exc:
            if exc.errno in (errno.EXDEV, errno.ELOOP):
                raise InvalidArgument(
                    f"subpath {path} of volume {name} leads out of the volume", code="bad_subpath"
                ) from exc
            raise NotFound(
                f"cannot access path {self.data(name)}/{path}: {exc.strerror}",
                code="subpath_not_found",
            ) from exc
        folder = self._parts / name / container_id
        try:
            number = sum(1 for _ in folder.iterdir()) if folder.exists() else 0
            target = folder / str(number)
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
            target.mkdir() if stat.S_ISDIR(os.fstat(opened).st_mode) else target.touch()
            mounting.bind(f"/proc/self/fd/{opened}", target)
        except OSError as exc:
            raise disk_error(exc, f"cannot mount {path} of volume {name}") from exc
        finally:
            os.close(opened)
        return target

    def _unmount_parts(self, name: str, container_id: str) -> None:
        folder = self._parts / name / container_id
        if not folder.exists():
            return
        for target in folder.iterdir():
            with contextlib.suppress(OSError):  # a crash fell between making it and mounting
                mounting.unmount(target)
            target.rmdir() if target.is_dir() else target.unlink()
        folder.rmdir()
        with contextlib.suppress(OSError):  # others have parts of it
            folder.parent.rmdir()

    def unmount(self, name: str, container_id: str) -> None:
        """Forget a user; the last one of a volume with a device takes its mount away."""
        self._unmount_parts(name, container_id)
        (self._users / name / container_id).unlink(missing_ok=True)
        if self.users(name):
            return
        with contextlib.suppress(OSError):
            (self._users / name).rmdir()
        self._unmount_data(name)

    def users_except(self, known: frozenset[str]) -> list[tuple[str, str]]:
        """Volume and container of every use by somebody else than these."""
        return [
            (folder.name, container_id)
            for folder in self._users.iterdir()
            for container_id in self.users(folder.name)
            if container_id not in known
        ]

    def _unmount_data(self, name: str) -> None:
        data = self.data(name)
        if data.exists() and mounting.is_mounted(data):
            with contextlib.suppress(OSError):
                mounting.unmount(data)

    def populate(self, name: str, root: Path, path: str) -> bool:
        """Copy a folder of a root into the volume if that is empty."""
        self.read(name)
        data = self.data(name)
        if any(data.iterdir()):
            return False
        source = copying.open_folder_in_root(root, path)
        if source is None:
            return False
        marker = self._folder(name) / _POPULATING
        copy = copying.FolderCopy()
        try:
            marker.touch()
            copy.copy(source, data)
        except OSError as exc:
            copying.empty(data)
            raise disk_error(exc, f"cannot copy {path} into volume {name}") from exc
        finally:
            marker.unlink(missing_ok=True)
            os.close(source)
        return copy.copied > 0

    def usage(self, name: str) -> VolumeUsage:
        """Count its content."""
        self.read(name)
        return VolumeUsage(size_bytes=copying.content_bytes(self.data(name)))

    def recover(self) -> None:
        """Finish removals, undo half copies, take away mounts that nobody uses."""
        for leftover in self._making.iterdir():
            shutil.rmtree(leftover, ignore_errors=True)
        for folder in self._volumes.iterdir():
            marker = folder / _POPULATING
            if marker.exists():
                copying.empty(folder / _DATA)
                marker.unlink()
            if _NAME.fullmatch(folder.name) and not self.users(folder.name):
                self._unmount_data(folder.name)


def disk_error(exc: OSError, what: str) -> LinkspanError:
    """An error of the file system, as the sdk has it."""
    if is_full(exc):
        return OutOfSpace(f"{what}: no space left", help="linkspan volume ls; free some space")
    return Internal(f"{what}: {exc.strerror or exc}", code="volume_io")
