"""Reads the configuration: files, then what the command line says.

`/etc/linkspan.toml` comes first, then `/etc/linkspan.d/*.toml` by name; a later file replaces
single keys of an earlier one, arrays as a whole. `--config FILE` (or LINKSPAN_CONFIG) replaces all
of them by one file.
"""

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

import attrs

from linkspan.core.config.positions import Path as KeyPath, scan
from linkspan.core.config.schema import (
    DEFAULT_CONFIG,
    DEFAULT_CONFIG_DIR,
    DEFAULT_DRIVERS,
    NAMED_DRIVER_ROLES,
    DaemonConfig,
    PluginsConfig,
    RoleConfig,
)
from linkspan.core.config.structure import Fault, FaultsError, describe, structure
from linkspan.sdk.diagnostics import Diagnostic, Label, Span, did_you_mean, render_all
from linkspan.sdk.errors import InvalidArgument, NotFound
from linkspan.sdk.values import frozen

T = TypeVar("T")

MAX_FILE_BYTES: Final = 1 << 20
COMMAND_LINE: Final = "command line"
_CORE_TABLES: Final = ("daemon", "plugins")
_WHERE: Final = re.compile(r"\s*\(at line (\d+), column (\d+)\)$")


class ConfigError(InvalidArgument):
    """The configuration is wrong; every fault is in ``diagnostics``."""

    default_code = "invalid_config"

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        super().__init__(render_all(diagnostics))
        self.diagnostics = tuple(diagnostics)


@frozen
class Origin:
    """Where a value came from.

    Attributes:
        file: The path, or ``command line``.
        key: Place of the key; None for the command line.
        value: Place of the value; None for the command line.
        source: The file's text.
    """

    file: str
    key: Span | None = None
    value: Span | None = None
    source: str = attrs.field(default="", repr=False)

    @property
    def place(self) -> str:
        """``/etc/linkspan.toml:12`` or ``command line``."""
        return self.file if self.key is None else f"{self.file}:{self.key.line}"


