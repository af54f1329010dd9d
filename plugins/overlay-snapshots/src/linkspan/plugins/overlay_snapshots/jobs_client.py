"""The daemon's side of the job server."""

import array
import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Self

import trio

from linkspan.plugins.overlay_snapshots.faults import dumps, from_wire
from linkspan.sdk.errors import Internal, LinkspanError
from linkspan.sdk.lending import Loan
from linkspan.sdk.pipes import write_all
from linkspan.sdk.pouring import Pourable

_MODULE: Final = "linkspan.plugins.overlay_snapshots.job_server"
_READ_BYTES: Final = 256 << 10
_END_TIMEOUT_S: Final = 2.0
_PIPE_BYTES: Final = 1 << 20


class Job:
    """A job under way."""

    def __init__(self, reply: socket.socket) -> None:
        self._reply = reply
        self._pidfd = -1
        self._data = bytearray()
        self._over = False

    async def answer(self) -> Any:
        """Wait for the end; return what the job returned, or the error that it raised.

        Errors are returned, so that a caller with a nursery of its own can raise them bare.
        If cancelled: the job goes on until its context ends.
        """
        while not self._over:
            await self._receive()
        try:
            message = json.loads(self._data)
        except ValueError:
            return Internal("a helper process ended without an answer", code="helper_died")
        if "error" in message:
            return from_wire(message["error"])
        return message["result"]

    async def result(self) -> Any:
        """As ``answer``, but errors are raised."""
        answer = await self.answer()
        if isinstance(answer, LinkspanError):
            raise answer
        return answer

    async def _receive(self) -> None:
        await trio.lowlevel.wait_readable(self._reply)
        size = array.array("i").itemsize
        try:
            data, ancillary, _, _ = self._reply.recvmsg(_READ_BYTES, socket.CMSG_SPACE(size))
        except ConnectionResetError:
            data, ancillary = b"", []
        for _, _, value in ancillary:
            self._pidfd = array.array("i", value[:size])[0]
            data = data[1:] if data[:1] == b"." else data
            if not data:
                return
        self._data += data
        self._over = not data

    async def end(self) -> None:
        """Kill it if it has not answered, and wait until it is gone. If cancelled: it is killed."""
        try:
            while not self._over and self._pidfd < 0:
                # The child names itself first thing.
                await self._receive()
            if self._pidfd >= 0 and not self._over:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
                await trio.lowlevel.wait_readable(self._pidfd)
        finally:
            if self._pidfd >= 0:
                os.close(self._pidfd)
            self._reply.close()


