"""Containers through the stock docker CLI."""

import json
import os
import pty
import select
import socket
import subprocess
import time
import urllib.request

import pytest
from daemon_harness.daemon import Daemon, until
from daemon_harness.ports import free_port

pytestmark = pytest.mark.system


def test_version_and_info(daemon: Daemon) -> None:
    version = json.loads(daemon.docker("version", "--format", "{{json .}}").out)
    assert version["Server"]["ApiVersion"] == "1.50"
    client = version["Client"]
    assert client["ApiVersion"] == min(client["DefaultAPIVersion"], "1.50")
    assert "Live Restore Enabled: true" in daemon.docker("info").out


def test_run_passes_output_errors_and_exit_code(daemon: Daemon) -> None:
    done = daemon.docker(
        "run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3", status=3
    )
    assert (done.out, done.err) == ("out\n", "err\n")
    assert daemon.containers() == []


def test_run_reads_from_stdin(daemon: Daemon) -> None:
    text = "".join(f"line {n}\n" for n in range(50_000))
    assert daemon.docker("run", "-i", "--rm", "busybox", "cat", stdin=text).out == text


def test_run_ends_although_the_process_leaves_its_input(daemon: Daemon) -> None:
    done = daemon.docker("run", "-i", "--rm", "busybox", "head", "-c", "5", stdin="z" * 3_000_000)
    assert done.out == "zzzzz"


@pytest.mark.parametrize(
    ("command", "status", "text"),
    [
        (("nonsense",), 127, "not found"),
        (("/etc/passwd",), 126, "denied"),
    ],
)
def test_a_command_that_cannot_run(
    daemon: Daemon, command: tuple[str, ...], status: int, text: str
) -> None:
    done = daemon.docker("run", "--rm", "busybox", *command, status=status)
    assert "Error response from daemon" in done.err
    assert text in done.err
    until("the container goes", lambda: not daemon.containers())


def test_an_image_that_is_nowhere(daemon: Daemon) -> None:
    name = f"{daemon.registry}/nothing:1"
    done = daemon.docker("run", "--rm", name, status=125)
    assert f"Unable to find image '{name}' locally" in done.err
    assert "not found" in done.err


def test_a_published_port_answers_and_a_taken_one_is_refused(daemon: Daemon) -> None:
    port = free_port()
    script = "mkdir /www; echo hello > /www/index.html; exec httpd -f -p 80 -h /www"
    daemon.docker("run", "-d", "--name", "web", "-p", f"{port}:80", "busybox", "sh", "-c", script)

    def page() -> bytes:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as answer:
                return bytes(answer.read())
        except OSError:
            return b""

    assert until("the page answers", page) == b"hello\n"
    assert f"0.0.0.0:{port}->80/tcp" in daemon.docker("ps").out
    assert daemon.docker("port", "web").out.splitlines()[0] == f"80/tcp -> 0.0.0.0:{port}"
    done = daemon.docker(
        "run", "-d", "--name", "second", "-p", f"{port}:80", "busybox", "true", status=125
    )
    assert f"Bind for 0.0.0.0:{port} failed: port is already allocated" in done.err


def test_the_life_of_a_container(daemon: Daemon) -> None:
    daemon.docker("run", "-d", "--name", "one", "busybox", "sleep", "1000")
    done = daemon.docker("run", "--name", "one", "busybox", status=125)
    assert 'The container name "/one" is already in use' in done.err
    daemon.docker("pause", "one")
    assert "(Paused)" in daemon.docker("ps").out
    daemon.docker("unpause", "one")
    daemon.docker("stop", "-t", "0", "one")
    assert "Exited (137)" in daemon.docker("ps", "-a").out
    daemon.docker("start", "one")
    daemon.docker("restart", "-t", "0", "one")
    assert daemon.state("one")["Running"] is True
    assert "cannot remove" in daemon.docker("rm", "one", status=1).err
    daemon.docker("kill", "-s", "KILL", "one")
    assert daemon.docker("wait", "one").out == "137\n"
    daemon.docker("rename", "one", "two")
    daemon.docker("rm", "two")
    assert "No such container: two" in daemon.docker("rm", "two", status=1).err


def test_create_then_start_attached(daemon: Daemon) -> None:
    daemon.docker("create", "--name", "made", "-e", "A=b", "busybox", "sh", "-c", "echo $A; exit 5")
    assert daemon.docker("start", "-a", "made", status=5).out == "b\n"


