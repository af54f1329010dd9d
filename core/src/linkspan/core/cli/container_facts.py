"""``port``, ``top``, ``diff``: single facts about one container."""

from typing import Any, Final

import click

from linkspan.core.cli.command import command
from linkspan.core.cli.common import complete_container, complete_running
from linkspan.core.cli.failure import Failure
from linkspan.core.cli.session import Session
from linkspan.core.client.short import segment

_KINDS: Final = {0: "C", 1: "A", 2: "D"}
_COLORS: Final = {"C": "yellow", "A": "green", "D": "red"}


@command(
    "port",
    "Show where the ports of a container are published.",
    examples=["linkspan port web", "linkspan port web 80/tcp"],
    more=["linkspan ps"],
)
@click.argument("container", shell_complete=complete_container)
@click.argument("private", default="", metavar="[PORT[/PROTOCOL]]")
def port(session: Session, container: str, private: str) -> None:
    """Show published ports."""
    found = session.api.get(f"/containers/{segment(container)}/json")
    bindings = (found.get("NetworkSettings") or {}).get("Ports") or {}
    lines = [
        (
            key,
            f"[{ip}]:{b['HostPort']}"
            if ":" in (ip := b.get("HostIp", ""))
            else f"{ip}:{b['HostPort']}",
        )
        for key, places in sorted(bindings.items(), key=_by_number)
        for b in places or ()
    ]
    if not private:
        for key, place in lines:
            session.terminal.print(f"{key} -> {place}")
        return
    wanted = private if "/" in private else f"{private}/tcp"
    chosen = [place for key, place in lines if key == wanted]
    if not chosen:
        raise Failure(
            f"port {wanted} of container '{container}' is not published",
            helps=[f"linkspan port {container}"],
        )
    for place in chosen:
        session.terminal.print(place)


def _by_number(item: tuple[str, Any]) -> tuple[int, str]:
    number, _, protocol = item[0].partition("/")
    return int(number) if number.isdigit() else 0, protocol


@command(
    "top",
    "Show the processes of a container.",
    examples=["linkspan top web", "linkspan top web -o pid,rss,args"],
    more=["linkspan stats", "linkspan exec"],
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True},
)
@click.argument("container", shell_complete=complete_running)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[PS OPTION]...")
def top(session: Session, container: str, arguments: tuple[str, ...]) -> None:
    """Show processes."""
    query = {"ps_args": " ".join(arguments) or None}
    found = session.api.get(f"/containers/{segment(container)}/top", query)
    titles, processes = found.get("Titles") or [], found.get("Processes") or []
    if session.format not in ("", "table"):
        session.document([dict(zip(titles, row, strict=False)) for row in processes])
        return
    session.terminal.table(titles, processes, keep=titles[:-1])


@command(
    "diff",
    "Show what a container has changed in its file system: A added, C changed, D deleted.",
    examples=["linkspan diff web"],
    more=["linkspan commit", "linkspan cp"],
)
@click.argument("container", shell_complete=complete_container)
def diff(session: Session, container: str) -> None:
    """Show changed files."""
    from linkspan.core.cli.terminal import paint

    found = session.api.get(f"/containers/{segment(container)}/changes") or []
    records = [{"Type": _KINDS.get(c["Kind"], "?"), "Path": c["Path"]} for c in found]
    if session.format not in ("", "table"):
        session.document(records)
        return
    color = session.terminal.out_color
    for record in records:
        kind = record["Type"]
        session.terminal.print(f"{paint(kind, _COLORS.get(kind, 'dim'), color)} {record['Path']}")
