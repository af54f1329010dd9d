"""python-on-whales: objects over the docker command, whose answers it reads into strict models."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon, until

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("docker_environment")]


# The first process of a container ends by SIGTERM only if it says so.
PATIENT = "trap exit TERM; while :; do sleep 0.1; done"


def test_containers_images_networks_and_volumes() -> None:
    from python_on_whales import docker

    assert docker.run("busybox", ["echo", "hi"], remove=True) == "hi"
    docker.volume.create("pow-data")
    network = docker.network.create("pow-net", labels={"a": "1"})
    container = docker.run(
        "busybox", ["sh", "-c", "echo begun; exec sleep 1000"], name="pow", detach=True,
        networks=["pow-net"], volumes=[("pow-data", "/data")], labels={"b": "2"}, memory="64m",
    )  # fmt: skip
    assert container.state.running
    assert container.host_config.memory == 64 << 20
    assert container.mounts[0].name == "pow-data"
    assert container.execute(["echo", "there"]) == "there"
    assert container.logs() == "begun\n"
    assert docker.stats(["pow"])[0].container_name == "pow"
    assert [c.name for c in docker.ps(filters=[("label", "b=2")])] == ["pow"]
    container.pause()
    assert container.state.paused
    container.unpause()
    container.stop(time=1)
    assert container.state.exit_code == 137
    container.remove()
    assert network.ipam.config is not None
    assert network.ipam.config[0]["Subnet"]
    network.remove()
    docker.volume.remove("pow-data")
    assert docker.image.inspect("busybox").config.cmd == ["sh"]


def test_the_system_and_its_events() -> None:
    from python_on_whales import docker

    docker.run("busybox", ["true"], name="gone", remove=True)
    assert docker.system.info().images == 1
    assert docker.version().server is not None
    assert docker.system.disk_free().images.total_count == 1
    end = datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=1)
    told = docker.system.events(
        since=end - timedelta(minutes=1), until=end, filters={"container": "gone"}
    )
    assert [event.action for event in told][-1] == "destroy"


def test_services_of_a_swarm(daemon: Daemon) -> None:
    from python_on_whales import docker

    docker.swarm.init()
    (node,) = docker.node.list()
    assert node.status.state == "ready"
    service = docker.service.create("busybox", ["sh", "-c", PATIENT], detach=True)
    service.scale(2, detach=True)
    assert service.spec.mode == {"Replicated": {"Replicas": 2}}
    assert [s.spec.name for s in docker.service.list()] == [service.spec.name]
    service.remove()
    docker.swarm.leave(force=True)
    assert daemon.request("GET", "/swarm")[0] == 503


STACK = """
version: "3.8"
services:
  web:
    image: busybox
    command: sh -c "trap exit TERM; while :; do sleep 0.1; done"
    environment: {WORD: "${WORD}"}
    secrets: [word]
secrets: {word: {file: ./word}}
"""


def test_a_stack_with_its_secrets_comes_and_goes(daemon: Daemon, tmp_path: Path) -> None:
    from python_on_whales import docker

    (tmp_path / "stack.yml").write_text(STACK)
    (tmp_path / "word").write_text("sealed")
    docker.swarm.init(advertise_address="127.0.0.1")
    stack = docker.stack.deploy("st", tmp_path / "stack.yml", variables={"WORD": "said"})
    assert [secret.spec.name for secret in docker.secret.list()] == ["st_word"]
    assert [service.spec.name for service in stack.services()] == ["st_web"]
    made = daemon.get("/services/st_web")["Spec"]["TaskTemplate"]["ContainerSpec"]
    assert made["Env"] == ["WORD=said"]
    until("its task runs", lambda: [t.status.state for t in stack.ps()] == ["running"])
    stack.remove()
    assert docker.stack.list() == []
    until("its containers are gone", lambda: daemon.containers() == [])
    docker.swarm.leave(force=True)


def test_images_are_built_saved_and_pushed_and_what_fails_is_told(
    daemon: Daemon, tmp_path: Path
) -> None:
    from python_on_whales import docker
    from python_on_whales.exceptions import DockerException, NoSuchImage

    (tmp_path / "Dockerfile").write_text("FROM busybox\nARG WORD\nRUN echo $WORD > /word\n")
    image = docker.image.legacy_build(tmp_path, tags="pow:1", build_args={"WORD": "built"})
    remote = f"{daemon.registry}/pow:1"
    docker.tag(image, remote)
    docker.push(remote, quiet=True)
    docker.save("pow:1", output=tmp_path / "saved.tar")
    docker.image.remove(["pow:1", remote])
    with pytest.raises(NoSuchImage):
        docker.image.inspect("pow:1")
    assert docker.load(tmp_path / "saved.tar") == ["pow:1"]
    assert docker.pull(remote, quiet=True) is not None
    container = docker.run(remote, ["sleep", "1000"], detach=True)
    container.copy_from("/word", tmp_path / "word")
    assert (tmp_path / "word").read_text() == "built\n"
    streams = container.execute(["sh", "-c", "echo out; echo err >&2"], stream=True)
    assert not isinstance(streams, str | None)
    assert dict(streams) == {"stdout": b"out\n", "stderr": b"err\n"}
    with pytest.raises(DockerException) as failed:
        container.execute(["sh", "-c", "exit 5"])
    assert failed.value.return_code == 5
    container.remove(force=True)
    docker.image.remove(["pow:1", remote])
