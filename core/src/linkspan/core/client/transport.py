"""Connections to the daemon: a unix socket, TCP with or without TLS, or SSH to another machine.

Whatever the address, what comes out is a connected socket; only the first kind is imported at once.
"""

from __future__ import annotations

import os

# The C part of the module socket, which takes longer to import than a short command may.
from _socket import AF_UNIX, SOCK_STREAM, socket as RawSocket

from linkspan.core.client.errors import Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from linkspan.core.client.address import Address

CONNECT_TIMEOUT_S: Final = 5.0


def connect(address: Address) -> RawSocket:
    """A socket that the daemon of an address has accepted.

    Raises:
        Unreachable: Nobody accepts it.
    """
    if address.path:
        return _connect_unix(address.url, address.path)
    from linkspan.core.client import remote

    return remote.connect(address)


def _connect_unix(url: str, path: str) -> RawSocket:
    sock = RawSocket(AF_UNIX, SOCK_STREAM)
    sock.settimeout(CONNECT_TIMEOUT_S)
    try:
        sock.connect(path)
    except OSError as exc:
        sock.close()
        raise _unreachable(exc, url, path) from exc
    sock.settimeout(None)
    return sock


def _unreachable(exc: OSError, url: str, path: str) -> Unreachable:
    if isinstance(exc, FileNotFoundError):
        return Unreachable(url, "no-socket", "there is no such socket", "linkspan daemon start")
    if isinstance(exc, ConnectionRefusedError):
        reason = "the socket is there, but no daemon listens on it (it has ended or crashed)"
        return Unreachable(url, "refused", reason, "linkspan daemon start")
    if isinstance(exc, PermissionError):
        return _not_allowed(url, path)
    if isinstance(exc, (TimeoutError, BlockingIOError)):
        reason = f"the daemon does not accept the connection within {CONNECT_TIMEOUT_S:g}s"
        return Unreachable(url, "silent", reason, "linkspan daemon status")
    return Unreachable(url, "no-socket", exc.strerror or str(exc), "linkspan daemon status")


def _not_allowed(url: str, path: str) -> Unreachable:
    import grp
    import pwd

    def name(find: Callable[[int], Any], number: int) -> str:
        try:
            return str(find(number)[0])
        except KeyError:
            return str(number)

    user = name(pwd.getpwuid, os.geteuid())
    groups = ", ".join(name(grp.getgrgid, gid) for gid in sorted(set(os.getgroups())))
    try:
        stat = os.stat(path)  # noqa: PTH116 - pathlib costs time that a short command has not
        group = name(grp.getgrgid, stat.st_gid)
        owner = f"{name(pwd.getpwuid, stat.st_uid)}:{group}, {stat.st_mode & 0o7777:04o}"
        cure = f"sudo usermod -aG {group} {user}        and log in again"
        if stat.st_gid == 0:
            cure = "run the command as root (sudo), or set [daemon] group in the config"
    except OSError:
        owner, cure = "its folder is closed to you", "run the command as root (sudo)"
    reason = f"you ({user}: {groups}) may not open the socket ({owner})"
    return Unreachable(url, "permission", reason, cure)
