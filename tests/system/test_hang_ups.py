"""Clients that hang up in the middle: the daemon lets go of everything that it held for them.

What is held is counted from outside, before and after. Each moment is recognised by what the daemon has
said, or by its having read all that was sent.
"""

import base64
import contextlib
import fcntl
import io
import json
import os
import socket
import struct
import subprocess
import tarfile
import termios
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import attrs
import pytest
import trio
from daemon_harness.daemon import PATIENCE_S, Daemon, until
from daemon_harness.leftovers import children_of, command_line, processes_of
from daemon_harness.scripted import Answer, Question, picture, scripted_registry, sha256, tar_of

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

ROUNDS = 3
GONE_WITHIN_S = 60.0
"""How long the daemon may take to let go on a busy machine; some of it waits for registries."""

TALK = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.2; done"
TAR = "Content-Type: application/x-tar"
UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp"
TO_HTTP2 = "Connection: Upgrade\r\nUpgrade: h2c"


# -- what is held ---------------------------------------------------------------------------------


Held = dict[str, list[str]]


def held(daemon: Daemon) -> Held:
    """All that is held for clients, by its kind."""
    # ``half`` is the container's own: what was unpacked of an archive that broke off stays, as in Docker.
    # Namespaces are kept ready for the next containers, and made beside all else; one in use has a sandbox, too.
    files = [
        str(Path(where, name).relative_to(daemon.folder))
        for root in _roots(daemon)
        for where, _, names in os.walk(root)
        for name in names
        if name != "half" and Path(where).name != "netns"
    ]
    processes = {
        pid: words or command_line(pid)
        for pid, words in [
            *processes_of(str(daemon.folder)),
            *((child, "") for child in children_of(daemon.pid)),
        ]
    }
    return {
        "descriptors": _descriptors(daemon.pid),
        "processes": [f"{pid} {words}" for pid, words in processes.items()],
        "mounts": _mounts(daemon),
        "namespaces": _namespaces(processes),
        "firewall lines": _table(daemon).splitlines(),
        "files": files,
    }


def _roots(daemon: Daemon) -> tuple[Path, Path]:
    return daemon.data_root, daemon.exec_root


def _descriptors(pid: int) -> list[str]:
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(entry.readlink()))
    return found


def _mounts(daemon: Daemon) -> list[str]:
    seen = (
        Path(f"/proc/{daemon.pid}/mountinfo").read_text() + Path("/proc/self/mountinfo").read_text()
    )
    return [line for line in seen.splitlines() if f"{daemon.folder}/" in line]


def _namespaces(processes: Iterable[int]) -> list[str]:
    """Namespaces that the daemon's processes live in."""
    found = set()
    for pid in processes:
        for name in ("mnt", "net", "pid", "ipc", "uts", "user"):
            with contextlib.suppress(OSError):
                found.add(str(Path(f"/proc/{pid}/ns/{name}").readlink()))
    return list(found)


