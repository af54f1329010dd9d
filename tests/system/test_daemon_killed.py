"""``kill -9`` of the daemon in the middle of things: the next start repairs, nothing half-made is seen.

Each moment is recognised by what the daemon has just said, or swept over in small steps; what must
hold afterwards holds for every moment.
"""

import hashlib
import io
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon_harness.daemon import Daemon, until
from daemon_harness.leftovers import cgroups_below
from daemon_harness.ports import free_port
from daemon_harness.registry import debian_registry
from daemon_harness.voyage import Ship

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

CARGO_BYTES = 12 << 20


# -- pull -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cargo() -> Iterator[tuple[str, str]]:
    """An image with two large layers in a registry: its reference, and the digest of its files.

    Another daemon has built it, so that the tests' own one has nothing of it.
    """
    first, second = os.urandom(CARGO_BYTES), os.urandom(CARGO_BYTES)
    builder = Daemon().start()
    try:
        builder.build_busybox()
        context = builder.write_context(
            "FROM busybox\nCOPY first /first\nCOPY second /second\n", first=first, second=second
        )
        with debian_registry() as address:
            reference = f"{address}/cargo:1"
            builder.cli("build", "-t", reference, context)
            builder.cli("push", reference)
            yield reference, hashlib.sha256(first + second).hexdigest()
    finally:
        builder.close()


@pytest.mark.parametrize(
    "moment",
    ["Pulling from", "Downloading", "Download complete", "Pull complete"],
)
def test_a_pull_cut_short_is_not_seen_and_the_next_pull_brings_all_of_it(
    cargo: tuple[str, str], daemon: Daemon, moment: str
) -> None:
    reference, digest = cargo
    daemon.cli("rmi", "-f", reference, status=None)
    with daemon.stream("POST", f"/images/create?fromImage={reference}") as lines:
        seen = next(line for line in lines if line.get("status", "").startswith(moment))
        daemon.kill9()
        ended = list(lines)
    assert seen
    daemon.start()
    if not any("Downloaded newer image" in line.get("status", "") for line in ended):
        assert reference not in daemon.images()
        daemon.cli("run", "--pull", "never", reference, "true", status=125)
        assert daemon.containers() == []
    daemon.cli("pull", reference)
    found = daemon.cli("run", "--rm", reference, "sh", "-c", "cat /first /second | sha256sum").out
    assert found.split()[0] == digest


# -- build ----------------------------------------------------------------------------------------

STEPS = """\
FROM busybox
RUN echo one > /one
RUN echo two > /two; echo "begun"; sleep {pause}; echo end >> /two
COPY file /file
"""


