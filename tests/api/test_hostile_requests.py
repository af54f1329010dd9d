"""Requests that nobody in his right mind would send: each is refused in a sentence, none is a fault of ours."""

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from daemon_harness.daemon import Daemon
from daemon_harness.specification import Specification
from hypothesis import HealthCheck, given, settings, strategies as st

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

RIGHT: dict[str, Any] = json.loads((Path(__file__).parent / "data/right_bodies.json").read_text())
"""Bodies with all that Docker's clients may say, by the request that they are right for."""

# These end the daemon's cluster, wait for what never comes, or need the network.
LEFT_OUT = {
    "POST /swarm/leave",
    "POST /images/create",
    "POST /images/{name}/push",
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
HOSTILE: tuple[Any, ...] = (
    *(
        "\0",
        "\ud800",
        "a" * 300,
        "99999/tcp",
        "127.0.0.1",
        "fe80::1%eth0",
        "300.1.1.1",
        "10.9.9.0/33",
    ),
    *(
        2**63,
        -(2**63),
        2**64,
        1e300,
        [None],
        [[]],
        [{}],
        {"": ""},
        {"a": None},
        {"a": {"b": {"c": {}}}},
    ),
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
        query.insert(0, "stream=0&follow=0")  # the first one counts
    schema = next((p["schema"] for p in parameters if p["in"] == "body" and "schema" in p), None)
    body = b""
    if schema is not None:
        value = _few_tasks(draw(_body_of(schema, SPECIFICATION.definitions)))
        body = json.dumps(value).encode()
    elif draw(st.booleans()):
        body = draw(st.binary(max_size=40))
    return method, f"/v1.50{target}?{'&'.join(query)}", body


def _few_tasks(value: Any) -> Any:
    """The same, without what would start a crowd of tasks, or take a port that others have."""
    if isinstance(value, dict):
        if str(value.get("HostPort")).strip("0").isdecimal():
            value["HostPort"] = ""
        for name in ("Replicas", "TotalCompletions", "MaxConcurrent"):
            if isinstance(value.get(name), int) and value[name] > 0:
                value[name] %= 3
        for inner in value.values():
            _few_tasks(inner)
    return value


def _places(value: Any, here: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where in a body something is."""
    if here:
        yield here
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, part in inner:
        yield from _places(part, (*here, key))


@st.composite
def nearly_right(draw: st.DrawFn) -> tuple[str, Any]:
    """A request and its right body, in which one thing or two are something else or missing."""
    # What most can be said to is asked most.
    request = draw(st.sampled_from(sorted(RIGHT) + 4 * ["POST /containers/create"]))
    body = deepcopy(RIGHT[request])
    for _ in range(draw(st.sampled_from((1, 1, 2)))):
        *way, last = draw(st.sampled_from(list(_places(body))))
        place = body
        for key in way:
            place = place[key]
        if draw(st.integers(0, 5)):
            place[last] = deepcopy(draw(st.sampled_from(HOSTILE) | VALUES))
        else:
            del place[last]
    return request, _few_tasks(body)


@pytest.fixture
def peopled(shared_daemon: Daemon) -> Iterator[Daemon]:
    """A daemon that has one of each thing."""
    daemon = shared_daemon
    if "busybox:latest" not in daemon.images():
        daemon.build_busybox()  # requests before have removed it
    daemon.docker("run", "-d", "--name", "one", "busybox", "sleep", "1000")
    daemon.docker("swarm", "init")
    daemon.docker("secret", "create", "one", "-", stdin="x")
    daemon.docker("config", "create", "one", "-", stdin="x")
    daemon.docker("service", "create", "-d", "--name", "one", "--replicas", "0", "busybox")

    daemon.docker("network", "create", "net")
    yield daemon
    assert daemon.request("GET", "/_ping")[0] == 200
    assert [line for line in daemon.complaints() if "Traceback" in line or "exc" in line] == []
    daemon.clean()


def _of_its_registry(daemon: Daemon, body: bytes) -> bytes:
    """A login that asks a registry which is there; that none can be reached is no fault."""
    login = json.loads(body or b"{}")
    login = {} if login is None else login
    if isinstance(login, dict) and isinstance(login.get("serveraddress"), str | None):
        login["serveraddress"] = daemon.registry
    return json.dumps(login).encode()


def _ask(daemon: Daemon, method: str, target: str, body: bytes) -> Any:
    """The JSON of the answer, if it is one that says what was made; no answer is a fault."""
    if re.search(r"/auth(\?|$)", target):
        body = _of_its_registry(daemon, body)
    with daemon.connect() as connection:
        connection.timeout = 60
        connection.request(method, target, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status < 400 and answer.status != 201:
            if method == "GET" and answer.status == 200:
                answer.read()  # an answer that breaks off is a fault, too
            return None
        text = answer.read().decode()
    if answer.status == 201:
        return json.loads(text) if text.startswith("{") else None
    if method != "HEAD":
        error = json.loads(text)
        assert error["message"], (method, target, body)
        assert answer.status != 500, (method, target, body, text)
    return None


def test_no_request_is_a_fault_of_the_daemon(peopled: Daemon) -> None:
    @settings(
        max_examples=400, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(requests())
    def ask(request: tuple[str, str, bytes]) -> None:
        _ask(peopled, *request)

    ask()


def test_nothing_in_a_right_request_can_be_changed_into_a_fault_of_the_daemon(
    peopled: Daemon,
) -> None:
    daemon = peopled

    @settings(
        max_examples=300, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(nearly_right())
    def ask(request: tuple[str, Any]) -> None:
        (method, target), body = request[0].split(" ", 1), json.dumps(request[1]).encode()
        if target == "/services/one/update":
            target += f"?version={daemon.get('/services/one')['Version']['Index']}"
        made = _ask(daemon, method, target, body)
        where = target.removesuffix("/create")
        if made is None or where == target:
            return
        # What was made is used, shown and removed, as hostile as it is.
        thing = f"{where}/{quote(made.get('Id') or made.get('ID') or made['Name'], safe='')}"
        if where == "/containers":
            _ask(daemon, "POST", f"{thing}/start", b"")
            thing += "/json"
        _ask(daemon, "GET", thing, b"")
        _ask(daemon, "DELETE", f"{thing.removesuffix('/json')}?force=1&v=1", b"")

    ask()
