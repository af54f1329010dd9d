"""The daemon is killed under running containers whose clients are attached."""

import subprocess
from typing import Any

import pytest
from daemon_harness.daemon import Daemon, until
from daemon_harness.leftovers import processes_of

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

ECHO = 'while read line; do echo "said $line"; done'


class Client:
    """A ``docker`` command that goes on while the test does."""

    def __init__(self, daemon: Daemon, *words: str) -> None:
        self.process = subprocess.Popen(
            ["docker", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=daemon.environment,
        )

    def say(self, line: str) -> str:
        """Write a line and read one."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def read(self) -> str:
        """The next line."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def end(self) -> None:
        """It ends by itself."""
        self.process.communicate(timeout=60)


def commands_in(daemon: Daemon, container: str) -> str:
    return daemon.docker("top", container, "-eo", "pid,args").out


def test_clients_end_containers_go_on_and_nothing_of_a_session_is_left(daemon: Daemon) -> None:
    daemon.docker("run", "-d", "-i", "--name", "echo", "busybox", "sh", "-c", ECHO)
    daemon.docker(
        "run", "-d", "--name", "checked", "--health-cmd", "test -e /well", "--health-interval", "100ms",
        "--health-retries", "1", "busybox", "sleep", "1000",
    )  # fmt: skip
    clients = [
        Client(daemon, "attach", "--sig-proxy=false", "echo"),
        Client(daemon, "exec", "-i", "echo", "sh", "-c", f"{ECHO}; sleep 999"),
        Client(daemon, "logs", "-f", "echo"),
        Client(daemon, "events"),
        Client(daemon, "wait", "echo"),
    ]
    assert clients[0].say("one") == "said one\n"
    assert clients[1].say("two") == "said two\n"
    assert clients[2].read() == "said one\n"
    until("it is unwell", lambda: daemon.state("checked")["Health"]["Status"] == "unhealthy")
    daemon.kill9()
    for client in clients:
        client.end()
    daemon.start()
    until("the exec session is gone", lambda: "sleep 999" not in commands_in(daemon, "echo"))
    again = Client(daemon, "attach", "--sig-proxy=false", "echo")
    assert again.say("three") == "said three\n"
    assert daemon.docker("logs", "echo").out == "said one\nsaid three\n"
    daemon.docker("exec", "checked", "touch", "/well")
    until("health is asked again", lambda: daemon.state("checked")["Health"]["Status"] == "healthy")
    daemon.docker("rm", "-f", "echo", "checked")
    again.end()
    until("their holders are gone", lambda: not holders(daemon))


def test_restarts_and_removals_go_on_after_the_daemon(daemon: Daemon) -> None:
    script = "test -e /sign/go && exit 5; sleep 0.05; exit 1"
    daemon.docker(
        "run",
        "-d",
        "--name",
        "again",
        "--restart",
        "always",
        "-v",
        "sign:/sign",
        "busybox",
        "sh",
        "-c",
        script,
    )
    daemon.docker("run", "-d", "--rm", "--name", "short", "-v", "sign:/sign", "busybox", "sh", "-c",
                  "until test -e /sign/go; do sleep 0.05; done")  # fmt: skip
    mountpoint = daemon.get("/volumes/sign")["Mountpoint"]
    # The fifth back-off is long enough that the daemon is not killed in the middle of a start.
    until("it is in its back-off", lambda: in_back_off(daemon.get("/containers/again/json")))
    daemon.kill9()
    subprocess.run(["touch", f"{mountpoint}/go"], check=True, timeout=30)
    until("the short one has ended", lambda: not holders(daemon))
    daemon.start()
    until("it is started again", lambda: daemon.state("again")["ExitCode"] == 5)
    until("the short one is gone", lambda: len(daemon.containers()) == 1)
    daemon.docker("stop", "-t", "0", "again")
    assert daemon.state("again")["Status"] == "exited"


def in_back_off(container: dict[str, Any]) -> bool:
    return bool(container["RestartCount"] >= 4 and container["State"]["Status"] == "restarting")


def holders(daemon: Daemon) -> list[str]:
    """Of containers that run: conmon."""
    return [words for _, words in processes_of(str(daemon.exec_root)) if "conmon" in words]
