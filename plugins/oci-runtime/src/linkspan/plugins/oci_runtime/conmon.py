"""Starts conmon, which holds a container's process, its log, its streams and its exit status."""

import contextlib
import os
import select
import signal
from itertools import pairwise
from pathlib import Path
from typing import Final

import orjson
import trio

from linkspan.sdk.errors import Internal
from linkspan.sdk.files import read_kernel_file
from linkspan.sdk.spawning import spawn
from linkspan.sdk.values import frozen

_ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "TZ": "UTC",  # the log's times are fixed in width and compare as text
    "LC_ALL": "C",
}


@frozen(kw_only=True)
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


@frozen(kw_only=True)
class Held:
    """A container that conmon holds now."""

    conmon_pid: int
    conmon_pidfd: int
    conmon_started: int
    pid: int


class Making:
    """A conmon whose runtime makes a container. To be used once: ``made``."""

    def __init__(self, conmon: int, pidfd: int, reader: int) -> None:
        self._conmon = conmon
        self._started = start_time(conmon)
        self._pidfd = pidfd
        self._reader = reader

    async def made(self) -> Held:
        """Wait until the container is made.

        Raises:
            CreateFailed: The runtime refused.
            Internal: conmon ended without a word.
        If failed or cancelled: conmon is ended; the caller removes what the runtime may have made.
        """
        try:
            pid = await _created_pid(self._reader)
        except BaseException:
            with trio.CancelScope(shield=True):
                await _end(self._pidfd)
            raise
        finally:
            os.close(self._reader)
        return Held(
            conmon_pid=self._conmon,
            conmon_pidfd=self._pidfd,
            conmon_started=self._started,
            pid=pid,
        )


def start_conmon(command: ConmonCommand) -> Making:
    """Start conmon, which starts the runtime. Blocks until it is loaded.

    Raises:
        Internal: It cannot be started.
    """
    reader, writer = os.pipe()
    try:
        pid = _spawn(command, writer)
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    return Making(pid, os.pidfd_open(pid), reader)


def _spawn(command: ConmonCommand, sync_pipe: int) -> int:
    argv = command.argv()
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        return spawn(
            argv,
            environment={**_ENVIRONMENT, "_OCI_SYNCPIPE": "3"},
            cwd=str(command.bundle),
            descriptors=(null, null, null, sync_pipe),
        )
    except OSError as exc:
        raise Internal(f"cannot start {argv[0]}: {exc}", code="conmon_failed") from exc
    finally:
        os.close(null)


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
        text = read_kernel_file(f"/proc/{pid}/stat")
    except OSError:
        return 0
    return int(text.rpartition(b")")[2].split()[19])


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
    for pid in filter(str.isdecimal, os.listdir("/proc")):  # noqa: PTH208 - all processes, at each start
        words = _words_of(pid)
        if prefix not in words:
            continue
        for option, value in pairwise(words.split(b"\0")):
            if option == b"--bundle" and value.startswith(prefix):
                name = os.fsdecode(value.removeprefix(prefix))
                found.setdefault(name, []).append(int(pid))
    return found


def _words_of(pid: str) -> bytes:
    """The command line of a process; nothing if it has ended."""
    try:
        return read_kernel_file(f"/proc/{pid}/cmdline")
    except OSError:
        return b""


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
