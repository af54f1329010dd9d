"""Daemons come and go, and stand side by side; containers stay."""

import http.client
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from daemon_harness.daemon import Daemon, until
from daemon_harness.leftovers import processes_of
from daemon_harness.load import get
from daemon_harness.ports import free_port

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

TALK = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.1; done"
SERVE = "mkdir -p /www && hostname > /www/index.html && exec httpd -f -p 80 -h /www"


def lines(daemon: Daemon, container: str) -> list[str]:
    return daemon.cli("logs", container).out.splitlines()


@pytest.mark.parametrize("end", ["stop", "kill9"])
def test_containers_outlive_the_daemon_and_the_next_one_finds_them(
    daemon: Daemon, end: str
) -> None:
    port = free_port()
    daemon.cli("run", "-d", "--name", "talker", "busybox", "sh", "-c", TALK)
    daemon.cli(
        *("run", "-d", "--name", "server", "-h", "harbour", "-p", f"127.0.0.1:{port}:80"),
        *("-v", "kept:/kept", "busybox", "sh", "-c", SERVE),
    )
    daemon.cli("exec", "server", "sh", "-c", "echo before > /kept/file")
    before = {name: daemon.state(name) for name in ("talker", "server")}
    until("it talks", lambda: len(lines(daemon, "talker")) > 3)

    getattr(daemon, end)()
    said = len(processes_of(str(daemon.exec_root)))
    assert said >= 2, "conmon holds both containers"
    assert get(port) == "harbour\n", "the published port works without a daemon"

    daemon.start()
    assert {name: daemon.state(name) for name in before} == before
    assert get(port) == "harbour\n"
    assert daemon.cli("exec", "server", "cat", "/kept/file").out == "before\n"
    assert daemon.docker("exec", "server", "hostname").out == "harbour\n"
    said = len(lines(daemon, "talker"))
    numbers = [int(line.split()[1]) for line in lines(daemon, "talker")]
    assert numbers == list(range(1, len(numbers) + 1)), "no line was lost or doubled"
    until("it goes on talking", lambda: len(lines(daemon, "talker")) > said)
    daemon.cli("stop", "-t", "0", "talker")
    assert daemon.state("talker")["ExitCode"] == 137
    daemon.cli("rm", "-f", "server")
    until("the port is closed", lambda: not answers(port))


def answers(port: int) -> bool:
    try:
        get(port, timeout_s=1)
    except (OSError, http.client.HTTPException):
        return False
    return True


def test_what_ended_while_the_daemon_was_down_has_its_exit_code(daemon: Daemon) -> None:
    daemon.cli("run", "-d", "--name", "wait", "-v", "sign:/sign", "busybox", *waiting(3))
    daemon.cli(
        "run", "-d", "--name", "again", "-v", "sign:/sign", *policy(), "busybox", *waiting(4)
    )
    mountpoint = daemon.get("/volumes/sign")["Mountpoint"]
    daemon.kill9()
    Path(mountpoint, "go").touch()
    until("both have ended", lambda: not conmons(daemon))
    daemon.start()
    state = daemon.state("wait")
    assert (state["Status"], state["ExitCode"]) == ("exited", 3)
    assert any("wait" in text for text in daemon.repaired)
    until("it is started again", lambda: daemon.get("/containers/again/json")["RestartCount"] > 0)


def waiting(status: int) -> tuple[str, ...]:
    return ("sh", "-c", f"while ! test -e /sign/go; do sleep 0.05; done; exit {status}")


def policy() -> tuple[str, ...]:
    return ("--restart", "on-failure:1")


def conmons(daemon: Daemon) -> list[str]:
    return [words for _, words in processes_of(str(daemon.exec_root)) if "conmon" in words]


def test_a_container_that_wants_to_run_is_started_with_the_daemon(daemon: Daemon) -> None:
    daemon.cli("run", "-d", "--name", "stays", "--restart", "always", "busybox", "sleep", "600")
    daemon.cli("run", "-d", "--name", "rests", "--restart", "always", "busybox", "sleep", "600")
    daemon.cli("stop", "-t", "0", "rests")
    daemon.cli(
        *("run", "-d", "--name", "ended", "--restart", "unless-stopped", "busybox", "sleep", "600")
    )
    daemon.cli("stop", "-t", "0", "ended")
    daemon.stop()
    daemon.start()
    assert daemon.state("stays")["Running"]
    # Docker's rule: `always` runs after a start of the daemon, even if it was stopped by hand.
    until("always means always", lambda: daemon.state("rests")["Running"])
    assert not daemon.state("ended")["Running"]


