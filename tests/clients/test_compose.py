"""docker-compose 1.29, Debian's: a project's whole life."""

import json
import os
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

DOCKERFILE = """\
FROM busybox
ARG GREETING=hello
RUN mkdir -p /www && echo $GREETING > /www/index.html
CMD ["httpd", "-f", "-p", "80", "-h", "/www"]
"""

PROJECT = """\
version: "2.4"
services:
  web:
    build: {context: app, args: {GREETING: built}}
    ports: ["80"]
    networks: [front, back]
    stop_grace_period: 1s
    depends_on:
      db: {condition: service_healthy}
  db:
    image: busybox
    command: sh -c "echo db started; touch /data/ready; exec sleep 1000"
    volumes: ["data:/data", "./app:/context:ro"]
    networks: {back: {aliases: [store]}}
    stop_grace_period: 1s
    healthcheck: {test: ["CMD", "test", "-e", "/data/ready"], interval: 200ms, retries: 100}
networks: {front: {}, back: {internal: true}}
volumes: {data: {labels: {kept: "yes"}}}
"""


class Compose:
    """``docker-compose`` in a folder."""

    def __init__(self, daemon: Daemon, folder: Path) -> None:
        self._daemon = daemon
        self._folder = folder

    def __call__(self, *words: str) -> str:
        done = subprocess.run(
            ["docker-compose", "--ansi=never", "-p", "demo", *words],
            capture_output=True,
            text=True,
            cwd=self._folder,
            # Debian's program is of Debian's Python, and builds by docker's command as of 1.29.
            env={**self._daemon.environment, "DOCKER_BUILDKIT": "0", "PYTHONWARNINGS": "ignore"},
            timeout=120,
            check=False,
        )
        said = f"docker-compose {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert done.returncode == 0, f"{said}\n{self._daemon.tail()}"
        return done.stderr + done.stdout


@pytest.fixture
def compose(daemon: Daemon, tmp_path: Path) -> Compose:
    if shutil.which("docker-compose") is None:
        pytest.skip("needs docker-compose")
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "docker-compose.yml").write_text(PROJECT)
    os.chown(tmp_path, 0, 0)
    return Compose(daemon, tmp_path)


def test_a_project_is_built_brought_up_scaled_and_taken_down(
    compose: Compose, daemon: Daemon
) -> None:
    assert "Successfully tagged demo_web:latest" in compose("build")
    said = compose("up", "-d", "--scale", "web=2")
    assert "Creating volume" in said
    assert daemon.state("demo_db_1")["Health"]["Status"] == "healthy"
    address = compose("port", "--index=2", "web", "80").strip()

    def page() -> bytes:
        try:
            with urllib.request.urlopen(f"http://{address}/", timeout=5) as answer:
                return bytes(answer.read())
        except OSError:
            return b""

    assert until("the page answers", page) == b"built\n"
    assert "store" in compose("exec", "-T", "web", "ping", "-c", "1", "store")
    assert "db started" in compose("logs", "db")
    assert compose("up", "-d", "--scale", "web=1").count("web_2") > 0
    names = {c["Names"][0] for c in daemon.containers()}
    assert names == {"/demo_db_1", "/demo_web_1"}
    assert daemon.volumes() == {"demo_data"}

    compose("down", "-v", "--rmi", "local")
    assert daemon.containers() == []
    assert daemon.volumes() == set()
    assert {n["Name"] for n in daemon.get("/networks")} == {"bridge", "host", "none"}
    assert daemon.images() == {"busybox:latest"}


def test_what_is_unchanged_stays_and_what_is_changed_is_made_anew(
    compose: Compose, daemon: Daemon, tmp_path: Path
) -> None:
    file = tmp_path / "docker-compose.yml"
    file.write_text(
        "version: '3.7'\nservices:\n  one: {image: busybox, command: sleep 1000, environment: {A: '1'},"
        " stop_grace_period: 1s}\n  two: {image: busybox, command: sleep 1000, stop_grace_period: 1s}\n"
    )
    compose("up", "-d")
    before = {c["Names"][0]: c["Id"] for c in daemon.containers()}
    compose("up", "-d")
    assert {c["Names"][0]: c["Id"] for c in daemon.containers()} == before
    file.write_text(file.read_text().replace("'1'", "'2'"))
    compose("up", "-d")
    after = {c["Names"][0]: c["Id"] for c in daemon.containers()}
    assert after["/demo_two_1"] == before["/demo_two_1"]
    assert after["/demo_one_1"] != before["/demo_one_1"]
    assert compose("run", "--rm", "one", "sh", "-c", "echo $A").splitlines()[-1] == "2"
    assert "Up" in compose("ps")
    compose("pause", "one")
    assert daemon.state("demo_one_1")["Status"] == "paused"
    compose("unpause", "one")
    compose("restart", "two")
    compose("kill", "one")
    states = [daemon.state(name)["Status"] for name in ("demo_one_1", "demo_two_1")]
    assert states == ["exited", "running"]
    assert "sleep 1000" in compose("top", "two")
    (config,) = json.loads(daemon.docker("inspect", "demo_two_1").out)
    assert config["Config"]["Labels"]["com.docker.compose.service"] == "two"
    compose("down")


WIDE = """\
version: "2.4"
services:
  one:
    extends: {file: base.yml, service: base}
    env_file: one.env
    environment: {OVER: compose}
    volumes: ["/anonymous"]
    networks: {back: {ipv4_address: 10.231.77.10, aliases: [first]}}
  two: {image: busybox, command: sleep 1000, stop_grace_period: 1s, network_mode: "service:one"}
  extra: {image: busybox, command: sleep 1000, profiles: [more], stop_grace_period: 1s}
networks: {back: {ipam: {config: [{subnet: 10.231.77.0/24}]}}}
"""


def test_a_project_with_profiles_extends_and_addresses_keeps_its_anonymous_volumes(
    compose: Compose, daemon: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "docker-compose.yml").write_text(WIDE)
    (tmp_path / "base.yml").write_text(
        "version: '2.4'\nservices:\n  base: {image: busybox, command: sleep 1000, labels: {base: 'yes'},"
        " stop_grace_period: 1s}\n"
    )
    (tmp_path / "one.env").write_text("FILE=file\nOVER=file\n")
    compose("up", "-d")
    assert {c["Names"][0] for c in daemon.containers()} == {"/demo_one_1", "/demo_two_1"}
    script = "echo kept > /anonymous/note; echo $FILE $OVER; hostname -i"
    said = compose("exec", "-T", "one", "sh", "-c", script)
    assert said.splitlines()[-2:] == ["file compose", "10.231.77.10"]
    assert daemon.get("/containers/demo_one_1/json")["Config"]["Labels"]["base"] == "yes"

    compose("up", "-d", "--force-recreate", "one")
    assert compose("exec", "-T", "one", "cat", "/anonymous/note").endswith("kept\n")
    compose("up", "-d", "--force-recreate", "--renew-anon-volumes", "one")
    assert compose("exec", "-T", "one", "ls", "/anonymous") == ""

    compose("--profile", "more", "up", "-d", "extra")
    assert daemon.state("demo_extra_1")["Running"] is True
    assert compose("ps", "-q", "extra").strip()
    compose("down", "-v", "--remove-orphans")
    assert daemon.containers() == []
