"""``swarm join|join-token|update|unlock|unlock-key|ca``, ``node promote|demote``: who is in the cluster."""

import sys
from typing import Any, Final

import click

from linkspan.core.cli.command import command
from linkspan.core.cli.common import each
from linkspan.core.cli.failure import USAGE, Failure
from linkspan.core.cli.session import Session
from linkspan.core.cli.swarm import change_spec, complete_node, settings_options
from linkspan.core.client.short import segment

_PORT: Final = 2377


@command(
    "join",
    "Join a cluster, as a worker or a manager: the token decides.",
    examples=["linkspan swarm join --token SWMTKN-1-abc 10.0.0.5:2377"],
    more=["linkspan swarm join-token", "linkspan node ls"],
)
@click.argument("address", metavar="HOST:PORT")
@click.option("--token", required=True, metavar="TOKEN", help="From `linkspan swarm join-token`")
@click.option("--advertise-addr", default="", metavar="ADDRESS", help="Where others find this node")
@click.option("--listen-addr", default="0.0.0.0:2377", metavar="ADDRESS", help="Where it listens")
@click.option("--data-path-addr", default="", metavar="ADDRESS", help="For the containers' traffic")
@click.option(
    "--availability", type=click.Choice(["active", "pause", "drain"]), help="Whether it takes tasks"
)
def join(session: Session, address: str, availability: str | None, **options: str) -> None:
    """Join a cluster."""
    body: dict[str, Any] = {
        "ListenAddr": options["listen_addr"],
        "AdvertiseAddr": options["advertise_addr"],
        "DataPathAddr": options["data_path_addr"],
        "RemoteAddrs": [address],
        "JoinToken": options["token"],
    }
    if availability:
        body["Availability"] = availability
    with session.api.open("POST", "/swarm/join", None, body, silence_s=None):
        pass
    role = (
        "manager"
        if (session.api.get("/info").get("Swarm") or {}).get("ControlAvailable")
        else "worker"
    )
    session.terminal.note(f"this node joined the cluster as a {role}")


def _change(session: Session, spec: Any, version: int, **rotate: bool) -> None:
    query: dict[str, Any] = {"version": version, **{k: v for k, v in rotate.items() if v}}
    session.api.post("/swarm/update", query, spec)


@command(
    "join-token",
    "Print what another machine has to type to join.",
    examples=["linkspan swarm join-token worker", "linkspan swarm join-token --rotate -q manager"],
    more=["linkspan swarm join"],
)
@click.argument("role", type=click.Choice(["worker", "manager"]))
@click.option("--rotate", is_flag=True, help="Make a new token; the old one is worth nothing then")
def join_token(session: Session, role: str, rotate: bool) -> None:
    """Print a token."""
    found = session.api.get("/swarm")
    if rotate:
        worker = role == "worker"
        _change(
            session,
            found["Spec"],
            found["Version"]["Index"],
            rotateWorkerToken=worker,
            rotateManagerToken=not worker,
        )
        found = session.api.get("/swarm")
    token = (found.get("JoinTokens") or {}).get(role.title()) or ""
    if not token:
        raise Failure("this cluster has no join tokens: it takes no other nodes")
    if session.quiet:
        session.terminal.print(token)
        return
    swarm = session.api.get("/info").get("Swarm") or {}
    managers = swarm.get("RemoteManagers") or []
    address = managers[0]["Addr"] if managers else f"{swarm.get('NodeAddr', '')}:{_PORT}"
    session.terminal.print(f"linkspan swarm join --token {token} {address}")


@command(
    "update",
    "Change settings of the cluster.",
    examples=["linkspan swarm update --task-history-limit 2 --cert-expiry 720h"],
)
@settings_options
def update(session: Session, **options: Any) -> None:
    """Change the cluster."""
    found = session.api.get("/swarm")
    if change_spec(found["Spec"], options):
        _change(session, found["Spec"], found["Version"]["Index"])
        session.terminal.note("the cluster is updated")
    else:
        raise Failure("nothing to change", id="LS0004", status=USAGE)


@command(
    "unlock-key",
    "Print the key that opens locked managers.",
    examples=["linkspan swarm unlock-key", "linkspan swarm unlock-key --rotate -q"],
    more=["linkspan swarm unlock"],
)
@click.option("--rotate", is_flag=True, help="Make a new key")
def unlock_key(session: Session, rotate: bool) -> None:
    """Print the key."""
    if rotate:
        found = session.api.get("/swarm")
        _change(session, found["Spec"], found["Version"]["Index"], rotateManagerUnlockKey=True)
    key = session.api.get("/swarm/unlockkey").get("UnlockKey") or ""
    if not key:
        raise Failure(
            "the managers are not locked", helps=["linkspan swarm update --autolock=true"]
        )
    session.terminal.print(key)


@command(
    "unlock",
    "Open a locked manager; the key is read from stdin, or asked for.",
    examples=["linkspan swarm unlock < key"],
    more=["linkspan swarm unlock-key"],
)
def unlock(session: Session) -> None:
    """Open a manager."""
    asked = sys.stdin.isatty()
    key = click.prompt("Key", hide_input=True, err=True) if asked else sys.stdin.readline().strip()
    session.api.post("/swarm/unlock", None, {"UnlockKey": key})


@command(
    "ca",
    "Print the certificate of the cluster's authority.",
    examples=["linkspan swarm ca", "linkspan swarm ca --rotate"],
)
@click.option("--rotate", is_flag=True, help="Make a new one, and new certificates for all nodes")
def ca(session: Session, rotate: bool) -> None:
    """Print the root certificate."""
    found = session.api.get("/swarm")
    if rotate:
        authority = found["Spec"].setdefault("CAConfig", {})
        authority["ForceRotate"] = int(authority.get("ForceRotate") or 0) + 1
        _change(session, found["Spec"], found["Version"]["Index"])
        found = session.api.get("/swarm")
    root = (found.get("TLSInfo") or {}).get("TrustRoot") or ""
    if not root:
        raise Failure("this cluster has no authority: it has one node")
    session.terminal.write(root if root.endswith("\n") else f"{root}\n")


def _set_role(session: Session, nodes: tuple[str, ...], role: str) -> int:
    def change(name: str) -> list[str]:
        found = session.api.get(f"/nodes/{segment(name)}")
        if found["Spec"].get("Role") == role:
            session.terminal.note(f"node {name} is a {role} already")
            return []
        query = {"version": found["Version"]["Index"]}
        body = {**found["Spec"], "Role": role}
        session.api.post(f"/nodes/{segment(found['ID'])}/update", query, body)
        return [f"node {name} is a {role} now"]

    return each(session, nodes, change)


@command("promote", "Make workers managers.", examples=["linkspan node promote demo-2"])
@click.argument("nodes", nargs=-1, required=True, shell_complete=complete_node)
def promote(session: Session, nodes: tuple[str, ...]) -> int:
    """Make workers managers."""
    return _set_role(session, nodes, "manager")


@command("demote", "Make managers workers.", examples=["linkspan node demote demo-2"])
@click.argument("nodes", nargs=-1, required=True, shell_complete=complete_node)
def demote(session: Session, nodes: tuple[str, ...]) -> int:
    """Make managers workers."""
    return _set_role(session, nodes, "worker")
