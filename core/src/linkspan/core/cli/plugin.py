"""``linkspan plugin``: what is installed, what of it works, and why not."""

from typing import Any

import attrs
import click

from linkspan.core.cli.command import command
from linkspan.core.cli.failure import Failure
from linkspan.core.cli.session import Session
from linkspan.core.cli.terminal import Terminal
from linkspan.core.client.address import Address
from linkspan.core.client.short import Api
from linkspan.core.config.load import read_config
from linkspan.core.plugins.listing import PluginRow
from linkspan.core.plugins.registry import PluginRegistry
from linkspan.sdk.diagnostics import did_you_mean
from linkspan.sdk.errors import LinkspanError


def _rows(session: Session) -> tuple[PluginRegistry, list[PluginRow]]:
    """The listing, with what the daemon says of drivers it has tried, if one runs."""
    config, _ = read_config([session.config] if session.config else None)
    registry = PluginRegistry(config.plugins).discover()
    rows = registry.listing(config)
    unusable = _unusable(session)
    for index, row in enumerate(rows):
        reason = unusable.get(f"{row.role}/{row.name}")
        if reason and row.state == "ready":
            rows[index] = attrs.evolve(row, state="down", reason=reason)
    return registry, rows


def _unusable(session: Session) -> dict[str, str]:
    try:
        api = Api(Address(session.address.url), silence_s=2.0)
        found: dict[str, str] = api.get("/linkspan/v1/daemon")["unusable"]
    except (LinkspanError, KeyError, TypeError):
        return {}
    return found


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
    _, rows = _rows(session)
    records = [attrs.asdict(row) for row in rows]
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
        ],
        ["PLUGIN", "VERSION", "ROLE", "NAME", "STATE", "CHOSEN BY"],
        drop=["VERSION", "CHOSEN BY"],
        keep=["PLUGIN", "STATE", "ROLE"],
    )
    for row in rows:
        if row.reason and row.state in ("broken", "down"):
            what = f"{row.role} {row.name}".strip()
            label = f"{row.plugin} ({what})" if what else row.plugin
            terminal.note(f"{terminal.painted_sign('failed')} {label}: {row.reason}")


@command(
    "show",
    "Show what one plugin provides, who chose it, and its settings.",
    examples=["linkspan plugin show swarm", "linkspan plugin show swarm --format json"],
    more=["linkspan config show"],
)
@click.argument("name")
def show(session: Session, name: str) -> None:
    """Show one plugin, by its name or a driver's."""
    registry, rows = _rows(session)
    chosen = [row for row in rows if row.plugin == name] or [
        row for row in rows if row.name == name
    ]
    if not chosen:
        names = {row.plugin for row in rows}
        near = did_you_mean(name, names)
        hint = f"did you mean '{near}'?" if near else "linkspan plugin ls"
        raise Failure(f"no plugin named '{name}' is installed", id="LS2101", helps=[hint])
    if session.document([attrs.asdict(row) for row in chosen], default="table"):
        return
    terminal = session.terminal
    for plugin in dict.fromkeys(row.plugin for row in chosen):
        manifest = registry.manifests.get(plugin)
        own = [row for row in chosen if row.plugin == plugin]
        summary = f"  {manifest.summary}" if manifest and manifest.summary else ""
        stage = f", {own[0].stage}" if own[0].stage else ""
        terminal.print(f"{plugin} {own[0].version}{summary}")
        terminal.print(f"  from     {own[0].distribution}{stage}")
        for row in own:
            if row.role:
                _print_part(terminal, row)
        if manifest is not None:
            for verb in manifest.verbs:
                keys = ", ".join(verb.settings)
                terminal.print(f"  verb     {verb.name}: {verb.summary} (with: {keys})")
            for entry in manifest.commands:
                terminal.print(f"  command  linkspan {entry.words}: {entry.summary}")
        if own[0].reason and not own[0].role:
            terminal.print(f"  {_state(terminal, own[0].state)}: {own[0].reason}")


def _print_part(terminal: Terminal, row: PluginRow) -> None:
    features = f", can {', '.join(row.features)}" if row.features else ""
    chosen = f", chosen by {row.chosen_by}" if row.chosen_by else ""
    reason = f": {row.reason}" if row.reason else ""
    terminal.print(
        f"  {row.role:<8} {row.name}  {_state(terminal, row.state)}{reason}{features}{chosen}"
    )
