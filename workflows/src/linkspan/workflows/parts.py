"""What carries a daemon's pipelines, once there are any; see ``plugin``."""

from collections.abc import Mapping
from typing import Final

import attrs
import trio

from linkspan.sdk.host import Host
from linkspan.sdk.http import Handler
from linkspan.workflows.config import WorkflowsConfig
from linkspan.workflows.manager import RunManager
from linkspan.workflows.routes import Routes
from linkspan.workflows.triggering.routes import ServedRoutes
from linkspan.workflows.triggering.served import Served
from linkspan.workflows.verbs import Verbs

_TIDY_S: Final = 3600.0


@attrs.frozen
class Parts:
    """See the module.

    Attributes:
        handlers: Of requests, by method and pattern.
    """

    manager: RunManager
    served: Served
    handlers: Mapping[tuple[str, str], Handler]


class Handlers(dict[tuple[str, str], Handler]):
    """A router that only gathers."""

    def add(self, method: str, pattern: str, handler: Handler) -> None:
        """See ``Router``."""
        self[method, pattern] = handler


async def make_parts(config: WorkflowsConfig, host: Host, nursery: trio.Nursery) -> Parts:
    """Take up the runs and folders of earlier daemons; the nursery carries what goes on from now on."""
    verbs = Verbs(host.daemon.manifests)
    manager = RunManager(host, verbs, nursery, config=config)
    await manager.recover()
    served = Served(state=host.state_dir / "served.json", verbs=verbs)
    await served.load()
    handlers = Handlers()
    Routes(lambda: manager).register(handlers)
    ServedRoutes(lambda: served).register(handlers)
    nursery.start_soon(served.keep_time, manager)
    nursery.start_soon(_keep_tidy, manager)
    return Parts(manager, served, handlers)


async def _keep_tidy(manager: RunManager) -> None:
    """Runs grow too old also while none ends."""
    while True:
        await manager.retention.tidy()
        await trio.sleep(_TIDY_S)
