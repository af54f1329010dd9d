"""How pipelines join the daemon: a supervised component, and routes that lead to it."""

import trio

from linkspan.sdk.errors import Unavailable
from linkspan.sdk.hooks import hookimpl
from linkspan.sdk.hooks.registration import Components
from linkspan.sdk.host import Host
from linkspan.sdk.http import Router
from linkspan.workflows.manager import RunManager
from linkspan.workflows.routes import Routes
from linkspan.workflows.secret_routes import SecretRoutes
from linkspan.workflows.verbs import Verbs

# By daemon: tests run several in one process.
_managers: dict[str, RunManager] = {}


async def run_component(
    _config: object, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Carry the runs of a daemon until cancelled; what is under way then is interrupted."""
    async with trio.open_nursery() as nursery:
        manager = RunManager(host, Verbs(host.daemon.manifests), nursery)
        await manager.recover()
        _managers[host.daemon.id] = manager
        try:
            task_status.started()
            await trio.sleep_forever()
        finally:
            del _managers[host.daemon.id]


@hookimpl
def linkspan_register_components(components: Components) -> None:
    """Add the component ``workflows``."""
    components.add("workflows", run_component)


@hookimpl
def linkspan_register_routes(router: Router, host: Host) -> None:
    """Add ``/linkspan/v1/runs``, ``/linkspan/v1/secrets`` and what is below them."""

    def manager() -> RunManager:
        found = _managers.get(host.daemon.id)
        if found is None:
            raise Unavailable(
                "pipelines are not running in this daemon",
                code="workflows_down",
                help="linkspan daemon status",
            )
        return found

    Routes(manager).register(router)
    SecretRoutes(host).register(router)
