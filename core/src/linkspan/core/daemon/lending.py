"""What the core lends its plugins: ``linkspan.sdk.host.Host``, one for each."""

from pathlib import Path
from typing import Any

from linkspan.core.engine.drivers import Drivers
from linkspan.core.engine.engine import Engine
from linkspan.core.engine.supervisor import Supervisor
from linkspan.core.plugins.hooks import HookRunner
from linkspan.sdk.errors import Unavailable
from linkspan.sdk.host import DaemonInfo


class Lent:
    """Facts and parts of this daemon that every host shares; filled while it starts."""

    def __init__(self, drivers: Drivers, info: DaemonInfo, hooks: "LentHooks") -> None:
        self.drivers = drivers
        self.info = info
        self.hooks = hooks
        self.engine: Engine | None = None


class LentHooks:
    """The hooks as plugins may call them; ``linkspan.sdk.host.Hooks``."""

    def __init__(self, hooks: HookRunner, supervisor: Supervisor) -> None:
        self.intercept = hooks.intercept
        self._hooks = hooks
        self._supervisor = supervisor

    def tell(self, name: str, /, **kwargs: object) -> None:
        """Tell listeners in the background, if there are any."""
        if self._hooks.has(name):
            self._supervisor.spawn(lambda: self._hooks.notify(name, **kwargs), name=f"hook {name}")


class PluginHost:
    """The host of one driver or component."""

    def __init__(self, lent: Lent, supervisor: Supervisor, state_dir: Path, run_dir: Path) -> None:
        self._lent = lent
        self.state_dir = state_dir
        self.run_dir = run_dir
        self.start_task = supervisor.start
        state_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        run_dir.mkdir(mode=0o711, parents=True, exist_ok=True)

    @property
    def hooks(self) -> LentHooks:
        """To let listeners watch what the plugin does."""
        return self._lent.hooks

    @property
    def engine(self) -> Engine:
        """The engine, once it is there."""
        if self._lent.engine is None:
            raise Unavailable("the engine is not up yet")
        return self._lent.engine

    @property
    def daemon(self) -> DaemonInfo:
        """Facts about this daemon."""
        return self._lent.info

    def driver(self, role: str, name: str | None = None) -> Any:
        """An open driver."""
        return self._lent.drivers.get(role, name)
