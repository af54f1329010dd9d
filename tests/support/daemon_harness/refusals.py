"""What a daemon answers to requests that it should refuse: statuses and messages."""

import http.client
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from daemon_harness.daemon import connection_to
from daemon_harness.shell import printed
from daemon_harness.transcripts import normal

Answer = tuple[int, str]
"""Status, and message; a message is empty where nothing was refused."""

_VARIABLE = re.compile(r"([A-Z]+)=(.+)")
_REQUEST = re.compile(r"([A-Z]+)(;\S*)? (/\S*|/)(?: (.*))?")
_MADE = {"/containers/create": "/containers", "/networks/create": "/networks"}


def carry_out(
    script: Path, socket: str, environment: Mapping[str, str]
) -> Iterator[tuple[str, Answer]]:
    """Carry out a script: its commands must succeed, of its requests the answers are told.

    ``METHOD;TYPE PATH BODY``: the type is that of the content, JSON's if it is not said. A path without a version
    is asked in the newest that both daemons know. After ``NAME=$(command)``, ``$NAME`` in a path is what it
    printed.
    """
    variables: dict[str, str] = {}
    for line in script.read_text().splitlines():
        request, variable = _REQUEST.fullmatch(line), _VARIABLE.fullmatch(line)
        if request is not None:
            method, kind, path, body = request.groups()
            path = re.sub(r"\$([A-Z]+)", lambda name: variables[name[1]], path)
            yield line, _ask(socket, method, kind, path, body)
        elif variable is not None:
            variables[variable[1]] = printed(f'printf %s "{variable[2]}"', environment)
        elif line and not line.startswith("#"):
            printed(line, environment)


def _ask(socket: str, method: str, kind: str | None, path: str, body: str | None) -> Answer:
    if re.match(r"/v[\d.x]*(/|$)", path) is None and path != "/":
        path = f"/v1.50{path}"
    headers = {}
    if kind is not None:
        headers = {"Content-Type": kind[1:]} if kind != ";" else {}
    elif body is not None:
        headers = {"Content-Type": "application/json"}
    connection = connection_to(socket)
    try:
        connection.request(method, quote(path, safe="/?=&:%+,"), body=body, headers=headers)
        answer = connection.getresponse()
        if answer.status == 101:
            return answer.status, ""
        text = answer.read().decode(errors="replace")
    except (ConnectionError, http.client.HTTPException) as error:
        return 0, type(error).__name__
    finally:
        connection.close()
    if answer.status == 201:
        _take_back(socket, path, text)
    return answer.status, _message(answer.status, text)


def _message(status: int, text: str) -> str:
    """Of a refusal; a stream of progress may end with one."""
    found: Any = ""
    try:
        documents = [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError:
        documents = []
        found = text if status >= 400 else ""
    for document in documents:
        if isinstance(document, dict):
            found = document.get("error") or (
                document.get("message", "") if status >= 400 else found
            )
    return normal(str(found)).strip()


def _take_back(socket: str, path: str, text: str) -> None:
    """Remove what was made after all, so that nothing later depends on it."""
    route = path.split("?")[0].partition("/v1.")[2].partition("/")[2]
    above = _MADE.get(f"/{route}")
    if above is None:
        return
    connection = connection_to(socket)
    try:
        connection.request("DELETE", f"{above}/{json.loads(text)['Id']}")
        connection.getresponse().read()
    finally:
        connection.close()


def write(found: Mapping[str, Answer], path: Path) -> None:
    """Keep answers, one a line."""
    rows = (f"{json.dumps(line)}: {json.dumps(answer)}" for line, answer in found.items())
    path.write_text("{\n" + ",\n".join(rows) + "\n}\n")


def read(path: Path) -> dict[str, Answer]:
    """What was kept."""
    return {line: (status, said) for line, (status, said) in json.loads(path.read_text()).items()}
