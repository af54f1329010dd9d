"""Starts, kills and cleans up a daemon that shares nothing with any other on the machine."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import attrs
import pytest
import trio
from left_behind import mark

from daemon_harness.leftovers import Traces, mounts_below, processes_of, remove_empty_groups
from daemon_harness.ports import free_port
from daemon_harness.transcripts import CLI_VERSION, client_version

ROOT = Path(__file__).resolve().parents[3]
LINKSPAN = Path(sys.executable).parent / "linkspan"
T = TypeVar("T")

PATIENCE_S = 60.0
"""How long a condition may take on a busy machine before a test says that it does not hold."""


@attrs.frozen
class Done:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """Both streams."""
        return self.out + self.err


def until(what: str, look: Callable[[], T | None], *, within_s: float = PATIENCE_S) -> T:
    """Look again and again until something true is seen; fail with ``what`` when time is up.

    The longer it takes, the seldomer: looks must not be what keeps the machine busy.
    """
    begun = time.monotonic()
    while True:
        found = look()
        if found:
            return found
        waited_s = time.monotonic() - begun
        if waited_s > within_s:
            pytest.fail(f"within {within_s:g} s: {what}; last seen: {found!r}")
        time.sleep(min(0.05, max(0.01, waited_s / 10)))


class Daemon:
    """A daemon with its own socket, roots, bridge, table, control groups and registry.

    Attributes:
        folder: All of it lies here; short, since a socket's path may have 107 bytes at most.
        url: Of its socket.
        hosts: Where it listens when it is started.
        options: More words for ``linkspan daemon run``.
        registry: ``HOST:PORT`` of its own registry.
    """

    def __init__(self, *, data_root: Path | None = None, config: str = "") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"ls-{mark()}", dir="/tmp"))
        self.data_root = data_root or self.folder / "data"
        self.exec_root = self.folder / "run"
        self.url = f"unix://{self.folder}/s"
        self.hosts: tuple[str, ...] = (self.url,)
        self.options: tuple[str, ...] = ()
        self.registry = f"127.0.0.1:{free_port()}"
        self.log = self.folder / "log"
        self.config = self.folder / "linkspan.toml"
        self.cgroup = f"linkspan-{self.folder.name.removeprefix('ls-')}"
        self.config.write_text(
            f'[daemon]\nhost = ["{self.url}"]\nautostart = false\n\n'
            f'[runtime.oci]\ncgroup-parent = "/{self.cgroup}"\n\n'
            f'[registry-server]\nlisten = "{self.registry}"\n\n{config}'
        )
        self._net = _free_subnet()
        self._process: subprocess.Popen[bytes] | None = None
        self._traces: Traces | None = None
        self._begun: list[subprocess.Popen[str]] = []

    # -- its life -------------------------------------------------------------------------------

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The one that was started last."""
        assert self._process is not None
        return self._process

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        return self.process.pid

    @property
    def environment(self) -> dict[str, str]:
        """For commands: which daemon they talk to, and nothing of this machine's own config.

        Nor that a CI runs the tests: commands ask nothing there, and what they ask is tested.
        """
        return {
            **{name: value for name, value in os.environ.items() if name != "CI"},
            "LINKSPAN_CONFIG": str(self.config),
            "LINKSPAN_HOST": self.url,
            "DOCKER_HOST": self.url,
            "DOCKER_CONFIG": str(self.folder),
        }

    def start(self) -> "Daemon":
        """Start it and wait until it answers."""
        self.spawn()
        until("the daemon answers", self._answers)
        self._traces = Traces(self.folder, self.short_id, self.cgroup)
        return self

    def spawn(self, *before: str) -> subprocess.Popen[bytes]:
        """Start it, without waiting.

        Args:
            before: A command that starts it, as ``unshare`` does.
        """
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(*before, str(LINKSPAN), "--config", str(self.config), "daemon", "run"),
                    *(word for host in self.hosts for word in ("--host", host)),
                    *("--bip", f"{self._net}.1/24"),
                    *self.options,
                    *("--data-root", str(self.data_root), "--exec-root", str(self.exec_root)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd="/",
            )
        return self._process

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            pytest.fail(f"the daemon ended with {self._process.returncode}:\n{self.tail()}")
        try:
            return self.request("GET", "/_ping") == (200, "OK")
        except OSError:
            return False

    def kill9(self) -> None:
        """Kill it as a crash does; returns when it is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """Stop it as an operator does; its exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60)

    def forget(self) -> None:
        """It ended by itself and was never up: only its folder may be left to be removed."""
        assert self._process is not None
        assert self._process.poll() is not None
        assert mounts_below(self.folder) == []
        assert processes_of(str(self.folder)) == []
        self._process = None

    def restart(self) -> None:
        """Start it again, stopping it first if it runs."""
        if self._process is not None and self._process.poll() is None:
            self.stop()
        self.start()

    @property
    def short_id(self) -> str:
        """The eight digits in its bridge's and its table's name."""
        return (self.data_root / "id").read_text().strip()[:8]

    @property
    def repaired(self) -> list[str]:
        """What it repaired when it started."""
        return list(self.get("/linkspan/v1/daemon")["repaired"])

    def tail(self, lines: int = 30) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def complaints(self) -> list[str]:
        """Its log's messages of level error."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            if '"level": "error"' in line or not line.startswith("{"):
                found.append(line)
        return found

    # -- its commands ---------------------------------------------------------------------------

    def cli(
        self,
        *words: str | Path,
        status: int | None = 0,
        stdin: str | None = None,
        more_env: Mapping[str, str] | None = None,
    ) -> Done:
        """Run ``linkspan`` with these words; its exit status must be as stated (None: any)."""
        return self._run([str(LINKSPAN), *map(str, words)], status, stdin, more_env)

    async def cli_beside(self, *words: str | Path, status: int | None = 0) -> Done:
        """As ``cli``, while the test's own tasks go on."""
        return await trio.to_thread.run_sync(partial(self.cli, *words, status=status))

    def docker(self, *words: str | Path, status: int | None = 0, stdin: str | None = None) -> Done:
        """Run the stock ``docker`` command line; a test of what an old one cannot say is skipped."""
        return self._run(["docker", *map(str, words)], status, stdin, None)

    def _run(
        self,
        words: list[str],
        status: int | None,
        stdin: str | None,
        more_env: Mapping[str, str] | None,
    ) -> Done:
        done = subprocess.run(
            words,
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            errors="replace",
            env={**self.environment, **(more_env or {})},
            cwd=ROOT,
            timeout=120,
            check=False,
        )
        if status is not None and done.returncode != status:
            unknown = re.search(r"unknown flag: \S+|unexpected key '[^']*'", done.stderr)
            if words[0] == "docker" and unknown and client_version() < CLI_VERSION:
                pytest.skip(f"this docker CLI: {unknown[0]}")
            pytest.fail(
                f"`{' '.join(words)}` ended with {done.returncode}, not {status}\n"
                f"{done.stdout}{done.stderr}\n-- daemon's log\n{self.tail()}"
            )
        return Done(done.returncode, done.stdout, done.stderr)

    def begin(self, *words: str | Path) -> subprocess.Popen[str]:
        """Start ``linkspan`` with these words and go on; it is ended with the test at the latest."""
        process = subprocess.Popen(
            [str(LINKSPAN), *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=self.environment,
            cwd=ROOT,
        )
        self._begun.append(process)
        return process

    def json(self, *words: str) -> Any:
        """Run a command and read its JSON."""
        return json.loads(self.cli(*words, "--format", "json").out)

    # -- its API --------------------------------------------------------------------------------

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
        """One request; status and body."""
        connection = _UnixConnection(self.url.removeprefix("unix://"))
        try:
            connection.request(method, path, body=body)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        finally:
            connection.close()

    @contextmanager
    def connect(self) -> Iterator[http.client.HTTPConnection]:
        """A connection to its API, for whoever has more to say than ``request`` can."""
        connection = _UnixConnection(self.url.removeprefix("unix://"))
        try:
            yield connection
        finally:
            connection.close()

    def get(self, path: str, *, parse: bool = True) -> Any:
        """``GET`` a path; the JSON, or the text."""
        status, body = self.request("GET", path)
        assert status == 200, f"{path}: {status} {body}"
        return json.loads(body) if parse else body

    @contextmanager
    def stream(
        self, method: str, path: str, *, body: bytes | None = None
    ) -> Iterator[Iterator[dict[str, Any]]]:
        """Send a request and read the answer's JSON lines; they end when the daemon does."""
        connection = _UnixConnection(self.url.removeprefix("unix://"))
        try:
            kind = {"Content-Type": "application/x-tar"} if body else {}
            connection.request(method, path, body=body, headers=kind)
            answer = connection.getresponse()
            assert answer.status == 200, f"{path}: {answer.status} {answer.read()!r}"
            yield _json_lines(answer)
        finally:
            connection.close()

    def containers(self) -> list[dict[str, Any]]:
        """All containers, as ``GET /containers/json?all=1`` shows them."""
        found: list[dict[str, Any]] = self.get("/containers/json?all=1")
        return found

    def state(self, container: str) -> dict[str, Any]:
        """``State`` of one container."""
        found: dict[str, Any] = self.get(f"/containers/{container}/json")["State"]
        return found

    def images(self) -> set[str]:
        """Tags of all images; an image without one is shown by its id."""
        found: set[str] = set()
        for image in self.get("/images/json?all=1"):
            found.update(image["RepoTags"] or [image["Id"]])
        return found

    def volumes(self) -> set[str]:
        """Names of all volumes."""
        return {volume["Name"] for volume in self.get("/volumes")["Volumes"] or ()}

    # -- images ---------------------------------------------------------------------------------

    def write_context(self, dockerfile: str, **files: str | bytes) -> Path:
        """A build context of a Dockerfile and files; ``busybox`` is always there."""
        context = Path(tempfile.mkdtemp(prefix="ctx-", dir=self.folder))
        shutil.copyfile("/bin/busybox", context / "busybox")
        (context / "Dockerfile").write_text(dockerfile)
        for name, content in files.items():
            data = content if isinstance(content, bytes) else content.encode()
            (context / name).write_bytes(data)
        return context

    def build_busybox(self, tag: str = "busybox") -> str:
        """Build the image that most tests use, out of one program."""
        self.cli("build", "-t", tag, self.write_context(BUSYBOX))
        return tag

    # -- the end --------------------------------------------------------------------------------

    def clean(self) -> None:
        """Remove every service, container, volume and network of a test; images stay."""
        for process in self._begun:
            process.kill()
            process.communicate()
        self._begun.clear()
        swarm = self.request("GET", "/swarm")[0] == 200
        for service in self.get("/services") if swarm else ():
            self.request("DELETE", f"/services/{service['ID']}")
        for container in self.containers():
            self.request("DELETE", f"/containers/{container['Id']}?force=1&v=1")
        if swarm:
            self.request("POST", "/swarm/leave?force=1")
        until("containers go", lambda: not self.containers())
        traces = self._traces
        assert traces is not None
        until("nothing of containers is left", lambda: _nothing(traces.of_containers()))
        for name in self.volumes():
            self.request("DELETE", f"/volumes/{name}?force=1")
        for network in self.get("/networks"):
            if network["Name"] not in ("bridge", "host", "none"):
                self.request("DELETE", f"/networks/{network['Id']}")

    def close(self) -> None:
        """Remove all containers, stop it, and fail if anything is left on the machine."""
        try:
            if self._process is None:
                return
            if self._process.poll() is not None:
                self.start()
            self.clean()
            assert self.stop() == 0, self.tail()
            assert self._traces is not None
            left = self._traces.left()
            assert not left, "left behind:\n" + "\n".join(left)
        finally:
            self._sweep()

    def _sweep(self) -> None:
        """Whatever a failed test has left: away with it, so that the next test starts clean."""
        if self._process is not None and self._process.poll() is None:
            self.kill9()
        if self._traces is not None:
            self._traces.sweep()
        self._process = None
        remove_empty_groups(self.cgroup)
        shutil.rmtree(self.folder, ignore_errors=True)


BUSYBOX = """\
FROM scratch
COPY --chmod=0755 busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENV PATH=/bin
RUN mkdir -p /etc /tmp /root && echo root:x:0:0:root:/root:/bin/sh > /etc/passwd \\
 && echo app:x:1000:1001:app:/tmp:/bin/sh >> /etc/passwd \\
 && echo root:x:0: > /etc/group && echo app:x:1001: >> /etc/group
CMD ["sh"]
"""


def connection_to(path: str) -> http.client.HTTPConnection:
    """A connection to a daemon's socket."""
    return _UnixConnection(path)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _json_lines(answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    while True:
        try:
            line = answer.readline()
        except (http.client.HTTPException, OSError):
            return
        if not line.endswith(b"\n"):
            return
        if line.strip():
            yield json.loads(line)


def _nothing(found: list[str]) -> bool:
    return not found


def _free_subnet() -> str:
    """Three bytes of a /24 that no device of the machine has; random, since tests run side by side."""
    addresses = subprocess.run(
        ["ip", "-4", "-o", "addr"], capture_output=True, text=True, check=True
    )
    routes = subprocess.run(["ip", "-4", "route"], capture_output=True, text=True, check=True)
    taken = set(re.findall(r"\b(\d+\.\d+\.\d+)\.\d+", addresses.stdout + routes.stdout))
    while True:
        a, b = os.urandom(2)
        if (net := f"10.{a}.{b}") not in taken:
            return net
