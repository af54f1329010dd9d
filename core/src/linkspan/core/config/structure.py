"""Plain TOML values to attrs classes: strict, and with all faults at once.

Differences from cattrs as it comes (each was tried): nothing is coerced (`debug = "false"` would
become True), keys that no field answers are faults, validators of all fields run even when another
field is wrong, and every fault carries its path.

How a field is written in TOML:

- ``data_root`` is written ``data-root``.
- ``stop_timeout_s: float`` is written ``stop-timeout = "10s"``: a duration with its unit.
- ``memory_limit_bytes: int`` is written ``memory-limit = "512m"``, or a plain number of bytes.
"""

import collections.abc as abc
import enum
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin

import attrs
import cattrs

from linkspan.core.config.positions import Path as KeyPath
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.units import parse_duration, parse_size
from linkspan.sdk.values import frozen

T = TypeVar("T")
Kind = Literal["unknown", "type", "range", "missing"]

_DURATION_SUFFIX: Final = "_s"
_SIZE_SUFFIX: Final = "_bytes"


@frozen
class Fault:
    """One thing that is wrong with a table.

    Attributes:
        kind: ``unknown`` and ``missing`` are about keys, ``type`` and ``range`` about values.
        path: From the table that was structured down to the key.
        message: Reads after the key's name: ``must be a string, found the number 5``.
        choices: For an unknown key, the keys that exist.
    """

    kind: Kind
    path: KeyPath
    message: str
    choices: tuple[str, ...] = ()


