"""``linkspan swarm`` and ``linkspan node``."""

from collections.abc import Callable
from functools import cache
from typing import Any, Final

import click

from linkspan.core.cli import words
from linkspan.core.cli.command import Seconds, command
from linkspan.core.cli.common import complete, each, filters, key_values
from linkspan.core.cli.list_options import filter_option, no_resolve, no_trunc
from linkspan.core.cli.session import Session
from linkspan.core.cli.terminal import Terminal
from linkspan.core.client.short import segment

complete_node = complete(
    "/nodes", lambda record: [(record.get("Description") or {}).get("Hostname", "")]
)


_NS: Final = 1_000_000_000
_SETTINGS: Final = (
    ("autolock", "EncryptionConfig", "AutoLockManagers", 1),
    ("cert_expiry", "CAConfig", "NodeCertExpiry", _NS),
    ("dispatcher_heartbeat", "Dispatcher", "HeartbeatPeriod", _NS),
    ("max_snapshots", "Raft", "KeepOldSnapshots", 1),
    ("snapshot_interval", "Raft", "SnapshotInterval", 1),
    ("task_history_limit", "Orchestration", "TaskHistoryRetentionLimit", 1),
)


def change_spec(spec: dict[str, Any], options: dict[str, Any]) -> bool:
    """Write given options into an API SwarmSpec; whether there were any."""
    changed = False
    for option, section, key, factor in _SETTINGS:
        value = options[option]
        if value is not None:
            spec.setdefault(section, {})[key] = value if factor == 1 else round(value * factor)
            changed = True
    return changed


_OPTIONS: Final = (
    click.option("--autolock/--no-autolock", default=None, help="Managers start locked"),
    click.option("--cert-expiry", type=Seconds(), metavar="TIME", help="Of nodes' certificates"),
    click.option("--dispatcher-heartbeat", type=Seconds(), metavar="TIME", help="Of the nodes"),
    click.option("--max-snapshots", type=int, metavar="N", help="Old snapshots of the log to keep"),
    click.option("--snapshot-interval", type=int, metavar="N", help="Entries between snapshots"),
    click.option("--task-history-limit", type=int, metavar="N", help="Old tasks of a slot to keep"),
)


def settings_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Settings of the cluster, for ``swarm init`` and ``swarm update``."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@command(
    "init",
    "Make this machine a cluster of one, so that it can run services.",
    examples=["linkspan swarm init"],
    more=["linkspan service create", "linkspan swarm leave"],
)
@click.option("--advertise-addr", default="", metavar="ADDRESS", help="Where others find it")
@click.option("--listen-addr", default="0.0.0.0:2377", metavar="ADDRESS", help="Where it listens")
@click.option("--force-new-cluster", is_flag=True, help="Forget the other managers")
@click.option("--data-path-addr", default="", metavar="ADDRESS", help="For the containers' traffic")
@click.option("--data-path-port", type=int, metavar="PORT", help="For the containers' traffic")
@click.option("--default-addr-pool", multiple=True, metavar="CIDR", help="For networks")
@click.option("--default-addr-pool-mask-length", type=int, metavar="BITS", help="Of each network")
@click.option(
    "--availability", type=click.Choice(["active", "pause", "drain"]), help="Whether it takes tasks"
)
@settings_options
def init(session: Session, **options: Any) -> None:
    """Make a cluster."""
    body: dict[str, Any] = {
        "ListenAddr": options["listen_addr"],
        "AdvertiseAddr": options["advertise_addr"],
        "ForceNewCluster": options["force_new_cluster"],
        "DataPathAddr": options["data_path_addr"] or None,
        "DataPathPort": options["data_path_port"],
        "DefaultAddrPool": list(options["default_addr_pool"]) or None,
        "SubnetSize": options["default_addr_pool_mask_length"],
        "Availability": options["availability"],
    }
    body = {key: value for key, value in body.items() if value is not None}
    spec: dict[str, Any] = {}
    if change_spec(spec, options):
        body["Spec"] = spec
    session.terminal.print(str(session.api.post("/swarm/init", None, body)))


@command(
    "leave",
    "Leave the cluster; services and their tasks are gone with it.",
    examples=["linkspan swarm leave --force"],
)
@click.option("-f", "--force", is_flag=True, help="Even if this is the last manager")
def leave(session: Session, force: bool) -> None:
    """Leave the cluster."""
    session.api.post("/swarm/leave", {"force": force})
    session.terminal.note("left the cluster")


def _node_fields(record: Any) -> dict[str, Any]:
    manager = record.get("ManagerStatus") or {}
    return {
        "ID": record.get("ID", ""),
        "Hostname": (record.get("Description") or {}).get("Hostname", ""),
        "Status": (record.get("Status") or {}).get("State", ""),
        "Availability": (record.get("Spec") or {}).get("Availability", ""),
        "ManagerStatus": "Leader" if manager.get("Leader") else "Reachable" if manager else "",
        "EngineVersion": ((record.get("Description") or {}).get("Engine") or {}).get(
            "EngineVersion", ""
        ),
    }


