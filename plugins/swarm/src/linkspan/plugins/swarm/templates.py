"""From a task to the container that the engine is asked for.

Placeholders (``{{.Task.Slot}}``) in env, hostname and mounts are filled, and templates that ask for such
values (``{{if eq .Node.Hostname "a"}}``). Other braces are left alone: they may be meant for a program inside.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.generic_resources import resource_environment
from linkspan.sdk.model.container import ContainerSpec
from linkspan.sdk.model.network import EndpointSpec, PortBinding
from linkspan.sdk.model.service import Node, ServiceSpec, Task

TASK_LABEL = "com.docker.swarm.task.id"

# Names are not resolved there.
_NAMELESS = ("bridge", "default", "host", "none")

_PLACE = re.compile(r"\{\{\s*\.([A-Za-z.]+)\s*\}\}")
_ACTION = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_ASKED = re.compile(r"(?<![\w.])\.(?:Service|Node|Task)\b")
_CALLS = re.compile(r"\{\{-?\s*(?:env|secret|config)\s")


def values_of(task: Task, node: Node) -> Mapping[str, str]:
    """What may stand between the braces."""
    return {
        "Service.ID": task.service_id,
        "Service.Name": task.spec.name,
        "Node.ID": node.id,
        "Node.Hostname": node.hostname,
        "Node.Platform.OS": node.platform.os,
        "Node.Platform.Architecture": node.platform.architecture,
        "Task.ID": task.id,
        "Task.Name": task_name(task),
        "Task.Slot": str(task.slot),
    }


def task_name(task: Task) -> str:
    """``web.1.<task id>``, the container's name."""
    place = str(task.slot) if task.slot else task.node_id
    return f"{task.spec.name}.{place}.{task.id}"


def fill(
    text: str,
    values: Mapping[str, str],
    labels: Mapping[str, str],
    functions: Mapping[str, Callable[[str], str]] | None = None,
) -> str:
    """A text with its placeholders filled.

    Args:
        text: What a user wrote.
        values: Of ``values_of``.
        labels: Of the service.
        functions: What a template may call besides Go's own functions.

    Raises:
        InvalidArgument: An unknown placeholder, or a template that cannot be filled.
    """
    if _is_template(text, calls=functions is not None):
        return _as_template(text, values, labels, functions or {})

    def one(match: re.Match[str]) -> str:
        if match[1] not in values:
            known = ", ".join(f"{{{{.{name}}}}}" for name in values)
            raise InvalidArgument(f"unknown placeholder {match[0]}", help=f"known: {known}")
        return values[match[1]]

    return _PLACE.sub(one, text)


def _is_template(text: str, *, calls: bool) -> bool:
    """Whether more than plain placeholders asks for what we know of a task."""
    others = [action for action in _ACTION.findall(text) if not _PLACE.fullmatch(action)]
    return any(_ASKED.search(each) or (calls and _CALLS.match(each)) for each in others)


def _as_template(
    text: str,
    values: Mapping[str, str],
    labels: Mapping[str, str],
    functions: Mapping[str, Callable[[str], str]],
) -> str:
    # Few texts are templates, and every daemon starts with this module.
    from linkspan.sdk.templates import FUNCTIONS, Template, TemplateError
    from linkspan.sdk.templates.functions import Function

    data: dict[str, Any] = {}
    for path, value in values.items():
        *before, last = path.split(".")
        place = data
        for part in before:
            place = place.setdefault(part, {})
        place[last] = value
    data["Service"]["Labels"] = dict(labels)
    try:
        ours = {name: Function(call, ("string",)) for name, call in functions.items()}
        template = Template(text, functions={**FUNCTIONS, **ours}, name="expansion")
        return template.render(data)
    except TemplateError as error:
        raise InvalidArgument(f"expanding a template failed: {error}") from error


def container_spec(task: Task, node: Node) -> ContainerSpec:
    """What the engine is asked for: the service's container, as this task needs it.

    In its networks a service is known by its name and by ``tasks.<name>``: all addresses of its tasks.

    Raises:
        InvalidArgument: An unknown placeholder.
    """
    spec = _with_networks(task.spec)
    values, labels = values_of(task, node), task.spec.labels
    host_ports = (
        PortBinding(container_port=p.target_port, host_port=p.published_port, protocol=p.protocol)
        for p in task.spec.ports
        if p.mode == "host"
    )
    return attrs.evolve(
        spec,
        env=(
            *(fill(entry, values, labels) for entry in spec.env),
            *resource_environment(task.generic_resources),
        ),
        hostname=fill(spec.hostname, values, labels),
        mounts=tuple(
            attrs.evolve(
                mount,
                source=fill(mount.source, values, labels),
                target=fill(mount.target, values, labels),
            )
            for mount in spec.mounts
        ),
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
