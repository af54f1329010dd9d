"""Why a server was not reached, in the words of Docker, which are Go's."""

import errno
import socket
from collections.abc import Iterator


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and all that it came of: causes, contexts and the members of groups, each once."""
    seen: set[int] = set()
    todo = [error]
    while todo:
        one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, BaseExceptionGroup):
            todo += one.exceptions
        todo += [e for e in (one.__cause__, one.__context__) if e is not None]


def why_unreachable(error: BaseException, host: str, port: int) -> str:
    """``dial tcp 127.0.0.1:1: connect: connection refused``; empty if a connection was not what failed.

    Args:
        host: A name or address; one of IPv6 without brackets.
    """
    shown = f"[{host}]" if ":" in host else host
    for one in causes(error):
        if isinstance(one, socket.gaierror):
            return f"dial tcp: lookup {host}: no such host"
        if isinstance(one, ConnectionRefusedError):
            return f"dial tcp {shown}:{port}: connect: connection refused"
        if isinstance(one, OSError) and one.errno == errno.ENETUNREACH:
            return f"dial tcp {shown}:{port}: connect: network is unreachable"
        if isinstance(one, OSError) and one.errno == errno.EHOSTUNREACH:
            return f"dial tcp {shown}:{port}: connect: no route to host"
    return ""
