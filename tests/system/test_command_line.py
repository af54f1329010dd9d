"""The command line's verbs, each against a daemon that really does it."""

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon, until
from daemon_harness.typed import Typed

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]


@pytest.fixture
def web(daemon: Daemon) -> str:
    """A container that runs until it is stopped."""
    daemon.cli("run", "-d", "--init", "--name", "web", "-l", "app=shop", "busybox", "sleep", "1000")
    return "web"


def test_a_container_is_paused_renamed_limited_and_looked_into(daemon: Daemon, web: str) -> None:
    daemon.cli("pause", web)
    assert daemon.state(web)["Status"] == "paused"
    daemon.cli("unpause", web)
    daemon.cli("rename", web, "shop")
    daemon.cli("update", "--memory", "64m", "--memory-swap", "128m", "--restart", "no", "shop")
    assert daemon.cli("inspect", "-f", "{{.HostConfig.Memory}}", "shop").out == f"{64 << 20}\n"
    top = daemon.cli("top", "shop").out.splitlines()
    assert any("sleep 1000" in line for line in top[1:]), top
    stats = daemon.cli(
        "stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}} {{.MemUsage}}", "shop"
    )
    assert re.fullmatch(r"shop [12] [\d.]+\wi?B / 64MiB\n", stats.out), stats.out
    daemon.cli("kill", "-s", "KILL", "shop")
    assert daemon.cli("wait", "shop").out == "137\n"


def test_files_go_in_and_out_and_changes_are_listed(
    daemon: Daemon, web: str, tmp_path: Path
) -> None:
    (tmp_path / "site" / "sub").mkdir(parents=True)
    (tmp_path / "site" / "index.html").write_text("hello")
    (tmp_path / "site" / "sub" / "link").symlink_to("../index.html")
    daemon.cli("cp", tmp_path / "site", f"{web}:/srv")
    assert daemon.cli("exec", web, "cat", "/srv/sub/link").out == "hello"
    daemon.cli("cp", f"{web}:/srv", tmp_path / "back")
    assert (tmp_path / "back" / "sub" / "link").read_text() == "hello"
    daemon.cli("cp", f"{web}:/srv/index.html", tmp_path / "one")
    assert (tmp_path / "one").read_text() == "hello"
    changed = daemon.cli("diff", web).out.splitlines()
    assert {"A /srv", "A /srv/index.html", "A /srv/sub/link"} <= set(changed)
    missing = daemon.cli("cp", f"{web}:/absent", tmp_path, status=1)
    assert "absent" in missing.err


def test_a_container_becomes_an_image_an_archive_and_an_image_again(
    daemon: Daemon, web: str, tmp_path: Path
) -> None:
    daemon.cli("exec", web, "sh", "-c", "echo made > /made")
    committed = daemon.cli(
        "commit", "-c", "CMD cat /made", "-m", "by hand", web, "made:1"
    ).out.strip()
    assert committed.startswith("sha256:")
    assert daemon.cli("run", "--rm", "made:1").out == "made\n"
    history = daemon.cli("history", "--format", "{{.Comment}}", "made:1").out
    assert "by hand" in history
    daemon.cli("save", "-o", tmp_path / "made.tar", "made:1")
    daemon.cli("rmi", "made:1")
    assert daemon.cli("load", "-i", tmp_path / "made.tar").out.strip().endswith("made:1")
    assert daemon.cli("run", "--rm", "made:1").out == "made\n"
    daemon.cli("export", "-o", tmp_path / "root.tar", web)
    with tarfile.open(tmp_path / "root.tar") as archive:
        assert "made" in {name.removeprefix("./") for name in archive.getnames()}
    daemon.cli("import", "-c", "CMD cat /made", tmp_path / "root.tar", "flat:1")
    assert daemon.cli("run", "--rm", "flat:1").out == "made\n"


def test_networks_are_joined_and_left_while_running(daemon: Daemon, web: str) -> None:
    daemon.cli("network", "create", "app")
    daemon.cli("network", "connect", "--alias", "shop", "app", web)
    names = daemon.cli("inspect", "-f", "{{json .NetworkSettings.Networks}}", web).out
    assert "app" in json.loads(names)
    found = daemon.cli("run", "--rm", "--network", "app", "busybox", "ping", "-c", "1", "shop")
    assert "1 packets received" in found.out
    daemon.cli("network", "disconnect", "app", web)
    daemon.cli("network", "rm", "app")
    assert "app" not in daemon.cli("network", "ls", "--format", "{{.Name}}").out.split()


