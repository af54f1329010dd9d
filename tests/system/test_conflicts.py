"""Names and ports that are taken, and commands that want the same thing at once."""

import socket
from collections.abc import Iterator

import pytest
from daemon_harness.daemon import Daemon, until
from daemon_harness.load import get
from daemon_harness.ports import free_port

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


@pytest.fixture
def foreign_port() -> Iterator[int]:
    """A port on which another process of the machine listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_that_another_process_has_is_named_and_the_container_stays_created(
    daemon: Daemon, foreign_port: int
) -> None:
    words = (
        "run",
        "-d",
        "--name",
        "web",
        "-p",
        f"127.0.0.1:{foreign_port}:80",
        "busybox",
        "sleep",
        "9",
    )
    said = daemon.cli(*words, status=125).err
    assert str(foreign_port) in said
    assert "already" in said
    assert daemon.state("web")["Status"] == "created", "as with Docker"
    daemon.cli("rm", "web")
    said = daemon.docker(*words, status=125).err
    assert f"127.0.0.1:{foreign_port}" in said


def test_a_port_that_a_container_has_is_named_and_free_again_afterwards(daemon: Daemon) -> None:
    port = free_port()
    daemon.cli("run", "-d", "--name", "first", "-p", f"{port}:80", "busybox", "sleep", "600")
    second = ("run", "-d", "--name", "second", "-p", f"{port}:80", "busybox", "sleep", "600")
    said = daemon.cli(*second, status=125).err
    assert str(port) in said
    assert "first" in said or "already" in said
    assert daemon.state("first")["Running"]
    daemon.cli("rm", "second")
    daemon.cli("rm", "-f", "first")
    daemon.cli(*second)


def test_a_service_whose_port_is_taken_says_so(daemon: Daemon, foreign_port: int) -> None:
    daemon.cli("swarm", "init")
    done = daemon.cli(
        *(
            "service",
            "create",
            "--name",
            "web",
            "-p",
            f"{foreign_port}:80",
            "--wait-timeout",
            "10s",
        ),
        *("busybox", "sleep", "600"),
        status=None,
    )
    assert done.status != 0
    assert str(foreign_port) in done.said


def test_a_service_does_not_get_the_port_of_another_service(daemon: Daemon) -> None:
    daemon.cli("swarm", "init")
    port = free_port()
    create = ("service", "create", "--stop-grace-period", "0s", "-p", f"{port}:80")
    daemon.cli(*create, "--name", "one", "busybox", "sleep", "600")
    said = daemon.cli(*create, "--name", "two", "busybox", "sleep", "600", status=1).err
    assert str(port) in said
    assert "one" in said
    assert [service["Spec"]["Name"] for service in daemon.get("/services")] == ["one"]


def test_a_name_that_is_taken_is_named_with_a_way_out(daemon: Daemon) -> None:
    daemon.cli("run", "-d", "--name", "web", "busybox", "sleep", "600")
    said = daemon.cli("run", "-d", "--name", "web", "busybox", "true", status=125).err
    assert '"/web" is already in use' in said
    assert "linkspan rm web" in said
    said = daemon.docker("run", "-d", "--name", "web", "busybox", "true", status=125).err
    assert 'The container name "/web" is already in use by container' in said
    for kind in ("network", "volume"):
        daemon.cli(kind, "create", "same")
    assert "same" in daemon.cli("network", "create", "same", status=1).err
    # A volume of the same name and kind is the same volume, as with Docker.
    daemon.cli("volume", "create", "same")
    daemon.cli("swarm", "init")
    daemon.cli(
        "service", "create", "--name", "web", "--stop-grace-period", "0s", "busybox", "sleep", "9"
    )
    said = daemon.cli("service", "create", "--name", "web", "busybox", "sleep", "9", status=1).err
    assert "web" in said
    assert "exists" in said or "in use" in said


def test_of_two_commands_for_one_name_one_wins_and_one_gets_a_clean_conflict(
    daemon: Daemon,
) -> None:
    for kind, words in {
        "run": ("run", "-d", "--name", "same", "busybox", "sleep", "600"),
        "create": ("create", "--name", "other", "busybox", "sleep", "600"),
        "network": ("network", "create", "same"),
    }.items():
        for _ in range(2):
            racers = [daemon.begin(*words) for _ in range(4)]
            ends = [(racer.communicate(timeout=60), racer.returncode) for racer in racers]
            won = [out for (out, _), status in ends if status == 0]
            lost = [(err, status) for (_, err), status in ends if status != 0]
            assert len(won) == 1, (kind, ends)
            for err, status in lost:
                assert status in (1, 125)
                assert "already" in err, err
                assert "fault of linkspan" not in err
            if kind == "network":
                daemon.cli("network", "rm", "same")
            else:
                assert len(daemon.containers()) == 1
                assert won[0].strip() == daemon.containers()[0]["Id"]
                daemon.cli("rm", "-f", words[words.index("--name") + 1])
    assert [network["Name"] for network in daemon.get("/networks")].count("same") == 0


def test_starts_stops_and_removals_of_one_container_at_once_end_in_one_state(
    daemon: Daemon,
) -> None:
    port = free_port()
    serve = "mkdir /www; echo here > /www/index.html; exec httpd -f -p 80 -h /www"
    for _ in range(2):
        daemon.cli("create", "--name", "busy", "-p", f"{port}:80", "busybox", "sh", "-c", serve)
        starts = [daemon.begin("start", "busy") for _ in range(3)]
        assert [racer.wait(60) for racer in starts] == [0, 0, 0]
        until("it serves", lambda: _serves(port))
        mixed = [
            daemon.begin(*words)
            for words in (
                ("stop", "-t", "0", "busy"),
                ("restart", "-t", "0", "busy"),
                ("kill", "busy"),
                ("exec", "busy", "true"),
                ("start", "busy"),
            )
        ]
        for racer in mixed:
            _, err = racer.communicate(timeout=60)
            assert "fault of linkspan" not in err
        removals = [daemon.begin("rm", "-f", "busy") for _ in range(3)]
        ends = [(racer.communicate(timeout=60)[1], racer.returncode) for racer in removals]
        assert any(status == 0 for _, status in ends), ends
        assert daemon.containers() == []


def _serves(port: int) -> bool:
    try:
        return get(port) == "here\n"
    except OSError:
        return False


def test_two_pulls_of_one_image_at_once_share_the_work(daemon: Daemon) -> None:
    reference = f"{daemon.registry}/twice:1"
    daemon.cli("tag", "busybox", reference)
    daemon.cli("push", reference)
    daemon.cli("rmi", reference)
    pulls = [daemon.begin("pull", reference) for _ in range(4)]
    for pull in pulls:
        out, err = pull.communicate(timeout=60)
        assert pull.returncode == 0, out + err
    assert reference in daemon.images()
    daemon.cli("rmi", reference)


def test_two_builds_of_one_tag_at_once_both_work_and_the_last_one_has_it(daemon: Daemon) -> None:
    contexts = [
        daemon.write_context(f"FROM busybox\nRUN sleep 0.2; echo {n} > /number\n") for n in range(3)
    ]
    builds = [daemon.begin("build", "-t", "raced", context) for context in contexts]
    for build in builds:
        out, err = build.communicate(timeout=60)
        assert build.returncode == 0, out + err
    said = daemon.cli("run", "--rm", "raced", "cat", "/number").out
    assert said.strip() in {"0", "1", "2"}
    daemon.cli("rmi", "raced")


def test_an_image_in_use_is_not_removed(daemon: Daemon) -> None:
    daemon.cli("run", "-d", "--name", "user", "busybox", "sleep", "600")
    for tool in (daemon.cli, daemon.docker):
        done = tool("rmi", "busybox", status=1)
        assert "in use" in done.err or "using" in done.err
    assert "busybox:latest" in daemon.images()
    assert daemon.cli("exec", "user", "echo", "well").out == "well\n"


def test_a_network_and_a_volume_in_use_are_not_removed(daemon: Daemon) -> None:
    daemon.cli("network", "create", "quay")
    daemon.cli(
        *("run", "-d", "--name", "user", "--network", "quay", "-v", "hold:/hold"),
        *("busybox", "sleep", "600"),
    )
    done = daemon.cli("network", "rm", "quay", status=None)
    assert done.status != 0
    assert "network quay" in done.err
    assert "user" in done.err
    said = daemon.cli("volume", "rm", "hold", status=1).err
    assert "hold" in said
    assert "in use" in said


def test_a_daemon_whose_registry_port_is_taken_runs_and_says_so(daemon: Daemon) -> None:
    daemon.stop()
    host, _, port = daemon.registry.partition(":")
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, int(port)))
        listener.listen()
        daemon.start()
        said = daemon.cli("daemon", "status").said
        assert "registry-server" in said
        assert port in said
        assert daemon.cli("run", "--rm", "busybox", "echo", "well").out == "well\n"
    daemon.restart()
