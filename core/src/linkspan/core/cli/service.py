"""``linkspan service``: list services and tasks, remove services."""

from typing import Any

import click

from linkspan.core.cli import words
from linkspan.core.cli.command import command
from linkspan.core.cli.common import complete_service, each, filters
from linkspan.core.cli.list_options import filter_option, no_resolve, no_trunc
from linkspan.core.cli.session import Session
from linkspan.core.cli.terminal import Terminal
from linkspan.core.client.short import segment

_ENDED = ("complete", "shutdown", "failed", "rejected", "orphaned", "remove")


def counts(record: Any) -> tuple[int, int]:
    """Running and desired tasks."""
    status = record.get("ServiceStatus") or {}
    return int(status.get("RunningTasks") or 0), int(status.get("DesiredTasks") or 0)


def service_ports(record: Any) -> str:
    """``8080→80``."""
    texts = []
    for port in (record.get("Endpoint") or {}).get("Ports") or ():
        protocol = "" if port.get("Protocol", "tcp") == "tcp" else f"/{port['Protocol']}"
        texts.append(f"{port.get('PublishedPort')}→{port.get('TargetPort')}{protocol}")
    return ", ".join(texts)


def image_of(record: Any) -> str:
    """The image of a service or task, its digest left out."""
    spec = record.get("Spec") or {}
    template = spec.get("TaskTemplate") or spec
    image = str((template.get("ContainerSpec") or {}).get("Image", ""))
    return image.partition("@")[0]


def _state(terminal: Terminal, record: Any) -> str:
    running, desired = counts(record)
    rollout = (record.get("UpdateStatus") or {}).get("State", "")
    if rollout in ("updating", "rollback_started"):
        word = "updating" if rollout == "updating" else "rolling back"
        return terminal.state("running", word)
    if rollout in ("paused", "rollback_paused"):
        return terminal.state("failed", "paused")
    if running < desired:
        return terminal.state("waiting", "starting")
    if rollout == "rollback_completed":
        return terminal.state("rolled-back", "rolled back")
    return terminal.state("done", "steady")


def _fields(record: Any) -> dict[str, Any]:
    spec = record.get("Spec") or {}
    running, desired = counts(record)
    return {
        "ID": words.short_id(record.get("ID", "")),
        "Name": spec.get("Name", ""),
        "Mode": next(iter(spec.get("Mode") or {}), "").lower(),
        "Replicas": f"{running}/{desired}",
        "Image": image_of(record),
        "Ports": service_ports(record),
    }


@command(
    "ls",
    "List services with how many of their tasks run.",
    examples=["linkspan service ls", "linkspan service ls --format '{{.Name}} {{.Replicas}}'"],
    more=["linkspan service ps"],
)
@filter_option("service")
def ls(session: Session, filter_: tuple[str, ...]) -> None:
    """List services."""
    records = session.api.get("/services", {"status": True, "filters": filters(filter_)})
    show_services(session, records)


def show_services(session: Session, records: list[Any]) -> None:
    """Print services as the API has sent them."""
    session.prefer("servicesFormat")
    terminal, now = session.terminal, session.now
    records.sort(key=lambda record: words.natural((record.get("Spec") or {}).get("Name", "")))

    def cells(record: Any) -> list[str]:
        fields = _fields(record)
        return [
            fields["Name"],
            _state(terminal, record),
            fields["Replicas"],
            fields["Image"],
            fields["Ports"],
            words.age_of(record.get("UpdatedAt", ""), now),
        ]

    headers = ["SERVICE", "STATE", "REPLICAS", "IMAGE", "PORTS", "UPDATED"]
    session.rows(
        records,
        _fields,
        cells,
        headers,
        drop=["UPDATED", "PORTS", "IMAGE"],
        keep=["SERVICE", "STATE", "REPLICAS"],
        titles={},
        docker="{{.ID}}\t{{.Name}}\t{{.Mode}}\t{{.Replicas}}\t{{.Image}}\t{{.Ports}}",
    )


def task_name(task: Any, services: dict[str, str]) -> str:
    """``web.2``; for a global service the node stands in the place of the slot."""
    service = services.get(task.get("ServiceID", ""), task.get("ServiceID", "")[:12])
    return f"{service}.{task.get('Slot') or words.short_id(task.get('NodeID', ''))}"


def _task_state(terminal: Terminal, task: Any) -> str:
    state = (task.get("Status") or {}).get("State", "")
    desired = task.get("DesiredState", "")
    if state == "running":
        return terminal.state("running" if desired == "running" else "waiting", state)
    if state in ("failed", "rejected", "orphaned"):
        return terminal.state("failed", state)
    return terminal.state("waiting", state)


