"""The graph of a pipeline's jobs: layers for the terminal, and dot, Mermaid and SVG for elsewhere."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

import attrs

from linkspan.workflows.model import Job, Workflow


@attrs.frozen(kw_only=True)
class Node:
    """One job as it is drawn.

    Attributes:
        label: Its name, with the number of cells: ``test ×4``.
        layer: Jobs before it on the longest way to it.
        kind: ``job``, ``approve`` or ``finally``.
    """

    id: str
    label: str
    layer: int
    kind: str
    needs: tuple[str, ...]
    steps: tuple[str, ...]


def nodes_of(workflow: Workflow) -> list[Node]:
    """The jobs in the order in which they can begin, those of ``finally`` last.

    Raises:
        ValueError: Jobs wait for each other.
    """
    layers = _layers(workflow)
    last = max(layers.values(), default=-1) + 1
    nodes = [_node(job, layers[job.id], "job") for job in workflow.jobs.values()]
    nodes.sort(key=lambda node: node.layer)
    return nodes + [_node(job, last, "finally") for job in workflow.cleanup.values()]


def _node(job: Job, layer: int, kind: str) -> Node:
    cells = len(job.strategy.matrix.cells) if job.strategy else 1
    label = f"{job.id} ×{cells}" if cells > 1 else job.id
    if any(step.verb == "approve" for step in job.all_steps()):
        kind = "approve"
    steps = tuple(step.title for step in job.steps)
    if job.call is not None:
        steps = (f"uses {job.call.file}",)
    return Node(id=job.id, label=label, layer=layer, kind=kind, needs=job.needed, steps=steps)


def _layers(workflow: Workflow) -> dict[str, int]:
    """Linear in the edges: each job is settled when the last of its needs is."""
    jobs = workflow.jobs
    waiting = {name: sum(n in jobs for n in job.needed) for name, job in jobs.items()}
    after: dict[str, list[str]] = {name: [] for name in jobs}
    for name, job in jobs.items():
        for need in job.needed:
            if need in jobs:
                after[need].append(name)
    ready = [name for name, count in waiting.items() if not count]
    layers = dict.fromkeys(ready, 0)
    for name in ready:
        for following in after[name]:
            layers[following] = max(layers.get(following, 0), layers[name] + 1)
            waiting[following] -= 1
            if not waiting[following]:
                ready.append(following)
    if len(ready) < len(jobs):
        raise ValueError("jobs wait for each other")
    return layers


def as_tree(nodes: Sequence[Node], *, ascii_only: bool = False) -> Iterator[str]:
    """One line a job, with bars that show which of the jobs above it waits for.

    A job stands below the last of its needs; further needs are named behind it.
    """
    bar, tee, end = ("| ", "|-", "`-") if ascii_only else ("│ ", "├─", "└─")
    by_id = {node.id: node for node in nodes}
    order = {node.id: index for index, node in enumerate(nodes)}
    below: dict[str, list[Node]] = {}
    roots: list[Node] = []
    for node in nodes:
        needs = [name for name in node.needs if name in by_id]
        if needs and node.kind != "finally":
            parent = max(needs, key=lambda name: (by_id[name].layer, order[name]))
            below.setdefault(parent, []).append(node)
        else:
            roots.append(node)
    # A stack, not recursion: a chain may have ten thousand jobs.
    stack = [(node, "", "", "") for node in reversed(roots)]
    while stack:
        node, indent, branch, parent = stack.pop()
        others = [name for name in node.needs if name in by_id and name != parent]
        word = {"approve": "  (asks a person)", "finally": "  (finally)"}.get(node.kind, "")
        also = f"  (also after {', '.join(others)})" if others else ""
        yield f"{indent}{branch}{' ' if branch else ''}{node.label}{word}{also}"
        inner = indent + {"": "", tee: f"{bar} ", end: "   "}[branch]
        children = below.get(node.id, [])
        for index in range(len(children) - 1, -1, -1):
            sign = end if index == len(children) - 1 else tee
            stack.append((children[index], inner, sign, node.id))


def as_dot(name: str, nodes: Sequence[Node]) -> Iterator[str]:
    """Graphviz."""
    yield f"digraph {_quoted(name)} {{"
    yield '  rankdir=LR; node [shape=box, style=rounded, fontname="sans-serif"];'
    known = {node.id for node in nodes}
    for node in nodes:
        style = {"approve": ", shape=diamond", "finally": ", style=dashed"}.get(node.kind, "")
        yield f"  {_quoted(node.id)} [label={_quoted(node.label)}{style}];"
    for node in nodes:
        for need in node.needs:
            if need in known:
                yield f"  {_quoted(need)} -> {_quoted(node.id)};"
    yield "}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def as_mermaid(nodes: Sequence[Node]) -> Iterator[str]:
    """Mermaid's flowchart; ids are numbers, since its own words may not be ids."""
    yield "flowchart LR"
    ids = {node.id: f"j{index}" for index, node in enumerate(nodes)}
    for node in nodes:
        left, right = {"approve": ("{{", "}}"), "finally": ("([", "])")}.get(node.kind, ("[", "]"))
        yield f'  {ids[node.id]}{left}"{escape(node.label)}"{right}'
    for node in nodes:
        for need in node.needs:
            if need in ids:
                yield f"  {ids[need]} --> {ids[node.id]}"


_WIDTH: Final = 168
_HEIGHT: Final = 40
_GAP_X: Final = 48
_GAP_Y: Final = 16
_SHOWN: Final = 22


def as_svg(name: str, nodes: Sequence[Node]) -> Iterator[str]:
    """A drawing in layers; boxes are titled with their steps."""
    places: dict[str, tuple[int, int]] = {}
    rows: dict[int, int] = {}
    for node in nodes:
        row = rows.get(node.layer, 0)
        rows[node.layer] = row + 1
        places[node.id] = (
            _GAP_X + node.layer * (_WIDTH + _GAP_X),
            _GAP_Y + row * (_HEIGHT + _GAP_Y),
        )
    width = _GAP_X + (max(rows, default=0) + 1) * (_WIDTH + _GAP_X)
    height = _GAP_Y + max(rows.values(), default=0) * (_HEIGHT + _GAP_Y)
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="13" role="img">'
    )
    yield f"<title>{escape(name)}</title>"
    for node in nodes:
        x, y = places[node.id]
        for need in node.needs:
            if need in places:
                yield _edge(places[need], (x, y))
    for node in nodes:
        yield _box(node, *places[node.id])
    yield "</svg>"


def _edge(begin: tuple[int, int], end: tuple[int, int]) -> str:
    x1, y1 = begin[0] + _WIDTH, begin[1] + _HEIGHT // 2
    x2, y2 = end[0], end[1] + _HEIGHT // 2
    middle = (x1 + x2) // 2
    curve = f"M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}"
    return f'<path d="{curve}" fill="none" stroke="#888"/>'


def _box(node: Node, x: int, y: int) -> str:
    dash = ' stroke-dasharray="4 3"' if node.kind == "finally" else ""
    fill = "#fff4d6" if node.kind == "approve" else "#eef3fb"
    label = node.label if len(node.label) <= _SHOWN else node.label[: _SHOWN - 1] + "…"
    title = escape("\n".join([node.label, *node.steps]))
    return (
        f"<g><title>{title}</title>"
        f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" '
        f'fill="{fill}" stroke="#456"{dash}/>'
        f'<text x="{x + _WIDTH // 2}" y="{y + _HEIGHT // 2 + 5}" text-anchor="middle">'
        f"{escape(label)}</text></g>"
    )
