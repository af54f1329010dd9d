"""What a builder tells, as BuildKit's clients show it: ``moby.buildkit.v1.StatusResponse``.

A step or a work becomes a vertex, what is said of its parts a status, what its command writes a log.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from linkspan.plugins.docker_api.buildkit.wire import message, timestamp
from linkspan.sdk.progress import Progress

_RED: Final = "\x1b[91m"
_PLAIN: Final = "\x1b[0m"
_STDOUT: Final = 1
_STDERR: Final = 2
_PULL_BEGINS: Final = "Pulling from"
_PULL_DONE: Final = ("Pull complete", "Already exists")


@attrs.define
class _Vertex:
    digest: str
    name: str
    started: float
    completed: float = 0.0
    cached: bool = False
    error: str = ""

    def encode(self) -> bytes:
        return message(
            {
                1: self.digest,
                3: self.name,
                4: self.cached,
                5: timestamp(self.started),
                6: timestamp(self.completed) if self.completed else None,
                7: self.error,
            }
        )


class Trace:
    """Takes what a build says, and gives it out in messages.

    Args:
        build: The build's id: vertices of two builds must differ.

    Attributes:
        definition: The text of the build file, once it is known.
    """

    def __init__(self, build: str) -> None:
        self._build = build
        self._vertices: dict[str, _Vertex] = {}
        self._changed: dict[str, _Vertex] = {}
        self._begun: dict[tuple[str, str], float] = {}
        self._statuses: list[bytes] = []
        self._logs: list[bytes] = []
        self._warnings: list[bytes] = []
        self._pulling = ""
        self._failed: list[str] = []
        self._bases: dict[str, str] = {}
        self.definition = ""

    def take(self, progress: Progress) -> None:
        """One step forward. What is text for the classic builder's clients is left out."""
        aux: Mapping[str, Any] = progress.aux or {}
        if step := aux.get("step"):
            self._take_step(step)
        elif work := aux.get("work"):
            self._take_work(work)
        elif definition := aux.get("definition"):
            self.definition = definition["text"]
        elif log := aux.get("log"):
            self._take_log(log)
        elif warnings := aux.get("warnings"):
            self._take_warnings(warnings)
        elif progress.id and self._pulling and not progress.status.startswith(_PULL_BEGINS):
            done = progress.status in _PULL_DONE
            counts = (progress.current or 0, progress.total or 0)
            self._status(self._pulling, progress.id, counts, done=done)

    def message(self) -> bytes:
        """All that is new since the last one; empty if nothing is."""
        parts = (
            [vertex.encode() for vertex in self._changed.values()],
            self._statuses,
            self._logs,
            self._warnings,
        )
        new = message(dict(enumerate(parts, 1)))
        self._changed = {}
        self._statuses, self._logs, self._warnings = [], [], []
        return new

    def exported(self, what: str, parts: Sequence[str], sent_bytes: int = 0) -> None:
        """Something was made of the result, all of it done."""
        key = f"export/{what}"
        self._begin(key, what)
        for part in parts:
            self._status(key, part, (sent_bytes, 0), done=True)
        self._end(key)

    def failed(self, why: str) -> None:
        """The build has failed: so have the steps that said so, and what still runs is given up."""
        for key, vertex in self._vertices.items():
            if key in self._failed:
                self._end(key, error=why)
            elif not vertex.completed:
                self._end(key, error="context canceled")

    def _begin(self, key: str, name: str) -> None:
        digest = hashlib.sha256(f"{self._build}/{key}".encode()).hexdigest()
        vertex = _Vertex(f"sha256:{digest}", name, time.time())
        self._vertices[key] = self._changed[key] = vertex

    def _end(self, key: str, *, cached: bool = False, error: str = "") -> None:
        if (vertex := self._vertices.get(key)) is not None:
            vertex.completed, vertex.cached, vertex.error = time.time(), cached, error
            self._changed[key] = vertex

    def _take_step(self, step: Mapping[str, Any]) -> None:
        key, state = f"step/{step['number']}", step["state"]
        if state == "begun":
            if step["name"] and step["text"].upper().startswith("FROM "):
                self._bases[key] = step["name"]
            elif step["name"]:
                self._begin(key, step["name"])
        elif state == "failed":
            self._failed.append(key)
        else:
            # An image is first loaded, which is told by itself.
            if name := self._bases.pop(key, ""):
                self._begin(key, name)
            self._end(key, cached=state == "cached")

    def _take_work(self, work: Mapping[str, Any]) -> None:
        key, state = f"work/{work['id']}", work["state"]
        if state == "begun":
            self._begin(key, work["name"])
            self._pulling = key
        elif state == "part":
            part = work["part"]
            counts = (part["current"], part["total"])
            self._status(key, part["text"], counts, done=part["done"])
        elif state == "failed":
            self._end(key, error=work["error"] or "context canceled")
        else:
            self._end(key)

    def _take_log(self, log: Mapping[str, Any]) -> None:
        vertex = self._vertices.get(f"step/{log['number']}")
        text = log["text"]
        stream = _STDERR if text.startswith(_RED) else _STDOUT
        if stream == _STDERR:
            text = text.removeprefix(_RED).removesuffix(_PLAIN)
        if vertex is not None:
            self._logs.append(
                message({1: vertex.digest, 2: timestamp(time.time()), 3: stream, 4: text})
            )

    def _status(self, key: str, name: str, counts: tuple[int, int], *, done: bool) -> None:
        vertex, now = self._vertices.get(key), time.time()
        if vertex is None:
            return
        began = self._begun.setdefault((key, name), now)
        self._statuses.append(
            message(
                {
                    1: name,
                    2: vertex.digest,
                    4: counts[0],
                    5: counts[1],
                    6: timestamp(now),
                    7: timestamp(began),
                    8: timestamp(now) if done else None,
                }
            )
        )

    def _take_warnings(self, warnings: Sequence[Mapping[str, Any]]) -> None:
        vertex = next(iter(self._vertices.values()), None)
        for found in warnings if vertex is not None else ():
            assert vertex is not None
            short = f"{found['rule']}: {found['message']} (line {found['line']})"
            position = message({1: found["line"]})
            place = message({1: position, 2: position})
            info = message({1: found["file"]})
            self._warnings.append(message({1: vertex.digest, 2: 1, 3: short, 6: info, 7: [place]}))
