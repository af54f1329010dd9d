"""Prints configurations: the commented default, and what is in force with where it came from."""

import enum
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import attrs

from linkspan.core.config.load import LoadedConfig, dotted
from linkspan.core.config.structure import Setting, settings
from linkspan.sdk.values import frozen


@frozen
class Entry:
    """One setting of a table.

    Attributes:
        key: As written in TOML.
        value: TOML text of the default; empty where there is none.
        remarks: Comment lines.
        required: A table without it is refused.
    """

    key: str
    value: str
    remarks: tuple[str, ...] = ()
    required: bool = False


@frozen
class Table:
    """One table of a config file.

    Attributes:
        path: ``("runtime", "oci")``.
        entries: Its settings.
        remark: Said above the table.
        optional: Writing the table switches something on, so the default file only shows it.
    """

    path: tuple[str, ...]
    entries: tuple[Entry, ...] = ()
    remark: str = ""
    optional: bool = False

    @classmethod
    def of(
        cls, path: tuple[str, ...], config_type: type[Any], *, optional: bool = False
    ) -> "Table":
        """Describe the table of a config class."""
        summary = (config_type.__doc__ or "").strip().partition("\n")[0]
        if summary.startswith(f"{config_type.__name__}("):  # made by attrs, not written by anybody
            summary = ""
        entries = tuple(_entry(setting) for setting in settings(config_type))
        return cls(path, entries, summary, optional)

    @classmethod
    def of_role(cls, role: str, driver: str, installed: list[str]) -> "Table":
        """Describe the choice of a role's driver."""
        names = ", ".join(installed) or "none"
        return cls((role,), (Entry("driver", toml(driver), (f"Installed: {names}.",)),))


def _entry(setting: Setting) -> Entry:
    remarks = [setting.help] if setting.help else []
    choices = _choices(setting.type)
    if choices:
        remarks.append(f"One of {', '.join(choices)}.")
    return Entry(setting.key, _default(setting), tuple(remarks), setting.required)


def _choices(hint: object) -> list[str]:
    if get_origin(hint) is Literal:
        return [toml(value) for value in get_args(hint)]
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return [toml(member.value) for member in hint]
    return []


def _default(setting: Setting) -> str:
    default = setting.field.default
    if default is attrs.NOTHING:
        return ""
    factory = getattr(default, "factory", None)
    if factory is not None:
        if getattr(default, "takes_self", False):
            return ""
        default = factory()
    return written(default, setting.unit)


def written(value: object, unit: str | None) -> str:
    """TOML text of a setting's value; empty for None, which TOML cannot say."""
    if value is None:
        return ""
    if unit == "duration" and isinstance(value, (int, float)):
        return json.dumps(_duration(value))
    return toml(value)


def _duration(seconds: float) -> str:
    """A duration that reads back as the same number."""
    if seconds >= 60 and seconds % 60 == 0:
        return f"{seconds // 3600:.0f}h" if seconds % 3600 == 0 else f"{seconds // 60:.0f}m"
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def toml(value: object) -> str:
    """TOML text of a plain value, on one line."""
    match value:
        case bool():
            return "true" if value else "false"
        case enum.Enum():
            return toml(value.value)
        case int() | float():
            return str(value)
        case str() | Path():
            # Every JSON string without lone surrogates is a TOML basic string.
            return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
        case Mapping():
            return "{" + ", ".join(f"{toml_key(k)} = {toml(v)}" for k, v in value.items()) + "}"
        case list() | tuple() | set() | frozenset():
            return "[" + ", ".join(toml(v) for v in value) + "]"
        case _ if attrs.has(type(value)):
            pairs = (
                (s.key, written(getattr(value, s.field.name), s.unit))
                for s in settings(type(value))
            )
            return "{" + ", ".join(f"{key} = {text}" for key, text in pairs if text) + "}"
        case _:
            return str(value)


def toml_key(key: str) -> str:
    """A key, quoted where TOML asks for it."""
    bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if bare else toml(key)


def default_text(tables: list[Table]) -> str:
    """A config file that says what holds without any: every setting is there, commented out."""
    out = [
        "# Linkspan's configuration. Every line that is commented out shows the default.",
        "# Read from /etc/linkspan.toml, then /etc/linkspan.d/*.toml; checked by `linkspan config check`.",
    ]
    for table in tables:
        out.append("")
        if table.remark:
            out.append(f"# {table.remark}")
        comment = "# " if table.optional or not table.entries else ""
        out.append(f"{comment}[{'.'.join(toml_key(part) for part in table.path)}]")
        for entry in table.entries:
            out.extend(f"## {remark}" for remark in entry.remarks)
            value = "…   (required)" if entry.required else entry.value
            out.append(f"# {entry.key} = {value}".rstrip())
    return "\n".join(out) + "\n"


@frozen
class Shown:
    """One setting in force.

    Attributes:
        path: Dotted.
        value: TOML text.
        origin: ``default``, ``/etc/linkspan.toml:12`` or ``command line``.
    """

    path: str
    value: str
    origin: str


def in_force(config: LoadedConfig, tables: list[Table]) -> Iterator[Shown]:
    """Every setting with its value and where it came from: tables the core or a plugin knows first."""
    shown: set[tuple[str | int, ...]] = set()
    for table in tables:
        given: Any = config.values
        for part in table.path:
            given = given.get(part, {}) if isinstance(given, Mapping) else {}
        if table.optional and not given:
            continue
        for entry in table.entries:
            path = (*table.path, entry.key)
            shown.add(path)
            if isinstance(given, Mapping) and entry.key in given:
                yield Shown(dotted(path), toml(given[entry.key]), config.origin(path).place)
            elif entry.value:
                yield Shown(dotted(path), entry.value, "default")
    yield from _others(config, config.values, (), shown)


def _others(
    config: LoadedConfig,
    values: Mapping[str, Any],
    path: tuple[str | int, ...],
    shown: set[tuple[str | int, ...]],
) -> Iterator[Shown]:
    for key, value in values.items():
        here = (*path, key)
        if here in shown:
            continue
        if isinstance(value, Mapping):
            yield from _others(config, value, here, shown)
        else:
            yield Shown(dotted(here), toml(value), config.origin(here).place)
