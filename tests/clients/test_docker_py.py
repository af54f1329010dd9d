"""docker-py 7: what its users call."""

import io
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from daemon_harness.daemon import Daemon, until

pytestmark = [
    pytest.mark.system,
    # It leaves the sockets of streams to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def client(docker_environment: Daemon) -> Iterator[Any]:
    import docker

    client = docker.from_env(timeout=60)
    yield client
    client.close()


def test_a_run_returns_its_output_and_raises_its_failure(client: Any) -> None:
    import docker

    assert client.containers.run("busybox", "echo hi", remove=True) == b"hi\n"
    both = client.containers.run("busybox", "sh -c 'echo e >&2'", stderr=True, remove=True)
    assert both == b"e\n"
    with pytest.raises(docker.errors.ContainerError) as failed:
        client.containers.run("busybox", "sh -c 'echo why >&2; exit 3'", remove=True)
    assert (failed.value.exit_status, failed.value.stderr) == (3, b"why\n")
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get("nobody/has:this")
    with pytest.raises(docker.errors.NotFound):
        client.containers.get("nobody")
    client.containers.create("busybox", name="twice")
    with pytest.raises(docker.errors.APIError, match="Conflict"):
        client.containers.create("busybox", name="twice")


def test_a_container_with_everything_on(client: Any) -> None:
    import docker

    made = client.containers.run(
        "busybox", "sh -c 'echo begun; exec sleep 1000'", detach=True, name="all", init=True,
        labels={"a": "b"}, mem_limit="64m", nano_cpus=500_000_000, environment={"A": "1"},
        ports={"80/tcp": None}, volumes={"kept": {"bind": "/v", "mode": "rw"}},
        tmpfs={"/t": "size=1m"}, ulimits=[docker.types.Ulimit(name="nofile", soft=100, hard=200)],
        healthcheck={"test": ["CMD", "true"], "interval": 200_000_000}, cap_add=["NET_ADMIN"],
        sysctls={"net.ipv4.ip_forward": "1"}, extra_hosts={"other": "1.2.3.4"}, dns=["1.1.1.1"],
        restart_policy={"Name": "on-failure", "MaximumRetryCount": 2},
        log_config=docker.types.LogConfig(type="json-file", config={"max-size": "1m"}),
    )  # fmt: skip
    assert (
        made.exec_run("sh -c 'ulimit -n; grep other /etc/hosts'").output == b"100\n1.2.3.4\tother\n"
    )
    demuxed = made.exec_run("sh -c 'echo a; echo b >&2'", demux=True)
    assert demuxed.output == (b"a\n", b"b\n")
    assert b"".join(made.exec_run("echo a", stream=True).output) == b"a\n"
    assert made.exec_run("echo a", tty=True).output == b"a\r\n"
    as_app = made.exec_run("sh -c 'id -u; pwd; echo $Q'", user="app", workdir="/tmp",
                           environment={"Q": "q"})  # fmt: skip
    assert as_app.output == b"1000\n/tmp\nq\n"
    assert made.logs() == b"begun\n"
    assert made.stats(stream=False)["memory_stats"]["limit"] == 64 << 20
    assert any("sleep 1000" in row[-1] for row in made.top()["Processes"])
    made.update(mem_limit="128m", memswap_limit="256m")
    made.rename("renamed")
    until("it is healthy", lambda: client.containers.get("renamed").health == "healthy")
    assert client.containers.list(filters={"label": "a=b", "status": "running"}) == [made]
    made.kill()
    assert made.wait()["StatusCode"] == 137
    assert b"".join(made.logs(stream=True, follow=True)) == b"begun\n"
    made.start()
    made.restart(timeout=1)
    made.stop(timeout=1)
    made.remove(v=True)
    assert client.containers.list(all=True) == []


def test_a_session_over_a_socket(client: Any) -> None:
    made = client.containers.run("busybox", "cat", detach=True, stdin_open=True)
    wire = made.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    wire._sock.sendall(b"spoken\n")
    assert wire.read(8 + 7)[8:] == b"spoken\n"
    wire._sock.close()
    wire.close()
    made.remove(force=True)


def test_a_terminals_session_is_read_in_frames(client: Any) -> None:
    """Its low-level calls begin a session with a terminal, and start it without saying so again."""
    made = client.containers.run("busybox", "sleep 1000", detach=True)
    session = client.api.exec_create(made.id, "echo out", tty=True)
    assert client.api.exec_start(session) == b"out\r\n"
    session = client.api.exec_create(made.id, "echo out", tty=True)
    assert client.api.exec_start(session, demux=True) == (b"out\r\n", None)
    made.remove(force=True)


def test_what_it_takes_for_its_own_words(client: Any, tmp_path: Path) -> None:
    """Statuses and lines that it tells errors by, and what it says in ways of its own."""
    import docker

    assert client.api.leave_swarm(force=True)
    with pytest.raises(docker.errors.ImageLoadError, match="unexpected EOF"):
        client.images.load(b"abc")
    (tmp_path / "context").mkdir()
    (tmp_path / "elsewhere").write_text("FROM busybox\nLABEL found=outside\n")
    image, _ = client.images.build(
        path=str(tmp_path / "context"), dockerfile=str(tmp_path / "elsewhere"), rm=True
    )
    assert image.labels == {"found": "outside"}
    client.images.remove(image.id)
    network = client.networks.create("two words")
    member = client.containers.run("busybox", "sleep 1000", detach=True, network="two words")
    network.disconnect(member, force=True)
    with pytest.raises(docker.errors.APIError, match=r"container .* is not connected to network"):
        network.disconnect(member, force=True)
    member.remove(force=True)
    network.remove()


def test_images_are_built_tagged_pushed_pulled_and_removed(client: Any, daemon: Daemon) -> None:
    import docker

    text = b"FROM busybox\nRUN echo x > /x\nLABEL a=b\n"
    image, said = client.images.build(fileobj=io.BytesIO(text), tag="py:1", rm=True)
    assert any("Successfully tagged" in line.get("stream", "") for line in said)
    with pytest.raises(docker.errors.BuildError, match="returned a non-zero code: 1"):
        client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN false\n"), rm=True)
    assert client.images.list(filters={"label": "a=b"}) == [image]
    name = f"{daemon.registry}/py"
    assert image.tag(name, "1")
    assert "digest" in client.images.push(name, tag="1")
    client.images.remove(f"{name}:1")
    client.images.remove("py:1")
    pulled = client.images.pull(name, tag="1")
    assert pulled.labels == {"a": "b"}
    assert client.images.get_registry_data(f"{name}:1").id.startswith("sha256:")
    client.images.remove(f"{name}:1")


def test_networks_and_volumes(client: Any) -> None:
    import docker

    pool = docker.types.IPAMPool(subnet="10.222.1.0/24", gateway="10.222.1.1")
    network = client.networks.create(
        "net", driver="bridge", labels={"q": "1"}, ipam=docker.types.IPAMConfig(pool_configs=[pool])
    )
    member = client.containers.run("busybox", "sleep 1000", detach=True, network="net")
    network.disconnect(member)
    network.connect(member, aliases=["alias"], ipv4_address="10.222.1.77")
    network.reload()
    assert network.containers == [member]
    (endpoint,) = network.attrs["Containers"].values()
    assert endpoint["IPv4Address"] == "10.222.1.77/24"
    assert client.networks.list(filters={"label": "q"}) == [network]
    member.remove(force=True)
    network.remove()
    volume = client.volumes.create("vol", labels={"l": "1"})
    assert client.volumes.list(filters={"label": "l"}) == [volume]
    volume.remove()


def test_what_was_given_is_kept_as_it_was_given(client: Any) -> None:
    """docker-py's own tests ask for these; Docker keeps what it does not use, too."""
    import docker

    unused = docker.types.IPAMPool(subnet="2001:db8:9::/64", gateway="2001:db8:9::ff")
    network = client.networks.create("v4", ipam=docker.types.IPAMConfig(pool_configs=[unused]))
    member = client.containers.run("busybox", "sleep 1000", detach=True, network="v4")
    network.disconnect(member)
    network.connect(member, ipv6_address="2001:db8:9::77")
    member.reload()
    endpoint = member.attrs["NetworkSettings"]["Networks"]["v4"]
    assert endpoint["IPAMConfig"] == {"IPv6Address": "2001:db8:9::77"}
    assert (endpoint["GlobalIPv6Address"], endpoint["IPAddress"] != "") == ("", True)
    network.reload()
    kept, chosen = network.attrs["IPAM"]["Config"]
    assert kept == {"Subnet": "2001:db8:9::/64", "Gateway": "2001:db8:9::ff"}
    assert network.attrs["IPAM"]["Options"] is None
    assert "." in chosen["Subnet"]
    with pytest.raises(docker.errors.APIError, match="no configured subnet"):
        network.connect(member, ipv6_address="2001:db8:8::77")
    member.remove(force=True)
    network.remove()
    host = client.api.create_host_config(isolation="default")
    made = client.api.create_container("busybox", "true", host_config=host)
    assert client.api.inspect_container(made)["HostConfig"]["Isolation"] == "default"
    client.api.remove_container(made)


def test_what_docker_composes_own_tests_ask_for(client: Any) -> None:
    other = client.containers.run(
        "busybox", "httpd -f -h /bin", detach=True, extra_hosts={"told.test": "127.0.0.1"}
    )
    text = b"FROM busybox\nRUN wget -q -O /got http://told.test/sh && test -s /got\n"
    built, _ = client.images.build(
        fileobj=io.BytesIO(text), network_mode=f"container:{other.id}", rm=True
    )
    client.images.remove(built.id)
    other.remove(force=True)

    network = client.networks.create("_begins_with_a_line")
    made = client.containers.run(
        "busybox", "sleep 1000", entrypoint=[""], detach=True, network=network.name,
        healthcheck={"test": ["true"], "interval": 10**9},
    )  # fmt: skip
    made.reload()
    assert made.attrs["Config"]["Entrypoint"] is None
    assert made.attrs["Config"]["Healthcheck"]["Test"] == ["true"]
    assert "Health" not in made.attrs["State"]
    assert made.attrs["State"]["FinishedAt"].startswith("0001-")
    made.restart(timeout=0)
    made.reload()
    assert not made.attrs["State"]["FinishedAt"].startswith("0001-")
    made.remove(force=True)
    network.remove()


def test_many_at_once_share_the_last_networks(new_daemon: Callable[..., Daemon]) -> None:
    """The default pools run out in Docker's words; nothing of the networks that were not made is left."""
    import docker

    pool = '[[network.bridge.default-address-pools]]\nbase = "10.251.0.0/24"\nsize = 27\n'
    daemon = new_daemon(config=pool).start()

    def create(number: int) -> str:
        with closing(docker.DockerClient(base_url=daemon.url, timeout=60)) as own:
            try:
                return str(own.networks.create(f"n{number}").id)
            except docker.errors.APIError as error:
                return f"{error.status_code} {error.explanation}"

    with ThreadPoolExecutor(40) as threads:
        answers = list(threads.map(create, range(40)))
    made = {answer for answer in answers if " " not in answer}
    refused = set(answers) - made
    assert refused == {"400 all predefined address pools have been fully subnetted"}
    with closing(docker.DockerClient(base_url=daemon.url, timeout=60)) as client:
        there = {
            network.id: network for network in client.networks.list(filters={"type": "custom"})
        }
        assert set(there) == made
        assert 0 < len(made) <= 8  # the machine may have addresses there
        for network in there.values():
            network.remove()
        client.networks.create("again").remove()


def test_events_of_the_past_end(client: Any) -> None:
    since = int(time.time())
    client.containers.run("busybox", "true", name="told", remove=True)
    wanted = {"container": "told", "event": ["create", "start", "die", "destroy"]}
    told = client.events(since=since, until=int(time.time()) + 1, filters=wanted, decode=True)
    assert [e["Action"] for e in told] == ["create", "start", "die", "destroy"]


def test_services(client: Any) -> None:
    import docker

    client.swarm.init()
    service = client.services.create(
        "busybox", command=["sleep", "1000"], name="svc", labels={"a": "b"},
        mode=docker.types.ServiceMode("replicated", 1), stop_grace_period=10**9,
    )  # fmt: skip
    until("it runs", lambda: [t["Status"]["State"] for t in service.tasks()] == ["running"])
    assert service.scale(2)
    service.reload()
    assert service.update(labels={"q": "2"})
    service.reload()
    assert service.attrs["Spec"]["Labels"] == {"q": "2"}
    assert service.remove()
    assert client.swarm.leave(force=True)
