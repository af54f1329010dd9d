"""run, create, start, exec, attach, logs: what is sent, what comes back, whose exit code."""

import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest

from linkspan.core.cli import runvalues

ID = "c0" * 32
NO_SUCH_IMAGE = {"message": "No such image: alpine:latest", "code": "image_not_found"}


def attached(code: int, *frames: tuple[int, bytes]) -> tuple[Any, Any]:
    """Handlers for attach and wait of a container that writes these frames once it is started."""

    def attach(_request: Any, connection: Any) -> None:
        connection.upgrade()
        connection.await_event("started")
        for stream, data in frames:
            connection.frame(stream, data)
        connection.tell("ended")

    def wait(_request: Any, connection: Any) -> None:
        connection.head(200, {"Transfer-Encoding": "chunked"})
        connection.tell("waited")
        connection.await_event("ended")
        connection.chunk(json.dumps({"StatusCode": code}).encode())
        connection.sock.sendall(b"0\r\n\r\n")

    return attach, wait


def start(_request: Any, connection: Any) -> None:
    connection.await_event("waited")
    connection.answer(204)
    connection.tell("started")


@pytest.fixture
def container(fake: Any) -> Any:
    attach, wait = attached(3, (1, b"out\n"), (2, b"err\n"), (1, b"more\n"))
    fake.on("POST", "/containers/create", {"Id": ID, "Warnings": ["mind the gap"]}, 201)
    fake.on("POST", f"/containers/{ID}/attach", attach)
    fake.on("POST", f"/containers/{ID}/wait", wait)
    fake.on("POST", f"/containers/{ID}/start", start)
    return fake


