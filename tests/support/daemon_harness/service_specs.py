"""What a daemon shows of services that were made by bodies of JSON: field by field."""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from daemon_harness.daemon import connection_to

Fields = dict[str, str]
"""Path in the answer → JSON of the value there."""

_VERSION = "/v1.50"


def read(path: Path) -> dict[str, Any]:
    """A file of names and JSON."""
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def write(found: Mapping[str, Any], path: Path) -> None:
    """Keep what was found, one a line."""
    rows = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in found.items())
    path.write_text("{\n" + ",\n".join(rows) + "\n}\n")


def carry_out(
    bodies: Mapping[str, Any], socket: str, *, rest_s: float = 0.0
) -> Iterator[tuple[str, Any]]:
    """Make each service, say how it is shown, and remove it. The daemon must be in no swarm.

    Args:
        bodies: Name → ServiceSpec; in them ``<secret>`` and ``<config>`` stand for ids of such, and the
            networks ``over`` and ``over2`` are there.
        socket: The daemon's.
        rest_s: How long a daemon needs until it shows what it has allocated.
    """
    _good(socket, "POST", "/swarm/init", {"AdvertiseAddr": "127.0.0.1", "ListenAddr": "127.0.0.1"})
    known = {}
    for name in ("over", "over2"):
        body = {"Name": name, "Driver": "overlay"}
        known[f"<{name}>"] = _good(socket, "POST", "/networks/create", body)["Id"]
    for kind in ("secret", "config"):
        body = {"Name": kind, "Data": "eA=="}
        known[f"<{kind}>"] = _good(socket, "POST", f"/{kind}s/create", body)["ID"]
    for name, body in bodies.items():
        yield name, _shown(socket, body, known, rest_s)


def _shown(socket: str, body: Any, known: Mapping[str, str], rest_s: float) -> Any:
    text = json.dumps({**body, "Name": "it"})
    for name in ("<secret>", "<config>"):
        text = text.replace(name, known[name])
    status, answer = _ask(socket, "POST", "/services/create", json.loads(text))
    if status != 201:
        return {"Status": status, "Message": answer["message"]}
    path = f"/services/{answer['ID']}"
    time.sleep(rest_s)
    service = _good(socket, "GET", path)
    _good(socket, "DELETE", path)
    shown = json.dumps({"Spec": service["Spec"], "Endpoint": service["Endpoint"]})
    for name, value in known.items():
        shown = shown.replace(value, name)
    return json.loads(shown)


def _good(socket: str, method: str, path: str, body: Any = None) -> Any:
    status, answer = _ask(socket, method, path, body)
    assert status < 300, (method, path, status, answer)
    return answer


def _ask(socket: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = connection_to(socket)
    try:
        headers = {"Content-Type": "application/json"}
        sent = None if body is None else json.dumps(body)
        connection.request(method, f"{_VERSION}{path}", body=sent, headers=headers)
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    return answer.status, json.loads(text) if text else None


def fields(value: Any, path: str = "") -> Fields:
    """A value taken apart; empty objects and arrays are values themselves."""
    if isinstance(value, dict) and value:
        parts = ((f"{path}.{key}" if path else key, inner) for key, inner in value.items())
    elif isinstance(value, list) and value:
        parts = ((f"{path}.{at}", inner) for at, inner in enumerate(value))
    else:
        return {path: json.dumps(value)}
    return {name: text for part, inner in parts for name, text in fields(inner, part).items()}
