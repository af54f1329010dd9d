"""``linkspan plugin``: what is installed, what of it works, and why not."""

from typing import Any

import attrs
import click

from linkspan.core.cli.command import command
from linkspan.core.cli.failure import Failure
from linkspan.core.cli.session import Session
from linkspan.core.cli.terminal import Terminal
from linkspan.core.client.errors import Unreachable
from linkspan.core.client.short import Api
from linkspan.core.config.load import read_config
from linkspan.core.plugins.registry import PluginRegistry
from linkspan.sdk.diagnostics import did_you_mean
from linkspan.sdk.manifest import PluginManifest


def _rows(session: Session) -> list[dict[str, Any]]:
    """The running daemon's listing; what is installed where none runs."""
    try:
        api = Api(session.address.as_it_is(), silence_s=session.timeout_s or 5.0)
        found: list[dict[str, Any]] = api.get("/linkspan/v1/plugins")
    except Unreachable as exc:
        if exc.cause not in ("no-socket", "refused"):
            raise
    else:
        return found
    config, _ = read_config([session.config] if session.config else None)
    rows = PluginRegistry(config.plugins).discover().listing(config)
    return [attrs.asdict(row) for row in rows]


def _fields(record: dict[str, Any]) -> dict[str, Any]:
    return {
        "Name": record["plugin"],
        "Version": record["version"],
        "Role": record["role"],
        "Driver": record["name"],
        "State": record["state"],
        "Stage": record["stage"],
        "ChosenBy": record["chosen_by"],
        "Features": ", ".join(record["features"]),
        "Reason": record["reason"],
        "ID": record["plugin"],
    }


def _state(terminal: Terminal, state: str) -> str:
    sign = {"ready": "done", "disabled": "waiting", "alpha": "waiting", "broken": "failed"}
    return terminal.state(sign.get(state, "failed"), state)


@command(
    "ls",
    "List plugins, what each provides, and what does not work.",
    examples=["linkspan plugin ls", "linkspan plugin ls --format json"],
    more=["linkspan plugin show"],
)
def ls(session: Session) -> None:
    """List plugins; imports none of them."""
    records = _rows(session)
    terminal = session.terminal
    session.rows(
        records,
        _fields,
        lambda r: [
            r["plugin"],
            r["version"],
            r["role"],
            r["name"],
            _state(terminal, r["state"]),
            r["chosen_by"],
            str(r["calls"] or ""),
            str(r["faults"] or ""),
        ],
        ["PLUGIN", "VERSION", "ROLE", "NAME", "STATE", "CHOSEN BY", "CALLS", "FAULTS"],
        drop=["CALLS", "VERSION", "CHOSEN BY", "FAULTS"],
        keep=["PLUGIN", "STATE", "ROLE"],
    )
    for record in records:
        if record["reason"] and record["state"] in ("broken", "down", "muted"):
            what = f"{record['role']} {record['name']}".strip()
            label = f"{record['plugin']} ({what})" if what else record["plugin"]
            terminal.note(f"{terminal.painted_sign('failed')} {label}: {record['reason']}")


@command(
    "show",
    "Show what one plugin provides, who chose it, and its settings.",
    examples=["linkspan plugin show swarm", "linkspan plugin show swarm --format json"],
    more=["linkspan config show"],
)
@click.argument("name")
def show(session: Session, name: str) -> None:
    """Show one plugin, by its name or a driver's."""
    rows = _rows(session)
    chosen = [r for r in rows if r["plugin"] == name] or [r for r in rows if r["name"] == name]
    if not chosen:
        near = did_you_mean(name, {row["plugin"] for row in rows})
        hint = f"did you mean '{near}'?" if near else "linkspan plugin ls"
        raise Failure(f"no plugin named '{name}' is installed", id="LS2101", helps=[hint])
    if session.document(chosen, default="table"):
        return
    manifests = PluginRegistry().discover().manifests
    for plugin in dict.fromkeys(row["plugin"] for row in chosen):
        own = [row for row in chosen if row["plugin"] == plugin]
        _print_plugin(session.terminal, plugin, own, manifests.get(plugin))


def _print_plugin(
    terminal: Terminal, plugin: str, rows: list[dict[str, Any]], manifest: PluginManifest | None
) -> None:
    first = rows[0]
    summary = f"  {manifest.summary}" if manifest and manifest.summary else ""
    stage = f", {first['stage']}" if first["stage"] else ""
    terminal.print(f"{plugin} {first['version']}{summary}")
    terminal.print(f"  from       {first['distribution']}{stage}")
    for row in rows:
        state = _state(terminal, row["state"]) + (f": {row['reason']}" if row["reason"] else "")
        if not row["role"]:
            terminal.print(f"  {state}")
            continue
        features = f", can {', '.join(row['features'])}" if row["features"] else ""
        by = f", chosen by {row['chosen_by']}" if row["chosen_by"] else ""
        work = f", {row['calls']} calls, {row['faults']} faults" if row["calls"] else ""
        terminal.print(f"  {row['role']:<10} {row['name']}  {state}{features}{by}{work}")
    if manifest is not None:
        for verb in manifest.verbs:
            keys = ", ".join(verb.settings)
            terminal.print(f"  verb       {verb.name}: {verb.summary} (with: {keys})")
        for entry in manifest.commands:
            terminal.print(f"  command    linkspan {entry.words}: {entry.summary}")
