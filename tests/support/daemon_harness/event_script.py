"""What a daemon tells of each command: its events, without what differs from run to run."""

import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import attrs

from daemon_harness.transcripts import normal

_LIMIT_S = 60.0
_QUIET_S = 2.0
# How much was freed depends on the drivers, how long it took on the machine.
_MEASURED = {"reclaimed": "<size>", "execDuration": "<seconds>"}


@attrs.frozen(kw_only=True, order=True)
class Told:
    """An event: ``attributes`` as pairs, by name."""

    scope: str
    type: str
    action: str
    actor: str
    attributes: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, event: Mapping[str, Any], names: Mapping[str, str]) -> Self:
        """A line of ``GET /events``; ``names`` are words that stand for what one daemon only has."""

        def plain(text: str) -> str:
            if text in names:
                return names[text]
            for value, name in names.items():
                # A host's name may be a part of any word, an address is none.
                text = text.replace(value, name) if ":" in value else text
            return normal(text)

        actor = event["Actor"]
        pairs = [
            (name, _MEASURED.get(name, value))
            for name, value in (actor["Attributes"] or {}).items()
        ]
        return cls(
            scope=event["scope"],
            type=event["Type"],
            action=plain(event["Action"]),
            actor=plain(actor["ID"]),
            attributes=tuple(sorted((name, plain(value)) for name, value in pairs)),
        )

    def __str__(self) -> str:
        facts = ", ".join(f"{name}={value}" for name, value in self.attributes)
        return f"{self.scope} {self.type} {self.action} {self.actor} ({facts})"


class Listener:
    """Asks a daemon, of all that it remembers, for what it has told since the last time."""

    def __init__(self, socket_path: str, names: Mapping[str, str]) -> None:
        self._path = socket_path
        self._names = names
        self._from_ns = time.time_ns()

    def _ask(self) -> list[dict[str, Any]]:
        times = (_text(ns) for ns in (self._from_ns, time.time_ns()))
        connection = _Connection(self._path)
        try:
            connection.request("GET", "/v1.50/events?since={}&until={}".format(*times))
            lines = connection.getresponse().read().splitlines()
        finally:
            connection.close()
        return [json.loads(line) for line in lines]

    def take(self, count: int, *, scope: str = "", within_s: float = _LIMIT_S) -> list[Told]:
        """As many as were told until now, once there are so many; of one scope if that is given."""
        deadline = time.monotonic() + within_s
        while True:
            found = self._ask()
            told = [event for event in found if scope in ("", event["scope"])]
            if len(told) >= count or time.monotonic() > deadline:
                break
            time.sleep(0.02)
        if found:
            self._from_ns = found[-1]["timeNano"] + 1
        return [Told.of(event, self._names) for event in told]

    def take_when_quiet(self) -> list[Told]:
        """What was told, once there has been time to tell it."""
        time.sleep(_QUIET_S)
        return self.take(0)


def filtered(script: Path, socket_path: str, env: Mapping[str, str]) -> dict[str, list[str]]:
    """Carry commands out, and ask with filters for what they told: filter → ``type action`` of each, sorted."""
    began, found = _now(), {}
    for line in script.read_text().splitlines():
        if line.startswith("{"):
            query = {"since": began, "until": _now(), "filters": line}
            connection = _Connection(socket_path)
            try:
                connection.request("GET", f"/v1.50/events?{urlencode(query)}")
                events = map(json.loads, connection.getresponse().read().splitlines())
                found[line] = sorted(normal(f"{e['Type']} {e['Action']}") for e in events)
            finally:
                connection.close()
        elif not line.startswith("#"):
            carry_out(line, socket_path, script.parent, env)
    return found


def _now() -> str:
    return _text(time.time_ns())


def _text(ns: int) -> str:
    return f"{ns // 10**9}.{ns % 10**9:09}"


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


def carry_out(command: str, socket_path: str, folder: Path, env: Mapping[str, str]) -> None:
    """Let a shell run a command; ``POST PATH`` is sent to the daemon as it is."""
    if command.startswith("POST "):
        connection = _Connection(socket_path)
        try:
            connection.request("POST", command.removeprefix("POST "))
            connection.getresponse().read()
        finally:
            connection.close()
        return
    subprocess.run(
        ["sh", "-c", command],
        cwd=folder,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=_LIMIT_S,
        check=False,
    )


def write(rows: list[tuple[str, list[Told]]], path: Path) -> None:
    """Keep what was told, an event a line."""
    parts = []
    for command, events in rows:
        lines = ",\n  ".join(json.dumps(attrs.astuple(event)) for event in events)
        body = f"[\n  {lines}\n ]" if events else "[]"
        parts.append(f' {{"command": {json.dumps(command)}, "events": {body}}}')
    path.write_text("[\n" + ",\n".join(parts) + "\n]\n")


def read(path: Path) -> Iterator[tuple[str, list[Told]]]:
    """What was kept."""
    for row in json.loads(path.read_text()):
        yield row["command"], told(row["events"])


def told(rows: list[list[Any]]) -> list[Told]:
    """Events as they are kept."""
    return [_told(row) for row in rows]


def _told(row: list[Any]) -> Told:
    scope, kind, action, actor, attributes = row
    pairs = tuple((str(name), str(value)) for name, value in attributes)
    return Told(scope=scope, type=kind, action=action, actor=actor, attributes=pairs)
