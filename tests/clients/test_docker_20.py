"""Docker's client of version 20.10 (Debian 12's), which speaks API 1.41, against a daemon of today.

Where Debian has a newer one, the newest client is told to speak that version.
"""

import json
import subprocess
import time
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon, until
from daemon_harness.old_client import old_client

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

API = "1.41"


class Client:
    """Runs commands of it."""

    def __init__(self, daemon: Daemon) -> None:
        self._program = old_client()
        self._env = {
            **daemon.environment,
            "DOCKER_API_VERSION": API,
            "DOCKER_BUILDKIT": "0",
        }

    def __call__(self, *words: str, status: int = 0) -> str:
        done = subprocess.run(
            [self._program, *words],
            capture_output=True, text=True, check=False, env=self._env, timeout=60,
        )  # fmt: skip
        assert done.returncode == status, f"{words}: {done.returncode} {done.stdout} {done.stderr}"
        return done.stdout.strip() if status == 0 else done.stderr.strip()


@pytest.fixture
def docker(daemon: Daemon) -> Client:
    return Client(daemon)


def test_an_old_client_runs_and_looks_into_containers(docker: Client, tmp_path: Path) -> None:
    assert docker("version", "--format", "{{.Client.APIVersion}}") == API
    assert docker("run", "--rm", "busybox", "echo", "hi") == "hi"
    assert "exit" not in docker("run", "--rm", "busybox", "sh", "-c", "exit 7", status=7)
    docker("run", "-d", "--name", "web", "-p", "127.0.0.1::80", "-v", "data:/d", "--health-cmd",
           "true", "--health-interval", "1s", "busybox", "sleep", "1000")  # fmt: skip
    assert docker("ps", "--format", "{{.Names}} {{.Image}}") == "web busybox"
    assert docker("port", "web").startswith("80/tcp -> 127.0.0.1:")
    assert docker("exec", "web", "echo", "in") == "in"
    assert "sleep 1000" in docker("top", "web")
    assert "web" in docker("stats", "--no-stream", "web")
    (tmp_path / "file").write_text("text")
    docker("cp", str(tmp_path / "file"), "web:/tmp/file")
    assert "A /tmp/file" in docker("diff", "web")
    state = "{{.State.Health.Status}}"
    until("healthy", lambda: docker("inspect", "-f", state, "web") == "healthy")
    docker("update", "--memory", "100m", "web")
    assert docker("restart", "-t", "0", "web") == "web"
    docker("pause", "web")
    docker("unpause", "web")
    docker("kill", "web")
    assert docker("wait", "web") == "137"
    assert "No such container: nosuch" in docker("rm", "nosuch", status=1)
    docker("rm", "web")


def test_an_old_client_handles_images_with_the_sizes_it_knows(
    docker: Client, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo x > /x\n")
    assert "Successfully tagged built:latest" in docker("build", "-t", "built", str(tmp_path))
    assert "built" in docker("images")
    usage = [
        json.loads(line) for line in docker("system", "df", "--format", "{{json .}}").split("\n")
    ]
    images = next(row for row in usage if row["Type"] == "Images")
    assert images["Size"] not in ("0B", ""), "VirtualSize counts"
    assert "(0%)" in images["Reclaimable"] or "(100%)" in images["Reclaimable"]
    shown = docker("image", "inspect", "-f", "{{.VirtualSize}} {{.Size}}", "built").split()
    assert shown[0] == shown[1] != "0"
    docker("save", "-o", str(tmp_path / "saved.tar"), "built")
    docker("rmi", "built")
    assert docker("load", "-i", str(tmp_path / "saved.tar")) == "Loaded image: built:latest"
    docker("tag", "built", "other:1")
    assert docker("rmi", "built", "other:1").count("Untagged") == 2


def test_an_old_client_prunes_named_volumes_as_it_says(docker: Client) -> None:
    docker("volume", "create", "named")
    docker("network", "create", "net1")
    assert "named" in docker("volume", "prune", "-f"), "before API 1.42 all unused ones went"
    assert "net1" in docker("system", "prune", "-f")
    until_s = str(int(time.time()) + 1)
    shown = ("--format", "{{.Type}} {{.Action}}")
    events = docker("events", "--since", "10m", "--until", until_s, *shown)
    assert "volume destroy" in events
    assert "network prune" in events


def test_an_old_client_has_a_swarm_of_one_node(docker: Client) -> None:
    docker("swarm", "init", "--advertise-addr", "127.0.0.1")
    docker("service", "create", "-q", "--name", "s1", "busybox", "sleep", "1000")
    assert docker("service", "ls", "--format", "{{.Name}} {{.Replicas}}") == "s1 1/1"
    assert docker("node", "ls", "--format", "{{.Status}} {{.ManagerStatus}}") == "Ready Leader"
    docker("service", "rm", "s1")
    docker("swarm", "leave", "-f")
