"""Views that are redrawn, logs of services, nodes, Compose."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from linkspan.core.cli.live import Repaint
from linkspan.core.cli.terminal import Terminal

SERVICE = {"ID": "s1", "Spec": {"Name": "web"}}
TASK = {"ID": "t1", "ServiceID": "s1", "Slot": 2, "NodeID": "n1", "Status": {"State": "running"}}
NODE = {
    "ID": "n1",
    "Version": {"Index": 7},
    "Spec": {"Role": "manager", "Availability": "active", "Labels": {"rack": "1", "zone": "b"}},
    "Description": {"Hostname": "demo-1"},
}
DETAILS = b"com.docker.swarm.node.id=n1,com.docker.swarm.service.id=s1,com.docker.swarm.task.id=t1"


def test_a_watch_in_a_pipe_is_one_list(linkspan: Any, fake: Any) -> None:
    container = {"Id": "c" * 64, "Names": ["/web"], "Image": "x", "State": "running"}
    fake.on("GET", "/containers/json", [container])
    with fake.running():
        result = linkspan("ps", "--watch")
    assert result.status == 0
    assert [line.split()[0] for line in result.out.splitlines()] == ["NAME", "web"]


def test_frames_are_drawn_over_one_another(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Repaint, "_height", lambda _: 4)
    with Repaint(Terminal(environ={})) as paint:
        paint.draw(["one", "two"])
        paint.draw(["1", "2", "3", "4", "5"])
    out = capsys.readouterr().out
    assert out == (
        "\x1b[?25l\rone\x1b[K\ntwo\x1b[K\n\x1b[J"
        "\x1b[2A\r1\x1b[K\n2\x1b[K\nand 3 more\x1b[K\n\x1b[J\x1b[?25h"
    )


def logs_of(fake: Any) -> None:
    def handler(request: Any, connection: Any) -> None:
        prefix = DETAILS + b" " if request.query.get("details") == "1" else b""
        connection.head(200, {})
        connection.frame(1, prefix + b"hello wor")
        connection.frame(2, prefix + b"oh\n")
        connection.frame(1, b"ld\n")

    fake.on("GET", "/services/web", SERVICE)
    fake.on("GET", "/services/s1", SERVICE)
    fake.on("GET", "/tasks", [TASK])
    fake.on("GET", "/tasks/t1", TASK)
    fake.on("GET", "/services/s1/logs", handler)
    fake.on("GET", "/tasks/t1/logs", handler)
    fake.on("GET", "/services/t1", {"message": "no such service"}, 404)
    fake.on("GET", "/services/x", {"message": "no such service"}, 404)
    fake.on("GET", "/tasks/x", {"message": "no such task"}, 404)


def test_lines_of_a_service_say_whose_they_are(linkspan: Any, fake: Any) -> None:
    logs_of(fake)
    with fake.running():
        assert linkspan("service", "logs", "web") == (0, "web.2 | hello world\n", "web.2 | oh\n")
        assert linkspan("service", "logs", "t1").out == "web.2 | hello world\n"
        assert linkspan("service", "logs", "--raw", "web").out == "hello world\n"
        missing = linkspan("service", "logs", "x")
    assert (missing.status, "no such service or task: x" in missing.err) == (1, True)


def test_a_node_is_changed_from_what_it_is(linkspan: Any, fake: Any) -> None:
    fake.on("GET", "/nodes/demo-1", NODE)
    fake.on("POST", "/nodes/n1/update")
    with fake.running():
        result = linkspan(
            *("node", "update", "--availability", "drain", "--label-add", "zone=a"),
            *("--label-rm", "rack", "--label-rm", "absent", "demo-1"),
        )
    assert result == (0, "demo-1\n", "there was no label 'absent'\n")
    asked = fake.asked("POST", "/nodes/n1/update")
    assert asked.query == {"version": "7"}
    assert asked.json == {"Role": "manager", "Availability": "drain", "Labels": {"zone": "a"}}


def test_the_tasks_of_a_node(linkspan: Any, fake: Any) -> None:
    fake.on("GET", "/nodes/demo-1", NODE)
    fake.on("GET", "/nodes", [NODE])
    fake.on("GET", "/tasks", [TASK])
    fake.on("GET", "/services", [SERVICE])
    with fake.running():
        assert linkspan("node", "ps", "--format", "{{.Name}} {{.Node}}", "demo-1").out == (
            "web.2 demo-1\n"
        )


def test_compose_gets_its_words_and_the_daemon(fake: Any, tmp_path: Path) -> None:
    program = tmp_path / ".docker" / "cli-plugins" / "docker-compose"  # goes before all others
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "$DOCKER_HOST" "$@"\n')
    program.chmod(0o755)
    environ = {**os.environ, "HOME": str(tmp_path)}
    words = ["--host", fake.url, "compose", "-f", "x.yaml", "up", "-d", "--help"]
    done = subprocess.run(
        [sys.executable, "-m", "linkspan.core.cli", *words],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == f"{fake.url} -f x.yaml up -d --help\n", done


def test_without_compose_it_is_said_how_to_get_it(
    linkspan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linkspan.core.cli.compose._FOLDERS", ())
    monkeypatch.setenv("PATH", "/absent")
    result = linkspan("compose", "up")
    assert (result.status, "Compose is not installed" in result.err) == (127, True)