@frozen(kw_only=True)
class LoadedConfig:
    """The merged configuration.

    Attributes:
        daemon: The daemon's own settings.
        plugins: Which plugins may take part.
        values: All tables, merged, as plain TOML values.
        origins: Where each path of ``values`` came from.
        files: The files that were read, in order.
    """

    daemon: DaemonConfig
    plugins: PluginsConfig
    values: Mapping[str, Any] = attrs.field(repr=False)
    origins: Mapping[KeyPath, Origin] = attrs.field(repr=False)
    files: tuple[Path, ...] = ()

    def role(self, role: str) -> RoleConfig:
        """The driver chosen for a role, with the tables of all its drivers.

        Raises:
            NotFound: There is no such role.
        """
        default = DEFAULT_DRIVERS.get(role, "")
        if not default and role not in NAMED_DRIVER_ROLES:
            roles = ", ".join((*DEFAULT_DRIVERS, *NAMED_DRIVER_ROLES))
            raise NotFound(f"there is no role '{role}'", help=f"the roles are {roles}")
        table = self.values.get(role, {})
        tables = {k: v for k, v in table.items() if isinstance(v, Mapping)}
        return RoleConfig(table.get("driver", default), MappingProxyType(tables))

    def driver_config(self, role: str, name: str, config_type: type[T]) -> T:
        """A driver's own table as its config class; defaults where the table is absent.

        Raises:
            ConfigError: Everything that is wrong with the table.
        """
        table = self.values.get(role, {}).get(name, {})
        return self._structure(table, (role, name), config_type, f"{role} driver '{name}'")

    def component(self, name: str, config_type: type[T]) -> T:
        """A component's own table as its config class; defaults where the table is absent.

        Raises:
            ConfigError: Everything that is wrong with the table.
        """
        return self._structure(
            self.values.get(name, {}), (name,), config_type, f"component '{name}'"
        )

    def has_component(self, name: str) -> bool:
        """Whether somebody wrote the component's table."""
        return name in self.values

    def origin(self, path: KeyPath) -> Origin:
        """Where a path, or its nearest table, came from; no file name where nothing is written."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.origins:
                return self.origins[path[:end]]
        return Origin("")

    def check_tables(self, components: Iterable[str]) -> list[Diagnostic]:
        """Tables that neither the core nor one of these components knows."""
        known = [*_CORE_TABLES, *DEFAULT_DRIVERS, *NAMED_DRIVER_ROLES, *sorted(components)]
        found = []
        for name in self.values:
            if name not in known:
                word = "table" if isinstance(self.values[name], Mapping) else "key"
                fault = Fault("unknown", (name,), f"unknown {word} '{name}'", tuple(known))
                found.append(self._diagnostic(fault, (), name))
        return found

    def _structure(self, table: object, path: KeyPath, config_type: type[T], owner: str) -> T:
        try:
            return structure(table, config_type)
        except FaultsError as exc:
            raise ConfigError(self.diagnose(exc, path, owner)) from exc

    def diagnose(self, error: FaultsError, path: KeyPath, owner: str) -> list[Diagnostic]:
        """Turn the faults of a table into diagnostics with positions.

        Args:
            error: What ``structure`` raised.
            path: Of the table.
            owner: For messages, e.g. ``volume driver 'nfs'``.
        """
        return [self._diagnostic(fault, path, owner) for fault in error.faults]

    def _diagnostic(self, fault: Fault, table: KeyPath, owner: str) -> Diagnostic:
        path = (*table, *fault.path)
        origin = self.origin(path)
        name = dotted(path)
        helps: list[str] = []
        match fault.kind:
            case "unknown":
                at = origin.key
                nearest = did_you_mean(str(path[-1]), fault.choices)
                if not fault.path[:-1] and not table:
                    identifier, headline = "LS2001", fault.message
                else:
                    identifier, headline = "LS2001", f"{owner} has no setting '{name}'"
                if nearest:
                    helps.append(f"did you mean '{nearest}'?")
                elif fault.choices:
                    helps.append(f"it may be one of {', '.join(fault.choices)}")
            case "missing":
                at = origin.key
                identifier, headline = "LS2104", f"{owner} needs '{path[-1]}'"
                helps.append(f"write  {path[-1]} = …  under [{dotted(path[:-1])}]")
            case "type":
                at = origin.value
                identifier, headline = "LS2010", f"'{name}' {fault.message}"
            case "range":
                at = origin.value
                identifier, headline = "LS2011", f"'{name}': {fault.message}"
        return Diagnostic(
            id=identifier,
            headline=headline,
            file=origin.file,
            primary=Label(span=at) if at else None,
            helps=tuple(helps),
            source=origin.source,
        )


def dotted(path: KeyPath) -> str:
    """``runtime.oci.args[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def default_paths(environ: Mapping[str, str] | None = None) -> tuple[list[Path], bool]:
    """The files to read when none is named, and whether they must exist."""
    named = (os.environ if environ is None else environ).get("LINKSPAN_CONFIG")
    if named:
        return [Path(named)], True
    found = [DEFAULT_CONFIG] if DEFAULT_CONFIG.exists() else []
    if DEFAULT_CONFIG_DIR.is_dir():
        found.extend(sorted(DEFAULT_CONFIG_DIR.glob("*.toml")))
    return found, False


def load_config(
    paths: Sequence[Path | str] | None = None, overrides: Mapping[str, Any] | None = None
) -> LoadedConfig:
    """Read, merge and check the configuration.

    The tables of drivers and components are checked when they are asked for, or all together by
    ``linkspan.core.plugins.configuration.check``.

    Args:
        paths: The files, later ones win; None for the usual places.
        overrides: What the command line says, dotted: ``{"daemon.data-root": "/srv/linkspan"}``;
            None values are skipped.

    Raises:
        ConfigError: Everything that is wrong.
    """
    config, diagnostics = read_config(paths, overrides)
    if diagnostics:
        raise ConfigError(diagnostics)
    return config


def read_config(
    paths: Sequence[Path | str] | None = None, overrides: Mapping[str, Any] | None = None
) -> tuple[LoadedConfig, list[Diagnostic]]:
    """Like ``load_config``, but hands back what is wrong beside a config with defaults for it."""
    files = default_paths()[0] if paths is None else [Path(p) for p in paths]
    values: dict[str, Any] = {}
    origins: dict[KeyPath, Origin] = {}
    diagnostics: list[Diagnostic] = []
    for file in files:
        document, places = _read_file(file, diagnostics)
        _merge(values, document, (), origins, places)
    for key, value in (overrides or {}).items():
        if value is not None:
            _override(values, origins, key, value)
    config = LoadedConfig(
        daemon=DaemonConfig(),
        plugins=PluginsConfig(),
        values=values,
        origins=origins,
        files=tuple(files),
    )
    diagnostics.extend(_role_faults(config, values))
    for table, config_type in (("daemon", DaemonConfig), ("plugins", PluginsConfig)):
        try:
            checked: Any = {table: structure(values.get(table, {}), config_type)}
            config = attrs.evolve(config, **checked)
        except FaultsError as exc:
            diagnostics.extend(
                config.diagnose(exc, (table,), "the daemon" if table == "daemon" else "[plugins]")
            )
    return config, diagnostics


def _role_faults(config: LoadedConfig, values: dict[str, Any]) -> Iterator[Diagnostic]:
    """Wrong shapes of role tables; what is inside the drivers' tables is the drivers' business."""
    for role in (*DEFAULT_DRIVERS, *NAMED_DRIVER_ROLES):
        table = values.get(role, {})
        if not isinstance(table, dict):
            fault = Fault("type", (role,), f"must be a table, found {describe(table)}")
            yield config._diagnostic(fault, (), role)
            del values[role]  # so that role() can be asked all the same
            continue
        for key in list(table):
            value = table[key]
            if key == "driver" and role in DEFAULT_DRIVERS:
                if not isinstance(value, str) or not value:
                    fault = Fault(
                        "type", (role, key), f"must be a driver's name, found {describe(value)}"
                    )
                    yield config._diagnostic(fault, (), role)
                    del table[key]
            elif not isinstance(value, Mapping):
                driver = config.role(role).driver or "VERB"
                origin = config.origin((role, key))
                yield Diagnostic(
                    id="LS2001",
                    headline=f"[{role}] has no setting '{key}'",
                    file=origin.file,
                    primary=Label(span=origin.key) if origin.key else None,
                    helps=(f"a driver's settings stand under its own table, [{role}.{driver}]",),
                    source=origin.source,
                )
                del table[key]


def _read_file(
    file: Path, diagnostics: list[Diagnostic]
) -> tuple[dict[str, Any], dict[KeyPath, Origin]]:
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        reason = exc.strerror or str(exc)
        diagnostics.append(
            Diagnostic(
                id="LS2003", headline=f"cannot read the config file: {reason}", file=str(file)
            )
        )
        return {}, {}
    if len(raw) > MAX_FILE_BYTES:
        headline = f"the config file is larger than {MAX_FILE_BYTES} bytes"
        diagnostics.append(Diagnostic(id="LS2003", headline=headline, file=str(file)))
        return {}, {}
    try:
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as exc:
        line = raw.count(b"\n", 0, exc.start) + 1
        column = exc.start - (raw.rfind(b"\n", 0, exc.start) + 1) + 1
        diagnostics.append(
            Diagnostic(
                id="LS2002",
                headline=f"not UTF-8 text: byte 0x{raw[exc.start]:02x}",
                file=str(file),
                primary=Label(span=Span(line=line, column=column)),
            )
        )
        return {}, {}
    source = _drawable(text)
    try:
        document = tomllib.loads(text)
        places = scan(text)
    except tomllib.TOMLDecodeError as exc:
        diagnostics.append(_syntax_error(str(exc), file, source))
        return {}, {}
    except RecursionError:
        diagnostics.append(
            Diagnostic(id="LS2002", headline="the config is nested too deeply", file=str(file))
        )
        return {}, {}
    origins = {
        path: Origin(str(file), place.key, place.value, source) for path, place in places.items()
    }
    return document, origins


def _drawable(text: str) -> str:
    """The text with a space for each line separator that TOML does not know as one."""
    return text.translate({0x85: " ", 0x2028: " ", 0x2029: " "})


def _syntax_error(message: str, file: Path, source: str) -> Diagnostic:
    match = _WHERE.search(message)
    if match:
        span = Span(line=int(match[1]), column=int(match[2]))
    else:
        lines = source.rstrip("\n").split("\n")
        span = Span(line=len(lines), column=len(lines[-1]) + 1)
    text = re.sub(r"\s*\(at [^)]*\)$", "", message)
    return Diagnostic(
        id="LS2002",
        headline=f"not valid TOML: {text[:1].lower()}{text[1:]}",
        file=str(file),
        primary=Label(span=span),
        source=source,
    )


def _merge(
    into: dict[str, Any],
    table: Mapping[str, Any],
    path: KeyPath,
    origins: dict[KeyPath, Origin],
    places: Mapping[KeyPath, Origin],
) -> None:
    for key, value in table.items():
        here = (*path, key)
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value, here, origins, places)
            continue
        _forget(origins, here)
        origins.update({p: o for p, o in places.items() if p[: len(here)] == here})
        into[key] = value


def _forget(origins: dict[KeyPath, Origin], path: KeyPath) -> None:
    for known in [p for p in origins if p[: len(path)] == path]:
        del origins[known]


def _override(
    values: dict[str, Any], origins: dict[KeyPath, Origin], key: str, value: object
) -> None:
    *tables, last = key.split(".")
    table = values
    for name in tables:
        inner = table.setdefault(name, {})
        if not isinstance(inner, dict):
            inner = table[name] = {}
        table = inner
    path: KeyPath = (*tables, last)
    _forget(origins, path)
    origins[path] = Origin(COMMAND_LINE)
    if isinstance(value, (tuple, list)):
        table[last] = [str(v) if isinstance(v, Path) else v for v in value]
        origins.update({(*path, i): Origin(COMMAND_LINE) for i in range(len(value))})
    else:
        table[last] = str(value) if isinstance(value, Path) else value
