"""``linkspan volume``: list, create, remove."""

from typing import Any

import click

from linkspan.core.cli import words
from linkspan.core.cli.command import command
from linkspan.core.cli.common import complete_volume, each, filters, key_values
from linkspan.core.cli.list_options import filter_option
from linkspan.core.cli.session import Session
from linkspan.core.client.short import segment


def fields(record: Any) -> dict[str, Any]:
    """Docker's names of what ``volume ls`` shows, for templates."""
    return {
        "Name": record.get("Name", ""),
        "Driver": record.get("Driver", ""),
        "Mountpoint": record.get("Mountpoint", ""),
        "Scope": record.get("Scope", ""),
        "Labels": words.labels(record.get("Labels")),
        # Counted by `system df`; groups and the like are those of a cluster's volumes.
        **dict.fromkeys(("Links", "Size", "Group", "Availability", "Status"), "N/A"),
    }


@command("ls", "List volumes.", examples=["linkspan volume ls", "linkspan volume ls -q"])
@filter_option("volume")
def ls(session: Session, filter_: tuple[str, ...]) -> None:
    """List volumes."""
    session.prefer("volumesFormat")
    answer = session.api.get("/volumes", {"filters": filters(filter_)})
    records = answer.get("Volumes") or []
    records.sort(key=lambda record: words.natural(record.get("Name", "")))
    now = session.now

    def cells(record: Any) -> list[str]:
        made = words.age_of(record.get("CreatedAt", ""), now)
        return [
            record.get("Name", ""),
            record.get("Driver", ""),
            made,
            record.get("Mountpoint", ""),
        ]

    session.rows(
        records,
        fields,
        cells,
        ["NAME", "DRIVER", "AGE", "MOUNTPOINT"],
        ids="Name",
        drop=["MOUNTPOINT"],
        keep=["NAME"],
        titles={"Name": "VOLUME NAME"},
        docker="{{.Driver}}\t{{.Name}}",
    )


@command(
    "create",
    "Create a volume and print its name; one that is there already is left as it is.",
    examples=["linkspan volume create data", "linkspan volume create --driver nfs uploads"],
)
@click.argument("name", default="")
@click.option("-d", "--driver", default="", help="Who keeps it")
@click.option("-o", "--opt", multiple=True, metavar="KEY=VALUE", help="For the driver")
@click.option("--label", multiple=True, metavar="KEY=VALUE", help="A label")
def create(
    session: Session, name: str, driver: str, opt: tuple[str, ...], label: tuple[str, ...]
) -> None:
    """Create a volume."""
    body = {
        "Name": name,
        "DriverOpts": key_values(opt, "--opt"),
        "Labels": key_values(label, "--label"),
    }
    if driver:
        body["Driver"] = driver
    session.terminal.print(session.api.post("/volumes/create", None, body)["Name"])


@command("rm", "Remove volumes that no container has.", examples=["linkspan volume rm data"])
@click.argument("volumes", nargs=-1, required=True, shell_complete=complete_volume)
@click.option("-f", "--force", is_flag=True, help="No error if it does not exist")
def rm(session: Session, volumes: tuple[str, ...], force: bool) -> int:
    """Remove volumes."""
    query = {"force": force or None}
    return each(session, volumes, lambda n: session.api.delete(f"/volumes/{segment(n)}", query))
