"""``linkspan system df``: what takes how much room."""

from typing import Any

import click

from linkspan.core.cli import image_list, words
from linkspan.core.cli.command import command
from linkspan.core.cli.container_list import docker_fields
from linkspan.core.cli.session import Session
from linkspan.core.cli.volume import fields as volume_fields
from linkspan.sdk.units import format_size


@command(
    "df",
    "Show how much room images, containers, volumes and the build cache take.",
    examples=[
        "linkspan system df",
        "linkspan system df --verbose",
        "linkspan system df --format json",
    ],
    more=["linkspan system prune"],
)
@click.option("-v", "--verbose", "details", is_flag=True, help="Each object")
def df(session: Session, details: bool) -> None:
    """Show what takes how much room."""
    with session.api.open("GET", "/system/df", silence_s=None) as answer:
        found = answer.json() or {}
    if details and session.format in ("", "table"):
        _details(session, found)
        return
    if details:
        session.document(_document(found, session.now))
        return
    session.rows(
        [_images(found), _containers(found), _volumes(found), _cache(found)],
        lambda record: record,
        lambda record: list(record.values()),
        ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"],
        ids="Type",
        docker="{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
    )


def _row(kind: str, total: int, active: int, size: int, free: int) -> dict[str, str]:
    share = f" ({100 * free // size}%)" if size else ""
    return {
        "Type": kind,
        "TotalCount": str(total),
        "Active": str(active),
        "Size": format_size(size, 4),
        "Reclaimable": f"{format_size(free, 4)}{share}",
    }


def _images(found: Any) -> dict[str, str]:
    images = found.get("Images") or []
    used = [image for image in images if (image.get("Containers") or 0) > 0]
    size = int(found.get("LayersSize") or 0)
    kept = sum((i.get("Size") or 0) - max(0, i.get("SharedSize") or 0) for i in used)
    return _row("Images", len(images), len(used), size, max(0, size - kept))


def _containers(found: Any) -> dict[str, str]:
    containers = found.get("Containers") or []
    active = [c for c in containers if c.get("State") in ("running", "paused", "restarting")]
    size = sum(c.get("SizeRw") or 0 for c in containers)
    kept = sum(c.get("SizeRw") or 0 for c in active)
    return _row("Containers", len(containers), len(active), size, size - kept)


def _volumes(found: Any) -> dict[str, str]:
    volumes = [v.get("UsageData") or {} for v in found.get("Volumes") or []]
    used = [v for v in volumes if (v.get("RefCount") or 0) > 0]
    size = sum(max(0, v.get("Size") or 0) for v in volumes)
    kept = sum(max(0, v.get("Size") or 0) for v in used)
    return _row("Local Volumes", len(volumes), len(used), size, size - kept)


def _cache(found: Any) -> dict[str, str]:
    entries = found.get("BuildCache") or []
    used = [e for e in entries if e.get("InUse")]
    size = sum(e.get("Size") or 0 for e in entries if not e.get("Shared"))
    kept = sum(e.get("Size") or 0 for e in used if not e.get("Shared"))
    return _row("Build Cache", len(entries), len(used), size, size - kept)


def _document(found: Any, now: float) -> dict[str, Any]:
    """Each object by Docker's names, for templates and JSON."""
    images = [row for image in found.get("Images") or [] for row in image_list.by_tag(image)]
    return {
        "Images": [image_list.docker_fields(row, now, whole=True) for row in images],
        "Containers": [
            docker_fields(container, now, trunc=False)
            for container in found.get("Containers") or []
        ],
        "Volumes": [_volume_fields(volume) for volume in found.get("Volumes") or []],
        "BuildCache": [_cache_fields(entry, now) for entry in found.get("BuildCache") or []],
    }


def _volume_fields(volume: Any) -> dict[str, Any]:
    used = volume.get("UsageData") or {}
    return {
        **volume_fields(volume),
        "Links": str(used.get("RefCount", 0)),
        "Size": format_size(max(0, used.get("Size") or 0)),
    }


def _cache_fields(entry: Any, now: float) -> dict[str, Any]:
    made, used = entry.get("CreatedAt", ""), entry.get("LastUsedAt") or ""
    return {
        "ID": entry.get("ID", ""),
        "Parent": entry.get("Parent", ""),
        "CacheType": entry.get("Type", ""),
        "Description": entry.get("Description", ""),
        "Size": format_size(entry.get("Size") or 0),
        "CreatedAt": words.go_time(made),
        "CreatedSince": words.ago(made, now),
        "LastUsedAt": words.go_time(used),
        "LastUsedSince": words.ago(used, now) if used else "",
        "UsageCount": str(entry.get("UsageCount", 0)),
        "InUse": "true" if entry.get("InUse") else "false",
        "Shared": "true" if entry.get("Shared") else "false",
    }


def _details(session: Session, found: Any) -> None:
    terminal, now = session.terminal, session.now

    def section(title: str, headers: list[str], rows: list[list[str]]) -> None:
        terminal.print(f"{title}: {len(rows) or 'none'}")
        if rows:
            terminal.table(headers, rows, keep=headers[:1])
        terminal.print()

    section(
        "Images",
        ["IMAGE", "ID", "AGE", "SIZE", "SHARED", "UNIQUE", "CONTAINERS"],
        [_image_cells(image, now) for image in found.get("Images") or ()],
    )
    section(
        "Containers",
        ["NAME", "ID", "IMAGE", "VOLUMES", "SIZE", "STATE", "AGE"],
        [_container_cells(container, now) for container in found.get("Containers") or ()],
    )
    section(
        "Volumes",
        ["NAME", "USERS", "SIZE"],
        [_volume_cells(volume) for volume in found.get("Volumes") or ()],
    )
    section(
        "Build cache",
        ["ID", "TYPE", "SIZE", "AGE", "USED", "SHARED"],
        [_cache_cells(entry, now) for entry in found.get("BuildCache") or ()],
    )


def _image_cells(image: Any, now: float) -> list[str]:
    shared = max(0, image.get("SharedSize") or 0)
    size = image.get("Size") or 0
    return [
        ", ".join(image.get("RepoTags") or ["<none>"]),
        words.short_id(image.get("Id", "")),
        words.age_of(image.get("Created"), now),
        format_size(size),
        format_size(shared),
        format_size(size - shared),
        str(max(0, image.get("Containers") or 0)),
    ]


def _container_cells(container: Any, now: float) -> list[str]:
    return [
        ",".join(name.lstrip("/") for name in container.get("Names") or ()),
        words.short_id(container.get("Id", "")),
        container.get("Image", ""),
        str(sum(mount.get("Type") == "volume" for mount in container.get("Mounts") or ())),
        format_size(container.get("SizeRw") or 0),
        container.get("State", ""),
        words.age_of(container.get("Created"), now),
    ]


def _volume_cells(volume: Any) -> list[str]:
    usage = volume.get("UsageData") or {}
    return [
        volume.get("Name", ""),
        str(usage.get("RefCount", 0)),
        format_size(max(0, usage.get("Size") or 0)),
    ]


def _cache_cells(entry: Any, now: float) -> list[str]:
    return [
        words.short_id(entry.get("ID", "")),
        entry.get("Type", ""),
        format_size(entry.get("Size") or 0),
        words.age_of(entry.get("CreatedAt", ""), now),
        str(entry.get("UsageCount", 0)),
        "yes" if entry.get("Shared") else "no",
    ]
