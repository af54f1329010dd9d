"""``linkspan network``: list, create, connect, disconnect, remove."""

from typing import Any

import click

from linkspan.core.cli import words
from linkspan.core.cli.command import command
from linkspan.core.cli.common import (
    bad_value,
    complete_container,
    complete_network,
    each,
    filters,
    key_values,
)
from linkspan.core.cli.list_options import filter_option, no_trunc
from linkspan.core.cli.session import Session
from linkspan.core.client.errors import ApiError
from linkspan.core.client.short import segment


def _fields(record: Any, *, trunc: bool = True) -> dict[str, Any]:
    identifier = record.get("Id", "")
    return {
        "ID": words.short_id(identifier) if trunc else identifier,
        "Name": record.get("Name", ""),
        "Driver": record.get("Driver", ""),
        "Scope": record.get("Scope", ""),
        "IPv4": "true" if record.get("EnableIPv4", True) else "false",
        "IPv6": "true" if record.get("EnableIPv6") else "false",
        "Internal": "true" if record.get("Internal") else "false",
        "Labels": words.labels(record.get("Labels")),
        "CreatedAt": words.go_time(record.get("Created", "")),
    }


def _cells(record: Any, *, trunc: bool) -> list[str]:
    fields = _fields(record, trunc=trunc)
    subnets = [c.get("Subnet", "") for c in (record.get("IPAM") or {}).get("Config") or ()]
    return [fields["Name"], fields["ID"], fields["Driver"], fields["Scope"], ", ".join(subnets)]


@command("ls", "List networks.", examples=["linkspan network ls", "linkspan network ls -q"])
@filter_option("network")
@no_trunc
def ls(session: Session, filter_: tuple[str, ...], no_trunc: bool) -> None:
    """List networks."""
    session.prefer("networksFormat")
    records = session.api.get("/networks", {"filters": filters(filter_)})
    records.sort(key=lambda record: words.natural(record.get("Name", "")))
    headers = ["NAME", "ID", "DRIVER", "SCOPE", "SUBNETS"]
    session.rows(
        records,
        lambda record: _fields(record, trunc=not no_trunc),
        lambda record: _cells(record, trunc=not no_trunc),
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
@click.option("--aux-address", multiple=True, metavar="NAME=IP", help="Addresses that are taken")
@click.option("--ipam-driver", default="default", metavar="NAME", help="Who hands out addresses")
@click.option("--ipam-opt", multiple=True, metavar="KEY=VALUE", help="For that one")
@click.option("--internal", is_flag=True, help="No way out of it")
@click.option("--attachable", is_flag=True, help="Single containers may join a service's network")
@click.option("--ingress", is_flag=True, help="The one that publishes the ports of services")
@click.option("--ipv4/--no-ipv4", default=None, help="With IPv4 addresses (the usual)")
@click.option("--ipv6/--no-ipv6", default=None, help="IPv6 addresses too")
@click.option("--scope", default="", metavar="SCOPE", help="local, or swarm")
@click.option("--config-only", is_flag=True, help="Only settings, for other networks to take")
@click.option("--config-from", default="", metavar="NETWORK", help="Take that one's settings")
@click.option("-o", "--opt", multiple=True, metavar="KEY=VALUE", help="For the driver")
@click.option("--label", multiple=True, metavar="KEY=VALUE", help="A label")
def create(session: Session, name: str, **options: Any) -> None:
    """Create a network."""
    body: dict[str, Any] = {
        "Name": name,
        "Driver": options["driver"],
        "Internal": options["internal"],
        "Attachable": options["attachable"],
        "Ingress": options["ingress"],
        "IPAM": {
            "Driver": options["ipam_driver"],
            "Options": key_values(options["ipam_opt"], "--ipam-opt"),
            "Config": _pools(options),
        },
        "Options": key_values(options["opt"], "--opt"),
        "Labels": key_values(options["label"], "--label"),
        "ConfigOnly": options["config_only"],
    }
    if options["config_from"]:
        body["ConfigFrom"] = {"Network": options["config_from"]}
    for option, key in (("ipv4", "EnableIPv4"), ("ipv6", "EnableIPv6")):
        if options[option] is not None:
            body[key] = options[option]
    if options["scope"]:
        body["Scope"] = options["scope"]
    made = session.api.post("/networks/create", None, body)
    for warning in filter(None, [made.get("Warning")]):
        session.terminal.note(f"{session.terminal.painted_sign('warned')} {warning}")
    session.terminal.print(made["Id"])


def _pools(options: dict[str, Any]) -> list[dict[str, Any]]:
    """One pool a subnet, with what lies in it; without a subnet, the rest makes one pool."""
    import ipaddress

    def parsed(text: str, option: str) -> Any:
        try:
            return ipaddress.ip_interface(text)
        except ValueError as exc:
            raise bad_value(f"'{text}' is no address", option) from exc

    pools: list[dict[str, Any]] = [{"Subnet": text} for text in options["subnet"]]
    nets = [parsed(text, "--subnet").network for text in options["subnet"]]
    auxiliary = key_values(options["aux_address"], "--aux-address")
    items = [("Gateway", "--gateway", text, text) for text in options["gateway"]]
    items += [("IPRange", "--ip-range", text, text) for text in options["ip_range"]]
    items += [("", "--aux-address", name, text) for name, text in auxiliary.items()]
    for key, option, name, text in items:
        address = parsed(text, option).ip
        index = next((n for n, net in enumerate(nets) if address in net), None)
        if index is None and nets:
            raise bad_value(f"'{text}' lies in no --subnet", option)
        if index is None:
            pools = pools or [{}]
            index = 0
        if key:
            pools[index][key] = text
        else:
            pools[index].setdefault("AuxiliaryAddresses", {})[name] = text
    return pools


@command("rm", "Remove networks that no container uses.", examples=["linkspan network rm app"])
@click.argument("networks", nargs=-1, required=True, shell_complete=complete_network)
@click.option("-f", "--force", is_flag=True, help="No error if it does not exist")
def rm(session: Session, networks: tuple[str, ...], force: bool) -> int:
    """Remove networks."""

    def remove(name: str) -> list[str] | None:
        try:
            session.api.delete(f"/networks/{segment(name)}")
        except ApiError as exc:
            if not force or exc.status != 404:
                raise
            return []
        return None

    return each(session, networks, remove)


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
