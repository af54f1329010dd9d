"""``linkspan container``: list, stop, restart, kill, wait, remove."""

from typing import Any

import click

from linkspan.core.cli import words
from linkspan.core.cli.command import command
from linkspan.core.cli.common import complete_container, complete_running, each, filters
from linkspan.core.cli.session import Session
from linkspan.core.cli.terminal import Terminal
from linkspan.core.client.short import segment


def state_cell(terminal: Terminal, record: Any) -> str:
    """The state of a container as a word with its sign."""
    state, status = record.get("State", ""), record.get("Status", "")
    if state == "running":
        if "(unhealthy)" in status:
            return terminal.state("failed", "unhealthy")
        if "health: starting" in status:
            return terminal.state("running", "starting")
        return terminal.state("running", "healthy" if "(healthy)" in status else "up")
    if state == "paused":
        return terminal.state("holds", "paused")
    if state == "restarting":
        code = status.partition("(")[2].partition(")")[0]
        return terminal.state("retry", f"exit {code}, restarting" if code else "restarting")
    if state == "exited":
        code = status.partition("(")[2].partition(")")[0] or "?"
        return terminal.state("waiting" if code == "0" else "failed", f"exit {code}")
    return terminal.state("failed" if state == "dead" else "waiting", state)


def image_name(record: Any, *, trunc: bool) -> str:
    """The image as it was asked for; a pinned one without its digest, as docker shows it."""
    name: str = record.get("Image", "")
    return name.partition("@")[0] if trunc else name


def docker_fields(record: Any, now: float, *, trunc: bool = True) -> dict[str, Any]:
    """Docker's names of what ``ps`` shows, for templates."""
    identifier = record.get("Id", "")
    command_text = record.get("Command", "")
    networks = (record.get("NetworkSettings") or {}).get("Networks") or {}
    mounts = [m.get("Name") or m.get("Source", "") for m in record.get("Mounts") or ()]
    created = record.get("Created")
    return {
        "ID": words.short_id(identifier) if trunc else identifier,
        "Names": ",".join(name.lstrip("/") for name in record.get("Names") or ()),
        "Image": record.get("Image", ""),
        "Command": f'"{command_text}"',
        "CreatedAt": words.local_time(created),
        "RunningFor": f"{words.age_of(created, now)} ago",
        "Ports": words.docker_ports(record.get("Ports") or ()),
        "State": record.get("State", ""),
        "Status": record.get("Status", ""),
        "Labels": words.labels(record.get("Labels")),
        "LocalVolumes": str(len(mounts)),
        "Mounts": ",".join(mounts),
        "Networks": ",".join(networks),
        "Size": record.get("SizeRw", ""),
    }


@command(
    "ls",
    "List containers that run; with --all, all of them.",
    examples=[
        "linkspan ps",
        "linkspan ps --all --filter label=app=web",
        "linkspan ps --format '{{.Names}}: {{.Status}}'",
        "linkspan rm $(linkspan ps -aq --filter status=exited)",
    ],
    more=["linkspan inspect", "linkspan logs"],
)
@click.option("-a", "--all", "every", is_flag=True, help="Stopped ones too")
@click.option("-f", "--filter", "filter_", multiple=True, metavar="KEY=VALUE", help="Only these")
@click.option("-n", "--last", type=int, default=-1, metavar="N", help="The N newest, any state")
@click.option("-l", "--latest", is_flag=True, help="The newest, any state")
@click.option("-s", "--size", is_flag=True, help="Show the size of what each has written")
@click.option("--no-trunc", is_flag=True, help="Shorten nothing")
def ls(
    session: Session,
    every: bool,
    filter_: tuple[str, ...],
    last: int,
    latest: bool,
    size: bool,
    no_trunc: bool,
) -> None:
    """List containers."""
    query = {
        "all": every or None,
        "limit": 1 if latest else last if last > 0 else None,
        "size": size or None,
        "filters": filters(filter_),
    }
    records = session.api.get("/containers/json", query)
    now, terminal = session.now, session.terminal

    def cells(record: Any) -> list[str]:
        fields = docker_fields(record, now, trunc=not no_trunc)
        row = [
            fields["Names"],
            fields["ID"],
            image_name(record, trunc=not no_trunc),
            state_cell(terminal, record),
            words.ports(record.get("Ports") or ()),
            words.age_of(record.get("Created"), now),
        ]
        return [*row, _size(record)] if size else row

    session.rows(
        records,
        lambda record: docker_fields(record, now, trunc=not no_trunc),
        cells,
        ["NAME", "ID", "IMAGE", "STATE", "PORTS", "AGE", *(["SIZE"] if size else [])],
        drop=["PORTS", "ID", "IMAGE"],
        keep=["NAME", "STATE"],
        trunc=not no_trunc,
    )


