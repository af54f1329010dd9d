"""How pipelines join the daemon: supervised components, and routes that lead to them."""

from typing import Final

import attrs
import trio

from linkspan.sdk.errors import Unavailable
from linkspan.sdk.hooks import hookimpl
from linkspan.sdk.hooks.registration import Components
from linkspan.sdk.host import Host
from linkspan.sdk.http import Router
from linkspan.workflows.config import WorkflowsConfig
from linkspan.workflows.manager import RunManager
from linkspan.workflows.routes import Routes
from linkspan.workflows.secret_routes import SecretRoutes
from linkspan.workflows.triggering.routes import ServedRoutes
from linkspan.workflows.triggering.served import Served
from linkspan.workflows.triggering.webhooks import Webhooks, WebhooksConfig, serve_webhooks
from linkspan.workflows.verbs import Verbs

_TIDY_S: Final = 3600.0


@attrs.frozen
class _Parts:
    manager: RunManager
    served: Served


# By daemon: tests run several in one process.
_running: dict[str, _Parts] = {}


def _parts(host: Host) -> _Parts:
    found = _running.get(host.daemon.id)
    if found is None:
        raise Unavailable(
            "pipelines are not running in this daemon",
            code="workflows_down",
            help="linkspan daemon status",
        )
    return found


async def run_component(
    config: WorkflowsConfig,
    host: Host,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Carry the runs of a daemon until cancelled; what is under way then is interrupted."""
    async with trio.open_nursery() as nursery:
        verbs = Verbs(host.daemon.manifests)
        manager = RunManager(host, verbs, nursery, config=config)
        await manager.recover()
        served = Served(state=host.state_dir / "served.json", verbs=verbs)
        await served.load()
        _running[host.daemon.id] = _Parts(manager, served)
        try:
            nursery.start_soon(served.keep_time, manager)
            nursery.start_soon(_keep_tidy, manager)
            task_status.started()
            await trio.sleep_forever()
        finally:
            del _running[host.daemon.id]


async def _keep_tidy(manager: RunManager) -> None:
    """Runs grow too old also while none ends."""
    while True:
        await manager.retention.tidy()
        await trio.sleep(_TIDY_S)


async def run_webhooks(
    config: WebhooksConfig,
    host: Host,
    *,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen for requests that start pipelines, if the config says where."""
    webhooks = Webhooks(
        host=host, served=lambda: _parts(host).served, manager=lambda: _parts(host).manager
    )
    await serve_webhooks(config, webhooks, task_status=task_status)


@hookimpl
def linkspan_register_components(components: Components) -> None:
    """Add the components ``workflows`` and ``webhooks``."""
    components.add("workflows", run_component, config_type=WorkflowsConfig)
    components.add("webhooks", run_webhooks, config_type=WebhooksConfig)


@hookimpl
def linkspan_register_routes(router: Router, host: Host) -> None:
    """Add ``/linkspan/v1/runs``, ``…/secrets``, ``…/served`` and what is below them."""
    Routes(lambda: _parts(host).manager).register(router)
    SecretRoutes(host).register(router)
    ServedRoutes(lambda: _parts(host).served).register(router)
