"""``linkspan network``: list, create, connect, disconnect, remove."""

from typing import Any

import click

from linkspan.core.cli import words
from linkspan.core.cli.command import command
from linkspan.core.cli.common import complete_container, complete_network, each, filters, key_values
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
        records,
        _fields,
        _cells,
        headers,
        drop=["SCOPE", "ID"],
        keep=["NAME"],
        trunc=not no_trunc,
        titles={"ID": "NETWORK ID"},
        docker="{{.ID}}\\t{{.Name}}\\t{{.Driver}}\\t{{.Scope}}",
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
@click.argument("networks", nargs=-1, required=True, shell_complete=complete_network)
def rm(session: Session, networks: tuple[str, ...]) -> int:
    """Remove networks."""
    return each(session, networks, lambda n: session.api.delete(f"/networks/{segment(n)}"))


@command(
    "connect",
    "Join a container to a network, also while it runs.",
    examples=[
        "linkspan network connect app web",
        "linkspan network connect --alias db --ip 10.9.0.7 app postgres",
    ],
    more=["linkspan network disconnect"],
)
@click.argument("network", shell_complete=complete_network)
@click.argument("container", shell_complete=complete_container)
@click.option("--alias", multiple=True, metavar="NAME", help="A further name in this network")
@click.option("--ip", default="", metavar="IP", help="Its address")
@click.option("--ip6", default="", metavar="IP", help="Its IPv6 address")
@click.option("--link", multiple=True, metavar="CONTAINER[:ALIAS]", help="A name for another one")
@click.option("--link-local-ip", multiple=True, metavar="IP", help="A link-local address")
@click.option("--driver-opt", multiple=True, metavar="KEY=VALUE", help="For the network's driver")
@click.option("--gw-priority", type=int, help="The highest one gives the default route")
def connect(session: Session, network: str, container: str, **options: Any) -> None:
    """Join a container to a network."""
    addresses = {
        "IPv4Address": options["ip"],
        "IPv6Address": options["ip6"],
        "LinkLocalIPs": list(options["link_local_ip"]),
    }
    endpoint = {
        "Aliases": list(options["alias"]),
        "Links": list(options["link"]),
        "DriverOpts": key_values(options["driver_opt"], "--driver-opt"),
        "GwPriority": options["gw_priority"],
        "IPAMConfig": {key: value for key, value in addresses.items() if value},
    }
    body = {
        "Container": container,
        "EndpointConfig": {key: value for key, value in endpoint.items() if value},
    }
    session.api.post(f"/networks/{segment(network)}/connect", None, body)


@command(
    "disconnect",
    "Take a container out of a network.",
    examples=["linkspan network disconnect app web"],
    more=["linkspan network connect"],
)
@click.argument("network", shell_complete=complete_network)
@click.argument("container", shell_complete=complete_container)
@click.option("-f", "--force", is_flag=True, help="Even if the container cannot be found any more")
def disconnect(session: Session, network: str, container: str, force: bool) -> None:
    """Take a container out of a network."""
    body = {"Container": container, "Force": force}
    session.api.post(f"/networks/{segment(network)}/disconnect", None, body)
