"""``strategy.matrix``: typed axes, and the cells that they, ``exclude`` and ``include`` make."""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import attrs

from linkspan.sdk.diagnostics import Span
from linkspan.workflows.expressions.functions import plain_text, same
from linkspan.workflows.expressions.types import Json

MAX_CELLS: Final = 256
"""As GitHub's; more is a mistake far more often than a wish."""

AxisType = Literal["string", "int", "bool", "float"]
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


@attrs.frozen(kw_only=True)
class Axis:
    """One dimension.

    Attributes:
        type: Of its values; texts where the file does not say (``3.10`` stays so).
        values: At least one.
    """

    name: str
    values: tuple[Json, ...]
    type: AxisType = "string"
    span: Span = attrs.field(eq=False, repr=False)


@attrs.frozen(kw_only=True)
class Cell:
    """One run of the job.

    Attributes:
        key: Unique among the job's cells, fit for a file name: ``3.10-postgres``.
        values: What ``matrix`` is in it; keys that only other cells have are null.
    """

    key: str
    values: Mapping[str, Json]


@attrs.frozen(kw_only=True)
class Matrix:
    """The axes and what follows from them.

    Attributes:
        exclude: Combinations that do not run.
        include: Combinations that run too, or values added to those that match.
        cells: What runs, in order; at most ``MAX_CELLS``.
    """

    axes: Mapping[str, Axis]
    exclude: tuple[Mapping[str, Json], ...] = ()
    include: tuple[Mapping[str, Json], ...] = ()
    cells: tuple[Cell, ...] = ()


def matches(values: Mapping[str, Json], pattern: Mapping[str, Json]) -> bool:
    """Whether a combination has every value of a pattern."""
    return all(name in values and same(values[name], value) for name, value in pattern.items())


def combinations(
    axes: Mapping[str, Axis], exclude: Sequence[Mapping[str, Json]]
) -> list[dict[str, Json]]:
    """All values of all axes with each other, without the excluded."""
    if not axes:
        return []
    names = list(axes)
    product = itertools.product(*(axes[name].values for name in names))
    every = (dict(zip(names, values, strict=True)) for values in product)
    return [values for values in every if not any(matches(values, each) for each in exclude)]


def cells_of(
    axes: Mapping[str, Axis],
    exclude: Sequence[Mapping[str, Json]],
    include: Sequence[Mapping[str, Json]],
) -> tuple[Cell, ...]:
    """The cells of a matrix.

    An ``include`` whose values for the axes match combinations adds its other values to those; one
    that matches none, or that names no axis at all while there are none, is a cell of its own.
    """
    found = combinations(axes, exclude)
    originals = [dict(values) for values in found]
    for extra in include:
        on_axes = {name: value for name, value in extra.items() if name in axes}
        hits = [
            values
            for values, original in zip(found, originals, strict=False)
            if matches(original, on_axes)
        ]
        for values in hits:
            values.update(extra)
        if not hits:
            found.append(dict(extra))
    names = list(dict.fromkeys(name for values in (axes, *found) for name in values))
    return _with_keys([{name: values.get(name) for name in names} for values in found], axes)


def _with_keys(found: Sequence[Mapping[str, Json]], axes: Mapping[str, Axis]) -> tuple[Cell, ...]:
    cells: list[Cell] = []
    taken: set[str] = set()
    for values in found:
        shown = [values[name] for name in axes if values[name] is not None]
        shown = shown or [value for value in values.values() if value is not None]
        key = _UNSAFE.sub("_", "-".join(plain_text(value) for value in shown)).strip(".") or "cell"
        unique = key
        for number in itertools.count(2):
            if unique not in taken:
                break
            unique = f"{key}-{number}"
        taken.add(unique)
        cells.append(Cell(key=unique, values=values))
    return tuple(cells)
