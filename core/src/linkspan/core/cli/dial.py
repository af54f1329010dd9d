"""``linkspan system dial-stdio``: joins stdin and stdout to the daemon, for ``ssh://`` addresses."""

import os
import signal
import socket
from contextlib import closing, suppress
from typing import Final

from linkspan.core.cli.command import command
from linkspan.core.cli.session import Session
from linkspan.core.client.terminal_stream import write_all

_READ: Final = 64 * 1024


@command(
    "dial-stdio",
    "Join stdin and stdout to the daemon; an ssh:// address runs this at the other end.",
    examples=["linkspan system dial-stdio < request > answer"],
    more=["linkspan context create"],
)
def dial_stdio(session: Session) -> None:
    """Be a wire: a process for each way, so that neither waits for the other."""
    with closing(session.api.connect()) as sock:
        child = os.fork()
        if child == 0:
            try:
                while data := os.read(0, _READ):
                    sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
            finally:
                os._exit(0)
        try:
            while data := sock.recv(_READ):
                write_all(1, data)
        finally:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
