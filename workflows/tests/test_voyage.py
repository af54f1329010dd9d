"""The first voyage on real containers: a daemon of its own, a registry of its own, nothing left."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading  # noqa: TID251 - a client that asks all the time while a command runs
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

EXAMPLES = Path(__file__).parents[1] / "examples"
LINKSPAN = [
    sys.executable,
    "-c",
    "import sys; from linkspan.core.cli.main import main; sys.exit(main())",
]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Harbour:
    """A daemon in a folder of its own."""

    def __init__(self, folder: Path, run_folder: Path, subnet: int) -> None:
        self.folder = folder
        self.run_folder = run_folder
        self.subnet = subnet
        self.url = f"unix://{run_folder}/s"
        self.registry = f"127.0.0.1:{free_port()}"
        self.port = free_port()
        self.config = folder / "linkspan.toml"
        self.config.write_text(f'[registry-server]\nlisten = "{self.registry}"\n')
        self.log = folder / "daemon.log"
        self.daemon: subprocess.Popen[bytes] | None = None
        shutil.copytree(EXAMPLES, folder / "examples")
        shutil.copy("/bin/busybox", folder / "examples" / "voyage" / "busybox")

    def start(self) -> None:
        roots = [f"--data-root={self.folder}/data", f"--exec-root={self.run_folder}/run"]
        words = ["--config", str(self.config), "--host", self.url, "daemon", "run"]
        bridge = f"--bip=172.31.{self.subnet}.1/24"
        with self.log.open("ab") as log:
            self.daemon = subprocess.Popen([*LINKSPAN, *words, *roots, bridge], stderr=log)
        until = time.monotonic() + 20
        while self.call("version").returncode != 0:
            assert time.monotonic() < until, self.log.read_text()[-3000:]
            assert self.daemon.poll() is None, self.log.read_text()[-3000:]
            time.sleep(0.1)

    def end(self, number: int) -> None:
        assert self.daemon is not None
        self.daemon.send_signal(number)
        self.daemon.wait(30)

    def command(self, *words: str) -> list[str]:
        return [*LINKSPAN, "--config", str(self.config), "--host", self.url, *words]

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env={**os.environ, "PYTHONUTF8": "1"},
        )

    def voyage(self, version: str) -> list[str]:
        inputs = {"version": version, "registry": self.registry, "port": str(self.port)}
        words = [w for k, v in inputs.items() for w in ("--input", f"{k}={v}")]
        return ["workflow", "run", "examples/voyage.yaml", *words]

    def cut_off(self, words: list[str], *, after: str) -> tuple[int, str]:
        """Run a command and kill the daemon when it says something; its status and words."""
        said = ""
        with subprocess.Popen(
            self.command(*words, "--progress", "plain"),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            cwd=self.folder,
            env={**os.environ, "PYTHONUTF8": "1"},
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                said += line
                if after in line:
                    self.end(signal.SIGKILL)
            return process.wait(30), said

    def ask(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=5) as answer:
            return answer.read().decode()

    def clean(self) -> None:
        self.call("service", "rm", "web")
        until = time.monotonic() + 30
        while json.loads(self.call("ps", "-a", "--format", "json").stdout or "[]"):
            if time.monotonic() > until:
                break
            time.sleep(0.2)
        self.call("swarm", "leave", "--force")
        self.end(signal.SIGTERM)


@contextmanager
def asking(harbour):
    """Ask all the time; gives the list of what went wrong, and how often it was asked."""
    faults: list[str] = []
    counts = {"asked": 0}
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            counts["asked"] += 1
            try:
                harbour.ask()
            except (OSError, urllib.error.URLError) as error:
                faults.append(f"{time.time():.3f} {error}")

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield faults, counts
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def harbour(tmp_path):
    run_folder = Path(f"/run/lsv-{os.getpid()}")
    run_folder.mkdir()
    made = Harbour(tmp_path, run_folder, os.getpid() % 250)
    made.start()
    try:
        yield made
    finally:
        made.clean()
        shutil.rmtree(run_folder, ignore_errors=True)


def test_build_test_push_deploy_scale_update_roll_back_and_resume(harbour):
    first = harbour.call(*harbour.voyage("1"))
    assert first.returncode == 0, first.stdout + first.stderr
    assert "voyage 1, answered by" in harbour.ask()
    steps = [line.split()[0] for line in first.stdout.splitlines()[1:]]
    assert steps[0] == "build/image"
    assert steps[-1] == "deploy/everybody"

    with asking(harbour) as (faults, counts):
        second = harbour.call(*harbour.voyage("2"))
    assert second.returncode == 0, second.stdout + second.stderr
    assert "voyage 2, answered by" in harbour.ask()
    assert (faults, counts["asked"] > 20) == ([], True)

    with asking(harbour) as (faults, counts):
        bad = harbour.call(*harbour.voyage("bad"))
    assert bad.returncode == 1, bad.stdout + bad.stderr
    assert "deploy/rollout failed" in bad.stderr
    assert "rolled back: web is back on" in bad.stderr
    assert "next    linkspan workflow resume" in bad.stderr
    assert faults == []
    assert "voyage 2, answered by" in harbour.ask()

    status, said = harbour.cut_off(harbour.voyage("1"), after="push/push  succeeded")
    assert status == 69, said
    harbour.start()
    listed = json.loads(harbour.call("workflow", "ls", "--format", "json").stdout)
    assert listed[0]["state"] == "interrupted"
    resumed = harbour.call("workflow", "resume", "last")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "kept: build, test, push/push" in resumed.stderr
    assert "voyage 1, answered by" in harbour.ask()
