"""``linkspan service logs``: what all tasks of a service wrote, with whose line it is."""

import sys
from collections.abc import Iterator
from typing import Any

import click

from linkspan.core.cli.command import command
from linkspan.core.cli.common import complete_service
from linkspan.core.cli.failure import Failure
from linkspan.core.cli.logs import log_query
from linkspan.core.cli.service import task_name
from linkspan.core.cli.session import Session
from linkspan.core.client.errors import ApiError
from linkspan.core.client.frames import STDERR, demultiplex
from linkspan.core.client.short import segment

_TASK: str = "com.docker.swarm.task.id"


@command(
    "logs",
    "Show what the tasks of a service, or one task, wrote.",
    examples=["linkspan service logs web", "linkspan service logs --follow --tail 20 web"],
    more=["linkspan service ps", "linkspan logs"],
)
@click.argument("service", metavar="SERVICE|TASK", shell_complete=complete_service)
@click.option("-f", "--follow", is_flag=True, help="Go on as they write")
@click.option("-n", "--tail", default="all", metavar="N", help="Only the last N lines of each")
@click.option("-t", "--timestamps", is_flag=True, help="With the time of each line")
@click.option("--since", metavar="TIME", help="From a time on, or so long ago: 10m")
@click.option("--until", metavar="TIME", help="Up to a time")
@click.option("--raw", is_flag=True, help="Without the task's name before each line")
def logs(session: Session, service: str, raw: bool, **options: Any) -> None:
    """Show what a service wrote."""
    path, names = _target(session, service)
    query = log_query(session, **options) | {"details": not raw or None}
    out, err = sys.stdout.buffer, sys.stderr.buffer
    with session.api.open("GET", f"{path}/logs", query, silence_s=None) as answer:
        for stream, line in _lines(demultiplex(answer.pieces())):
            target = err if stream == STDERR else out
            shown = line if raw else _named(line, names, timestamps=options["timestamps"])
            target.write(shown)
            target.flush()


def _target(session: Session, name: str) -> tuple[str, dict[str, str]]:
    """Where the log is, and the names of the tasks that may write in it."""
    try:
        service = session.api.get(f"/services/{segment(name)}")
    except ApiError as exc:
        if exc.status != 404:
            raise
        return _task(session, name)
    tasks = session.api.get("/tasks", {"filters": {"service": [service["ID"]]}})
    services = {service["ID"]: service["Spec"]["Name"]}
    names = {task["ID"]: task_name(task, services) for task in tasks}
    return f"/services/{service['ID']}", names


def _task(session: Session, name: str) -> tuple[str, dict[str, str]]:
    try:
        task = session.api.get(f"/tasks/{segment(name)}")
    except ApiError as exc:
        if exc.status != 404:
            raise
        raise Failure(f"no such service or task: {name}", id="LS0102") from exc
    service = session.api.get(f"/services/{segment(task['ServiceID'])}")
    names = {task["ID"]: task_name(task, {service["ID"]: service["Spec"]["Name"]})}
    return f"/tasks/{task['ID']}", names


def _lines(pieces: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Whole lines of each stream; the last one may lack its end."""
    rest: dict[int, bytes] = {}
    for stream, piece in pieces:
        *whole, rest[stream] = (rest.get(stream, b"") + piece).split(b"\n")
        yield from ((stream, line + b"\n") for line in whole)
    yield from ((stream, line) for stream, line in rest.items() if line)


def _named(line: bytes, names: dict[str, str], *, timestamps: bool) -> bytes:
    """The line with its task's name, instead of what the daemon says about it."""
    moment = b""
    if timestamps:
        first, _, line = line.partition(b" ")
        moment = first + b" "
    details, _, text = line.partition(b" ")
    known = dict(pair.partition("=")[::2] for pair in details.decode(errors="replace").split(","))
    identifier = known.get(_TASK, "")
    name = names.get(identifier, identifier[:12] or "?")
    return moment + name.encode() + b" | " + text
