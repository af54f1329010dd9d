"""Sockets that the daemon listens on."""

import contextlib
import errno
import grp
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import trio

from linkspan.sdk.errors import Conflict, InvalidArgument, PermissionDenied, Unavailable

# sockaddr_un.sun_path holds 108 bytes with the final zero (unix(7)).
MAX_PATH_BYTES = 107
DEFAULT_GROUP = "linkspan"
BACKLOG = 1024
# What trio.serve_listeners waits for, too: others may give back what the process or the machine lacks.
_LACKING: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_LACKING_S: Final = 0.1
# The client has gone again, or may not come: errors of its connection, not of ours (accept(2)).
_OF_CLIENT: Final = frozenset(
    getattr(errno, name)
    for name in (
        *("ECONNABORTED", "EPERM", "EPROTO", "ETIMEDOUT", "EOPNOTSUPP", "ENOPROTOOPT"),
        *("ENETDOWN", "ENETUNREACH", "EHOSTDOWN", "EHOSTUNREACH", "ENONET"),
    )
)

log = logging.getLogger(__name__)


async def open_unix_listener(
    path: Path | str, mode: int = 0o660, group: str = DEFAULT_GROUP
) -> trio.SocketListener:
    """Listen on a unix socket; the folder is made if it is missing, a stale socket is replaced.

    Args:
        mode: Of the socket file; it never has another one, not even for a moment.
        group: Owner group of the file if such a group exists; else the process's own.

    Raises:
        InvalidArgument: The path is too long for a socket.
        Conflict: Another daemon answers there (code ``daemon_running``), or it is not a socket.
        PermissionDenied: We may not write there.
    If cancelled: nothing listens, a stale socket may be gone.
    """
    place = Path(path)
    length = len(os.fsencode(place))
    if length > MAX_PATH_BYTES:
        raise InvalidArgument(
            f"socket path {place} has {length} bytes; the kernel allows {MAX_PATH_BYTES}",
            code="socket_path_too_long",
            help="choose a shorter --exec-root or --host unix://PATH",
        )
    try:
        listening = await trio.to_thread.run_sync(_listen, place, mode, group)
    except PermissionError as error:
        raise PermissionDenied(f"cannot listen on {place}: {error.strerror}") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise _taken(place) from error
        raise Unavailable(f"cannot listen on {place}: {error.strerror}") from error
    return trio.SocketListener(trio.socket.from_stdlib_socket(listening))


def _taken(place: Path) -> Conflict:
    return Conflict(
        f"another daemon answers at unix://{place}",
        code="daemon_running",
        help="stop it, or give this one --host unix://PATH, --data-root and --exec-root of its own",
    )


def _listen(place: Path, mode: int, group: str) -> socket.socket:
    place.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(place)
    return _bind(place, mode, group)


def _remove_stale(place: Path) -> None:
    """Remove a socket that nobody listens on."""
    try:
        found = place.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise Conflict(f"{place} exists and is not a socket", code="not_a_socket")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            probe.connect(os.fspath(place))
    except (ConnectionRefusedError, FileNotFoundError):
        place.unlink(missing_ok=True)
    except BlockingIOError as error:
        # Its queue of connections is full: somebody listens, though slowly.
        raise _taken(place) from error
    else:
        raise _taken(place)


def _bind(place: Path, mode: int, group: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The file gets the mode of the unbound socket's inode, less the umask (unix_bind in the kernel).
        os.fchmod(listening.fileno(), mode)
        listening.bind(os.fspath(place))
        place.chmod(mode)
        try:
            gid = grp.getgrnam(group).gr_gid if group else -1
        except KeyError:
            gid = -1
        if gid != -1:
            # A daemon that is not root and not in the group serves its own user only.
            with contextlib.suppress(PermissionError):
                os.chown(place, -1, gid)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


async def accept_all(
    listener: trio.SocketListener,
    take: Callable[[trio.socket.SocketType], Awaitable[None]],
    connections: trio.Nursery,
) -> None:
    """Run ``take(socket)`` in a nursery for each connection, until cancelled; the listener is closed then.

    As ``trio.serve_listeners``, without a stream around each socket: that asks unix sockets for options of TCP,
    and closes in a turn of the loop of its own. ``take`` closes the socket.
    """
    async with listener:
        while True:
            try:
                accepted, _ = await listener.socket.accept()
            except OSError as error:
                if error.errno in _LACKING:
                    log.exception("no connection accepted")
                    await trio.sleep(_LACKING_S)
                elif error.errno not in _OF_CLIENT:
                    raise
            else:
                connections.start_soon(take, accepted)


def remove_unix_socket(path: Path | str) -> None:
    """Remove the file of a socket that was listened on; nothing if it is gone already."""
    Path(path).unlink(missing_ok=True)
