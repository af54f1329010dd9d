"""``strategy``: axes, ``exclude`` and ``include``, and the cells they make."""

from collections.abc import Mapping as MappingType
from typing import Final

from linkspan.sdk.units import counted
from linkspan.workflows.expressions.functions import same
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.loading.keys import AXIS, STRATEGY
from linkspan.workflows.loading.scene import Scene
from linkspan.workflows.matrix import (
    MAX_CELLS,
    Axis,
    AxisType,
    Matrix,
    cells_of,
    combinations,
    matches,
)
from linkspan.workflows.model import Strategy
from linkspan.workflows.parse import Field, Mapping, Node, Sequence
from linkspan.workflows.reader import core_value, one_of

_TYPES: Final[tuple[AxisType, ...]] = ("string", "int", "bool", "float")


def read_strategy(scene: Scene, field: Field) -> Strategy | None:
    """``strategy``; None if it has no usable matrix."""
    r = scene.r
    fields = r.table(field.value, "'strategy'", STRATEGY)
    if not isinstance(field.value, Mapping):
        return None
    if not r.require(fields, "matrix", "'strategy'", field.key, "matrix: {NAME: [a, b]}"):
        return None
    matrix = _matrix(scene, fields["matrix"])
    if matrix is None:
        return None
    return Strategy(
        matrix=matrix,
        fail_fast=scene.given(fields, "fail-fast", r.boolean, True),
        max_parallel=scene.get(
            fields, "max-parallel", lambda n: r.integer(n, "'max-parallel'", least=1, most=1000)
        ),
        span=field.key.span,
    )


def _matrix(scene: Scene, field: Field) -> Matrix | None:
    r = scene.r
    if not isinstance(field.value, Mapping):
        # Told by `names`: it must be a mapping.
        r.names(field.value, "'matrix'")
        return None
    found = r.names(field.value, "'matrix'")
    extra = {name: found.pop(name) for name in ("include", "exclude") if name in found}
    axes = {name: axis for name, each in found.items() if (axis := _axis(scene, name, each))}
    if len(axes) != len(found):
        return None
    excluded = _patterns(scene, extra.get("exclude"), axes)
    included = [values for values, _ in _patterns(scene, extra.get("include"), axes)]
    count = 1
    for axis in axes.values():
        count *= len(axis.values)
    if count + len(included) > MAX_CELLS:
        r.fault(
            "LS1013",
            f"the matrix has {count + len(included)} cells; a job may have {MAX_CELLS}",
            field.key,
            helps=["leave out values, or cut the job in two"],
        )
        return None
    exclude = [values for values, _ in excluded]
    _useless_excludes(scene, axes, excluded)
    cells = cells_of(axes, exclude, included)
    if not cells:
        helps = ["give an axis with values:  matrix: {NAME: [a, b]}"]
        r.fault("LS1013", "the matrix has no cell: nothing would run", field.key, helps=helps)
        return None
    return Matrix(axes=axes, exclude=tuple(exclude), include=tuple(included), cells=cells)


def _axis(scene: Scene, name: str, field: Field) -> Axis | None:
    r, kind, node = scene.r, _TYPES[0], field.value
    if isinstance(node, Mapping):
        fields = r.table(node, f"axis '{name}'", AXIS)
        if not r.require(fields, "values", f"axis '{name}'", field.key, "values: [a, b]"):
            return None
        written = scene.given(fields, "type", lambda n, w: r.choice(n, w, _TYPES), "string")
        kind = next(each for each in _TYPES if each == written)
        node = fields["values"].value
    nodes = r.items(node, f"axis '{name}'")
    if isinstance(node, Sequence) and not nodes:
        r.fault("LS1013", f"axis '{name}' has no value", node)
    values = [_value(scene, each, f"a value of axis '{name}'", kind) for each in nodes]
    for index, value in enumerate(values):
        if any(same(value, other) for other in values[:index]) and value is not None:
            r.fault("LS1014", f"axis '{name}' has the value '{value}' twice", nodes[index])
            return None
    if not values or any(value is None for value in values):
        return None
    return Axis(name=name, values=tuple(values), type=kind, span=field.key.span)


def _value(scene: Scene, node: Node, what: str, kind: AxisType) -> Json:
    match kind:
        case "int":
            return scene.r.integer(node, what)
        case "float":
            return scene.r.number(node, what)
        case "bool":
            return scene.r.boolean(node, what)
        case "string":
            return scene.r.text(node, what)


def _patterns(
    scene: Scene, field: Field | None, axes: MappingType[str, Axis]
) -> list[tuple[dict[str, Json], Node]]:
    """Entries of ``include`` or ``exclude``, typed as the axes are."""
    if field is None:
        return []
    found: list[tuple[dict[str, Json], Node]] = []
    which = field.key.text
    for node in scene.r.items(field.value, f"'{which}'"):
        values: dict[str, Json] = {}
        for name, each in scene.r.names(node, f"an entry of '{which}'").items():
            if name in axes:
                values[name] = _value(scene, each.value, f"'{name}'", axes[name].type)
            elif which == "exclude":
                scene.r.fault(
                    "LS1201",
                    f"there is no axis '{name}'",
                    each.key,
                    helps=[f"axes: {', '.join(axes) or 'none'}"],
                )
            elif not isinstance(each.value, Mapping | Sequence):
                # Values that no axis types are what YAML 1.2 says they are.
                values[name] = core_value(each.value)
            else:
                scene.r.text(each.value, f"'{name}'")
        found.append((values, node))
    return found


def _useless_excludes(
    scene: Scene,
    axes: MappingType[str, Axis],
    excluded: list[tuple[dict[str, Json], Node]],
) -> None:
    """LS1502 for each exclude that takes nothing away."""
    every = combinations(axes, ())
    left = len(combinations(axes, [values for values, _ in excluded]))
    for values, node in excluded:
        if any(matches(each, values) for each in every):
            continue
        helps = []
        for name, value in values.items():
            axis = axes[name]
            if not any(same(value, each) for each in axis.values):
                shown = one_of([str(each) for each in axis.values])
                jobs = counted(left, "job")
                helps.append(f"did you mean {shown}?  the matrix still has {jobs}")
        scene.r.fault(
            "LS1502",
            "this exclude matches no combination",
            node,
            severity="warning",
            helps=helps,
        )
