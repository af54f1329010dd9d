"""Which keys the API's answers have, and of which types their values are; of Docker's daemon and of ours."""

import http.client
import json
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from daemon_harness.daemon import connection_to

Shape = dict[str, list[str]]
"""Path of a value, from the top → names of the types that it has somewhere in the answer."""

_TYPES = {bool: "boolean", int: "number", float: "number", str: "string", type(None): "null"}
_LIMIT_S = 60.0
_ID = re.compile(r"[0-9a-f]{64}")


def shape_of(value: Any) -> Shape:
    """The shape of an answer; all elements of a list count as one."""
    found: dict[str, set[str]] = {}
    for path, kind in _walk(value, ""):
        found.setdefault(path, set()).add(kind)
    return {path: sorted(kinds) for path, kinds in sorted(found.items())}


def _walk(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        yield path, "object"
        for key, inner in value.items():
            yield from _walk(inner, f"{path}.{'<id>' if _ID.fullmatch(key) else key}")
    elif isinstance(value, list):
        yield path, "array"
        for inner in value:
            yield from _walk(inner, f"{path}[]")
    else:
        yield path, _TYPES[type(value)]


def record(script: Path, socket: str, environment: Mapping[str, str]) -> dict[str, Shape]:
    """Carry a script out: lines are commands for a shell, or ``GET`` with a path that is asked.

    ``{begun}`` and ``{now}`` in a path are times in seconds.
    """
    times = {"begun": time.time()}
    found: dict[str, Shape] = {}
    for line in script.read_text().splitlines():
        if line.startswith("GET "):
            times["now"] = time.time()
            path = re.sub(r"\{(\w+)\}", lambda match: f"{times[match[1]]:.9f}", line[4:])
            found[line] = shape_of(_get(socket, path))
        elif line and not line.startswith("#"):
            done = subprocess.run(
                ["sh", "-c", line],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_LIMIT_S,
                check=False,
            )
            assert done.returncode == 0, f"{line}: {done.stderr}"
    return found


def _get(socket: str, path: str) -> Any:
    connection: http.client.HTTPConnection = connection_to(socket)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode()
        assert answer.status == 200, f"{path}: {body}"
        if answer.headers["Content-Type"] == "application/json" and not path.startswith(
            "/v1.41/events"
        ):
            return json.loads(body)
        return [json.loads(line) for line in body.splitlines()]
    finally:
        connection.close()


def differences(docker: Shape, ours: Shape) -> dict[str, str]:
    """Path → what each says there; a path below one that only one has is left out."""
    found: dict[str, str] = {}
    for path in sorted({*docker, *ours}, key=len):
        theirs, mine = docker.get(path), ours.get(path)
        if theirs == mine or any(is_below(path, above) for above in found if _lone(found[above])):
            continue
        found[path] = f"docker {_words(theirs)}, linkspan {_words(mine)}"
    return found


def is_below(path: str, above: str) -> bool:
    """Whether a path leads through another."""
    return path.startswith((f"{above}.", f"{above}["))


def _lone(text: str) -> bool:
    return "nothing" in text or "null" in text


def _words(kinds: list[str] | None) -> str:
    return "nothing" if kinds is None else " or ".join(kinds)
