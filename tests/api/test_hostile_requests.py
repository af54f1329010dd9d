"""Requests that nobody in his right mind would send: each is refused in a sentence, none is a fault of ours."""

import json
import re
from typing import Any
from urllib.parse import quote

import pytest
from daemon_harness.daemon import Daemon
from daemon_harness.specification import Specification
from hypothesis import HealthCheck, given, settings, strategies as st

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

DOCKERS_FAULTS = {"port_taken", "not_connected", "out_of_sequence"}
"""Codes of errors that Docker answers with 500, too."""

# These end the daemon's cluster, wait for what never comes, or need the network.
LEFT_OUT = {
    "POST /swarm/leave",
    "POST /images/create",
    "POST /images/{name}/push",
    "POST /services/create",
    "POST /services/{id}/update",
    "POST /auth",
    "GET /events",
    "GET /images/search",
    "GET /distribution/{name}/json",
}

WORDS = st.one_of(
    st.sampled_from(
        [
            "",
            "0",
            "-1",
            "1",
            "true",
            "busybox",
            "one",
            "../..",
            "a/b:c@d",
            "sha256:",
            "null",
            "%",
            "{}",
            "[]",
        ]
    ),
    st.text(max_size=20),
    st.integers(-(2**65), 2**65).map(str),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**65), 2**65), st.floats(), WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


def _body_of(schema: Any, definitions: dict[str, Any], depth: int = 0) -> st.SearchStrategy[Any]:
    """Bodies that are nearly right: the specification's fields, with values of any kind now and then."""
    if depth > 6 or not isinstance(schema, dict):
        return VALUES
    if "$ref" in schema:
        return _body_of(definitions[schema["$ref"].rpartition("/")[2]], definitions, depth + 1)
    if "allOf" in schema:
        parts = [_body_of(part, definitions, depth + 1) for part in schema["allOf"]]
        return st.tuples(*parts).map(
            lambda found: {
                k: v for part in found if isinstance(part, dict) for k, v in part.items()
            }
        )
    if "enum" in schema:
        return st.one_of(st.sampled_from(schema["enum"]), VALUES)
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        fields = {
            k: _body_of(v, definitions, depth + 1) for k, v in schema.get("properties", {}).items()
        }
        return st.one_of(st.fixed_dictionaries({}, optional=fields), VALUES) if fields else VALUES
    if kind == "array":
        return st.one_of(
            st.lists(_body_of(schema.get("items"), definitions, depth + 1), max_size=2), VALUES
        )
    if kind == "string":
        return st.one_of(WORDS, VALUES)
    if kind in ("integer", "number"):
        return st.one_of(st.integers(-5, 2**33), VALUES)
    return st.one_of(st.booleans(), VALUES)


SPECIFICATION = Specification()
OPERATIONS = sorted(set(SPECIFICATION.operations) - LEFT_OUT)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """Method, target, body."""
    operation = draw(st.sampled_from(OPERATIONS))
    method, path = operation.split(" ", 1)
    parameters = SPECIFICATION.operations[operation]["parameters"]
    target = re.sub(r"\{\w+\}", lambda _: quote(draw(WORDS.filter(bool)), safe="/"), path)
    query = [
        f"{quote(p['name'])}={quote(draw(WORDS))}"
        for p in parameters
        if p["in"] == "query" and draw(st.booleans())
    ]
    if method == "GET" and ("stats" in path or "logs" in path):
        query.append("stream=0&follow=0")
    schema = next((p["schema"] for p in parameters if p["in"] == "body" and "schema" in p), None)
    body = b""
    if schema is not None:
        value = draw(_body_of(schema, SPECIFICATION.definitions))
        body = json.dumps(value).encode()
    elif draw(st.booleans()):
        body = draw(st.binary(max_size=40))
    return method, f"/v1.50{target}?{'&'.join(query)}", body


def test_no_request_is_a_fault_of_the_daemon(shared_daemon: Daemon) -> None:
    daemon = shared_daemon
    daemon.docker("run", "-d", "--name", "one", "busybox", "sleep", "1000")
    daemon.docker("swarm", "init")
    daemon.docker("secret", "create", "one", "-", stdin="x")
    daemon.docker("config", "create", "one", "-", stdin="x")
    daemon.docker("service", "create", "-d", "--name", "one", "--replicas", "0", "busybox")

    @settings(
        max_examples=400, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(requests())
    def ask(request: tuple[str, str, bytes]) -> None:
        method, target, body = request
        with daemon.connect() as connection:
            connection.timeout = 60
            connection.request(method, target, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            if answer.status < 400:
                return
            text = answer.read().decode()
        if method != "HEAD":
            error = json.loads(text)
            assert error["message"], request
            assert answer.status != 500 or error["code"] in DOCKERS_FAULTS, (request, text)

    ask()
    assert daemon.request("GET", "/_ping")[0] == 200
    assert [line for line in daemon.complaints() if "Traceback" in line or "exc" in line] == []
    daemon.clean()
