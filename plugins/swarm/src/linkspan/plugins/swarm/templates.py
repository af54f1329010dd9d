"""Placeholders of a service's spec, filled for each task (``{{.Task.Slot}}``)."""

import re
from collections.abc import Mapping

import attrs

from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.container import ContainerSpec
from linkspan.sdk.model.service import Node, Task

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
    """What the engine is asked for: the service's container, as this task needs it."""
    values = values_of(task, node)
    spec = task.spec.container
    return attrs.evolve(
        spec,
        env=tuple(fill(entry, values) for entry in spec.env),
        hostname=fill(spec.hostname, values),
        mounts=tuple(attrs.evolve(m, source=fill(m.source, values)) for m in spec.mounts),
        labels={
            **spec.labels,
            "com.docker.swarm.node.id": node.id,
            "com.docker.swarm.service.id": task.service_id,
            "com.docker.swarm.service.name": task.spec.name,
            "com.docker.swarm.task": "",
            "com.docker.swarm.task.id": task.id,
            "com.docker.swarm.task.name": task_name(task),
        },
    )
