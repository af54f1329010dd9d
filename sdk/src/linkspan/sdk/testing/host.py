"""A host for tests: real folders, real tasks, and drivers and engine that the test puts in."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import trio

from linkspan.sdk.errors import NotFound
from linkspan.sdk.host import DaemonInfo, Engine
from linkspan.sdk.manifest import PluginManifest


@attrs.define
class FakeHooks:
    """Implements ``linkspan.sdk.host.Hooks`` and remembers.

    Attributes:
        interceptors: Hook → what to call with the value; it may raise.
        told: Name and arguments of what listeners would have been told.
    """

    interceptors: dict[str, Callable[[Any], Any]] = attrs.field(factory=dict)
    told: list[tuple[str, Mapping[str, object]]] = attrs.field(factory=list)

    async def intercept(self, name: str, spec: Any, /, **kwargs: object) -> Any:
        found = self.interceptors.get(name)
        return spec if found is None else found(spec)

    def tell(self, name: str, /, **kwargs: object) -> None:
        self.told.append((name, kwargs))


@attrs.define
class FakeHost:
    """Implements ``linkspan.sdk.host.Host``.

    Attributes:
        drivers: (role, name) → driver; name ``""`` is the chosen one.
        fake_engine: What ``engine`` returns; a test that needs one puts it in.
    """

    root: Path
    nursery: trio.Nursery
    drivers: dict[tuple[str, str], Any] = attrs.field(factory=dict)
    fake_engine: Engine | None = None
    hooks: FakeHooks = attrs.field(factory=FakeHooks)
    insecure_registries: tuple[str, ...] = ("127.0.0.0/8", "localhost")
    daemon_id: str = "fake"
    bridge_address: str = ""
    manifests: tuple[PluginManifest, ...] = ()
    labels: tuple[str, ...] = ()
    generic_resources: tuple[str, ...] = ()

    @property
    def state_dir(self) -> Path:
        folder = self.root / "state"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def run_dir(self) -> Path:
        folder = self.root / "run"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    async def start_task(
        self, fn: Callable[..., Awaitable[object]], *args: object, name: str
    ) -> object:
        return await self.nursery.start(fn, *args, name=name)

    @property
    def engine(self) -> Engine:
        if self.fake_engine is None:
            raise NotFound("this test has no engine")
        return self.fake_engine

    @property
    def daemon(self) -> DaemonInfo:
        return DaemonInfo(
            id=self.daemon_id,
            name="fake",
            version="0",
            data_root=self.root / "data",
            exec_root=self.root / "exec",
            api_sockets=(),
            drivers={role: name for role, name in self.drivers if name},
            insecure_registries=self.insecure_registries,
            bridge_address=self.bridge_address,
            manifests=self.manifests,
            labels=self.labels,
            generic_resources=self.generic_resources,
        )

    def driver(self, role: str, name: str | None = None) -> Any:
        try:
            return self.drivers[role, name or ""]
        except KeyError:
            named = f" '{name}'" if name else ""
            raise NotFound(f"no driver{named} for role '{role}'") from None

    def drivers_of(self, role: str) -> Mapping[str, Any]:
        """All drivers of a role by name."""
        return {n: d for (r, n), d in self.drivers.items() if r == role}
