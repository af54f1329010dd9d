"""Every operation of the Engine API is asked of a real daemon, and its answer held against the specification."""

import base64
import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from daemon_harness.daemon import Daemon, until
from daemon_harness.specification import Specification

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

NOT_ASKED = {
    "GET /containers/{id}/attach/ws": "takes a WebSocket; the plugin's own tests speak it",
    "POST /containers/{id}/attach": "takes the connection over",
    "POST /exec/{id}/start": "takes the connection over",
    "POST /containers/{id}/resize": "takes a terminal",
    "POST /exec/{id}/resize": "takes a terminal",
}
"""Operations that other tests ask."""

OF_A_PLUGIN = (
    "GET /plugins/{name}/json",
    "DELETE /plugins/{name}",
    *(f"POST /plugins/{{name}}/{what}" for what in ("enable", "disable", "upgrade", "push", "set")),
)

ERRORS_ONLY = (
    "POST /swarm/unlock",
    "POST /swarm/join",
    "DELETE /nodes/{id}",
    "GET /images/search",
    "POST /session",
    *OF_A_PLUGIN,
)
"""A swarm is never locked and has one node, no registry here can search, no plugin of Docker's is there, and a
session is no HTTP any more.
"""

NOT_SERVED = (
    "PUT /volumes/{name}",
    "GET /plugins/privileges",
    "POST /plugins/pull",
    "POST /plugins/create",
)
"""Answered 501, with a message."""

STREAMS = (
    "GET /containers/{id}/logs",
    "GET /containers/{id}/archive",
    "GET /containers/{id}/export",
    "GET /services/{id}/logs",
    "GET /tasks/{id}/logs",
    "GET /images/get",
    "GET /images/{name}/get",
    "POST /images/create",
    "POST /images/load",
    "POST /images/{name}/push",
    "POST /build",
    "GET /events",
)
"""Their bodies are no JSON, or several."""


UNLIKE_DOCKER = {
    "GET /containers/{id}/json: HostConfig.MemorySwappiness: None is not of type 'integer'",
    "GET /exec/{id}/json: ExitCode: None is not of type 'integer'",
    "GET /images/json: *.Manifests.*.ImageData: 'UnpackedSize' is a required property",
    "HEAD /_ping: body: None is not of type 'string'",
    "POST /configs/create: body: 'Id' is a required property",
    "POST /secrets/create: body: 'Id' is a required property",
}
"""What the specification says and Docker's daemon does not do: clients know it as the daemon does it."""


@attrs.define
class Asker:
    """Asks, remembers what was asked, and gathers what is wrong."""

    daemon: Daemon
    specification: Specification
    asked: set[str] = attrs.field(factory=set)
    faults: list[str] = attrs.field(factory=list)

    def __call__(self, operation: str, query: str = "", body: Any = None, **parts: str) -> Any:
        """Ask one operation with the parts of its path; the JSON of its answer."""
        method, path = operation.split(" ", 1)
        for name, value in parts.items():
            path = path.replace(f"{{{name}}}", value)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        status, text = self.daemon.request(method, f"/v1.50{path}{query}", data)
        self.asked.add(operation)
        if operation in STREAMS and status == 200:
            return text
        try:
            answer = json.loads(text) if text.strip() else None
        except ValueError:
            answer = text
        self.faults += self.specification.faults(operation, status, answer)
        if status >= 400:
            self.faults.append(f"{operation}: {status} {text}")
        return answer


@pytest.fixture(scope="module")
def specification() -> Specification:
    return Specification()


@pytest.fixture
def ask(daemon: Daemon, specification: Specification) -> Iterator[Asker]:
    asker = Asker(daemon, specification)
    yield asker
    assert "\n".join(fault for fault in asker.faults if fault not in UNLIKE_DOCKER) == ""


