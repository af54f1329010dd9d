"""``linkspan images``: what it shows; without click (see ``quick``)."""

from __future__ import annotations

from linkspan.core.cli import words
from linkspan.core.cli.common import filters
from linkspan.core.cli.quick import Setting
from linkspan.sdk.units import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing these takes longer than a short command may
    from typing import Any, Final

    from linkspan.core.cli.session import Session

SETTINGS: Final = (
    Setting("every", ("-a", "--all"), "Intermediate ones too"),
    Setting(
        "filter_", ("-f", "--filter"), "Only these", "many", "KEY=VALUE", complete="filter:image"
    ),
    Setting("digests", ("--digests",), "Show the digests of the registries"),
    Setting("no_trunc", ("--no-trunc",), "Shorten nothing"),
)


def show(
    session: Session,
    *,
    reference: str = "",
    every: bool,
    filter_: tuple[str, ...],
    digests: bool,
    no_trunc: bool,
) -> None:
    """List images."""
    session.prefer("imagesFormat")
    asked = filters((*filter_, *([f"reference={reference}"] if reference else [])))
    found = session.api.get("/images/json", {"all": every or None, "filters": asked})
    if session.format in ("json", "jsonl", "yaml"):
        session.document(found)
        return
    records = [row for record in found for row in by_tag(record)]
    if session.quiet and not session.format:
        for identifier in dict.fromkeys(
            docker_fields(row, session.now, whole=no_trunc)["ID"] for row in records
        ):
            session.terminal.print(identifier)
        return
    now = session.now

    def cells(row: Any) -> list[str]:
        fields = docker_fields(row, now, whole=no_trunc)
        digest = [fields["Digest"]] if digests else []
        age = words.age_of(row.get("Created"), now)
        return [fields["Repository"], fields["Tag"], *digest, fields["ID"], fields["Size"], age]

    session.rows(
        records,
        lambda row: docker_fields(row, now, whole=no_trunc),
        cells,
        ["IMAGE", "TAG", *(["DIGEST"] if digests else []), "ID", "SIZE", "AGE"],
        drop=["DIGEST", "AGE", "ID"],
        keep=["IMAGE", "TAG"],
        trunc=not no_trunc,
        titles={"ID": "IMAGE ID"},
        docker="{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    )


def by_tag(record: Any) -> list[Any]:
    """One row a tag, as Docker lists them."""
    tags = [t for t in record.get("RepoTags") or () if t != "<none>:<none>"]
    if not tags:
        digests = record.get("RepoDigests") or ["<none>@<none>"]
        repository = digests[0].partition("@")[0]
        return [{**record, "_repository": repository, "_tag": "<none>"}]
    rows = []
    for tag in tags:
        repository, _, name = tag.rpartition(":")
        rows.append({**record, "_repository": repository, "_tag": name})
    return rows


def docker_fields(row: Any, now: float, *, whole: bool) -> dict[str, Any]:
    """Docker's names of what ``images`` shows of a row of ``by_tag``, for templates."""
    digests = [d for d in row.get("RepoDigests") or () if d.startswith(f"{row['_repository']}@")]
    digest = digests[0].partition("@")[2] if digests else "<none>"
    return {
        "ID": row["Id"] if whole else words.short_id(row["Id"]),
        "Repository": row["_repository"],
        "Tag": row["_tag"],
        "Digest": digest if whole or digest == "<none>" else words.short_digest(digest),
        "Size": format_size(row.get("Size") or 0),
        "CreatedAt": words.local_time(row.get("Created")),
        "CreatedSince": words.ago(row.get("Created"), now),
        "Containers": "N/A" if row.get("Containers", -1) < 0 else str(row["Containers"]),
        **_shared(row),
    }


def _shared(row: Any) -> dict[str, str]:
    """How much of an image others have, too; -1 where nobody has counted."""
    size, shared = row.get("Size") or 0, row.get("SharedSize", -1)
    counted = shared >= 0
    return {
        "SharedSize": format_size(shared, 4) if counted else "N/A",
        "UniqueSize": format_size(size - shared, 4) if counted else "N/A",
        "VirtualSize": format_size(size, 4),
    }
