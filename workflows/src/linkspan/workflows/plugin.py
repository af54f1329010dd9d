"""How pipelines join the daemon: supervised components, and routes that lead to them.

Their modules are a third of what a daemon would import to start, and most daemons never carry a pipeline.
They are imported when there is something for them to do: runs, folders or leftovers of an earlier daemon,
or the first request.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from linkspan.sdk.errors import Unavailable
from linkspan.sdk.hooks import hookimpl
from linkspan.sdk.hooks.registration import Components
from linkspan.sdk.host import Host
from linkspan.sdk.http import Answer, Handler, Request, Router
from linkspan.sdk.model.container import ContainerFilter
from linkspan.sdk.model.step import RUN_LABEL
from linkspan.workflows.config import WorkflowsConfig
from linkspan.workflows.secret_routes import SecretRoutes
from linkspan.workflows.triggering.config import WebhooksConfig

if TYPE_CHECKING:
    from linkspan.workflows.parts import Parts

_RUNS: Final = "/linkspan/v1/runs"
_SERVED: Final = "/linkspan/v1/served"
ROUTES: Final = (
    ("POST", "/linkspan/v1/plans"),
    ("POST", _RUNS),
    ("GET", _RUNS),
    ("GET", _RUNS + "/{run}"),
    ("GET", _RUNS + "/{run}/events"),
    ("GET", _RUNS + "/{run}/logs"),
    ("POST", _RUNS + "/{run}/cancel"),
    ("POST", _RUNS + "/{run}/resume"),
    ("POST", _RUNS + "/{run}/rerun"),
    ("POST", _RUNS + "/{run}/decide"),
    ("GET", _RUNS + "/{run}/break"),
    ("POST", _RUNS + "/{run}/break"),
    ("POST", _RUNS + "/{run}/undo"),
    ("GET", _RUNS + "/{run}/why"),
    ("POST", _RUNS + "/prune"),
    ("GET", _SERVED),
    ("POST", _SERVED),
    ("DELETE", _SERVED + "/{name}"),
)
"""Those of ``Routes`` and ``ServedRoutes``."""


class _Pipelines:
    """Those of one daemon: not loaded, loaded, or gone."""

    def __init__(self) -> None:
        self.wanted = trio.Event()
        self._settled = trio.Event()
        self._parts: Parts | None = None

    def settle(self, parts: "Parts | None") -> None:
        """They are loaded, or will not be any more."""
        self._parts = parts
        self._settled.set()

    async def parts(self) -> "Parts":
        """Load them, if they are not. Unavailable."""
        self.wanted.set()
        await self._settled.wait()
        return self.loaded()

    def loaded(self) -> "Parts":
        """What ``parts`` has loaded. Unavailable."""
        if self._parts is None:
            raise _down()
        return self._parts


# By daemon: tests run several in one process.
_running: dict[str, _Pipelines] = {}


def _down() -> Unavailable:
    return Unavailable(
        "pipelines are not running in this daemon",
        code="workflows_down",
        help="linkspan daemon status",
    )


def _pipelines(host: Host) -> _Pipelines:
    found = _running.get(host.daemon.id)
    if found is None:
        raise _down()
    return found


async def run_component(
    config: WorkflowsConfig,
    host: Host,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Carry the runs of a daemon until cancelled; what is under way then is interrupted."""
    pipelines = _running[host.daemon.id] = _Pipelines()
    idle = not await _has_work(host)
    try:
        if idle:
            task_status.started()
            await pipelines.wanted.wait()
        make_parts = await trio.to_thread.run_sync(_load)
        async with trio.open_nursery() as nursery:
            pipelines.settle(await make_parts(config, host, nursery))
            if not idle:
                task_status.started()
            await trio.sleep_forever()
    finally:
        pipelines.settle(None)
        if _running.get(host.daemon.id) is pipelines:
            del _running[host.daemon.id]


async def _has_work(host: Host) -> bool:
    """Whether an earlier daemon has left anything."""
    engine = host.engine
    if engine.containers.list(ContainerFilter(all=True, labels=(RUN_LABEL,))):
        return True
    if any(RUN_LABEL in network.spec.labels for network in engine.networks.list()):
        return True
    return await trio.to_thread.run_sync(_has_files, host.state_dir)


def _has_files(folder: Path) -> bool:
    runs = folder / "runs"
    return (folder / "served.json").exists() or (runs.exists() and any(runs.iterdir()))


def _load() -> "Callable[[WorkflowsConfig, Host, trio.Nursery], Awaitable[Parts]]":
    from linkspan.workflows.parts import make_parts

    return make_parts


async def run_webhooks(
    config: WebhooksConfig,
    host: Host,
    *,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen for requests that start pipelines, if the config says where."""
    if not config.listen:
        task_status.started("")
        await trio.sleep_forever()
    await _pipelines(host).parts()
    from linkspan.workflows.triggering.deliveries import Deliveries
    from linkspan.workflows.triggering.webhooks import Webhooks, serve_webhooks

    deliveries = Deliveries(host.state_dir / "deliveries.jsonl")
    await deliveries.load()
    webhooks = Webhooks(
        host=host,
        served=lambda: _pipelines(host).loaded().served,
        manager=lambda: _pipelines(host).loaded().manager,
        deliveries=deliveries,
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
    for method, pattern in ROUTES:
        router.add(method, pattern, _handler(host, method, pattern))
    SecretRoutes(host).register(router)


def _handler(host: Host, method: str, pattern: str) -> Handler:
    async def handle(request: Request) -> Answer:
        parts = await _pipelines(host).parts()
        return await parts.handlers[method, pattern](request)

    return handle
