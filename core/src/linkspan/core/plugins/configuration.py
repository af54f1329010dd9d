"""Checks a whole configuration against the installed plugins, and prints the default one."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from linkspan.core.config.load import ConfigError, LoadedConfig
from linkspan.core.config.schema import (
    DEFAULT_DRIVERS,
    DaemonConfig,
    PluginsConfig,
)
from linkspan.core.plugins.registry import PluginRegistry
from linkspan.sdk.diagnostics import Diagnostic, Label, did_you_mean
from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.values import frozen

if TYPE_CHECKING:
    from linkspan.core.config.report import Table

DRIVER_TROUBLES: Final = ("LS2101", "LS2102", "LS2103")
"""Faults of what is installed, not of how the config is written."""


def check(config: LoadedConfig, registry: PluginRegistry) -> list[Diagnostic]:
    """Everything that is wrong with tables and choices, beyond what loading has found.

    Imports the drivers that are chosen and those that have a table of their own.
    """
    many = {role for role, _ in registry.drivers if role not in DEFAULT_DRIVERS}
    found = config.check_tables([*registry.components, *many])
    found.extend(_plugin_names(config, registry))
    for role in (*DEFAULT_DRIVERS, *sorted(many)):
        found.extend(_role(config, registry, role))
    for name in registry.components:
        if config.has_component(name):
            found.extend(_component(config, registry, name))
    return found


def _plugin_names(config: LoadedConfig, registry: PluginRegistry) -> Iterator[Diagnostic]:
    installed = {*registry.manifests, *(p.plugin for p in registry.problems)}
    for key, names in (
        ("disable", config.plugins.disable),
        ("enable-alpha", config.plugins.enable_alpha),
    ):
        for index, name in enumerate(names):
            if name not in installed:
                near = did_you_mean(name, installed)
                helps = (f"did you mean '{near}'?",) if near else ("linkspan plugin ls",)
                headline = f"no plugin named '{name}' is installed"
                path = ("plugins", key, index)
                yield _diagnostic(config, path, "LS2101", headline, helps, key=False)


def _role(config: LoadedConfig, registry: PluginRegistry, role: str) -> Iterator[Diagnostic]:
    tables = config.values.get(role, {})
    if not isinstance(tables, dict):
        return
    chosen = config.role(role).driver if role in DEFAULT_DRIVERS else None
    names = [chosen] if chosen else []
    names.extend(name for name in tables if name != "driver" and name not in names)
    for name in names:
        if name == chosen and ("driver" in tables or name not in tables):
            path, key = (role, "driver"), False
        else:
            path, key = (role, name), True
        try:
            driver = registry.driver_class(role, name)
        except LinkspanError as exc:
            identifier = {
                "driver_not_found": "LS2101",
                "plugin_disabled": "LS2102",
            }.get(exc.code, "LS2103")
            helps = (exc.help,) if exc.help else ()
            yield _diagnostic(config, path, identifier, exc.message, helps, key=key)
            continue
        try:
            config.driver_config(role, name, driver.config_type)
        except ConfigError as exc:
            yield from exc.diagnostics


def _component(config: LoadedConfig, registry: PluginRegistry, name: str) -> Iterator[Diagnostic]:
    try:
        config_type = registry.component_config_type(name)
    except LinkspanError as exc:
        yield _diagnostic(config, (name,), "LS2103", exc.message, ())
        return
    try:
        config.component(name, config_type or _NoSettings)
    except ConfigError as exc:
        yield from exc.diagnostics


@frozen(kw_only=True)
class _NoSettings:
    """A component without settings."""


def _diagnostic(
    config: LoadedConfig,
    path: tuple[str | int, ...],
    identifier: str,
    headline: str,
    helps: tuple[str, ...],
    *,
    key: bool = True,
) -> Diagnostic:
    origin = config.origin(path)
    span = origin.key if key else origin.value
    return Diagnostic(
        id=identifier,
        headline=headline,
        file=origin.file,
        primary=Label(span=span) if span else None,
        helps=helps,
        source=origin.source,
    )


def tables(registry: PluginRegistry) -> "list[Table]":
    """Every table that a config may hold, in the order of ``config default``.

    A driver that cannot be loaded is a remark in its place.
    """
    from linkspan.core.config.report import Table

    found = [Table.of(("daemon",), DaemonConfig), Table.of(("plugins",), PluginsConfig)]
    roles = [*DEFAULT_DRIVERS, *sorted({r for r, _ in registry.drivers} - set(DEFAULT_DRIVERS))]
    for role in roles:
        names = registry.driver_names(role)
        if role in DEFAULT_DRIVERS:
            found.append(Table.of_role(role, DEFAULT_DRIVERS[role], names))
        for name in names:
            try:
                config_type: type[Any] = registry.driver_class(role, name).config_type
            except LinkspanError as exc:
                found.append(Table((role, name), remark=exc.message.partition("\n")[0]))
            else:
                found.append(Table.of((role, name), config_type))
    for name in sorted(registry.components):
        try:
            component_type = registry.component_config_type(name)
        except LinkspanError as exc:
            found.append(Table((name,), remark=exc.message.partition("\n")[0]))
        else:
            found.append(Table.of((name,), component_type or _NoSettings, optional=True))
    return [table for table in found if table.entries or table.remark]
