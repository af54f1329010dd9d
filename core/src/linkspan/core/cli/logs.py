"""``linkspan logs``."""

import sys
from typing import Any

import click

from linkspan.core.cli.command import command
from linkspan.core.cli.common import complete_container
from linkspan.core.cli.session import Session
from linkspan.core.cli.system import moment
from linkspan.core.client.frames import STDERR, demultiplex
from linkspan.core.client.short import segment


@command(
    "logs",
    "Show what a container wrote.",
    examples=[
        "linkspan logs web",
        "linkspan logs --follow --tail 20 web",
        "linkspan logs --since 10m --timestamps web",
    ],
)
@click.argument("container", shell_complete=complete_container)
@click.option("-f", "--follow", is_flag=True, help="Go on as it writes")
@click.option("-n", "--tail", default="all", metavar="N", help="Only the last N lines")
@click.option("-t", "--timestamps", is_flag=True, help="With the time of each line")
@click.option("--since", metavar="TIME", help="From a time on, or so long ago: 10m")
@click.option("--until", metavar="TIME", help="Up to a time")
@click.option("--details", is_flag=True, help="With the log driver's extra attributes")
def logs(
    session: Session,
    container: str,
    follow: bool,
    tail: str,
    timestamps: bool,
    since: str | None,
    until: str | None,
    details: bool,
) -> None:
    """Show what a container wrote."""
    query = log_query(session, follow, tail, timestamps, since, until)
    query["details"] = details or None
    path = f"/containers/{segment(container)}"
    tty = session.api.get(f"{path}/json")["Config"].get("Tty", False)
    out, err = sys.stdout.buffer, sys.stderr.buffer
    with session.api.open("GET", f"{path}/logs", query, silence_s=None) as answer:
        if tty:
            for piece in answer.pieces():
                out.write(piece)
                out.flush()
            return
        for stream, payload in demultiplex(answer.pieces()):
            target = err if stream == STDERR else out
            target.write(payload)
            target.flush()


def log_query(
    session: Session,
    follow: bool,
    tail: str,
    timestamps: bool,
    since: str | None,
    until: str | None,
) -> dict[str, Any]:
    """What the API is asked for, from the options that logs of all kinds have.

    Raises:
        click.BadParameter: One cannot be read.
    """
    if tail != "all" and not tail.isdigit():
        raise click.BadParameter(f"'{tail}' is neither a number nor 'all'", param_hint="--tail")
    return {
        "stdout": True,
        "stderr": True,
        "follow": follow,
        "tail": tail,
        "timestamps": timestamps,
        "since": moment(since, session.now),
        "until": moment(until, session.now),
    }