class JobServer:
    """Starts the server and hands it jobs; starts it again should it have died."""

    def __init__(self) -> None:
        self._control: socket.socket | None = None
        self._pid = 0

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Self]:
        """Run the server for as long as the context lasts.

        It must be entered on the main thread: the server dies with the thread that started it.
        """
        self = cls()
        self._start()
        try:
            yield self
        finally:
            with trio.CancelScope(shield=True):
                await self._stop()

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            theirs.set_inheritable(True)
            number = str(theirs.fileno())
            arguments = [sys.executable, "-P", "-m", _MODULE, number, str(os.getpid())]
            self._pid = os.posix_spawn(sys.executable, arguments, os.environ, setpgroup=0)
        ours.setblocking(False)
        self._control = ours

    async def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if not self._pid:
            return
        pid, self._pid = self._pid, 0
        pidfd = os.pidfd_open(pid)
        try:
            with trio.move_on_after(_END_TIMEOUT_S):
                await trio.lowlevel.wait_readable(pidfd)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            await trio.lowlevel.wait_readable(pidfd)
            with contextlib.suppress(ChildProcessError):
                # It has ended: this does not wait.
                os.waitid(os.P_PIDFD, pidfd, os.WEXITED)  # noqa: ASYNC222
        finally:
            os.close(pidfd)

    @asynccontextmanager
    async def job(
        self, name: str, task: Mapping[str, Any], fds: Sequence[int] = ()
    ) -> AsyncIterator[Job]:
        """Start a job; when the context ends, its process is gone.

        Raises:
            Internal: code ``helper_died``: The server cannot be reached.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        with theirs:
            try:
                await self._send(dumps({"job": name, "task": task}), [theirs.fileno(), *fds])
            except BaseException:
                ours.close()
                raise
        job = Job(ours)
        try:
            yield job
        finally:
            with trio.CancelScope(shield=True):
                await job.end()

    async def run(self, name: str, task: Mapping[str, Any]) -> Any:
        """Do a job and return its result.

        Raises:
            LinkspanError: What the job raised.
        If cancelled: the job is killed.
        """
        async with self.job(name, task) as job:
            answer = await job.answer()
        if isinstance(answer, LinkspanError):
            raise answer
        return answer

    async def fed(
        self,
        name: str,
        task: Mapping[str, Any],
        source: AsyncIterator[bytes],
        loan: Loan | None = None,
    ) -> Any:
        """Do a job that reads a pipe, into which ``source`` goes; return its result.

        Args:
            loan: Of the source, if it is lent. The job goes on reading behind the pipe then, from its second
                descriptor; its task has ``lent`` (the terms), and its result is the report.

        Raises:
            LinkspanError: What the job raised.
            Exception: What the source raised.
        If cancelled: the job is killed.
        """
        reading, writing = pipe_to_child()
        ends = [reading, writing]
        fds = [reading]
        if loan is not None:
            task, fds = {**task, "lent": loan.terms}, [reading, loan.descriptor]
        try:
            async with self.job(name, task, fds) as job:
                os.close(reading)
                ends.remove(reading)
                failure: Exception | None = None

                async def pump() -> None:
                    nonlocal failure
                    try:
                        if loan is not None:
                            await write_all(writing, loan.ahead)
                        elif isinstance(source, Pourable):
                            while await source.pour(writing):
                                pass
                        else:
                            async for chunk in source:
                                await write_all(writing, chunk)
                    except BrokenPipeError:
                        # The child has ended before the stream; its answer says why.
                        return
                    except Exception as error:  # noqa: BLE001 - raised below, outside the nursery
                        failure = error
                    finally:
                        os.close(writing)
                        ends.remove(writing)
                        if isinstance(source, AsyncGenerator):
                            await source.aclose()

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(pump)
                    answer = await job.answer()
                    nursery.cancel_scope.cancel()
        finally:
            for fd in ends:
                os.close(fd)
        if failure is not None:
            raise failure
        if isinstance(answer, LinkspanError):
            raise answer
        if loan is not None:
            loan.given_back(answer)
        return answer

    async def _send(self, message: bytes, fds: Sequence[int]) -> None:
        for _ in range(2):
            if self._control is None:
                raise Internal("the snapshots driver is closed", code="helper_died")
            try:
                await self._send_once(self._control, message, fds)
            except (BrokenPipeError, ConnectionResetError):
                await self._stop()
                self._start()
            else:
                return
        raise Internal("the helper process of the snapshots driver dies", code="helper_died")

    async def _send_once(self, control: socket.socket, message: bytes, fds: Sequence[int]) -> None:
        while True:
            try:
                socket.send_fds(control, [message], list(fds))
            except BlockingIOError:
                await trio.lowlevel.wait_writable(control)
            else:
                return


def pipe_to_child() -> tuple[int, int]:
    """Read and write end; large, so that the child seldom waits, and our end does not block."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    _widen(writing)
    os.set_blocking(writing, False)
    return reading, writing


def pipe_from_child() -> tuple[int, int]:
    """Read and write end; our end does not block."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    _widen(writing)
    os.set_blocking(reading, False)
    return reading, writing


def _widen(fd: int) -> None:
    # EPERM: above /proc/sys/fs/pipe-max-size; a small pipe is only slower.
    with contextlib.suppress(PermissionError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
