"""What the daemon calls: the component ``registry-server``."""

import trio

from linkspan.plugins.registry_server.config import RegistryServerConfig
from linkspan.sdk.hooks import hookimpl
from linkspan.sdk.hooks.registration import Components
from linkspan.sdk.host import Host


@hookimpl
def linkspan_register_components(components: Components) -> None:
    """Add the registry; it stays idle while ``listen`` is empty."""
    components.add("registry-server", run, config_type=RegistryServerConfig)


async def run(
    config: RegistryServerConfig, host: Host, *, task_status: trio.TaskStatus[str]
) -> None:
    """See ``Components.add``; the server is imported only when it is on."""
    if not config.listen:
        task_status.started("")
        await trio.sleep_forever()
    from linkspan.plugins.registry_server.component import serve_registry

    await serve_registry(config, host, task_status=task_status)
