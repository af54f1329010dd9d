"""Starts conmon, which holds a container's process, its log, its streams and its exit status."""

import contextlib
import os
import select
import signal
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Final

import attrs
import orjson
import trio

from linkspan.sdk.errors import Internal

_ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "TZ": "UTC",  # the log's times are fixed in width and compare as text
    "LC_ALL": "C",
}


@attrs.frozen(kw_only=True)
class ConmonCommand:
    """What one conmon is to do.

    Attributes:
        prefix: Words before the command line, or nothing.
        runtime_args: Options of the runtime that come before its verb.
        log: ``k8s-file:PATH`` or ``none``.
        bundle: Its folder; also conmon's working directory, where it puts a file ``oom``.
    """

    conmon: str
    prefix: tuple[str, ...]
    runtime: str
    runtime_args: tuple[str, ...]
    container_id: str
    name: str
    bundle: Path
    exit_folder: Path
    log: str
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False

    def argv(self) -> list[str]:
        """The command line (conmon(8))."""
        # --sync: one fork less, so conmon is our child. --no-sync-log: no fsync of the log at the end.
        words = [
            *self.prefix,
            self.conmon,
            *("--api-version", "1", "--sync", "--no-sync-log", "--full-attach"),
            *("--log-level", "error"),
            *("--cid", self.container_id, "--cuuid", self.container_id, "--name", self.name),
            *("--runtime", self.runtime, "--bundle", str(self.bundle)),
            *("--container-pidfile", str(self.bundle / "pid")),
            *("--exit-dir", str(self.exit_folder), "--log-path", self.log),
            *(f"--runtime-arg={word}" for word in self.runtime_args),
        ]
        if self.tty:
            words.append("--terminal")
        if self.stdin:
            words.append("--stdin")
            # A terminal stays open when its first user has left (Docker: StdinOnce counts without one).
            if self.tty or not self.stdin_once:
                words.append("--leave-stdin-open")
        return words


class CreateFailed(Exception):
    """The runtime made no container; the text is what it said."""


@attrs.frozen(kw_only=True)
class Held:
    """A container that conmon holds now."""

    conmon_pid: int
    conmon_pidfd: int
    pid: int


async def start_conmon(command: ConmonCommand) -> Held:
    """Start conmon and wait until the runtime has made the container.

    Raises:
        CreateFailed: The runtime refused.
        Internal: conmon cannot be started or ended without a word.
    If cancelled: conmon is ended; the caller removes what the runtime may have made.
    """
    reader, writer = os.pipe()
    try:
        try:
            process = _spawn(command, writer)
        finally:
            os.close(writer)
        pidfd = os.pidfd_open(process)
        try:
            pid = await _created_pid(reader)
        except BaseException:
            with trio.CancelScope(shield=True):
                await _end(pidfd)
            raise
    finally:
        os.close(reader)
    return Held(conmon_pid=process, conmon_pidfd=pidfd, pid=pid)


def _spawn(command: ConmonCommand, sync_pipe: int) -> int:
    try:
        # vfork inside, about 0.6 ms. posix_spawn would do as well, but cannot set the working directory.
        process = subprocess.Popen(
            command.argv(),
            env={**_ENVIRONMENT, "_OCI_SYNCPIPE": str(sync_pipe)},
            pass_fds=(sync_pipe,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=command.bundle,
            start_new_session=True,
        )
    except OSError as exc:
        raise Internal(f"cannot start {command.conmon}: {exc}", code="conmon_failed") from exc
    process.returncode = 0  # it is reaped through its pidfd; subprocess must not wait for it
    return process.pid


async def _created_pid(reader: int) -> int:
    """Read conmon's answer: ``{"data": PID}``, or a negative number with the runtime's message."""
    os.set_blocking(reader, False)
    answer = b""
    while b"\n" not in answer:
        await trio.lowlevel.wait_readable(reader)
        data = os.read(reader, 1 << 16)
        if not data:
            raise Internal("conmon ended without an answer", code="conmon_failed")
        answer += data
    message = orjson.loads(answer.partition(b"\n")[0])
    if message["data"] <= 0:
        raise CreateFailed(message.get("message", ""))
    pid: int = message["data"]
    return pid


async def _end(pidfd: int) -> None:
    """Ask conmon to end (it ends the runtime, too), insist after a while, and reap it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, number)
        with trio.move_on_after(2):
            await trio.lowlevel.wait_readable(pidfd)
            break
    reap(pidfd)


def reap(pidfd: int) -> None:
    """Collect an ended child and close its pidfd; silent for processes that are not our children."""
    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        pass
    finally:
        os.close(pidfd)


def start_time(pid: int) -> int:
    """When a process began, in ticks since boot (proc(5), stat field 22); 0 if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[19])


def open_running(pid: int, started: int) -> int | None:
    """A pidfd of a process of an earlier daemon; None if it ended (its pid may be another's now)."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    # Readable: it has ended, and only its new parent has not asked yet.
    ended = bool(select.select([pidfd], [], [], 0)[0])
    if ended or start_time(pid) != started or not started:
        os.close(pidfd)
        return None
    return pidfd


def makers(bundles: Path) -> dict[str, list[int]]:
    """Pids of conmons, and of runtimes in the middle of a create, by the container that they name."""
    found: dict[str, list[int]] = {}
    prefix = os.fsencode(bundles) + b"/"
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        for option, value in pairwise(words):
            if option == b"--bundle" and value.startswith(prefix):
                name = os.fsdecode(value.removeprefix(prefix))
                found.setdefault(name, []).append(int(process.name))
    return found


def read_exit(file: Path) -> tuple[int, int] | None:
    """Exit code and time of its writing in nanoseconds; None if conmon wrote none."""
    try:
        text = file.read_text()
        written = file.stat().st_mtime_ns
    except FileNotFoundError:
        return None
    try:
        return int(text), written
    except ValueError:
        return None


def resize_command(height: int, width: int) -> bytes:
    """A line for conmon's ``ctl`` pipe: 1 means a new window size."""
    return b"1 %d %d\n" % (height, width)
