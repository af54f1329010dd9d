"""Event hooks: awaited side by side, isolated, timed; what they return is ignored."""

from linkspan.sdk.events import Event
from linkspan.sdk.hooks import hookspec
from linkspan.sdk.host import DaemonInfo
from linkspan.sdk.model.container import Container
from linkspan.sdk.model.image import Image
from linkspan.sdk.model.network import Network
from linkspan.sdk.model.service import Task
from linkspan.sdk.model.step import StepIntent
from linkspan.sdk.model.volume import Volume


@hookspec
async def linkspan_daemon_started(daemon: DaemonInfo) -> None:
    """The API listens."""


@hookspec
async def linkspan_daemon_stopping(daemon: DaemonInfo) -> None:
    """The daemon ends soon; containers go on."""


@hookspec
async def linkspan_container_created(container: Container) -> None:
    """A container was made."""


@hookspec
async def linkspan_container_started(container: Container) -> None:
    """Its process runs."""


@hookspec
async def linkspan_container_exited(container: Container) -> None:
    """Its process has ended; the state says how."""


@hookspec
async def linkspan_container_health_changed(container: Container, old: str, new: str) -> None:
    """Its health check says something else."""


@hookspec
async def linkspan_container_removed(container: Container) -> None:
    """It is gone."""


@hookspec
async def linkspan_image_pulled(image: Image) -> None:
    """An image was pulled and named."""


@hookspec
async def linkspan_image_removed(image_id: str) -> None:
    """An image is gone."""


@hookspec
async def linkspan_network_created(network: Network) -> None:
    """A network was made."""


@hookspec
async def linkspan_network_removed(network: Network) -> None:
    """A network is gone."""


@hookspec
async def linkspan_volume_created(volume: Volume) -> None:
    """A volume was made."""


@hookspec
async def linkspan_volume_removed(name: str) -> None:
    """A volume is gone."""


@hookspec
async def linkspan_task_state_changed(task: Task, old: str, new: str) -> None:
    """A service's task is in another state."""


@hookspec
async def linkspan_step_finished(intent: StepIntent, result: str) -> None:
    """A pipeline's step has ended."""


@hookspec
async def linkspan_event(event: Event) -> None:
    """Every event, for shippers and metrics."""
