"""``linkspan ps``: what it shows; without click (see ``quick``)."""

from __future__ import annotations

from linkspan.core.cli import words
from linkspan.core.cli.common import filters
from linkspan.core.cli.quick import Setting

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing these takes longer than a short command may
    from typing import Any, Final

    from linkspan.core.cli.session import Session
    from linkspan.core.cli.terminal import Terminal

SETTINGS: Final = (
    Setting("every", ("-a", "--all"), "Stopped ones too"),
    Setting(
        "filter_",
        ("-f", "--filter"),
        "Only these",
        "many",
        "KEY=VALUE",
        complete="filter:container",
    ),
    Setting("last", ("-n", "--last"), "The N newest, any state", "number", "N", -1),
    Setting("latest", ("-l", "--latest"), "The newest, any state"),
    Setting("size", ("-s", "--size"), "Show the size of what each has written"),
    Setting("no_trunc", ("--no-trunc",), "Shorten nothing"),
    Setting("watch", ("-w", "--watch"), "Redraw it every second, until Ctrl-C"),
)
_COMMAND_WIDTH: Final = 20
_MOUNT_WIDTH: Final = 15
_DOCKER: Final = (
    "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
)
_TITLES: Final = {"ID": "CONTAINER ID"}
_DROP: Final = ("PORTS", "ID", "IMAGE")
_KEEP: Final = ("NAME", "STATE")
_WATCH_S: Final = 1.0


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
    if trunc:
        command_text = words.shortened(command_text, _COMMAND_WIDTH)
    networks = (record.get("NetworkSettings") or {}).get("Networks") or {}
    mounted = record.get("Mounts") or ()
    mounts = [m.get("Name") or m.get("Source", "") for m in mounted]
    if trunc:
        mounts = [words.shortened(mount, _MOUNT_WIDTH) for mount in mounts]
    created = record.get("Created")
    return {
        "ID": words.short_id(identifier) if trunc else identifier,
        "Names": ",".join(name.lstrip("/") for name in record.get("Names") or ()),
        "Image": record.get("Image", ""),
        "Command": f'"{command_text}"',
        "CreatedAt": words.local_time(created),
        "RunningFor": words.ago(created, now),
        "Ports": words.docker_ports(record.get("Ports") or ()),
        "State": record.get("State", ""),
        "Status": record.get("Status", ""),
        "Labels": words.labels(record.get("Labels")),
        "LocalVolumes": str(sum(m.get("Driver") == "local" for m in mounted)),
        "Mounts": ",".join(mounts),
        "Networks": ",".join(networks),
        "Platform": _platform(record),
        "Size": _size(record),
    }


def _platform(record: Any) -> str:
    """Of the image's manifest, where the daemon tells it."""
    found = (record.get("ImageManifestDescriptor") or {}).get("platform") or {}
    return "/".join(found[k] for k in ("os", "architecture", "variant") if found.get(k))


def show(
    session: Session,
    *,
    every: bool,
    filter_: tuple[str, ...],
    last: int,
    latest: bool,
    size: bool,
    no_trunc: bool,
    watch: bool,
) -> None:
    """List containers."""
    if not watch:
        session.prefer("psFormat")
    query = {
        "all": every or None,
        "limit": 1 if latest else last if last > 0 else None,
        "size": size or _asks_size(session.format) or None,
        "filters": filters(filter_),
    }
    terminal = session.terminal
    headers = ["NAME", "ID", "IMAGE", "STATE", "PORTS", "AGE", *(["SIZE"] if size else [])]

    def cells(record: Any) -> list[str]:
        now = session.now
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

    def frame() -> list[str]:
        rows = [cells(record) for record in session.api.get("/containers/json", query)]
        return terminal.table_lines(headers, rows, drop=_DROP, keep=_KEEP, trunc=not no_trunc)

    if watch and session.format in ("", "table") and not session.quiet:
        from linkspan.core.cli import live

        live.watch(terminal, frame, _WATCH_S)
        return
    session.rows(
        session.api.get("/containers/json", query),
        lambda record: docker_fields(record, session.now, trunc=not no_trunc),
        cells,
        headers,
        drop=_DROP,
        keep=_KEEP,
        trunc=not no_trunc,
        titles=_TITLES,
        docker=f"{_DOCKER}\t{{{{.Size}}}}" if size else _DOCKER,
    )


def _asks_size(template: str) -> bool:
    """Whether a template shows sizes, which the daemon counts only for those who ask."""
    return ".Size" in template or ("{{" in template and "json ." in template)


def _size(record: Any) -> str:
    from linkspan.sdk.units import format_size

    own, whole = format_size(record.get("SizeRw") or 0), record.get("SizeRootFs") or 0
    return f"{own} (virtual {format_size(whole)})" if whole else own
