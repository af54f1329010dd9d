"""``linkspan network``: list, create, remove."""

from typing import Any

import click

from linkspan.core.cli import words
from linkspan.core.cli.command import command
from linkspan.core.cli.common import each, filters, key_values
from linkspan.core.cli.session import Session
from linkspan.core.client.short import segment


def _fields(record: Any) -> dict[str, Any]:
    return {
        "ID": words.short_id(record.get("Id", "")),
        "Name": record.get("Name", ""),
        "Driver": record.get("Driver", ""),
        "Scope": record.get("Scope", ""),
        "Internal": "true" if record.get("Internal") else "false",
        "Labels": words.labels(record.get("Labels")),
        "CreatedAt": record.get("Created", ""),
    }


def _cells(record: Any) -> list[str]:
    fields = _fields(record)
    subnets = [c.get("Subnet", "") for c in (record.get("IPAM") or {}).get("Config") or ()]
    return [fields["Name"], fields["ID"], fields["Driver"], fields["Scope"], ", ".join(subnets)]


@command("ls", "List networks.", examples=["linkspan network ls", "linkspan network ls -q"])
@click.option("-f", "--filter", "filter_", multiple=True, metavar="KEY=VALUE", help="Only these")
@click.option("--no-trunc", is_flag=True, help="Shorten nothing")
def ls(session: Session, filter_: tuple[str, ...], no_trunc: bool) -> None:
    """List networks."""
    records = session.api.get("/networks", {"filters": filters(filter_)})
    headers = ["NAME", "ID", "DRIVER", "SCOPE", "SUBNETS"]
    session.rows(
        records, _fields, _cells, headers, drop=["SCOPE", "ID"], keep=["NAME"], trunc=not no_trunc
    )


@command(
    "create",
    "Create a network and print its id.",
    examples=["linkspan network create app", "linkspan network create --subnet 10.9.0.0/24 app"],
)
@click.argument("name")
@click.option("-d", "--driver", default="bridge", show_default=True, help="Who makes it")
@click.option("--subnet", multiple=True, metavar="CIDR", help="Addresses")
@click.option("--gateway", multiple=True, metavar="IP", help="The bridge's own address")
@click.option("--ip-range", multiple=True, metavar="CIDR", help="Addresses to hand out")
@click.option("--internal", is_flag=True, help="No way out of it")
@click.option("--attachable", is_flag=True, help="Single containers may join a service's network")
@click.option("--ipv6", is_flag=True, help="IPv6 addresses too")
@click.option("-o", "--opt", multiple=True, metavar="KEY=VALUE", help="For the driver")
@click.option("--label", multiple=True, metavar="KEY=VALUE", help="A label")
def create(
    session: Session,
    name: str,
    driver: str,
    subnet: tuple[str, ...],
    gateway: tuple[str, ...],
    ip_range: tuple[str, ...],
    internal: bool,
    attachable: bool,
    ipv6: bool,
    opt: tuple[str, ...],
    label: tuple[str, ...],
) -> None:
    """Create a network."""
    pools = [
        {
            key: values[index]
            for key, values in (("Subnet", subnet), ("Gateway", gateway), ("IPRange", ip_range))
            if index < len(values)
        }
        for index in range(max(len(subnet), len(gateway), len(ip_range)))
    ]
    body = {
        "Name": name,
        "Driver": driver,
        "Internal": internal,
        "Attachable": attachable,
        "EnableIPv6": ipv6,
        "IPAM": {"Driver": "default", "Config": pools},
        "Options": key_values(opt, "--opt"),
        "Labels": key_values(label, "--label"),
    }
    session.terminal.print(session.api.post("/networks/create", None, body)["Id"])


@command("rm", "Remove networks that no container uses.", examples=["linkspan network rm app"])
@click.argument("networks", nargs=-1, required=True)
def rm(session: Session, networks: tuple[str, ...]) -> int:
    """Remove networks."""
    return each(session, networks, lambda n: session.api.delete(f"/networks/{segment(n)}"))
