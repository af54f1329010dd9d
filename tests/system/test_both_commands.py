"""The stock docker command and ours do the same with the same words."""

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from daemon_harness.daemon import LINKSPAN, ROOT, Daemon, Done, until
from daemon_harness.leftovers import cgroups_below

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

Tool = Callable[..., Done]


@pytest.fixture(params=["linkspan", "docker"])
def tool(request: pytest.FixtureRequest, daemon: Daemon) -> Tool:
    """One of the two commands."""
    return daemon.cli if request.param == "linkspan" else daemon.docker


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("true",), 0),
        (("sh", "-c", "exit 3"), 3),
        (("sh", "-c", "exit 255"), 255),
        (("none-such",), 127),
        (("/bin",), 126),
        (("/etc/passwd",), 126),
        (("sh", "-c", "kill -9 $$"), 137),
        (("sh", "-c", "sleep 0.1 & kill -15 $!; wait $!; exit $?"), 143),
    ],
)
def test_run_and_exec_end_with_the_status_of_the_program(
    daemon: Daemon, tool: Tool, words: tuple[str, ...], status: int
) -> None:
    if words[-1] != "kill -9 $$":  # the first process of a namespace does not hear its own signals
        tool("run", "--rm", "busybox", *words, status=status)
    daemon.cli("run", "-d", "--name", "host", "busybox", "sleep", "600")
    tool("exec", "host", *words, status=status)


def test_run_ends_with_137_when_the_container_is_killed_and_125_when_it_is_not_made(
    daemon: Daemon, tool: Tool
) -> None:
    tool("run", "--name", "-x", "busybox", "true", status=125)
    said = tool("run", "--network", "nowhere", "busybox", "true", status=125).err
    assert "network nowhere not found" in said
    assert "pull" not in said.lower(), "a missing network is no missing image"
    daemon.cli("create", "--name", "victim", "busybox", "sleep", "600")
    starting = daemon.begin("start", "-a", "victim")
    until("it runs", lambda: daemon.state("victim")["Running"])
    tool("kill", "victim")
    assert starting.wait(30) == 137
    assert daemon.state("victim")["ExitCode"] == 137


def test_what_run_says_of_a_container_is_so_inside(tool: Tool, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "file").write_text("from the host\n")
    said = tool(
        *("run", "--rm", "-e", "WHAT=it is", "-e", "HOME=/tmp", "--user", "app", "-w", "/tmp/deep"),
        *("-h", "harbour", "-v", f"{tmp_path}:/host:ro", "-v", "named:/named", "--tmpfs", "/fast"),
        *("--memory", "64m", "--cpus", "0.5", "--pids-limit", "50", "--label", "a=b"),
        *("--add-host", "lighthouse:10.9.8.7", "--ulimit", "nofile=100:200", "--init"),
        *("busybox", "sh", "-c"),
        "echo $WHAT $HOME; id -u; id -g; pwd; hostname; cat /host/file; touch /host/new 2>&1;"
        " test -d /named && echo named; grep -c ' /fast tmpfs ' /proc/mounts; grep lighthouse /etc/hosts;"
        " ulimit -n; cat /proc/1/comm",
        status=None,
    )
    lines = [line.replace("\t", " ") for line in said.out.splitlines()]
    assert lines[:6] == ["it is /tmp", "1000", "1001", "/tmp/deep", "harbour", "from the host"]
    assert "Read-only file system" in lines[6]
    assert lines[7:11] == ["named", "1", "10.9.8.7 lighthouse", "100"]
    assert lines[11] in ("docker-init", "tini", "catatonit", "dumb-init"), lines


def test_limits_reach_the_kernel(daemon: Daemon, tool: Tool) -> None:
    tool(
        *("run", "-d", "--name", "small", "--memory", "32m", "--cpus", "0.5", "--pids-limit", "20"),
        *("busybox", "sleep", "600"),
    )
    found = {}
    for group in cgroups_below(daemon.cgroup):
        for name in (
            "memory.limit_in_bytes",
            "cpu.cfs_quota_us",
            "pids.max",
            "memory.max",
            "cpu.max",
        ):
            file = group / name
            if len(group.name) == 64 and file.exists():
                found[name] = file.read_text().strip()
    assert found.get("memory.limit_in_bytes", found.get("memory.max")) == str(32 << 20)
    assert found.get("cpu.cfs_quota_us", found.get("cpu.max", "")).split()[0] == "50000"
    assert found["pids.max"] == "20"
    hungry = tool("exec", "small", "sh", "-c", "x=$(yes | head -c 60000000); echo $?", status=None)
    assert hungry.status == 137 or "0" not in hungry.out.split(), hungry


def test_a_container_that_ends_is_started_again_as_its_policy_says(
    daemon: Daemon, tool: Tool
) -> None:
    run = ("run", "-d", "--restart")
    tool(*run, "on-failure:2", "--name", "fails", "busybox", "sh", "-c", "exit 4")
    tool(*run, "on-failure:2", "--name", "ends", "busybox", "true")
    tool(*run, "always", "--name", "always", "busybox", "sh", "-c", "sleep 0.1")

    def restarts(name: str) -> int:
        return int(daemon.get(f"/containers/{name}/json")["RestartCount"])

    until("it gives up", lambda: restarts("fails") == 2 and not daemon.state("fails")["Running"])
    until("it is exited", lambda: daemon.state("fails")["Status"] == "exited")
    assert daemon.state("fails")["ExitCode"] == 4
    until("it goes on", lambda: restarts("always") >= 2)
    assert restarts("ends") == 0
    tool("stop", "-t", "0", "always")
    assert daemon.state("always")["Status"] == "exited"


