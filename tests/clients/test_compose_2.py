"""Compose 2, docker's plugin, a project's whole life. It builds by another plugin, buildx.

Where both are not installed, nor named by ``LINKSPAN_TEST_COMPOSE`` and ``LINKSPAN_TEST_BUILDX``, this is skipped.
"""

import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon, until
from docker_plugins import lend_plugins

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

DOCKERFILE = """\
FROM busybox
ARG V=0
COPY page /www/page
RUN echo v=$V > /www/v
CMD ["httpd", "-f", "-p", "80", "-h", "/www"]
"""

PROJECT = """\
name: two
services:
  web:
    build: {context: web, args: {V: "3"}}
    ports: ["127.0.0.1::80"]
    depends_on: {db: {condition: service_healthy}, first: {condition: service_completed_successfully}}
    networks: {front: {aliases: [w]}, back: {}}
    volumes: ["data:/data", "./web:/src:ro", {type: image, source: busybox, target: /img}]
    tmpfs: [/t]
    secrets: [s]
    configs: [{source: c, target: /etc/c}]
    post_start: [{command: touch /begun}]
    stop_signal: SIGKILL
  db:
    image: busybox
    command: sh -c "echo db up; exec sleep 1000"
    healthcheck: {test: "true", interval: 1s}
    networks: [back]
    stop_signal: SIGKILL
  first:
    image: busybox
    command: sh -c "echo was first > /data/first"
    volumes: [data:/data]
    network_mode: none
  beside:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    scale: 2
    network_mode: "service:db"
  tool:
    image: busybox
    profiles: [tools]
    command: echo tool
    network_mode: none
networks: {front: {}, back: {internal: true}}
volumes: {data: {labels: {k: v}}}
secrets: {s: {file: ./secret}}
configs: {c: {content: "inline"}}
"""


class Compose:
    """``docker compose`` in a folder."""

    def __init__(self, daemon: Daemon, folder: Path, config: Path) -> None:
        self._daemon = daemon
        self.folder = folder
        self._config = config

    def __call__(self, *words: str, status: int = 0) -> str:
        done = subprocess.run(
            ["docker", "compose", "--progress", "plain", *words],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={**self._daemon.environment, "DOCKER_CONFIG": str(self._config)},
            timeout=120,
            check=False,
        )
        said = f"docker compose {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert done.returncode == status, f"{said}\n{self._daemon.tail()}"
        return done.stderr + done.stdout


@pytest.fixture
def compose(daemon: Daemon, tmp_path: Path) -> Iterator[Compose]:
    config, folder = tmp_path / "config", tmp_path / "project"
    lend_plugins(config, "buildx", "compose")
    (folder / "web").mkdir(parents=True)
    (folder / "web/Dockerfile").write_text(DOCKERFILE)
    (folder / "web/page").write_text("hello")
    (folder / "secret").write_text("hunter2")
    (folder / "compose.yaml").write_text(PROJECT)
    run = Compose(daemon, folder, config)
    yield run
    run("down", "-v", "-t", "0", "--remove-orphans")


def fetch(compose: Compose, path: str) -> str:
    def answer() -> str:
        where = compose("port", "web", "80").strip()
        try:
            with urllib.request.urlopen(f"http://{where}/{path}", timeout=5) as got:
                return str(got.read().decode().strip())
        except OSError:
            return ""

    return until(f"an answer of web for {path}", answer)


def test_a_project_is_built_run_changed_and_taken_down(compose: Compose, daemon: Daemon) -> None:
    assert "http2:" not in compose("up", "-d"), "what bake's session says"
    assert (fetch(compose, "page"), fetch(compose, "v")) == ("hello", "v=3")
    script = "cat /run/secrets/s /etc/c /data/first; ls /begun /img/bin/sh /src/page; nslookup db | grep -c Name"
    inside = compose("exec", "-T", "web", "sh", "-c", script)
    for word in ("hunter2", "inline", "was first", "/begun", "/img/bin/sh", "/src/page", "1\n"):
        assert word in inside
    assert compose("logs", "--no-log-prefix", "db") == "db up\n"
    assert "tool\n" in compose("run", "--rm", "tool")
    assert "one-off\n" in compose("run", "--rm", "-T", "web", "echo", "one-off")
    compose("up", "-d", "--scale", "beside=3", "--no-build")
    assert compose("ps", "-q", "beside").count("\n") == 3
    file = compose.folder / "compose.yaml"
    file.write_text(PROJECT.replace('V: "3"', 'V: "4"'))
    assert "CACHED" in compose("up", "-d", "--build", "--wait", "db", "web")
    assert fetch(compose, "v") == "v=4"
    for words in (
        ("pause", "web"),
        ("unpause", "web"),
        ("restart", "-t", "0", "web"),
        ("kill", "db"),
    ):
        compose(*words)
    compose("up", "-d", "--force-recreate", "--wait", "web")
    assert fetch(compose, "v") == "v=4"
    file.write_text(PROJECT)
    compose("down", "-v", "-t", "0", "--rmi", "local")
    assert daemon.docker("ps", "-aq").out == ""
    assert "two" not in daemon.docker("network", "ls", "--format", "{{.Name}}").out
    assert daemon.docker("volume", "ls", "-q").out == ""


def test_a_build_that_fails_is_shown_in_its_file(compose: Compose) -> None:
    (compose.folder / "web/Dockerfile").write_text("FROM busybox\nRUN echo out; exit 3\n")
    said = compose("build", status=1)
    assert ">>> RUN echo out; exit 3" in said
    assert "did not complete successfully: exit code: 3" in said