def _size(record: Any) -> str:
    from linkspan.sdk.units import format_size

    own, whole = record.get("SizeRw") or 0, record.get("SizeRootFs") or 0
    return f"{format_size(own)} (virtual {format_size(whole)})"


@command(
    "stop",
    "Stop containers: their stop signal, then SIGKILL when the time is over.",
    examples=["linkspan stop web", "linkspan stop --time 30 web db"],
    more=["linkspan kill", "linkspan start"],
)
@click.argument("containers", nargs=-1, required=True, shell_complete=complete_running)
@click.option("-t", "--time", "--timeout", "seconds", type=int, help="Seconds until SIGKILL")
@click.option("-s", "--signal", "signal_", metavar="NAME", help="Instead of the container's own")
def stop(
    session: Session, containers: tuple[str, ...], seconds: int | None, signal_: str | None
) -> int:
    """Stop containers."""
    return each(session, containers, lambda name: _stop(session, name, "stop", seconds, signal_))


@command(
    "restart",
    "Stop and start containers.",
    examples=["linkspan restart web"],
    more=["linkspan stop", "linkspan start"],
)
@click.argument("containers", nargs=-1, required=True, shell_complete=complete_running)
@click.option("-t", "--time", "--timeout", "seconds", type=int, help="Seconds until SIGKILL")
@click.option("-s", "--signal", "signal_", metavar="NAME", help="Instead of the container's own")
def restart(
    session: Session, containers: tuple[str, ...], seconds: int | None, signal_: str | None
) -> int:
    """Stop and start containers."""
    return each(session, containers, lambda name: _stop(session, name, "restart", seconds, signal_))


def _stop(session: Session, name: str, verb: str, seconds: int | None, signal_: str | None) -> None:
    query = {"t": seconds, "signal": signal_}
    # The answer comes when the container has stopped, which its own stop time-out decides.
    with session.api.open("POST", f"/containers/{segment(name)}/{verb}", query, silence_s=None):
        pass


@command(
    "kill",
    "Send a signal to containers; SIGKILL if none is named.",
    examples=["linkspan kill web", "linkspan kill -s HUP web"],
    more=["linkspan stop"],
)
@click.argument("containers", nargs=-1, required=True, shell_complete=complete_running)
@click.option("-s", "--signal", "signal_", default="SIGKILL", metavar="NAME", help="The signal")
def kill(session: Session, containers: tuple[str, ...], signal_: str) -> int:
    """Send a signal to containers."""
    return each(
        session,
        containers,
        lambda name: session.api.post(f"/containers/{segment(name)}/kill", {"signal": signal_}),
    )


@command(
    "wait",
    "Wait until containers stop, then print their exit codes.",
    examples=["linkspan wait job"],
)
@click.argument("containers", nargs=-1, required=True, shell_complete=complete_running)
def wait(session: Session, containers: tuple[str, ...]) -> None:
    """Wait until containers stop."""
    for name in containers:
        path = f"/containers/{segment(name)}/wait"
        with session.api.open("POST", path, silence_s=None) as answer:
            session.terminal.print(str(answer.json()["StatusCode"]))


@command(
    "rm",
    "Remove containers that do not run; with --force, running ones too.",
    examples=["linkspan rm job", "linkspan rm --force --volumes web"],
    more=["linkspan stop", "linkspan volume rm"],
)
@click.argument("containers", nargs=-1, required=True, shell_complete=complete_container)
@click.option("-f", "--force", is_flag=True, help="Kill it if it runs")
@click.option("-v", "--volumes", is_flag=True, help="Its anonymous volumes too")
def rm(session: Session, containers: tuple[str, ...], force: bool, volumes: bool) -> int:
    """Remove containers."""
    query = {"force": force or None, "v": volumes or None}
    return each(
        session,
        containers,
        lambda name: session.api.delete(f"/containers/{segment(name)}", query),
    )
