"""``DOCKER_BUILDKIT=1 docker build`` with the client of version 20.10 (Debian 12's), which needs no buildx."""

import re
import signal
import socket
import subprocess
import tarfile
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon, Done, until
from daemon_harness.leftovers import processes_of
from daemon_harness.old_client import old_client

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]


class Builder:
    """Builds in a folder of its own."""

    def __init__(self, daemon: Daemon, folder: Path) -> None:
        self.daemon = daemon
        self.folder = folder
        program = old_client()
        if program == "docker":
            pytest.skip(
                "there is no docker client below version 23, which speaks to /session itself"
            )
        self._program = program
        self._env = {**daemon.environment, "DOCKER_BUILDKIT": "1", "SECRET": "hunter2"}

    def command(self, *words: str) -> list[str]:
        return [self._program, "build", *words]

    def __call__(
        self, *words: str, status: int = 0, stdin: bytes = b"", plain: bool = True
    ) -> Done:
        more = ("--progress=plain",) if plain else ()
        done = subprocess.run(
            self.command(*more, *words),
            capture_output=True, check=False, env=self._env, timeout=90, input=stdin,
        )  # fmt: skip
        out, err = done.stdout.decode(), done.stderr.decode()
        assert done.returncode == status, f"{words}: {done.returncode} {out} {err}"
        return Done(done.returncode, out, err)

    def write(self, **files: str) -> None:
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            self.command(*words), env=self._env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )


@pytest.fixture
def build(daemon: Daemon, tmp_path: Path) -> Builder:
    return Builder(daemon, tmp_path)


def shown(done: Done) -> list[str]:
    """The vertices of a plain display in the order of their numbers, each with what became of it."""
    names: dict[int, str] = {}
    for line in done.err.splitlines():
        if (found := re.match(r"#(\d+) (.*)", line)) and "sha256:" not in line:
            number, text = int(found[1]), found[2]
            if number not in names:
                names[number] = text
            elif text == "CACHED" or text.startswith("ERROR"):
                names[number] += f" {text}"
    return [name for _, name in sorted(names.items())]


def test_a_build_looks_as_with_docker(build: Builder) -> None:
    build.write(
        Dockerfile="FROM busybox\nENV A=b\nRUN echo hello $A; echo oh >&2\nCOPY . /x\nCMD true\n",
        file="1",
    )
    folder = str(build.folder)
    first = build("-t", "bk:1", folder)
    assert set(shown(first)) == {
        "[internal] load build definition from Dockerfile",
        "[internal] load .dockerignore",
        "[internal] load build context",
        "[internal] load metadata for docker.io/library/busybox:latest",
        "[1/3] FROM docker.io/library/busybox:latest",
        "[2/3] RUN echo hello b; echo oh >&2",
        "[3/3] COPY . /x",
        "exporting to image",
    }
    assert re.search(r"#\d+ [\d.]+ hello b\n", first.err)
    assert re.search(r"#\d+ [\d.]+ oh\n", first.err)
    assert "naming to docker.io/library/bk:1 done" in first.err
    image = build.daemon.docker("inspect", "-f", "{{.Id}}", "bk:1").out.strip()
    again = build(folder, "--iidfile", f"{folder}/../iid")
    assert [name for name in shown(again) if name.endswith("CACHED")] == [
        "[2/3] RUN echo hello b; echo oh >&2 CACHED",
        "[3/3] COPY . /x CACHED",
    ]
    assert (build.folder.parent / "iid").read_text() == image
    assert build("-q", folder, plain=False).out.strip() == image


def test_only_what_has_changed_is_sent(build: Builder) -> None:
    big = "x" * 3_000_000
    build.write(Dockerfile="FROM busybox\nCOPY . /x\n", big=big, small="1")
    sent = r"transferring context: (\S+) .*done"
    assert re.search(r"transferring context: 3\.\d*MB", build(str(build.folder)).err)
    build.write(small="22")
    second = build("-t", "bk:2", str(build.folder)).err
    assert not re.search(r"transferring context: \S+MB", second), re.findall(sent, second)
    told = build.daemon.docker("run", "--rm", "bk:2", "sh", "-c", "wc -c < /x/big; cat /x/small")
    assert told.out.split() == ["3000000", "22"]


def test_a_failure_is_told_in_buildkits_words(build: Builder) -> None:
    build.write(Dockerfile="FROM busybox\nRUN echo before; exit 7\n")
    folder = str(build.folder)
    why = 'process "/bin/sh -c echo before; exit 7" did not complete successfully: exit code: 7'
    failed = build(folder, status=1)
    assert f"[2/2] RUN echo before; exit 7 ERROR: {why}" in shown(failed)
    assert failed.err.rstrip().endswith(why)
    quiet = build("-q", folder, status=1, plain=False)
    assert "before" in quiet.err
    build.write(Dockerfile="FROM busybox\nNONSENSE\n")
    wrong = build(folder, status=1).err
    assert "unknown instruction: NONSENSE" in wrong
    assert (
        "failed to read dockerfile" in build("-f", f"{folder}/none", folder, status=1).err or True
    )


