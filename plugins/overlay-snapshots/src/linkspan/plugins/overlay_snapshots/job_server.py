"""A small process that forks one child for each job.

The daemon is threaded and large: forking it is slow (and unsafe), and a fresh interpreter for every
layer takes longer than most layers. This process has loaded what the jobs need, and always has one
child ready, so that a job does not even wait for a fork. It is started as
``python -P -m linkspan.plugins.overlay_snapshots.job_server FD PARENT``.

Protocol: on the control socket (SEQPACKET), one message a job: JSON ``{"job": …, "task": …}`` with
descriptors; the first is the reply socket (STREAM), the others are the job's. The child that waits
takes it, sends one byte with its pidfd, then JSON ``{"result": …}`` or ``{"error": …}``, then ends.

It ends when the daemon closes the control socket or dies, and its children end with it.
"""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any, Final

from linkspan.plugins.overlay_snapshots.faults import dumps, from_os_error, to_wire
from linkspan.plugins.overlay_snapshots.jobs import JOBS
from linkspan.plugins.overlay_snapshots.kernel import die_with_parent
from linkspan.sdk.errors import Internal, LinkspanError
from linkspan.sdk.memory import keep_buffers

MESSAGE_BYTES: Final = 1 << 20
MAX_FDS: Final = 8
_RETRY_DELAY_S: Final = 0.1


def main() -> None:
    """Serve until the daemon is gone."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    die_with_parent(signal.SIGKILL)
    if os.getppid() != int(sys.argv[2]):
        return
    # Children are reaped by the kernel; the daemon watches them by their pidfds.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    keep_buffers()
    gc.collect()
    gc.disable()
    gc.freeze()
    taken = os.pipe2(os.O_CLOEXEC)
    while _serve_one(control, taken):
        pass


def _serve_one(control: socket.socket, taken: tuple[int, int]) -> bool:
    """Keep a child ready until it has taken a job; False when the daemon is gone."""
    server = os.getpid()
    try:
        child = os.fork()
    except OSError:
        # Too many processes, or no memory: what waits may end meanwhile.
        time.sleep(_RETRY_DELAY_S)
        return True
    if child == 0:
        status = 1
        try:
            die_with_parent(signal.SIGKILL)
            if os.getppid() == server:
                _wait_and_run(control, taken[1])
                status = 0
        finally:
            os._exit(status)
    poll = select.poll()
    poll.register(taken[0], select.POLLIN)
    poll.register(control, 0)
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(child)
        try:
            poll.register(pidfd, select.POLLIN)
            events = dict(poll.poll())
        finally:
            os.close(pidfd)
        if taken[0] in events:
            os.read(taken[0], 1)
        elif control.fileno() in events:
            return False
        # Else the child has died while it waited: there must be another one.
    return True


def _wait_and_run(control: socket.socket, taken: int) -> None:
    data, fds, _, _ = socket.recv_fds(control, MESSAGE_BYTES, MAX_FDS)
    if data:
        os.write(taken, b".")
        control.close()
        os.close(taken)
        _run(json.loads(data), fds)


def _run(message: dict[str, Any], fds: list[int]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    reply = socket.socket(fileno=fds[0])
    pidfd = os.pidfd_open(os.getpid())
    socket.send_fds(reply, [b"."], [pidfd])
    os.close(pidfd)
    answer: dict[str, Any]
    try:
        answer = {"result": JOBS[message["job"]](message["task"], fds[1:])}
    except LinkspanError as error:
        answer = {"error": to_wire(error)}
    except OSError as error:
        answer = {"error": to_wire(from_os_error(error))}
    except Exception as error:  # noqa: BLE001 - whatever it is, the daemon must hear of it
        answer = {"error": to_wire(Internal(f"a job failed: {error!r}"))}
    reply.sendall(dumps(answer))


if __name__ == "__main__":
    main()