def _archive(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def _containers(ask: Asker) -> None:
    spec = {
        "Image": "busybox",
        "Cmd": ["sh", "-c", "echo begun; exec sleep 1000"],
        "Labels": {"a": "1"},
        "ExposedPorts": {"80/tcp": {}},
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 100_000_000},
        "HostConfig": {
            "PortBindings": {"80/tcp": [{"HostPort": ""}]},
            "Mounts": [{"Type": "volume", "Source": "data", "Target": "/data"}],
            "Memory": 64 << 20,
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 1},
        },
        "NetworkingConfig": {"EndpointsConfig": {"net": {"Aliases": ["other"]}}},
    }
    ask("POST /networks/create", body={"Name": "net", "Labels": {"a": "1"}})
    ask("POST /volumes/create", body={"Name": "data"})
    made = ask("POST /containers/create", "?name=one", spec)["Id"]
    ask("POST /containers/{id}/start", id="one")
    until("it is healthy", lambda: ask.daemon.state("one")["Health"]["Status"] == "healthy")
    for query in ("?all=1", "?size=1"):
        ask("GET /containers/json", query)
    for query in ("", "?size=1"):
        ask("GET /containers/{id}/json", query, id=made)
    ask("GET /containers/{id}/top", id="one")
    ask("GET /containers/{id}/logs", "?stdout=1", id="one")
    ask("GET /containers/{id}/stats", "?stream=0", id="one")
    session = {"Cmd": ["true"], "AttachStdout": True}
    session_id = ask("POST /containers/{id}/exec", body=session, id="one")["Id"]
    ask("GET /exec/{id}/json", id=session_id)
    ask(
        "POST /containers/{id}/update", body={"Memory": 80 << 20, "MemorySwap": 160 << 20}, id="one"
    )
    ask("POST /containers/{id}/pause", id="one")
    ask("POST /containers/{id}/unpause", id="one")
    ask("POST /containers/{id}/rename", "?name=renamed", id="one")
    ask("PUT /containers/{id}/archive", "?path=/tmp", _archive(put=b"x"), id=made)
    ask("HEAD /containers/{id}/archive", "?path=/tmp/put", id=made)
    ask("GET /containers/{id}/archive", "?path=/tmp/put", id=made)
    assert {"Path": "/tmp/put", "Kind": 1} in ask("GET /containers/{id}/changes", id=made)
    ask("GET /containers/{id}/export", id=made)
    ask("POST /commit", f"?container={made}&repo=committed&tag=1", {})
    ask("POST /networks/{id}/disconnect", body={"Container": made}, id="net")
    ask("POST /networks/{id}/connect", body={"Container": made}, id="net")
    ask("GET /networks/{id}", "?verbose=1", id="net")
    ask("GET /networks")
    ask("GET /volumes")
    ask("GET /volumes/{name}", name="data")
    ask("POST /containers/{id}/restart", "?t=0", id=made)
    ask("POST /containers/{id}/kill", id=made)
    ask("POST /containers/{id}/wait", id=made)
    ask("POST /containers/{id}/start", id=made)
    ask("POST /containers/{id}/stop", "?t=0", id=made)


def _images(ask: Asker) -> None:
    name = f"{ask.daemon.registry}/team/tool"
    ask("POST /images/{name}/tag", f"?repo={name}&tag=1", name="busybox")
    ask("POST /images/{name}/push", "?tag=1", name=name)
    ask("POST /images/create", f"?fromImage={name}&tag=1")
    ask("GET /distribution/{name}/json", name=f"{name}:1")
    for query in ("?all=1&shared-size=1&digests=1", "?manifests=1"):
        ask("GET /images/json", query)
    ask("GET /images/{name}/json", name="busybox")
    ask("GET /images/{name}/history", name="busybox")
    assert ask("GET /images/{name}/get", name="busybox")
    assert ask("GET /images/get", "?names=busybox")
    status, saved = _raw(ask.daemon, "/images/busybox/get")
    assert status == 200
    ask("POST /images/load", "?quiet=1", saved)
    ask("POST /build", "?t=built:1", _archive(Dockerfile=b"FROM busybox\nRUN true\n"))
    ask("DELETE /images/{name}", name="built:1")
    ask("DELETE /images/{name}", name=f"{name}:1")
    ask("DELETE /images/{name}", name="committed:1")
    ask("POST /auth", body={"username": "a", "password": "b", "serveraddress": ask.daemon.registry})


def _raw(daemon: Daemon, path: str) -> tuple[int, bytes]:
    with daemon.connect() as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()