@command(
    "ps",
    "List the tasks of services, with the error of those that failed.",
    examples=["linkspan service ps web", "linkspan service ps --no-trunc web"],
    more=["linkspan service ls"],
)
@click.argument("services", nargs=-1, required=True, shell_complete=complete_service)
@filter_option("task")
@no_trunc
@no_resolve
def ps(
    session: Session,
    services: tuple[str, ...],
    filter_: tuple[str, ...],
    no_trunc: bool,
    no_resolve: bool,
) -> None:
    """List tasks."""
    api = session.api
    names: dict[str, str] = {}
    for service in services:
        found = api.get(f"/services/{segment(service)}")
        names[found["ID"]] = found["Spec"]["Name"]
    asked = {**(filters(filter_) or {}), "service": list(names)}
    tasks = api.get("/tasks", {"filters": asked})
    show_tasks(session, tasks, names, no_trunc=no_trunc, resolve=not no_resolve)


class _TaskView:
    """A task as a row, and as what a template can name."""

    def __init__(self, session: Session, names: dict[str, str], nodes: dict[str, str]) -> None:
        self._terminal, self._now = session.terminal, session.now
        self._names, self._nodes = names, nodes

    def cells(self, task: Any) -> list[str]:
        name = task_name(task, self._names)
        status = task.get("Status") or {}
        return [
            f"  {name}" if _is_over(task) else name,
            words.short_id(task.get("ID", "")),
            self._nodes.get(task.get("NodeID", ""), ""),
            _task_state(self._terminal, task),
            task.get("DesiredState", ""),
            image_of(task),
            words.age_of(status.get("Timestamp", ""), self._now),
            status.get("Err", ""),
        ]

    def fields(self, task: Any) -> dict[str, Any]:
        status = task.get("Status") or {}
        since = words.ago(status.get("Timestamp", ""), self._now)
        return {
            "ID": words.short_id(task.get("ID", "")),
            "Name": task_name(task, self._names),
            "Image": image_of(task),
            "Node": self._nodes.get(task.get("NodeID", ""), ""),
            "DesiredState": task.get("DesiredState", "").title(),
            "CurrentState": f"{status.get('State', '').title()} {since[:1].lower()}{since[1:]}",
            "Error": status.get("Err", ""),
            "Ports": ",".join(
                f"*:{port.get('PublishedPort')}->{port.get('TargetPort')}/{port.get('Protocol')}"
                for port in (status.get("PortStatus") or {}).get("Ports") or ()
            ),
        }


def show_tasks(
    session: Session,
    tasks: list[Any],
    names: dict[str, str],
    *,
    no_trunc: bool,
    resolve: bool = True,
) -> None:
    """Print tasks, those of a slot together, the newest first.

    Args:
        session: Of the command.
        tasks: What the API sent.
        names: Service's id → its name.
        no_trunc: Shorten nothing.
        resolve: Show names instead of ids.
    """
    session.prefer("tasksFormat")
    names = names if resolve else {identifier: identifier for identifier in names}
    tasks.sort(key=lambda t: (task_name(t, names), _is_over(t), _newest_first(t)))
    nodes = (
        _node_names(session, tasks)
        if resolve
        else {t["NodeID"]: t["NodeID"] for t in tasks if t.get("NodeID")}
    )
    view = _TaskView(session, names, nodes)
    headers = ["TASK", "ID", "NODE", "STATE", "DESIRED", "IMAGE", "AGE", "ERROR"]
    session.rows(
        tasks,
        view.fields,
        view.cells,
        headers,
        drop=["ID", "DESIRED", "NODE", "IMAGE"],
        keep=["TASK", "STATE"],
        trunc=not no_trunc,
        docker="{{.ID}}\t{{.Name}}\t{{.Image}}\t{{.Node}}\t{{.DesiredState}}\t{{.CurrentState}}\t{{.Error}}\t{{.Ports}}",
    )


def _is_over(task: Any) -> bool:
    return (task.get("Status") or {}).get("State") in _ENDED


def _newest_first(task: Any) -> float:
    return -(words.parse_time(task.get("CreatedAt", "")) or 0.0)


def _node_names(session: Session, tasks: list[Any]) -> dict[str, str]:
    if not any(task.get("NodeID") for task in tasks):
        return {}
    return {
        node["ID"]: (node.get("Description") or {}).get("Hostname", "")
        for node in session.api.get("/nodes")
    }


@command("rm", "Remove services with their tasks.", examples=["linkspan service rm web"])
@click.argument("services", nargs=-1, required=True, shell_complete=complete_service)
def rm(session: Session, services: tuple[str, ...]) -> int:
    """Remove services."""
    return each(session, services, lambda n: session.api.delete(f"/services/{segment(n)}"))
