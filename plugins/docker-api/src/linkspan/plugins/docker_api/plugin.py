"""Hook implementations: the routes of the Engine API."""

from linkspan.plugins.docker_api.build import BuildRoutes
from linkspan.plugins.docker_api.container_files import ContainerFileRoutes
from linkspan.plugins.docker_api.container_streams import ContainerStreamRoutes
from linkspan.plugins.docker_api.containers import ContainerRoutes
from linkspan.plugins.docker_api.distribution import DistributionRoutes
from linkspan.plugins.docker_api.events import EventRoutes
from linkspan.plugins.docker_api.execs import ExecRoutes
from linkspan.plugins.docker_api.image_archives import ImageArchiveRoutes
from linkspan.plugins.docker_api.images import ImageRoutes
from linkspan.plugins.docker_api.networks import NetworkRoutes
from linkspan.plugins.docker_api.nodes import NodeRoutes
from linkspan.plugins.docker_api.payloads import ConfigRoutes, SecretRoutes
from linkspan.plugins.docker_api.routing import DockerRouter, MakeSubject
from linkspan.plugins.docker_api.services import ServiceRoutes
from linkspan.plugins.docker_api.swarm import SwarmRoutes
from linkspan.plugins.docker_api.system import SystemRoutes
from linkspan.plugins.docker_api.tasks import TaskRoutes
from linkspan.plugins.docker_api.unsupported import UnsupportedRoutes
from linkspan.plugins.docker_api.volumes import VolumeRoutes
from linkspan.sdk.hooks import hookimpl
from linkspan.sdk.host import Host
from linkspan.sdk.http import Router

SUBJECTS: tuple[MakeSubject, ...] = (
    SystemRoutes,
    ContainerRoutes,
    ContainerStreamRoutes,
    ContainerFileRoutes,
    ExecRoutes,
    ImageRoutes,
    ImageArchiveRoutes,
    BuildRoutes,
    NetworkRoutes,
    VolumeRoutes,
    EventRoutes,
    DistributionRoutes,
    SwarmRoutes,
    ServiceRoutes,
    TaskRoutes,
    NodeRoutes,
    SecretRoutes,
    ConfigRoutes,
    UnsupportedRoutes,
)


@hookimpl
def linkspan_register_routes(router: Router, host: Host) -> None:
    """Add the routes of the Docker Engine API."""
    routes = DockerRouter(router)
    for subject in SUBJECTS:
        subject(host).add_to(routes)