def test_logs_in_order_with_times_and_tail(daemon: Daemon) -> None:
    script = "for n in 1 2 3; do echo out $n; echo err $n >&2; done"
    daemon.docker("run", "--name", "talker", "busybox", "sh", "-c", script)
    done = daemon.docker("logs", "talker")
    assert done.out == "out 1\nout 2\nout 3\n"
    assert done.err == "err 1\nerr 2\nerr 3\n"
    assert daemon.docker("logs", "--tail", "1", "talker").said == "err 3\n"
    first = daemon.docker("logs", "-t", "talker").out.splitlines()[0]
    assert first.endswith("Z out 1")
    assert (
        daemon.docker("logs", "--since", "1h", "--until", "2100-01-01T00:00:00Z", "talker").out
        == done.out
    )
    assert daemon.docker("logs", "--since", "2100-01-01T00:00:00Z", "talker").said == ""


def test_a_follower_sees_the_last_line_and_ends(daemon: Daemon) -> None:
    script = "for n in 1 2 3 4 5; do echo $n; sleep 0.1; done"
    daemon.docker("run", "-d", "--name", "talker", "busybox", "sh", "-c", script)
    assert daemon.docker("logs", "-f", "talker").out == "1\n2\n3\n4\n5\n"


def test_exec(daemon: Daemon) -> None:
    daemon.docker("run", "-d", "--name", "host", "busybox", "sleep", "1000")
    done = daemon.docker("exec", "host", "sh", "-c", "echo out; echo err >&2; exit 4", status=4)
    assert (done.out, done.err) == ("out\n", "err\n")
    assert daemon.docker("exec", "-i", "host", "cat", stdin="typed").out == "typed"
    assert daemon.docker(
        "exec", "-e", "A=1", "-w", "/tmp", "host", "sh", "-c", "echo $A; pwd"
    ).out == ("1\n/tmp\n")
    assert "not found" in daemon.docker("exec", "host", "nonsense", status=127).said
    daemon.docker("exec", "-d", "host", "sh", "-c", "echo done > /tmp/mark")
    until(
        "the detached one has run",
        lambda: daemon.docker("exec", "host", "cat", "/tmp/mark", status=None).out == "done\n",
    )
    daemon.docker("pause", "host")
    assert "is paused" in daemon.docker("exec", "host", "true", status=1).err
    daemon.docker("unpause", "host")


def test_limits_and_settings_reach_the_container(daemon: Daemon) -> None:
    daemon.docker("run", "-d", "--name", "set", "-m", "64m", "--cpus", "0.5", "--hostname", "ship",
                  "--user", "app", "--workdir", "/tmp", "--read-only", "--tmpfs", "/scratch",
                  "-v", "data:/data", "-l", "tier=front", "busybox", "sleep", "1000")  # fmt: skip
    assert (
        daemon.docker("exec", "set", "sh", "-c", "hostname; id -u; pwd").out == "ship\n1000\n/tmp\n"
    )
    assert (
        daemon.docker("exec", "set", "touch", "/x", status=1)
        .err.strip()
        .endswith("Read-only file system")
    )
    daemon.docker("exec", "set", "touch", "/scratch/x")
    (seen,) = json.loads(daemon.docker("inspect", "set").out)
    assert seen["HostConfig"]["Memory"] == 64 << 20
    assert seen["HostConfig"]["NanoCpus"] == 500_000_000
    assert [(m["Type"], m["Name"]) for m in seen["Mounts"] if m["Type"] == "volume"] == [
        ("volume", "data")
    ]
    assert daemon.docker("ps", "-q", "-f", "label=tier=front").out.strip() == seen["Id"][:12]
    daemon.docker("update", "-m", "128m", "--memory-swap", "128m", "set")
    assert json.loads(daemon.docker("inspect", "set").out)[0]["HostConfig"]["Memory"] == 128 << 20
    assert "sleep" in daemon.docker("top", "set").out
    row = daemon.docker("stats", "--no-stream", "--format", "{{.MemUsage}}", "set").out
    assert row.strip().endswith("/ 128MiB")


def test_health_is_shown(daemon: Daemon) -> None:
    daemon.docker("run", "-d", "--name", "well", "--health-cmd", "true", "--health-interval", "200ms",
                  "busybox", "sleep", "1000")  # fmt: skip
    until("it is healthy", lambda: "(healthy)" in daemon.docker("ps").out)


