"""From a task to the container that the engine is asked for.

Placeholders (``{{.Task.Slot}}``) in env, hostname and mounts are filled. Other braces are left alone:
they may be meant for a program inside.
"""

import re
from collections.abc import Mapping

import attrs

from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.container import ContainerSpec, Mount
from linkspan.sdk.model.network import EndpointSpec, PortBinding
from linkspan.sdk.model.service import Node, ServiceSpec, Task

TASK_LABEL = "com.docker.swarm.task.id"

# Names are not resolved there.
_NAMELESS = ("bridge", "default", "host", "none")

_PLACE = re.compile(r"\{\{\s*\.([A-Za-z.]+)\s*\}\}")


def values_of(task: Task, node: Node) -> Mapping[str, str]:
    """What may stand between the braces."""
    return {
        "Service.ID": task.service_id,
        "Service.Name": task.spec.name,
        "Node.ID": node.id,
        "Node.Hostname": node.hostname,
        "Task.ID": task.id,
        "Task.Name": task_name(task),
        "Task.Slot": str(task.slot),
    }


def task_name(task: Task) -> str:
    """``web.1.<task id>``, the container's name."""
    place = str(task.slot) if task.slot else task.node_id
    return f"{task.spec.name}.{place}.{task.id}"


def fill(text: str, values: Mapping[str, str]) -> str:
    """A text with its placeholders filled.

    Raises:
        InvalidArgument: An unknown placeholder.
    """

    def one(match: re.Match[str]) -> str:
        if match[1] not in values:
            known = ", ".join(f"{{{{.{name}}}}}" for name in values)
            raise InvalidArgument(f"unknown placeholder {match[0]}", help=f"known: {known}")
        return values[match[1]]

    return _PLACE.sub(one, text)


def container_spec(task: Task, node: Node) -> ContainerSpec:
    """What the engine is asked for: the service's container, as this task needs it.

    In its networks a service is known by its name and by ``tasks.<name>``: all addresses of its tasks.

    Raises:
        InvalidArgument: An unknown placeholder.
    """
    spec = _with_networks(task.spec)
    values = values_of(task, node)
    host_ports = (
        PortBinding(container_port=p.target_port, host_port=p.published_port, protocol=p.protocol)
        for p in task.spec.ports
        if p.mode == "host"
    )
    return attrs.evolve(
        spec,
        env=tuple(fill(entry, values) for entry in spec.env),
        hostname=fill(spec.hostname, values),
        mounts=tuple(_fill_mount(mount, values) for mount in spec.mounts),
        ports=(*spec.ports, *host_ports),
        labels={
            **spec.labels,
            "com.docker.swarm.node.id": node.id,
            "com.docker.swarm.service.id": task.service_id,
            "com.docker.swarm.service.name": task.spec.name,
            "com.docker.swarm.task": "",
            TASK_LABEL: task.id,
            "com.docker.swarm.task.name": task_name(task),
        },
    )


def _fill_mount(mount: Mount, values: Mapping[str, str]) -> Mount:
    return attrs.evolve(mount, source=fill(mount.source, values), target=fill(mount.target, values))


def _with_networks(service: ServiceSpec) -> ContainerSpec:
    spec = service.container
    if not service.networks:
        return spec
    first = service.networks[0]
    joined = {}
    for name in service.networks:
        endpoint = spec.networks.get(name, EndpointSpec())
        if name not in _NAMELESS:
            own = (service.name, f"tasks.{service.name}")
            endpoint = attrs.evolve(endpoint, aliases=(*endpoint.aliases, *own))
        if name != first or endpoint != EndpointSpec():
            joined[name] = endpoint
    return attrs.evolve(spec, network_mode=first, networks=joined)
