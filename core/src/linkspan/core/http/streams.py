"""Bytes to and from a client: gather writes, chunked bodies, taken-over connections, vanished clients.

Parts of a message go out in one sendmsg without being joined (a Docker frame is a header of 8 bytes and
up to a megabyte of data; joining would copy it).
"""

import fcntl
import os
import select
import socket
import struct
import termios
from collections.abc import Awaitable, Callable, Iterable

import trio

from linkspan.core.http.errors import single_cause
from linkspan.sdk.http import Duplex

RECEIVE_BYTES = 1 << 16
BODY_RECEIVE_BYTES = 1 << 18
# sendmsg takes at most IOV_MAX buffers (1024 on Linux).
MAX_PARTS = 512
_PIECE_BYTES = 1 << 20
_SPLICE_F_NONBLOCK = 2
HEAD_READ_S = 1.0
"""How long output of a taken-over connection waits for a client that does not read the head."""


class ClientGone(trio.BrokenResourceError):
    """The client has gone; told apart from a resource of the handler's own that broke."""


async def receive_waiting(sock: trio.socket.SocketType, most_bytes: int) -> bytes:
    """Receive what is there, as soon as something is; empty at the end.

    ``recv`` goes twice around the loop where it has waited; for a large body that is a third of all the work.

    Raises:
        ClientGone: The connection broke.
    """
    while True:
        await trio.lowlevel.wait_readable(sock)
        data = receive_ready(sock, most_bytes)
        if data is not None:
            return data


def receive_ready(sock: trio.socket.SocketType, most_bytes: int) -> bytes | None:
    """Receive what is there, empty at the end; None if nothing is there yet.

    Raises:
        ClientGone: The connection broke.
    """
    try:
        return os.read(sock.fileno(), most_bytes)
    except BlockingIOError:
        return None
    except OSError as error:
        raise ClientGone("the client has gone") from error


async def send_parts(sock: trio.socket.SocketType, parts: Iterable[bytes | memoryview]) -> None:
    """Send all parts, in as few system calls as the kernel allows.

    No checkpoint where it need not wait.

    Raises:
        ClientGone: It takes nothing any more.
    If cancelled: some of it may have been sent.
    """
    rest = put_parts(sock, parts)
    while rest:
        await trio.lowlevel.wait_writable(sock)
        rest = put_parts(sock, rest)


def put_parts(
    sock: trio.socket.SocketType, parts: Iterable[bytes | memoryview]
) -> list[bytes | memoryview]:
    """Send what the kernel takes at once; return what is left.

    Raises:
        ClientGone: It takes nothing any more.
    """
    rest = [part for part in parts if part]
    first = 0
    try:
        while first < len(rest):
            sent = os.writev(sock.fileno(), rest[first : first + MAX_PARTS])
            while first < len(rest) and sent >= len(rest[first]):
                sent -= len(rest[first])
                first += 1
            if sent:
                rest[first] = memoryview(rest[first])[sent:]
    except BlockingIOError:
        return rest[first:]
    except OSError as error:
        raise ClientGone("the client has gone") from error
    return []


async def send_from_pipe(sock: trio.socket.SocketType, pipe: int, count: int) -> None:
    """Send bytes that are in a pipe; a unix socket takes their pages as they are (splice(2)).

    Raises:
        ClientGone: It takes nothing any more.
    """
    if sock.family != socket.AF_UNIX:
        # There may be TLS on it.
        while count:
            data = os.read(pipe, min(count, _PIECE_BYTES))
            await send_parts(sock, [data])
            count -= len(data)
        return
    while count:
        try:
            count -= os.splice(pipe, sock.fileno(), count, flags=_SPLICE_F_NONBLOCK)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
        except OSError as error:
            raise ClientGone("the client has gone") from error
    await trio.lowlevel.checkpoint()