class FaultsError(Exception):
    """What was found wrong; never empty."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(f"{'.'.join(map(str, f.path))} {f.message}" for f in faults))
        self.faults = faults


class _WrongTypeError(Exception):
    pass


def structure(value: object, config_type: type[T]) -> T:
    """Make a config object from a plain table.

    Raises:
        FaultsError: Everything that is wrong with the table.
    """
    try:
        result: T = _CONVERTER.structure(value, config_type)
    except Exception as exc:
        raise FaultsError(list(_faults_of(exc, ()))) from exc
    return result


@frozen
class Setting:
    """A field of a config class as a person meets it.

    Attributes:
        key: As written in TOML.
        field: The attrs field.
        type: Its resolved type.
        unit: ``duration`` or ``size`` where the value is a text with a unit.
        help: One sentence from the class's docstring; may be empty.
    """

    key: str
    field: "attrs.Attribute[Any]"
    type: Any
    unit: Literal["duration", "size"] | None
    help: str

    @property
    def required(self) -> bool:
        """Whether a table without it is refused."""
        return self.field.default is attrs.NOTHING


def settings(config_type: type) -> tuple[Setting, ...]:
    """The settings of a config class, in its own order."""
    known = _settings.get(config_type)
    if known is None:
        known = _settings[config_type] = _read_settings(config_type)
    return known


_settings: dict[type, tuple[Setting, ...]] = {}


def _read_settings(config_type: type) -> tuple[Setting, ...]:
    hints = typing.get_type_hints(config_type)
    helps = attribute_helps(config_type)
    found = []
    for field in attrs.fields(config_type):
        if not field.init:
            continue
        hint = hints.get(field.name, Any)
        bare = _without_none(hint)
        unit: Literal["duration", "size"] | None = None
        name = field.name
        if bare is float and name.endswith(_DURATION_SUFFIX):
            unit, name = "duration", name.removesuffix(_DURATION_SUFFIX)
        elif bare is int and name.endswith(_SIZE_SUFFIX):
            unit, name = "size", name.removesuffix(_SIZE_SUFFIX)
        key = name.strip("_").replace("_", "-")
        found.append(Setting(key, field, hint, unit, helps.get(field.name, "")))
    return tuple(found)


def attribute_helps(config_type: type) -> dict[str, str]:
    """The ``Attributes:`` section of a google-style docstring: field name to text on one line."""
    helps: dict[str, str] = {}
    name = ""
    inside = False
    indent = 0
    for line in (config_type.__doc__ or "").expandtabs().splitlines():
        stripped = line.strip()
        if stripped == "Attributes:":
            inside, indent = True, len(line) - len(line.lstrip())
            continue
        if not inside or not stripped:
            continue
        depth = len(line) - len(line.lstrip())
        if depth <= indent:
            break
        head, colon, rest = stripped.partition(":")
        if depth == indent + 4 and colon and head.isidentifier():
            name = head
            helps[name] = rest.strip()
        elif name:
            helps[name] = f"{helps[name]} {stripped}"
    return helps


def _without_none(hint: object) -> object:
    if get_origin(hint) in (Union, types.UnionType):
        rest = [arg for arg in get_args(hint) if arg is not type(None)]
        if len(rest) == 1:
            return rest[0]
    return hint


def describe(value: object) -> str:
    """A TOML value in words: ``the number 5``, ``the string "x"``, ``a table``."""
    match value:
        case bool():
            return "the boolean " + ("true" if value else "false")
        case int() | float():
            return f"the number {value}"
        case str():
            shown = value if len(value) <= 40 else value[:39] + "…"
            return f'the string "{shown}"'
        case list():
            return "an array"
        case Mapping():
            return "a table"
        case _:
            return f"the date or time {value}"


def _structure_class(value: object, config_type: type) -> object:
    if not isinstance(value, Mapping):
        raise _WrongTypeError(f"must be a table, found {describe(value)}")
    faults: list[Fault] = []
    known = settings(config_type)
    unknown = [key for key in value if key not in {s.key for s in known}]
    choices = tuple(s.key for s in known)
    faults.extend(Fault("unknown", (key,), "is not a setting", choices) for key in unknown)
    arguments: dict[str, Any] = {}
    for setting in known:
        if setting.key not in value:
            if setting.required:
                faults.append(Fault("missing", (setting.key,), "is required"))
            continue
        try:
            arguments[setting.field.name] = _structure_setting(value[setting.key], setting)
        except Exception as exc:  # noqa: BLE001 - collected with its path
            faults.extend(_faults_of(exc, (setting.key,)))
    faults.extend(_range_faults(config_type, known, arguments))
    if faults:
        raise FaultsError(faults)
    by_alias = {
        s.field.alias or s.field.name: arguments[s.field.name]
        for s in known
        if s.field.name in arguments
    }
    return config_type(**by_alias)


def _structure_setting(value: object, setting: Setting) -> object:
    if setting.unit == "duration":
        if not isinstance(value, str):
            raise _WrongTypeError(f'must be a duration such as "30s", found {describe(value)}')
        return _with_unit(parse_duration, value)
    if setting.unit == "size":
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if not isinstance(value, str):
            raise _WrongTypeError(f'must be a size such as "64m", found {describe(value)}')
        return _with_unit(parse_size, value)
    return _convert(value, setting.type)


def _convert(value: object, hint: object) -> object:
    return _CONVERTER.structure(value, hint)  # type: ignore[arg-type]  # any annotation will do


def _with_unit(parse: Callable[[str], Any], value: str) -> object:
    try:
        return parse(value)
    except InvalidArgument as exc:
        raise _WrongTypeError(f"is an {exc.message}; {exc.help}") from exc


def _range_faults(
    config_type: type[Any], known: Sequence[Setting], arguments: Mapping[str, Any]
) -> Iterator[Fault]:
    """Run each field's validator by itself, on an instance that holds the fields that are right."""
    partial = object.__new__(config_type)
    for setting in known:
        name = setting.field.name
        if name in arguments:
            object.__setattr__(partial, name, arguments[name])
        elif not setting.required and not isinstance(setting.field.default, attrs.Factory):  # type: ignore[arg-type]
            object.__setattr__(partial, name, setting.field.default)
    for setting in known:
        name = setting.field.name
        if name not in arguments or setting.field.validator is None:
            continue
        try:
            setting.field.validator(partial, setting.field, arguments[name])
        except (TypeError, ValueError, InvalidArgument) as exc:
            # attrs' own validators raise ("text", attribute, bound, value).
            text = str(exc.args[0]) if exc.args else type(exc).__name__
            for quoted in (f"'{name}' ", f"{name} "):
                text = text.removeprefix(quoted)
            yield Fault("range", (setting.key,), text)
        except AttributeError:
            # The validator compares with a field that is missing or wrong, which is reported.
            continue


