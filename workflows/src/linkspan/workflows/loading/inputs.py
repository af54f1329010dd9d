"""``inputs`` and ``secrets``: what a run is given."""

import attrs

from linkspan.workflows.allowances import allowed_at
from linkspan.workflows.expressions.patterns import Pattern, PatternError
from linkspan.workflows.loading.keys import GENERATE, INPUT, SECRET
from linkspan.workflows.loading.scene import Scene
from linkspan.workflows.loading.use import check_driver
from linkspan.workflows.model import Input, InputType, Secret
from linkspan.workflows.parse import Field, Mapping, Node

_KINDS: tuple[InputType, ...] = (
    "string",
    "int",
    "bool",
    "duration",
    "size",
    "choice",
    "list",
)


def read_inputs(scene: Scene, field: Field | None) -> dict[str, Input]:
    """``inputs``."""
    if field is None:
        return {}
    found = scene.r.names(field.value, "'inputs'")
    return {name: _input(scene, name, each) for name, each in found.items()}


def _input(scene: Scene, name: str, field: Field) -> Input:
    r, what = scene.r, f"input '{name}'"
    fields = r.table(field.value, what, INPUT)
    kind: InputType = "string"
    if "type" in fields:
        kind = r.choice(fields["type"].value, "'type'", _KINDS) or "string"  # type: ignore[assignment]
    options: tuple[str, ...] = ()
    if "options" in fields:
        texts = (r.text(n, "an option") for n in r.items(fields["options"].value, "'options'"))
        options = tuple(text for text in texts if text is not None)
    if kind == "choice" and not options:
        r.fault("LS1008", f"{what} is a choice and needs 'options'", field.key)
    spec = Input(
        name=name,
        type=kind,
        required=scene.given(fields, "required", r.boolean, False),
        options=options,
        minimum=scene.get(fields, "min", lambda n: r.integer(n, "'min'")),
        maximum=scene.get(fields, "max", lambda n: r.integer(n, "'max'")),
        pattern=scene.get(fields, "pattern", lambda n: _pattern(scene, n)) or "",
        untrusted=scene.get(fields, "untrusted", lambda n: r.boolean(n, "'untrusted'")),
        recorded="LS1304" in allowed_at(r.document.text, field.key.span.line),
        help=scene.text(fields, "help"),
        type_span=fields["type"].value.span if "type" in fields else None,
    )
    scene.sounds_secret(spec, field.key)
    if "default" not in fields:
        return spec
    return attrs.evolve(spec, default=_default(scene, spec, fields["default"].value))


def _pattern(scene: Scene, node: Node) -> str:
    pattern = scene.r.text(node, "'pattern'") or ""
    try:
        Pattern(pattern)
    except PatternError as fault:
        scene.r.fault("LS1013", f"'pattern' cannot be read: {fault}", node)
        return ""
    return pattern


def _default(scene: Scene, spec: Input, node: Node) -> str | int | bool | tuple[str, ...] | None:
    r, what = scene.r, "'default'"
    match spec.type:
        case "int":
            return r.integer(node, what, least=spec.minimum, most=spec.maximum)
        case "bool":
            return r.boolean(node, what)
        case "duration":
            return r.text(node, what) if r.duration(node, what) is not None else None
        case "size":
            return r.text(node, what) if r.size(node, what) is not None else None
        case "choice":
            return r.choice(node, what, spec.options) if spec.options else None
        case "list":
            texts = [r.text(item, "an item of 'default'") for item in r.items(node, what)]
            return tuple(text for text in texts if text is not None)
        case "string":
            text = r.text(node, what)
            if text is not None and spec.pattern and not Pattern(spec.pattern).fullmatch(text):
                r.fault("LS1013", f"'default' does not match the pattern {spec.pattern}", node)
            return text


def read_secrets(scene: Scene, field: Field | None) -> dict[str, Secret]:
    """``secrets`` at the top: declarations."""
    if field is None:
        return {}
    found = scene.r.names(field.value, "'secrets'")
    return {name: _secret(scene, name, each) for name, each in found.items()}


def _secret(scene: Scene, name: str, field: Field) -> Secret:
    r, what = scene.r, f"secret '{name}'"
    fields = r.table(field.value, what, SECRET)
    chosen = scene.use.get("secrets")
    if isinstance(field.value, Mapping) and chosen is None:
        r.require(fields, "from", what, field.key, f"{name}: {{from: {scene.keeper}}}")
    provider = scene.text(fields, "from")
    if provider and "secrets" in scene.verbs.roles:
        check_driver(scene, "secrets", provider, fields["from"])
    length = None
    if "generate" in fields:
        inner = r.table(fields["generate"].value, "'generate'", GENERATE)
        length = scene.given(inner, "length", lambda n, w: r.integer(n, w, least=8, most=4096), 32)
    return Secret(
        name=name,
        provider=provider or (chosen.driver if chosen else ""),
        key=scene.text(fields, "key"),
        required=scene.given(fields, "required", r.boolean, True),
        generate_length=length,
        span=field.key.span,
    )