def _table(daemon: Daemon) -> str:
    listed = subprocess.run(
        ["nft", "list", "ruleset"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    tables = ("table" + text for text in ("\n" + listed).split("\ntable")[1:])
    return "".join(text for text in tables if daemon.short_id in text.partition("{")[0])


def more(before: Held, now: Held) -> str:
    """Kinds of which there is more, and what is new of them."""
    lines = []
    for kind, then in before.items():
        if len(now[kind]) > len(then):
            new = Counter(now[kind]) - Counter(then)
            lines.append(
                f"{kind}: {len(then)}, now {len(now[kind])}; new: {sorted(new.elements())}"
            )
    return "\n".join(lines)


# -- clients that hang up -------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Request:
    """A request that is broken off.

    Attributes:
        seen: Bytes of the answer; the client hangs up when it has them. Without, it does so when the
            daemon has read what was sent.
        body: What is sent of the body.
        also: What must be so, too, before the client hangs up.
        length: What the head says of its length; more than there is: the body is broken off.
        behind: What is sent when the head of the answer has come.
    """

    method: str
    path: str
    seen: bytes = b""
    headers: str = "X-Test: 1"
    body: bytes = b""
    length: int | None = None
    behind: bytes = b""
    also: Callable[[], bool] = lambda: True

    def hang_up(self, daemon: Daemon) -> None:
        """Send it, wait for the moment, and go."""
        length = len(self.body) if self.length is None else self.length
        head = (
            f"{self.method} {self.path} HTTP/1.1\r\nHost: d\r\n{self.headers}\r\n"
            f"Content-Length: {length}\r\n\r\n"
        )
        with closing(socket.socket(socket.AF_UNIX)) as client:
            client.settimeout(PATIENCE_S)
            client.connect(daemon.url.removeprefix("unix://"))
            client.sendall(head.encode() + self.body)
            if self.behind:
                self._await(client, b"\r\n\r\n")
                client.sendall(self.behind)
            if self.seen:
                self._await(client, self.seen)
            else:
                until("all of it is read", lambda: not _unread(client))
            until("the moment has come", self.also)

    def _await(self, client: socket.socket, seen: bytes) -> None:
        said = b""
        while seen not in said:
            data = client.recv(65536)
            assert data, f"{self.path}: it ended with {said[-500:]!r}"
            said += data


def _unread(sock: socket.socket) -> int:
    packed = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4)
    return int(struct.unpack("i", packed)[0])


def context(dockerfile: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(dockerfile)
        tar.addfile(entry, io.BytesIO(dockerfile.encode()))
    return packed.getvalue()


def half_a_file() -> bytes:
    """The beginning of an archive: a file of 8 MiB, of which one is there."""
    entry = tarfile.TarInfo("half")
    entry.size = 8 << 20
    return entry.tobuf() + bytes(1 << 20)


def of_a_build(_: Daemon) -> Request:
    body = context("FROM busybox\nRUN echo begun; sleep 600\n")
    path = "/build?t=half&nocache=1&forcerm=1"
    return Request(method="POST", path=path, headers=TAR, body=body, seen=b"begun\\n")


def of_a_build_s_context(_: Daemon) -> Request:
    body = half_a_file()
    return Request(method="POST", path="/build?t=half", headers=TAR, body=body, length=9 << 20)


def of_an_attach(_: Daemon) -> Request:
    path = "/containers/talker/attach?stream=1&stdout=1"
    return Request(method="POST", path=path, headers=UPGRADE, seen=b"line ")


def of_an_exec(daemon: Daemon) -> Request:
    # The process goes on without its client, as in Docker, and ends by itself.
    script = "echo begun; read none; while ! test -e /gone; do sleep 0.1; done"
    spec = {
        "Cmd": ["sh", "-c", script],
        "AttachStdin": True,
        "AttachStdout": True,
    }
    made = daemon_post(daemon, "/containers/talker/exec", spec)
    return Request(
        method="POST",
        path=f"/exec/{made['Id']}/start",
        headers=f"{UPGRADE}\r\nContent-Type: application/json",
        body=b"{}",
        seen=b"begun",
    )


def daemon_post(daemon: Daemon, path: str, document: object) -> dict[str, str]:
    with daemon.connect() as connection:
        kind = {"Content-Type": "application/json"}
        connection.request("POST", path, body=json.dumps(document), headers=kind)
        answer = connection.getresponse()
        said = answer.read()
        assert answer.status < 300, said
        made: dict[str, str] = json.loads(said)
        return made


def of_a_log(_: Daemon) -> Request:
    path = "/containers/talker/logs?follow=1&stdout=1"
    return Request(method="GET", path=path, seen=b"line ")


def of_the_log_of_a_service(_: Daemon) -> Request:
    path = "/services/speaker/logs?follow=1&stdout=1"
    return Request(method="GET", path=path, seen=b"line ")


def of_events(_: Daemon) -> Request:
    return Request(method="GET", path="/events?since=1", seen=b'"Action"')


def of_stats(_: Daemon) -> Request:
    return Request(method="GET", path="/containers/talker/stats", seen=b'"cpu_stats"')


def of_a_wait(_: Daemon) -> Request:
    return Request(method="POST", path="/containers/talker/wait", seen=b"200 OK")


def of_a_load(_: Daemon) -> Request:
    body = half_a_file()
    return Request(method="POST", path="/images/load", headers=TAR, body=body, length=9 << 20)


def of_a_save(_: Daemon) -> Request:
    return Request(method="GET", path="/images/busybox/get", seen=b"200 OK")


def of_an_export(_: Daemon) -> Request:
    return Request(method="GET", path="/containers/talker/export", seen=b"200 OK")


def of_files_out(_: Daemon) -> Request:
    return Request(method="GET", path="/containers/talker/archive?path=/bin", seen=b"200 OK")


def of_files_in(_: Daemon) -> Request:
    return Request(
        method="PUT",
        path="/containers/talker/archive?path=/tmp",
        headers=TAR,
        body=half_a_file(),
        length=9 << 20,
    )


def of_a_session(_: Daemon) -> Request:
    expose = "\r\nX-Docker-Expose-Session-"
    headers = f"{TO_HTTP2}{expose}Uuid: {os.urandom(8).hex()}{expose}Name: n{expose}Sharedkey: k"
    return Request(method="POST", path="/session", headers=headers, seen=b"PRI * HTTP/2.0")


def of_a_builders_calls(_: Daemon) -> Request:
    """A client of BuildKit's that has just been greeted."""
    greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
    acknowledged = bytes((0, 0, 0, 4, 1, 0, 0, 0, 0))
    return Request(
        method="POST", path="/grpc", headers=TO_HTTP2, behind=greeting, seen=acknowledged
    )


MOMENTS: tuple[Callable[[Daemon], Request], ...] = (
    of_a_build,
    of_a_build_s_context,
    of_an_attach,
    of_an_exec,
    of_a_log,
    of_the_log_of_a_service,
    of_events,
    of_stats,
    of_a_wait,
    of_a_load,
    of_a_save,
    of_an_export,
    of_files_out,
    of_files_in,
    of_a_session,
    of_a_builders_calls,
)


@pytest.fixture(scope="module")
def talking(shared_daemon: Daemon) -> Daemon:
    """The module's daemon with a container ``talker`` and a service ``speaker`` that talk."""
    shared_daemon.cli("run", "-d", "--name", "talker", "busybox", "sh", "-c", TALK)
    shared_daemon.cli("swarm", "init")
    shared_daemon.cli("service", "create", "--name", "speaker", "busybox", "sh", "-c", TALK)
    said = "/services/speaker/logs?stdout=1"
    until("both talk", lambda: "line 1" in shared_daemon.get(said, parse=False))
    return shared_daemon


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.__name__)
def test_nothing_is_held_for_a_client_that_hung_up_in_the_middle(
    talking: Daemon, moment: Callable[[Daemon], Request]
) -> None:
    check(talking, moment)


def check(daemon: Daemon, moment: Callable[[Daemon], Request]) -> None:
    """Hang up once, so that all that is made once has been made; then count."""
    hang_up(daemon, moment, 1)
    before = held(daemon)
    hang_up(daemon, moment, ROUNDS)
    end = time.monotonic() + GONE_WITHIN_S
    while found := more(before, held(daemon)):
        if time.monotonic() > end:
            pytest.fail(f"more is held after {GONE_WITHIN_S:g} s\n{found}\n{daemon.tail()}")
        time.sleep(0.05)
    assert daemon.state("talker")["Running"]
    assert not daemon.complaints()


def hang_up(daemon: Daemon, moment: Callable[[Daemon], Request], times: int) -> None:
    """Hang up and wait until what goes on by itself has been let go."""
    for _ in range(times):
        moment(daemon).hang_up(daemon)
    if moment is of_an_exec:
        daemon.cli("exec", "talker", "touch", "/gone")
        until(
            "the execs end",
            lambda: len(daemon.get("/containers/talker/json")["ExecIDs"] or ()) == 0,
        )
        daemon.cli("exec", "talker", "rm", "/gone")
    if moment is of_a_build:
        until("no step runs", lambda: not _sleepers(daemon))


def _sleepers(daemon: Daemon) -> list[str]:
    return [c["Id"] for c in daemon.containers() if "600" in c["Command"]]


@pytest.mark.parametrize("direction", ["pull", "push"])
async def test_nothing_is_held_for_a_client_that_hung_up_in_a_transfer(
    talking: Daemon, direction: str
) -> None:
    image = picture(tar_of(("layer", os.urandom(4 << 20))))
    half = len(image.layers[0]) // 2

    def stall(question: Question) -> Answer | None:
        if sha256(image.layers[0]) in question.path:
            return Answer(body=image.layers[0], stall_after=half)
        if question.method == "POST":
            return Answer(status=202, body=b"begun", stall_after=0)
        return Answer(status=404) if "/pushed/" in question.path else None

    # Connections that may be kept are: how many depends on how many were needed at once.
    async with scripted_registry(image, stall, keep_alive=False) as registry:

        def pull(_: Daemon) -> Request:
            path = f"/images/create?fromImage={registry.address}/pulled&tag=1"
            return Request(method="POST", path=path, seen=b'"Downloading"')

        def push(daemon: Daemon) -> Request:
            name = f"{registry.address}/pushed"
            assert daemon.request("POST", f"/images/busybox/tag?repo={name}&tag=1")[0] == 201
            registry.asked.clear()
            return Request(
                method="POST",
                path=f"/images/{name}/push?tag=1",
                headers=f"X-Registry-Auth: {base64.urlsafe_b64encode(b'{}').decode()}",
                seen=b'"Preparing"',
                also=lambda: any(question.method == "POST" for question in registry.asked),
            )

        await trio.to_thread.run_sync(check, talking, pull if direction == "pull" else push)
    talking.request("DELETE", f"/images/{registry.address}/pushed:1")