def _faults_of(exc: BaseException, path: KeyPath) -> Iterator[Fault]:
    match exc:
        case FaultsError():
            for fault in exc.faults:
                yield attrs.evolve(fault, path=(*path, *fault.path))
        case _WrongTypeError():
            yield Fault("type", path, str(exc))
        case _:
            yield Fault("range", path, str(exc) or type(exc).__name__)


def _strict(expected: type, words: str) -> Callable[[Any, Any], Any]:
    def hook(value: object, _type: object) -> object:
        if type(value) is expected:
            return value
        if expected is float and type(value) is int:
            return float(value)
        raise _WrongTypeError(f"must be {words}, found {describe(value)}")

    return hook


def _structure_path(value: object, _type: object) -> Path:
    if not isinstance(value, str):
        raise _WrongTypeError(f"must be a path, found {describe(value)}")
    return Path(value)


def _structure_choice(value: object, hint: object) -> object:
    options = get_args(hint)
    for option in options:
        if type(option) is type(value) and option == value:
            return option
    words = ", ".join(f'"{o}"' if isinstance(o, str) else str(o) for o in options)
    raise _WrongTypeError(f"must be one of {words}, found {describe(value)}")


def _structure_enum(value: object, enum_type: type[enum.Enum]) -> object:
    for member in enum_type:
        if member.value == value:
            return member
    words = ", ".join(f'"{m.value}"' for m in enum_type)
    raise _WrongTypeError(f"must be one of {words}, found {describe(value)}")


def _structure_optional(value: object, hint: object) -> object:
    # TOML has no null, so a value that is there is never None.
    return _convert(value, _without_none(hint))


def _structure_array(value: object, hint: object) -> object:
    if not isinstance(value, list):
        raise _WrongTypeError(f"must be an array, found {describe(value)}")
    arguments = [a for a in get_args(hint) if a is not Ellipsis]
    item_type = arguments[0] if arguments else Any
    origin = get_origin(hint) or hint
    items: list[object] = []
    faults: list[Fault] = []
    for index, item in enumerate(value):
        try:
            items.append(_convert(item, item_type))
        except Exception as exc:  # noqa: BLE001 - collected with its path
            faults.extend(_faults_of(exc, (index,)))
    if faults:
        raise FaultsError(faults)
    return (
        items
        if origin is list
        else origin(items)
        if origin in (tuple, frozenset, set)
        else tuple(items)
    )


def _structure_table(value: object, hint: object) -> object:
    if not isinstance(value, Mapping):
        raise _WrongTypeError(f"must be a table, found {describe(value)}")
    arguments = get_args(hint)
    item_type = arguments[1] if len(arguments) == 2 else Any
    items: dict[str, object] = {}
    faults: list[Fault] = []
    for key, item in value.items():
        try:
            items[key] = _convert(item, item_type)
        except Exception as exc:  # noqa: BLE001 - collected with its path
            faults.extend(_faults_of(exc, (key,)))
    if faults:
        raise FaultsError(faults)
    return items


def _is_array(hint: object) -> bool:
    return (get_origin(hint) or hint) in (list, tuple, set, frozenset, abc.Sequence, abc.Collection)


def _is_table(hint: object) -> bool:
    return (get_origin(hint) or hint) in (dict, abc.Mapping, abc.MutableMapping)


def _is_choice(hint: object) -> bool:
    return get_origin(hint) is Literal


def _is_optional(hint: object) -> bool:
    return get_origin(hint) in (Union, types.UnionType) and _without_none(hint) is not hint


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    for expected, words in (
        (str, "a string"),
        (int, "a whole number"),
        (float, "a number"),
        (bool, "true or false"),
    ):
        converter.register_structure_hook(expected, _strict(expected, words))
    converter.register_structure_hook(Path, _structure_path)
    converter.register_structure_hook_func(_is_table, _structure_table)
    converter.register_structure_hook_func(_is_array, _structure_array)
    converter.register_structure_hook_func(_is_choice, _structure_choice)
    converter.register_structure_hook_func(
        lambda hint: isinstance(hint, type) and issubclass(hint, enum.Enum), _structure_enum
    )
    converter.register_structure_hook_func(_is_optional, _structure_optional)
    converter.register_structure_hook_func(attrs.has, _structure_class)
    return converter


_CONVERTER: Final = _make_converter()
