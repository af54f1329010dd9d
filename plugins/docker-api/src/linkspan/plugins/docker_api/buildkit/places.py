"""Places in a build file, in the form in which buildx draws the lines around them."""

import base64
from collections.abc import Mapping
from typing import Any, Final

import orjson

from linkspan.plugins.docker_api.buildkit.wire import message
from linkspan.sdk.diagnostics import Diagnostic

_SOURCE: Final = "github.com/moby/buildkit/errdefs.Source+json"


def source_info(file: str, text: str) -> dict[str, object]:
    """``pb.SourceInfo`` in JSON."""
    data = base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()
    return {"filename": file, "language": "Dockerfile", "data": data}


def _span(first: int, last: int) -> dict[str, object]:
    return {"start": {"line": first}, "end": {"line": last}}


def span_of(found: Diagnostic) -> dict[str, object]:
    """Where a finding is; the first line if it is the whole file's."""
    line = found.primary.span.line if found.primary else 1
    return _span(line, line)


def error_details(details: Mapping[str, Any], text: str) -> bytes:
    """``google.protobuf.Any`` with the place of an error; empty if it names none.

    Args:
        details: Of the error: ``file`` and ``line``.
        text: Of the build file.
    """
    file, line = details.get("file"), details.get("line")
    if not file or not line or not text:
        return b""
    place = {"info": source_info(file, text), "ranges": [_span(line, line)]}
    return message({1: _SOURCE, 2: orjson.dumps(place)})
