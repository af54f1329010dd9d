"""``linkspan config``: the default file, what is wrong, what is in force and where it came from."""

from collections.abc import Sequence

import click

from linkspan.core.cli.command import command
from linkspan.core.cli.failure import USAGE, Rendered
from linkspan.core.cli.session import Session
from linkspan.core.config.load import LoadedConfig, default_paths, read_config
from linkspan.core.config.report import default_text, in_force
from linkspan.core.plugins.configuration import check as check_config, tables
from linkspan.core.plugins.registry import PluginRegistry
from linkspan.sdk.diagnostics import Diagnostic, render_all


def _read(session: Session, files: Sequence[str]) -> tuple[LoadedConfig, list[Diagnostic]]:
    paths = list(files) or ([session.config] if session.config else None)
    return read_config(paths)


@command(
    "default",
    "Print a commented config file with every setting of the core and the installed drivers.",
    examples=["linkspan config default > /etc/linkspan.toml"],
    more=["linkspan config check", "linkspan config show"],
)
def default(session: Session) -> None:
    """Print the default config."""
    session.terminal.write(default_text(tables(PluginRegistry().discover())))


@command(
    "check",
    "Find everything that is wrong in the config, with file, line and column.",
    examples=["linkspan config check", "linkspan config check ./linkspan.toml"],
    more=["linkspan config default", "linkspan config show"],
)
@click.argument("files", nargs=-1)
def check(session: Session, files: tuple[str, ...]) -> int:
    """Check the config against the installed plugins."""
    config, found = _read(session, files)
    found = [*found, *check_config(config, PluginRegistry(config.plugins).discover())]
    if session.format in ("json", "jsonl"):
        session.document([_as_record(d) for d in found])
        return USAGE if found else 0
    if found:
        raise Rendered(render_all(found), len(found))
    names = ", ".join(str(f) for f in config.files) or "no config file, all defaults"
    session.terminal.note(f"{session.terminal.painted_sign('done')} {names}")
    return 0


def _as_record(diagnostic: Diagnostic) -> dict[str, object]:
    span = diagnostic.primary.span if diagnostic.primary else None
    return {
        "id": diagnostic.id,
        "severity": diagnostic.severity,
        "message": diagnostic.headline,
        "file": diagnostic.file,
        "line": span.line if span else None,
        "column": span.column if span else None,
        "helps": list(diagnostic.helps),
    }


@command(
    "show",
    "Show every setting in force, and the file and line it came from.",
    examples=["linkspan config show", "linkspan config show runtime", "linkspan config show --set"],
    more=["linkspan config check"],
)
@click.argument("prefix", default="")
@click.option("--set", "only_set", is_flag=True, help="Only what a file or a flag has set")
def show(session: Session, prefix: str, only_set: bool) -> None:
    """Show what is in force."""
    config, found = _read(session, ())
    registry = PluginRegistry(config.plugins).discover()
    records = [
        {"key": s.path, "value": s.value, "origin": s.origin}
        for s in in_force(config, tables(registry))
        if (not prefix or s.path == prefix or s.path.startswith(f"{prefix}."))
        and not (only_set and s.origin == "default")
    ]
    session.rows(
        records,
        lambda r: {"Key": r["key"], "Value": r["value"], "Origin": r["origin"], "ID": r["key"]},
        lambda r: [r["key"], r["value"], r["origin"]],
        ["KEY", "VALUE", "FROM"],
        keep=["KEY"],
    )
    searched = ", ".join(map(str, config.files or default_paths()[0])) or "none"
    session.terminal.note(f"files read: {searched}")
    if found:
        warned = session.terminal.painted_sign("warned")
        session.terminal.note(f"{warned} {len(found)} errors; linkspan config check shows them")