def command_line(fake: Any, *words: str, stdin: Any = subprocess.DEVNULL) -> Any:
    return subprocess.run(
        [sys.executable, "-m", "linkspan.core.cli", "--host", fake.url, *words],
        stdin=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_output_goes_where_it_belongs_and_the_exit_code_is_the_containers(container: Any) -> None:
    with container.running():
        done = command_line(container, "run", "--rm", "alpine", "echo", "-n", "x")
    assert (done.returncode, done.stdout, done.stderr) == (
        3,
        "out\nmore\n",
        "! mind the gap\nerr\n",
    )
    body = container.asked("POST", "/containers/create").json
    assert body["Image"] == "alpine"
    assert body["Cmd"] == ["echo", "-n", "x"]
    assert (body["AttachStdin"], body["AttachStdout"], body["Tty"]) == (False, True, False)
    assert body["HostConfig"]["AutoRemove"] is True
    wait = container.asked("POST", f"/containers/{ID}/wait")
    assert wait.query == {"condition": "removed"}
    attach = container.asked("POST", f"/containers/{ID}/attach")
    assert attach.headers["upgrade"] == "tcp"
    assert attach.query == {"stream": "1", "stdin": "0", "stdout": "1", "stderr": "1"}
    order = [r.path.rpartition("/")[2] for r in container.requests]
    assert order.index("attach") < order.index("wait") < order.index("start")


def test_detached_prints_exactly_the_id(fake: Any, linkspan: Any) -> None:
    fake.on("POST", "/containers/create", {"Id": ID}, 201)
    fake.on("POST", f"/containers/{ID}/start", None, 204)
    with fake.running():
        assert linkspan("run", "-d", "--name", "web", "nginx") == (0, f"{ID}\n", "")
    assert fake.asked("POST", "/containers/create").query == {"name": "web"}


def test_a_missing_image_is_pulled_with_progress_then_created(fake: Any, linkspan: Any) -> None:
    tries = fake.folder / "tries"

    def create(_request: Any, connection: Any) -> None:
        if tries.exists():
            connection.answer(201, {"Id": ID})
        else:
            tries.touch()
            connection.answer(404, NO_SUCH_IMAGE)

    fake.on("POST", "/containers/create", create)
    fake.on("POST", f"/containers/{ID}/start", None, 204)
    fake.on(
        "POST", "/images/create", lambda _r, c: c.stream({"status": "Digest: sha256:" + "d" * 64})
    )
    fake.on("GET", "/images/alpine/json", {"Size": 5_000_000})
    with fake.running():
        result = linkspan("run", "-d", "alpine")
    assert result.out == f"{ID}\n"
    assert result.err.splitlines()[0] == "pulling alpine"
    assert result.err.splitlines()[1].startswith("✓ alpine  sha256:dddddddddddd  5MB  ")
    assert fake.asked("POST", "/images/create").query == {"fromImage": "alpine", "tag": "latest"}


def test_never_pull_means_never(fake: Any, linkspan: Any) -> None:
    fake.on("POST", "/containers/create", NO_SUCH_IMAGE, 404)
    with fake.running():
        result = linkspan("run", "--pull", "never", "alpine")
    assert result == (125, "", "error[LS0102]: No such image: alpine:latest\n")


@pytest.mark.parametrize(
    ("status", "answer", "expected"),
    [
        (400, {"message": 'exec: "x": executable file not found in $PATH'}, 127),
        (400, {"message": "no", "code": "command_not_found"}, 127),
        (400, {"message": "exec /etc: permission denied"}, 126),
        (400, {"message": "no", "code": "command_not_executable"}, 126),
        (500, {"message": "port 80 is taken"}, 125),
    ],
)
def test_a_container_that_does_not_start(
    fake: Any, linkspan: Any, status: int, answer: Any, expected: int
) -> None:
    attach, wait = attached(0)
    fake.on("POST", "/containers/create", {"Id": ID}, 201)
    fake.on("POST", f"/containers/{ID}/attach", attach)
    fake.on("POST", f"/containers/{ID}/wait", wait)
    fake.on("POST", f"/containers/{ID}/start", answer, status)
    fake.on("DELETE", f"/containers/{ID}", None, 204)
    with fake.running():
        result = linkspan("run", "--rm", "-d", "alpine", "x")
        assert result.status == expected
        assert command_line(fake, "run", "--rm", "alpine", "x").returncode == expected
    assert result.err == f"error[LS0102]: {answer['message']}\n"
    assert fake.asked("DELETE", f"/containers/{ID}")


def test_no_daemon_is_told_as_such(linkspan: Any) -> None:
    assert linkspan("run", "alpine").status == 69


def test_a_signal_is_passed_on_to_the_container(fake: Any) -> None:
    def attach(_request: Any, connection: Any) -> None:
        connection.upgrade()
        connection.await_event("started")
        connection.frame(1, b"ready\n")
        connection.await_event("killed")
        connection.tell("ended")

    def kill(_request: Any, connection: Any) -> None:
        connection.answer(204)
        connection.tell("killed")

    fake.on("POST", "/containers/create", {"Id": ID}, 201)
    fake.on("POST", f"/containers/{ID}/attach", attach)
    fake.on("POST", f"/containers/{ID}/wait", attached(143)[1])
    fake.on("POST", f"/containers/{ID}/start", start)
    fake.on("POST", f"/containers/{ID}/kill", kill)
    with fake.running():
        process = subprocess.Popen(
            [sys.executable, "-m", "linkspan.core.cli", "--host", fake.url, "run", "alpine"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        assert process.wait(timeout=20) == 143
        process.stdout.close()
    assert fake.asked("POST", f"/containers/{ID}/kill").query == {"signal": "SIGTERM"}


class Terminal:
    """The command line on a pseudo-terminal."""

    def __init__(self, fake: Any, *words: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            command = [sys.executable, "-m", "linkspan.core.cli", "--host", fake.url, *words]
            os.execv(sys.executable, command)
        self.seen = b""

    def read_until(self, text: bytes) -> None:
        until = time.monotonic() + 20
        while text not in self.seen:
            ready, _, _ = select.select([self.fd], [], [], max(0, until - time.monotonic()))
            assert ready, self.seen
            self.seen += os.read(self.fd, 4096)

    def type(self, data: bytes) -> None:
        os.write(self.fd, data)

    def end(self) -> int:
        while True:
            try:
                data = os.read(self.fd, 4096)
            except OSError:
                break
            if not data:
                break
            self.seen += data
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def tty_container(fake: Any) -> None:
    def attach(_request: Any, connection: Any) -> None:
        connection.upgrade()
        connection.await_event("started")
        connection.sock.sendall(b"/ # ")
        while data := connection.sock.recv(100):
            connection.sock.sendall(data.replace(b"\r", b"\r\n"))
            if b"\x04" in data:
                break
        connection.tell("ended")

    fake.on("POST", "/containers/create", {"Id": ID}, 201)
    fake.on("POST", f"/containers/{ID}/attach", attach)
    fake.on("POST", f"/containers/{ID}/wait", attached(5)[1])
    fake.on("POST", f"/containers/{ID}/start", start)
    fake.on("POST", f"/containers/{ID}/resize", None, 200)


def test_a_terminal_is_raw_and_its_size_is_told(fake: Any) -> None:
    import fcntl
    import struct
    import termios

    tty_container(fake)
    with fake.running():
        terminal = Terminal(fake, "run", "-it", "alpine", "sh")
        terminal.read_until(b"/ # ")
        terminal.type(b"ls\x03")  # ctrl-c is a byte for the container, not a signal for us
        terminal.read_until(b"ls\x03")
        fcntl.ioctl(terminal.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
        until = time.monotonic() + 10
        while not any(r.query.get("w") == "99" for r in fake.requests):
            assert time.monotonic() < until
            time.sleep(0.01)
        terminal.type(b"\x04")
        assert terminal.end() == 5
    body = fake.asked("POST", "/containers/create").json
    assert (body["Tty"], body["OpenStdin"], body["StdinOnce"]) == (True, True, True)
    resized = [r.query for r in fake.requests if r.path.endswith("/resize")]
    assert resized[-1] == {"h": "33", "w": "99"}


def test_the_detach_keys_leave_it_running(fake: Any) -> None:
    tty_container(fake)
    with fake.running():
        terminal = Terminal(fake, "run", "-it", "alpine")
        terminal.read_until(b"/ # ")
        terminal.type(b"\x10\x11")
        assert terminal.end() == 0
    assert b"left running; to come back: linkspan attach c0c0c0c0c0c0" in terminal.seen


def test_the_detach_keys_may_stand_in_dockers_config(fake: Any, docker_config: Path) -> None:
    docker_config.write_text('{"detachKeys": "ctrl-x,q"}')
    tty_container(fake)
    with fake.running():
        terminal = Terminal(fake, "run", "-it", "alpine")
        terminal.read_until(b"/ # ")
        terminal.type(b"\x18q")
        assert terminal.end() == 0
    assert b"left running" in terminal.seen


def test_it_without_a_terminal_is_wrong_usage(
    linkspan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: PTH123, SIM115
    result = linkspan("run", "-it", "alpine")
    sys.stdin.close()
    assert result.status == 125
    assert "-it needs a terminal" in result.err


def test_exec_returns_the_programs_exit_code(fake: Any) -> None:
    def start_exec(request: Any, connection: Any) -> None:
        assert request.json == {"Detach": False, "Tty": False}
        connection.upgrade()
        received = b""
        while data := connection.sock.recv(100):
            received += data
        connection.frame(1, received.upper())

    fake.on("POST", "/containers/web/exec", {"Id": "e1"}, 201)
    fake.on("POST", "/exec/e1/start", start_exec)
    fake.on("GET", "/exec/e1/json", {"ExitCode": 9})
    with fake.running():
        reading, writing = os.pipe()
        os.write(writing, b"typed")
        os.close(writing)
        done = command_line(
            fake, "exec", "-i", "-e", "A=1", "-u", "root", "web", "cat", "-n", stdin=reading
        )
        os.close(reading)
    assert (done.returncode, done.stdout) == (9, "TYPED")
    body = fake.asked("POST", "/containers/web/exec").json
    assert body["Cmd"] == ["cat", "-n"]
    assert (body["Env"], body["User"], body["AttachStdin"]) == (["A=1"], "root", True)


def test_start_attaches_when_asked(container: Any, fake: Any) -> None:
    found = {"Id": ID, "Config": {"Tty": False}, "State": {}, "HostConfig": {}}
    fake.on("GET", "/containers/job/json", found)
    fake.on("POST", "/containers/job/start", None, 204)
    with fake.running():
        assert command_line(fake, "start", "job").stdout == "job\n"
        done = command_line(fake, "start", "-a", "job")
    assert (done.returncode, done.stdout) == (3, "out\nmore\n")


def test_attach_needs_a_running_container(fake: Any, linkspan: Any) -> None:
    found = {"Id": ID, "Config": {"Tty": False}, "State": {"Running": False}}
    fake.on("GET", "/containers/job/json", found)
    with fake.running():
        result = linkspan("attach", "job")
    assert result.status == 1
    assert "does not run" in result.err


def test_logs_are_split_by_stream(fake: Any) -> None:
    def logs(_request: Any, connection: Any) -> None:
        connection.head(200, {"Transfer-Encoding": "chunked"})
        connection.chunk(b"\x01\0\0\0\0\0\0\x04out\n\x02\0\0\0\0\0\0\x04er")
        connection.chunk(b"r\n")
        connection.sock.sendall(b"0\r\n\r\n")

    fake.on("GET", "/containers/web/json", {"Config": {"Tty": False}})
    fake.on("GET", "/containers/web/logs", logs)
    with fake.running():
        done = command_line(fake, "logs", "-f", "-n", "5", "web")
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "err\n")
    query = fake.asked("GET", "/containers/web/logs").query
    assert (query["follow"], query["tail"]) == ("1", "5")


def body(linkspan: Any, fake: Any, *words: str) -> Any:
    fake.on("POST", "/containers/create", {"Id": ID}, 201)
    with fake.running():
        result = linkspan("create", *words, "alpine")
    assert result == (0, f"{ID}\n", "")
    return fake.requests[-1].json


def test_every_option_reaches_the_daemon(
    fake: Any, linkspan: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAKEN", "from-here")
    file = tmp_path / "env"
    file.write_text("# a remark\nF=1\n\nTAKEN\nABSENT_THERE\n")
    made = body(
        linkspan,
        fake,
        *["-p", "8080:80", "-p", "127.0.0.1:53:53/udp", "-v", "data:/d:ro", "-v", "/anon"],
        *["--mount", "type=bind,src=/a,dst=/b,readonly", "--tmpfs", "/t:size=1m"],
        *["-e", "A=1", "-e", "TAKEN", "--env-file", str(file), "--label", "k=v"],
        *["--network", "app", "--network-alias", "db", "--restart", "on-failure:3", "-u", "me"],
        *["-w", "/w", "--memory", "512m", "--cpus", "1.5", "--entrypoint", "sh", "-h", "box"],
        *["--health-cmd", "true", "--health-interval", "5s", "--health-retries", "2"],
        *["--read-only", "--cap-add", "NET_ADMIN", "--cap-drop", "ALL", "--init"],
        *["--stop-signal", "INT", "--stop-timeout", "3", "--ulimit", "nofile=10:20"],
        *["--add-host", "a:1.2.3.4", "--pids-limit", "9", "--device", "/dev/fuse"],
    )
    host = made["HostConfig"]
    assert host["PortBindings"] == {
        "80/tcp": [{"HostIp": "", "HostPort": "8080"}],
        "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "53"}],
    }
    assert host["Binds"] == ["data:/d:ro"]
    assert made["Volumes"] == {"/anon": {}}
    mount = {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True}
    assert host["Mounts"] == [mount]
    assert host["Tmpfs"] == {"/t": "size=1m"}
    assert made["Env"] == ["F=1", "TAKEN=from-here", "A=1", "TAKEN=from-here"]
    assert made["Labels"] == {"k": "v"}
    assert host["NetworkMode"] == "app"
    assert made["NetworkingConfig"] == {"EndpointsConfig": {"app": {"Aliases": ["db"]}}}
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert (made["User"], made["WorkingDir"], made["Hostname"]) == ("me", "/w", "box")
    assert (host["Memory"], host["NanoCpus"]) == (512 << 20, 1_500_000_000)
    assert made["Entrypoint"] == ["sh"]
    health = {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000, "Retries": 2}
    assert made["Healthcheck"] == health
    assert (host["ReadonlyRootfs"], host["Init"]) == (True, True)
    assert (host["CapAdd"], host["CapDrop"]) == (["NET_ADMIN"], ["ALL"])
    assert (made["StopSignal"], made["StopTimeout"]) == ("INT", 3)
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 10, "Hard": 20}]
    assert host["ExtraHosts"] == ["a:1.2.3.4"]
    assert host["PidsLimit"] == 9
    assert host["Devices"][0]["PathInContainer"] == "/dev/fuse"


@pytest.mark.parametrize(
    "words",
    [
        ["-p", "x:80"],
        ["-p", "80:80/icmp"],
        ["-p", "70000:80"],
        ["-p", "1-3:1-2"],
        ["-v", ":/x"],
        ["-v", "a:"],
        ["--mount", "type=bind,src=/a"],
        ["--mount", "type=volume,dst=/a,nonsense=1"],
        ["--restart", "sometimes"],
        ["--restart", "always:3"],
        ["--restart", "always", "--rm"],
        ["--memory", "lots"],
        ["--env-file", "/nonexistent"],
        ["-e", "=x"],
        ["--label", "=x"],
        ["--ulimit", "nofile"],
        ["--health-interval", "soon"],
        ["--network-alias", "x"],
        ["--detach-keys", "ctrl-1"],
    ],
)
def test_what_cannot_be_read_is_wrong_usage_and_sends_nothing(
    fake: Any, linkspan: Any, words: list[str]
) -> None:
    with fake.running():
        result = linkspan("run", *words, "alpine")
    assert result.status == 125
    assert result.err.startswith("error[LS0004]: ")
    assert fake.requests == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", ("", "", "80", "tcp")),
        ("8080:80", ("", "8080", "80", "tcp")),
        ("8080:80/udp", ("", "8080", "80", "udp")),
        ("127.0.0.1::80", ("127.0.0.1", "", "80", "tcp")),
        ("127.0.0.1:8080:80", ("127.0.0.1", "8080", "80", "tcp")),
        ("[::1]:8080:80", ("::1", "8080", "80", "tcp")),
        ("8000-8002:80-82", ("", "8000-8002", "80-82", "tcp")),
    ],
)
def test_forms_of_a_published_port(text: str, expected: tuple[str, ...]) -> None:
    assert runvalues.split_port(text) == expected


def test_ranges_of_ports_go_side_by_side() -> None:
    exposed, bindings = runvalues.port_bindings(["8000-8001:80-81"])
    assert sorted(exposed) == ["80/tcp", "81/tcp"]
    assert [b[0]["HostPort"] for b in bindings.values()] == ["8000", "8001"]
    with pytest.raises(click.BadParameter):
        runvalues.port_bindings(["8000-8001:80-82"])