async def until_read(sock: trio.socket.SocketType) -> None:
    """Wait until the other end of a unix socket has read all that was sent, HEAD_READ_S at most.

    There is no event for it (TIOCOUTQ, ``unix(7)``'s SIOCOUTQ, is a count), so it is looked at again and
    again, at growing intervals; most clients have read before the first look.
    """
    if sock.family != socket.AF_UNIX:
        return
    pause_s = 50e-6
    with trio.move_on_after(HEAD_READ_S):
        while _waiting(sock, termios.TIOCOUTQ):
            await trio.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.01)


def _waiting(sock: trio.socket.SocketType, queue: int) -> bool:
    """Whether bytes wait in one of a socket's queues: TIOCOUTQ or FIONREAD."""
    try:
        packed = fcntl.ioctl(sock.fileno(), queue, b"\0" * 4)
    except OSError:
        return False
    return bool(struct.unpack("i", packed)[0])


async def run_for_client(
    sock: trio.socket.SocketType, run: Callable[[], Awaitable[None]], *, half_closed_is_gone: bool
) -> None:
    """Run something until it ends; cancel it when the client goes.

    Args:
        half_closed_is_gone: A client that closes its sending side counts as gone, as in Go's server. What runs
            does not read the socket.

    Raises:
        ClientGone: It went before the end.
        Exception: What ``run`` raised, bare.
    """
    gone = False

    async def watch(scope: trio.CancelScope) -> None:
        nonlocal gone
        await (_until_ended(sock) if half_closed_is_gone else _until_hung_up(sock, 0))
        gone = True
        scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, nursery.cancel_scope)
            await run()
            gone = False
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        cause = single_cause(group)
        if cause is group:
            raise
        raise cause from cause.__cause__
    if gone:
        raise ClientGone("the client has gone")


async def _until_ended(sock: trio.socket.SocketType) -> None:
    """Wait until a client sends no more, on a socket that nobody reads."""
    await trio.lowlevel.wait_readable(sock)
    if _waiting(sock, termios.FIONREAD):
        # It is ahead with its next request, which stays there and would wake us again and again.
        await _until_hung_up(sock, select.EPOLLRDHUP)


async def _until_hung_up(sock: trio.socket.SocketType, events: int) -> None:
    """Wait for a hang-up, or for others of epoll's events.

    The socket itself may be read meanwhile: a second epoll watches it, so that data which nobody has read yet
    does not wake it.
    """
    with select.epoll(1) as hang_up:
        hang_up.register(sock.fileno(), events)
        await trio.lowlevel.wait_readable(hang_up.fileno())


class SocketDuplex(Duplex):
    """A connection after 101 (or Docker's old 200 with a raw stream).

    ``send`` may be called by several tasks: what one of them sends stays together.

    The head travels alone, and output waits until it was read: docker-py and others read the head
    through a buffer that they throw away, with all that came in the same piece.

    Args:
        head: Sent before anything else.
        already: What the client sent behind its request.
    """

    def __init__(self, sock: trio.socket.SocketType, head: bytes, already: bytes = b"") -> None:
        self._socket = sock
        self._head = head
        self._already = already
        self._sending = trio.Lock()
        self._head_was_read = False
        self.started = False

    async def start(self) -> None:
        """See ``Duplex.start``."""
        if not self.started:
            await self.send()

    async def receive(self) -> bytes:
        """See ``Duplex.receive``; a client that broke off has closed its side, too."""
        await self.start()
        if self._already:
            data, self._already = self._already, b""
            await trio.lowlevel.checkpoint()
            return data
        try:
            return await self._socket.recv(RECEIVE_BYTES)
        except OSError:
            return b""

    async def send(self, *parts: bytes) -> None:
        """See ``Duplex.send``."""
        async with self._sending:
            if not self.started:
                self.started = True
                await send_parts(self._socket, (self._head,))
            if parts and not self._head_was_read:
                await until_read(self._socket)
                self._head_was_read = True
            await send_parts(self._socket, parts)
        if parts:
            await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        """See ``Duplex.send_eof``; nothing if the client has gone."""
        await self.start()
        async with self._sending:
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError:
                return