def test_events_tell_the_life_of_a_container(daemon: Daemon) -> None:
    began = time.time()
    daemon.docker("run", "--rm", "--name", "short", "busybox", "true")
    until("the container goes", lambda: not daemon.containers())
    done = daemon.docker(
        "events", "--since", f"{began:.6f}", "--until", f"{time.time():.6f}", "-f", "container=short",
        "--format", "{{.Action}}",
    )  # fmt: skip
    actions = done.out.split()
    assert [a for a in actions if a in ("create", "start", "die", "destroy")] == [
        "create",
        "start",
        "die",
        "destroy",
    ]


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, daemon: Daemon, *words: str) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            ["docker", *words], stdin=slave, stdout=slave, stderr=slave, env=daemon.environment,
            start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.seen = b""

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    def wait_for(self, text: bytes) -> None:
        def look() -> bool:
            while select.select([self.master], [], [], 0)[0]:
                try:
                    self.seen += os.read(self.master, 4096)
                except OSError:
                    break
            return text in self.seen

        until(f"{text!r} is shown", look)

    def end(self) -> int:
        status = self.process.wait(20)
        os.close(self.master)
        return status


def test_a_terminal_echoes_knows_its_size_and_gives_the_exit_code(daemon: Daemon) -> None:
    terminal = Terminal(daemon, "run", "-it", "--rm", "--name", "term", "busybox", "sh")
    terminal.wait_for(b"# ")
    terminal.type(b"echo $((40+2))\n")
    terminal.wait_for(b"42")
    terminal.type(b"exit 7\n")
    assert terminal.end() == 7


def test_detach_keys_leave_a_terminal_running(daemon: Daemon) -> None:
    terminal = Terminal(daemon, "run", "-it", "--name", "term", "busybox", "sh")
    terminal.wait_for(b"# ")
    terminal.type(b"\x10\x11")
    assert terminal.end() == 0
    assert daemon.state("term")["Running"] is True
    again = Terminal(daemon, "attach", "term")
    again.type(b"\necho back\n")
    again.wait_for(b"back")
    again.type(b"exit\n")
    assert again.end() == 0


def test_exec_on_a_terminal(daemon: Daemon) -> None:
    daemon.docker("run", "-d", "--name", "host", "busybox", "sleep", "1000")
    terminal = Terminal(daemon, "exec", "-it", "host", "sh")
    terminal.wait_for(b"# ")
    terminal.type(b"exit 9\n")
    assert terminal.end() == 9


def test_logs_are_read_across_files_while_they_are_rotated(daemon: Daemon) -> None:
    script = "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); usleep 2000; done"
    daemon.docker(
        "run", "-d", "--name", "talker", "--log-opt", "max-size=1k", "--log-opt", "max-file=90",
        "busybox", "sh", "-c", script,
    )  # fmt: skip
    wanted = "".join(f"line {n}\n" for n in range(300))
    assert daemon.docker("logs", "-f", "talker").out == wanted
    assert daemon.docker("logs", "talker").out == wanted
    assert (
        daemon.docker("logs", "--tail", "200", "talker").out == wanted[-200 * len("line 100\n") :]
    )
    assert len(list(daemon.data_root.rglob("log.2"))) == 1
    daemon.docker("run", "--name", "mute", "--log-driver", "none", "busybox", "echo", "unheard")
    refused = daemon.docker("logs", "mute", status=1)
    assert "configured logging driver does not support reading" in refused.err


def test_a_websocket_attaches_and_answers_the_examples_key(daemon: Daemon) -> None:
    daemon.docker("create", "-i", "--name", "talker", "busybox", "sh", "-c", "read x; echo got $x")
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(30)
        wire.connect(daemon.url.removeprefix("unix://"))
        wire.sendall(
            b"GET /v1.50/containers/talker/attach/ws?stream=1&stdin=1&stdout=1 HTTP/1.1\r\n"
            b"Host: docker\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        with wire.makefile("rb") as answer:
            head = b"".join(iter(answer.readline, b"\r\n"))
            assert head.startswith(b"HTTP/1.1 101 ")
            assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head
            daemon.docker("start", "talker")
            wire.sendall(b"\x82\x86\x00\x00\x00\x00hello\n")
            assert answer.read(2 + len("got hello\n")) == b"\x82\x0agot hello\n"
            assert answer.read(4) == b"\x88\x02\x03\xe8"
    assert daemon.request("GET", "/containers/talker/attach/ws?stream=1")[0] == 400
