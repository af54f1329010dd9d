"""Keys of other tools that can be mended: renamed, or with the value in our shape."""

from collections.abc import Collection
from typing import Final

from linkspan.sdk.diagnostics import Edit
from linkspan.workflows.parse import Document, Field, Node, Scalar, Sequence

_RENAMED: Final = {
    "timeout-minutes": "timeout",
    "container": "image",
    "depends_on": "needs",
    "commands": "run",
    "script": "run",
    "env": "environment",
    "environment": "env",
    "variables": "env",
    "description": "help",
    "allow_failure": "continue-on-error",
    "restore-keys": "restore",
}
_SCRIPTS: Final = ("script", "commands")


def foreign_edits(
    document: Document, name: str, field: Field, known: Collection[str], found: Collection[str]
) -> list[Edit]:
    """How a key of another tool is mended; nothing where a person has to think about it.

    Args:
        document: Where it stands.
        name: The key.
        field: With its value.
        known: Keys that the table may have.
        found: Keys that it has.
    """
    if name in _SCRIPTS and "steps" in known:
        return _steps(document, field) if "steps" not in found else []
    new, value = _RENAMED.get(name, ""), field.value
    if new not in known or new in found:
        return []
    edits = [_renamed(field, new)]
    if name == "depends_on" and isinstance(value, Sequence):
        return edits if all(isinstance(item, Scalar) for item in value.items) else []
    if not isinstance(value, Scalar) or not value.plain:
        # A list or a mapping of another tool seldom has our shape.
        return []
    if name == "timeout-minutes":
        if not value.text.isdecimal():
            return []
        edits.append(Edit(start=value.end, end=value.end, text="m"))
    return edits


def _renamed(field: Field, new: str) -> Edit:
    return Edit(start=field.key.start, end=field.key.end, text=new)


def _steps(document: Document, field: Field) -> list[Edit]:
    """A script's lines as a step each."""
    value = field.value
    lines = value.items if isinstance(value, Sequence) else (value,)
    if not lines or not all(_is_line(document, line) for line in lines):
        return []
    edits = [_renamed(field, "steps")]
    if isinstance(value, Scalar):
        wrapped = f"[{{run: {document.text[value.start : value.end]}}}]"
        safe = not value.plain or not set(value.text) & set("{}[],")
        return [*edits, Edit(start=value.start, end=value.end, text=wrapped)] if safe else []
    in_flow = document.text[value.start] == "["
    for line in lines:
        edits.append(Edit(start=line.start, end=line.start, text="{run: " if in_flow else "run: "))
        if in_flow:
            edits.append(Edit(start=line.end, end=line.end, text="}"))
    return edits


def _is_line(document: Document, node: Node) -> bool:
    """Whether a text stands on one line, so that something can be written before it."""
    return isinstance(node, Scalar) and "\n" not in document.text[node.start : node.end]
