"""The place where engines are measured: one private mount and network namespace on a disk of its own.

Everything in it ends with the process that made it, save the disk's file, which keeps the images.
"""

import contextlib
import ctypes
import fcntl
import http.client
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWNET: Final = 0x40000000
_DISK_BYTES: Final = 30 << 30
_START_TIMEOUT_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 30.0
# Every program gets the same small environment.
ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}


class Broken(Exception):
    """The place, or an engine in it, does not work."""


def unshare_mounts() -> None:
    """Give this process mounts of its own."""
    _unshare(_CLONE_NEWNS)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def unshare_network() -> None:
    """Give this process a network of its own, with loopback."""
    _unshare(_CLONE_NEWNET)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _unshare(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags):
        code = ctypes.get_errno()
        raise OSError(code, f"unshare: {os.strerror(code)}")


def mount_disk(folder: Path, size: int = _DISK_BYTES) -> None:
    """Mount a journaled ext4 file system of its own at a folder.

    Without a journal, ext4 scans the inodes that were deleted in the last minutes whenever a file is made.
    "Remove the image, pull it again" would measure that scan, and no engine.
    """
    folder.mkdir(parents=True, exist_ok=True)
    image = folder.with_suffix(".img")
    if not image.exists():
        with image.open("wb") as stream:
            stream.truncate(size)
        subprocess.run(
            ["mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0", str(image)], check=True
        )
    lock = os.open(image, os.O_RDONLY)  # held until this process ends
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Broken(f"{image} is used by another run") from None
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)


def wait_until(ready: Callable[[], bool], timeout_s: float, every_s: float = 0.005) -> None:
    """Poll until something holds; ``Broken`` if it does not in time."""
    end = time.perf_counter() + timeout_s
    while not ready():
        if time.perf_counter() > end:
            raise Broken(f"not so within {timeout_s:g} s")
        time.sleep(every_s)


@dataclass
class Server:
    """A process that runs until it is told to end."""

    name: str
    command: Sequence[str]
    log: Path
    ready: Callable[[], bool]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it; return the seconds until it answers."""
        if not self.command:
            return 0.0
        began = time.perf_counter()
        with self.log.open("ab") as stream:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=ENVIRONMENT,
            )
        while not self.ready():
            if self.process.poll() is not None or time.perf_counter() - began > _START_TIMEOUT_S:
                raise Broken(f"{self.name} did not start; see {self.log}")
            time.sleep(0.002)
        return time.perf_counter() - began

    def stop(self) -> None:
        """End it and wait until it has."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None


@dataclass
class Registry:
    """Debian's docker-registry on loopback, over plain HTTP."""

    port: int
    folder: Path
    server: Server = field(init=False)

    def __post_init__(self) -> None:
        config = self.folder.with_suffix(".yml")
        config.write_text(
            "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
            f"storage: {{filesystem: {{rootdirectory: {self.folder}}}}}\n"
            f"http: {{addr: '127.0.0.1:{self.port}'}}\n"
        )
        self.server = Server(
            "docker-registry",
            ["docker-registry", "serve", str(config)],
            self.folder.with_suffix(".log"),
            self._answers,
        )

    @property
    def host(self) -> str:
        """As references name it."""
        return f"127.0.0.1:{self.port}"

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("GET", "/v2/")
            return connection.getresponse().status == 200
        return False

    def wipe(self) -> None:
        """Begin anew with nothing in it."""
        self.server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.server.start()


