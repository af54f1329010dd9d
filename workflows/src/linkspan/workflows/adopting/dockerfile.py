"""A Dockerfile to a pipeline that builds it."""

import re
from typing import Any

from linkspan.workflows.adopting.draft import Draft
from linkspan.workflows.parse import Scalar

_EXPOSE = re.compile(r"^\s*EXPOSE\s+(.+)$", re.IGNORECASE | re.MULTILINE)
_PORT = re.compile(r"^(\d{1,5})(?:/tcp)?$")


def adopt_dockerfile(draft: Draft, content: str, file: str, context: str) -> None:
    """Fill a draft: build it, and deploy what was built if it says on which port it listens."""
    draft.top["inputs"] = {"version": {"type": "string", "default": "dev"}}
    with_: dict[str, Any] = {"tags": [f"{draft.name}:${{{{ inputs.version }}}}"]}
    if context != ".":
        with_ = {"context": context, **with_}
    if file != "Dockerfile":
        with_["file"] = file
    steps = [{"id": "image", "uses": "build", "with": with_}]
    outputs = {"image": "${{ steps.image.outputs.id }}"}
    draft.jobs["build"] = {"outputs": outputs, "steps": steps}
    ports = []
    for match in _EXPOSE.finditer(content):
        line = content.count("\n", 0, match.start(1)) + 1
        for word in match[1].split():
            port = _PORT.match(word)
            if port is None:
                node = _at(line, word)
                draft.lose(
                    node, f"EXPOSE {word}", "only a TCP port that is written out is published"
                )
            else:
                ports.append(f"{port[1]}:{port[1]}")
    if not ports:
        draft.notes.append("no EXPOSE: nothing is deployed; add a job with `uses: deploy`")
        return
    settings = {
        "service": draft.name,
        "image": "${{ needs.build.outputs.image }}",
        "ports": ports,
    }
    draft.jobs["deploy"] = {"needs": ["build"], "steps": [{"uses": "deploy", "with": settings}]}


def _at(line: int, word: str) -> Scalar:
    return Scalar(text=word, plain=True, start=0, end=0, line=line - 1, column=0, length=1)
