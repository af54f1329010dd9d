"""A step's ``with``, typed by the verb's manifest: literals before the run, expressions in it."""

from collections.abc import Callable, Mapping
from functools import partial

from linkspan.sdk.diagnostics import Edit, did_you_mean
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.manifest import VerbSetting
from linkspan.sdk.units import parse_duration, parse_size
from linkspan.workflows.expressions import parse
from linkspan.workflows.expressions.types import Json, Kind
from linkspan.workflows.parse import Field, Mapping as MappingNode, Node, Scalar, Sequence
from linkspan.workflows.reader import Reader, core_value, one_of
from linkspan.workflows.values import OPEN, Expression, Template, Value
from linkspan.workflows.verbs import Verb

_TEXT = VerbSetting(type="string")

KINDS: Mapping[str, Kind] = {
    "string": Kind.TEXT,
    "int": Kind.NUMBER,
    "float": Kind.NUMBER,
    "port": Kind.NUMBER,
    "bool": Kind.BOOL,
    "duration": Kind.TEXT,
    "size": Kind.TEXT,
    "list": Kind.LIST,
    "map": Kind.MAP,
    "any": Kind.ANY,
    "secrets": Kind.MAP,
}
"""What an expression must give where a setting of this type stands."""


OnFeature = Callable[[str, str, str, Node, str], None]
"""Gets a role, the feature of it that a setting needs, the setting in words, its value's place, and the
key if another value of it may need another feature."""
OnSecret = Callable[[str, Node], bool]
"""Gets the name of a secret that a setting asks for, and where it is written; answers whether there is one."""


def read_settings(
    reader: Reader,
    verb: Verb,
    uses: Scalar,
    with_: Field | None,
    on_feature: OnFeature | None = None,
    on_secret: OnSecret = lambda *_: False,
) -> tuple[dict[str, Value], dict[str, Field]]:
    """The settings as written, with everything that is wrong noted (LS1402, LS1403, types); and where
    each was written, also one that is unknown."""
    schema = verb.manifest.settings
    found = {} if with_ is None else reader.entries(with_.value, "'with'")
    settings: dict[str, Value] = {}
    for name, field in found.items():
        setting = schema.get(name)
        if setting is None:
            _unknown_setting(reader, verb, field, found)
        else:
            read = read_value
            if setting.type == "secrets":
                read = partial(_read_secrets, on_secret=on_secret)
            settings[name] = read(reader, field.value, f"'{name}'", setting)
            if on_feature is not None:
                _features(name, field.value, setting, on_feature)
    for name, setting in schema.items():
        if setting.required and name not in found:
            _missing_setting(reader, verb, name, uses, with_)
    return settings, found


def _features(name: str, node: Node, setting: VerbSetting, on_feature: OnFeature) -> None:
    """Tell of every feature that a setting asks its driver for."""
    if setting.feature and isinstance(node, Scalar) and OPEN not in node.text:
        role, _, feature = setting.feature.partition(".")
        if "{value}" in feature or node.text != "false":
            what = f"`{name}: {node.text}`" if "{value}" in feature else f"`{name}`"
            alternative = name if "{value}" in feature else ""
            on_feature(role, feature.replace("{value}", node.text), what, node, alternative)
    if isinstance(node, MappingNode):
        for key, value in node.entries:
            inner = setting.keys.get(key.text) if isinstance(key, Scalar) else None
            if inner is not None and isinstance(key, Scalar):
                _features(key.text, value, inner, on_feature)


def _unknown_setting(reader: Reader, verb: Verb, field: Field, found: Mapping[str, Field]) -> None:
    name, schema = field.key.text, verb.manifest.settings
    known = ", ".join(f"{key}{'*' if value.required else ''}" for key, value in schema.items())
    note = f"settings of {verb.name} ({verb.provider}): {known}   (* required)"
    near = did_you_mean(name, schema)
    helps = []
    edits: list[Edit] = []
    if near is not None:
        written = reader.raw(field.value)
        takes_list = schema[near].type == "list" and not isinstance(field.value, Sequence)
        helps = [
            f"did you mean '{near}'?"
            + (f" it takes a list: {near}: [{written}]" if takes_list else "")
        ]
        if near not in found:
            edits = [reader.replacement(field.key, near)]
            if takes_list:
                edits.append(reader.replacement(field.value, f"[{written}]"))
    reader.fault(
        "LS1402",
        f"`{verb.name}` has no setting '{name}'",
        field.key,
        notes=[note if schema else f"{verb.name} ({verb.provider}) takes no settings"],
        helps=helps,
        edits=edits,
    )


