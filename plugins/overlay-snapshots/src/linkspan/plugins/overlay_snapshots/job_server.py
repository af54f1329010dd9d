"""A small process that forks one child for each job.

The daemon is threaded and large: forking it is slow (and unsafe), and a fresh interpreter for every
layer takes longer than most layers. This process has loaded what the jobs need and is forked in about
a millisecond. It is started as ``python -P -m linkspan.plugins.overlay_snapshots.job_server FD PARENT``.

Protocol: on the control socket (SEQPACKET), one message a job: JSON ``{"job": …, "task": …}`` with
descriptors; the first is the reply socket (STREAM), the others are the job's. The child sends one byte
with its pidfd, then JSON ``{"result": …}`` or ``{"error": …}``, then ends.

It ends when the daemon closes the control socket or dies, and its children end with it.
"""

import contextlib
import gc
import json
import os
import signal
import socket
import sys
from typing import Any, Final

from linkspan.plugins.overlay_snapshots.faults import dumps, from_os_error, to_wire
from linkspan.plugins.overlay_snapshots.jobs import JOBS
from linkspan.plugins.overlay_snapshots.kernel import die_with_parent
from linkspan.sdk.errors import Internal, LinkspanError

MESSAGE_BYTES: Final = 1 << 20
MAX_FDS: Final = 8


def main() -> None:
    """Serve until the daemon is gone."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    die_with_parent(signal.SIGKILL)
    if os.getppid() != int(sys.argv[2]):
        return
    # Children are reaped by the kernel; the daemon watches them by their pidfds.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.collect()
    gc.disable()
    gc.freeze()
    while True:
        data, fds, _, _ = socket.recv_fds(control, MESSAGE_BYTES, MAX_FDS)
        if not data:
            return
        _fork(control, json.loads(data), fds)


def _fork(control: socket.socket, message: dict[str, Any], fds: list[int]) -> None:
    server = os.getpid()
    try:
        child = os.fork()
    except OSError as error:
        with socket.socket(fileno=fds.pop(0)) as reply, contextlib.suppress(OSError):
            reply.sendall(dumps({"error": to_wire(from_os_error(error))}))
        child = -1
    if child == 0:
        status = 1
        try:
            die_with_parent(signal.SIGKILL)
            if os.getppid() == server:
                control.close()
                _run(message, fds)
                status = 0
        finally:
            os._exit(status)
    for fd in fds:
        os.close(fd)


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
