"""python-on-whales: objects over the docker command, whose answers it reads into strict models."""

from datetime import UTC, datetime, timedelta

import pytest
from daemon_harness.daemon import Daemon

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
    until = datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=1)
    told = docker.system.events(
        since=until - timedelta(minutes=1), until=until, filters={"container": "gone"}
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