def _missing_setting(
    reader: Reader, verb: Verb, name: str, uses: Scalar, with_: Field | None
) -> None:
    setting = verb.manifest.settings[name]
    example = f"{name}: {_example(name, setting)}"
    written = "" if with_ is None else reader.raw(with_.value)
    inner = written[1:-1].strip() if written[:1] == "{" else ""
    flow = inner or not written
    helps = [f"with: {{{example}{', ' if inner else ''}{inner}}}" if flow else f"add  {example}"]
    if setting.help:
        helps.append(f"{name}: {setting.help}")
    reader.fault(
        "LS1403",
        f"`{verb.name}` needs {'an' if name[0] in 'aeiou' else 'a'} '{name}'",
        uses if with_ is None else with_.key,
        f"'{name}' is missing here",
        helps=helps,
    )


def _example(name: str, setting: VerbSetting) -> str:
    if setting.options:
        return setting.options[0]
    samples = {"int": "1", "port": "8080", "bool": "true", "list": "[...]", "map": "{...}"}
    samples |= {"duration": "10s", "size": "512Mi", "float": "1.0"}
    return samples.get(setting.type, {"service": "web", "image": "web"}.get(name, "..."))


def read_value(reader: Reader, node: Node, what: str, setting: VerbSetting) -> Value:
    """One setting's value; None where a fault was noted."""
    if isinstance(node, Scalar) and OPEN in node.text:
        return _read_template(reader, node, what, setting)
    match setting.type:
        case "list":
            return tuple(
                read_value(reader, item, f"an item of {what}", _item_type(item))
                for item in reader.items(node, what)
            )
        case "map":
            return _read_map(reader, node, what, setting)
        case "any":
            return _read_any(reader, node, what)
        case _:
            return _read_scalar(reader, node, what, setting)


def _read_template(reader: Reader, node: Scalar, what: str, setting: VerbSetting) -> Value:
    template = reader.template(node, what)
    textual = KINDS[setting.type] in {Kind.TEXT, Kind.ANY}
    if isinstance(template, Template) and template.sole is None and not textual:
        reader.fault(
            "LS1202",
            f"{what} is a {setting.type}: the expression must stand alone",
            node,
            helps=["a text with an expression in it is a text"],
        )
        return None
    return template


def _item_type(node: Node) -> VerbSetting:
    """Items of lists and open maps are texts (``3.10`` stays so), or lists and maps of texts."""
    match node:
        case Scalar():
            return _TEXT
        case Sequence():
            return VerbSetting(type="list")
        case MappingNode():
            return VerbSetting(type="map")


def _read_map(reader: Reader, node: Node, what: str, setting: VerbSetting) -> Value:
    found = reader.entries(node, what)
    values: dict[str, Value] = {}
    for name, field in found.items():
        inner = setting.keys.get(name) if setting.keys else _item_type(field.value)
        if inner is None:
            near = did_you_mean(name, setting.keys)
            known = ", ".join(setting.keys)
            helps = [f"did you mean '{near}'?" if near else f"keys here: {known}"]
            reader.fault("LS1402", f"{what} has no key '{name}'", field.key, helps=helps, fix=near)
            continue
        values[name] = read_value(reader, field.value, f"'{name}'", inner)
    for name, inner in setting.keys.items():
        if inner.required and name not in found:
            reader.fault("LS1403", f"{what} needs the key '{name}'", node)
    return values


def _read_secrets(
    reader: Reader, node: Node, what: str, setting: VerbSetting, *, on_secret: OnSecret
) -> Value:
    """Secrets by name, as a list or under other names; or texts with expressions in place of a name."""
    if isinstance(node, Scalar) and OPEN in node.text:
        return _read_template(reader, node, what, setting)
    if isinstance(node, Sequence):
        items = [(reader.text(item, f"a name in {what}"), item) for item in node.items]
    else:
        items = [(name, field.value) for name, field in reader.entries(node, what).items()]
    values: dict[str, Value] = {}
    for key, item in items:
        if key is None:
            continue
        if isinstance(item, Scalar) and OPEN in item.text:
            values[key] = reader.template(item, f"'{key}'")
            continue
        text = reader.text(item, "the name of a secret")
        if text is not None and isinstance(item, Scalar) and on_secret(text, item):
            source = f"secrets.{text}"
            read = Expression(source=source, tree=parse(source), node=item, offset=0)
            values[key] = Template(parts=(read,))
    return values


