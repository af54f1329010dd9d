"""``linkspan container``: list, stop, restart, kill, wait, remove."""

from typing import Any

import click

from linkspan.core.cli import completing, container_list
from linkspan.core.cli.command import command, settings
from linkspan.core.cli.common import complete_container, complete_running, each
from linkspan.core.cli.session import Session
from linkspan.core.client.short import segment


@command(
    "ls",
    "List containers that run; with --all, all of them.",
    examples=[
        "linkspan ps",
        "linkspan ps --all --filter label=app=web",
        "linkspan ps --watch",
        "linkspan ps --format '{{.Names}}: {{.Status}}'",
        "linkspan rm $(linkspan ps -aq --filter status=exited)",
    ],
    more=["linkspan inspect", "linkspan logs"],
)
@settings(container_list.SETTINGS)
def ls(session: Session, **options: Any) -> None:
    """List containers."""
    container_list.show(session, **options)


@command(
    "stop",
    "Stop containers: their stop signal, then SIGKILL when the time is over.",
    examples=["linkspan stop web", "linkspan stop --time 30 web db"],
    more=["linkspan kill", "linkspan start"],
)
@click.argument("containers", nargs=-1, required=True, shell_complete=complete_running)
@click.option("-t", "--time", "--timeout", "seconds", type=int, help="Seconds until SIGKILL")
@click.option(
    "-s",
    "--signal",
    "signal_",
    metavar="NAME",
    help="Instead of the container's own",
    shell_complete=completing.signal_name,
)
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
@click.option(
    "-s",
    "--signal",
    "signal_",
    metavar="NAME",
    help="Instead of the container's own",
    shell_complete=completing.signal_name,
)
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
@click.option(
    "-s",
    "--signal",
    "signal_",
    default="SIGKILL",
    metavar="NAME",
    help="The signal",
    shell_complete=completing.signal_name,
)
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
def wait(session: Session, containers: tuple[str, ...]) -> int:
    """Wait until containers stop."""

    def ended(name: str) -> list[str]:
        path = f"/containers/{segment(name)}/wait"
        with session.api.open("POST", path, silence_s=None) as answer:
            return [str(answer.json()["StatusCode"])]

    return each(session, containers, ended)


@command(
    "rm",
    "Remove containers that do not run; with --force, running ones too.",
    examples=["linkspan rm job", "linkspan rm --force --volumes web"],
    more=["linkspan stop", "linkspan volume rm"],
)
@click.argument("containers", nargs=-1, required=True, shell_complete=complete_container)
@click.option("-f", "--force", is_flag=True, help="Kill it if it runs")
@click.option("-v", "--volumes", is_flag=True, help="Its anonymous volumes too")
@click.option("-l", "--link", is_flag=True, help="Only the name that is named, as in /web/db")
def rm(
    session: Session, containers: tuple[str, ...], force: bool, volumes: bool, link: bool
) -> int:
    """Remove containers."""
    query = {"force": force or None, "v": volumes or None, "link": link or None}
    return each(
        session,
        containers,
        lambda name: session.api.delete(f"/containers/{segment(name)}", query),
        missing_ok=force,
    )
