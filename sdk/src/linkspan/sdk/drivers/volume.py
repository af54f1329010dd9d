"""Role ``volume``: named storage that outlives containers."""

import abc
import enum
from pathlib import Path

from linkspan.sdk.drivers.base import Config, Driver
from linkspan.sdk.errors import Unsupported
from linkspan.sdk.model.volume import Volume, VolumeSpec, VolumeUsage
from linkspan.sdk.stability import Stage, contract


class VolumeCap(enum.Flag):
    """What this driver can."""

    NONE = 0
    USAGE = enum.auto()
    SNAPSHOT = enum.auto()


@contract(role="volume", version=1, stage=Stage.BETA, since="0.1")
class VolumeDriver(Driver[Config], abc.ABC):
    """Keeps volumes. Names: ``[a-zA-Z0-9][a-zA-Z0-9_.-]*`` (the engine has checked).

    ``gc`` is given the ids of the containers there are: uses by others are forgotten. It never removes
    a volume; people do.
    """

    @property
    @abc.abstractmethod
    def capabilities(self) -> VolumeCap:
        """What this driver can."""

    @abc.abstractmethod
    async def create(self, spec: VolumeSpec, *, anonymous: bool = False) -> Volume:
        """Make a volume, or return the one of this name if its options are the same.

        Raises:
            Conflict: It exists with other options.
            InvalidArgument: An unknown option.
            OutOfSpace: The disk is full; nothing is left.
        """

    @abc.abstractmethod
    async def get(self, name: str) -> Volume:
        """Raises NotFound."""

    @abc.abstractmethod
    async def list(self) -> list[Volume]:
        """All volumes of this driver."""

    @abc.abstractmethod
    async def remove(self, name: str) -> None:
        """Remove a volume with its content.

        Raises:
            NotFound: No such volume.
            Conflict: It is mounted.
        """

    @abc.abstractmethod
    async def mount(self, name: str, container_id: str) -> Path:
        """Make it usable for a container; return its folder. Idempotent.

        Raises:
            NotFound: No such volume.
        """

    async def mount_part(self, name: str, container_id: str, path: str) -> Path:
        """Make a folder or file of a volume, which is mounted for the container, usable by itself.

        ``path`` is resolved inside the volume: no link leads out. ``unmount`` takes it away, too.

        Raises:
            NotFound: There is no such path in the volume.
            InvalidArgument: It leads out of the volume.
            Unsupported: This driver cannot.
        """
        raise Unsupported(f"volume {name}: its driver cannot mount a part of a volume")

    @abc.abstractmethod
    async def unmount(self, name: str, container_id: str) -> None:
        """The container does not use it any more; silent if it did not."""

    @abc.abstractmethod
    async def populate(self, name: str, root: Path, path: str) -> bool:
        """Copy ``path`` of a container's root into the volume if that is empty (Docker's copy-up).

        ``path`` is resolved inside ``root``: links never lead out. Owner and mode of the folder are
        taken over, too. A missing path does nothing.

        Returns:
            Whether anything was copied.
        """

    @abc.abstractmethod
    async def usage(self, name: str) -> VolumeUsage:
        """Count its content; may be proportional to the number of files."""