def archive(dockerfile: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, text in (("Dockerfile", dockerfile), ("file", "content\n")):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()


@pytest.mark.parametrize("moment", ["Step 1/4", "Running in", "begun", "Step 4/4"])
def test_a_build_cut_short_leaves_no_image_and_no_process_and_can_be_repeated(
    daemon: Daemon, moment: str
) -> None:
    pause = 30 if moment == "begun" else 0
    before = daemon.images()
    body = archive(STEPS.format(pause=pause))
    with daemon.stream("POST", "/build?t=half&nocache=1", body=body) as lines:
        seen = next(line for line in lines if moment in line.get("stream", ""))
        daemon.kill9()
        ended = list(lines)
    assert seen
    daemon.start()
    if not any("Successfully tagged" in line.get("stream", "") for line in ended):
        assert daemon.images() == before
    assert daemon.containers() == []
    until("the step's process is gone", lambda: not container_groups(daemon))
    with daemon.stream("POST", "/build?t=half", body=archive(STEPS.format(pause=0))) as lines:
        assert not [line for line in lines if "error" in line]
    said = daemon.cli("run", "--rm", "half", "cat", "/one", "/two", "/file").out
    assert said == "one\ntwo\nend\ncontent\n"
    daemon.cli("rmi", "half")


def container_groups(daemon: Daemon) -> list[Path]:
    """Control groups of containers (64 hex digits)."""
    return [group for group in cgroups_below(daemon.cgroup) if len(group.name) == 64]


# -- run ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["create", "connect", "start", "exec_start", "kill", "die"])
def test_a_container_is_whole_whatever_it_was_doing(daemon: Daemon, moment: str) -> None:
    """The events name the moments of a container's life."""
    daemon.cli("network", "create", "quay")
    # Only who waits for its end wants one: it must not end while it is looked at.
    lasts_s = 2 if moment == "die" else 600
    doing = daemon.begin(
        *("run", "--rm", "--name", "walker", "--network", "quay", "-v", "walk:/walk"),
        *("busybox", "sh", "-c", f"echo begun; sleep {lasts_s}; exit 3"),
    )
    with daemon.stream("GET", "/events?since=1") as events:
        for event in events:
            if event["Action"] == "start" and moment == "exec_start":
                doing_exec = daemon.begin("exec", "walker", "sleep", "20")
            if event["Action"] == "start" and moment == "kill":
                daemon.request("POST", "/containers/walker/kill?signal=KILL")
            if event["Action"].startswith(moment) and event["Type"] in ("container", "network"):
                if event["Actor"]["Attributes"].get("name") == "quay" and moment == "create":
                    continue
                break
    daemon.kill9()
    doing.communicate(timeout=30)
    if moment == "exec_start":
        doing_exec.communicate(timeout=30)
    daemon.start()
    check_whole(daemon, "walker")


@pytest.mark.parametrize("delay_ms", [0, 10, 25, 50])
def test_a_start_cut_short_after_some_milliseconds_leaves_a_whole_container(
    daemon: Daemon, delay_ms: int
) -> None:
    port = free_port()
    daemon.cli(
        *("create", "--name", "late", "-p", f"127.0.0.1:{port}:80", "-v", "late:/late"),
        *("busybox", "sleep", "600"),
    )
    starting = daemon.begin("start", "late")
    time.sleep(0.05 + delay_ms / 1000)
    daemon.kill9()
    starting.communicate(timeout=30)
    daemon.start()
    check_whole(daemon, "late")


def check_whole(daemon: Daemon, name: str) -> None:
    """A container is there and does all that its state allows, or it is not there at all."""
    known = {c["Names"][0].removeprefix("/"): c for c in daemon.containers()}
    alive = {group.name for group in container_groups(daemon)}
    if name not in known:
        until("nothing of it is left", lambda: not container_groups(daemon))
        daemon.cli("run", "--rm", "--name", name, "busybox", "true")
        return
    container = known[name]
    if container["State"] != "running":
        until("nothing of it runs", lambda: not container_groups(daemon))
        daemon.cli("start", name)
    else:
        assert container["Id"] in alive
    assert daemon.cli("exec", name, "echo", "well").out == "well\n"
    daemon.cli("logs", name)
    daemon.cli("rm", "-f", name)
    until("nothing of it is left", lambda: not container_groups(daemon))
    daemon.cli("run", "--rm", "--name", name, "busybox", "true")


# -- deploy ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("running", [0, 1, 2])
def test_a_deploy_cut_short_is_finished_by_the_next_daemon(daemon: Daemon, running: int) -> None:
    daemon.cli("swarm", "init")
    port = free_port()
    doing = daemon.begin(
        *("service", "create", "--name", "web", "--replicas", "3", "-p", f"{port}:80"),
        *("busybox", "sh", "-c", "mkdir /www; hostname > /www/index.html; httpd -f -p 80 -h /www"),
    )
    until("the service is there", lambda: daemon.get("/services"))
    until(f"{running} tasks run", lambda: len(containers_of(daemon, "web")) >= running or None)
    daemon.kill9()
    doing.communicate(timeout=30)
    daemon.start()
    until("three tasks run", lambda: len(tasks_of(daemon, "web")) == 3)
    assert tasks_of(daemon, "web") == containers_of(daemon, "web")
    # Scaled and cut short, too.
    doing = daemon.begin("service", "scale", "web=5")
    until("it is asked for", lambda: replicas_of(daemon, "web") == 5)
    daemon.kill9()
    doing.communicate(timeout=30)
    daemon.start()
    until("five tasks run", lambda: len(tasks_of(daemon, "web")) == 5)
    assert tasks_of(daemon, "web") == containers_of(daemon, "web")


def containers_of(daemon: Daemon, service: str) -> set[str]:
    """Ids of the service's containers that run."""
    label = "com.docker.swarm.service.name"
    return {
        c["Id"]
        for c in daemon.containers()
        if c["Labels"].get(label) == service and c["State"] == "running"
    }


def tasks_of(daemon: Daemon, service: str) -> set[str]:
    """Ids of the containers of the service's tasks that run."""
    tasks: list[dict[str, Any]] = daemon.get("/tasks")
    return {
        t["Status"]["ContainerStatus"]["ContainerID"]
        for t in tasks
        if t["Status"]["State"] == "running"
        and t["DesiredState"] == "running"
        and t["ServiceID"] == daemon.get(f"/services/{service}")["ID"]
    }


def replicas_of(daemon: Daemon, service: str) -> int:
    return int(daemon.get(f"/services/{service}")["Spec"]["Mode"]["Replicated"]["Replicas"])


# -- workflow -------------------------------------------------------------------------------------

PIPELINE = """\
linkspan: v1
name: short
on: manual
inputs:
  version: {type: string, default: "1"}
  registry: {type: string, required: true}
  port: {type: int, required: true}
jobs:
  build:
    outputs: {image: "${{ steps.image.outputs.id }}"}
    steps:
      - id: image
        uses: build
        with: {context: ., tags: ["${{ inputs.registry }}/short:1"]}
  test:
    needs: [build]
    image: ${{ needs.build.outputs.image }}
    steps:
      - run: echo one
      - run: sleep 0.5; echo two
  push:
    needs: [build, test]
    outputs: {image: "${{ steps.push.outputs.image }}"}
    steps:
      - id: push
        uses: push
        with: {image: "${{ needs.build.outputs.image }}", tags: ["${{ inputs.registry }}/short:1"]}
  deploy:
    needs: [push]
    steps:
      - uses: deploy
        with:
          service: web
          image: ${{ needs.push.outputs.image }}
          replicas: 2
          ports: ["${{ inputs.port }}:80"]
          update: {monitor: 200ms}
"""
DOCKERFILE = """\
FROM busybox
RUN mkdir /www && sleep 0.3
CMD ["sh", "-c", "echo voyage 1, $(hostname) > /www/index.html; exec httpd -f -p 80 -h /www"]
"""


@pytest.mark.parametrize("job", ["build", "test", "push", "deploy"])
def test_a_workflow_cut_short_in_any_job_is_resumed_to_the_same_end(
    daemon: Daemon, tmp_path: Path, job: str
) -> None:
    (tmp_path / "short.yaml").write_text(PIPELINE)
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    ship = Ship(daemon, tmp_path / "short.yaml", daemon.registry)
    run = ship.kill_daemon_in("1", job)
    daemon.start()
    interrupted = daemon.json("workflow", "show", run)
    assert interrupted["state"] == "interrupted"
    daemon.cli("workflow", "resume", run)
    resumed = daemon.json("workflow", "show", run)
    assert resumed["state"] == "success"
    if job != "build":
        assert ship.repeated(interrupted, resumed) == []
    assert ship.versions() == {"voyage 1"}
    assert len(ship.tasks()) == 2
    # Nothing of the interrupted attempt runs on beside the service.
    assert {c["Id"] for c in daemon.containers()} == containers_of(daemon, "web")