def test_ports_are_shown_as_they_are_published(daemon: Daemon) -> None:
    daemon.cli("run", "-d", "--name", "ported", "-p", "127.0.0.1::80", "busybox", "sleep", "1000")
    place = daemon.cli("port", "ported", "80").out
    assert re.fullmatch(r"127\.0\.0\.1:\d+\n", place)
    assert daemon.cli("port", "ported").out == f"80/tcp -> {place}"


def test_what_nothing_needs_is_removed(daemon: Daemon, web: str) -> None:
    daemon.cli("create", "--name", "stopped", "busybox")
    daemon.cli("network", "create", "unused")
    daemon.cli("volume", "create", "kept")
    assert daemon.cli("container", "prune", status=2).err
    done = daemon.cli("system", "prune", "--force")
    assert "unused" in done.out
    assert "freed" in done.err
    assert daemon.cli("ps", "-a", "--format", "{{.Names}}").out == f"{web}\n"
    assert "kept" in daemon.volumes()
    daemon.cli("volume", "prune", "--all", "--force")
    assert "kept" not in daemon.volumes()
    usage = daemon.json("system", "df")
    assert [row["Type"] for row in usage] == [
        "Images",
        "Containers",
        "Local Volumes",
        "Build Cache",
    ]
    assert usage[1]["Active"] == "1"


def test_exit_statuses_are_dockers(daemon: Daemon) -> None:
    for words, status in (
        (("true",), 0),
        (("sh", "-c", "exit 7"), 7),
        (("/absent",), 127),
        (("/etc",), 126),
    ):
        daemon.cli("run", "--rm", "busybox", *words, status=status)
    daemon.cli("run", "--rm", "--init", "busybox", "sh", "-c", "kill -9 $$", status=137)
    daemon.cli("run", "--rm", "--network", "absent", "busybox", "true", status=125)
    assert daemon.containers() == []