def test_containers_of_a_network_find_each_other_by_name(daemon: Daemon, tool: Tool) -> None:
    for network in ("inner", "outer"):
        tool("network", "create", network)
    serve = "mkdir /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www"
    tool(
        *("run", "-d", "--name", "web", "-h", "webhost", "--network", "inner"),
        *("--network-alias", "front", "busybox", "sh", "-c", serve),
    )

    def ask(network: str, name: str) -> Done:
        # The shell stays the first process: that one would not hear the signal of `timeout`.
        asking = f"timeout 3 wget -q -O - http://{name}:80/; exit $?"
        run = ("run", "--rm", "--network", network, "busybox", "sh", "-c", asking)
        return tool(*run, status=None)

    until("it answers", lambda: ask("inner", "web").out == "webhost\n")
    assert ask("inner", "front").out == "webhost\n"
    assert ask("outer", "web").status != 0, "the name is not known in another network"
    address = daemon.get("/containers/web/json")["NetworkSettings"]["Networks"]["inner"][
        "IPAddress"
    ]
    assert ask("inner", address).out == "webhost\n"
    assert ask("outer", address).status != 0, "networks are kept apart"
    tool("run", "-d", "--name", "late", "--network", "outer", "busybox", "sleep", "600")
    daemon.docker("network", "connect", "inner", "late")
    assert tool("exec", "late", "wget", "-q", "-O", "-", "http://web:80/").out == "webhost\n"


# -- a real terminal ------------------------------------------------------------------------------


class Terminal:
    """A command on a pseudo-terminal."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self._process = process
        self._master = master
        self.seen = ""

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def expect(self, pattern: str) -> re.Match[str]:
        """Read until a pattern is seen in what was not yet matched."""
        deadline = time.monotonic() + 20
        while (found := re.search(pattern, self.seen)) is None:
            if time.monotonic() > deadline or not self._read():
                pytest.fail(f"{pattern!r} was not seen in {self.seen!r}")
        self.seen = self.seen[found.end() :]
        return found

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], 1)
        if not ready:
            return True
        try:
            part = os.read(self._master, 65536)
        except OSError:  # the other end is closed
            return False
        self.seen += part.decode(errors="replace")
        return bool(part)

    def wait(self) -> int:
        """The exit status."""
        while self._process.poll() is None:
            if not self._read():
                break
        return self._process.wait(20)


@contextmanager
def terminal(daemon: Daemon, command: str, *words: str) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    program = str(LINKSPAN) if command == "linkspan" else "docker"
    process = subprocess.Popen(
        [program, *words],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**daemon.environment, "TERM": "xterm"},
        cwd=ROOT,
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        process.kill()
        process.wait()
        os.close(master)


@pytest.mark.parametrize("command", ["linkspan", "docker"])
def test_run_on_a_terminal_is_one(daemon: Daemon, command: str) -> None:
    with terminal(daemon, command, "run", "--rm", "-it", "--name", "tty", "busybox", "sh") as shell:
        shell.expect(r"# ")
        shell.type("tty; echo sum $((40+2))\n")
        shell.expect(r"/dev/pts/0\r\n")
        shell.expect(r"sum 42\r\n")
        shell.type("echo go; sleep 60\n")
        shell.expect(r"\ngo\r\n")
        # Before it sleeps the shell itself may take the key, and then go on to sleep.
        until("it sleeps", lambda: "sleep 60" in daemon.cli("top", "tty").out)
        shell.type("\x03")  # control-C ends the sleep, not the shell
        shell.expect(r"# ")
        shell.type("echo still here; exit 5\n")
        shell.expect(r"\nstill here\r\n")
        assert shell.wait() == 5
    until("it is removed", lambda: daemon.containers() == [])


@pytest.mark.parametrize("command", ["linkspan", "docker"])
def test_exec_on_a_terminal_is_one_and_detaching_leaves_the_container(
    daemon: Daemon, command: str
) -> None:
    daemon.cli("run", "-dit", "--name", "tty", "busybox", "sh")
    with terminal(daemon, command, "exec", "-it", "tty", "sh") as shell:
        shell.expect(r"# ")
        shell.type("tty; exit 6\n")
        shell.expect(r"/dev/pts/\d+\r\n")
        assert shell.wait() == 6
    with terminal(daemon, command, "attach", "tty") as shell:
        shell.type("echo well $((1+1))\n")
        shell.expect(r"well 2\r\n")
        shell.type("\x10\x11")  # control-P control-Q
        assert shell.wait() == (0 if command == "linkspan" else 1)
    assert daemon.state("tty")["Running"]


def test_a_terminal_that_goes_away_leaves_no_client_and_a_running_container(daemon: Daemon) -> None:
    with terminal(daemon, "linkspan", "run", "-it", "--name", "tty", "busybox", "sh") as shell:
        shell.expect(r"# ")
    assert daemon.state("tty")["Running"]
    assert daemon.cli("exec", "tty", "echo", "well").out == "well\n"