def _swarm(ask: Asker) -> None:
    ask("POST /swarm/init", body={"ListenAddr": "0.0.0.0:2377"})
    swarm = ask("GET /swarm")
    ask("POST /swarm/update", f"?version={swarm['Version']['Index']}", swarm["Spec"])
    ask("GET /swarm/unlockkey")
    data = base64.b64encode(b"data").decode()
    files: dict[str, Any] = {}
    for kind in ("secret", "config"):
        found = ask(f"POST /{kind}s/create", body={"Name": "one", "Data": data, "Labels": {}})["ID"]
        seen = ask(f"GET /{kind}s/{{id}}", id=found)
        ask(f"GET /{kind}s")
        ask(
            f"POST /{kind}s/{{id}}/update",
            f"?version={seen['Version']['Index']}",
            seen["Spec"],
            id=found,
        )
        word = kind.capitalize()
        file = {"Name": "one", "UID": "0", "GID": "0", "Mode": 0o444}
        files[f"{word}s"] = [{"File": file, f"{word}ID": found, f"{word}Name": "one"}]
    container = {
        "Image": "busybox",
        "Command": ["sleep", "1000"],
        "StopGracePeriod": 10**6,
        **files,
    }
    spec = {
        "Name": "web",
        "TaskTemplate": {"ContainerSpec": container},
        "Mode": {"Replicated": {"Replicas": 1}},
        "EndpointSpec": {"Ports": [{"TargetPort": 80}]},
    }
    ask("POST /services/create", body=spec)

    def tasks() -> list[Any]:
        return [t for t in ask("GET /tasks") if t["Status"]["State"] == "running"]

    (task,) = until("its task runs", tasks)
    ask("GET /tasks/{id}", id=task["ID"])
    ask("GET /tasks/{id}/logs", "?stdout=1", id=task["ID"])
    for query in ("", "?status=1"):
        ask("GET /services", query)
    service = ask("GET /services/{id}", id="web")
    changed = {**service["Spec"], "Labels": {"a": "1"}}
    ask("POST /services/{id}/update", f"?version={service['Version']['Index']}", changed, id="web")
    ask("GET /services/{id}/logs", "?stdout=1", id="web")
    (node,) = ask("GET /nodes")
    ask("GET /nodes/{id}", id=node["ID"])
    ask(
        "POST /nodes/{id}/update",
        f"?version={node['Version']['Index']}",
        node["Spec"],
        id=node["ID"],
    )
    ask("GET /info")
    ask("DELETE /services/{id}", id="web")
    until("its task goes", lambda: not ask("GET /tasks"))
    ask("DELETE /secrets/{id}", id="one")
    ask("DELETE /configs/{id}", id="one")
    ask("POST /swarm/leave", "?force=1")


def _system(ask: Asker) -> None:
    ask("GET /_ping")
    ask("HEAD /_ping")
    ask("GET /version")
    ask("GET /info")
    ask("GET /plugins")
    for query in ("", "?type=container&type=volume", "?verbose=1"):
        ask("GET /system/df", query)
    for line in ask("GET /events", "?since=1&until=2").splitlines():
        ask.faults += ask.specification.faults("GET /events", 200, json.loads(line))


def _prunes(ask: Asker) -> None:
    ask("DELETE /containers/{id}", "?force=1", id="renamed")
    ask("DELETE /networks/{id}", id="net")
    ask("DELETE /volumes/{name}", name="data")
    for what in ("containers", "images", "networks", "volumes", "build"):
        ask(f"POST /{what}/prune")


def test_every_answer_is_as_the_specification_says(ask: Asker) -> None:
    _containers(ask)
    _system(ask)
    _images(ask)
    _swarm(ask)
    _prunes(ask)
    every = set(ask.specification.operations)
    others = {*NOT_ASKED, *NOT_SERVED, *ERRORS_ONLY}
    assert every - ask.asked == others - ask.asked
    assert others <= every


@pytest.mark.parametrize("operation", NOT_SERVED)
def test_what_is_not_served_says_so(daemon: Daemon, operation: str) -> None:
    method, path = operation.split(" ", 1)
    status, text = daemon.request(method, path.replace("{id}", "x").replace("{name}", "x"), b"{}")
    assert status == 501
    assert json.loads(text)["message"].startswith("not supported by this daemon")


def test_errors_are_as_the_specification_says(daemon: Daemon, specification: Specification) -> None:
    for operation in specification.operations:
        method, path = operation.split(" ", 1)
        if operation in NOT_SERVED or "{" not in path or method == "HEAD":
            continue
        if operation == "POST /images/{name}/push":
            continue  # it says what failed in its stream
        where = path.replace("{id}", "nobody").replace("{name}", "nobody/has:this")
        query = "?" + "&".join(
            f"{p['name']}={'1' if p.get('type') == 'integer' else 'x'}"
            for p in specification.operations[operation]["parameters"]
            if p.get("required") and p["in"] == "query"
        )
        status, text = daemon.request(method, f"/v1.50{where}{query}", b"{}")
        assert status >= 400, operation
        # Which statuses there are the specification often forgets; what an error looks like it says once.
        assert specification.faults("GET /info", 500, json.loads(text)) == []