def _read_any(reader: Reader, node: Node, what: str) -> Value:
    match node:
        case Scalar():
            return core_value(node)
        case Sequence():
            return tuple(
                read_value(reader, item, f"an item of {what}", VerbSetting(type="any"))
                for item in node.items
            )
        case MappingNode():
            return {
                name: read_value(reader, field.value, f"'{name}'", VerbSetting(type="any"))
                for name, field in reader.entries(node, what).items()
            }


def _read_scalar(reader: Reader, node: Node, what: str, setting: VerbSetting) -> Value:
    match setting.type:
        case "int":
            return reader.integer(node, what)
        case "port":
            return reader.integer(node, what, least=0, most=65535)
        case "float":
            return reader.number(node, what)
        case "bool":
            return reader.boolean(node, what)
        case "duration":
            return reader.duration(node, what)
        case "size":
            return reader.size(node, what)
        case _ if setting.options:
            return reader.choice(node, what, setting.options)
        case _:
            return reader.text(node, what)


def typed_settings(
    verb: Verb, written: Mapping[str, Value], values: Mapping[str, Json]
) -> dict[str, Json]:
    """Evaluated settings as the driver gets them: defaults filled in, expressions' types checked.

    Durations are seconds, sizes bytes. ``written`` tells literals, which were typed when the file
    was read, from expressions.

    Raises:
        InvalidArgument: An expression gave a value of the wrong type.
    """
    settings: dict[str, Json] = {}
    for name, setting in verb.manifest.settings.items():
        if name in values:
            settings[name] = _typed(name, values[name], setting, written[name])
        elif setting.default is not None:
            settings[name] = _default(setting)
    return settings


def _default(setting: VerbSetting) -> Json:
    value = setting.default
    if isinstance(value, str) and setting.type == "duration":
        return parse_duration(value)
    if isinstance(value, str) and setting.type == "size":
        return parse_size(value)
    return value


def _typed(path: str, value: Json, setting: VerbSetting, written: Value) -> Json:
    if isinstance(value, Mapping) and setting.type == "map" and setting.keys:
        known = written if isinstance(written, dict) else {}
        unknown = [key for key in value if key not in setting.keys]
        if unknown:
            raise InvalidArgument(f"'{path}' has no key '{unknown[0]}'", code="wrong_setting")
        filled = {
            key: _default(inner) for key, inner in setting.keys.items() if inner.default is not None
        }
        return filled | {
            key: _typed(f"{path}.{key}", item, setting.keys[key], known.get(key))
            for key, item in value.items()
        }
    if not isinstance(written, Template):
        return value
    return _from_expression(path, value, setting)


def _from_expression(path: str, value: Json, setting: VerbSetting) -> Json:
    accepted = {
        "string": str,
        "int": int,
        "port": int,
        "float": (int, float),
        "bool": bool,
        "duration": str,
        "size": str,
        "list": list,
        "map": Mapping,
        "secrets": Mapping,
        "any": object,
    }[setting.type]
    if setting.type == "string" and isinstance(value, (int, float)) and not isinstance(value, bool):
        # `tag: ${{ inputs.number }}`: a number stands where a text is put together anyway.
        value = str(value)
    confused = isinstance(value, bool) and setting.type in {"int", "port", "float"}
    if confused or not isinstance(value, accepted):  # type: ignore[arg-type]
        raise InvalidArgument(
            f"'{path}' must be {'an' if setting.type == 'int' else 'a'} {setting.type}, "
            f"the expression gave {'null' if value is None else repr(value)}",
            code="wrong_setting",
        )
    if setting.options and value not in setting.options:
        raise InvalidArgument(
            f"'{path}' must be {one_of(setting.options)}, the expression gave {value!r}",
            code="wrong_setting",
        )
    if setting.type == "port" and not 0 <= value <= 65535:
        raise InvalidArgument(f"'{path}' must be from 0 to 65535, found {value}")
    if setting.type == "duration":
        return parse_duration(value)
    return parse_size(value) if setting.type == "size" else value
