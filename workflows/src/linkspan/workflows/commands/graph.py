"""``linkspan workflow graph``."""

import os

import click

from linkspan.core.cli.command import command
from linkspan.core.cli.failure import Rendered
from linkspan.core.cli.session import Session
from linkspan.sdk.diagnostics import render_all
from linkspan.workflows.commands.completing import complete_pipelines
from linkspan.workflows.commands.reading import checked, find, installed, read
from linkspan.workflows.drawing import Node, as_dot, as_mermaid, as_svg, as_tree, nodes_of


@command(
    "graph",
    "Draw which job waits for which.",
    examples=[
        "linkspan workflow graph release",
        "linkspan workflow graph release --format svg > release.svg",
        "linkspan workflow graph release --format mermaid",
    ],
    more=["linkspan workflow lint", "linkspan workflow plan"],
    formats=["dot", "mermaid", "svg"],
)
@click.argument("file", metavar="FILE", shell_complete=complete_pipelines)
def graph(session: Session, file: str) -> int:
    """Draw a pipeline."""
    path = find(file)
    found = checked(path, read(path), installed())
    if found.workflow is None:
        raise Rendered(render_all(found.errors), len(found.errors))
    try:
        nodes = nodes_of(found.workflow)
    except ValueError:
        circles = [d for d in found.errors if d.id == "LS1102"]
        raise Rendered(render_all(circles), len(circles)) from None
    name = found.workflow.name
    drawings = {
        "dot": lambda: as_dot(name, nodes),
        "mermaid": lambda: as_mermaid(nodes),
        "svg": lambda: as_svg(name, nodes),
    }
    if session.format in drawings:
        for line in drawings[session.format]():
            session.terminal.print(line)
    elif not session.document([_as_json(node) for node in nodes], default="table"):
        for line in as_tree(nodes, ascii_only=bool(os.environ.get("LINKSPAN_ASCII"))):
            session.terminal.print(line)
    return 0


def _as_json(node: Node) -> dict[str, object]:
    return {
        "id": node.id,
        "label": node.label,
        "kind": node.kind,
        "layer": node.layer,
        "needs": list(node.needs),
        "steps": list(node.steps),
    }
