"""``version``, ``info`` and ``events``."""

import platform
from typing import Any, Final

import click

from linkspan.core.cli import words
from linkspan.core.cli.command import command
from linkspan.core.cli.common import filters
from linkspan.core.cli.context import in_use
from linkspan.core.cli.failure import of_error
from linkspan.core.cli.inspect import format_option
from linkspan.core.cli.list_options import filter_option
from linkspan.core.cli.session import Session
from linkspan.core.client.short import API_VERSION
from linkspan.sdk.errors import LinkspanError

_MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm"}
"""The kernel's names of machines → Go's, which images have."""


def client_version() -> str:
    """Version of the installed command line."""
    from importlib.metadata import PackageNotFoundError, version as installed

    try:
        return installed("linkspan-core")
    except PackageNotFoundError:
        return "unknown"


@command(
    "version",
    "Show the versions of client and daemon.",
    examples=["linkspan version", "linkspan version --format '{{.Server.Version}}'"],
)
@format_option
def version(session: Session) -> int:
    """Show versions."""
    client = {
        "Version": client_version(),
        "ApiVersion": API_VERSION,
        "DefaultAPIVersion": API_VERSION,
        "PythonVersion": platform.python_version(),
        "Os": "linux",
        "Arch": _MACHINES.get(platform.machine(), platform.machine()),
        "Context": in_use(session),
    }
    status, failure = 0, None
    try:
        server = session.api.get("/version")
    except LinkspanError as exc:
        server, failure = None, of_error(exc)
        status = failure.status
    if not session.document({"Client": client, "Server": server}, default="table"):
        terminal = session.terminal
        terminal.print(
            f"client  {client['Version']}  API {API_VERSION}  Python {client['PythonVersion']}"
        )
        if server:
            terminal.print(
                f"daemon  {server.get('Version')}  API {server.get('ApiVersion')} "
                f"(from {server.get('MinAPIVersion')})  "
                f"{server.get('Os')}/{server.get('Arch')}, kernel {server.get('KernelVersion')}"
            )
    if failure is not None:
        session.terminal.error(failure.render())
    return status


@command(
    "info",
    "Show the daemon, its drivers and what it holds.",
    examples=["linkspan info", "linkspan info --format '{{.ServerVersion}}'"],
)
@format_option
def info(session: Session) -> None:
    """Show the daemon."""
    found = session.api.get("/info")
    if session.document(found, default="table"):
        return
    running, paused = found.get("ContainersRunning", 0), found.get("ContainersPaused", 0)
    swarm = (found.get("Swarm") or {}).get("LocalNodeState", "inactive")
    rows = [
        ("daemon", f"{found.get('ServerVersion')}, {found.get('Name')} ({found.get('ID')})"),
        ("address", session.address.url),
        (
            "containers",
            f"{found.get('Containers', 0)}: {running} running, {paused} paused, "
            f"{found.get('ContainersStopped', 0)} stopped",
        ),
        ("images", str(found.get("Images", 0))),
        ("storage", f"{found.get('Driver')} in {found.get('DockerRootDir')}"),
        ("runtime", str(found.get("DefaultRuntime", ""))),
        ("cluster", swarm),
        ("cgroup", f"v{found.get('CgroupVersion', '?')}, {found.get('CgroupDriver', '?')}"),
        ("machine", f"{found.get('OperatingSystem')}, kernel {found.get('KernelVersion')}"),
    ]
    registries = ", ".join((found.get("RegistryConfig") or {}).get("InsecureRegistryCIDRs") or [])
    if registries:
        rows.append(("insecure", registries))
    for name, text in rows:
        session.terminal.print(f"{name:<11} {text}")
    for warning in found.get("Warnings") or ():
        session.terminal.note(f"{session.terminal.painted_sign('warned')} {warning}")


@command(
    "events",
    "Show what happens in the daemon, as it happens.",
    examples=[
        "linkspan events",
        "linkspan events --since 10m --until 0s",
        "linkspan events --filter type=container --format jsonl",
    ],
)
@click.option("--since", metavar="TIME", help="From a time on, or so long ago: 10m")
@click.option("--until", metavar="TIME", help="Up to a time, then end")
@filter_option("event")
def events(
    session: Session, since: str | None, until: str | None, filter_: tuple[str, ...]
) -> None:
    """Show events."""
    query = {
        "since": moment(since, session.now),
        "until": moment(until, session.now),
        "filters": filters(filter_),
    }
    terminal = session.terminal
    with session.api.open("GET", "/events", query, silence_s=None) as answer:
        for event in answer.json_lines():
            if session.format in ("json", "jsonl"):
                session.format = "jsonl"  # a stream has no end, so it is no document
                session.document(event)
            elif not session.document(event, default="table"):
                terminal.print(_event_line(event, whole=not terminal.out_is_tty))
            terminal.out.flush()


def _event_line(event: Any, *, whole: bool) -> str:
    """As Docker writes it; on a terminal with a short id."""
    actor = event.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    shown = ", ".join(f"{k}={v}" for k, v in sorted(attributes.items()))
    when = words.rfc3339_nano(event.get("timeNano") or 0)
    identifier = actor.get("ID", "") if whole else words.short_id(actor.get("ID", ""))
    line = f"{when} {event.get('Type')} {event.get('Action')} {identifier}"
    return f"{line} ({shown})" if shown else line


def moment(text: str | None, now: float) -> str | None:
    """A time for the API: seconds since the epoch, from such seconds, RFC 3339 or ``10m`` ago."""
    if text is None:
        return None
    from linkspan.sdk.errors import InvalidArgument
    from linkspan.sdk.units import parse_duration

    try:
        return f"{float(text):.9f}"
    except ValueError:
        pass
    try:
        return f"{now - parse_duration(text):.9f}"
    except InvalidArgument:
        parsed = words.parse_time(text)
    if parsed is None:
        hint = "write 10m, 2026-11-24T08:00:00Z or seconds since 1970"
        raise click.BadParameter(f"'{text}' is no time; {hint}")
    return f"{parsed:.9f}"
