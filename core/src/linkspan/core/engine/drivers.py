"""The open drivers by role, as the engine uses them."""

from typing import Any, cast

from linkspan.sdk.drivers.content import Content
from linkspan.sdk.drivers.network import NetworkDriver
from linkspan.sdk.drivers.registry import Registry
from linkspan.sdk.drivers.runtime import Runtime
from linkspan.sdk.drivers.snapshots import Snapshots
from linkspan.sdk.drivers.volume import VolumeDriver
from linkspan.sdk.errors import NotFound


class Drivers:
    """Open drivers: role → name → driver, and the name chosen for each role."""

    def __init__(self) -> None:
        self._open: dict[str, dict[str, Any]] = {}
        self.chosen: dict[str, str] = {}
        self.reasons: dict[tuple[str, str], str] = {}

    def add(self, role: str, name: str, driver: Any) -> None:
        """Make an open driver known."""
        self._open.setdefault(role, {})[name] = driver

    def drop(self, role: str, name: str, why: str) -> None:
        """Forget a driver that has broken; whoever asks for it is told why."""
        self._open.get(role, {}).pop(name, None)
        self.reasons[role, name] = why

    def names(self, role: str) -> list[str]:
        """Open drivers of a role."""
        return list(self._open.get(role, {}))

    def get(self, role: str, name: str | None = None) -> Any:
        """A driver by name, or the chosen one.

        Raises:
            NotFound: code ``driver_not_found``; says why if the driver could not be opened.
        """
        wanted = name or self.chosen.get(role, "")
        try:
            return self._open[role][wanted]
        except KeyError:
            why = self.reasons.get((role, wanted), "")
            raise NotFound(
                f"no {role} driver '{wanted}'" + (f": {why}" if why else ""),
                code="driver_not_found",
                details={"role": role, "name": wanted},
                help="linkspan plugin ls",
            ) from None

    @property
    def runtime(self) -> Runtime[Any]:
        """The chosen runtime."""
        return cast("Runtime[Any]", self.get("runtime"))

    @property
    def content(self) -> Content[Any]:
        """The chosen content store."""
        return cast("Content[Any]", self.get("content"))

    @property
    def snapshots(self) -> Snapshots[Any]:
        """The chosen snapshots driver."""
        return cast("Snapshots[Any]", self.get("snapshots"))

    @property
    def registry(self) -> Registry[Any]:
        """The chosen registry client."""
        return cast("Registry[Any]", self.get("registry"))

    def network(self, name: str | None = None) -> NetworkDriver[Any]:
        """A network driver."""
        return cast("NetworkDriver[Any]", self.get("network", name))

    def volume(self, name: str | None = None) -> VolumeDriver[Any]:
        """A volume driver."""
        return cast("VolumeDriver[Any]", self.get("volume", name))
