"""``history`` and ``search``: where an image comes from, and what a registry has."""

from typing import Any

import click

from linkspan.core.cli import words
from linkspan.core.cli.command import command
from linkspan.core.cli.common import complete_image, filters
from linkspan.core.cli.credentials import registry_auth
from linkspan.core.cli.list_options import filter_option, no_trunc
from linkspan.core.cli.session import Session
from linkspan.core.client.short import segment
from linkspan.sdk.reference import registry_named_by
from linkspan.sdk.units import format_size


@command(
    "history",
    "Show the steps that made an image, the newest first.",
    examples=["linkspan history web", "linkspan history --no-trunc --format '{{.CreatedBy}}' web"],
    more=["linkspan images", "linkspan inspect"],
)
@click.argument("image", shell_complete=complete_image)
@no_trunc
@click.option("--human/--no-human", "-H", default=True, help="Sizes and times for people (default)")
@click.option("--platform", default="", metavar="OS/ARCH", help="Of an image with several")
def history(session: Session, image: str, no_trunc: bool, human: bool, platform: str) -> None:
    """Show how an image was made."""
    query = {"platform": platform or None}
    records = session.api.get(f"/images/{segment(image)}/history", query)
    now = session.now

    def fields(record: Any) -> dict[str, Any]:
        identifier = str(record.get("Id") or "<missing>")
        if identifier != "<missing>" and not no_trunc:
            identifier = words.short_id(identifier)
        made = str(record.get("CreatedBy") or "").replace("\t", " ")
        if not no_trunc:
            made = words.shortened(made, 45)
        size = record.get("Size") or 0
        return {
            "ID": identifier,
            "CreatedSince": words.ago(record.get("Created"), now),
            "CreatedAt": words.rfc3339(record.get("Created")),
            "CreatedBy": made,
            "Size": format_size(size) if human else str(size),
            "Comment": record.get("Comment") or "",
        }

    def cells(record: Any) -> list[str]:
        shown = fields(record)
        age = words.age_of(record.get("Created"), now) if human else shown["CreatedAt"]
        return [shown["ID"], age, shown["CreatedBy"], shown["Size"], shown["Comment"]]

    session.rows(
        records,
        fields,
        cells,
        ["IMAGE", "AGE", "CREATED BY", "SIZE", "COMMENT"],
        drop=["COMMENT"],
        keep=["IMAGE", "SIZE"],
        trunc=not no_trunc,
        titles={"ID": "IMAGE"},
        docker="{{.ID}}\\t{{.CreatedSince}}\\t{{.CreatedBy}}\\t{{.Size}}\\t{{.Comment}}",
    )


@command(
    "search",
    "Search a registry for images.",
    examples=["linkspan search nginx", "linkspan search --limit 5 --filter is-official=true redis"],
    more=["linkspan pull"],
)
@click.argument("term")
@filter_option("search")
@click.option("--limit", type=click.IntRange(1, 100), metavar="N", help="At most so many")
@no_trunc
def search(
    session: Session, term: str, filter_: tuple[str, ...], limit: int | None, no_trunc: bool
) -> None:
    """Search a registry."""
    query = {"term": term, "limit": limit, "filters": filters(filter_)}
    headers = {"X-Registry-Auth": registry_auth(term)}
    with session.api.open("GET", "/images/search", query, headers=headers) as answer:
        records = answer.json() or []
    registry = registry_named_by(term)

    def fields(record: Any) -> dict[str, Any]:
        text = " ".join(str(record.get("description") or "").split())
        return {
            # What is found there can be pulled by the name that is shown.
            "Name": "/".join(filter(None, (registry, record.get("name", "")))),
            "Description": text if no_trunc else words.shortened(text, 45),
            "StarCount": str(record.get("star_count", 0)),
            "IsOfficial": "[OK]" if record.get("is_official") else "",
        }

    session.rows(
        records,
        fields,
        lambda record: list(fields(record).values()),
        ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"],
        ids="Name",
        docker="{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}",
        drop=["OFFICIAL", "STARS"],
        keep=["NAME"],
        trunc=not no_trunc,
    )