def _node_state(terminal: Terminal, record: Any) -> str:
    fields = _node_fields(record)
    state, availability = fields["Status"], fields["Availability"]
    if state != "ready":
        return terminal.state("failed", "lost" if state == "down" else state)
    if availability == "drain":
        return terminal.state("holds", "draining")
    if availability == "pause":
        return terminal.state("holds", "paused")
    return terminal.state("running", "ready")


@command("ls", "List the machines of the cluster.", examples=["linkspan node ls"])
@filter_option("node")
def node_ls(session: Session, filter_: tuple[str, ...]) -> None:
    """List nodes."""
    session.prefer("nodesFormat")
    records = session.api.get("/nodes", {"filters": filters(filter_)})
    terminal, now = session.terminal, session.now

    def cells(record: Any) -> list[str]:
        fields = _node_fields(record)
        role = (record.get("Spec") or {}).get("Role", "")
        if fields["ManagerStatus"] == "Leader":
            role += "*"
        labels = words.labels((record.get("Spec") or {}).get("Labels"))
        return [
            fields["Hostname"],
            words.short_id(fields["ID"]),
            role,
            _node_state(terminal, record),
            labels,
            words.age_of(record.get("CreatedAt", ""), now),
        ]

    @cache
    def own_id() -> str:
        """The node of this daemon; asked for by templates alone."""
        return str((session.api.get("/info").get("Swarm") or {}).get("NodeID", ""))

    def fields(record: Any) -> dict[str, Any]:
        own = record.get("ID") == own_id()
        found = _node_fields(record)
        return {
            **found,
            "Status": found["Status"].title(),
            "Availability": found["Availability"].title(),
            "Self": own,
            "TLSStatus": "Unknown",
        }

    headers = ["NODE", "ID", "ROLE", "STATE", "LABELS", "AGE"]
    session.rows(
        records,
        fields,
        cells,
        headers,
        drop=["LABELS", "ID"],
        keep=["NODE", "STATE"],
        titles={"Self": ""},
        docker="{{.ID}} {{if .Self}}*{{else}} {{end}}\\t{{.Hostname}}\\t{{.Status}}"
        "\\t{{.Availability}}\\t{{.ManagerStatus}}\\t{{.EngineVersion}}",
    )


@command(
    "update",
    "Change a node: its labels, whether it takes tasks, its role.",
    examples=[
        "linkspan node update --availability drain demo-1",
        "linkspan node update --label-add zone=a --label-rm rack demo-1",
    ],
    more=["linkspan node ls", "linkspan node ps"],
)
@click.argument("node", shell_complete=complete_node)
@click.option(
    "--availability",
    type=click.Choice(["active", "pause", "drain"]),
    help="Whether it takes tasks; drain moves those that it has",
)
@click.option("--label-add", multiple=True, metavar="KEY=VALUE", help="A label")
@click.option("--label-rm", multiple=True, metavar="KEY", help="Remove a label")
@click.option("--role", type=click.Choice(["worker", "manager"]), help="Its role")
def node_update(
    session: Session,
    node: str,
    availability: str | None,
    label_add: tuple[str, ...],
    label_rm: tuple[str, ...],
    role: str | None,
) -> None:
    """Change a node."""
    found = session.api.get(f"/nodes/{segment(node)}")
    spec = found["Spec"]
    labels = {**(spec.get("Labels") or {}), **key_values(label_add, "--label-add")}
    for key in label_rm:
        if labels.pop(key, None) is None:
            session.terminal.note(f"there was no label '{key}'")
    body = {
        **spec,
        "Availability": availability or spec.get("Availability"),
        "Role": role or spec.get("Role"),
        "Labels": labels,
    }
    query = {"version": found["Version"]["Index"]}
    session.api.post(f"/nodes/{segment(found['ID'])}/update", query, body)
    session.terminal.print(node)


@command(
    "ps",
    "List the tasks of nodes; of this one if none is named.",
    examples=["linkspan node ps", "linkspan node ps --filter desired-state=running demo-1"],
    more=["linkspan service ps"],
)
@click.argument("nodes", nargs=-1, shell_complete=complete_node)
@filter_option("task")
@no_trunc
@no_resolve
def node_ps(
    session: Session,
    nodes: tuple[str, ...],
    filter_: tuple[str, ...],
    no_trunc: bool,
    no_resolve: bool,
) -> None:
    """List the tasks of nodes."""
    from linkspan.core.cli.service import show_tasks

    api = session.api
    identifiers = [api.get(f"/nodes/{segment(node)}")["ID"] for node in nodes or ("self",)]
    tasks = api.get("/tasks", {"filters": {**(filters(filter_) or {}), "node": identifiers}})
    names = {s["ID"]: s["Spec"]["Name"] for s in api.get("/services")} if tasks else {}
    show_tasks(session, tasks, names, no_trunc=no_trunc, resolve=not no_resolve)


@command("rm", "Remove nodes that have left.", examples=["linkspan node rm demo-3"])
@click.argument("nodes", nargs=-1, required=True, shell_complete=complete_node)
@click.option("-f", "--force", is_flag=True, help="Even if it is still there")
def node_rm(session: Session, nodes: tuple[str, ...], force: bool) -> int:
    """Remove nodes."""
    query = {"force": force or None}
    return each(session, nodes, lambda n: session.api.delete(f"/nodes/{segment(n)}", query))