def test_signals_reach_the_container(daemon: Daemon) -> None:
    script = 'trap "echo caught; exit 5" TERM; echo ready; while :; do sleep 0.1; done'
    process = daemon.begin("run", "--rm", "--name", "term", "busybox", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert (out, process.returncode) == ("caught\n", 5)


def test_stdin_files_and_environment_reach_the_container(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# remark\nA=from file\n")
    cidfile = tmp_path / "cid"
    words = ["run", "-i", "--cidfile", str(cidfile), "--env-file", str(tmp_path / "env")]
    done = daemon.cli(*words, "-e", "B=2", "busybox", "sh", "-c", 'cat; echo "$A $B"', stdin="in\n")
    assert done.out == "in\nfrom file 2\n"
    assert daemon.state(cidfile.read_text())["Status"] == "exited"
    again = daemon.cli(*words, "busybox", status=125)
    assert "exists already" in again.err


def test_a_terminal_is_passed_through_with_its_size_and_left_by_keys(daemon: Daemon) -> None:
    typed = Typed(daemon, "run", "-it", "--name", "term", "busybox", "sh")
    typed.see(r"# ")
    typed.size(33, 99)

    def size() -> list[str]:
        typed.type("stty size\n")
        return typed.see(r"\r\n\d+ \d+\r\n").split()

    until("the size has arrived, too", lambda: size() == ["33", "99"])
    typed.type("\x10\x11")
    typed.see("left running")
    assert typed.end() == 0
    assert daemon.state("term")["Running"]
    again = Typed(daemon, "attach", "term")
    again.type("exit 4\n")
    assert again.end() == 4


def test_a_live_view_ends_with_ctrl_c_and_leaves_the_cursor(daemon: Daemon, web: str) -> None:
    typed = Typed(daemon, "stats")
    typed.see(web)
    typed.type("\x03")
    assert typed.end() == 0
    assert "\x1b[?25h" in typed.seen


def test_a_build_that_is_broken_off_gives_the_terminal_back(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo begun; sleep 600\n")
    typed = Typed(daemon, "--progress", "live", "build", str(tmp_path))
    typed.size(24, 40)
    typed.see("begun")
    # Nothing is said any more, and the clock goes on.
    typed.see(r"RUN echo begun; sleep 600 +[\d.]+s")
    typed.see(r"RUN echo begun; sleep 600 +[\d.]+s")
    typed.type("\x03")
    assert typed.end() == 130
    assert "\x1b[?25h" in typed.seen
    assert "Traceback" not in typed.seen


def test_events_are_lines_that_can_be_filtered(daemon: Daemon) -> None:
    since = f"{time.time():.6f}"
    daemon.cli("run", "--rm", "--name", "brief", "busybox", "true")

    def kinds(*words: str) -> list[str]:
        until_now = f"{time.time():.6f}"
        asked = ("events", "--since", since, "--until", until_now, "--format", "{{.Action}}")
        return daemon.cli(*asked, *words).out.split()

    until("the removal is told", lambda: "destroy" in kinds("--filter", "container=brief"))
    assert kinds("--filter", "container=brief", "--filter", "event=die") == ["die"]


COMPOSE = """
services:
  web:
    image: busybox
    command: sh -c 'echo $$GREETING; exec sleep 1000'
    environment: {GREETING: "${GREETING:-hello}"}
    stop_grace_period: 1s
    init: true
    deploy: {replicas: 2, update_config: {parallelism: 2, monitor: 500ms}}
"""


def test_a_stack_is_deployed_changed_and_removed(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    daemon.cli("swarm", "init")
    words = ("stack", "deploy", "-c", str(tmp_path / "compose.yaml"))
    assert "+ service shop_web" in daemon.cli(*words, "--plan", "shop").out
    said = daemon.cli(*words, "shop").out
    assert "created network shop_default\n" in said
    assert "created service shop_web\n" in said

    def both_said_hello() -> bool:
        lines = daemon.cli("service", "logs", "shop_web").out.splitlines()
        return sorted(lines) == ["shop_web.1 | hello", "shop_web.2 | hello"]

    until("both tasks have said hello", both_said_hello)
    assert daemon.cli(*words, "shop").out == "unchanged service shop_web\n"
    changed = daemon.cli(*words, "shop", more_env={"GREETING": "bye"})
    assert changed.out == "updated service shop_web\n"
    running = ("--filter", "desired-state=running", "--format", "{{.Name}}")
    tasks = daemon.cli("stack", "ps", *running, "shop").out.split()
    assert sorted(tasks) == ["shop_web.1", "shop_web.2"]
    assert daemon.cli("stack", "ls").out.splitlines()[1].split() == ["shop", "1"]
    assert "removed network shop_default" in daemon.cli("stack", "rm", "shop").out
    assert daemon.cli("stack", "ls", "-q").out == ""


@pytest.mark.parametrize("words", [("events", "--since", "10m"), ("logs", "--follow", "ticker")])
def test_ctrl_c_ends_what_goes_on_for_ever(daemon: Daemon, words: tuple[str, ...]) -> None:
    script = "while :; do echo tick; sleep 0.2; done"
    daemon.cli("run", "-d", "--init", "--name", "ticker", "busybox", "sh", "-c", script)
    process = daemon.begin(*words)
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "")


def test_secrets_and_configs_reach_the_tasks(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_text("opensesame")
    (tmp_path / "compose.yaml").write_text(
        """
services:
  reader:
    image: busybox
    command: sh -c 'cat /run/secrets/key /etc/motd; stat -c %a /run/secrets/key; exec sleep 1000'
    init: true
    secrets: [{source: key, mode: 0400}]
    configs: [{source: motd, target: /etc/motd}]
secrets: {key: {file: ./key.txt}}
configs: {motd: {content: "-hello-"}}
"""
    )
    daemon.cli("swarm", "init")
    said = daemon.cli("stack", "deploy", "-c", tmp_path / "compose.yaml", "vault").out
    assert {"created secret vault_key", "created config vault_motd"} <= set(said.splitlines())

    def read() -> str:
        return daemon.cli("service", "logs", "--raw", "vault_reader").out

    until("the task has read both", lambda: read() == "opensesame-hello-400\n")
    assert "opensesame" not in daemon.cli("secret", "inspect", "vault_key").out
    assert daemon.cli("secret", "ls", "--format", "{{.Name}}").out == "vault_key\n"
    used = daemon.cli("secret", "rm", "vault_key", status=1)
    assert "vault_reader" in used.err
    daemon.cli("stack", "rm", "vault")
    assert daemon.cli("secret", "ls", "-q").out == daemon.cli("config", "ls", "-q").out == ""


def test_a_login_is_checked_by_the_registry(daemon: Daemon, tmp_path: Path) -> None:
    environment = {"DOCKER_CONFIG": str(tmp_path)}
    words = ("login", "-u", "ana", "--password-stdin", daemon.registry)
    daemon.cli(*words, stdin="pw", more_env=environment)
    assert daemon.registry in (tmp_path / "config.json").read_text()
    nobody = ("login", "-u", "ana", "--password-stdin", "127.0.0.1:1")
    assert daemon.cli(*nobody, stdin="pw", more_env=environment, status=1).err
    daemon.cli("logout", daemon.registry, more_env=environment)
    assert json.loads((tmp_path / "config.json").read_text())["auths"] == {}


def test_the_daemon_answers_over_a_wire_of_stdin_and_stdout(daemon: Daemon) -> None:
    request = "GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    done = daemon.cli("system", "dial-stdio", stdin=request)
    assert done.out.startswith("HTTP/1.1 200")
    assert done.out.endswith("OK")


def test_no_output_in_a_pipe_has_escapes(daemon: Daemon, web: str) -> None:
    for words in (
        ("ps", "-a"),
        ("images",),
        ("stats",),
        ("top", web),
        ("diff", web),
        ("history", "busybox"),
        ("network", "ls"),
        ("volume", "ls"),
        ("system", "df", "-v"),
        ("info",),
        ("version",),
        ("inspect", web),
    ):
        done = daemon.cli(*words)
        assert not re.search(r"[\x1b\r]", done.out + done.err), words


@pytest.mark.parametrize(
    ("shell", "start"),
    [
        ("bash --norc --noprofile", ""),
        ("zsh -f", "autoload -U compinit; compinit -u -D; "),
        ("fish --no-config", ""),
    ],
    ids=["bash", "zsh", "fish"],
)
def test_names_are_completed_as_they_are_typed(
    daemon: Daemon, tmp_path: Path, shell: str, start: str
) -> None:
    daemon.cli("network", "create", f"loom-{shell[:3]}")
    name = shell.partition(" ")[0]
    (tmp_path / "script").write_text(daemon.cli("completion", name).out)
    program = tmp_path / "linkspan"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m linkspan.core.cli "$@"\n')
    program.chmod(0o755)
    here = [f"{name}={tmp_path}" for name in ("HOME", "XDG_RUNTIME_DIR", "TMPDIR")]
    with_path = ["env", f"PATH={tmp_path}:{os.environ['PATH']}", *here]
    typed = Typed(daemon, program=[*with_path, *shell.split()])
    typed.type(f"{start}source {tmp_path}/script; printf '%s-%s' script read\n")
    typed.see("script-read")
    typed.type("linkspan network rm loo\t")
    typed.see(f"loom-{shell[:3]}")
    typed.type("\x15exit\n")
    assert typed.end() == 0


def test_names_are_completed_from_the_daemon(daemon: Daemon, web: str) -> None:
    daemon.cli("network", "create", "weaving")
    for line, expected in (
        ("linkspan stop w", "web"),
        ("linkspan network rm w", "weaving"),
        ("linkspan rmi bus", "busybox:latest"),
        ("linkspan sta", "start"),
    ):
        words = line.split(" ")
        environment = {
            **daemon.environment,
            "_LINKSPAN_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        }
        done = subprocess.run(
            [sys.executable, "-m", "linkspan.core.cli"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert f"plain,{expected}" in done.stdout.split("\n"), (line, done)


@pytest.mark.parametrize("tty", [(), ("-t",)])
def test_a_detached_exec_says_whether_its_program_could_be_started(
    daemon: Daemon, tty: tuple[str, ...]
) -> None:
    daemon.cli("run", "-d", "--name", "web", "busybox", "sleep", "600")
    for program, reason in (("nope", "executable file not found"), ("/etc", "permission denied")):
        assert reason in daemon.docker("exec", "-d", *tty, "web", program, status=None).err
    # A program's own exit code is no refusal.
    daemon.docker("exec", "-d", *tty, "web", "sh", "-c", "exit 127")
    daemon.docker("exec", "-d", *tty, "web", "sh", "-c", "echo made > /made")
    until("it has run", lambda: daemon.cli("exec", "web", "cat", "/made", status=None).out)
