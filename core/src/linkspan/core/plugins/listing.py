"""What ``linkspan plugin ls`` and ``plugin show`` print."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs

from linkspan.core.config.load import LoadedConfig
from linkspan.core.config.schema import DEFAULT_DRIVERS
from linkspan.core.plugins.drivers import DriverEntry
from linkspan.core.plugins.guard import CallStats
from linkspan.core.plugins.hooks import HookStats
from linkspan.sdk.manifest import PluginManifest
from linkspan.sdk.values import frozen


@frozen(kw_only=True)
class PluginProblem:
    """Something of a plugin that does not work.

    Attributes:
        plugin: Its name; the package's where the manifest cannot be read.
        distribution: Name and version of what was installed.
        part: ``manifest``, ``listener``, or a driver as ``role/name``.
        reason: In words.
    """

    plugin: str
    distribution: str
    part: str
    reason: str


@frozen(kw_only=True)
class PluginRow:
    """One thing that a plugin provides.

    Attributes:
        role: The driver's role, ``listener``, ``component`` or ``command``; empty for a plugin whose
            manifest is broken.
        name: The driver's or component's name, or the command's words.
        state: ``ready`` (may be loaded), ``disabled``, ``alpha`` (not switched on), ``broken``; of
            a running daemon also ``down`` (a driver that cannot be opened), ``muted`` (a listener).
        chosen_by: ``default``, the file and line that chose it, or empty if nobody did.
        reason: Why it is not ready.
        calls: Since the daemon's start.
        faults: Since the daemon's start.
    """

    plugin: str
    version: str
    stage: str = ""
    role: str = ""
    name: str = ""
    state: str = "ready"
    chosen_by: str = ""
    features: tuple[str, ...] = ()
    reason: str = ""
    distribution: str = ""
    calls: int = 0
    faults: int = 0


class Catalogue(Protocol):
    """What a listing needs of the registry."""

    @property
    def manifests(self) -> Mapping[str, PluginManifest]:
        """By plugin name."""

    @property
    def drivers(self) -> Mapping[tuple[str, str], DriverEntry]:
        """By role and name."""

    @property
    def problems(self) -> Sequence[PluginProblem]:
        """What does not work."""

    def plugin_of(self, role: str, name: str) -> str:
        """Who provides a driver."""

    def version_of(self, plugin: str) -> str:
        """A plugin's version."""

    def refusal(self, plugin: str) -> str:
        """Why a plugin may not take part."""

    def stats(self, role: str, name: str) -> CallStats:
        """What a driver has done."""


def rows_of(registry: Catalogue, config: LoadedConfig | None) -> list[PluginRow]:
    """Rows sorted by plugin, role and name; broken ones included."""
    rows = [row for name in registry.manifests for row in _plugin_rows(registry, name, config)]
    shown = {(row.role, row.name) for row in rows}
    for (role, name), entry in registry.drivers.items():
        if (role, name) not in shown:
            plugin = registry.plugin_of(role, name)
            _, _, version = entry.distribution.partition(" ")
            row = PluginRow(
                plugin=plugin,
                version=registry.version_of(plugin) or version,
                role=role,
                name=name,
                chosen_by=chosen_by(config, role, name),
                distribution=entry.distribution,
            )
            rows.append(_with_problem(registry, row))
    for problem in registry.problems:
        if problem.part == "manifest":
            name, _, version = problem.distribution.partition(" ")
            rows.append(
                PluginRow(
                    plugin=problem.plugin,
                    version=version,
                    state="broken",
                    reason=problem.reason,
                    distribution=problem.distribution,
                )
            )
    return sorted(rows, key=lambda row: (row.plugin, row.role, row.name))


def with_daemon_state(
    rows: Sequence[PluginRow],
    unusable: Mapping[tuple[str, str], str],
    hooks: Mapping[str, HookStats],
) -> list[PluginRow]:
    """Rows with what a running daemon knows better: drivers it could not open, muted listeners."""
    found = []
    for row in rows:
        reason = unusable.get((row.role, row.name))
        stats = hooks.get(row.plugin) if row.role == "listener" else None
        if reason and row.state == "ready":
            row = attrs.evolve(row, state="down", reason=reason)
        elif stats is not None:
            muted = f"failed {stats.failures_in_a_row} times in a row, last in {stats.last_failure}"
            row = attrs.evolve(row, calls=stats.calls, faults=stats.failures)
            if stats.muted:
                row = attrs.evolve(row, state="muted", reason=muted)
        found.append(row)
    return found


def _plugin_rows(registry: Catalogue, plugin: str, config: LoadedConfig | None) -> list[PluginRow]:
    manifest = registry.manifests[plugin]
    refusal = registry.refusal(plugin)
    state = "ready" if not refusal else "alpha" if refusal.startswith("alpha") else "disabled"
    base = PluginRow(
        plugin=plugin,
        version=manifest.version,
        stage=manifest.stage,
        state=state,
        reason=refusal,
        distribution=manifest.distribution,
    )
    rows = [
        attrs.evolve(
            base,
            role=driver.role,
            name=driver.name,
            features=driver.features,
            chosen_by=chosen_by(config, driver.role, driver.name),
            calls=registry.stats(driver.role, driver.name).calls,
            faults=registry.stats(driver.role, driver.name).faults,
        )
        for driver in manifest.drivers
    ]
    rows.extend(
        attrs.evolve(
            base,
            role="component",
            name=component.name,
            chosen_by=config.origin((component.name,)).place if config else "",
        )
        for component in manifest.components
    )
    if manifest.listener:
        rows.append(attrs.evolve(base, role="listener", name=plugin))
    if not rows:
        rows.extend(
            attrs.evolve(base, role="command", name=command.words) for command in manifest.commands
        )
    return [_with_problem(registry, row) for row in rows or [base]]


def _with_problem(registry: Catalogue, row: PluginRow) -> PluginRow:
    part = "listener" if row.role == "listener" else f"{row.role}/{row.name}"
    for problem in registry.problems:
        if problem.plugin == row.plugin and problem.part == part and row.state == "ready":
            harmless = problem.reason == "not in its manifest"
            state = row.state if harmless else "broken"
            return attrs.evolve(row, state=state, reason=problem.reason)
    return row


def chosen_by(config: LoadedConfig | None, role: str, name: str) -> str:
    """Who chose a driver: a file and line, the command line, ``default``, or nobody (empty)."""
    if config is None or role not in DEFAULT_DRIVERS or config.role(role).driver != name:
        return ""
    origin = config.origins.get((role, "driver"))
    return origin.place if origin else "default"
