"""Which keys the API's answers have, and of which types their values are; of Docker's daemon and of ours."""

import http.client
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from daemon_harness.daemon import connection_to
from daemon_harness.shell import printed

Shape = dict[str, list[str]]
"""Path of a value, from the top → what it is somewhere in the answer: its type, or whether it is empty."""

VERSIONS: Final = (
    *("1.24", "1.25", "1.27", "1.28", "1.30", "1.31", "1.35"),
    *(f"1.{minor}" for minor in range(40, 51)),
)
"""Of the API, in which a script's answers are asked for."""

_ID = re.compile(r"[0-9a-f]{64}")
_REQUEST = re.compile(r"(GET|POST|PUT|DELETE|HEAD) (?:([\d.,]+) )?(/\S*)(?: (\{.*\}))?")
# What was asked for, and what is usual: here values count, too.
_SAID = re.compile(r"(?<!\.IPAM)\.(HostConfig|Config|ContainerConfig)\b")


@attrs.frozen
class Line:
    """A request of a script: ``GET 1.24,1.50 /path``; without versions, GET is asked in all of them."""

    text: str
    method: str
    versions: tuple[str, ...]
    path: str
    body: str | None

    @classmethod
    def of(cls, text: str) -> "Line | None":
        """None for a shell's command."""
        match = _REQUEST.fullmatch(text)
        if match is None:
            return None
        method, versions, path, body = match.groups()
        usual = VERSIONS if method == "GET" else VERSIONS[-1:]
        return cls(text, method, tuple(versions.split(",")) if versions else usual, path, body)


def shape_of(value: Any) -> Shape:
    """The shape of an answer; all elements of a list count as one."""
    found: dict[str, set[str]] = {}
    for path, kind in _walk(value, ""):
        found.setdefault(path, set()).add(kind)
    return {path: sorted(kinds) for path, kinds in sorted(found.items())}


def _walk(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        yield path, "object" if value else "{}"
        for key, inner in value.items():
            yield from _walk(inner, f"{path}.{'<id>' if _ID.fullmatch(key) else key}")
    elif isinstance(value, list):
        yield path, "array" if value else "[]"
        for inner in value:
            yield from _walk(inner, f"{path}[]")
    else:
        yield path, _scalar(value, path)


def _scalar(value: Any, path: str) -> str:
    if value is None or isinstance(value, bool) or value in ("", 0):
        return json.dumps(value)
    if _SAID.search(path) and not re.search(r"[0-9a-f]{12}", str(value)):
        return json.dumps(value)
    return "string" if isinstance(value, str) else "number"


def record(
    script: Path, socket: str, environment: Mapping[str, str]
) -> dict[str, dict[str, Shape]]:
    """Carry a script out: lines are commands for a shell, or requests.

    ``{begun}`` and ``{now}`` in a path are times in seconds.

    Returns:
        Request → version → shape of the answer.
    """
    times = {"begun": time.time()}
    found: dict[str, dict[str, Shape]] = {}
    for text in script.read_text().splitlines():
        line = Line.of(text)
        if line is not None:
            times["now"] = time.time()
            path = re.sub(r"\{(\w+)\}", lambda match: f"{times[match[1]]:.9f}", line.path)
            found[text] = {
                version: shape_of(ask(socket, line.method, f"/v{version}{path}", line.body))
                for version in line.versions
            }
        elif text and not text.startswith("#"):
            printed(text, environment)
    return found


def ask(socket: str, method: str, path: str, body: str | None = None) -> Any:
    """One request that must not fail: the JSON of its answer, or its lines of JSON."""
    connection: http.client.HTTPConnection = connection_to(socket)
    try:
        kind = {"Content-Type": "application/json"} if body else {}
        connection.request(method, path, body=body, headers=kind)
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.status < 300, f"{path}: {text}"
        if answer.headers.get_content_type() == "text/plain" or not text:
            return text
        if answer.headers["Content-Type"] == "application/json" and "/events" not in path:
            return json.loads(text)
        return [json.loads(line) for line in text.splitlines()]
    finally:
        connection.close()


def packed(shapes: Mapping[str, Shape]) -> dict[str, dict[str, list[str] | None]]:
    """Of each version, what is not as in the version before; None: it is gone."""
    out: dict[str, dict[str, list[str] | None]] = {}
    before: Shape = {}
    for version, shape in shapes.items():
        changed: dict[str, list[str] | None] = {
            p: k for p, k in shape.items() if before.get(p) != k
        }
        changed |= dict.fromkeys(before.keys() - shape.keys())
        if changed:
            out[version] = dict(sorted(changed.items()))
        before = shape
    return out


def unpacked(
    changes: Mapping[str, Mapping[str, list[str] | None]], versions: Sequence[str]
) -> dict[str, Shape]:
    """What ``packed`` was made of."""
    out: dict[str, Shape] = {}
    now: dict[str, list[str] | None] = {}
    for version in versions:
        now |= changes.get(version, {})
        out[version] = {path: kinds for path, kinds in now.items() if kinds is not None}
    return out


def write(found: Mapping[str, Mapping[str, Shape]], path: Path) -> None:
    """Keep what was recorded: a path a line, so that a change can be read."""
    answers = []
    for text, shapes in found.items():
        versions = []
        for version, changed in packed(shapes).items():
            lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in changed.items())
            versions.append(f'  "{version}": {{\n   ' + ",\n   ".join(lines) + "\n  }")
        answers.append(f" {json.dumps(text)}: {{\n" + ",\n".join(versions) + "\n }")
    path.write_text("{\n" + ",\n".join(answers) + "\n}\n")


def read(path: Path) -> dict[str, dict[str, Shape]]:
    """What was kept."""
    out = {}
    for text, changes in json.loads(path.read_text()).items():
        line = Line.of(text)
        assert line is not None, text
        out[text] = unpacked(changes, line.versions)
    return out


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
    return re.search(r"nothing|null|\[\]|\{\}", text) is not None


def _words(kinds: list[str] | None) -> str:
    return "nothing" if kinds is None else " or ".join(kinds)