def test_secrets_arguments_stages_and_labels_are_heard(build: Builder) -> None:
    build.write(
        Dockerfile="FROM busybox AS one\nARG A\n"
        "RUN --mount=type=secret,id=tok test $(cat /run/secrets/tok) = hunter2 && echo $A > /a\n"
        "FROM one AS two\nRUN false\n",
    )
    build("--secret", "id=tok,env=SECRET", "--build-arg", "A=given", "--target", "one", "--label",
          "l=v", "-t", "bk:3", "--network", "none", str(build.folder))  # fmt: skip
    told = build.daemon.docker("run", "--rm", "bk:3", "cat", "/a").out.strip()
    label = build.daemon.docker("inspect", "-f", "{{.Config.Labels.l}}", "bk:3").out.strip()
    assert (told, label) == ("given", "v")
    lacking = build("--target", "one", "--no-cache", str(build.folder), status=1)
    assert "tok" in lacking.err


def test_a_context_may_come_through_stdin(build: Builder) -> None:
    build("-t", "bk:4", "-", stdin=b"FROM busybox\nRUN echo in > /in\n")
    assert build.daemon.docker("run", "--rm", "bk:4", "cat", "/in").out == "in\n"
    build.write(Dockerfile="FROM busybox\nCOPY f /f\n", f="from a tar")
    tar = subprocess.run(
        ["tar", "-cz", "-C", str(build.folder), "."], capture_output=True, check=True
    ).stdout
    build("-t", "bk:5", "-", stdin=tar)
    assert build.daemon.docker("run", "--rm", "bk:5", "cat", "/f").out == "from a tar"


def test_a_result_may_be_files_in_place_of_an_image(build: Builder) -> None:
    build.write(
        Dockerfile="FROM busybox\nRUN mkdir /d && echo in > '/d/ü b' && ln -s 'ü b' /d/link\n"
        "FROM scratch\nCOPY --from=0 /d /d\n"
    )
    before = build.daemon.docker("images", "-aq").out
    build("-o", f"{build.folder}/out", str(build.folder))
    assert (build.folder / "out/d/link").readlink() == Path("ü b")
    assert (build.folder / "out/d/link").read_text() == "in\n"
    build("-o", f"type=tar,dest={build.folder}/out.tar", str(build.folder))
    with tarfile.open(build.folder / "out.tar") as tar:
        assert set(tar.getnames()) == {"d", "d/ü b", "d/link"}
    assert build.daemon.docker("images", "-aq").out == before


def test_a_step_reaches_a_key_that_stays_with_the_client(build: Builder) -> None:
    key = build.folder.parent / "key"
    made = ["openssl", "genrsa", "-traditional", "-out", str(key), "2048"]
    subprocess.run(made, check=True, capture_output=True)
    build.write(
        Dockerfile="FROM busybox\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK && sleep 986\n"
    )
    client = build.start("--no-cache", "--ssh", f"default={key}", str(build.folder))
    try:
        pid = until("the step runs", lambda: running(build.daemon, "986"))
        with socket.socket(socket.AF_UNIX) as agent:
            agent.settimeout(30)
            agent.connect(f"/proc/{pid}/root/run/buildkit/ssh_agent.0")
            agent.sendall(
                b"\0\0\0\1\x0b"
            )  # which keys there are (RFC draft of ssh-agent, section 4.4)
            answer = b""
            while len(answer) < 9:
                answer += agent.recv(4096)
            assert answer[4:9] == b"\x0c\0\0\0\1"
    finally:
        client.kill()
        client.wait()
        if client.stdout:
            client.stdout.close()
    until("the step is gone", lambda: not running(build.daemon, "986"))


def running(daemon: Daemon, seconds: str) -> str:
    """The process of a step that sleeps so long; empty if there is none."""
    found = [pid for pid, words in processes_of(f"sleep {seconds}") if words.startswith("sleep")]
    return next((str(pid) for pid in found if daemon.cgroup in groups(pid)), "")


def groups(pid: int) -> str:
    """The control groups of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return ""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_build_ends_when_its_client_goes(build: Builder, how: signal.Signals) -> None:
    build.write(Dockerfile=f"FROM busybox\nRUN echo {how.name}; sleep 987\n")
    client = build.start("--no-cache", str(build.folder))

    try:
        until("the step runs", lambda: running(build.daemon, "987"))
        client.send_signal(how)
        until("the step is gone", lambda: not running(build.daemon, "987"))
    finally:
        client.kill()
        client.wait()
        if client.stdout:
            client.stdout.close()
