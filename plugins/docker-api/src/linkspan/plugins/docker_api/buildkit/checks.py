"""The frontend's request ``frontend.lint`` (``docker build --check``): findings as buildx shows them."""

import re
from collections.abc import Sequence
from typing import Final

import orjson

from linkspan.plugins.docker_api.buildkit.places import source_info, span_of
from linkspan.plugins.docker_api.buildkit.wire import message
from linkspan.sdk.diagnostics import Diagnostic, render

LINT: Final = "frontend.lint"
_RULES: Final = "https://docs.docker.com/go/dockerfile/rule/"


def lint_result(found: Sequence[Diagnostic]) -> bytes:
    """A result of the frontend that is all metadata.

    A file that cannot be read is one of the findings, with severity ``error``.
    """
    warnings = [_warning(each) for each in found if each.severity == "warning"]
    sources = list({each.file: source_info(each.file, each.source) for each in found}.values())
    result: dict[str, object] = {"warnings": warnings, "sources": sources}
    for each in found:
        if each.severity == "error":
            place = {"sourceIndex": 0, "ranges": [span_of(each)]}
            result["error"] = {"message": each.headline, "location": place}
    metadata = {
        "result.json": orjson.dumps(result).decode(),
        "result.txt": "\n".join(map(render, found)),
        "result.statuscode": "1" if found else "0",
        "version": "1.0.0",
    }
    return message({10: metadata})


def _warning(found: Diagnostic) -> dict[str, object]:
    rule, _, detail = found.headline.partition(": ")
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", rule).lower()
    return {
        "ruleName": rule,
        "url": f"{_RULES}{words}/",
        "detail": detail,
        "location": {"sourceIndex": 0, "ranges": [span_of(found)]},
    }