def test_two_daemons_side_by_side_do_not_disturb_each_other(
    new_daemon: Callable[..., Daemon],
) -> None:
    one, two = new_daemon().start(), new_daemon().start()
    ports = {daemon: free_port() for daemon in (one, two)}
    for daemon in (one, two):
        daemon.build_busybox("same")
        daemon.cli("network", "create", "same")
        daemon.cli(
            *("run", "-d", "--name", "same", "-h", daemon.short_id, "--network", "same"),
            *("-v", "same:/same", "-p", f"127.0.0.1:{ports[daemon]}:80", "same", "sh", "-c", SERVE),
        )
    for daemon in (one, two):
        until("it answers", lambda d=daemon: answers(ports[d]))  # type: ignore[misc]
        assert get(ports[daemon]) == f"{daemon.short_id}\n"
        assert daemon.cli("exec", "same", "hostname").out == f"{daemon.short_id}\n"
        daemon.cli("exec", "same", "touch", f"/same/{daemon.short_id}")
    assert one.cli("exec", "same", "ls", "/same").out == f"{one.short_id}\n"
    # Neither's end, proper or not, is felt by the other.
    two.kill9()
    assert get(ports[one]) == f"{one.short_id}\n"
    two.start()
    one.cli("rm", "-f", "same")
    one.cli("network", "rm", "same")
    one.cli("rmi", "same")
    one.close()
    assert get(ports[two]) == f"{two.short_id}\n"
    assert two.cli("exec", "same", "ls", "/same").out == f"{two.short_id}\n"


def test_a_second_daemon_on_the_same_data_is_refused_and_named(
    daemon: Daemon, new_daemon: Callable[..., Daemon]
) -> None:
    second = new_daemon(data_root=daemon.data_root)
    process = second.spawn()
    assert process.wait(30) != 0
    assert str(daemon.data_root) in second.tail()
    assert daemon.cli("run", "--rm", "busybox", "echo", "unhurt").out == "unhurt\n"
    second.forget()


def test_a_second_daemon_on_the_same_socket_is_refused_and_named(
    daemon: Daemon, new_daemon: Callable[..., Daemon]
) -> None:
    second = new_daemon()
    second.url, second.hosts = daemon.url, (daemon.url,)
    process = second.spawn()
    assert process.wait(30) != 0
    assert daemon.url.removeprefix("unix://") in second.tail()
    assert daemon.cli("run", "--rm", "busybox", "echo", "unhurt").out == "unhurt\n"
    second.forget()


def test_a_daemon_in_another_network_namespace_than_its_containers_is_refused_in_words(
    daemon: Daemon,
) -> None:
    daemon.cli("run", "-d", "--name", "stays", "busybox", "sleep", "1000")
    before = daemon.state("stays")
    daemon.kill9()
    assert daemon.spawn("unshare", "--mount", "--net").wait(timeout=60) == 1
    assert "belong to another network namespace" in daemon.tail()
    daemon.start()
    assert daemon.state("stays") == before


def test_the_default_network_takes_a_new_address_when_no_container_runs_in_it(
    daemon: Daemon,
) -> None:
    def network() -> tuple[str, str, str]:
        found = daemon.get("/networks/bridge")
        (pool,) = found["IPAM"]["Config"]
        return found["Id"], pool["Subnet"], pool["Gateway"]

    def said() -> str:
        return daemon.cli("daemon", "status").err

    before = network()
    gateway = before[2].removesuffix(".1") + ".129"
    daemon.cli("create", "--name", "stopped", "busybox", "ip", "route")
    daemon.cli("run", "-d", "--name", "runs", "busybox", "sleep", "1000")
    daemon.stop()
    daemon.options = (*daemon.options, "--bip", f"{gateway}/25")
    daemon.start()
    assert network() == before
    assert "network bridge keeps its address" in said()
    daemon.cli("rm", "-f", "runs")
    daemon.stop()
    daemon.start()
    assert network() == (before[0], gateway.removesuffix("9") + "8/25", gateway)
    assert f"network bridge has the address {gateway}/25 now" in said()
    assert f"default via {gateway} " in daemon.cli("start", "-a", "stopped").out
    daemon.kill9()
    daemon.start()
    assert "address" not in said()


def test_a_hangup_signal_has_the_config_read_again(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon()
    daemon.start()
    text = daemon.config.read_text()
    reloads = "/events?since=0&until={}&filters=" + quote('{"type":["daemon"]}')

    def told() -> list[str]:
        body = daemon.get(reloads.format(int(time.time()) + 1), parse=False)
        events = [json.loads(line) for line in body.splitlines()]
        assert {event["Action"] for event in events} <= {"reload"}
        return [event["Actor"]["Attributes"]["debug"] for event in events]

    changed = '[daemon]\nlog-level = "debug"\ngroup = "x"\nshutdown-timeout = "14s"'
    changed = text.replace("[daemon]", changed) + "[volume.local]\n[plugins]\nhook-timeout = '4s'\n"
    daemon.config.write_text(changed)
    daemon.process.send_signal(signal.SIGHUP)
    until("it is told", lambda: told() == ["true"])
    assert '"takes_a_restart": ["group", "shutdown-timeout", "plugins"' in daemon.log.read_text()

    daemon.config.write_text(text.replace("[daemon]", "[daemon]\nnosuch = 1"))
    daemon.process.send_signal(signal.SIGHUP)
    until("its log says why not", lambda: "nosuch" in daemon.log.read_text())
    assert told() == ["true"]
    daemon.config.write_text(text)
    daemon.process.send_signal(signal.SIGHUP)
    until("it is told", lambda: told() == ["true", "false"])