def _mount_memory(folder: Path) -> Path:
    """Mount a file system in memory, as ``/run`` is, where an engine keeps what ends with the machine."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=711", "bench", str(folder)], check=True)
    return folder


@dataclass
class Engine:
    """A daemon and how to talk to it.

    Attributes:
        folder: Its state; its path is in the command line of each of its helpers.
        command: Of its daemon; empty if it has none.
        build: The command up to and including ``build``, and what it adds to the environment.
        own_cli: Its client, where that is not docker's.
        more: What its environment has beyond the others'.
    """

    name: str
    folder: Path
    command: Sequence[str]
    build: tuple[Sequence[str], dict[str, str]]
    own_cli: Sequence[str] = ()
    more: dict[str, str] = field(default_factory=dict)
    server: Server = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.server = Server(
            self.name, self.command, self.folder.with_suffix(".log"), self._answers
        )

    @property
    def socket(self) -> Path:
        """Where its API is."""
        return self.folder.with_suffix(".sock")

    @property
    def host(self) -> str:
        """As DOCKER_HOST names it."""
        return f"unix://{self.socket}"

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as stream, contextlib.suppress(OSError):
            stream.settimeout(5)
            stream.connect(str(self.socket))
            stream.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
            return stream.recv(64).startswith(b"HTTP/1.1 200")
        return False

    @property
    def cli(self) -> list[str]:
        """The client with what it needs to reach this engine."""
        return list(self.own_cli or ("docker", "-H", self.host))

    @property
    def environment(self) -> dict[str, str]:
        """Of its client."""
        return {**ENVIRONMENT, **self.more}

    def docker(self, *words: object, check: bool = True) -> float:
        """Run a command of docker's CLI (of Podman's for Podman); return its seconds from start to end."""
        return self.run([*self.cli, *map(str, words)], check=check)

    def run(
        self, argv: Sequence[str], *, check: bool = True, more: dict[str, str] | None = None
    ) -> float:
        """Run a command and throw its output away; return its seconds from start to end."""
        began = time.perf_counter()
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**self.environment, **(more or {})},
            check=False,
        )
        took_s = time.perf_counter() - began
        if check and done.returncode:
            words = done.stderr.decode(errors="replace")[-500:]
            raise Broken(f"{self.name}: `{' '.join(argv)}` ended with {done.returncode}: {words}")
        return took_s

    def remove(self, *names: str, check: bool = False) -> float:
        """``rm -f``; Podman would give the processes ten seconds to end, where Docker kills."""
        at_once = ("-t", "0") if self.name == "podman" else ()
        return self.docker("rm", "-f", *at_once, *names, check=check)

    def ask(self, *words: object) -> str:
        """Run a command as ``docker`` does; return what it prints."""
        done = subprocess.run(
            [*self.cli, *map(str, words)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=self.environment,
            check=False,
        )
        if done.returncode:
            raise Broken(f"{self.name}: {words[0]}: {done.stderr.decode()[-500:]}")
        return done.stdout.decode().strip()


LINKSPAN: Final = str(Path(sys.executable).with_name("linkspan"))


def linkspan(folder: Path, program: str = LINKSPAN, bridge: str = "172.31.250.1/24") -> Engine:
    """Linkspan's daemon with everything of its own; a program of another clone, if one is named."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    config = folder.with_suffix(".toml")
    config.write_text("")
    host = f"unix://{folder.with_suffix('.sock')}"
    command = [program, "--config", str(config), "daemon", "run", "--host", host]
    exec_root = _mount_memory(Path(f"{folder}-run"))
    command += ["--data-root", str(folder), "--exec-root", str(exec_root)]
    command += ["--bip", bridge]
    build = [program, "--config", str(config), "--host", host, "build"]
    return Engine("linkspan", folder, command, (build, {}))


def docker(folder: Path) -> Engine:
    """Debian's dockerd with everything of its own; it starts its own containerd."""
    exec_root = _mount_memory(Path(f"{folder}-run"))
    command = ["/usr/sbin/dockerd", "--data-root", str(folder), "--exec-root", str(exec_root)]
    command += ["-p", str(folder.with_suffix(".pid")), "--bip", "172.31.251.1/24"]
    host = f"unix://{folder.with_suffix('.sock')}"
    command += ["-H", host]
    # Debian's own client drives BuildKit without the buildx plugin; newer clients need it.
    build = ["/usr/bin/docker", "-H", host, "build"]
    return Engine("docker", folder, command, (build, {"DOCKER_BUILDKIT": "1"}))


def podman(folder: Path) -> Engine:
    """Podman, which has no daemon, with storage, networks and state of its own."""
    run_root = _mount_memory(folder / "run")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = {
        "containers.conf": (
            f'[containers]\ndefault_ulimits = ["nofile={limit}:{limit}", "nproc=30000:30000"]\n'
            f'[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\ntmp_dir = "{folder}/tmp"\n'
            f'image_copy_tmp_dir = "{folder}"\n[network]\nnetwork_config_dir = "{folder}/net"\n'
        ),
        "storage.conf": (
            f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/root"\nrunroot = "{run_root}"\n'
        ),
        "registries.conf": "".join(
            f'[[registry]]\nlocation = "127.0.0.1:{port}"\ninsecure = true\n'
            for port in (5000, 5001)
        ),
        "policy.json": '{"default": [{"type": "insecureAcceptAnything"}]}',
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    more = {
        "CONTAINERS_CONF": f"{folder}/containers.conf",
        "CONTAINERS_STORAGE_CONF": f"{folder}/storage.conf",
        "CONTAINERS_REGISTRIES_CONF": f"{folder}/registries.conf",
    }
    cli = ["podman"]
    policy = Path("/etc/containers/policy.json")
    if not policy.exists():
        policy.parent.mkdir(parents=True, exist_ok=True)
        policy.write_text(files["policy.json"])
    build = (["podman", "build", "--layers"], {})
    return Engine("podman", folder, [], build, cli, more)
