"""Programs of this machine that end soon, each with a thread from its start to its end.

``trio.run_process`` starts a program in a thread that keeps the interpreter's lock until it is loaded, then waits
for it in the loop, and empties its pipes in tasks: half a millisecond of the processor beside what the program
takes. Here the lock is let go, the loop takes one turn for all of it, and what the program says lies in memory
files that nobody has to empty. For one that takes long, or says more than fits into memory, it is not the place.
"""

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from functools import partial
from typing import cast

import trio

from linkspan.sdk.spawning import spawn
from linkspan.sdk.values import frozen


@frozen(kw_only=True)
class Ended:
    """How a program has ended.

    Attributes:
        status: Its exit code; of a signal the number, negative.
        output: What it wrote to its stdout.
        errors: What it wrote to its stderr.
    """

    status: int
    output: bytes
    errors: bytes


async def run_program(
    argv: Sequence[str],
    *,
    given: bytes = b"",
    environment: Mapping[str, str] | None = None,
    cwd: str = "",
) -> Ended:
    """Run a program to its end, in a session of its own, with no descriptors but the first three.

    Args:
        argv: The first word is the program, looked for in the environment's PATH.
        given: What it reads from its stdin.
        environment: All of it; None: as ours.
        cwd: Its working directory; empty: as ours.

    Raises:
        OSError: It cannot be started.
    If cancelled: it was killed, with all that it has started in its session's first process group.
    """
    program = _Program(argv, given, environment, cwd)
    task, token = trio.lowlevel.current_task(), trio.lowlevel.current_trio_token()
    back = partial(token.run_sync_soon, trio.lowlevel.reschedule, task)
    trio.lowlevel.start_thread_soon(program.run, back)

    def stop(_: object) -> trio.lowlevel.Abort:
        program.kill()
        return trio.lowlevel.Abort.FAILED

    try:
        ended = cast(Ended, await trio.lowlevel.wait_task_rescheduled(stop))
    finally:
        program.close()
    await trio.lowlevel.checkpoint_if_cancelled()
    return ended


class _Program:
    """One program: ``run`` in a thread of its own, the rest in that of the event loop."""

    def __init__(
        self, argv: Sequence[str], given: bytes, environment: Mapping[str, str] | None, cwd: str
    ) -> None:
        self._argv = argv
        self._given = given
        self._environment = environment
        self._cwd = cwd
        self._pidfd = -1
        self._killed = False

    def run(self) -> Ended:
        """Start it and wait for it."""
        files: list[int] = []
        try:
            for name in ("stdin", "stdout", "stderr"):
                files.append(os.memfd_create(name))
            if self._given:
                _write(files[0], self._given)
            status = self._wait(files)
            return Ended(status=status, output=_content(files[1]), errors=_content(files[2]))
        finally:
            for file in files:
                os.close(file)

    def _wait(self, files: Sequence[int]) -> int:
        pid = spawn(self._argv, descriptors=files, environment=self._environment, cwd=self._cwd)
        try:
            self._pidfd = os.pidfd_open(pid)
        except OSError:  # too many files are open
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        if self._killed:
            # Before it was there to be killed.
            self.kill()
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        if self._killed:
            # As long as nobody has waited for it, its number is that of its group and nobody else's.
            os.killpg(pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def kill(self) -> None:
        """Kill it, now or as soon as it has been started; nothing if it has ended."""
        self._killed = True
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def close(self) -> None:
        """``run`` has ended."""
        if self._pidfd >= 0:
            os.close(self._pidfd)


def _write(descriptor: int, content: bytes) -> None:
    """Fill a file, and go back to its beginning."""
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)


def _content(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0) if size else b""
