"""Further processes in a container: ``RUNTIME exec`` as a child of the daemon, without conmon.

Output comes through pipes, or through a terminal whose master the runtime hands over (``--console-socket``).
runc hands it over only to callers that do not wait; it gets a terminal of ours instead and relays.
Without a terminal, the runtime is started before it is known what it is to run (``begin``): it reads that
from a pipe, late enough for most of its own work to be done by then.
A session ends with the daemon; the process's pid is in a file, so that the next daemon can end what is left.
"""

import contextlib
import fcntl
import os
import secrets
import signal
import socket
import struct
import termios
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import orjson
import trio

from linkspan.plugins.oci_runtime import refusal
from linkspan.plugins.oci_runtime.conmon import reap
from linkspan.sdk.drivers.runtime import ExecProcess
from linkspan.sdk.errors import Internal, LinkspanError
from linkspan.sdk.files import write_file
from linkspan.sdk.model.process import Chunk, StreamKind
from linkspan.sdk.spawning import spawn
from linkspan.sdk.values import frozen

_PIPE_BYTES: Final = 1 << 20
_F_SETPIPE_SZ: Final = 1031
_PID_TIMEOUT_S: Final = 1.0
_LOG_TIMEOUT_S: Final = 0.5
_START_TIMEOUT_S: Final = 10.0
_PID_POLL_S: Final = 0.005
_ADJUSTMENT: Final = "oomScoreAdj"
_ENVIRONMENT: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


@frozen(kw_only=True)
class ExecCommand:
    """What to run.

    Attributes:
        runtime: Words up to the runtime's own options.
        folder: Where the session's files go.
        is_crun: crun takes ``--console-socket`` and still waits, and complains on stderr.
    """

    runtime: tuple[str, ...]
    container_id: str
    folder: Path
    tty: bool
    stdin: bool
    is_crun: bool
    console_size: tuple[int, int] = (0, 0)


@frozen(kw_only=True)
class _Files:
    process: Path
    pid: Path
    log: Path

    def remove(self) -> None:
        for path in (self.process, self.pid, self.log):
            path.unlink(missing_ok=True)


