"""Registration hooks: plain functions, called once while the daemon starts."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from linkspan.sdk.hooks import hookspec
from linkspan.sdk.host import Host
from linkspan.sdk.http import Router

ComponentRun = Callable[..., Awaitable[object]]


class Components(Protocol):
    """Where supervised parts of the daemon are added."""

    def add(self, name: str, run: ComponentRun, *, config_type: type[Any] | None = None) -> None:
        """Add a component.

        Args:
            name: Also the name of its config table.
            run: ``await run(config, host, task_status=…)``; calls ``task_status.started()`` when it is
                up and runs until it is cancelled. Restarted with back-off when it fails.
            config_type: attrs class for the table; None if it has no settings.
        """


@hookspec
def linkspan_register_routes(router: Router, host: Host) -> None:
    """Add HTTP routes. Called after all drivers are open."""


@hookspec
def linkspan_register_components(components: Components) -> None:
    """Add supervised components. Called after all drivers are open, before the API listens."""


@hookspec
def linkspan_info() -> Mapping[str, str] | None:
    """Lines about the plugin for ``linkspan daemon status``; asked each time."""
