"""Secrets, configs, jobs and stacks through the stock docker CLI."""

import json
import os
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon, until

pytestmark = pytest.mark.system

LOOK = "ls -ln /run/secrets/token /etc/app; cat /run/secrets/token /etc/app; exec sleep 1000"

STACK = """\
version: "3.8"
services:
  web:
    image: busybox
    command: sh -c "cat /run/secrets/token /app; exec sleep 1000"
    secrets: [token]
    configs: [{source: app, target: /app}]
    stop_grace_period: 1s
    networks: [inside]
    deploy: {replicas: 2}
secrets: {token: {file: ./token}}
configs: {app: {file: ./app}}
networks: {inside: {}}
"""


@pytest.fixture
def swarm(daemon: Daemon) -> Daemon:
    daemon.docker("swarm", "init")
    return daemon


def _says(path: Path, text: bytes) -> bool:
    """Whether a file has a text in it; the log of who printed it is left out."""
    try:
        return path.is_file() and path.name != "log" and text in path.read_bytes()
    except FileNotFoundError:
        return False  # it went meanwhile


def test_a_service_is_given_its_secrets_and_configs(swarm: Daemon) -> None:
    swarm.docker("secret", "create", "-l", "a=1", "key", "-", stdin="hidden-7fb2\n")
    swarm.docker("config", "create", "--template-driver", "golang", "app", "-",
                 stdin="slot {{.Task.Slot}}\n")  # fmt: skip
    assert "already exists" in swarm.docker("secret", "create", "key", "-", stdin="x", status=1).err
    assert swarm.docker("secret", "ls", "-q", "-f", "label=a=1").out.count("\n") == 1
    swarm.docker(
        "service", "create", "-d", "--name", "web", "--no-resolve-image", "--endpoint-mode", "dnsrr",
        "--stop-grace-period", "1s", "--config", "source=app,target=/etc/app",
        "--publish", "mode=host,target=80", "--placement-pref", "spread=node.labels.zone",
        "--constraint", f"node.platform.arch=={os.uname().machine}",
        "--secret", "source=key,target=token,uid=1000,gid=1001,mode=0400", "busybox", "sh", "-c", LOOK,
    )  # fmt: skip
    said = until(
        "it has looked",
        lambda: (
            found
            if "slot 1" in (found := swarm.docker("service", "logs", "--raw", "web").out)
            else None
        ),
    )
    assert "-r--------    1 1000     1001" in said
    assert said.endswith("hidden-7fb2\nslot 1\n")
    assert "->80/tcp" in swarm.docker("service", "ps", "--format", "{{.Ports}}", "web").out
    kept = [path for path in swarm.data_root.rglob("*") if _says(path, b"hidden-7fb2")]
    assert kept == []
    assert (
        "is in use by the following service: web"
        in swarm.docker("secret", "rm", "key", status=1).err
    )
    swarm.docker("service", "rm", "web")
    swarm.docker("secret", "rm", "key")
    swarm.docker("config", "rm", "app")
    # Debian 12's client has words of its own for what is not found.
    said = swarm.docker("secret", "inspect", "key", status=1).err
    assert "secret key not found" in said or "No such secret: key" in said


def test_jobs_end_and_the_client_waits_for_it(swarm: Daemon) -> None:
    made = swarm.docker(
        "service", "create", "--name", "job", "--mode", "replicated-job", "--replicas", "3",
        "--max-concurrent", "2", "--no-resolve-image", "busybox", "echo", "done",
    )  # fmt: skip
    assert "job complete" in made.out
    assert "(3/3 completed)" in swarm.docker("service", "ls").out
    until(
        "all have spoken",
        lambda: swarm.docker("service", "logs", "--raw", "job").out == "done\n" * 3,
    )
    swarm.docker("swarm", "update", "--task-history-limit", "2")
    (info,) = [json.loads(swarm.docker("info", "--format", "{{json .Swarm}}").out)]
    assert info["Cluster"]["Spec"]["Orchestration"]["TaskHistoryRetentionLimit"] == 2
    assert "no unlock key is set" in swarm.docker("swarm", "unlock-key", status=1).err


def test_a_stack_is_deployed_and_removed(swarm: Daemon, tmp_path: Path) -> None:
    (tmp_path / "stack.yml").write_text(STACK)
    (tmp_path / "token").write_text("token\n")
    (tmp_path / "app").write_text("app\n")
    deploy = ("stack", "deploy", "--resolve-image", "never", "-c", tmp_path / "stack.yml", "shop")
    swarm.docker(*deploy)
    until("both run", lambda: "2/2" in swarm.docker("stack", "services", "shop").out)
    until(
        "both have spoken",
        lambda: swarm.docker("service", "logs", "--raw", "shop_web").out.count("token\napp\n") == 2,
    )
    assert "shop_web.1" in swarm.docker("stack", "ps", "shop").out
    swarm.docker(*deploy)  # nothing has changed
    assert "shop" in swarm.docker("stack", "ls").out
    swarm.docker("stack", "rm", "shop")
    until("its network goes", lambda: "shop" not in swarm.docker("network", "ls").out)
    assert swarm.get("/secrets") == swarm.get("/configs") == []
