"""A thousand clients that say nothing, and two hundred that are served beside them."""

import http.client
import json
import resource
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import pytest
from daemon_harness.daemon import Daemon, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

IDLE = 1000
BUSY = 200


@pytest.fixture
def room_for_descriptors() -> Iterator[None]:
    """This process may have as many as it takes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * (IDLE + BUSY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), max(hard, wanted)))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("room_for_descriptors")
def test_two_hundred_clients_are_served_beside_a_thousand_idle_ones(daemon: Daemon) -> None:
    before = descriptors(daemon)
    with ExitStack() as stack:
        idle = [stack.enter_context(daemon.connect()) for _ in range(IDLE)]
        for client in idle:
            client.connect()
        # Half of them have never said anything, half have been served.
        served, silent = idle[::2], idle[1::2]
        assert pinged(served) == {(200, b"OK")}
        busy = [stack.enter_context(daemon.connect()) for _ in range(BUSY)]
        for _ in range(2):
            serve(busy)
        assert descriptors(daemon) >= IDLE + BUSY, "nobody has been turned away"
        assert pinged(silent) == {(200, b"OK")}
        assert pinged(served) == {(200, b"OK")}
    until("the daemon lets go of all of them", lambda: descriptors(daemon) <= before + 20)
    assert not daemon.complaints()


@pytest.mark.usefixtures("room_for_descriptors")
def test_clients_that_never_read_hold_nobody_up_and_leave_nothing(daemon: Daemon) -> None:
    speak = "seq 1 200000; exec sleep 600"
    daemon.cli("run", "-d", "--name", "speaker", "busybox", "sh", "-c", speak)
    until("it has said all", lambda: last_line(daemon) == "200000")
    before = descriptors(daemon)
    with ExitStack() as stack:
        for method, path in 10 * STREAMS:
            deaf = stack.enter_context(daemon.connect())
            deaf.request(method, path)
        heard = stack.enter_context(daemon.connect())
        heard.request("GET", "/events?filters=" + quote('{"event":["tag"]}'))
        events = heard.getresponse()
        # More than the socket of one that does not read takes.
        for number in range(1200):
            made = daemon.request("POST", f"/images/busybox/tag?repo=tagged&tag={number % 3}")
            assert made[0] == 201
            assert json.loads(events.readline())["Action"] == "tag"
        assert last_line(daemon) == "200000"
        assert daemon.cli("exec", "speaker", "echo", "still here").out == "still here\n"
        assert daemon.request("POST", "/containers/speaker/restart?t=0")[0] == 204
        assert descriptors(daemon) > before + 5 * len(STREAMS), "nobody has been turned away"
    until("the daemon lets go of all of them", lambda: descriptors(daemon) <= before + 20)
    assert not daemon.complaints()
    daemon.clean()


STREAMS = (
    ("GET", "/events?since=1"),
    ("GET", "/containers/speaker/logs?follow=1&stdout=1"),
    ("GET", "/containers/speaker/stats"),
    ("GET", "/containers/speaker/export"),
    ("GET", "/images/busybox/get"),
)


def last_line(daemon: Daemon) -> str:
    """What the speaker has said last."""
    text: str = daemon.get("/containers/speaker/logs?stdout=1&tail=1", parse=False)
    return text[8:].strip()


def pinged(clients: list[http.client.HTTPConnection]) -> set[tuple[int, bytes]]:
    """The distinct answers."""
    return set(ask(clients, "GET", ["/_ping"] * len(clients)))


def serve(clients: list[http.client.HTTPConnection]) -> None:
    """Each makes a container of its own, looks at it and removes it, all at once."""
    spec = json.dumps({"Image": "busybox", "Cmd": ["true"]})
    made = ask(clients, "POST", ["/containers/create"] * len(clients), spec)
    assert {status for status, _ in made} == {201}, made
    names = [json.loads(body)["Id"] for _, body in made]
    assert len(set(names)) == len(clients)
    seen = ask(clients, "GET", [f"/containers/{name}/json" for name in names])
    assert [json.loads(body)["Id"] for _, body in seen] == names
    listed = ask(clients, "GET", ["/containers/json?all=1"] * len(clients))
    assert {len(json.loads(body)) for _, body in listed} == {len(clients)}
    gone = ask(clients, "DELETE", [f"/containers/{name}" for name in names])
    assert {status for status, _ in gone} == {204}, gone


def ask(
    clients: list[http.client.HTTPConnection], method: str, paths: list[str], body: str = ""
) -> list[tuple[int, bytes]]:
    """Send a request on each connection before any answer is read; status and body of each."""
    headers = {"Content-Type": "application/json"} if body else {}
    for client, path in zip(clients, paths, strict=False):
        client.request(method, path, body=body or None, headers=headers)
    answers = [client.getresponse() for client in clients]
    return [(answer.status, answer.read()) for answer in answers]


def descriptors(daemon: Daemon) -> int:
    """How many files the daemon has open."""
    return len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))


def test_a_container_gets_the_limit_that_the_daemon_was_started_with(daemon: Daemon) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1000), hard))
    try:
        daemon.restart()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    limits = Path(f"/proc/{daemon.pid}/limits").read_text()
    assert next(line for line in limits.splitlines() if "open files" in line).split()[3] == str(
        hard
    )
    daemon.cli("run", "-d", "--name", "one", "busybox", "sleep", "600")
    assert daemon.cli("exec", "one", "sh", "-c", "ulimit -n").out == "1000\n"
    assert daemon.cli("run", "--rm", "busybox", "sh", "-c", "ulimit -n").out == "1000\n"
    asked = ("--ulimit", "nofile=50:60")
    assert daemon.cli("run", "--rm", *asked, "busybox", "sh", "-c", "ulimit -n").out == "50\n"