class ExecSession(ExecProcess):
    """A running session; see the module."""

    def __init__(
        self,
        *,
        pidfd: int,
        files: _Files,
        stdin: int | None,
        outputs: Mapping[StreamKind, int],
        terminal: int | None,
        program: str,
        told: bool = False,
    ) -> None:
        self.program = program
        self._pidfd = pidfd
        self._told = told  # crun writes its complaint to stderr, too
        self._files = files
        self._stdin = stdin
        self._outputs = dict(outputs)
        self._terminal = terminal
        self._turn = 0
        self._exit_code: int | None = None
        self._complaint = b""
        self._refusal: LinkspanError | None = None
        self._reaping = trio.Lock()

    @property
    def pid(self) -> int:
        """Its host pid, from the runtime's file; 0 until that is written."""
        try:
            text = self._files.pid.read_text().strip()
        except OSError:
            return 0
        return int(text) if text.isdecimal() else 0

    async def receive(self) -> Chunk | None:
        """The next output; a message of the runtime that it could not run comes as stderr."""
        while self._outputs:
            chunk = self._read_ready()
            if chunk is not None:
                await trio.lowlevel.checkpoint()
                if self._told and await self._is_runtimes(chunk):
                    continue
                self._told = False
                return chunk
            if self._outputs:
                await self._readable()
        await self.wait()
        complaint, self._complaint = self._complaint, b""
        if complaint:
            kind = StreamKind.STDERR if self._terminal is None else StreamKind.STDOUT
            return Chunk(kind, complaint)
        return None

    async def _is_runtimes(self, chunk: Chunk) -> bool:
        """Whether it is what crun says to stderr as well as to its log: that is told in Docker's words."""
        text = chunk.data.decode(errors="replace").strip()
        if chunk.stream is not StreamKind.STDERR or refusal.exit_code_of_exec(text) == 1:
            return False
        with trio.move_on_after(_LOG_TIMEOUT_S):
            # A runtime that says so ends at once.
            await trio.lowlevel.wait_readable(self._pidfd)
        try:
            said = self._files.log.read_text(errors="replace").strip()
        except OSError:
            return False
        return bool(said) and refusal.plain(said) in text

    def _read_ready(self) -> Chunk | None:
        """Read whichever output has something, in turn."""
        kinds = list(self._outputs)
        for step in range(len(kinds)):
            kind = kinds[(self._turn + step) % len(kinds)]
            fd = self._outputs[kind]
            try:
                data = os.read(fd, _PIPE_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                data = b""  # EIO: the terminal's last process is gone
            if data:
                self._turn = (self._turn + step + 1) % len(kinds)
                return Chunk(kind, data)
            del self._outputs[kind]
            if fd != self._terminal:
                os.close(fd)
        return None

    async def _readable(self) -> None:
        fds = list(self._outputs.values())
        if len(fds) == 1:
            await trio.lowlevel.wait_readable(fds[0])
            return
        async with trio.open_nursery() as nursery:

            async def first(fd: int) -> None:
                await trio.lowlevel.wait_readable(fd)
                nursery.cancel_scope.cancel()

            for fd in fds:
                nursery.start_soon(first, fd)

    async def send(self, data: bytes) -> None:
        """Write to stdin."""
        view = memoryview(data)
        while view and self._stdin is not None:
            try:
                written = os.write(self._stdin, view)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._stdin)
                continue
            except OSError:
                break
            view = view[written:]
        await trio.lowlevel.checkpoint()

    async def close_stdin(self) -> None:
        """End of input; on a terminal that is the character for it, Ctrl-D."""
        if self._stdin is not None:
            if self._stdin == self._terminal:
                with contextlib.suppress(OSError):
                    os.write(self._stdin, b"\x04")
            else:
                os.close(self._stdin)
            self._stdin = None
        await trio.lowlevel.checkpoint()

    async def resize(self, height: int, width: int) -> None:
        """Tell the terminal."""
        if self._terminal is not None:
            _set_size(self._terminal, (height, width))
        await trio.lowlevel.checkpoint()

    async def started(self) -> None:
        """See the contract; the runtime names the pid when the program runs, or ends and says why not."""
        with trio.move_on_after(_START_TIMEOUT_S):
            while not self.pid:
                if self._exit_code is not None:
                    break
                await trio.sleep(_PID_POLL_S)
        if self._refusal is not None:
            raise self._refusal

    async def wait(self) -> int:
        """The exit code."""
        async with self._reaping:
            if self._exit_code is None:
                await trio.lowlevel.wait_readable(self._pidfd)
                self._exit_code = self._collect()
        return self._exit_code

    def _collect(self) -> int:
        """Reap the runtime, whose exit status is the process's, or its own refusal."""
        result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        assert result is not None
        code = result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status
        if code:
            try:
                complaint = self._files.log.read_text(errors="replace").strip()
            except OSError:
                complaint = ""
            if complaint:
                text = refusal.plain(complaint)
                refused = refusal.exit_code_of_exec(text)
                error = refusal.exec_error(complaint, self.program)
                if refused in (126, 127, 128):
                    self._refusal = error
                self._complaint = f"{error}\n".encode()
                return refused if self.pid == 0 or code == 1 else code
        return code

    async def end(self) -> None:
        """Kill what still runs and release everything."""
        if self._exit_code is None:
            await self._kill()
            await self.wait()
        for fd in {*self._outputs.values(), self._stdin, self._terminal} - {None}:
            assert fd is not None
            os.close(fd)
        self._outputs.clear()
        os.close(self._pidfd)
        self._files.remove()

    async def _kill(self) -> None:
        """Kill the process in the container; the runtime, which waits for it, ends by itself.

        Killing the runtime would leave the process running. Its pid is known a moment after the start;
        a runtime that names none for a second hangs (in a frozen container, say) and is killed.
        """
        with trio.move_on_after(_PID_TIMEOUT_S):
            while not (self.pid and kill_group(self.pid)):
                with trio.move_on_after(_PID_POLL_S):
                    await trio.lowlevel.wait_readable(self._pidfd)
                    return
            return
        self.kill_runtime()

    def adjust(self, score: int) -> None:
        """Have the runtime, and so what it is yet to start, killed sooner or later (see ``_adjusted``)."""
        with contextlib.suppress(OSError):  # it has ended, and its log says why
            told = Path(f"/proc/self/fdinfo/{self._pidfd}").read_text()
            pid = told.partition("\nPid:")[2].split()[0]
            Path(f"/proc/{pid}/oom_score_adj").write_text(str(score))

    def kill_runtime(self) -> None:
        """Kill the runtime itself, while it has made no process, or if it hangs."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)


def _set_size(terminal: int, size: tuple[int, int]) -> None:
    """Tell a terminal its rows and columns."""
    with contextlib.suppress(OSError):
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))


def kill_group(pid: int) -> bool:
    """Kill a process of a session and its group (the runtime made it a leader); whether it was there."""
    try:
        if os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@asynccontextmanager
async def run_on_terminal(
    command: ExecCommand, document: Mapping[str, Any]
) -> AsyncIterator[ExecSession]:
    """Run a process on a terminal of its own in a container; leaving kills it.

    Args:
        document: The process of runtime-spec's config.json.

    Raises:
        Internal: The runtime cannot be started.
    """
    if command.is_crun:
        session = await _with_terminal(command, document)
    else:
        session = _with_relayed_terminal(command, document)
    async with ended(session):
        yield session


@asynccontextmanager
async def ended(session: ExecSession) -> AsyncIterator[None]:
    """See to it that a session has ended afterwards."""
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            await session.end()


def _files(command: ExecCommand) -> _Files:
    command.folder.mkdir(mode=0o700, exist_ok=True)
    name = secrets.token_hex(8)
    return _Files(
        process=command.folder / f"{name}.json",
        pid=command.folder / f"{name}.pid",
        log=command.folder / f"{name}.log",
    )


def _argv(command: ExecCommand, files: _Files, process: str, *more: str) -> list[str]:
    return [
        *command.runtime,
        *("--log", str(files.log), "exec"),
        *("--process", process, "--pid-file", str(files.pid)),
        *more,
        command.container_id,
    ]


def _adjusted(document: Mapping[str, Any]) -> list[str]:
    """Words before the runtime's, for a process that is to be killed sooner or later than the daemon.

    crun 1.8 leaves this out in an exec; what it starts has what it has itself.
    """
    return ["choom", "-n", str(document[_ADJUSTMENT]), "--"] if _ADJUSTMENT in document else []


def _spawn(
    argv: list[str],
    files: _Files,
    *descriptors: int,
    new_session: bool = True,
) -> int:
    """Start the runtime with these as 0, 1, 2 and so on; return its pidfd."""
    try:
        pid = spawn(
            argv,
            environment=_ENVIRONMENT,
            cwd="/",
            descriptors=descriptors,
            new_session=new_session,
        )
    except OSError as exc:
        files.remove()
        raise Internal(f"cannot start {argv[0]}: {exc}", code="runtime_failed") from exc
    return os.pidfd_open(pid)


class Waiting:
    """A runtime that is started, and waits to be told what to run. To be used once: ``run`` or ``end``.

    Attributes:
        stdin: Whether the process will have one.
    """

    def __init__(self, session: ExecSession, document: int, stdin: bool) -> None:
        self._session = session
        self._document = document
        self.stdin = stdin

    async def run(self, document: Mapping[str, Any]) -> ExecSession:
        """Tell it the process of runtime-spec's config.json.

        If cancelled: it is ended.
        """
        self._session.program = document["args"][0]
        if _ADJUSTMENT in document:
            self._session.adjust(document[_ADJUSTMENT])
        view = memoryview(orjson.dumps(document))
        try:
            while view:
                try:
                    view = view[os.write(self._document, view) :]
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._document)
                except BrokenPipeError:
                    break  # it has ended, and its log says why
        except BaseException:
            await self.end()
            raise
        self._close()
        return self._session

    async def end(self) -> None:
        """It is not needed: end it."""
        self._session.kill_runtime()
        self._close()
        with trio.CancelScope(shield=True):
            await self._session.end()

    def _close(self) -> None:
        document, self._document = self._document, -1
        if document >= 0:
            os.close(document)


def begin(command: ExecCommand) -> Waiting:
    """Start the runtime for a process without a terminal.

    Raises:
        Internal: It cannot be started.
    """
    files = _files(command)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    in_read, in_write = os.pipe() if command.stdin else (null, None)
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    document_read, document_write = os.pipe()
    try:
        argv = _argv(command, files, "/proc/self/fd/3")
        pidfd = _spawn(argv, files, in_read, out_write, err_write, document_read)
    except BaseException:
        for fd in {out_read, err_read, in_write, document_write} - {None}:
            assert fd is not None
            os.close(fd)
        raise
    finally:
        for fd in {null, in_read, out_write, err_write, document_read}:
            os.close(fd)
    for fd in (out_read, err_read, in_write):
        if fd is not None:
            os.set_blocking(fd, False)
            with contextlib.suppress(OSError):  # over the user's limit for pipes
                fcntl.fcntl(fd, _F_SETPIPE_SZ, _PIPE_BYTES)
    os.set_blocking(document_write, False)
    session = ExecSession(
        pidfd=pidfd,
        files=files,
        stdin=in_write,
        outputs={StreamKind.STDOUT: out_read, StreamKind.STDERR: err_read},
        terminal=None,
        program="",
        told=command.is_crun,
    )
    return Waiting(session, document_write, command.stdin)


def _with_relayed_terminal(command: ExecCommand, document: Mapping[str, Any]) -> ExecSession:
    files = _files(command)
    write_file(files.process, orjson.dumps(document))
    master, slave = os.openpty()
    if any(command.console_size):
        _set_size(master, command.console_size)
    try:
        # With a terminal of its own, the runtime hears of new sizes by SIGWINCH.
        words = _argv(command, files, str(files.process), "--tty")
        argv = ["setsid", "--ctty", *_adjusted(document), *words]
        pidfd = _spawn(argv, files, slave, slave, slave, new_session=False)
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)
    os.set_blocking(master, False)
    return _terminal_session(command, files, pidfd, master, document["args"][0])


def _terminal_session(
    command: ExecCommand, files: _Files, pidfd: int, terminal: int | None, program: str
) -> ExecSession:
    return ExecSession(
        pidfd=pidfd,
        files=files,
        stdin=terminal if command.stdin else None,
        outputs={} if terminal is None else {StreamKind.STDOUT: terminal},
        terminal=terminal,
        program=program,
    )


async def _with_terminal(command: ExecCommand, document: Mapping[str, Any]) -> ExecSession:
    files = _files(command)
    write_file(files.process, orjson.dumps(document))
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    socket_path = files.pid.with_suffix(".s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        folder = os.open(command.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            listener.bind(f"/proc/self/fd/{folder}/{socket_path.name}")
        finally:
            os.close(folder)
        listener.listen(1)
        listener.setblocking(False)
        try:
            words = ("--tty", "--console-socket", str(socket_path))
            argv = [*_adjusted(document), *_argv(command, files, str(files.process), *words)]
            pidfd = _spawn(argv, files, null, null, null)
            try:
                terminal = await _receive_terminal(listener, pidfd)
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                with trio.CancelScope(shield=True):
                    await trio.lowlevel.wait_readable(pidfd)
                reap(pidfd)
                files.remove()
                raise
        finally:
            os.close(null)
            socket_path.unlink(missing_ok=True)
    if terminal is not None and any(command.console_size):
        # crun makes an exec session's terminal without a size.
        _set_size(terminal, command.console_size)
    return _terminal_session(command, files, pidfd, terminal, document["args"][0])


async def _receive_terminal(listener: socket.socket, pidfd: int) -> int | None:
    """Take the terminal's master; None if the runtime ended before it made one."""
    async with trio.open_nursery() as nursery:

        async def first(fd: int) -> None:
            await trio.lowlevel.wait_readable(fd)
            nursery.cancel_scope.cancel()

        nursery.start_soon(first, pidfd)
        nursery.start_soon(first, listener.fileno())
    try:
        # A quick process may have ended by now: what its runtime sent is there all the same.
        connection, _ = listener.accept()
    except BlockingIOError:
        return None
    with connection:
        connection.setblocking(False)
        await trio.lowlevel.wait_readable(connection)
        _, fds, _, _ = socket.recv_fds(connection, 4096, 1)
    if not fds:
        return None
    os.set_inheritable(fds[0], False)
    os.set_blocking(fds[0], False)
    return fds[0]
