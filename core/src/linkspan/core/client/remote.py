"""Connections to a daemon on another machine: TCP, TLS over it, and SSH."""

import os
import socket
from typing import Final
from urllib.parse import SplitResult, urlsplit

from linkspan.core.client.address import Address
from linkspan.core.client.errors import Unreachable

_CONNECT_TIMEOUT_S: Final = 15.0
_PORT: Final = 2375
_TLS_PORT: Final = 2376
_FORMS: Final = "write unix:///path, tcp://host:port or ssh://user@host"


def connect(address: Address) -> socket.socket:
    """A socket that the daemon of an address has accepted.

    Raises:
        Unreachable: Nobody accepts it, or the address cannot be read.
    """
    try:
        url = urlsplit(address.url)
        port, host = url.port, url.hostname
    except ValueError as exc:
        raise Unreachable(address.url, "no-socket", f"not an address: {exc}", _FORMS) from exc
    if not host or url.query or url.fragment:
        raise Unreachable(address.url, "no-socket", "the address has no host", _FORMS)
    if url.scheme == "ssh":
        return _connect_ssh(address, url)
    if url.scheme not in ("tcp", "http", "https"):
        raise Unreachable(
            address.url, "no-socket", f"there is no way '{url.scheme}://' to a daemon", _FORMS
        )
    secure = address.tls is not None or url.scheme == "https"
    sock = _connect_tcp(address, host, port or (_TLS_PORT if secure else _PORT))
    if not secure:
        return sock
    from linkspan.core.client.tls import wrap

    return wrap(sock, address, host)


def _connect_tcp(address: Address, host: str, port: int) -> socket.socket:
    try:
        sock = socket.create_connection((host, port), _CONNECT_TIMEOUT_S)
    except socket.gaierror as exc:
        reason = f"the name '{host}' is not known: {exc.strerror}"
        raise Unreachable(address.url, "no-socket", reason, "linkspan context ls") from exc
    except TimeoutError as exc:
        reason = f"{host}:{port} does not answer within {_CONNECT_TIMEOUT_S:g}s"
        raise Unreachable(address.url, "silent", reason, "linkspan context ls") from exc
    except OSError as exc:
        reason = f"{host}:{port}: {exc.strerror or exc}"
        raise Unreachable(address.url, "refused", reason, "linkspan context ls") from exc
    sock.settimeout(None)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return sock


def ssh_command(url: SplitResult) -> list[str]:
    """The program that joins its stdin and stdout to the daemon of another machine.

    Raises:
        ValueError: A part of the address could be taken for an option.
    """
    user, host = url.username or "", url.hostname or ""
    if user.startswith("-") or host.startswith("-") or url.password is not None:
        raise ValueError("an SSH address has no password, and nothing in it begins with '-'")
    command = ["ssh", "-T", "-o", f"ConnectTimeout={_CONNECT_TIMEOUT_S:g}"]
    command += ["-l", user] if user else []
    command += ["-p", str(url.port)] if url.port else []
    path = url.path.rstrip("/")
    far = ["linkspan", *(["--host", f"unix://{path}"] if path else []), "system", "dial-stdio"]
    if (
        path
        and not path.replace("/", "").replace("-", "").replace(".", "").replace("_", "").isalnum()
    ):
        raise ValueError("the path of the socket may have letters, digits, '-', '_' and '.' only")
    return [*command, "--", host, *far]


def _connect_ssh(address: Address, url: SplitResult) -> socket.socket:
    try:
        command = ssh_command(url)
    except ValueError as exc:
        raise Unreachable(address.url, "no-socket", str(exc), _FORMS) from exc
    _reap()
    near, far = socket.socketpair()
    with far:
        wired = [(os.POSIX_SPAWN_DUP2, far.fileno(), number) for number in (0, 1)]
        try:
            # In a session of its own: Ctrl-C is for the command, which closes the connection when it ends.
            pid = os.posix_spawnp(
                command[0], command, {**os.environ, "LC_ALL": "C"}, file_actions=wired, setsid=True
            )
        except OSError as exc:
            near.close()
            reason = f"ssh cannot be run: {exc.strerror}"
            raise Unreachable(address.url, "no-socket", reason, "install openssh-client") from exc
    _running.add(pid)
    return near


_running: Final[set[int]] = set()


def _reap() -> None:
    """Forget those that have ended: each connection has one, and a view makes many."""
    for pid in list(_running):
        try:
            ended, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            ended = pid
        if ended:
            _running.discard(pid)
